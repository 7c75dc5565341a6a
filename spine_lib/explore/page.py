"""Write a viewer as one page that needs no Python, no server and no network.

The page is driven by `widget.js`, and all slices are in it. A slice is stored as 256 levels that
span all HU of a body: close where soft tissue differs, wide apart in lung and metal. Areas and
pixel kinds of the overlay are stored apart from it, without loss.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct import geometry
from spine_lib.ct.files import atomic_file
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import overlays
from spine_lib.explore.controls import FOLDER, SIDES, Chart, label_groups, scale_bar, swatch_list
from spine_lib.explore.overlays import Swatch
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, label_name

SIDE_PX = 512
_KNOTS_HU = (-1024, -250, 300, 1300, 3071)
_KNOTS_LEVEL = (0, 46, 176, 236, 255)  # steps of 17, 4, 17 and 93 HU between them


@dataclass(frozen=True)
class Panel:
    """One picture of a page: a scene, how it is drawn, and a heading."""

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
        chart: shown below the pictures, its mark at the number of the slice.
        chart_alts: the chart in words, for each slice that is kept.
    """

    plane: str
    indices: Sequence[int]
    index: int
    texts: Sequence[str]
    panels: Sequence[Panel]
    chart: Chart | None = None
    chart_alts: Sequence[str] = ()


def save_page(
    path: str | Path,
    title: str,
    stacks: Sequence[Stack],
    window: tuple[float, float],
    choose_plane: bool,
    swatches: Sequence[Swatch],
    labels: Sequence[int],
    quality: int,
) -> Path:
    """Write stacks of slices as one HTML page and return its path.

    Args:
        path: file to write; it is replaced at once or not at all.
        title: heading of the page.
        stacks: sliders with their pictures.
        window: centre and width in HU to begin with; the page offers those of `WINDOWS` too.
        choose_plane: show one stack at a time, chosen by its plane, the first at the start.
        swatches: the legend.
        labels: structures that the page switches on and off; none where they are not drawn.
        quality: of the CT's pictures, 1 to 100.

    Raises:
        SpineError: where the quality is out of range or the file cannot be written.
    """
    if not 1 <= quality <= 100:
        raise SpineError(f"A quality of {quality} means nothing: give 1 to 100.")
    name = next((name for name, preset in WINDOWS.items() if preset == window), "as saved")
    scene = stacks[0].panels[0].scene
    chips = [[label_name(label), label] for label in labels]
    dashed = scene.compared and stacks[0].panels[0].style.overlay != "error"
    content = {
        "levels": level_hu().round(1).tolist(),
        "windows": [
            {"name": name, "centre": centre, "width": width}
            for name, (centre, width) in ({name: window} | WINDOWS).items()
        ],
        "choose": choose_plane,
        "size_px": 640 if choose_plane else 400,
        "shape": scene.ct.shape,
        "affine": scene.ct.affine[:3].round(5).tolist(),
        "swatches": swatch_list(swatches, dashed),
        "chips": {"options": chips, "value": list(labels), "groups": label_groups(labels)}
        if len(labels) > 1
        else None,
        "stacks": [_stack_content(stack, quality) for stack in stacks],
    }
    # Without "<" no text can end the script.
    filled = {"CONTENT": json.dumps(content).replace("<", "\\u003c"), "TITLE": escape(title)}
    filled["STYLE"] = (FOLDER / "widget.css").read_text(encoding="utf-8")
    filled["SCRIPT"] = (FOLDER / "widget.js").read_text(encoding="utf-8")
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    for key in ("TITLE", "STYLE", "SCRIPT", "CONTENT"):
        page = page.replace(f"@{key}@", filled[key])
    with atomic_file(Path(path)) as stream:
        stream.write(page.encode("utf-8"))
    return Path(path)


def _stack_content(stack: Stack, quality: int) -> dict:
    scene, plane = stack.panels[0].scene, stack.plane
    ct, pixel_mm = scene.ct, fit_style(Style(), scene.ct, plane, SIDE_PX).pixel_mm
    _, columns = geometry.picture_shape(ct, plane, pixel_mm)
    marks = geometry.orientation_marks(plane)
    chart = stack.chart
    return {
        "plane": plane,
        "axes": geometry.plane_axes(plane),
        "indices": list(stack.indices),
        "start": int(np.abs(np.array(stack.indices) - stack.index).argmin()),
        "texts": list(stack.texts),
        "titles": [scene.title(index, plane) for index in stack.indices],
        "marks": [marks[side] for side in SIDES],
        "bar": scale_bar(columns * geometry.pixel_size_mm(ct, plane, pixel_mm)),
        "slices": [
            webp_uri(slice_levels(ct, index, plane, pixel_mm), quality=quality, method=2)
            for index in stack.indices
        ],
        "panels": [_panel_content(panel, stack) for panel in stack.panels],
        "chart": chart and {name: getattr(chart, name) for name in Chart.class_own_traits()},
        "chart_alts": list(stack.chart_alts),
    }


def _panel_content(panel: Panel, stack: Stack) -> dict:
    scene, plane, indices = panel.scene, stack.plane, stack.indices
    style = fit_style(panel.style, scene.ct, plane, SIDE_PX)
    title = f"{panel.title}: " if panel.title else ""
    drawn = [scene.overlay(index, plane, style) for index in indices]
    last = max((int(overlay.areas.max()) for overlay in drawn if overlay), default=0)
    swatches, opacity = (drawn[0].swatches[:last], drawn[0].opacity) if drawn[0] else ((), 0)
    table = overlays.covers(swatches, opacity).reshape(-1, 4).astype(float).round(3)
    return {
        "title": panel.title,
        "colours": table.tolist(),
        "names": ["", *area_names(scene, style, swatches)],
        "over": [overlay_uri(overlay) for overlay in drawn],
        "alt": [title + scene.alt_text(index, plane, style) for index in indices],
        "plain": [title + scene.bare.alt_text(index, plane, style) for index in indices],
    }


def area_names(scene: Scene, style: Style, swatches: Sequence[Swatch]) -> list[str]:
    """Return what the areas of an overlay are called where the pointer is over them."""
    if style.overlay == "error" or scene.binary:
        return [swatch.name for swatch in swatches]
    return [label_name(label) for label in range(1, len(swatches) + 1)]


def overlay_uri(overlay) -> str:
    """Encode areas and pixel kinds of an overlay, in red and green; "" for an empty one."""
    if overlay is None or not (overlay.areas.any() or overlay.kinds.any()):
        return ""
    coded = np.stack([overlay.areas, overlay.kinds, np.zeros_like(overlay.areas)], axis=2)
    return webp_uri(coded, lossless=True, method=2)


def webp_uri(pixels: np.ndarray, **options: object) -> str:
    """Return uint8 pixels as a `data:` address of a WebP picture, with Pillow's options."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", **options)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def level_hu() -> np.ndarray:
    """Return the HU of each of the 256 levels, float64, ascending."""
    return np.interp(np.arange(256), _KNOTS_LEVEL, _KNOTS_HU)


def slice_levels(ct: Volume, index: int, plane: str, pixel_mm: float | None) -> np.ndarray:
    """Return a slice as levels, uint8 [row, column], resampled as by `render_slice`."""
    shape_hw = geometry.picture_shape(ct, plane, pixel_mm)
    hu = geometry.resample_image(geometry.cut_slice(ct, index, plane), shape_hw, smooth=False)
    return np.interp(hu, _KNOTS_HU, _KNOTS_LEVEL).round().astype(np.uint8)


def fit_style(style: Style, ct: Volume, plane: str, size_px: int) -> Style:
    """Return a style whose picture has at most about `size_px` pixels on its longer side."""
    native = geometry.pixel_size_mm(ct, plane, style.pixel_mm)
    spacing_mm, axes = ct.spacing_mm, geometry.plane_axes(plane)[1:]
    longest_mm = max(ct.array.shape[axis] * spacing_mm[axis] for axis in axes)
    return replace(style, pixel_mm=max(native, longest_mm / size_px))
