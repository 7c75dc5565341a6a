"""The HTML and SVG around a drawn slice: frames, marks, scale bars, legends and small charts.

The text is in `viewer.html`. Charts are SVG, since a matplotlib figure takes a hundred times as
long as the slice beside it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import jinja2
import numpy as np
from PIL import Image

from spine_lib.ct.geometry import orientation_marks, scale_bar_mm
from spine_lib.explore.overlays import OKABE_ITO, Swatch

Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""The lines of a chart: x and y values by name, five at most; NaN leaves a gap."""

_MACROS = (
    jinja2.Environment(loader=jinja2.PackageLoader("spine_lib.explore", "."), autoescape=True)
    .get_template("viewer.html")
    .module
)
_BOX = SimpleNamespace(width=560, height=170, left=46, right=542, top=24, bottom=136)
_LINE_STYLES = (
    ("blue", ""),
    ("vermillion", "7 3"),
    ("bluish green", "2 3"),
    ("reddish purple", "9 3 2 3"),
    ("orange", "14 3"),
)


def data_uri(encoded: bytes, kind: str = "png") -> str:
    """Return an encoded picture as a `data:` address."""
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def webp_uri(pixels: np.ndarray, **options: object) -> str:
    """Return uint8 pixels as a `data:` address of a WebP picture, with Pillow's options."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", **options)
    return data_uri(buffer.getvalue(), "webp")


def picture_html(source: str, alt: str) -> str:
    """Return an `<img>` that fills its frame."""
    return str(_MACROS.picture(source, alt))


def frame_html(content: str, shape_hw: tuple[int, int], size_px: int, attributes: str = "") -> str:
    """Return HTML in a frame with a picture's proportions, its longer side `size_px` wide."""
    rows, columns = shape_hw
    width = max(1, round(size_px * columns / max(rows, columns)))
    return (
        f'<div style="position:relative;width:{width}px;max-width:100%;aspect-ratio:{columns}/'
        f'{rows};background:#000;overflow:hidden{";cursor:crosshair" if attributes else ""}" '
        f"{attributes}>{content}</div>"
    )


def marks_html(plane: str, mirrored: bool = False) -> str:
    """Return the letters of the patient's sides, for a slice or its mirror image."""
    marks = orientation_marks(plane)
    if mirrored:
        marks |= {"left": marks["right"], "right": marks["left"]}
    return str(_MACROS.marks(marks))


def scale_bar_html(width_mm: float) -> str:
    """Return a bar of a round length in mm for a picture of a width in mm."""
    length_mm = scale_bar_mm(width_mm)
    return str(_MACROS.scale_bar(f"{length_mm:g}", f"{100 * length_mm / width_mm:.3f}"))


def cursor_html(across: float, down: float, lines: bool = False) -> str:
    """Return a cross at a point (0 to 1 of width and height), or lines through it."""
    return str(_MACROS.cursor(f"{100 * across:.2f}%", f"{100 * down:.2f}%", lines))


def legend_html(swatches: Iterable[Swatch], dashed_prediction: bool = False) -> str:
    """Return a legend: colour and hatching, name, and the hatching in words."""
    return str(_MACROS.legend(list(swatches), dashed_prediction))


def text_html(text: str) -> str:
    """Return a line of text that screen readers announce when it changes."""
    return str(_MACROS.text(text))


def line_chart(
    lines: Lines,
    alt: str,
    x_label: str,
    y_label: str,
    x_mark: float,
    y_range: tuple[float, float] = (0, 1),
) -> str:
    """Return an `<svg>` of lines with an upright line, of the class `mark`, at an x value.

    Args:
        lines: what is drawn; lines differ in colour and dashes.
        alt: what the chart shows, in words.
        x_label, y_label: names of the axes.
        x_mark: where the mark stands.
        y_range: lowest and highest y.
    """
    x_range, y_ticks = _x_range(lines), np.linspace(*y_range, 3)
    drawn = [
        {
            "name": name,
            "path": _path(_to_x(x, x_range), _to_y(y, y_range)),
            "colour": "#" + bytes(OKABE_ITO[colour]).hex(),
            "dash": dash,
            "left": round(_BOX.left + number * (_BOX.right - _BOX.left) / len(lines)),
        }
        for number, ((name, (x, y)), (colour, dash)) in enumerate(zip(lines.items(), _LINE_STYLES))
    ]
    ticks = (_ticks(x_range), [(y, f"{t:g}") for y, t in zip(_to_y(y_ticks, y_range), y_ticks)])
    mark = mark_positions(lines, [x_mark])[0]
    return str(_MACROS.line_chart(_BOX, alt, x_label, y_label, *ticks, drawn, mark))


def mark_positions(lines: Lines, x_marks: Sequence[float]) -> list[float]:
    """Return where `line_chart` draws its mark for each x, in units of the chart."""
    return _to_x(x_marks, _x_range(lines)).tolist()


def histogram_chart(
    counts: np.ndarray, edges: np.ndarray, window: tuple[float, float], alt: str
) -> str:
    """Return an `<svg>` of a histogram of HU with a window on it, from black to white.

    Args:
        counts: voxels in each bin; their logarithm is drawn.
        edges: HU, one more than counts.
        window: centre and width in HU.
        alt: what the chart shows, in words.
    """
    x_range = (float(edges[0]), float(edges[-1]))
    heights = np.log10(1 + counts.astype(float))
    x, y = _to_x(edges, x_range), _to_y(heights, (0, max(heights.max(), 1e-9)))
    bars = "".join(f"V{top}H{right}" for right, top in zip(x[1:].tolist(), y.tolist()))
    centre, width = window
    ends = _to_x([centre - width / 2, centre + width / 2], x_range)
    return str(_MACROS.histogram(_BOX, alt, _ticks(x_range), bars, *ends.tolist()))


def _ticks(x_range: tuple[float, float]) -> list[tuple[float, str]]:
    """Return the positions and texts of about four round numbers in a range."""
    low, high = x_range
    wanted = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= 0.999 * wanted)
    values = np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step
    return [(x, f"{value:.4g}") for x, value in zip(_to_x(values, x_range).tolist(), values)]


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Join points, not across NaN; the short step makes a point between two gaps a dot."""
    steps, joined = [], False
    for across, down in zip(x.tolist(), y.tolist()):
        if np.isnan(down):
            joined = False
            continue
        steps.append(f"{'L' if joined else 'M'}{across} {down}{'' if joined else 'h0.01'}")
        joined = True
    return "".join(steps)


def _x_range(lines: Lines) -> tuple[float, float]:
    ends = [float(end) for x, _ in lines.values() for end in (np.min(x), np.max(x))]
    return min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1


def _to_x(values: Sequence[float], x_range: tuple[float, float]) -> np.ndarray:
    return np.interp(values, x_range, (_BOX.left, _BOX.right)).round(1)


def _to_y(values: Sequence[float], y_range: tuple[float, float]) -> np.ndarray:
    return np.interp(values, y_range, (_BOX.bottom, _BOX.top)).round(1)
