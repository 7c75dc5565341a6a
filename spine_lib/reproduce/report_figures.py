"""Lesson 8: the figures of the report: curves, scores by patient, calibration, test slices."""

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


def png_uri(image: np.ndarray) -> str:
    """Return an RGB picture as an address that holds all of it."""
    return _data_uri("png", render.encode_png(image))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def encode(figure: Figure, alt: str) -> dict[str, str]:
    """Return what the page needs of a figure: "uri" and "alt"."""
    return {"uri": _data_uri("svg+xml", figures.encode_figure(figure)), "alt": alt}


# --- plots ----------------------------------------------------------------------------------------


def curve_plots(curves: Mapping[str, logs.Rows]) -> dict[str, dict]:
    """Draw "train_loss" and "val_dice" of each model, as far as its log holds them."""
    plots = {}
    for key, (title, _) in figures.CURVES.items():
        values = {name: logs.points(rows, key)[1] for name, rows in curves.items()}
        ends = [f"{name} from {v[0]:.3f} to {v[-1]:.3f}" for name, v in values.items() if v.size]
        if ends:
            alt = f"{title} over training steps: {'; '.join(ends)}."
            plots[key] = encode(figures.training_curves(curves, key), alt)
    return plots


def patient_plots(tests: Mapping[str, Sequence[Mapping]]) -> dict[str, dict]:
    """Draw Dice, surface Dice and HD95 of each test patient from each seed's scores by model."""
    scores = {
        (n, seed): patient_scores(run) for n, r in tests.items() for seed, run in enumerate(r)
    }
    table, plots = pd.concat(scores, names=["model", "seed", "patient"]), {}
    count = table.index.unique("patient").size
    for metric in ("dice", "nsd", "hd95"):
        column = table.get(metric, pd.Series()).dropna()
        if column.empty:
            continue
        ranges = column.groupby("model", sort=False).agg(["min", "max", "mean"])
        limits = (0, 1 if metric != "hd95" else max(1.0, 1.08 * column.max()))
        groups = table[metric].groupby(["model", "patient"], sort=False)
        if count <= PATIENTS_BY_NAME:
            by_model = {name: groups.apply(list)[name].to_dict() for name in tests}
            figure = figures.patient_scores(by_model, METRICS[metric], limits)
        else:
            means = groups.mean().unstack("model")[list(tests)]
            figure = ranked_patients(means, METRICS[metric], limits)
        texts = (f"{n} from {a:.3g} to {b:.3g}, mean {m:.3g}" for n, a, b, m in ranges.itertuples())
        alt = f"Test {METRICS[metric]} of {count} patients: {'; '.join(texts)}."
        plots[metric] = encode(figure, alt)
    return plots


def ranked_patients(means: pd.DataFrame, metric: str, limits: tuple[float, float]) -> Figure:
    """Plot a score of many patients (rows) by model (columns), in the order of the first model."""
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
    pixel_mm: float


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
    ignore: Grid | None = None,
) -> Overlay:
    """Draw where a prediction is right and wrong on an axial slice, close up on the spine."""
    bounds = _bounds((mask, prediction), ct, index)
    close_ct, *close = (
        None if grid is None else _crop(grid, bounds) for grid in (ct, mask, prediction, ignore)
    )
    pixel_mm = float(close_ct.array.shape[0] * spacing_mm(ct.affine)[0] / _WIDTH_PX)
    style = Style("error", opacity=0.3, outline_px=2, pixel_mm=pixel_mm)
    image = render.render_slice(close_ct, 0, "axial", _WINDOW, *close[:2], style, close[2])
    caption = f"case {case_id}, axial slice {index + 1} of {ct.array.shape[2]}, Dice {dice:.3f}."
    content = (
        f"close up on the spine; the {kind} test slice of its model, Dice {dice:.3f}: "
        "true positives plain, false positives hatched, false negatives dotted"
    )
    alt = render.alt_text(ct, index, "axial", case_id, content)
    return Overlay(image, caption, alt, kind, pixel_mm)


def _bounds(masks: tuple[Grid, ...], ct: Grid, index: int) -> tuple[slice, ...]:
    """Return the voxels of one axial slice that hold its masks, with a margin around them."""
    bounds = [slice(0, ct.array.shape[0]), slice(0, ct.array.shape[1]), slice(index, index + 1)]
    marked = np.logical_or(*(grid.array[:, :, index] > 0.5 for grid in masks))
    for axis in (0, 1) if marked.any() else ():
        occupied = np.flatnonzero(marked.any(1 - axis))
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
