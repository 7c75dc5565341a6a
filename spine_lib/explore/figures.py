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
    {
        "color": np.array(OKABE_ITO[colour]) / 255,
        "linestyle": dash,
        "marker": marker,
        "markersize": 4,
    }
    for colour, dash, marker in (
        ("blue", "-", "o"),
        ("vermillion", (0, (5, 2)), "s"),
        ("bluish green", (0, (1, 1.5)), "^"),
        ("reddish purple", "-.", "D"),
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


def loss_curves(runs: Mapping[str, Rows]) -> Figure:
    """Plot the training loss of each model over the steps.

    Args:
        runs: by model name, rows with "step" and "train_loss" (which may be missing in a row).

    Returns:
        A figure in which the loss is faint as logged and strong as a running median, since
        single batches jump.
    """
    figure, axes = _curve_axes("Training loss", "loss")
    lowest = np.inf
    for name, style, steps, values in _curves(runs, "train_loss"):
        axes.plot(steps, values, color=style["color"], alpha=0.25, linewidth=0.8)
        half = len(values) // 40
        smooth = [np.median(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]
        _plot_curve(axes, name, style, steps, smooth)
        lowest = min(lowest, values.min())
    if 0 < lowest < np.inf:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    return figure


def score_curves(runs: Mapping[str, Rows]) -> Figure:
    """Plot the validation Dice ("val_dice") of each model; see `loss_curves`."""
    figure, axes = _curve_axes("Validation Dice", "Dice")
    for name, style, steps, values in _curves(runs, "val_dice"):
        _plot_curve(axes, name, style, steps, values)
    axes.set_ylim(0, 1)
    return figure


def _curves(runs: Mapping[str, Rows], key: str) -> list[tuple]:
    curves = [
        (name, style, *points(rows, key))
        for (name, rows), style in zip(runs.items(), cycle(LINE_STYLES))
    ]
    return [curve for curve in curves if curve[2].size]


def _curve_axes(title: str, label: str) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel="step", ylabel=label)
    return figure, axes


def _plot_curve(axes: Axes, name: str, style: Mapping, steps: np.ndarray, values: object) -> None:
    every = max(1, len(steps) // 12)
    axes.plot(steps, values, label=name, markevery=every, **style)
    axes.legend(loc="best", handlelength=3, frameon=False)


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
            dots = {"s": 34, "facecolors": "none", "edgecolors": style["color"], "linewidths": 1.4}
            axes.scatter(np.nan, np.nan, marker=style["marker"], label=name, **dots)
            for row, patient in enumerate(patients):
                values = np.atleast_1d(np.array(model.get(patient, np.nan), float))
                values = values[np.isfinite(values)]
                if values.size:
                    heights = np.full(values.shape, row + offset)
                    axes.scatter(values, heights, marker=style["marker"], **dots)
                _draw_mean(axes, values, row + offset, name)
        axes.set(xlabel=metric, ylim=(len(patients) - 0.5, -0.5))
        axes.set_yticks(range(len(patients)), patients)
        axes.grid(axis="y", visible=False)
        if limits:
            axes.set_xlim(*limits)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(scores))
    return figure


def _draw_mean(axes: Axes, values: np.ndarray, height: float, name: str) -> None:
    if not values.size:
        at_left = axes.get_yaxis_transform()
        axes.text(0.01, height, f"{name}: undefined", va="center", transform=at_left)
        return
    axes.plot([values.mean()] * 2, [height - 0.13, height + 0.13], color=INK, linewidth=1.6)
    axes.annotate(
        f"{values.mean():.3f}",
        (values.min(), height),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8.5,
    )


def show_slice(axes: Axes, rgb: np.ndarray, plane: str, pixel_mm: float) -> None:
    """Draw a rendered slice on axes, with orientation marks and a scale bar.

    Args:
        axes: where to draw.
        rgb: uint8 [row, column, 3] of :func:`spine_lib.explore.render.render_slice`.
        plane: the plane that it was drawn in.
        pixel_mm: :func:`spine_lib.ct.geometry.pixel_size_mm` of it.
    """
    rows, columns = rgb.shape[:2]
    axes.imshow(rgb, interpolation="nearest")
    axes.set_axis_off()
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
    size = (length, max(1, 0.01 * rows))
    bar = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.5}
    axes.add_patch(Rectangle((left, 0.95 * rows), *size, **bar))
    text, alignment = f"{length_mm:g} mm", {"ha": "center", "va": "bottom"}
    axes.text(left + length / 2, 0.94 * rows, text, **alignment, **_TEXT_ON_IMAGE)


def legend_handles(swatches: Iterable[Swatch]) -> list[Patch]:
    """Return legend entries with colours and hatchings."""
    return [
        Patch(
            facecolor=np.array(swatch.rgb) / 255,
            edgecolor=INK,
            linewidth=0.6,
            hatch=_MPL_HATCHES[swatch.hatch],
            label=swatch.name,
        )
        for swatch in swatches
    ]


def encode_figure(figure: Figure, kind: str = "svg", dpi: float = 150) -> bytes:
    """Encode a figure as "svg" (text as paths, the same bytes each time) or "png"."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
