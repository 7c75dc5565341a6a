"""Turn a drawn slice into a piece of page: the picture, its marks, its scale bar, its legend.

A picture is an `<img>` with alt text inside an `ipywidgets.HTML`, because `ipywidgets.Image` has
no alt text. Letters and scale bar are text and boxes over it, so they stay sharp at every size.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from html import escape

import ipywidgets as widgets
import numpy as np
from PIL import Image, features

from spine_lib.annotations.checks import CANONICAL
from spine_lib.explore import render
from spine_lib.explore.overlays import (
    REGION_PAINTS,
    SPINE_PAINT,
    UNKNOWN_PAINT,
    Paint,
    paints_by_id,
)
from spine_lib.explore.pointer import handler_html
from spine_lib.explore.render import Style

FONT = "font:600 13px/1.2 system-ui,sans-serif"
ON_IMAGE = f"position:absolute;color:#fff;background:rgba(0,0,0,.55);padding:1px 4px;{FONT}"
_PLACES = {
    "left": "left:4px;top:50%;transform:translateY(-50%)",
    "right": "right:4px;top:50%;transform:translateY(-50%)",
    "top": "top:4px;left:50%;transform:translateX(-50%)",
    "bottom": "bottom:4px;left:50%;transform:translateX(-50%)",
}
_HINTS = {"solid": "plain", "rising": "hatched /", "falling": "hatched \\", "dots": "dotted"}
PREDICTION_LINE = '<span style="border-top:3px dashed #d8c800;width:1.6em"></span>'


class Picture(widgets.HTML):
    """Show one drawn slice; `rgb` and `alt` hold what is shown.

    Args:
        size_px: length of the longer side on the screen; a narrow page shrinks it.
        name: under which a `Pointer` is told of the mouse; without one it is not.
    """

    def __init__(self, size_px: int = 512, name: str = "") -> None:
        super().__init__()
        self.size_px = size_px
        self._handler = handler_html(name) if name else ""
        self.rgb = np.zeros((1, 1, 3), np.uint8)
        self.alt = ""
        self.plane: str | None = None
        self.pixel_mm: float | None = None
        self._inside = ""

    def show(
        self,
        rgb: np.ndarray,
        alt: str,
        plane: str | None = None,
        pixel_mm: float | None = None,
        cursor: tuple[float, float] | None = None,
        lines: bool = False,
        mirrored: bool = False,
    ) -> None:
        """Replace the picture.

        Args:
            rgb: uint8 [row, column, 3].
            alt: what is seen, in words.
            plane: for the orientation marks; None leaves them out.
            pixel_mm: for the scale bar; None leaves it out.
            cursor: a point as shares of the width and the height, 0 to 1.
            lines: mark the cursor with lines across the picture and not with a small cross.
            mirrored: the picture is seen from the other side than the plane's slices.
        """
        self.rgb, self.alt, self.pixel_mm = rgb, alt, pixel_mm
        self.plane = None if mirrored else plane
        over = "" if plane is None else marks_html(plane, mirrored)
        if pixel_mm is not None:
            over += scale_bar_html(rgb.shape[1] * pixel_mm)
        source = self._source(rgb)
        self._inside = (
            f'<img src="{source}" alt="{escape(alt)}" decoding="sync" draggable="false" '
            f'style="width:100%;height:100%;display:block">{over}'
        )
        self.point(cursor, lines)

    def _source(self, rgb: np.ndarray) -> str:
        """Encode a picture without loss: the first one small, later ones fast.

        The first picture is what an executed notebook keeps in its file.
        """
        if self._inside or not features.check("webp"):
            return data_uri(render.encode_png(rgb))
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, "webp", lossless=True, method=1)
        return data_uri(buffer.getvalue(), "webp")

    def point(self, cursor: tuple[float, float] | None, lines: bool = False) -> None:
        """Move the cursor over the picture that is shown; see `show`."""
        over = "" if cursor is None else cursor_html(*cursor, lines)
        inside = self._inside + over
        self.value = frame_html(inside, self.rgb.shape[:2], self.size_px, self._handler)


def data_uri(encoded: bytes, kind: str = "png") -> str:
    """Return an encoded picture as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def frame_html(inside: str, shape_hw: tuple[int, int], size_px: int, handler: str = "") -> str:
    """Return a box in the proportions of a picture, its longer side `size_px` on the screen.

    Args:
        inside: HTML of the picture and of what lies over it.
        shape_hw: rows and columns of the picture.
        size_px: of the longer side.
        handler: attributes of the box, such as those of `pointer.handler_html`.
    """
    rows, columns = shape_hw
    width = max(1, round(size_px * columns / max(rows, columns)))
    cursor = ";cursor:crosshair" if handler else ""
    return (
        f'<div style="position:relative;width:{width}px;max-width:100%;'
        f'aspect-ratio:{columns}/{rows};background:#000;overflow:hidden{cursor}" {handler}>'
        f"{inside}</div>"
    )


def marks_html(plane: str, mirrored: bool = False) -> str:
    """Return the letters that say where the patient's sides are."""
    marks = render.orientation_marks(plane)
    if mirrored:
        marks |= {"left": marks["right"], "right": marks["left"]}
    return "".join(
        f'<span aria-hidden="true" style="{ON_IMAGE};{_PLACES[side]}">{letter}</span>'
        for side, letter in marks.items()
    )


def scale_bar_html(width_mm: float) -> str:
    """Return a bar of a round length in mm for a picture of a width in mm."""
    length_mm = render.scale_bar_mm(width_mm)
    share = 100 * length_mm / width_mm
    return (
        f'<span aria-hidden="true" style="position:absolute;left:4%;bottom:5%;width:{share:.3f}%;'
        f'height:4px;background:#fff;outline:1px solid #000"></span>'
        f'<span aria-hidden="true" style="{ON_IMAGE};left:4%;bottom:calc(5% + 6px)">'
        f"{length_mm:g} mm</span>"
    )


def cursor_html(across: float, down: float, lines: bool = False) -> str:
    """Return a cross at a point, or lines through it."""
    x, y = f"{100 * across:.2f}%", f"{100 * down:.2f}%"
    box = "position:absolute;pointer-events:none;background:"
    if lines:
        box += "rgba(240,228,66,.8)"
        bars = (f"left:{x};top:0;bottom:0;width:1px", f"top:{y};left:0;right:0;height:1px")
    else:
        box += "#f0e442;outline:1px solid #000"
        bars = (
            f"left:calc({x} - 1px);top:calc({y} - 7px);width:2px;height:14px",
            f"top:calc({y} - 1px);left:calc({x} - 7px);height:2px;width:14px",
        )
    return "".join(f'<span style="{box};{bar}"></span>' for bar in bars)


def paints_shown(labels: Iterable[int], style: Style, binary: bool, ignored: bool) -> list[Paint]:
    """Return the paints of a slice, each under the name that a reader knows.

    Args:
        labels: label ids in the slice.
        style: how it is drawn.
        binary: the mask is boolean or a probability, so it knows no vertebrae.
        ignored: whether there is a region that is not scored.
    """
    if style.overlay == "error":
        return list(render.ERROR_PAINTS[: 4 if ignored else 3])
    shown = [label for label in labels if style.labels is None or label in style.labels]
    if binary or style.colouring == "spine":
        return [SPINE_PAINT] if list(labels if binary else shown) else []
    by_id = paints_by_id(style.colouring)
    paints = {}
    for label in shown:
        paint = by_id[label - 1]
        name = CANONICAL.get(label, f"label {label}")
        keep_name = style.colouring == "region" and paint != UNKNOWN_PAINT
        paints.setdefault(paint.name if keep_name else name, paint)
    named = [paint._replace(name=name) for name, paint in paints.items()]
    if style.colouring == "region":
        order = [paint.name for paint in REGION_PAINTS]
        named.sort(key=lambda paint: order.index(paint.name) if paint.name in order else 99)
    return named


def legend_html(paints: Iterable[Paint], prediction_line: bool = False) -> str:
    """Return a legend: a swatch in colour and hatching, the name, and the hatching in words."""
    entries = [
        f"{_swatch(paint)}<span>{escape(paint.name)} ({_HINTS[paint.hatch]})</span>"
        for paint in paints
    ]
    if prediction_line:
        entries.append(f"{PREDICTION_LINE}<span>prediction (dashed line)</span>")
    if not entries:
        return ""
    items = "".join(
        '<span role="listitem" style="display:inline-flex;align-items:center;gap:5px">'
        f"{entry}</span>"
        for entry in entries
    )
    return (
        '<div role="list" aria-label="legend" style="display:flex;flex-wrap:wrap;gap:4px 14px;'
        f'font:13px/1.4 system-ui,sans-serif">{items}</div>'
    )


def text_html(text: str) -> str:
    """Return a line of text that screen readers announce when it changes."""
    return (
        f'<div role="status" style="font:13px/1.5 system-ui,sans-serif;'
        f'font-variant-numeric:tabular-nums">{escape(text)}</div>'
    )


def _swatch(paint: Paint) -> str:
    red, green, blue = paint.rgb
    strong, pale = f"rgb({red},{green},{blue})", f"rgba({red},{green},{blue},.45)"
    stripes = f"{strong} 0 2px,{pale} 2px 6px"
    background = {
        "solid": strong,
        "rising": f"repeating-linear-gradient(135deg,{stripes})",
        "falling": f"repeating-linear-gradient(45deg,{stripes})",
        "dots": f"radial-gradient({strong} 40%,{pale} 45%) 0 0/5px 5px",
    }[paint.hatch]
    return (
        '<span aria-hidden="true" style="display:inline-block;width:1.7em;height:1em;'
        f'border:1px solid #555;background:{background}"></span>'
    )
