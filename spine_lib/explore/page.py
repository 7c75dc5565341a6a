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
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from spine_lib.ct import geometry
from spine_lib.ct.files import atomic_file
from spine_lib.ct.geometry import PLANES
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import overlays
from spine_lib.explore.controls import FOLDER, Chart, chip_traits, scale_bar, swatch_list
from spine_lib.explore.render import Overlay, slice_overlay
from spine_lib.explore.scene import Scene, label_name

if TYPE_CHECKING:
    from spine_lib.explore.viewers import ScanViewer

SIDE_PX = 512
QUALITY = 75
_KNOTS_HU = (-1024, -250, 300, 1300, 3071)
_KNOTS_LEVEL = (0, 46, 176, 236, 255)  # steps of 17, 4, 17 and 93 HU between them


def save_page(viewer: ScanViewer, path: Path, max_slices: int) -> Path:
    """Write a viewer as one HTML page and return its path; see `ScanViewer.save_html`."""
    scene, window, at_once = viewer.scene, viewer.window.window, viewer.one_plane_at_once
    name = next((name for name, preset in WINDOWS.items() if preset == window), "as saved")
    swatches, labels = viewer.all_swatches()
    content = {
        "levels": level_hu().round(1).tolist(),
        "windows": [[name, *window], *([n, *w] for n, w in WINDOWS.items() if n != name)],
        "choose": at_once,
        "size_px": 640 if at_once else 400,
        "shape": scene.ct.shape,
        "affine": scene.ct.affine[:3].round(5).tolist(),
        "swatches": swatch_list(swatches, scene.dashed),
        "chips": chip_traits(labels, labels) if len(labels) > 1 else None,
        "stacks": [  # the plane that is shown first
            _stack_content(viewer, plane, max_slices)
            for plane in sorted(PLANES, key=lambda plane: plane != viewer.planes[0])
        ],
    }
    # Without "<" no text can end the script.
    parts = {"TITLE": escape(viewer.title)}
    parts |= {"STYLE": _own_text("widget.css"), "SCRIPT": _own_text("widget.js")}
    parts["CONTENT"] = json.dumps(content).replace("<", "\\u003c")
    page = _own_text("page.html")
    for key, text in parts.items():
        page = page.replace(f"@{key}@", text)
    with atomic_file(path) as stream:
        stream.write(page.encode("utf-8"))
    return path


def _own_text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _stack_content(viewer: ScanViewer, plane: str, max_slices: int) -> dict:
    """Return one slider of a page: the slices of a plane that are kept, and their words."""
    ct, count = viewer.scene.ct, geometry.slice_count(viewer.scene.ct, plane)
    indices = range(0, count, -(-count // max_slices))
    pixel_mm, across = page_pixel_mm(ct, plane), geometry.plane_axes(plane)[2]
    chart = viewer.chart_in(plane)
    return {
        "plane": plane,
        "axes": geometry.plane_axes(plane),
        "indices": list(indices),
        "start": int(np.abs(np.array(indices) - viewer.index(plane)).argmin()),
        "texts": [viewer.slice_text(index, plane) for index in indices],
        "marks": list(geometry.orientation_marks(plane).values()),
        "bar": scale_bar(ct.shape[across] * ct.spacing_mm[across]),
        "slices": [
            webp_uri(slice_levels(ct, index, plane, pixel_mm), quality=QUALITY, method=2)
            for index in indices
        ],
        "panels": [_panel_content(scene, plane, indices, pixel_mm) for scene in viewer.scenes],
        "chart": chart and {name: getattr(chart, name) for name in Chart.class_own_traits()},
        "chart_alts": [viewer.chart_alt(plane, index) for index in indices] if chart else [],
    }


def _panel_content(scene: Scene, plane: str, indices: Sequence[int], pixel_mm: float) -> dict:
    # As fine as the slices, whatever the viewer's style asks for.
    style, volumes = replace(scene.style, pixel_mm=pixel_mm), (scene.mask, scene.prediction)
    drawn = [
        slice_overlay(scene.ct, index, plane, *volumes, style, scene.ignore)
        if scene.visible
        else None
        for index in indices
    ]
    last = max((int(overlay.areas.max()) for overlay in drawn if overlay), default=0)
    swatches, opacity = (drawn[0].swatches[:last], drawn[0].opacity) if drawn[0] else ((), 0)
    table = overlays.covers(swatches, opacity).reshape(-1, 4).astype(float).round(3)
    names = [swatch.name for swatch in swatches]
    if style.overlay != "error" and not scene.binary:
        names = [label_name(label) for label in range(1, last + 1)]
    return {
        "titles": [scene.slice_title(index, plane) for index in indices],
        "colours": table.tolist(),
        "names": ["", *names],
        "over": [overlay_uri(overlay) for overlay in drawn],
        "alt": [scene.alt_text(index, plane) for index in indices],
        "plain": [scene.alt_text(index, plane, visible=False) for index in indices],
    }


def overlay_uri(overlay: Overlay | None) -> str:
    """Return areas and pixel kinds of an overlay, in red and green; "" for an empty one."""
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


def page_pixel_mm(ct: Volume, plane: str) -> float:
    """Return the side of a pixel with which a slice has at most about `SIDE_PX` on a side."""
    longest_mm = max(ct.shape[k] * ct.spacing_mm[k] for k in geometry.plane_axes(plane)[1:])
    return max(geometry.pixel_size_mm(ct, plane), longest_mm / SIDE_PX)
