"""Lesson 8: where a network names the regions itself, how often is the name right?

`region_scores.py` asks how good a mask is in each region, and takes the region from the truth. Here
the prediction says which region a voxel belongs to, so that it can find a vertebra and yet be wrong
about it. All scores follow from one table, the confusion matrix: how many voxels of each region (a
row) were given each name (a column). It counts the voxels that are spine in truth or prediction;
ignored voxels take part in nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics.overlap import Confusion, dice

CLASSES = ("background", *REGIONS)
"""Rows and columns of the matrix, by id."""

Matrix = dict[str, dict[str, int]]
"""Voxels by true class and by predicted class; background on both sides is left out."""


def confusion_matrix(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> Matrix:
    """Count how many voxels of each region were given which name.

    Args:
        predicted: region ids of any shape, 0 is background.
        truth: region ids of the same shape.
        ignore: boolean mask, True where nothing is to be scored.

    Returns:
        By true class and predicted class, the number of voxels.

    Raises:
        SpineError: if shapes differ, or an id is none of a region.
    """
    shapes = {np.shape(one) for one in (predicted, truth, ignore) if one is not None}
    if len(shapes) > 1:
        raise SpineError(
            f"region maps of the shapes {sorted(shapes)} cannot be compared: bring them to one grid"
        )
    scored = (predicted > 0) | (truth > 0)
    if ignore is not None:
        scored &= ~ignore
    pairs = [np.asarray(one)[scored].astype(np.int64) for one in (truth, predicted)]
    if any(one.size and not 0 <= one.min() <= one.max() < len(CLASSES) for one in pairs):
        raise SpineError(f"a region map holds ids other than 0 to {len(REGIONS)}: use to_regions")
    size = len(CLASSES)
    counts = np.bincount(pairs[0] * size + pairs[1], minlength=size**2).reshape(size, size)
    return {
        true: {name: int(counts[i, j]) for j, name in enumerate(CLASSES) if i or j}
        for i, true in enumerate(CLASSES)
    }


def dice_of(matrix: Matrix) -> dict[str, float]:
    """Return the Dice of each region by name; NaN for one that neither truth nor prediction has."""
    return {name: dice(_counts(matrix, name)) for name in REGIONS}


def _counts(matrix: Matrix, name: str) -> Confusion:
    right = matrix[name][name]
    named = sum(row.get(name, 0) for row in matrix.values())
    return Confusion(right, named - right, sum(matrix[name].values()) - right, 0)


def score_named(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> dict[str, dict]:
    """Score the regions that a network names in one volume.

    Args:
        predicted, truth, ignore: as for `confusion_matrix`.

    Returns:
        "dice": by region, NaN where neither has it; "mean_dice" of those that are defined; and
        "confusion" (`confusion_matrix`).
    """
    matrix = confusion_matrix(predicted, truth, ignore)
    scores = dice_of(matrix)
    return {"dice": scores, "mean_dice": _mean(scores.values()), "confusion": matrix}


def mean_named(volumes: Iterable[Mapping]) -> dict[str, dict]:
    """Put together the regions that a network named in several volumes.

    Args:
        volumes: each with what `score_named` gives as "named".

    Returns:
        "dice" and "mean_dice": means over the volumes where they are defined, as many as "volumes"
        says by region; "pooled_dice" of all their voxels counted together, with
        "mean_pooled_dice" over the regions; and the sum of their "confusion".
    """
    named = [volume["named"] for volume in volumes]
    matrix = {
        true: {name: sum(one["confusion"][true][name] for one in named) for name in row}
        for true, row in named[0]["confusion"].items()
    }
    by_region = {name: [one["dice"][name] for one in named] for name in REGIONS}
    pooled = dice_of(matrix)
    return {
        "dice": {name: _mean(values) for name, values in by_region.items()},
        "volumes": {name: sum(map(math.isfinite, of)) for name, of in by_region.items()},
        "mean_dice": _mean(one["mean_dice"] for one in named),
        "pooled_dice": pooled,
        "mean_pooled_dice": _mean(pooled.values()),
        "confusion": matrix,
    }


def _mean(values: Iterable[float]) -> float:
    defined = [value for value in values if math.isfinite(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
