"""Lesson 7: what the scores of a run say about other patients, and about training once more.

`metrics.statistics` holds the methods; here they are put to the scores that `results.json` keeps.
The unit is the patient: scans of one patient are averaged first, and so are the seeds, each of
which saw the same patients. Intervals and p-values are given from six patients on; below that, the
reason stands in their place. A score that is undefined or infinite on a patient (HD95 where nothing
was found) leaves that patient out of that score; "n" says how many are left.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from spine_lib.metrics import statistics

METRICS = ("dice", "iou", "nsd", "hd95")
NAMES = {"dice": "Dice", "iou": "IoU", "nsd": "Surface Dice", "hd95": "HD95, mm"}
CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 0


def per_patient(test: Mapping, metric: str, cases: Collection[str] | None = None) -> dict:
    """Return one score of each patient.

    Args:
        test: a model's scores, as `results.json` holds them; where a volume names no patient, its
            case is the patient.
        metric: one of `METRICS`, or another score of a volume.
        cases: only these case ids; None for all.

    Returns:
        Mean over the patient's scans by patient id; NaN where it is undefined or infinite.
    """
    volumes = {
        case: volume
        for case, volume in (test.get("volumes") or {}).items()
        if cases is None or case in cases
    }
    scores = {case: _finite_or_nan(volume.get(metric)) for case, volume in volumes.items()}
    patients = {case: volume.get("patient_id", case) for case, volume in volumes.items()}
    return statistics.mean_per_patient(scores, patients)


def _finite_or_nan(value: float | None) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.nan


def intervals(test: Mapping) -> dict[str, dict]:
    """Return each metric's mean over patients with its bootstrap interval, or why there is none."""
    return {
        metric: _interval(per_patient(test, metric).values())
        for metric in METRICS
        if _is_scored(test, metric)
    }


def _is_scored(test: Mapping, metric: str) -> bool:
    return any(metric in volume for volume in (test.get("volumes") or {}).values())


def _interval(values: Iterable[float]) -> dict:
    found = statistics.bootstrap_interval(values, CONFIDENCE, RESAMPLES, SEED)
    return dataclasses.asdict(found)


def paired(first: Mapping, second: Mapping, cases: Collection[str] | None = None) -> dict:
    """Compare two models on the same patients, metric by metric.

    Args:
        first, second: test scores of the two, as `results.json` holds them.
        cases: only these case ids; None for all.

    Returns:
        By metric the mean difference, first less second ("estimate"), its interval ("low",
        "high"), "p_value" of the sign-flip test, "p_holm" corrected for all metrics asked, "n"
        patients, and "reason" where something is not given.

    Raises:
        SpineError: if the two were not scored on the same patients.
    """
    rows = {}
    for metric in METRICS:
        if not (_is_scored(first, metric) and _is_scored(second, metric)):
            continue
        differences = statistics.paired_differences(
            per_patient(first, metric, cases), per_patient(second, metric, cases)
        )
        p_value = statistics.sign_flip_test(differences.values(), SEED).p_value
        rows[metric] = _interval(differences.values()) | {"p_value": p_value}
    adjusted = statistics.holm([row["p_value"] for row in rows.values()])
    return {
        metric: row | {"p_holm": p_holm} for (metric, row), p_holm in zip(rows.items(), adjusted)
    }


def seed_spread(runs: Sequence[Mapping], metrics: Iterable[str] = METRICS) -> dict[str, dict]:
    """Return how each metric's mean over volumes varies over the seeds.

    Args:
        runs: of one model, as `results.json` holds them.
        metrics: names of scores.

    Returns:
        By metric "mean", "sd" (None for one seed), "low", "high" and "n"; a metric that is
        undefined with every seed is left out.
    """
    found = {}
    for metric in metrics:
        means = [(run.get("test") or {}).get("per_volume", {}).get(metric) for run in runs]
        known = [value for value in map(_finite_or_nan, means) if not math.isnan(value)]
        if known:
            found[metric] = dataclasses.asdict(statistics.spread(known))
    return found


def of_models(models: Mapping[str, Mapping]) -> dict:
    """Return the statistics of all models of a run, as `results.json` keeps them.

    Args:
        models: by model id, {"test", "runs"}.

    Returns:
        "patients"; by model "intervals" (`intervals`) and "seeds" (`seed_spread`); "paired": for
        each two models {"first", "second", "metrics": `paired`}; and how it was computed.
    """
    tests = {model: entry.get("test") or {} for model, entry in models.items()}
    return {
        "patients": max(len(per_patient(test, "dice")) for test in tests.values()),
        "minimum_patients": statistics.MINIMUM_PATIENTS,
        "interval": f"{CONFIDENCE:.0%} bootstrap over patients, BCa, {RESAMPLES} resamples",
        "test": "sign flips of the differences per patient, two-sided; Holm over the metrics",
        "intervals": {model: intervals(test) for model, test in tests.items()},
        "seeds": {model: seed_spread(entry.get("runs") or ()) for model, entry in models.items()},
        "paired": [
            {"first": one, "second": two, "metrics": paired(tests[one], tests[two])}
            for one, two in itertools.combinations(tests, 2)
        ],
    }
