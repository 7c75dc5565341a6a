"""Static figures: training curves, scores by patient, and slices with marks and a scale bar.

A function that makes a figure returns a matplotlib `Figure` that pyplot does not know of. Lines
differ by colour, dash and marker, areas by colour and hatching.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from spine_lib import SpineError
from spine_lib.ct.geometry import orientation_marks, scale_bar_mm
from spine_lib.explore.overlays import OKABE_ITO, Swatch
from spine_lib.training.logs import Rows, points

INK = "#1a1a1a"
LINE_STYLES = tuple(
    {"color": np.array(OKABE_ITO[colour]) / 255, "linestyle": dash, "marker": m, "markersize": 4}
    for colour, dash, m in (
        ("blue", "-", "o"),
        ("vermillion", (0, (5, 2)), "s"),
        ("bluish green", (0, (1, 1.5)), "^"),
        ("reddish purple", "-.", "D"),
        ("orange", (0, (9, 2)), "v"),
    )
)
_MPL_HATCHES = {"solid": "", "rising": "////", "falling": "\\\\\\\\", "dots": "...."}
_TEXT_ON_IMAGE = {
    "color": "white",
    "fontsize": 8,
    "fontweight": "bold",
    "bbox": {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "boxstyle": "square,pad=0.15"},
}
STYLE = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#777777",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "spine_lib",
}


CURVES = {"train_loss": ("Training loss", "loss"), "val_dice": ("Validation Dice", "Dice")}
"""The columns of a training's log that are plotted, with title and label."""


def training_curves(runs: Mapping[str, Rows], key: str) -> Figure:
    """Plot a column of `CURVES` by "step", from rows by model name.

    Of many values, they are drawn faint as logged and strong as a running median.
    """
    title, label = CURVES[key]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel="step", ylabel=label)
    for (name, rows), style in zip(runs.items(), cycle(LINE_STYLES)):
        steps, values = points(rows, key)
        if half := len(values) // 40:
            axes.plot(steps, values, color=style["color"], alpha=0.25, linewidth=0.8)
        smooth = [np.median(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]
        if smooth:
            axes.plot(steps, smooth, label=name, markevery=max(1, len(steps) // 12), **style)
            axes.legend(loc="best", handlelength=3, frameon=False)
    if key == "val_dice":
        axes.set_ylim(0, 1)
    elif axes.lines and min(line.get_ydata().min() for line in axes.lines) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    return figure


def patient_scores(
    scores: Mapping[str, Mapping[str, float | Sequence[float]]],
    metric: str = "Dice",
    limits: tuple[float, float] | None = (0, 1),
) -> Figure:
    """Plot one score for each patient and model: a dot for each run and a tick for their mean.

    Args:
        scores: by model name and patient, one value or one for each run (seed); a patient with
            NaN alone is named undefined.
        metric: the name on the axis, with its unit if it has one.
        limits: of the axis; None lets the values decide.
    """
    patients = list(dict.fromkeys(patient for model in scores.values() for patient in model))
    if not patients:
        raise SpineError("There are no patients to plot: give scores by model and patient.")
    with mpl.rc_context(STYLE):
        height = 1.1 + 0.32 * len(patients) * len(scores)
        figure = Figure(figsize=(4.8, height), layout="constrained")
        axes = figure.subplots()
        offsets = np.linspace(-0.2, 0.2, len(scores)) if len(scores) > 1 else [0.0]
        for (name, model), offset, style in zip(scores.items(), offsets, cycle(LINE_STYLES)):
            axes.plot([], [], label=name, **_dots(style))
            for row, patient in enumerate(patients):
                values = np.atleast_1d(np.array(model.get(patient, np.nan), float))
                _draw_runs(axes, values[np.isfinite(values)], row + offset, name, style)
        axes.set(xlabel=metric, ylim=(len(patients) - 0.5, -0.5))
        axes.set_yticks(range(len(patients)), patients)
        axes.grid(axis="y", visible=False)
        if limits:
            axes.set_xlim(*limits)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(scores))
    return figure


def _dots(style: Mapping) -> dict:
    return {**style, "linestyle": "", "markersize": 6, "markerfacecolor": "none"}


def _draw_runs(axes: Axes, values: np.ndarray, height: float, name: str, style: Mapping) -> None:
    if not values.size:
        at_left = axes.get_yaxis_transform()
        axes.text(0.01, height, f"{name}: undefined", va="center", transform=at_left)
        return
    axes.plot(values, np.full(values.shape, height), **_dots(style))
    axes.plot([values.mean()] * 2, [height - 0.13, height + 0.13], color=INK, linewidth=1.6)
    text, place = f"{values.mean():.3f}", {"va": "center", "ha": "right", "fontsize": 8.5}
    axes.annotate(text, (values.min(), height), (-8, 0), textcoords="offset points", **place)


def show_slice(
    axes: Axes, rgb: np.ndarray, plane: str | None, pixel_mm: float | None = None
) -> None:
    """Draw a rendered slice on axes, with orientation marks and a scale bar.

    Args:
        axes: where to draw.
        rgb: uint8 [row, column, 3] of :func:`spine_lib.explore.render.render_slice`.
        plane: the plane that it was drawn in; None draws the picture alone.
        pixel_mm: :func:`spine_lib.ct.geometry.pixel_size_mm` of it.
    """
    rows, columns = rgb.shape[:2]
    axes.imshow(rgb, interpolation="nearest")
    axes.set_axis_off()
    if plane is None or pixel_mm is None:
        return
    positions = {  # beside the picture, where they cover nothing
        "left": (-0.01, 0.5, "right", "center"),
        "right": (1.01, 0.5, "left", "center"),
        "top": (0.5, 1.005, "center", "bottom"),
        "bottom": (0.5, -0.005, "center", "top"),
    }
    for side, letter in orientation_marks(plane).items():
        x, y, ha, va = positions[side]
        style = {"fontsize": 8, "fontweight": "bold", "color": INK}
        axes.text(x, y, letter, ha=ha, va=va, transform=axes.transAxes, **style)
    length_mm = scale_bar_mm(columns * pixel_mm)
    left, length = 0.04 * columns, length_mm / pixel_mm
    bar = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.5}
    axes.add_patch(Rectangle((left, 0.95 * rows), length, max(1, 0.01 * rows), **bar))
    x, y, text = left + length / 2, 0.94 * rows, f"{length_mm:g} mm"
    axes.text(x, y, text, ha="center", va="bottom", **_TEXT_ON_IMAGE)


def line_chart(
    lines: Mapping[str, Sequence[Sequence[float]]],
    labels: tuple[str, str],
    y_range: tuple[float, float],
    mark: float | None = None,
) -> Figure:
    """Plot up to five lines, x and y by name, low and wide, with an upright mark at an x.

    A NaN leaves a gap; what leaves the y range lies on its edge.
    """
    with mpl.rc_context({**STYLE, "grid.color": "#8884"}):
        figure = Figure(figsize=(3.8, 2.1), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        for (name, (x, y)), style in zip(lines.items(), cycle(LINE_STYLES)):
            style = {**style, "marker": "", "solid_capstyle": "round", "dash_capstyle": "round"}
            axes.plot(x, np.clip(y, *y_range), label=name, **style)
        low, high = min(x.min() for x, _ in lines.values()), max(x.max() for x, _ in lines.values())
        axes.set(xlim=(low, max(high, low + 1e-3)), ylim=y_range)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if mark is not None:
            axes.axvline(mark, color=INK, linewidth=1)
        if len(lines) > 1:  # else the axis names it
            ncols = 3 if len(lines) > 4 else 2
            figure.legend(loc="outside upper center", ncols=ncols, handlelength=2.6)
    return figure


def legend_handles(swatches: Iterable[Swatch]) -> list[Patch]:
    """Return legend entries with colours and hatchings."""
    shared = {"edgecolor": INK, "linewidth": 0.6}
    return [
        Patch(facecolor=np.array(rgb) / 255, hatch=_MPL_HATCHES[hatch], label=name, **shared)
        for name, rgb, hatch in swatches
    ]


def encode_figure(figure: Figure, kind: str = "svg", dpi: float = 150) -> bytes:
    """Encode a figure as "svg" (text as paths, the same bytes each time) or "png"."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
