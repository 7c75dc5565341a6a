"""Lesson 7: how good is a segmentation?

Every overlap score of a binary mask follows from four counts: true and false positives, true and
false negatives. So the voxels are counted once, per slice, and everything else is arithmetic on the
counts. What remains open, and changes a published figure more than most models do, is *where* one
averages: over the pooled voxels of all scans, over scans, or over slices (`aggregate` gives all
three), and what an empty mask scores:

- truth and prediction both empty: Dice, IoU and F1 are undefined (NaN). They are left out of means,
  and how many were left out is reported.
- only one of the two empty: they are 0. False positives where there was nothing to find are also
  counted on their own.

Surface distances see what overlap does not: how far, in mm, the outlines are apart
(`spine_lib.metrics.surfaces`; offered here too).
Masks are boolean arrays; voxels in an *ignore* mask take part in nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np

from spine_lib import SpineError
from spine_lib.metrics.surfaces import (
    check_masks,
    hd95,
    hd95_from_distances,
    nsd,
    nsd_from_distances,
    surface_distances,
)

__all__ = [
    "SCORES",
    "Confusion",
    "VolumeEvaluation",
    "accuracy",
    "aggregate",
    "by_region",
    "confusion",
    "confusions_by_slice",
    "dice",
    "evaluate_volume",
    "f1",
    "hd95",
    "iou",
    "iou_background",
    "iou_mean",
    "mean_scores",
    "nsd",
    "precision",
    "recall",
    "scores",
    "surface_distances",
]

NAN = math.nan


@dataclass(frozen=True)
class Confusion:
    """Hold the voxel counts of a binary segmentation: true/false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def total(self) -> int:
        """Count the voxels that were scored."""
        return self.tp + self.fp + self.fn + self.tn


class VolumeEvaluation(TypedDict):
    """List what `evaluate_volume` measures; a plain dictionary of numbers."""

    dice: float
    iou: float
    iou_mean: float
    f1: float
    accuracy: float
    precision: float
    recall: float
    nsd: float
    hd95: float
    tolerance_mm: float
    tp: int
    fp: int
    fn: int
    tn: int
    slices: NotRequired[list[list[int]]]


def confusions_by_slice(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None, axis: int = 2
) -> list[Confusion]:
    """Count the voxels of each slice along an axis.

    Args:
        prediction: boolean mask of any shape.
        truth: boolean mask of the same shape.
        ignore: boolean mask of the same shape, True where nothing is to be scored.
        axis: the axis that numbers the slices; 2 gives axial slices of an [x, y, z] volume.

    Returns:
        One `Confusion` per slice; its four counts add up to the voxels that were scored.

    Raises:
        SpineError: shapes differ, an array is not a mask, or it has no such axis.
    """
    prediction, truth, scored = check_masks(prediction, truth, ignore)
    if not -truth.ndim <= axis < truth.ndim:
        raise SpineError(
            f"there are no slices along axis {axis} in an array of shape {truth.shape}: "
            "choose one of its axes"
        )
    others = tuple(number for number in range(truth.ndim) if number != axis % truth.ndim)
    tp = np.count_nonzero(prediction & truth, axis=others)
    fp = np.count_nonzero(prediction, axis=others) - tp
    fn = np.count_nonzero(truth, axis=others) - tp
    if scored is None:
        total = truth.size // max(truth.shape[axis], 1)
    else:
        total = np.count_nonzero(scored, axis=others)
    tn = total - tp - fp - fn
    counts = np.stack([tp, fp, fn, tn], axis=-1).tolist()
    return [Confusion(*slice_counts) for slice_counts in counts]


def confusion(
    prediction: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None
) -> Confusion:
    """Count true and false positives and negatives of two masks.

    Args:
        prediction: boolean mask of any shape.
        truth: boolean mask of the same shape.
        ignore: boolean mask of the same shape, True where nothing is to be scored.

    Raises:
        SpineError: shapes differ, or an array is not a mask.

    Example:
        >>> confusion(np.array([True, True, False]), np.array([True, False, False]))
        Confusion(tp=1, fp=1, fn=0, tn=1)
    """
    prediction, truth, scored = check_masks(prediction, truth, ignore)
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    total = truth.size if scored is None else int(np.count_nonzero(scored))
    return Confusion(tp, fp, fn, total - tp - fp - fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else NAN


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
    """Return the share of voxels that are right; defined for empty masks, so rarely low."""
    return _ratio(c.tp + c.tn, c.total)


def precision(c: Confusion) -> float:
    """Return the share of predicted voxels that are right; NaN if nothing was predicted."""
    return _ratio(c.tp, c.tp + c.fp)


def recall(c: Confusion) -> float:
    """Return the share of the truth that was found; NaN if there was nothing to find."""
    return _ratio(c.tp, c.tp + c.fn)


SCORES = {
    "dice": dice,
    "iou": iou,
    "iou_mean": iou_mean,
    "f1": f1,
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
}


def scores(c: Confusion) -> dict[str, float]:
    """Return every overlap score of one set of counts, by name (`SCORES` lists them)."""
    return {name: score(c) for name, score in SCORES.items()}


def _mean_defined(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else NAN


def mean_scores(confusions: Iterable[Confusion]) -> dict[str, float | int]:
    """Average each score over volumes or slices, leaving out those where it is undefined.

    Returns:
        The mean of each score, and counts: "defined" and "undefined" (how many entered the
        mean of Dice, IoU and F1, and how many had nothing to score) and
        "false_positive_on_empty" (how many had no truth but some prediction; they score 0).
    """
    confusions = list(confusions)
    rows = [scores(c) for c in confusions]
    undefined = sum(math.isnan(row["dice"]) for row in rows)
    spurious = [c.fp for c in confusions if c.tp + c.fn == 0 and c.fp > 0]
    return {name: _mean_defined(row[name] for row in rows) for name in SCORES} | {
        "defined": len(rows) - undefined,
        "undefined": undefined,
        "false_positive_on_empty": len(spurious),
        "false_positive_voxels_on_empty": sum(spurious),
    }


def evaluate_volume(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, float, float],
    ignore: np.ndarray | None = None,
    tolerance_mm: float = 2.0,
) -> VolumeEvaluation:
    """Measure one predicted volume against its truth.

    Args:
        prediction: boolean mask [x, y, z].
        truth: boolean mask of the same shape.
        spacing_mm: distance between voxel centres along x, y, z, in mm.
        ignore: boolean mask, True where nothing is to be scored.
        tolerance_mm: tolerance of the surface Dice, in mm.

    Returns:
        The overlap scores, "nsd" at "tolerance_mm", "hd95" (mm), the counts "tp", "fp", "fn" and
        "tn", and "slices": the same four counts for each axial slice.

    Raises:
        SpineError: shapes differ, an array is not a mask, or the spacing does not fit.
    """
    slices = confusions_by_slice(prediction, truth, ignore, axis=2)
    counts = sum(slices, Confusion(0, 0, 0, 0))
    distances = surface_distances(prediction, truth, spacing_mm, ignore)
    return {
        **scores(counts),
        "nsd": nsd_from_distances(distances, tolerance_mm),
        "hd95": hd95_from_distances(distances),
        "tolerance_mm": float(tolerance_mm),
        **vars(counts),
        "slices": [[c.tp, c.fp, c.fn, c.tn] for c in slices],
    }


def aggregate(volumes: Mapping[str, VolumeEvaluation]) -> dict[str, dict]:
    """Average evaluated volumes in the three ways that papers use.

    Args:
        volumes: what `evaluate_volume` returned, by case id.

    Returns:
        A dictionary with

        - "pooled": scores of the voxels of all volumes counted together;
        - "per_volume": the mean over volumes (`mean_scores`), with the mean "nsd" and "hd95".
          Infinite HD95 are left out of the mean and counted in "hd95_infinite";
        - "per_slice": the mean over the axial slices of all volumes (`mean_scores`);
        - "volumes": the evaluations themselves, without their slices.
    """
    by_volume = {case: _counts(volume) for case, volume in volumes.items()}
    slices = [Confusion(*row) for volume in volumes.values() for row in volume.get("slices", [])]
    pooled = sum(by_volume.values(), Confusion(0, 0, 0, 0))
    hd95s = [volume["hd95"] for volume in volumes.values()]
    per_volume = mean_scores(by_volume.values()) | {
        "nsd": _mean_defined(volume["nsd"] for volume in volumes.values()),
        "hd95": _mean_defined(hd95s),
        "hd95_infinite": sum(map(math.isinf, hd95s)),
    }
    return {
        "pooled": {**scores(pooled), **vars(pooled)},
        "per_volume": per_volume,
        "per_slice": mean_scores(slices),
        "volumes": {
            case: {key: value for key, value in volume.items() if key != "slices"}
            for case, volume in volumes.items()
        },
    }


def _counts(volume: VolumeEvaluation) -> Confusion:
    return Confusion(volume["tp"], volume["fp"], volume["fn"], volume["tn"])


def by_region(
    prediction: np.ndarray,
    regions_truth: np.ndarray,
    ignore: np.ndarray | None = None,
    regions: Iterable[int] = (1, 2, 3, 4),
) -> dict[int, float]:
    """Return how much of each region of the spine a binary prediction found.

    A false positive belongs to no region, so this is recall alone.

    Args:
        prediction: boolean mask of any shape.
        regions_truth: integer region ids of the same shape, 0 is background.
        ignore: boolean mask, True where nothing is to be scored.
        regions: the region ids to report.

    Returns:
        Recall by region id; NaN for a region that is not in the volume.
    """
    regions, regions_truth = list(regions), np.asarray(regions_truth)
    prediction, spine, _ = check_masks(prediction, regions_truth > 0, ignore)
    labels = regions_truth[spine]
    size = max([*regions, int(labels.max(initial=0))]) + 1
    present = np.bincount(labels, minlength=size)
    found = np.bincount(labels[prediction[spine]], minlength=size)
    return {region: _ratio(int(found[region]), int(present[region])) for region in regions}
