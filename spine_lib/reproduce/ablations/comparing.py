"""Compare the variants of an ablation with its reference, patient by patient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spine_lib.metrics import statistics
from spine_lib.reproduce import patient_statistics

GROUPS = ("patients", "phantoms")
METRIC = "dice"

Run = Mapping[str, Any]
"""One training: its "fold", "seed" and "volumes" (by case id, what `scoring.score` gives)."""


def compare_all(found: Mapping[str, Mapping], reference: str) -> list[dict]:
    """Compare every variant with the reference in every group, and correct for their number.

    Args:
        found: by variant, an entry of `ablation.json`.
        reference: name of the variant that the others are compared with.

    Returns:
        Rows of `compare` with "variant", "group", "p_holm" and "reading".
    """
    rows = []
    for name, entry in found.items():
        for group in GROUPS:
            if name == reference:
                continue
            row = compare(entry["runs"], found[reference]["runs"], group)
            if row is None:
                continue
            row = {"variant": name, "group": group, "fair": entry["unfair_on"] != group} | row
            if not row["fair"]:
                row["p_value"] = None  # a question that was not asked does not count for Holm
            rows.append(row)
    correct(rows)
    for row in rows:
        row["reading"] = reading(row, not row["fair"])
    return rows


def mean_scores(runs: Sequence[Run], group: str, metric: str = METRIC) -> dict[str, float]:
    """Average a score over seeds and folds, case by case.

    Returns:
        Score by case id; NaN where no run has a defined one.
    """
    values: dict[str, list[float]] = {}
    for run in runs:
        for case, row in run["volumes"].items():
            if row["group"] == group:
                values.setdefault(case, []).append(_number(row[metric]))
    return {case: _mean(found) for case, found in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def compare(variant: Sequence[Run], reference: Sequence[Run], group: str) -> dict | None:
    """Compare two variants on a group of cases.

    Args:
        variant, reference: their runs, with the same folds and seeds.
        group: "patients" or "phantoms".

    Returns:
        The mean difference of Dice by patient ("estimate"), its interval and p-value or the
        "reason" for none, "n" (`patient_statistics.paired`); "cases", the difference on each;
        "by_seed", these seed by seed; and "seeds", how their mean varies over the seeds (None for a
        single one).  None where no case is of this group.
    """
    tests = [_as_test(runs, group) for runs in (variant, reference)]
    if not tests[0]["volumes"]:
        return None
    row = patient_statistics.paired(*tests)[METRIC]
    del row["p_holm"]  # that corrects for several scores; here there are several variants
    new, old = (mean_scores(runs, group) for runs in (variant, reference))
    by_seed = _by_seed(variant, reference, group)
    means = [_mean(list(differences.values())) for differences in by_seed.values()]
    return row | {
        "cases": {case: new[case] - old[case] for case in new},
        "by_seed": by_seed,
        "seeds": _spread(means),
    }


def _as_test(runs: Sequence[Run], group: str) -> dict:
    means = mean_scores(runs, group)
    patients = {case: row["patient_id"] for run in runs for case, row in run["volumes"].items()}
    return {
        "volumes": {
            case: {METRIC: value, "patient_id": patients[case]} for case, value in means.items()
        }
    }


def _by_seed(variant: Sequence[Run], reference: Sequence[Run], group: str) -> dict[str, dict]:
    """Return the difference on each case, seed by seed."""
    differences = {}
    for seed in sorted({run["seed"] for run in variant}):
        new, old = (
            mean_scores([run for run in runs if run["seed"] == seed], group)
            for runs in (variant, reference)
        )
        differences[str(seed)] = {case: new[case] - old[case] for case in new}
    return differences


def _spread(values: Sequence[float]) -> dict | None:
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return None
    return vars(statistics.spread(known))


def correct(comparisons: Sequence[dict]) -> None:
    """Add "p_holm" to each: its p-value corrected for all that were asked in one table."""
    adjusted = statistics.holm([row["p_value"] for row in comparisons])
    for row, p_holm in zip(comparisons, adjusted, strict=True):
        row["p_holm"] = p_holm


def reading(row: Mapping[str, Any], unfair: bool = False) -> str:
    """Say in a few words what a comparison allows one to say, and no more.

    Args:
        row: what `compare` and `correct` gave.
        unfair: whether the group is no fair test of this variant.
    """
    if unfair:
        return "not comparable on these"
    if row["low"] is None:
        return "no interval: " + _few(row["n"])
    if row["low"] <= 0 <= row["high"]:
        return "no effect found"
    if row["p_holm"] is None or row["p_holm"] >= 0.05:
        return "no effect found once corrected for the number of comparisons"
    side = "better" if row["estimate"] > 0 else "worse"
    seeds = row.get("seeds")
    if seeds and seeds["low"] < 0 < seeds["high"]:
        return f"{side} on average, not with every seed"
    return side


def _few(n: int) -> str:
    return f"{n} patient{'s' if n != 1 else ''}, {statistics.MINIMUM_PATIENTS} are needed"
