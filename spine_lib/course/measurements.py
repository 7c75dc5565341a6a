"""Read measurements that take too long for a lesson: those of `benchmarks/lessons`, and a full run.

The kept files are part of the package (`results/`). Each says with which settings, versions and
device it was made.
"""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from spine_lib import SpineError, metrics
from spine_lib.annotations.schemes import REGIONS
from spine_lib.course.patients import MODEL_NAMES
from spine_lib.ct.files import read_json
from spine_lib.reproduce.compare import patient_scores

RESULTS = Path(__file__).parent / "results"
SCORES = ("dice", "iou", "nsd", "hd95")


def lesson_result(name: str) -> dict[str, Any]:
    """Load a kept measurement.

    Args:
        name: "augmentation", "cohort", "dimensions", "leakage", "losses", "skips", "stress" or
            "uncertainty"; or "reproduce" for the `results.json` of a built-in run of
            `spine reproduce`.

    Returns:
        A dict with "settings", "seeds" (a list with one dict for each), "versions", "device",
        "seconds" and more.

    Raises:
        SpineError: if there is no such measurement.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in RESULTS.glob("*.json")))
        raise SpineError(f"There is no measurement {name!r}: known are {known}.")
    return read_json(path)


def holdout_counts() -> pd.DataFrame:
    """Load the published voxel counts of 218 held-out scans of the 1089-scan set (nnU-Net, MIT).

    Returns:
        A row for each "case" and "label" (C1 = 1 ... L5 = 24, S1 = 25) with voxels "tp", "fp" and
        "fn" and the scan's "voxels". The file's head names the source;
        `benchmarks/holdout218.py` made it.
    """
    return pd.read_csv(RESULTS / "holdout218.csv", comment="#")


def scores_by_patient(
    results: dict[str, Any], score: str = "dice"
) -> dict[str, dict[str, list[float]]]:
    """Return one score of every training run in a `results.json`, by model id and patient id.

    Returns:
        For each patient a value for each run, as `reproduce.compare.patient_scores` gives it.
    """
    scores_by_model = {}
    for model, entry in results["models"].items():
        columns = [patient_scores(run["test"])[score] for run in entry["runs"]]
        scores_by_model[model] = pd.concat(columns, axis=1).T.to_dict("list")
    return scores_by_model


def cohort_rows(model: str) -> dict[str, dict]:
    """Return the kept scores of the thirty held-out phantoms for one model, by case id.

    They are scores of phantoms: good to learn statistics on, and no statement on patients.

    Args:
        model: "U-Net" or "DeepLabv3+".

    Raises:
        SpineError: if there is no such model.
    """
    if model not in MODEL_NAMES.values():
        raise SpineError(f"There is no model {model!r}: use {' or '.join(MODEL_NAMES.values())}.")
    (stored,) = (name for name, shown in MODEL_NAMES.items() if shown == model)
    return {
        case: row["models"][stored]
        for block in lesson_result("cohort")["seeds"]
        for case, row in block["phantoms"].items()
    }


def cohort_scores(model: str, score: str = "dice", region: str | None = None) -> dict[str, float]:
    """Return one score of each phantom of the cohort.

    Args:
        model: "U-Net" or "DeepLabv3+".
        score: "dice", "iou", "nsd" (at the kept tolerance) or "hd95" (mm) of the cleaned mask, or
            "raw dice", before the largest component was kept.
        region: one of the spine's regions alone; None for the whole spine.

    Returns:
        Score by case id; NaN where it is undefined or the phantom does not show the region.

    Raises:
        SpineError: if there is no such model, score or region.
    """
    known = (*SCORES, "raw dice") if region is None else SCORES
    if score not in known:
        raise SpineError(f"There is no score {score!r} of that: use {', '.join(known)}.")
    if region is not None and region not in REGIONS:
        raise SpineError(f"There is no region {region!r}: use {', '.join(REGIONS)}.")
    scores = {}
    for case, row in cohort_rows(model).items():
        if score == "raw dice":
            value = metrics.dice(metrics.Confusion(**row["raw"]))
        else:
            value = (row if region is None else row["regions"].get(region, {})).get(score)
        scores[case] = math.nan if value is None else value
    return scores
