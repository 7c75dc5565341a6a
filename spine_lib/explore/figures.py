"""Static figures: learning curves, scores by patient, and a slice beside its errors.

Every function returns a matplotlib `Figure` of its own, so that nothing lingers in pyplot's
global state. Lines differ by colour, dash and marker, areas by colour and hatching, and every
slice carries orientation marks and a scale bar.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from spine_lib import SpineError
from spine_lib.explore import render
from spine_lib.explore.render import OKABE_ITO, Grid, Paint
from spine_lib.training.logs import Rows, as_rows, points

INK = "#1a1a1a"
LOOKS = (
    {"colour": OKABE_ITO["blue"], "dash": "-", "marker": "o"},
    {"colour": OKABE_ITO["vermillion"], "dash": (0, (5, 2)), "marker": "s"},
    {"colour": OKABE_ITO["bluish green"], "dash": (0, (1, 1.5)), "marker": "^"},
    {"colour": OKABE_ITO["reddish purple"], "dash": "-.", "marker": "D"},
)
_MPL_HATCHES = {"solid": "", "rising": "////", "falling": "\\\\\\\\", "dots": "...."}
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


def learning_curves(
    runs: Mapping[str, Rows | str | Path],
    loss: str = "train_loss",
    score: str = "val_dice",
) -> Figure:
    """Plot the training loss and the validation Dice of each model over the steps.

    Args:
        runs: by model name, rows with "step" and the two values (either may be missing in a
            row), or the path of a Lightning CSV log.
        loss, score: the names of the values.

    Returns:
        A figure with two panels; the loss is drawn faint as logged and strong as a running
        median, since single batches jump.

    Raises:
        SpineError: if no log has any of the values.
    """
    series = {name: as_rows(log) for name, log in runs.items()}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        if _draw_losses(left, series, loss) + _draw_scores(right, series, score) == 0:
            raise SpineError(f"No log holds {loss!r} or {score!r}, so there is nothing to draw.")
    return figure


def loss_curves(runs: Mapping[str, Rows], loss: str = "train_loss") -> Figure:
    """Plot the training losses alone; as :func:`learning_curves`, small enough for a phone."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4, 3), layout="constrained")
        _draw_losses(figure.subplots(), runs, loss)
    return figure


def score_curves(runs: Mapping[str, Rows], score: str = "val_dice") -> Figure:
    """Plot the validation Dice alone; as :func:`learning_curves`, small enough for a phone."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4, 3), layout="constrained")
        _draw_scores(figure.subplots(), runs, score)
    return figure


def patient_scores(
    scores: Mapping[str, Mapping[str, float | Sequence[float]]],
    metric: str = "Dice",
    limits: tuple[float, float] | None = (0, 1),
) -> Figure:
    """Plot one score for each patient and model: a dot for each run and a tick for their mean.

    Args:
        scores: by model name and patient, one value or one for each run (seed). NaN is left
            out and said.
        metric: the name on the axis, with its unit if it has one.
        limits: of the axis; None lets the values decide.
    """
    patients = list(dict.fromkeys(patient for of in scores.values() for patient in of))
    if not patients:
        raise SpineError("There are no patients to plot: give scores by model and patient.")
    with mpl.rc_context(STYLE):
        height = 1.1 + 0.32 * len(patients) * max(len(scores), 1)
        figure = Figure(figsize=(4.8, height), layout="constrained")
        axes = figure.subplots()
        offsets = np.linspace(-0.2, 0.2, len(scores)) if len(scores) > 1 else [0.0]
        for (name, of), offset, look in zip(scores.items(), offsets, cycle(LOOKS)):
            _draw_patients(axes, patients, of, offset, name, look)
        axes.set(xlabel=metric, ylim=(len(patients) - 0.5, -0.5))
        axes.set_yticks(range(len(patients)), patients)
        axes.grid(axis="y", visible=False)
        if limits:
            axes.set_xlim(*limits)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(scores))
    return figure


def slice_triptych(
    volume: Grid,
    index: int,
    plane: str,
    window: tuple[float, float],
    mask: Grid,
    prediction: Grid,
    ignore: Grid | None = None,
    title: str = "",
) -> Figure:
    """Show a slice three times: the CT alone, its mask, and where a prediction is wrong.

    Args and errors are those of :func:`spine_lib.explore.render.render_slice`.
    """
    pictures = {
        "CT": render.render_slice(volume, index, plane, window),
        "annotation": render.render_slice(volume, index, plane, window, mask),
        "prediction against annotation": render.render_slice(
            volume, index, plane, window, mask, prediction, "error", ignore
        ),
    }
    pixel_mm = render.pixel_size_mm(volume, plane)
    rows, columns = pictures["CT"].shape[:2]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3 * rows / columns + 0.9), layout="constrained")
        for axes, (name, picture) in zip(figure.subplots(1, 3), pictures.items()):
            show_slice(axes, picture, plane, pixel_mm)
            axes.set_title(name)
        if title:
            figure.suptitle(title, fontsize=11)
        paints = render.ERROR_PAINTS[: 3 if ignore is None else 4]
        figure.legend(handles=legend_handles(paints), loc="outside lower center", ncols=len(paints))
    return figure


def show_slice(axes: Axes, rgb: np.ndarray, plane: str, pixel_mm: float) -> None:
    """Draw a rendered slice on axes, with orientation marks and a scale bar.

    Args:
        axes: where to draw.
        rgb: uint8 [row, column, 3] of :func:`spine_lib.explore.render.render_slice`.
        plane: the plane that it was drawn in.
        pixel_mm: :func:`spine_lib.explore.render.pixel_size_mm` of it.
    """
    rows, columns = rgb.shape[:2]
    axes.imshow(rgb, interpolation="nearest")
    axes.set_axis_off()
    places = {"left": (0.02, 0.5), "right": (0.98, 0.5), "top": (0.5, 0.98), "bottom": (0.5, 0.02)}
    turns = {
        "left": {"ha": "left", "va": "center"},
        "right": {"ha": "right", "va": "center"},
        "top": {"ha": "center", "va": "top"},
        "bottom": {"ha": "center", "va": "bottom"},
    }
    for side, letter in render.orientation_marks(plane).items():
        axes.text(*places[side], letter, transform=axes.transAxes, **_ON_IMAGE, **turns[side])
    length_mm = render.scale_bar_mm(columns * pixel_mm)
    length = length_mm / pixel_mm
    start, height = 0.04 * columns, max(1, 0.01 * rows)
    bar = Rectangle(
        (start, 0.95 * rows), length, height, facecolor="white", edgecolor="black", linewidth=0.5
    )
    axes.add_patch(bar)
    middle = start + length / 2
    axes.text(middle, 0.94 * rows, f"{length_mm:g} mm", ha="center", va="bottom", **_ON_IMAGE)


def legend_handles(paints: Iterable[Paint]) -> list[Patch]:
    """Return legend entries that show each paint's colour and hatching."""
    return [
        Patch(
            facecolor=np.array(paint.rgb) / 255,
            edgecolor=INK,
            linewidth=0.6,
            hatch=_MPL_HATCHES[paint.hatch],
            label=paint.name,
        )
        for paint in paints
    ]


def encode_figure(figure: Figure, kind: str = "svg", dpi: int = 150) -> bytes:
    """Encode a figure as "svg" (text as paths, the same bytes each time) or "png"."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


_ON_IMAGE = {
    "color": "white",
    "fontsize": 8,
    "fontweight": "bold",
    "bbox": {"facecolor": "black", "alpha": 0.55, "linewidth": 0, "boxstyle": "square,pad=0.15"},
}


def line_of(look: Mapping) -> dict:
    colour = np.array(look["colour"]) / 255
    return {"color": colour, "linestyle": look["dash"], "marker": look["marker"], "markersize": 4}


def _sparse(count: int) -> int:
    return max(1, count // 12)


def _draw_losses(axes: Axes, series: Mapping[str, Rows], key: str) -> int:
    lowest = np.inf
    for (name, rows), look in zip(series.items(), cycle(LOOKS)):
        steps, values = points(rows, key)
        if not steps.size:
            continue
        axes.plot(steps, values, color=np.array(look["colour"]) / 255, alpha=0.25, linewidth=0.8)
        half = len(values) // 40
        smooth = [np.median(values[max(0, k - half) : k + half + 1]) for k in range(len(values))]
        axes.plot(steps, smooth, label=name, markevery=_sparse(len(steps)), **line_of(look))
        lowest = min(lowest, values.min())
    if 0 < lowest < np.inf:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set(title="Training loss", xlabel="step", ylabel="loss")
    return _finish(axes)


def _draw_scores(axes: Axes, series: Mapping[str, Rows], key: str) -> int:
    for (name, rows), look in zip(series.items(), cycle(LOOKS)):
        steps, values = points(rows, key)
        if steps.size:
            axes.plot(steps, values, label=name, markevery=_sparse(len(steps)), **line_of(look))
    axes.set(title="Validation Dice", xlabel="step", ylabel="Dice", ylim=(0, 1))
    return _finish(axes)


def _finish(axes: Axes) -> int:
    if axes.lines:
        axes.legend(loc="best", handlelength=3)
    else:
        _say_empty(axes, "not recorded")
    return len(axes.lines)


def _draw_patients(
    axes: Axes,
    patients: Sequence[str],
    of: Mapping[str, float | Sequence[float]],
    offset: float,
    name: str,
    look: Mapping,
) -> None:
    colour = np.array(look["colour"]) / 255
    for place, patient in enumerate(patients):
        values = np.atleast_1d(np.array(of.get(patient, np.nan), float))
        values = values[np.isfinite(values)]
        height = place + offset
        label = name if place == 0 else None
        if not values.size:
            axes.text(
                0.01,
                height,
                f"{name}: undefined",
                va="center",
                transform=axes.get_yaxis_transform(),
            )
            values, height = np.array([np.nan]), np.nan
        dots = {"s": 34, "facecolors": "none", "edgecolors": [colour], "linewidths": 1.4}
        axes.scatter(
            values, np.full(values.shape, height), marker=look["marker"], label=label, **dots
        )
        axes.plot([values.mean()] * 2, [height - 0.13, height + 0.13], color=INK, linewidth=1.6)
        axes.annotate(
            f"{values.mean():.3f}" if np.isfinite(values.mean()) else "",
            (np.nanmin(values), height) if np.isfinite(values.mean()) else (0, 0),
            xytext=(-8, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8.5,
        )


def _say_empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555")
