"""Lesson 2: read a label map under the right scheme, and check it."""

import lazy_loader

_NAMES = {
    "alignment": "find_peak",
    "checks": "Finding check_annotation",
    "schemes": "CANONICAL HEAD_TO_FOOT REGIONS SCHEMES get_scheme to_canonical to_regions",
    "structures": "measure",
}
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={module: names.split() for module, names in _NAMES.items()}
)
