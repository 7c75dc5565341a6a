"""Lesson 9: from slices to the mask of a whole scan, and what is measured on it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "masks": ["fill_holes", "keep_pieces", "largest_component", "to_mask"],
        "measure": ["by_region", "compare_volumes", "error_pieces", "voxel_ml"],
        "predict": ["predict_file", "predict_mask", "predict_regions", "predict_volume"],
        "uncertainty": ["VIEWS", "predict_views"],
    },
)
