"""Write a viewer as one page that needs no Python, no server and no network.

All slices are in the page; its script cuts the window in HU, lays the overlay over the picture,
and moves the mark of a chart. How a slice is stored is told in `layers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

from spine_lib import SpineError
from spine_lib.ct import geometry as planes
from spine_lib.ct.files import atomic_file
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore.layers import (
    encode_levels,
    encode_overlay,
    fitted,
    level_hu,
    overlay_rgba,
    slice_levels,
)
from spine_lib.explore.picture import marks_html, scale_bar_html
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

SIDE_PX = 512


@dataclass(frozen=True)
class Chart:
    """Hold a chart whose mark follows a slider.

    Attributes:
        svg: an `<svg>` with an element of the class `mark`.
        places: how far right the mark stands for each position, in units of the chart.
        alts: what the chart shows at each position, in words.
    """

    svg: str
    places: Sequence[float]
    alts: Sequence[str]


@dataclass(frozen=True, eq=False)
class Stack:
    """Describe one slider of a page, which moves through the slices of a plane.

    Attributes:
        ct: scan in HU.
        plane: "axial", "coronal" or "sagittal".
        indices: slices that are kept, ascending.
        index: slice to begin with; the nearest that is kept is shown.
        texts: a line for each slice that is kept.
        chart: shown below the pictures.
    """

    ct: Volume
    plane: str
    indices: Sequence[int]
    index: int
    texts: Sequence[str]
    chart: Chart | None = None

    @property
    def start(self) -> int:
        """Position to begin with."""
        return min(range(len(self.indices)), key=lambda at: abs(self.indices[at] - self.index))


@dataclass(frozen=True, eq=False)
class Panel:
    """Describe one picture of a page, which follows a slider.

    Attributes:
        stack: the slider.
        scene: what is laid over the CT.
        style: how it is drawn.
        title: heading; also begins the alt text.
    """

    stack: Stack
    scene: Scene
    style: Style
    title: str = ""


def kept_slices(count: int, most: int) -> range:
    """Return the slices that a page keeps: all, or every second (third ...) of too many."""
    if most < 1:
        raise SpineError(f"A page with {most} slices shows nothing: give 1 or more.")
    return range(0, count, -(-count // most))


def save_page(
    path: str | Path,
    title: str,
    panels: Sequence[Panel],
    window: tuple[float, float],
    choose_plane: bool = False,
    legend: str = "",
    quality: int = 75,
) -> Path:
    """Write panels and their sliders as one HTML page.

    Args:
        path: file to write; it is replaced at once or not at all.
        title: heading of the page.
        panels: pictures; those that share a `Stack` move together. The first stack is the first
            that is seen.
        window: centre and width in HU to begin with; the page offers those of `WINDOWS` too.
        choose_plane: show one stack at a time, to be chosen by its plane, and not all of them.
        legend: HTML under the pictures.
        quality: of the CT's pictures, 1 to 100.

    Returns:
        The path.

    Raises:
        SpineError: where the quality is out of range or the file cannot be written.
    """
    if not 1 <= quality <= 100:
        raise SpineError(f"A quality of {quality} means nothing: give 1 to 100.")
    path = Path(path)
    stacks = list(dict.fromkeys(panel.stack for panel in panels))
    content = {
        "levels": level_hu().round(1).tolist(),
        "windows": _windows(window),
        "choosePlane": choose_plane,
        "stacks": [_stack(one, quality) for one in stacks],
        "panels": [_panel(one, stacks.index(one.stack)) for one in panels],
    }
    template = resources.files("spine_lib.explore").joinpath("page.html")
    page = template.read_text(encoding="utf-8")
    parts = {
        "@TITLE@": escape(title),
        "@LEGEND@": legend,
        # Without "<" no text can end the script.
        "@CONTENT@": json.dumps(content).replace("<", "\\u003c"),
    }
    for place, part in parts.items():
        page = page.replace(place, part)
    with atomic_file(path) as stream:
        stream.write(page.encode("utf-8"))
    return path


def _windows(first: tuple[float, float]) -> list[dict]:
    """Return the windows to choose from, the one to begin with first."""
    centre, width = first
    name = next(
        (name for name, one in WINDOWS.items() if tuple(one) == (centre, width)), "as saved"
    )
    offered = {name: (centre, width), **WINDOWS}
    return [{"name": key, "centre": one[0], "width": one[1]} for key, one in offered.items()]


def _stack(stack: Stack, quality: int) -> dict:
    pixel_mm = fitted(Style(), stack.ct, stack.plane, SIDE_PX).pixel_mm
    chart = stack.chart
    return {
        "plane": stack.plane,
        "texts": list(stack.texts),
        "start": stack.start,
        "slices": [
            encode_levels(slice_levels(stack.ct, index, stack.plane, pixel_mm), quality)
            for index in stack.indices
        ],
        "chart": None if chart is None else {**vars(chart)},
    }


def _panel(panel: Panel, stack: int) -> dict:
    scene, plane, indices = panel.scene, panel.stack.plane, panel.stack.indices
    style = fitted(panel.style, scene.ct, plane, SIDE_PX)
    rows, columns = planes.picture_shape(scene.ct, plane, style.pixel_mm)
    width_mm = columns * planes.pixel_size_mm(scene.ct, plane, style.pixel_mm)
    before, bare = f"{panel.title}: " if panel.title else "", scene.bare()
    return {
        "stack": stack,
        "title": panel.title,
        "shape": [columns, rows],
        "marks": marks_html(plane) + scale_bar_html(width_mm),
        "over": [
            encode_overlay(overlay_rgba(scene, index, plane, style))
            if scene.paints_in(index, plane)
            else ""
            for index in indices
        ],
        "alt": [before + scene.alt_text(index, plane, style) for index in indices],
        "plain": [before + bare.alt_text(index, plane, style) for index in indices],
    }
