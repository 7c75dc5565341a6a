"""Sliders to look with: a CT and its mask, planes, overlays, errors, and what lessons explore.

Thin widgets on `spine_lib.render`; each viewer also draws a still of itself for pages on which no
kernel runs, and `save_html` writes a page whose sliders work without Python.
"""

from spine_lib.explore.viewer import SliceViewer

__all__ = ["SliceViewer"]
