"""Write a viewer as one page that needs no Python, no server and no network.

All slices are in the page. Its script applies the window, so a slice is stored as 256 levels that
span all HU of a body: close where soft tissue differs, wide apart in lung and metal. The overlay
is stored apart from it, without loss, with its opacity.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry
from spine_lib.ct.files import atomic_file
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore.markup import marks_html, scale_bar_html, webp_uri
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

SIDE_PX = 512
_KNOTS_HU = (-1024, -250, 300, 1300, 3071)
_KNOTS_LEVEL = (0, 46, 176, 236, 255)  # steps of 17, 4, 17 and 93 HU between them
_ALL_BLACK, _ALL_WHITE = (1e6, 1.0), (-1e6, 1.0)


@dataclass(frozen=True)
class Chart:
    """A chart, and for each slice the position of its element of the class `mark` and its alt."""

    svg: str
    positions: Sequence[float]
    alts: Sequence[str]


@dataclass(frozen=True)
class Panel:
    """One picture of a page: a scene, how it is drawn, and a heading that begins its alt text."""

    scene: Scene
    style: Style
    title: str = ""


@dataclass(frozen=True)
class Stack:
    """One slider of a page, through the slices of a plane, and what follows it.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        indices: slices that are kept, ascending.
        index: slice to begin with; the nearest that is kept is shown.
        texts: a line for each slice that is kept.
        panels: the pictures, of one CT.
        chart: shown below the pictures.
    """

    plane: str
    indices: Sequence[int]
    index: int
    texts: Sequence[str]
    panels: Sequence[Panel]
    chart: Chart | None = None


def save_page(
    path: str | Path,
    title: str,
    stacks: Sequence[Stack],
    window: tuple[float, float],
    choose_plane: bool,
    legend: str,
    quality: int,
) -> Path:
    """Write stacks of slices as one HTML page and return its path.

    Args:
        path: file to write; it is replaced at once or not at all.
        title: heading of the page.
        stacks: sliders with their pictures.
        window: centre and width in HU to begin with; the page offers those of `WINDOWS` too.
        choose_plane: show one stack at a time, chosen by its plane, the first at the start.
        legend: HTML under the pictures.
        quality: of the CT's pictures, 1 to 100.

    Raises:
        SpineError: where the quality is out of range or the file cannot be written.
    """
    if not 1 <= quality <= 100:
        raise SpineError(f"A quality of {quality} means nothing: give 1 to 100.")
    name = next((name for name, preset in WINDOWS.items() if preset == window), "as saved")
    content = {
        "levels": level_hu().round(1).tolist(),
        "windows": [
            {"name": name, "centre": centre, "width": width}
            for name, (centre, width) in ({name: window} | WINDOWS).items()
        ],
        "choosePlane": choose_plane,
        "stacks": [_stack_content(stack, quality) for stack in stacks],
        "panels": [
            _panel_content(panel, stack, number)
            for number, stack in enumerate(stacks)
            for panel in stack.panels
        ],
    }
    page = resources.files("spine_lib.explore").joinpath("page.html").read_text(encoding="utf-8")
    page = page.replace("@TITLE@", escape(title)).replace("@LEGEND@", legend)
    # Without "<" no text can end the script.
    page = page.replace("@CONTENT@", json.dumps(content).replace("<", "\\u003c"))
    with atomic_file(Path(path)) as stream:
        stream.write(page.encode("utf-8"))
    return Path(path)


def _stack_content(stack: Stack, quality: int) -> dict:
    ct, plane = stack.panels[0].scene.ct, stack.plane
    pixel_mm = fit_style(Style(), ct, plane, SIDE_PX).pixel_mm
    nearest = np.abs(np.array(stack.indices) - stack.index).argmin()
    return {
        "plane": plane,
        "texts": list(stack.texts),
        "start": int(nearest),
        "slices": [
            webp_uri(slice_levels(ct, index, plane, pixel_mm), quality=quality, method=2)
            for index in stack.indices
        ],
        "chart": None if stack.chart is None else asdict(stack.chart),
    }


def _panel_content(panel: Panel, stack: Stack, number: int) -> dict:
    scene, plane, indices = panel.scene, stack.plane, stack.indices
    style = fit_style(panel.style, scene.ct, plane, SIDE_PX)
    rows, columns = geometry.picture_shape(scene.ct, plane, style.pixel_mm)
    width_mm = columns * geometry.pixel_size_mm(scene.ct, plane, style.pixel_mm)
    title = f"{panel.title}: " if panel.title else ""
    return {
        "stack": number,
        "title": panel.title,
        "shape": [columns, rows],
        "marks": marks_html(plane) + scale_bar_html(width_mm),
        "over": [
            encode_overlay(overlay_rgba(scene, index, plane, style))
            if scene.has_overlay(index, plane)
            else ""
            for index in indices
        ],
        "alt": [title + scene.alt_text(index, plane, style) for index in indices],
        "plain": [title + scene.bare.alt_text(index, plane, style) for index in indices],
    }


def level_hu() -> np.ndarray:
    """Return the HU of each of the 256 levels, float64, ascending."""
    return np.interp(np.arange(256), _KNOTS_LEVEL, _KNOTS_HU)


def slice_levels(ct: Volume, index: int, plane: str, pixel_mm: float | None) -> np.ndarray:
    """Return a slice as levels, uint8 [row, column], resampled as by `render_slice`."""
    shape_hw = geometry.picture_shape(ct, plane, pixel_mm)
    hu = geometry.resample_image(geometry.cut_slice(ct, index, plane), shape_hw, smooth=False)
    return np.interp(hu, _KNOTS_HU, _KNOTS_LEVEL).round().astype(np.uint8)


def overlay_rgba(scene: Scene, index: int, plane: str, style: Style) -> np.ndarray:
    """Return an overlay alone, uint8 [row, column, 4], opacity last.

    The overlay over black and over white gives both its colour and its opacity.
    """
    on_black, on_white = (
        scene.draw(index, plane, window, style).astype(np.int16)
        for window in (_ALL_BLACK, _ALL_WHITE)
    )
    rgba = np.zeros((*on_black.shape[:2], 4), np.uint8)
    covered = (on_white - on_black != 255).any(axis=2)
    dark, bright = (picture[covered].astype(float) for picture in (on_black, on_white))
    opacity = np.clip(255 - (bright - dark).mean(axis=1), 1, 255)
    rgba[covered, :3] = np.clip(np.round(dark * 255 / opacity[:, None]), 0, 255)
    rgba[covered, 3] = np.round(opacity)
    return rgba


def encode_overlay(rgba: np.ndarray) -> str:
    """Encode an overlay as a `data:` address; "" for an empty one."""
    return webp_uri(rgba, lossless=True, method=2) if rgba[..., 3].any() else ""


def fit_style(style: Style, ct: Volume, plane: str, size_px: int) -> Style:
    """Return a style whose picture has at most about `size_px` pixels on its longer side."""
    native = geometry.pixel_size_mm(ct, plane, style.pixel_mm)
    spacing_mm, axes = ct.spacing_mm, geometry.plane_axes(plane)[1:]
    longest_mm = max(ct.array.shape[axis] * spacing_mm[axis] for axis in axes)
    return replace(style, pixel_mm=max(native, longest_mm / size_px))
