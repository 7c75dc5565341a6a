"""Lessons 7 and 8: how good is a prediction in each region of the spine?

A binary prediction knows no regions, so they come from the truth: true positives and false
negatives have the region of their voxel, and **a false positive is counted to the region of the
nearest true voxel**, in mm. The counts of the regions then add up to those of the volume
(`score_regions`). A network that predicts regions itself is scored by a confusion matrix
(`score_named`). Volumes are [x, y, z], regions ids as `annotations.to_regions` gives them, 0 for
background; where the mask *ignore* is True, nothing is scored.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics.overlap import Confusion, dice, mean_defined, recall
from spine_lib.metrics.surfaces import MANY_POINTS, bounding_box, check_masks

CLASSES = ("background", *REGIONS)  # rows and columns of the confusion matrix, by id
Matrix = dict[str, dict[str, int]]  # voxels by true, then predicted class, but background in both


def nearest_region(
    voxels: np.ndarray, regions: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return the region of the true voxel nearest to each background voxel [voxel, (x, y, z)]."""
    spine = regions > 0
    if not (len(voxels) and spine.any()):
        return np.zeros(len(voxels), regions.dtype)
    if len(voxels) > MANY_POINTS:  # a network that has hardly been trained
        nearest = ndimage.distance_transform_edt(
            ~spine, spacing_mm, return_distances=False, return_indices=True
        )
        return regions[tuple(nearest[:, *voxels.T])]
    # From outside, the nearest voxel of a solid lies on its surface: a few per cent of it.
    box = bounding_box(spine, (0, 0, 0))
    surface = np.argwhere(spine[box] & ~ndimage.binary_erosion(spine[box]))
    surface += [edges.start for edges in box]
    tree = KDTree(surface * np.asarray(spacing_mm))
    nearest = tree.query(voxels * np.asarray(spacing_mm))[1]
    return regions[tuple(surface[nearest].T)]


def assign_regions(
    prediction: np.ndarray, regions: np.ndarray, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return the region of each predicted voxel: the true one or, outside, the nearest; else 0."""
    assigned = np.where(prediction, regions, 0)
    false_positives = np.argwhere(prediction & (regions == 0))
    assigned[tuple(false_positives.T)] = nearest_region(false_positives, regions, spacing_mm)
    return assigned


def score_regions(
    prediction: np.ndarray,
    regions: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Return the scores of a binary prediction in each region of the spine that a volume shows.

    These are by name, from the head down, "dice", "recall" and the counts "tp", "fp" and "fn" of
    each region that has true voxels.
    """
    prediction, spine, _ = check_masks(prediction, regions > 0, ignore)
    regions = np.where(spine, regions, 0)
    assigned = assign_regions(prediction, regions, spacing_mm)
    return {
        name: {"dice": dice(c), "recall": recall(c), "tp": c.tp, "fp": c.fp, "fn": c.fn}
        for name, c in _by_region(confusion_matrix(assigned, regions)).items()
        if c.tp + c.fn
    }


def mean_regions(volumes: Iterable[Mapping]) -> dict[str, dict[str, float]]:
    """Return the mean scores of each region over the volumes ("volumes": how many) that show it.

    Args:
        volumes: each with its "regions" as `score_regions` gives them.

    Returns:
        By name, means "dice" and "recall", and "pooled_dice" of all their voxels together.
    """
    by_volume = [volume["regions"] for volume in volumes]
    means = {}
    for name in REGIONS:
        rows = [regions[name] for regions in by_volume if name in regions]
        if rows:
            counts = Confusion(*(sum(row[key] for row in rows) for key in ("tp", "fp", "fn")), 0)
            means[name] = {
                key: float(np.mean([row[key] for row in rows])) for key in ("dice", "recall")
            }
            means[name] |= {"pooled_dice": dice(counts), "volumes": len(rows)}
    return means


def confusion_matrix(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> Matrix:
    """Return the voxels of each true region (row) by predicted region (column)."""
    shapes = {np.shape(array) for array in (predicted, truth, ignore) if array is not None}
    if len(shapes) > 1:
        raise SpineError(
            f"region maps of the shapes {sorted(shapes)} cannot be compared: bring them to one grid"
        )
    scored = (predicted > 0) | (truth > 0)
    if ignore is not None:
        scored &= ~ignore
    size = len(CLASSES)
    try:
        flat = np.ravel_multi_index((truth[scored], predicted[scored]), (size, size))
    except ValueError as error:
        text = f"a region map holds ids other than 0 to {len(REGIONS)}: use to_regions"
        raise SpineError(text) from error
    counts = np.bincount(flat, minlength=size**2).reshape(size, size)
    matrix = {row: dict(zip(CLASSES, voxels)) for row, voxels in zip(CLASSES, counts.tolist())}
    del matrix["background"]["background"]
    return matrix


def _by_region(matrix: Matrix) -> dict[str, Confusion]:
    """Return the counts of each region, without true negatives."""
    columns = {name: sum(row[name] for row in matrix.values()) for name in REGIONS}
    hits = {name: matrix[name][name] for name in REGIONS}
    return {
        name: Confusion(tp, columns[name] - tp, sum(matrix[name].values()) - tp, 0)
        for name, tp in hits.items()
    }


def matrix_dice(matrix: Matrix) -> dict[str, float]:
    """Return the Dice of each region by name; NaN for one that neither truth nor prediction has."""
    return {name: dice(c) for name, c in _by_region(matrix).items()}


def score_named(
    predicted: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> dict[str, dict]:
    """Return "dice" by predicted region, the "mean_dice" of those defined, and the "confusion"."""
    matrix = confusion_matrix(predicted, truth, ignore)
    scores = matrix_dice(matrix)
    return {"dice": scores, "mean_dice": mean_defined(scores.values()), "confusion": matrix}


def mean_named(volumes: Iterable[Mapping]) -> dict[str, dict]:
    """Return the mean of what `score_named` gave of several volumes as "named".

    "dice" and "mean_dice" are means over the volumes where they are defined ("volumes": how many,
    by region); "pooled_dice" is of all voxels together, with "mean_pooled_dice" over the regions;
    "confusion" is the sum.
    """
    rows = [volume["named"] for volume in volumes]
    matrix = {
        true: {name: sum(row["confusion"][true][name] for row in rows) for name in columns}
        for true, columns in rows[0]["confusion"].items()
    }
    values = {name: [row["dice"][name] for row in rows] for name in REGIONS}
    pooled = matrix_dice(matrix)
    return {
        "dice": {name: mean_defined(dices) for name, dices in values.items()},
        "volumes": {name: sum(map(math.isfinite, dices)) for name, dices in values.items()},
        "mean_dice": mean_defined(row["mean_dice"] for row in rows),
        "pooled_dice": pooled,
        "mean_pooled_dice": mean_defined(pooled.values()),
        "confusion": matrix,
    }
