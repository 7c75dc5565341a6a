"""Read the kept scores of the thirty held-out phantoms, model by model.

They are kept by the measurement `spine_lib.course.experiments.cohort`, and are scores of phantoms:
good to learn statistics on, and no statement on patients.
"""

from __future__ import annotations

import math

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.course.held_out import MODEL_NAMES
from spine_lib.course.results import lesson_result
from spine_lib.metrics import overlap as metrics

SCORES = ("dice", "iou", "nsd", "hd95")


def cohort_rows(model: str) -> dict[str, dict]:
    """Return what was kept of each phantom for one model, by case id.

    Args:
        model: "U-Net" or "DeepLabv3+", or the name of the shipped model.

    Raises:
        SpineError: if there is no such model, or the measurement cannot be read.
    """
    stored = {shown: name for name, shown in MODEL_NAMES.items()}.get(model, model)
    if stored not in MODEL_NAMES:
        raise SpineError(f"there is no model {model!r}: use {' or '.join(MODEL_NAMES.values())}")
    return {
        case: row["models"][stored]
        for block in lesson_result("cohort")["seeds"]
        for case, row in block["phantoms"].items()
    }


def cohort_scores(model: str, score: str = "dice", region: str | None = None) -> dict[str, float]:
    """Return one score of each phantom.

    Args:
        model: "U-Net" or "DeepLabv3+".
        score: "dice", "iou", "nsd" (at the kept tolerance) or "hd95" (mm) of the cleaned mask, or
            "raw dice", before the largest piece was kept.
        region: one of the spine's regions alone; None for the whole spine.

    Returns:
        Score by case id; NaN where it is undefined or the phantom does not show the region.

    Raises:
        SpineError: if there is no such model, score or region.
    """
    known = (*SCORES, "raw dice") if region is None else SCORES
    if score not in known:
        raise SpineError(f"no score {score!r} was kept of that: use {', '.join(known)}")
    if region is not None and region not in REGIONS:
        raise SpineError(f"there is no region {region!r}: use {', '.join(REGIONS)}")
    found = {}
    for case, row in cohort_rows(model).items():
        if score == "raw dice":
            value = metrics.dice(metrics.Confusion(**row["raw"]))
        else:
            value = (row if region is None else row["regions"].get(region, {})).get(score)
        found[case] = math.nan if value is None else value
    return found
