"""Look at a CT and its mask: planes, windows, overlays, errors, and what the lessons explore.

Each viewer draws a still of itself for pages on which no kernel runs, and `save_html` writes a
page whose sliders work without Python. `render` draws one slice, `figures` static figures.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["figures", "render"],
    submod_attrs={
        "explorers": [
            "AugmentationExplorer",
            "PrevalenceExplorer",
            "ReceptiveFieldExplorer",
            "ThresholdExplorer",
            "THRESHOLDS",
            "WindowExplorer",
            "count_paths",
            "counts_by_threshold",
        ],
        "quiz": ["MISTAKES", "AnnotationQuiz", "plant"],
        "view3d": ["view_3d"],
        "viewers": ["CompareViewer", "OrthoViewer", "SliceViewer"],
    },
)
