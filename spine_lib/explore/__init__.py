"""Sliders to look with: a CT and its mask, planes, overlays, errors, and what lessons explore.

Thin widgets on `explore.render`. Each viewer also draws a still of itself for pages on which no
kernel runs, and `save_html` writes a page whose sliders work without Python.
"""

from spine_lib.explore.augmentation import AugmentationExplorer
from spine_lib.explore.compare import CompareViewer
from spine_lib.explore.explorers import ThresholdExplorer, WindowExplorer
from spine_lib.explore.ortho import OrthoViewer
from spine_lib.explore.prevalence import PrevalenceExplorer
from spine_lib.explore.quiz import AnnotationQuiz
from spine_lib.explore.receptive import ReceptiveFieldExplorer
from spine_lib.explore.shipped import compare_shipped
from spine_lib.explore.view3d import view_3d
from spine_lib.explore.viewer import SliceViewer

__all__ = [
    "AnnotationQuiz",
    "AugmentationExplorer",
    "CompareViewer",
    "OrthoViewer",
    "PrevalenceExplorer",
    "ReceptiveFieldExplorer",
    "SliceViewer",
    "ThresholdExplorer",
    "WindowExplorer",
    "compare_shipped",
    "view_3d",
]
