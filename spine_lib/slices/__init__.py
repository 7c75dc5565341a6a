"""Lesson 3: from volumes to slices, and from few slices to many."""

import lazy_loader

# Lazy, as a worker that cuts slices needs neither PyTorch nor albumentations.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augment": ["Augmentation", "TrainingAugmenter", "network_input"],
        "cut": ["cut_slices"],
        "patches": ["TrainingSlices", "WholeSlices"],
        "split": ["require_separate", "split_by_patient"],
        "store": ["Draw", "SliceStore", "prepare"],
    },
)
