"""Write a viewer as one page that needs no Python, no server and no network.

The pictures are in the page. An overlay is stored as a layer of its own that is transparent where
it changes nothing, so the page can fade it in and out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, features

from spine_lib.errors import SpineError
from spine_lib.explore.picture import data_uri, marks_html, scale_bar_html
from spine_lib.explore.scene import Scene
from spine_lib.nifti import atomic_file
from spine_lib.planes import pixel_size_mm
from spine_lib.render import Style

SIDE_PX = 512


@dataclass(frozen=True, eq=False)
class Stack:
    """Describe one slider of a page.

    Attributes:
        name: what it moves through.
        texts: a line for each position.
        start: position to begin with.
    """

    name: str
    texts: Sequence[str]
    start: int


@dataclass(frozen=True, eq=False)
class Panel:
    """Describe one picture of a page, which follows a slider.

    Attributes:
        stack: the slider.
        plane: for the orientation marks.
        pixel_mm: width of a pixel of its pictures.
        base: draws a position without its overlay, uint8 [row, column, 3].
        over: draws a position with its overlay.
        alt: describes a position in words.
        title: heading.
    """

    stack: Stack
    plane: str
    pixel_mm: float
    base: Callable[[int], np.ndarray]
    over: Callable[[int], np.ndarray]
    alt: Callable[[int], str]
    title: str = ""


def slice_panel(
    scene: Scene,
    base: Callable[[int], np.ndarray],
    stack: Stack,
    indices: Sequence[int],
    plane: str,
    window: tuple[float, float],
    style: Style,
    title: str = "",
) -> Panel:
    """Return a panel with slices of a scene; `base` is what `plain_slices` returned."""
    return Panel(
        stack,
        plane,
        pixel_size_mm(scene.ct, plane, style.pixel_mm),
        base,
        lambda at: scene.draw(indices[at], plane, window, style),
        lambda at: scene.alt_text(indices[at], plane, style),
        title,
    )


def plain_slices(
    scene: Scene, indices: Sequence[int], plane: str, window: tuple[float, float], style: Style
) -> Callable[[int], np.ndarray]:
    """Return what draws the slices of a scene's CT without any overlay."""
    plain, style = Scene(scene.ct), replace(style, overlay="fill")
    return lambda at: plain.draw(indices[at], plane, window, style)


def kept_slices(count: int, most: int) -> range:
    """Return the slices that a page keeps: all, or every second (third ...) of too many."""
    if most < 1:
        raise SpineError(f"A page with {most} slices shows nothing: give 1 or more.")
    return range(0, count, -(-count // most))


def save_page(
    path: str | Path, title: str, panels: Sequence[Panel], legend: str = "", quality: int = 70
) -> Path:
    """Write panels and their sliders as one HTML page.

    Args:
        path: file to write; it is replaced at once or not at all.
        title: heading of the page.
        panels: pictures; those that share a `Stack` move together, and those that share a `base`
            share its pictures.
        legend: HTML under the pictures.
        quality: of the pictures, 1 to 100.

    Returns:
        The path.

    Raises:
        SpineError: where the quality is out of range or the file cannot be written.
    """
    if not 1 <= quality <= 100:
        raise SpineError(f"A quality of {quality} means nothing: give 1 to 100.")
    path = Path(path)
    stacks = list(dict.fromkeys(panel.stack for panel in panels))
    bases = list(dict.fromkeys((panel.base, panel.stack) for panel in panels))
    content = {
        "stacks": [
            {"name": one.name, "texts": list(one.texts), "start": one.start} for one in stacks
        ],
        "bases": [
            [encode_photo(base(at), quality) for at in range(len(stack.texts))]
            for base, stack in bases
        ],
        "panels": [
            _panel(one, stacks.index(one.stack), bases.index((one.base, one.stack)), quality)
            for one in panels
        ],
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


def encode_photo(rgb: np.ndarray, quality: int) -> str:
    """Encode a picture for a page, at most `SIDE_PX` wide and high; WebP where there is one."""
    image = _shrunk(Image.fromarray(rgb))
    return _encoded(image, "webp" if features.check("webp") else "jpeg", quality)


def encode_layer(base: np.ndarray, over: np.ndarray, quality: int) -> str:
    """Encode what an overlay changes; "" where it changes nothing."""
    changed = (base != over).any(axis=2)
    if not changed.any():
        return ""
    rgba = np.dstack([np.where(changed[..., None], over, 0), np.where(changed, 255, 0)])
    image = _shrunk(Image.fromarray(rgba.astype(np.uint8)))
    return _encoded(image, "webp" if features.check("webp") else "png", min(100, quality + 10))


def _panel(panel: Panel, stack: int, base: int, quality: int) -> dict:
    first = panel.base(0)
    places = range(len(panel.stack.texts))
    return {
        "stack": stack,
        "base": base,
        "title": panel.title,
        "shape": [first.shape[1], first.shape[0]],
        "marks": marks_html(panel.plane) + scale_bar_html(first.shape[1] * panel.pixel_mm),
        "over": [encode_layer(panel.base(at), panel.over(at), quality) for at in places],
        "alt": [panel.alt(at) for at in places],
    }


def _shrunk(image: Image.Image) -> Image.Image:
    image.thumbnail((SIDE_PX, SIDE_PX))
    return image


def _encoded(image: Image.Image, kind: str, quality: int) -> str:
    buffer = io.BytesIO()
    options = {"method": 2} if kind == "webp" else {}
    image.save(buffer, kind, quality=quality, **options)
    return data_uri(buffer.getvalue(), kind)
