"""Lesson 8: the figures of the report: curves, scores by patient, calibration, test slices."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from spine_lib.ct.geometry import spacing_mm
from spine_lib.explore import figures, render
from spine_lib.explore.render import Grid, Style
from spine_lib.reproduce.compare import METRICS, patient_scores
from spine_lib.training import logs

PATIENTS_BY_NAME = 12
"""More patients than this are drawn by rank, without their names."""
_MARGIN_MM, _NARROWEST_MM, _WIDTH_PX = 25.0, 120.0, 512
_WINDOW = (400, 1800)


def data_uri(kind: str, data: bytes) -> str:
    """Return an image as an address that holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def encode(figure: Figure, alt: str) -> dict[str, str]:
    """Return what the page needs of a figure: "uri" and "alt"."""
    return {"uri": data_uri("svg+xml", figures.encode_figure(figure)), "alt": alt}


# --- plots ----------------------------------------------------------------------------------------


def curve_plots(curves: Mapping[str, logs.Rows]) -> dict[str, dict]:
    """Draw "train_loss" and "val_dice" of each model, as far as its log holds them."""
    kinds = {
        "train_loss": ("Training loss", figures.loss_curves),
        "val_dice": ("Validation Dice", figures.score_curves),
    }
    plots = {}
    for key, (title, draw) in kinds.items():
        values = {name: logs.points(rows, key)[1] for name, rows in curves.items()}
        ends = [f"{name} from {v[0]:.3f} to {v[-1]:.3f}" for name, v in values.items() if v.size]
        if ends:
            alt = f"{title} over training steps: {'; '.join(ends)}."
            plots[key] = encode(draw(curves), alt)
    return plots


def patient_plots(tests: Mapping[str, Sequence[Mapping]]) -> dict[str, dict]:
    """Draw Dice, surface Dice and HD95 of each test patient from each seed's scores by model."""
    plots = {}
    for metric in ("dice", "nsd", "hd95"):
        tables = {
            name: pd.concat([patient_scores(run).get(metric, pd.Series()) for run in runs], axis=1)
            for name, runs in tests.items()
        }
        known = {name: table.to_numpy(float) for name, table in tables.items()}
        known = {name: values[np.isfinite(values)] for name, values in known.items()}
        ranges = [
            f"{name} from {v.min():.3g} to {v.max():.3g}, mean {v.mean():.3g}"
            for name, v in known.items()
            if v.size
        ]
        if not ranges:
            continue
        highest = max(values.max() for values in known.values() if values.size)
        limits = (0, 1 if metric != "hd95" else max(1.0, 1.08 * highest))
        scores = {name: dict(zip(t.index, t.to_numpy(float))) for name, t in tables.items()}
        count = max(map(len, tables.values()))
        draw = figures.patient_scores if count <= PATIENTS_BY_NAME else ranked_patients
        alt = f"Test {METRICS[metric]} of {count} patients: {'; '.join(ranges)}."
        plots[metric] = encode(draw(scores, METRICS[metric], limits), alt)
    return plots


def ranked_patients(
    scores: Mapping[str, Mapping[str, Sequence[float]]], metric: str, limits: tuple[float, float]
) -> Figure:
    """Plot the mean over seeds of many patients, in the order of the first model."""
    means = pd.DataFrame(
        {n: {p: pd.Series(v).mean() for p, v in patients.items()} for n, patients in scores.items()}
    )
    means = means.sort_values(means.columns[0])
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(4.8, 3.1), layout="constrained")
        axes = figure.subplots()
        for name, style in zip(means, cycle(figures.LINE_STYLES)):
            line = style | {"linestyle": "none"}
            axes.plot(range(1, len(means) + 1), means[name], label=name, **line)
        axes.set(xlabel=f"test patients in the order of {means.columns[0]}", ylabel=metric)
        axes.set_ylim(*limits)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(means.columns))
    return figure


def region_plot(scores: pd.DataFrame) -> dict:
    """Draw the Dice of each region, a dot for each volume ("model", "Region", "Dice")."""
    scores = scores.dropna(subset="Dice")
    by_model = {
        name: rows.groupby("Region", sort=False).Dice.apply(list).to_dict()
        for name, rows in scores.groupby("model", sort=False)
    }
    means = scores.groupby(["model", "Region"], sort=False).Dice.mean()
    texts = "; ".join(f"{model}, {region} {mean:.3f}" for (model, region), mean in means.items())
    figure = figures.patient_scores(by_model, "Dice in the region")
    return encode(figure, f"Dot plot of test Dice by region and model, mean Dice: {texts}.")


def calibration_plot(tests: Mapping[str, Mapping]) -> dict | None:
    """Draw a reliability diagram of each model's "calibration"; None where none was measured."""
    measured = {name: test.get("calibration") or {} for name, test in tests.items()}
    measured = {name: row for name, row in measured.items() if row.get("voxels")}
    if not measured:
        return None
    errors = "; ".join(f"{name} {row['ece']:.3f}" for name, row in measured.items())
    alt = f"Reliability diagram near the spine. Expected calibration error: {errors}."
    tables = {
        name: pd.DataFrame.from_dict(row["bins"], orient="index").astype(float)
        for name, row in measured.items()
    }
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(4.4, 5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), "--", color="#777777", linewidth=1)
        for number, ((name, bins), style) in enumerate(
            zip(tables.items(), cycle(figures.LINE_STYLES))
        ):
            line = style | {"markersize": 5}
            full = bins[bins.voxels > 0]
            means = full.probability / full.voxels
            above.plot(means, full.spine / full.voxels, label=name, **line)
            width = 1 / len(bins) / (len(tables) + 0.5)
            left = (np.arange(len(bins)) + 0.25 / (len(tables) + 0.5)) / len(bins) + number * width
            share = bins.voxels / bins.voxels.sum()
            below.bar(left, share, width, align="edge", color=line["color"])
        above.set(ylabel="share that is spine", xlim=(0, 1), ylim=(0, 1))
        above.legend(loc="upper left", handlelength=3)
        below.set(xlabel="probability of spine", ylabel="voxels", yscale="log", ylim=(1e-3, 1))
        below.set_yticks((1e-3, 1e-2, 1e-1, 1), ("0.1 %", "1 %", "10 %", "100 %"))
        below.yaxis.set_minor_formatter(NullFormatter())
    return encode(figure, alt)


# --- test slices ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Overlay:
    """A drawn test slice: uint8 RGB [row, column, 3], and what is told of it."""

    image: np.ndarray
    caption: str
    alt: str
    kind: str
    plane: str
    pixel_mm: float

    @property
    def uri(self) -> str:
        """The image as an address that holds all of it."""
        return data_uri("png", render.encode_png(self.image))

    @property
    def marks(self) -> dict[str, str]:
        """The letters of the directions, by side."""
        return render.orientation_marks(self.plane)

    @property
    def width_mm(self) -> float:
        """The width of the image."""
        return self.image.shape[1] * self.pixel_mm

    @property
    def bar_mm(self) -> float:
        """The length of a scale bar."""
        return render.scale_bar_mm(self.width_mm)


class _Crop(NamedTuple):
    array: np.ndarray
    affine: np.ndarray


def pick_slices(dice_by_slice: Mapping[object, float]) -> dict[str, object]:
    """Return the keys of the best, median and worst Dice; of fewer than three, no median.

    Example:
        >>> pick_slices({1: 0.9, 2: float("nan"), 3: 0.2, 4: 0.7})
        {'best': 1, 'median': 4, 'worst': 3}
    """
    defined = {key: float(dice) for key, dice in dice_by_slice.items() if np.isfinite(dice)}
    ranked = sorted(defined, key=lambda key: -defined[key])
    if len(ranked) < 3:
        return dict(zip(("best", "worst"), ranked))
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def draw_overlay(
    ct: Grid,
    mask: Grid,
    prediction: Grid,
    index: int,
    case_id: str,
    kind: str,
    dice: float,
    plane: str = "axial",
    ignore: Grid | None = None,
) -> Overlay:
    """Draw where a prediction is right and wrong on one slice, close up on the spine."""
    bounds = _bounds((mask, prediction), ct, index, plane)
    close_ct, close_mask, close_prediction, close_ignore = (
        None if grid is None else _crop(grid, bounds) for grid in (ct, mask, prediction, ignore)
    )
    axis = render.plane_axes(plane)[2]
    pixel_mm = float(close_ct.array.shape[axis] * spacing_mm(ct.affine)[axis] / _WIDTH_PX)
    style = Style("error", opacity=0.3, outline_px=2, pixel_mm=pixel_mm)
    image = render.render_slice(
        close_ct, 0, plane, _WINDOW, close_mask, close_prediction, style, close_ignore
    )
    caption = f"case {case_id}, {plane} slice {index + 1} of {render.slice_count(ct, plane)}"
    content = (
        f"close up on the spine; the {kind} test slice of its model, Dice {dice:.3f}: "
        "true positives plain, false positives hatched, false negatives dotted"
    )
    alt = render.alt_text(ct, index, plane, case_id, content)
    return Overlay(image, f"{caption}, Dice {dice:.3f}.", alt, kind, plane, pixel_mm)


def _bounds(masks: tuple[Grid, ...], ct: Grid, index: int, plane: str) -> tuple[slice, ...]:
    """Return the voxels of one slice that hold its masks, with a margin around them."""
    cut_axis = render.plane_axes(plane)[0]
    bounds = [slice(0, size) for size in ct.array.shape]
    bounds[cut_axis] = slice(index, index + 1)
    marked = np.logical_or(*(grid.array[tuple(bounds)] > 0.5 for grid in masks))
    for axis in render.plane_axes(plane)[1:]:
        occupied = np.flatnonzero(marked.any(tuple({0, 1, 2} - {axis})))
        if occupied.size:
            voxel_mm = spacing_mm(ct.affine)[axis]
            middle = (occupied[0] + occupied[-1] + 1) / 2
            width_mm = (occupied[-1] + 1 - occupied[0]) * voxel_mm + 2 * _MARGIN_MM
            half = max(width_mm, _NARROWEST_MM) / voxel_mm / 2
            stop = min(ct.array.shape[axis], int(np.ceil(middle + half)))
            bounds[axis] = slice(max(0, int(middle - half)), stop)
    return tuple(bounds)


def _crop(volume: Grid, bounds: tuple[slice, ...]) -> _Crop:
    affine = np.array(volume.affine, float)
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in bounds]
    return _Crop(volume.array[bounds], affine)
