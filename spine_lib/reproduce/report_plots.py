"""Draw the plots of the report: curves, scores by patient and by region, calibration."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import cycle

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from spine_lib.explore import figures
from spine_lib.reproduce import report_words
from spine_lib.reproduce.patient_statistics import NAMES, per_patient
from spine_lib.training import logs

Plot = dict[str, str]
"""What the page needs of a plot: "uri", "alt" and "caption"."""

PATIENTS_BY_NAME = 12
"""More patients than this are drawn by rank, without their names."""

PLOTTED = {"dice": "Dice", "nsd": "surface Dice", "hd95": "HD95"}


def data_uri(kind: str, data: bytes) -> str:
    """Return an image as an address that holds it whole."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def as_plot(figure: Figure, alt: str, caption: str) -> Plot:
    """Encode a figure for the page."""
    uri = data_uri("svg+xml", figures.encode_figure(figure))
    return {"uri": uri, "alt": alt, "caption": caption}


def curve_plots(runs: Mapping[str, object], names: Mapping[str, str]) -> list[Plot]:
    """Draw training loss and validation Dice, as far as the logs of the runs hold them."""
    series = {names.get(model, model): logs.as_rows(log) for model, log in runs.items() if log}
    drawn = []
    if any(logs.has_points(rows, "train_loss") for rows in series.values()):
        alt = f"Training loss over training steps: {_ends(series, 'train_loss')}."
        caption = "Training loss; faint as logged, strong as a running median."
        drawn.append(as_plot(figures.loss_curves(series), alt, caption))
    if any(logs.has_points(rows, "val_dice") for rows in series.values()):
        alt = f"Validation Dice over training steps: {_ends(series, 'val_dice')}."
        caption = "Dice on the validation cases, which are not the test cases."
        drawn.append(as_plot(figures.score_curves(series), alt, caption))
    return drawn


def _ends(series: Mapping[str, logs.Rows], key: str) -> str:
    ends = {name: logs.points(rows, key)[1] for name, rows in series.items()}
    return "; ".join(
        f"{name} from {values[0]:.3f} to {values[-1]:.3f}"
        for name, values in ends.items()
        if values.size
    )


# --- patients -------------------------------------------------------------------------------------


def patient_plots(results: Mapping, names: Mapping[str, str]) -> list[Plot]:
    """Draw Dice, surface Dice and HD95 of each test patient, as far as they were measured."""
    plots = []
    for metric, called in PLOTTED.items():
        scores = {name: _by_patient(results, model, metric) for model, name in names.items()}
        patients = dict.fromkeys(patient for of in scores.values() for patient in of)
        known = [v for of in scores.values() for seeds in of.values() for v in seeds]
        known = [value for value in known if np.isfinite(value)]
        if not known:
            continue
        label, limits = NAMES[metric], (0, 1 if metric != "hd95" else max(1.0, 1.08 * max(known)))
        alt = f"Test {called} of {len(patients)} patients: {_means(scores)}. Numbers in the table."
        if len(patients) <= PATIENTS_BY_NAME:
            figure = figures.patient_scores(scores, label, limits)
            caption = f"Test {called} by patient: a dot for each seed, a tick and a figure for the "
            caption += "mean of the seeds."
        else:
            figure = ranked_patients(scores, label, limits)
            caption = f"Test {called} of each patient (mean of the seeds), in the order of "
            caption += f"{next(iter(scores))}."
        plots.append(as_plot(figure, alt, caption))
    return plots


def _by_patient(results: Mapping, model: str, metric: str) -> dict[str, list[float]]:
    entry, values = results["models"][model], {}
    for run in entry.get("runs") or [entry]:
        for patient, value in per_patient(run.get("test") or {}, metric).items():
            values.setdefault(patient, []).append(value)
    return values


def _means(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    texts = []
    for name, of in scores.items():
        known = np.concatenate([np.asarray(value, float) for value in of.values()])
        known = known[np.isfinite(known)]
        if known.size:
            low, high = known.min(), known.max()
            texts.append(f"{name} from {low:.3g} to {high:.3g}, mean {known.mean():.3g}")
    return "; ".join(texts)


def ranked_patients(
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    metric: str,
    limits: tuple[float, float] | None = (0, 1),
) -> Figure:
    """Plot one score of many patients, side by side in the order of the first model.

    Args:
        scores: by model name and patient, a value for each seed; their mean is drawn.
        metric: the name on the axis.
        limits: of the axis; None lets the values decide.
    """
    means = {
        name: {patient: _mean(values) for patient, values in of.items()}
        for name, of in scores.items()
    }
    first = next(iter(means.values()))
    order = sorted(first, key=lambda patient: (np.isnan(first[patient]), first[patient]))
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(4.8, 3.1), layout="constrained")
        axes = figure.subplots()
        for (name, of), look in zip(means.items(), cycle(figures.LINE_STYLES)):
            line = look | {"linestyle": "none"}
            values = [of.get(patient, np.nan) for patient in order]
            axes.plot(range(1, len(order) + 1), values, label=name, **line)
        axes.set(xlabel=f"test patients in the order of {next(iter(means))}", ylabel=metric)
        if limits:
            axes.set_ylim(*limits)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(means))
    return figure


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


# --- regions and calibration ----------------------------------------------------------------------


def region_plot(results: Mapping, names: Mapping[str, str], shown: Sequence[str]) -> Plot | None:
    """Draw the Dice of each region that the test cases show, a dot for each of them."""
    scores = {
        name: {region: report_words.region_scores(results, model, region) for region in shown}
        for model, name in names.items()
    }
    scores = {name: of for name, of in scores.items() if any(of.values())}
    if not scores:
        return None
    means = "; ".join(
        f"{name} " + ", ".join(f"{region} {_mean(values):.3f}" for region, values in of.items())
        for name, of in scores.items()
    )
    alt = f"Dot plot of test Dice by region and model, mean Dice: {means}."
    caption = "Dice by region: a dot for each test volume that shows it (mean of the seeds), a "
    caption += "tick and a figure for their mean."
    return as_plot(figures.patient_scores(scores, "Dice in the region"), alt, caption)


def calibration_plot(results: Mapping, names: Mapping[str, str]) -> Plot | None:
    """Draw how often voxels near the spine are spine, against the probability they were given."""
    found = {
        name: (report_words.scores_on_test(results, model).get("calibration") or {})
        for model, name in names.items()
    }
    found = {name: one for name, one in found.items() if one.get("voxels")}
    if not found:
        return None
    errors = "; ".join(f"{name} {one['ece']:.3f}" for name, one in found.items())
    alt = f"Reliability diagram near the spine. Expected calibration error: {errors}."
    caption = (
        "Above: the share of spine among the voxels of each bin against their mean probability; "
        "on the dashed line they agree, below it the network is too sure of spine. Under it: the "
        "share of the voxels in each bin."
    )
    figure = reliability_diagram({name: one["bins"] for name, one in found.items()})
    return as_plot(figure, alt, caption)


def reliability_diagram(bins: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Plot the bins of `spine_lib.metrics.calibration` of each model.

    Args:
        bins: by model name and range, "voxels", "spine" and "probability".
    """
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(4.4, 5), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), "--", color="#777777", linewidth=1)
        for place, ((name, of), look) in enumerate(zip(bins.items(), cycle(figures.LINE_STYLES))):
            counts = np.array([[one[key] for key in _COUNTS] for one in of.values()], float)
            voxels, spine, probability = counts[counts[:, 0] > 0].T
            line = look | {"markersize": 5}
            above.plot(probability / voxels, spine / voxels, label=name, **line)
            width = 1 / len(of) / (len(bins) + 0.5)
            left = (np.arange(len(of)) + 0.25 / (len(bins) + 0.5)) / len(of) + place * width
            share = counts[:, 0] / counts[:, 0].sum()
            below.bar(left, share, width, align="edge", color=line["color"])
        above.set(ylabel="share that is spine", xlim=(0, 1), ylim=(0, 1))
        above.legend(loc="upper left", handlelength=3)
        below.set(xlabel="probability of spine", ylabel="voxels", yscale="log", ylim=(1e-3, 1))
        below.set_yticks((1e-3, 1e-2, 1e-1, 1), ("0.1 %", "1 %", "10 %", "100 %"))
        below.yaxis.set_minor_formatter(NullFormatter())
    return figure


_COUNTS = ("voxels", "spine", "probability")
