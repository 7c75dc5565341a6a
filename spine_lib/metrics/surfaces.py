"""Lesson 7: how far apart are two outlines, in mm?

Overlap hardly changes with a wrong outline of a large structure, and much with that of a thin one.
`surface_distances` measures outlines directly, and two scores follow from it, `nsd` and `hd95`.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from spine_lib import SpineError

# A surface exactly at the tolerance is within it, however sqrt and the spacing were rounded.
ROUNDING_MM = 1e-6
# For more points than this, one distance transform is faster than a look-up of each point.
MANY_POINTS = 150_000


def check_masks(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return two masks of one shape, False where ignored, and where to score (None: everywhere)."""
    prediction, truth = _as_mask(prediction, "prediction"), _as_mask(truth, "truth")
    ignored = None if ignore is None else _as_mask(ignore, "ignore region")
    for name, mask in (("truth", truth), ("ignore region", ignored)):
        if mask is not None and mask.shape != prediction.shape:
            raise SpineError(
                f"the prediction has shape {prediction.shape} but the {name} has {mask.shape}: "
                "bring both onto the same grid first"
            )
    if ignored is None:
        return prediction, truth, None
    return prediction & ~ignored, truth & ~ignored, ~ignored


def _as_mask(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == bool:
        return array
    mask = array == 1
    if not np.all(mask | (array == 0)):
        raise SpineError(
            f"the {name} must be a mask of False and True (or 0 and 1) but holds values from "
            f"{array.min():g} to {array.max():g}: threshold probabilities first "
            "(probability >= 0.5), or choose labels (labels > 0)"
        )
    return mask


def bounding_box(mask: np.ndarray, margins: Sequence[int]) -> tuple[slice, ...]:
    """Return the box around the True voxels of a mask, wider by a margin of voxels an axis."""
    (box,) = ndimage.find_objects(mask.view(np.uint8))
    return tuple(
        slice(max(0, edges.start - margin), edges.stop + margin)
        for edges, margin in zip(box, margins, strict=True)
    )


def surface_distances(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each surface voxel of one mask is from the surface of the other.

    A surface voxel is one with a face on the background or on the edge of the array.

    Args:
        prediction, truth: boolean masks of one shape, 2-D or 3-D.
        spacing_mm: distance between voxel centres along each axis.
        ignore: boolean mask, True where nothing is to be scored.

    Returns:
        Distances in mm, float64, from the prediction's surface to the truth's, and the other way
        round; infinite where the other surface does not exist.
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    if spacing.shape != (np.ndim(truth),) or not np.all(np.isfinite(spacing) & (spacing > 0)):
        raise SpineError(
            f"spacing_mm is {spacing_mm!r}: give one positive length in mm for each of the "
            f"{np.ndim(truth)} axes"
        )
    prediction, truth, scored = check_masks(prediction, truth, ignore)
    either = prediction | truth
    if not either.any():
        return np.empty(0), np.empty(0)
    box = bounding_box(either, [1] * truth.ndim)
    ignored = False if scored is None else ~scored[box]
    # Beside an ignored voxel it is unknown whether there is a surface, so there is none.
    surfaces = [
        mask[box] & ~ndimage.binary_erosion(mask[box] | ignored) for mask in (prediction, truth)
    ]
    return _distances_to(*surfaces, spacing), _distances_to(*reversed(surfaces), spacing)


def _distances_to(surface: np.ndarray, other: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    points, others = np.argwhere(surface), np.argwhere(other)
    if len(others) == 0:
        return np.full(len(points), np.inf)
    if max(len(points), len(others)) > MANY_POINTS:  # a network that has hardly been trained
        return ndimage.distance_transform_edt(~other, sampling=spacing)[surface]
    return KDTree(others * spacing, leafsize=32).query(points * spacing)[0]


def nsd(distances: tuple[np.ndarray, np.ndarray], tolerance_mm: float) -> float:
    """Return the normalised surface Dice: the share of both surfaces within a tolerance.

    It is NaN if neither mask has a surface, 0 if only one has. Surfaces are counted in voxels.

    Source: Nikolov et al. (2021), doi:10.2196/26151.
    """
    if not (math.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SpineError(f"tolerance_mm is {tolerance_mm!r}: give a length in mm, 0 or more")
    both = np.concatenate(distances)
    return float(np.mean(both <= tolerance_mm + ROUNDING_MM)) if both.size else math.nan


def hd95(distances: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the 95th percentile Hausdorff distance in mm, the larger of the two directions.

    It is NaN if neither mask has a surface; if only one has, it is infinite, because NaN would drop
    the worst failures from a mean without notice.

    Source: Huttenlocher et al. (1993), doi:10.1109/34.232073.
    """
    filled = [side for side in distances if side.size]
    if len(filled) == 1:
        return math.inf
    return max((float(np.percentile(side, 95)) for side in filled), default=math.nan)
