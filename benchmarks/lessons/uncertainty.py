"""How well uncertainty finds the errors of the shipped U-Net, on generated patients.

Three uncertainties and a map that asks no network are judged by the same figure: how often a wrong
voxel has more of it than a right one (AUROC), within 10 mm of the predicted spine and, for
comparison, over the whole scan.
"""

import time
from typing import Any

import numpy as np

from spine_lib import metrics
from spine_lib.course.provocations import provoke
from spine_lib.metrics.calibration import near_spine
from spine_lib.training.pretrained import load_pretrained
from spine_lib.volumes import predict_volume, uncertainty

NAME = "uncertainty"
SEEDS = (0, 1, 2, 3)

FIRST_PATIENT = 7000
SCANS = ("well scanned", "pedicle screws", "low dose", "osteoporosis")
REACH_MM = 10.0
LOOKED_AT = 0.1
"""Share of the voxels near the spine that somebody has time to review."""

FAST = {"shape": (72, 72, 8)}


def run(seed: int, fast: bool = False) -> dict:
    """Judge every uncertainty on one patient, scanned in several ways.

    Args:
        seed: which patient.
        fast: one scan on a small grid, to see that it runs.

    Returns:
        "scans": what `judge_uncertainty` returns for each; and the CPU "seconds".
    """
    started = time.process_time()
    network, recipe = load_pretrained("unet_light")
    second, second_recipe = load_pretrained("deeplabv3plus_light")
    scans = {}
    for name in SCANS[: 1 if fast else None]:
        data = provoke(name, FIRST_PATIENT + seed, **(FAST if fast else {}))
        views = uncertainty.predict_views(network, data.ct, recipe, device="cpu")
        other = predict_volume(second, data.ct, second_recipe, "cpu").array
        masks = (data.labels.array > 0, data.ignore.array)
        scans[name] = judge_uncertainty(views, other, *masks, data.ct.spacing_mm)
    return {"scans": scans, "seconds": round(time.process_time() - started, 1)}


def judge_uncertainty(
    views: np.ndarray,
    other: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> dict[str, Any]:
    """Return how well every map finds the errors of one scan.

    Args:
        views: what `predict_views` returned; the mean of the first two (as it is and mirrored) is
            the prediction.
        other: probabilities of another model [x, y, z].
        truth, ignore: boolean [x, y, z].
        spacing_mm: size of a voxel.

    Returns:
        Dice of the "plain" prediction and of the mean over all "views"; and for each map the AUROC
        "near" the predicted spine and "everywhere", and the share of the errors "found" in the
        most uncertain voxels near it.
    """
    probability = views[:2].mean(axis=0)
    plain, mean = probability > 0.5, views.mean(axis=0) > 0.5
    maps = {
        "entropy": uncertainty.entropy(probability),
        "spread over views": views.std(axis=0),
        "disagreement": np.abs(probability - other),
        "closeness to the outline": uncertainty.closeness_to_outline(plain, spacing_mm),
    }
    near = near_spine(plain, spacing_mm, ignore, REACH_MM)
    wrong = plain != truth
    scores: dict[str, Any] = {
        "plain": metrics.dice(metrics.confusion(plain, truth, ignore)),
        "views": metrics.dice(metrics.confusion(mean, truth, ignore)),
    }
    for name, values in maps.items():
        scores[name] = {
            "near": uncertainty.auroc(values[near], wrong[near]),
            "everywhere": uncertainty.auroc(values[~ignore], wrong[~ignore]),
            "found": _errors_found(values[near], wrong[near], LOOKED_AT),
        }
    return scores


def _errors_found(score: np.ndarray, wrong: np.ndarray, share: float) -> float:
    """Return which part of the errors lies in a share (0 to 1) of most uncertain voxels.

    Voxels that tie at the limit count in part, as if drawn by lot; NaN where nothing is wrong.
    """
    order = np.argsort(-score, kind="stable")
    descending, hits = -score[order], np.concatenate([[0.0], np.cumsum(wrong[order])])
    count = share * score.size
    limit = descending[min(int(count), score.size - 1)]
    first, last = (np.searchsorted(descending, limit, side) for side in ("left", "right"))
    among = hits[first] + (count - first) / (last - first) * (hits[last] - hits[first])
    return float(among / hits[-1]) if hits[-1] else float("nan")
