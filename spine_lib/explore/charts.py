"""Draw the small charts under the pictures as SVG: quick enough to follow a slider.

Lines differ in colour and in dashes, and every chart has alt text. A matplotlib figure would take
a hundred times as long as the slice that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from spine_lib.explore.overlays import OKABE_ITO

WIDTH, HEIGHT = 560, 170
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 24, 34
_LOOKS = (
    ("blue", ""),
    ("vermillion", "7 3"),
    ("bluish green", "2 3"),
    ("reddish purple", "9 3 2 3"),
    ("orange", "14 3"),
)


def line_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    alt: str,
    x_label: str,
    y_label: str,
    x_mark: float | None = None,
    y_range: tuple[float, float] = (0, 1),
) -> str:
    """Draw lines over one axis, with the current place marked.

    Args:
        lines: x and y values by name, five at most; NaN leaves a gap.
        alt: what the chart shows, in words.
        x_label, y_label: names of the axes.
        x_mark: where to draw an upright line, of the class `mark`; None draws none.
        y_range: lowest and highest y.

    Returns:
        An `<svg>` element.
    """
    x_range = _x_range(lines)
    parts = [_axes(x_range, y_range, x_label, y_label)]
    for place, ((name, (x, y)), (colour, dash)) in enumerate(zip(lines.items(), _LOOKS)):
        look = f'stroke="{_hex(colour)}" stroke-width="2" fill="none" stroke-dasharray="{dash}"'
        path = _path(_to_x(x, x_range), _to_y(y, y_range))
        parts.append(f'<path d="{path}" {look}/>')
        at = LEFT + place * (WIDTH - LEFT - RIGHT) / max(len(lines), 1)
        parts.append(f'<path d="M{at:.0f} 11h28" {look}/>')
        parts.append(f'<text x="{at + 33:.0f}" y="15">{escape(name)}</text>')
    if x_mark is not None:
        parts.append(_upright(_to_x([x_mark], x_range)[0]))
    return _svg(parts, alt)


def mark_places(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_marks: Sequence[float]
) -> list[float]:
    """Return where `line_chart` draws its mark for each x, in units of the chart."""
    return _to_x(x_marks, _x_range(lines)).round(1).tolist()


def _x_range(lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
    xs = [np.asarray(x, float) for x, _ in lines.values()]
    low, high = min(x.min() for x in xs), max(x.max() for x in xs)
    return low, high if high > low else low + 1


def histogram_chart(
    counts: np.ndarray, edges: np.ndarray, window: tuple[float, float], alt: str
) -> str:
    """Draw a histogram of HU with a window on it, from black to white.

    Args:
        counts: voxels in each bin; their logarithm is drawn.
        edges: HU, one more than counts.
        window: centre and width in HU.
        alt: what the chart shows, in words.

    Returns:
        An `<svg>` element.
    """
    heights = np.log10(1 + counts.astype(float))
    heights /= max(heights.max(), 1e-9)
    x_range = (float(edges[0]), float(edges[-1]))
    x, y = _to_x(edges, x_range), _to_y(heights, (0, 1))
    bars = "".join(f"H{right:.1f}V{top:.1f}" for right, top in zip(x[:-1], y))
    floor = HEIGHT - BOTTOM
    outline = f"M{x[0]:.1f} {floor}{bars}H{x[-1]:.1f}V{floor}Z"
    centre, width = window
    ends = np.clip(_to_x([centre - width / 2, centre + width / 2], x_range), LEFT, WIDTH - RIGHT)
    ramp = _to_y([0, 1], (0, 1))
    parts = [
        f'<rect x="{ends[0]:.1f}" y="{TOP}" width="{ends[1] - ends[0]:.1f}" '
        f'height="{floor - TOP}" fill="#56b4e9" fill-opacity=".25"/>',
        f'<path d="{outline}" fill="#666"/>',
        f'<path d="M{LEFT} {ramp[0]}H{ends[0]:.1f}L{ends[1]:.1f} {ramp[1]}H{WIDTH - RIGHT}" '
        f'fill="none" stroke="{_hex("vermillion")}" stroke-width="2"/>',
        _axes(x_range, (0, 1), "HU", "voxels (log)", y_ticks=False),
        f'<text x="{LEFT}" y="15">line: black (bottom) to white (top)</text>',
    ]
    return _svg(parts, alt)


def _svg(parts: list[str], alt: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(alt)}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" style="max-width:100%;background:#fff" '
        'font-family="system-ui,sans-serif" font-size="12" fill="#1a1a1a">'
        f"<title>{escape(alt)}</title>{''.join(parts)}</svg>"
    )


def _axes(
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
    y_ticks: bool = True,
) -> str:
    floor, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = [f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="#777"/>']
    for value in _round_ticks(*x_range):
        x = _to_x([value], x_range)[0]
        parts.append(f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">{value:.4g}</text>')
    for value in np.linspace(*y_range, 3) if y_ticks else ():
        y = _to_y([value], y_range)[0]
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def _round_ticks(low: float, high: float) -> np.ndarray:
    """Return round numbers in a range, about four of them."""
    wanted = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(wanted))
    step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= 0.999 * wanted)
    return np.arange(np.ceil(low / step), np.floor(high / step + 1e-9) + 1) * step


def _upright(x: float) -> str:
    look = f'd="M0 {TOP}V{HEIGHT - BOTTOM}" stroke="#1a1a1a" stroke-width="1.5"'
    return f'<path class="mark" transform="translate({x:.1f} 0)" {look}/>'


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Join the points that are numbers; a point between two gaps is drawn as a dot."""
    steps, pen_down = [], False
    for across, down in zip(x, y):
        if np.isnan(down):
            pen_down = False
            continue
        steps.append(
            f"{'L' if pen_down else 'M'}{across:.1f} {down:.1f}" + "h0.01" * (not pen_down)
        )
        pen_down = True
    return "".join(steps)


def _to_x(values: Sequence[float], x_range: tuple[float, float]) -> np.ndarray:
    share = (np.asarray(values, float) - x_range[0]) / (x_range[1] - x_range[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _to_y(values: Sequence[float], y_range: tuple[float, float]) -> np.ndarray:
    share = (np.asarray(values, float) - y_range[0]) / (y_range[1] - y_range[0])
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _hex(name: str) -> str:
    return "#" + "".join(f"{value:02x}" for value in OKABE_ITO[name])
