"""Lesson 8: compare models of one run, or two runs, on the same patients.

The unit is the patient: scans of one patient are averaged first, and so are the seeds, each of
which scored the same patients. Intervals and p-values need six patients; below that, the reason
takes their place. An undefined or infinite score (HD95 where nothing was predicted) leaves its
patient out of that metric. Differences between runs are the second less the first, on the test
cases that both have, so that a run with easier cases is not called better.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file, read_json, read_text, write_json
from spine_lib.datasets.settings import short_repr
from spine_lib.metrics import statistics
from spine_lib.training.recipe import run_name

METRICS = {"dice": "Dice", "iou": "IoU", "nsd": "Surface Dice", "hd95": "HD95, mm"}
AVERAGES = {"pooled": "pooled", "per_volume": "mean over volumes"}
CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0


def number(value: object, digits: int = 3, sign: str = "") -> str:
    """Format a score: a dash if it is absent, a word if it is undefined or infinite.

    Example:
        >>> number(0.91236), number(float("nan")), number(float("inf"))
        ('0.912', 'undefined', 'infinite')
    """
    if value is None or isinstance(value, str | bool):
        return value if isinstance(value, str) else "\N{EN DASH}"
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite"
    return f"{value:{sign}.{digits}f}"


def estimate_text(row: Mapping | None, digits: int = 3, sign: str = "") -> str:
    """Return a mean with its interval, where there is one, as text."""
    if row is None or row["estimate"] is None:
        return number(None)
    mean = number(row["estimate"], digits, sign)
    if row["low"] is None:
        return mean
    low, high = (number(row[end], digits, sign) for end in ("low", "high"))
    return f"{mean} [{low},\N{NO-BREAK SPACE}{high}]"


# --- statistics of one run ------------------------------------------------------------------------


def patient_scores(test: Mapping, cases: Collection[str] | None = None) -> pd.DataFrame:
    """Return a row a patient with the mean of each of `METRICS` that was measured, or NaN.

    Args:
        test: a model's scores, as `results.json` holds them; where a volume names no patient, its
            case is the patient.
        cases: only these case ids; None for all.
    """
    volumes = test.get("volumes") or {}
    rows = {case: row for case, row in volumes.items() if cases is None or case in cases}
    frame = pd.DataFrame(rows.values()).filter(METRICS).astype(float)
    patients = [row.get("patient_id", case) for case, row in rows.items()]
    frame = frame.replace([np.inf, -np.inf], np.nan)
    return frame.groupby(np.array(patients, dtype=object), sort=False).mean()


def intervals(scores: pd.DataFrame) -> pd.DataFrame:
    """Return a row a metric: its mean over patients, bootstrap interval, or "reason" for none."""
    rows = {
        metric: asdict(statistics.bootstrap_interval(scores[metric], CONFIDENCE, RESAMPLES, SEED))
        for metric in scores
    }
    columns = ["estimate", "low", "high", "n", "reason"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)


def paired(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Compare two tables of `patient_scores`, metric by metric.

    Returns:
        The rows of `intervals` for the difference, first less second, with "p_value" of the
        sign-flip test and "p_holm", corrected for the number of metrics.

    Raises:
        SpineError: if the two were not scored on the same patients.
    """
    if odd := sorted({*first.index} ^ {*second.index}):
        raise SpineError(
            f"only one of the two models has a score for {', '.join(map(str, odd))}: "
            "a paired test needs both models on the same patients"
        )
    metrics = [metric for metric in METRICS if metric in first and metric in second]
    differences = first[metrics] - second.loc[first.index, metrics]
    frame = intervals(differences)
    p_values = [statistics.sign_flip_test(differences[m], SEED).p_value for m in differences]
    frame["p_value"] = pd.Series(p_values, frame.index, dtype=object)
    frame["p_holm"] = pd.Series(statistics.holm(p_values), frame.index, dtype=object)
    return frame


def seed_spread(runs: Sequence[Mapping], metrics: Iterable[str] = tuple(METRICS)) -> pd.DataFrame:
    """Return how each metric's mean over volumes varies over the seeds; "sd" is None for one."""
    means = pd.DataFrame([(run.get("test") or {}).get("per_volume") or {} for run in runs])
    means = means.reindex(columns=list(metrics)).astype(float).replace([np.inf, -np.inf], np.nan)
    rows = {
        metric: asdict(statistics.spread(means[metric].dropna()))
        for metric in means
        if means[metric].notna().any()
    }
    columns = ["mean", "sd", "low", "high", "n"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)


def run_statistics(models: Mapping[str, Mapping]) -> dict:
    """Return the statistics of all models of a run, by id, as `results.json` keeps them."""
    scores = {model: patient_scores(entry.get("test") or {}) for model, entry in models.items()}
    return {
        "patients": max(map(len, scores.values())),
        "minimum_patients": statistics.MINIMUM_PATIENTS,
        "interval": f"{CONFIDENCE:.0%} bootstrap over patients, BCa, {RESAMPLES} resamples",
        "test": "sign flips of the differences per patient, two-sided; Holm over the metrics",
        "intervals": {model: intervals(frame).to_dict("index") for model, frame in scores.items()},
        "seeds": {
            model: seed_spread(entry.get("runs") or ()).to_dict("index")
            for model, entry in models.items()
        },
        "paired": [
            {"first": a, "second": b, "metrics": paired(scores[a], scores[b]).to_dict("index")}
            for a, b in itertools.combinations(scores, 2)
        ],
    }


# --- two runs -------------------------------------------------------------------------------------


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class _Scores(_Checked):
    dice: float | None = None
    iou: float | None = None
    nsd: float | None = None
    hd95: float | None = None
    patient_id: str = ""
    sha256: str | None = None


class _Test(_Checked):
    volumes: dict[str, _Scores] = {}
    pooled: _Scores = _Scores()
    per_volume: _Scores = _Scores()


class _Model(_Checked):
    """The scores of a model, or of one of its seeds."""

    test: _Test
    seed: int = 0
    runs: list[_Model] = []


class _Data(_Checked):
    train: list[str] = []


class _Results(_Checked):
    """What a comparison reads of `results.json`, and the types that it must have there."""

    models: Annotated[dict[str, _Model], Field(min_length=1)]
    recipe: dict[str, Any] = {}
    data: _Data = _Data()


@dataclass(frozen=True)
class Run:
    """The results of a finished run and its name."""

    name: str
    results: Mapping

    def volumes(self, model: str) -> Mapping[str, Mapping]:
        """Return the scores of a model by test case."""
        return self.results["models"][model]["test"].get("volumes") or {}


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        runs: their names.
        cases: test cases that both have.
        notes: sentences on what limits the comparison.
        recipe: a row for each setting that differs, with "setting", "first" and "second".
        scores: "model", "scope" (an average, or a case), "metric", "first" and "second" score, and
            the lowest and highest over the seeds of each ("first_low", ...).
        paired: by model what `paired` gives for the second run less the first.
    """

    runs: tuple[str, str]
    cases: list[str]
    notes: list[str]
    recipe: pd.DataFrame
    scores: pd.DataFrame
    paired: dict[str, pd.DataFrame]


def run_file(name: str | Path, root: str | Path = "runs") -> Path:
    """Return the `results.json` of a finished run.

    Args:
        name: its folder, `results.json` itself, or its name; "latest" is the run that ended last.
        root: folder of all runs.

    Raises:
        SpineError: if there is no such run, or it is not finished.
    """
    path, root = Path(name), Path(root)
    if str(name) == "latest" and (root / "latest").is_file():
        path = root / run_name(read_text(root / "latest").strip())
    elif not path.exists():
        path = root / path
    file = path if path.is_file() else path / "results.json"
    if not file.is_file():
        raise SpineError(
            f"{name} is no finished run, for {file} is not there: name a folder that `spine "
            f"reproduce` has finished, or its name in {root}."
        )
    return file


def load_run(name: str | Path, root: str | Path = "runs") -> Run:
    """Load a finished run, named as for `run_file`; raise a `SpineError` if it is damaged."""
    file = run_file(name, root)
    results = read_json(file)
    try:
        _Results.model_validate(results)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "it"
        missing = fault["type"] == "missing"
        what = "missing" if missing else f"{short_repr(fault['input'])} ({fault['msg']})"
        raise SpineError(
            f"{file} holds no results, {key:.200} is {what}: name the folder of a finished run."
        ) from error
    return Run(file.resolve().parent.name, results)


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare two runs on the models and test cases that both have.

    Raises:
        SpineError: if the runs have no model or no test case in common.
    """
    runs = (first, second)
    models = [model for model in first.results["models"] if model in second.results["models"]]
    if not models:
        raise SpineError(f"{first.name} and {second.name} have no model in common to compare.")
    cases = [
        case
        for case in first.volumes(models[0])
        if all(case in run.volumes(model) for run in runs for model in models)
    ]
    if not cases:
        raise SpineError(
            f"{first.name} and {second.name} have no test case in common, so that nothing can be "
            "compared: choose runs on the same data set."
        )
    for run in runs:
        seen = set((run.results.get("data") or {}).get("train", ())) & set(cases)
        if seen:
            raise SpineError(
                f"{run.name} was trained on {', '.join(sorted(seen)[:5])} and tested on the same: "
                "its scores say nothing about other patients, train it anew."
            )
    rows = [row for model in models for row in _score_rows(runs, model, cases)]
    return Comparison(
        (first.name, second.name),
        cases,
        _notes(runs, models, cases),
        recipe_differences(first.results, second.results),
        pd.DataFrame(rows).astype(object),
        {
            model: paired(
                *(
                    patient_scores(run.results["models"][model]["test"], cases)
                    for run in (second, first)
                )
            )
            for model in models
        },
    )


def _notes(runs: Sequence[Run], models: list[str], cases: list[str]) -> list[str]:
    notes = []
    volumes = [run.volumes(models[0]) for run in runs]
    counts = [len(rows) for rows in volumes]
    if set(counts) != {len(cases)}:
        notes.append(
            f"The runs have different test cases ({counts[0]} and {counts[1]}): volumes and "
            f"differences are those of the {len(cases)} that both have; pooled scores and means "
            "over volumes are each run's own."
        )
    checksums = [[rows[case].get("sha256") for rows in volumes] for case in cases]
    changed = [case for case, (a, b) in zip(cases, checksums) if a and b and a != b]
    if changed:
        notes.append(
            f"The data of {', '.join(changed[:5])} differ between the runs (other checksums), "
            "though the cases have the same names."
        )
    odd = sorted(set(runs[0].results["models"]) ^ set(runs[1].results["models"]))
    if odd:
        notes.append(f"Only one of the runs has {', '.join(odd)}.")
    return notes


def recipe_differences(first: Mapping, second: Mapping) -> pd.DataFrame:
    """Return "setting", "first" and "second" of each setting that differs; None where absent."""
    old, new = (_settings(results) for results in (first, second))
    rows = [(name, old.get(name), new.get(name)) for name in {**old, **new}]
    rows = [row for row in rows if row[1] != row[2]]
    return pd.DataFrame(rows, columns=["setting", "first", "second"], dtype=object)


def _settings(results: Mapping) -> dict:
    recipe = results.get("recipe") or {}
    settings = next(iter(pd.json_normalize(recipe).to_dict("records")), {})
    runs = [run for entry in results["models"].values() for run in entry.get("runs") or ()]
    return settings | {"seed": None, "seeds": sorted({run.get("seed", 0) for run in runs})}


def _score_rows(runs: Sequence[Run], model: str, cases: list[str]) -> Iterator[dict]:
    scopes = [(average, metric) for average in AVERAGES for metric in METRICS]
    scopes += [(case, metric) for case in cases for metric in ("dice", "hd95")]
    for scope, metric in scopes:
        row = {"model": model, "scope": scope, "metric": metric}
        for key, run in zip(("first", "second"), runs):
            entry = run.results["models"][model]
            row[key], *values = (
                (test.get(scope) or (test.get("volumes") or {}).get(scope) or {}).get(metric)
                for test in [entry["test"], *(seed["test"] for seed in entry.get("runs") or ())]
            )
            known = [value for value in values if value is not None and math.isfinite(value)]
            several = len(values) > 1 and known and scope in AVERAGES
            row[f"{key}_low"] = min(known) if several else None
            row[f"{key}_high"] = max(known) if several else None
        if scope in cases or row["first"] is not None or row["second"] is not None:
            yield row


# --- as text --------------------------------------------------------------------------------------


def comparison_text(comparison: Comparison) -> str:
    """Return what `compare_runs` gives as plain text."""
    lines = ["  against  ".join(comparison.runs), *comparison.notes, ""]
    if comparison.recipe.empty:
        lines.append("The recipes are the same.")
    else:
        settings = [tuple(map(str, row)) for row in comparison.recipe.itertuples(index=False)]
        lines += ["Recipe:", *aligned(settings)]
    for model, rows in comparison.scores.groupby("model", sort=False):
        cells = [("", *comparison.runs, "difference"), *map(_cells, rows.to_dict("records"))]
        lines += ["", str(model), *aligned(cells), *_paired_lines(comparison.paired[model])]
    return "\n".join(lines)


def _cells(row: Mapping) -> tuple[str, ...]:
    digits, cells, values = 1 if row["metric"] == "hd95" else 3, [], []
    for key in ("first", "second"):
        value = row[key]
        values.append(math.nan if value is None or math.isinf(value) else value)
        ends = [number(row[f"{key}_{end}"], digits) for end in ("low", "high")]
        is_range = row[f"{key}_low"] is not None
        cells.append(number(values[-1], digits) + (f" ({' to '.join(ends)})" if is_range else ""))
    difference = values[1] - values[0]
    cells.append(number(None if math.isnan(difference) else difference, digits, "+"))
    return (f"{METRICS[row['metric']]}, {AVERAGES.get(row['scope'], row['scope'])}", *cells)


def _paired_lines(differences: pd.DataFrame) -> list[str]:
    given = differences[differences.p_value.notna()]
    if given.empty:
        return list(differences.reason.dropna()[:1])
    rows = [("mean difference", "[95 % interval]", "p", "p, Holm", "patients")]
    for metric, row in given.iterrows():
        estimate = estimate_text(row, 1 if metric == "hd95" else 3, "+")
        ps = (number(row.p_value, 4), number(row.p_holm, 4))
        rows.append((METRICS[metric], estimate, *ps, str(row.n)))
    return aligned(rows)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows of texts as lines, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def save_comparison(comparison: Comparison, path: Path) -> Path:
    """Write a comparison as JSON where the name ends in .json, else as a page."""
    if path.suffix == ".json":
        tables = {m: frame.to_dict("index") for m, frame in comparison.paired.items()}
        tables = {"paired": tables, "scores": comparison.scores.to_dict("records")}
        tables["recipe"] = comparison.recipe.to_dict("records")
        write_json(path, {**vars(comparison), **tables})
        return path
    title, text = map(html.escape, (" against ".join(comparison.runs), comparison_text(comparison)))
    page = f"""<!doctype html>
<html lang="en-GB"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<h1>{title}</h1>
<pre style="overflow-x: auto">{text}</pre></html>
"""
    with atomic_file(path) as stream:
        stream.write(page.encode())
    return path
