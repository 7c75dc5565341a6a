"""Lesson 7: compute scores of a segmentation and say how sure one can be of them.

The arithmetic on a published table (lesson 8) is the module `paper`.
"""

import lazy_loader

# fmt: off
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["paper"],
    submod_attrs={
        "overlap": [
            "SCORES", "Confusion", "accuracy", "aggregate", "confusion", "confusions_by_slice",
            "dice", "evaluate_volume", "f1", "iou", "iou_background", "iou_mean", "mean_scores",
            "precision", "recall", "scores",
        ],
        "regions": ["score_regions"],
        "statistics": [
            "bootstrap_interval", "holm", "paired_differences", "sign_flip_test", "spread",
        ],
        "surfaces": ["hd95", "nsd", "surface_distances"],
    },
)
