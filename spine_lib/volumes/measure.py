"""Lesson 9: what a predicted volume says of a patient, and where it is wrong.

The networks here name no vertebra, so a prediction gets its names from a label map (`borrow_names`)
and is compared with it vertebra by vertebra, in millilitres (`compare_volumes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spine_lib.annotations.schemes import CANONICAL, HEAD_TO_FOOT, REGIONS, to_regions
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume
from spine_lib.metrics.surfaces import bounding_box
from spine_lib.volumes.masks import TOUCHING, numbered_pieces

REACH_MM = 10.0  # a predicted voxel farther than this from every vertebra belongs to none
NOWHERE = "no vertebra"


@dataclass(frozen=True)
class Amount:
    """The volume of one structure ("L3", "lumbar" or `NOWHERE`) in truth and prediction."""

    name: str
    truth_ml: float
    predicted_ml: float

    @property
    def error_percent(self) -> float:
        """How much is predicted too much (above 0) or too little; NaN without a true volume."""
        error_ml = self.predicted_ml - self.truth_ml
        return 100 * error_ml / self.truth_ml if self.truth_ml else float("nan")


@dataclass(frozen=True)
class ErrorPiece:
    """One connected component of an error, a "false positive" or "false negative"."""

    kind: str
    ml: float
    voxel: tuple[int, int, int]  # its thickest point
    thickness_mm: float  # diameter of the largest ball that fits in
    inside: np.ndarray  # bool [x, y, z], the piece within `box`
    box: tuple[slice, slice, slice]


def voxel_ml(spacing_mm: Sequence[float]) -> float:
    """Return the volume of a voxel in millilitres; 1 ml is 1000 mm3."""
    return float(np.prod(spacing_mm)) / 1000


def borrow_names(prediction: Volume, labels: Volume, reach_mm: float = REACH_MM) -> Volume:
    """Return for each predicted voxel the id of the nearest labelled vertebra, uint8.

    Voxels farther than `reach_mm` from every vertebra get 0.
    """
    require_same_grid(labels, prediction, "labels and prediction")
    predicted = prediction.array > 0
    named = np.zeros(predicted.shape, np.uint8)
    if not (predicted.any() and labels.array.any()):
        return prediction.with_array(named)
    box = bounding_box(predicted | (labels.array > 0), (0, 0, 0))
    inside = labels.array[box]
    away_mm, nearest = ndimage.distance_transform_edt(
        inside == 0, sampling=labels.spacing_mm, return_indices=True
    )
    wanted = predicted[box] & (away_mm <= reach_mm)
    named[box][wanted] = inside[tuple(nearest)][wanted]
    return prediction.with_array(named)


def compare_volumes(
    prediction: Volume, labels: Volume, ignore: Volume | None = None
) -> list[Amount]:
    """Return truth and prediction, vertebra by vertebra, from the head down.

    Args:
        prediction: mask of spine, boolean or 0 and 1.
        labels: true canonical ids on the same grid.
        ignore: boolean, True where nothing is measured.

    Returns:
        An `Amount` each, the last one (`NOWHERE`) of what is predicted out of reach.
    """
    predicted, truth = prediction.array > 0, labels.array
    if ignore is not None:
        predicted, truth = predicted & ~ignore.array, np.where(ignore.array, 0, truth)
    named = borrow_names(prediction.with_array(predicted), labels).array
    true_ml, named_ml = (
        np.bincount(ids.ravel(), minlength=256) * voxel_ml(labels.spacing_mm)
        for ids in (truth, named)
    )
    rows = [
        Amount(CANONICAL[label], float(true_ml[label]), float(named_ml[label]))
        for label in HEAD_TO_FOOT
        if true_ml[label] or named_ml[label]
    ]
    lost = np.count_nonzero(predicted & (named == 0)) * voxel_ml(labels.spacing_mm)
    return [*rows, Amount(NOWHERE, 0.0, float(lost))]


def by_region(amounts: Sequence[Amount]) -> list[Amount]:
    """Return the sums of what `compare_volumes` returned over the regions that occur."""
    numbers = to_regions(np.array(list(CANONICAL)))
    regions = {name: REGIONS[n - 1] for name, n in zip(CANONICAL.values(), numbers)}
    sums: dict[str, list[float]] = {}
    for amount in amounts:
        total = sums.setdefault(regions.get(amount.name, NOWHERE), [0.0, 0.0])
        total[0] += amount.truth_ml
        total[1] += amount.predicted_ml
    return [Amount(name, *sums[name]) for name in (*REGIONS, NOWHERE) if name in sums]


def error_pieces(
    prediction: Volume,
    truth: Volume,
    ignore: Volume | None = None,
    smallest_ml: float = 0.05,
    thinnest_mm: float = 0.0,
) -> list[ErrorPiece]:
    """Return the connected components of false positives and false negatives, largest first.

    Args:
        prediction: mask of spine, boolean or 0 and 1.
        truth: labels or mask on the same grid.
        ignore: boolean, True where nothing counts as an error.
        smallest_ml: smaller pieces are left out.
        thinnest_mm: only parts of the errors into which a ball of this diameter fits, since rims
            of a voxel's width join everything to one piece.
    """
    require_same_grid(truth, prediction, "truth and prediction")
    predicted, true = prediction.array > 0, truth.array > 0
    wrong = {"false positive": predicted & ~true, "false negative": true & ~predicted}
    scored = True if ignore is None else ~ignore.array
    limits = truth.spacing_mm, smallest_ml, thinnest_mm
    pieces = [p for kind, mask in wrong.items() for p in _pieces(kind, mask & scored, *limits)]
    return sorted(pieces, key=lambda piece: -piece.ml)


def _pieces(kind, wrong, spacing_mm, smallest_ml, thinnest_mm) -> list[ErrorPiece]:
    if not wrong.any():
        return []
    around = bounding_box(wrong, (0, 0, 0))  # most of a scan is right
    wrong = wrong[around]
    # From a voxel's centre to the centre of the nearest right one; half a voxel less is the rim.
    depth_mm = ndimage.distance_transform_edt(np.pad(wrong, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    depth_mm -= min(spacing_mm) / 2 * (depth_mm > 0)
    if thinnest_mm > 0:  # what a ball can reach without leaving the error
        core = depth_mm >= thinnest_mm / 2
        if not core.any():
            return []
        wrong = wrong & (ndimage.distance_transform_edt(~core, spacing_mm) <= thinnest_mm / 2)
    numbered, sizes_ml = numbered_pieces(wrong, spacing_mm, TOUCHING)
    pieces = []
    for number, box in enumerate(ndimage.find_objects(numbered), start=1):
        if sizes_ml[number] < smallest_ml:
            continue
        inside = numbered[box] == number
        depth = np.where(inside, depth_mm[box], -1)
        deepest = np.unravel_index(depth.argmax(), depth.shape)
        box = tuple(slice(o.start + s.start, o.start + s.stop) for o, s in zip(around, box))
        voxel = tuple(int(side.start + n) for side, n in zip(box, deepest))
        thickness_mm = 2 * float(depth.max())
        pieces.append(ErrorPiece(kind, float(sizes_ml[number]), voxel, thickness_mm, inside, box))
    return pieces
