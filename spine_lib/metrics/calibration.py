"""Lesson 7: of the voxels called 80 % spine, is it spine in 80 of 100?

Almost all of a scan is far from any bone, and a network is rightly certain there: counted along,
the air makes every network look well calibrated. So only voxels in the neighbourhood of the true
spine are counted. What is kept are ten bins of probability, each with its voxels, how many of them
are spine, and the sum of their probabilities: such bins of several volumes can be added up.

The probabilities are those before the threshold and before the largest piece was kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage

from spine_lib import SpineError

REACH_MM = 10.0
BINS = 10

Bins = dict[str, dict[str, float]]
"""By range, as "0.7-0.8": "voxels", "spine" (how many of them are) and "probability" (the sum)."""


def near_truth(
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
    reach_mm: float = REACH_MM,
) -> np.ndarray:
    """Mark the voxels of the true spine and within reach of it.

    Args:
        truth: boolean mask [x, y, z].
        spacing_mm: distance between voxel centres along x, y, z, in mm.
        ignore: boolean mask; ignored voxels are not marked.
        reach_mm: how far around, between voxel centres.

    Returns:
        Boolean array of the same shape; empty where the truth is.
    """
    near = np.zeros(truth.shape, bool)
    boxes = ndimage.find_objects(truth.astype(np.uint8))
    if not boxes:
        return near
    margins = [math.ceil(reach_mm / mm) for mm in spacing_mm]
    box = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(boxes[0], margins))
    near[box] = ndimage.distance_transform_edt(~truth[box], sampling=spacing_mm) <= reach_mm
    return near if ignore is None else near & ~ignore


def reliability(probability: np.ndarray, truth: np.ndarray, where: np.ndarray) -> Bins:
    """Sort voxels into bins of equal width by their probability.

    Args:
        probability: 0 to 1, of any shape.
        truth: boolean mask of the same shape.
        where: boolean mask of the voxels that count.

    Raises:
        SpineError: if a probability that counts is NaN or lies outside 0 to 1.
    """
    chosen, spine = probability[where].astype(np.float64), truth[where]
    if chosen.size and not (chosen.min() >= -1e-6 and chosen.max() <= 1 + 1e-6):
        raise SpineError(
            f"the probabilities reach from {chosen.min():g} to {chosen.max():g}: give "
            "probabilities from 0 to 1, not logits"
        )
    places = np.clip((chosen * BINS).astype(int), 0, BINS - 1)
    columns = {
        "voxels": np.bincount(places, minlength=BINS).tolist(),
        "spine": np.bincount(places[spine], minlength=BINS).tolist(),
        "probability": np.round(np.bincount(places, chosen, BINS), 3).tolist(),
    }
    return {_range(place): {k: of[place] for k, of in columns.items()} for place in range(BINS)}


def add_up(several: Iterable[Bins]) -> Bins:
    """Add up the bins of several volumes."""
    total = {_range(place): {"voxels": 0, "spine": 0, "probability": 0.0} for place in range(BINS)}
    for bins in several:
        for name, counts in bins.items():
            for key, value in counts.items():
                total[name][key] += value
    return total


def expected_error(bins: Mapping[str, Mapping[str, float]]) -> float:
    """Return the expected calibration error: by how much probability and truth differ, on average.

    Returns:
        The mean over voxels of how far the share of spine in their bin is from its mean
        probability; NaN without any.

    Source: Naeini et al. (2015), doi:10.1609/aaai.v29i1.9602, for the probability of one class.
    """
    voxels = sum(counts["voxels"] for counts in bins.values())
    gaps = (abs(counts["spine"] - counts["probability"]) for counts in bins.values())
    return math.fsum(gaps) / voxels if voxels else math.nan


def summarise(bins: Bins) -> dict:
    """Return what a result file keeps: "reach_mm", "voxels", "ece" and "bins"."""
    voxels = sum(counts["voxels"] for counts in bins.values())
    return {"reach_mm": REACH_MM, "voxels": voxels, "ece": expected_error(bins), "bins": bins}


def _range(place: int) -> str:
    return f"{place / BINS:.1f}-{(place + 1) / BINS:.1f}"
