"""Lesson 1: load a CT in HU, on its grid in the patient."""

import lazy_loader

_NAMES = {
    "geometry": "PLANES orientation_marks require_same_grid resample_image resample_labels "
    "slice_spacing_mm to_slices",
    "hounsfield": "hu_from_stored",
    "volume": "WINDOWS Volume Window apply_window load_ct load_mask save_nifti",
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={module: names.split() for module, names in _NAMES.items()}
)
