"""Lesson 7: of the voxels with a probability of 80 %, are 80 of 100 spine?

Almost all of a scan is far from any bone, and a network is rightly certain there: with the air
counted, every network looks well calibrated. So only voxels near the true spine are counted.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.metrics.surfaces import bounding_box

REACH_MM = 10.0

Bins = dict[str, dict[str, float]]
"""By range, as "0.7-0.8": "voxels", "spine" (how many of them are) and "probability" (the sum)."""


def near_spine(
    spine: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
    reach_mm: float = REACH_MM,
) -> np.ndarray:
    """Return which voxels lie in the spine or within reach of it, between voxel centres.

    Args:
        spine: boolean mask [x, y, z], true or predicted; if it is empty, nothing is near.
        spacing_mm: distance between voxel centres along x, y, z.
        ignore: boolean mask; ignored voxels are not marked.
    """
    near = np.zeros(spine.shape, bool)
    if not spine.any():
        return near
    box = bounding_box(spine, [math.ceil(reach_mm / mm) for mm in spacing_mm])
    near[box] = ndimage.distance_transform_edt(~spine[box], sampling=spacing_mm) <= reach_mm
    return near if ignore is None else near & ~ignore


def reliability(probability: np.ndarray, truth: np.ndarray, where: np.ndarray) -> Bins:
    """Return the counts of voxels in ten bins of equal width of their probability.

    Args:
        probability: 0 to 1, of any shape; raises a SpineError where it is not.
        truth, where: boolean masks of the same shape, of spine and of the voxels that count.
    """
    chosen, spine = probability[where].astype(np.float64), truth[where]
    if chosen.size and not (chosen.min() >= -1e-6 and chosen.max() <= 1 + 1e-6):
        raise SpineError(
            f"the probabilities reach from {chosen.min():g} to {chosen.max():g}: give "
            "probabilities from 0 to 1, not logits"
        )
    index = np.clip((chosen * 10).astype(int), 0, 9)
    voxels, true = (np.bincount(part, minlength=10) for part in (index, index[spine]))
    total = np.bincount(index, chosen, 10).round(3)
    rows = zip(voxels.tolist(), true.tolist(), total.tolist())
    columns = ("voxels", "spine", "probability")
    return {
        f"{i / 10:.1f}-{(i + 1) / 10:.1f}": dict(zip(columns, row)) for i, row in enumerate(rows)
    }


def add_up(volumes: Iterable[Bins]) -> Bins:
    """Return the sum of the bins of several volumes."""
    tables = [pd.DataFrame.from_dict(bins, orient="index") for bins in volumes]
    return sum(tables[1:], tables[0]).to_dict("index") if tables else {}


def expected_error(bins: Mapping[str, Mapping[str, float]]) -> float:
    """Return the expected calibration error; NaN without any voxel.

    Over voxels, it is the mean of how far a bin's share of spine is from its mean probability.

    Source: Naeini et al. (2015), doi:10.1609/aaai.v29i1.9602, for the probability of one class.
    """
    voxels = sum(counts["voxels"] for counts in bins.values())
    gaps = (abs(counts["spine"] - counts["probability"]) for counts in bins.values())
    return math.fsum(gaps) / voxels if voxels else math.nan


def summarise(bins: Bins) -> dict:
    """Return what a result file keeps: "reach_mm", "voxels", "ece" and "bins"."""
    voxels = sum(counts["voxels"] for counts in bins.values())
    return {"reach_mm": REACH_MM, "voxels": voxels, "ece": expected_error(bins), "bins": bins}
