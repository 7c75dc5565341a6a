"""How well uncertainty finds the errors of the shipped U-Net, on generated patients.

Three uncertainties and a map that asks no network are judged by the same figure: how often a wrong
voxel has more of it than a right one (AUROC), within 10 mm of the predicted spine and, for
comparison, over the whole scan.
"""

from __future__ import annotations

import time

import numpy as np

from spine_lib.course.stress import PROVOCATIONS, provoke
from spine_lib.metrics import overlap as metrics
from spine_lib.training.pretrained import load_pretrained
from spine_lib.volumes import uncertainty
from spine_lib.volumes.masks import predict_volume

NAME = "uncertainty"
SEEDS = (0, 1, 2, 3)

FIRST_PATIENT = 7000
SCANS = ("well scanned", "pedicle screws", "low dose", "osteoporosis")
REACH_MM = 10.0
LOOKED_AT = 0.1
"""Share of the voxels near the spine that somebody has time to look at."""

FAST = {"shape": (72, 72, 8)}


def run(seed: int, fast: bool = False) -> dict:
    """Judge every uncertainty on one patient, scanned in several ways.

    Args:
        seed: which patient.
        fast: one scan on a small grid, to see that it runs.

    Returns:
        "scans": what `judge` returns for each; and the CPU "seconds".
    """
    started = time.process_time()
    network, recipe = load_pretrained("unet_light")
    second, second_recipe = load_pretrained("deeplabv3plus_light")
    chosen = [one for one in PROVOCATIONS if one.name in SCANS[: 1 if fast else None]]
    scans = {}
    for provocation in chosen:
        data = provoke(provocation, FIRST_PATIENT + seed, **(FAST if fast else {}))
        views = uncertainty.predict_views(network, data.ct, recipe, device="cpu")
        other = predict_volume(second, data.ct, second_recipe, "cpu").array
        scans[provocation.name] = judge(
            views, other, data.labels.array > 0, data.ignore.array, data.ct.spacing_mm
        )
    return {"scans": scans, "seconds": round(time.process_time() - started, 1)}


def uncertainty_maps(
    views: np.ndarray, other: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, np.ndarray]:
    """Return the three uncertainties of a prediction and the map that they should beat.

    Args:
        views: what `predict_views` returned; the first two, as it is and mirrored, make the
            prediction.
        other: probabilities of another model.
        spacing_mm: size of a voxel.
    """
    probability = views[:2].mean(axis=0)
    return {
        "entropy": uncertainty.entropy(probability),
        "spread over views": uncertainty.spread(views),
        "disagreement": np.abs(probability - other),
        "closeness to the outline": uncertainty.closeness_to_outline(probability > 0.5, spacing_mm),
    }


def judge(
    views: np.ndarray,
    other: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> dict[str, dict[str, float] | float]:
    """Judge every map on one scan.

    Args:
        views, other, spacing_mm: as for `uncertainty_maps`.
        truth, ignore: boolean [x, y, z].

    Returns:
        Dice of the "plain" prediction and of the mean over all "views"; and for each map the AUROC
        "near" the predicted spine and "everywhere", and which part of the errors are "found" by
        looking at the most uncertain tenth of the voxels near it.
    """
    plain, mean = views[:2].mean(axis=0) > 0.5, views.mean(axis=0) > 0.5
    near = uncertainty.near_spine(plain, spacing_mm, REACH_MM) & ~ignore
    wrong = plain != truth
    result: dict = {
        "plain": metrics.dice(metrics.confusion(plain, truth, ignore)),
        "views": metrics.dice(metrics.confusion(mean, truth, ignore)),
    }
    for name, values in uncertainty_maps(views, other, spacing_mm).items():
        found = uncertainty.errors_found(values[near], wrong[near], (LOOKED_AT,))
        result[name] = {
            "near": uncertainty.auroc(values[near], wrong[near]),
            "everywhere": uncertainty.auroc(values[~ignore], wrong[~ignore]),
            "found": found[LOOKED_AT],
        }
    return result
