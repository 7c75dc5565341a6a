"""The figures of lesson 9: a gallery of failures, volumes, conditions, maps of uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spine_lib.course.failures import Failure, Segmented, draw_failure
from spine_lib.ct.geometry import scale_bar_mm, to_slices
from spine_lib.ct.volume import Volume
from spine_lib.explore import figures, render
from spine_lib.volumes.measure import Amount, ErrorPiece

_LOOKS = (("o", "#0072B2"), ("s", "#D55E00"), ("^", "#009E73"))


def gallery(
    found: Sequence[tuple[Failure, ErrorPiece | None]],
    scans: Mapping[tuple[str, str, int], Segmented],
    columns: int = 4,
) -> Figure:
    """Draw failures side by side, each with its surroundings, marks of orientation and scale.

    Args:
        found: failures with what `find` returned; those without a piece are left out.
        scans: what `segment_all` returned.
        columns: pictures in a row.
    """
    shown = [(failure, piece) for failure, piece in found if piece is not None]
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.75 * columns, 1.95 * rows + 0.25), layout="constrained", dpi=66)
    every = figure.subplots(rows, columns, squeeze=False)
    for axes in every.flat:
        axes.set_axis_off()
    for axes, (failure, piece) in zip(every.flat, shown):
        draw_failure(axes, failure, scans[failure.key], piece)
    handles = figures.legend_handles(render.ERROR_SWATCHES[:3])
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def volume_bars(amounts: Mapping[str, Sequence[Amount]], title: str = "") -> Figure:
    """Draw true and predicted volumes side by side, for each structure of each scan.

    Args:
        amounts: by scan, what `compare_volumes` returned; what has no true volume is left out.
        title: of the figure.
    """
    rows = [(scan, one) for scan, of in amounts.items() for one in of if one.truth_ml]
    place = np.arange(len(rows))
    figure = Figure(figsize=(2.5 + 0.7 * len(rows), 2.7), layout="constrained")
    axes = figure.subplots()
    look = {"width": 0.4, "edgecolor": "black"}
    truth, guess = ([one.truth_ml for _, one in rows], [one.predicted_ml for _, one in rows])
    axes.bar(place - 0.2, truth, color="#56B4E9", label="truth", **look)
    axes.bar(place + 0.2, guess, color="#E69F00", hatch="//", label="predicted", **look)
    axes.set_xticks(place, [f"{one.name}\n{scan}" for scan, one in rows])
    axes.set(ylabel="volume in ml", title=title)
    figure.legend(frameon=False, loc="outside right center")
    return figure


def dots(values: Mapping[str, Mapping[str, Sequence[float]]], label: str, limits=(0, 1)) -> Figure:
    """Draw every value as a mark, a row for each condition, with a tick at the mean.

    Args:
        values: by name of a series (a model) and condition, one value for each scan.
        label: of the axis.
        limits: of the axis.
    """
    conditions = list(next(iter(values.values())))
    height = 0.9 + 0.26 * len(conditions) * max(1, 0.6 * len(values))
    figure = Figure(figsize=(5.8, height), layout="constrained")
    axes = figure.subplots()
    offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [0.0]
    for (name, of), offset, (marker, colour) in zip(values.items(), offsets, _LOOKS):
        for place, condition in enumerate(conditions):
            one, y = np.asarray(of[condition], float), place + offset
            shown = name if place == 0 and len(values) > 1 else None
            axes.plot(one, [y] * len(one), marker, color=colour, mfc="none", label=shown)
            axes.plot([one.mean()] * 2, [y - 0.18, y + 0.18], color="black")
    axes.set_yticks(range(len(conditions)), conditions)
    axes.set(xlabel=label, xlim=limits, ylim=(len(conditions) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    if len(values) > 1:
        figure.legend(frameon=False, loc="outside upper center", ncols=len(values))
    return figure


def sagittal_maps(ct: Volume, maps: Mapping[str, np.ndarray], index: int) -> Figure:
    """Draw a sagittal slice of several maps, each from 0 (black) to its largest value (bright).

    Args:
        ct: gives the grid.
        maps: by title, arrays [x, y, z].
        index: voxel index along x.
    """
    figure = Figure(figsize=(1.8 * len(maps), 2.2), layout="constrained", dpi=66)
    row = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, values) in zip(row, maps.items()):
        _draw_map(axes, to_slices(np.asarray(values, np.float32), "sagittal")[index], ct)
        axes.set_title(name, fontsize=9)
    return figure


def _draw_map(axes: Axes, image_hw: np.ndarray, ct: Volume) -> None:
    _, y_mm, z_mm = ct.spacing_mm
    height, width = image_hw.shape[0] * z_mm, image_hw.shape[1] * y_mm
    axes.imshow(
        image_hw, cmap="magma", vmin=0, interpolation="nearest", extent=(0, width, height, 0)
    )
    axes.set_axis_off()
    ink = {"color": "white", "fontsize": 8, "fontweight": "bold"}
    axes.text(0.02, 0.5, "A", transform=axes.transAxes, va="center", **ink)
    axes.text(0.98, 0.5, "P", transform=axes.transAxes, va="center", ha="right", **ink)
    length = scale_bar_mm(width)
    axes.plot([4, 4 + length], [0.95 * height] * 2, color="white", linewidth=2)
    axes.text(4 + length / 2, 0.93 * height, f"{length:g} mm", ha="center", va="bottom", **ink)
