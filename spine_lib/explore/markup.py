"""The HTML and SVG around a drawn slice: frames, marks, scale bars, legends and small charts.

Charts are SVG, since a matplotlib figure takes a hundred times as long as the slice beside it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from spine_lib.ct.geometry import orientation_marks, scale_bar_mm
from spine_lib.explore.overlays import OKABE_ITO, Swatch

Lines = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""The lines of a chart: x and y values by name, five at most; NaN leaves a gap."""

_TEXT_ON_IMAGE = (
    "position:absolute;color:#fff;background:rgba(0,0,0,.55);padding:1px 4px;"
    "font:600 13px/1.2 system-ui,sans-serif"
)
_MARK_POSITIONS = {
    "left": "left:4px;top:50%;transform:translateY(-50%)",
    "right": "right:4px;top:50%;transform:translateY(-50%)",
    "top": "top:4px;left:50%;transform:translateX(-50%)",
    "bottom": "bottom:4px;left:50%;transform:translateX(-50%)",
}
_HATCH_NAMES = {"solid": "plain", "rising": "hatched /", "falling": "hatched \\", "dots": "dotted"}
_WIDTH, _HEIGHT = 560, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 542, 24, 136
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
    return "".join(
        f'<span aria-hidden="true" style="{_TEXT_ON_IMAGE};{_MARK_POSITIONS[side]}">{letter}</span>'
        for side, letter in marks.items()
    )


def scale_bar_html(width_mm: float) -> str:
    """Return a bar of a round length in mm for a picture of a width in mm."""
    length_mm = scale_bar_mm(width_mm)
    return (
        '<span aria-hidden="true" style="position:absolute;left:4%;bottom:5%;height:4px;'
        f'width:{100 * length_mm / width_mm:.3f}%;background:#fff;outline:1px solid #000"></span>'
        f'<span aria-hidden="true" style="{_TEXT_ON_IMAGE};left:4%;bottom:calc(5% + 6px)">'
        f"{length_mm:g} mm</span>"
    )


def cursor_html(across: float, down: float, lines: bool = False) -> str:
    """Return a cross at a point (0 to 1 of width and height), or lines through it."""
    x, y = f"{100 * across:.2f}%", f"{100 * down:.2f}%"
    if lines:
        bar_style = "rgba(240,228,66,.8)"
        bars = (f"left:{x};top:0;bottom:0;width:1px", f"top:{y};left:0;right:0;height:1px")
    else:
        bar_style = "#f0e442;outline:1px solid #000"
        bars = (
            f"left:calc({x} - 1px);top:calc({y} - 7px);width:2px;height:14px",
            f"top:calc({y} - 1px);left:calc({x} - 7px);height:2px;width:14px",
        )
    style = f"position:absolute;pointer-events:none;background:{bar_style}"
    return "".join(f'<span style="{style};{bar}"></span>' for bar in bars)


def legend_html(swatches: Iterable[Swatch], dashed_prediction: bool = False) -> str:
    """Return a legend: colour and hatching, name, and the hatching in words."""
    entries = [
        f"{_swatch_html(swatch)}<span>{escape(swatch.name)} ({_HATCH_NAMES[swatch.hatch]})</span>"
        for swatch in swatches
    ]
    if dashed_prediction:
        line = '<span style="border-top:3px dashed #d8c800;width:1.6em"></span>'
        entries.append(f"{line}<span>prediction (dashed line)</span>")
    if not entries:
        return ""
    style = "display:inline-flex;align-items:center;gap:5px"
    items = "".join(f'<span role="listitem" style="{style}">{entry}</span>' for entry in entries)
    return (
        '<div role="list" aria-label="legend" style="display:flex;flex-wrap:wrap;gap:4px 14px;'
        f'font:13px/1.4 system-ui,sans-serif">{items}</div>'
    )


def _swatch_html(swatch: Swatch) -> str:
    rgb = ",".join(map(str, swatch.rgb))
    strong, pale = f"rgb({rgb})", f"rgba({rgb},.45)"
    stripes = f"{strong} 0 2px,{pale} 2px 6px"
    background = {
        "solid": strong,
        "rising": f"repeating-linear-gradient(135deg,{stripes})",
        "falling": f"repeating-linear-gradient(45deg,{stripes})",
        "dots": f"radial-gradient({strong} 40%,{pale} 45%) 0 0/5px 5px",
    }[swatch.hatch]
    return (
        '<span aria-hidden="true" style="display:inline-block;width:1.7em;height:1em;'
        f'border:1px solid #555;background:{background}"></span>'
    )


def text_html(text: str) -> str:
    """Return a line of text that screen readers announce when it changes."""
    return (
        f'<div role="status" style="font:13px/1.5 system-ui,sans-serif;'
        f'font-variant-numeric:tabular-nums">{escape(text)}</div>'
    )


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
    x_range = _x_range(lines)
    elements = [_axes(x_range, x_label, y_label, y_range, np.linspace(*y_range, 3))]
    for number, ((name, (x, y)), (colour, dash)) in enumerate(zip(lines.items(), _LINE_STYLES)):
        style = f'stroke="{_hex(colour)}" stroke-width="2" fill="none" stroke-dasharray="{dash}"'
        left = _LEFT + number * (_RIGHT - _LEFT) / len(lines)
        elements += [
            f'<path d="{_path(_to_x(x, x_range), _to_y(y, y_range))}" {style}/>',
            f'<path d="M{left:.0f} 11h28" {style}/>',
            f'<text x="{left + 33:.0f}" y="15">{escape(name)}</text>',
        ]
    elements.append(
        f'<path class="mark" transform="translate({mark_positions(lines, [x_mark])[0]} 0)" '
        f'd="M0 {_TOP}V{_BOTTOM}" stroke="#1a1a1a" stroke-width="1.5"/>'
    )
    return _svg(elements, alt)


def mark_positions(lines: Lines, x_marks: Sequence[float]) -> list[float]:
    """Return where `line_chart` draws its mark for each x, in units of the chart."""
    return _to_x(x_marks, _x_range(lines)).round(1).tolist()


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
    bars = "".join(f"V{top:.1f}H{right:.1f}" for right, top in zip(x[1:], y))
    centre, width = window
    black, white = _to_x([centre - width / 2, centre + width / 2], x_range)
    elements = [
        f'<rect x="{black:.1f}" y="{_TOP}" width="{white - black:.1f}" '
        f'height="{_BOTTOM - _TOP}" fill="#56b4e9" fill-opacity=".25"/>',
        f'<path d="M{_LEFT} {_BOTTOM}{bars}V{_BOTTOM}Z" fill="#666"/>',
        f'<path d="M{_LEFT} {_BOTTOM}H{black:.1f}L{white:.1f} {_TOP}H{_RIGHT}" '
        f'fill="none" stroke="{_hex("vermillion")}" stroke-width="2"/>',
        _axes(x_range, "HU", "voxels (log)"),
        f'<text x="{_LEFT}" y="15">line: black (bottom) to white (top)</text>',
    ]
    return _svg(elements, alt)


def _svg(elements: list[str], alt: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" style="max-width:100%;background:#fff" '
        'font-family="system-ui,sans-serif" font-size="12" fill="#1a1a1a">'
        f"<title>{escape(alt)}</title>{''.join(elements)}</svg>"
    )


def _axes(
    x_range: tuple[float, float],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] = (0, 1),
    y_ticks: Sequence[float] = (),
) -> str:
    elements = [f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="#777"/>']
    ticks = _round_ticks(*x_range)
    elements += [
        f'<text x="{x:.1f}" y="{_BOTTOM + 14}" text-anchor="middle">{value:.4g}</text>'
        for value, x in zip(ticks, _to_x(ticks, x_range))
    ]
    elements += [
        f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        f'<path d="M{_LEFT} {y:.1f}H{_RIGHT}" stroke="#e4e4e4"/>'
        for value, y in zip(y_ticks, _to_y(y_ticks, y_range))
    ]
    middle = f"translate(11 {(_TOP + _BOTTOM) / 2}) rotate(-90)"
    elements += [
        f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text transform="{middle}" text-anchor="middle">{escape(y_label)}</text>',
    ]
    return "".join(elements)


def _round_ticks(low: float, high: float) -> np.ndarray:
    """Return round numbers in a range, about four of them."""
    wanted = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= 0.999 * wanted)
    return np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Join points, not across NaN; the short step makes a point between two gaps a dot."""
    steps, joined = [], False
    for across, down in zip(x, y):
        if np.isnan(down):
            joined = False
            continue
        steps.append(f"{'L' if joined else 'M'}{across:.1f} {down:.1f}{'' if joined else 'h0.01'}")
        joined = True
    return "".join(steps)


def _x_range(lines: Lines) -> tuple[float, float]:
    ends = [float(end) for x, _ in lines.values() for end in (np.min(x), np.max(x))]
    return min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1


def _to_x(values: Sequence[float], x_range: tuple[float, float]) -> np.ndarray:
    return np.interp(np.asarray(values, float), x_range, (_LEFT, _RIGHT))


def _to_y(values: Sequence[float], y_range: tuple[float, float]) -> np.ndarray:
    return np.interp(np.asarray(values, float), y_range, (_BOTTOM, _TOP))


def _hex(colour: str) -> str:
    return "#" + bytes(OKABE_ITO[colour]).hex()
