"""Lesson 7: how good is a segmentation?

Every overlap score of a binary mask follows from four counts of voxels. What changes a published
figure more than most models do is *where* one averages (`aggregate` gives three ways), and what an
empty mask scores: if truth and prediction are both empty, Dice, IoU and F1 are undefined (NaN),
left out of means and counted; if only one is empty, they are 0.

A prediction and its truth are boolean masks of one shape; where the mask *ignore* is True, nothing
is scored. Masks of other shapes, and arrays that are no masks, are refused with a `SpineError`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from spine_lib import SpineError
from spine_lib.metrics.surfaces import check_masks, hd95, nsd, surface_distances


@dataclass(frozen=True)
class Confusion:
    """The voxel counts of a binary segmentation: true/false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Self) -> Self:
        return Confusion(*map(sum, zip(vars(self).values(), vars(other).values())))

    @property
    def total(self) -> int:
        return sum(vars(self).values())


def confusion(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> Confusion:
    """Return the true and false positives and negatives of two masks.

    Example:
        >>> confusion(np.array([True, True, False]), np.array([True, False, False]))
        Confusion(tp=1, fp=1, fn=0, tn=1)
    """
    return Confusion(*_count(prediction, truth, ignore).tolist())


def confusions_by_slice(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None, axis: int = 2
) -> list[Confusion]:
    """Return the counts of each slice along an axis; of [x, y, z] volumes 2 is axial."""
    axes = list(range(np.ndim(truth)))
    try:
        del axes[axis]
    except IndexError as error:
        raise SpineError(
            f"there are no slices along axis {axis} in an array of shape {np.shape(truth)}: "
            "choose one of its axes"
        ) from error
    counts = _count(prediction, truth, ignore, tuple(axes))
    return [Confusion(*row) for row in counts.tolist()]


def _count(prediction, truth, ignore, axes: tuple[int, ...] | None = None) -> np.ndarray:
    """Return the counts of a `Confusion` over some axes, in the last axis."""
    prediction, truth, scored = check_masks(prediction, truth, ignore)
    masks = (prediction & truth, prediction, truth)
    tp, predicted, true = (np.count_nonzero(mask, axis=axes) for mask in masks)
    if scored is None:
        total = truth.size // max(np.size(predicted), 1)
    else:
        total = np.count_nonzero(scored, axis=axes)
    return np.stack([tp, predicted - tp, true - tp, total - predicted - true + tp], axis=-1)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def dice(c: Confusion) -> float:
    """Return Dice = 2 TP / (2 TP + FP + FN); NaN if truth and prediction are both empty."""
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def f1(c: Confusion) -> float:
    """Return F1, the harmonic mean of precision and recall: for two masks the same as Dice."""
    return dice(c)


def iou(c: Confusion) -> float:
    """Return the spine's IoU = TP / (TP + FP + FN), or Jaccard index; NaN if both are empty."""
    return _ratio(c.tp, c.tp + c.fp + c.fn)


def iou_background(c: Confusion) -> float:
    """Return the background's IoU = TN / (TN + FP + FN); NaN if neither mask has background."""
    return _ratio(c.tn, c.tn + c.fp + c.fn)


def iou_mean(c: Confusion) -> float:
    """Return the mean IoU over the two classes {background, spine}; NaN if either is undefined."""
    return (iou(c) + iou_background(c)) / 2


def accuracy(c: Confusion) -> float:
    """Return the share of correct voxels; defined for empty masks, so rarely low."""
    return _ratio(c.tp + c.tn, c.total)


def precision(c: Confusion) -> float:
    """Return the share of predicted voxels that are spine; NaN if nothing was predicted."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Confusion) -> float:
    """Return the share of the true spine that was predicted; NaN if the truth is empty."""
    return _ratio(c.tp, c.tp + c.fn)


SCORES = {score.__name__: score for score in (dice, iou, iou_mean, f1, accuracy, precision, recall)}


def scores(c: Confusion) -> dict[str, float]:
    """Return every overlap score of one set of counts, by name (`SCORES` lists them)."""
    return {name: score(c) for name, score in SCORES.items()}


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the finite values; NaN if there is none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def mean_scores(confusions: Iterable[Confusion]) -> dict[str, float | int]:
    """Return the mean of each score over volumes or slices, without those that are undefined.

    How many are "defined" and "undefined" (Dice, IoU and F1) is counted too, and how many had no
    truth but some prediction ("false_positive_on_empty" and its "..._voxels_on_empty").
    """
    confusions = list(confusions)
    rows = [scores(c) for c in confusions]
    undefined = sum(math.isnan(row["dice"]) for row in rows)
    spurious = [c.fp for c in confusions if c.tp + c.fn == 0 and c.fp > 0]
    return {name: mean_defined(row[name] for row in rows) for name in SCORES} | {
        "defined": len(rows) - undefined,
        "undefined": undefined,
        "false_positive_on_empty": len(spurious),
        "false_positive_voxels_on_empty": sum(spurious),
    }


def evaluate_volume(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
    tolerance_mm: float = 2.0,
) -> dict[str, Any]:
    """Return the scores of one predicted volume [x, y, z].

    These are the overlap scores, "nsd" at "tolerance_mm", "hd95" (mm), the counts "tp", "fp", "fn"
    and "tn", and "slices": the same four counts for each axial slice.
    """
    slices = confusions_by_slice(prediction, truth, ignore)
    counts = sum(slices, Confusion(0, 0, 0, 0))
    distances = surface_distances(prediction, truth, spacing_mm, ignore)
    return {
        **scores(counts),
        "nsd": nsd(distances, tolerance_mm),
        "hd95": hd95(distances),
        "tolerance_mm": float(tolerance_mm),
        **vars(counts),
        "slices": [list(vars(c).values()) for c in slices],
    }


def aggregate(volumes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict]:
    """Return the scores of evaluated volumes, averaged in the three ways that papers use.

    Args:
        volumes: what `evaluate_volume` returned, by case id.

    Returns:
        "pooled": scores of all voxels together; "per_volume": `mean_scores` of the volumes, with
        the mean "nsd" and "hd95" (infinite ones are counted in "hd95_infinite" instead);
        "per_slice": `mean_scores` of all axial slices; "volumes": the rows without their slices.
    """
    rows = volumes.values()
    confusions = [Confusion(*(row[key] for key in ("tp", "fp", "fn", "tn"))) for row in rows]
    pooled = sum(confusions, Confusion(0, 0, 0, 0))
    distances = {key: mean_defined(row[key] for row in rows) for key in ("nsd", "hd95")}
    distances["hd95_infinite"] = sum(math.isinf(row["hd95"]) for row in rows)
    slices = [Confusion(*counts) for row in rows for counts in row.get("slices", [])]
    return {
        "pooled": {**scores(pooled), **vars(pooled)},
        "per_volume": mean_scores(confusions) | distances,
        "per_slice": mean_scores(slices),
        "volumes": {
            case: {key: value for key, value in row.items() if key != "slices"}
            for case, row in volumes.items()
        },
    }
