"""Count, slice by slice, where there is spine and where a prediction is wrong, in one pass.

A viewer must open at once on a volume of any size, so nothing here copies a volume: it is read in
slabs, in the order in which it lies in memory, and only the few voxels that are spine are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spine_lib import SpineError
from spine_lib.ct.geometry import PLANES, Grid, plane_axes
from spine_lib.explore import overlays

SLAB_VOXELS = 1 << 22
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = 0, 1, 2


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """Hold the voxels of each slice in every plane.

    Attributes:
        by_plane: int64 [slice, 3] by plane: true positives, false positives, false negatives.
            Without a prediction every voxel of spine counts as true positive.
        labels: ids above 0 in the mask (of the prediction, where there is no mask), ascending.
    """

    by_plane: dict[str, np.ndarray]
    labels: tuple[int, ...]

    def spine(self, plane: str) -> np.ndarray:
        """Return how many voxels of each slice are spine in the mask."""
        return self.by_plane[plane][:, [TRUE_POSITIVE, FALSE_NEGATIVE]].sum(axis=1)

    def wrong(self, plane: str) -> np.ndarray:
        """Return how many voxels of each slice the prediction has wrong."""
        return self.by_plane[plane][:, [FALSE_POSITIVE, FALSE_NEGATIVE]].sum(axis=1)

    def dice(self, plane: str) -> np.ndarray:
        """Return the Dice of each slice; NaN where mask and prediction are both empty."""
        twice = 2 * self.by_plane[plane][:, TRUE_POSITIVE]
        whole = twice + self.wrong(plane)
        return np.where(whole > 0, twice / np.maximum(whole, 1), np.nan)

    def fullest(self, plane: str) -> int | None:
        """Return the slice with the most spine, or None where there is none."""
        spine = self.spine(plane)
        return int(spine.argmax()) if spine.any() else None

    def first_shown(self, plane: str, count: int) -> int:
        """Return the slice to begin with: the one with the most spine, else the middle one.

        Args:
            plane: "axial", "coronal" or "sagittal".
            count: how many slices there are.
        """
        fullest = self.fullest(plane) if self.by_plane else None
        return count // 2 if fullest is None else fullest

    def worst(self, plane: str) -> int | None:
        """Return the slice with the lowest Dice, of several the one with most wrong voxels."""
        dice, wrong = self.dice(plane), self.wrong(plane)
        if not wrong.any():
            return None
        return int(np.lexsort((-wrong, np.where(np.isnan(dice), np.inf, dice)))[0])


def next_marked(marked: np.ndarray, index: int) -> int | None:
    """Return the next index after `index` where an array is above 0, starting over at the end."""
    where = np.flatnonzero(marked)
    if not where.size:
        return None
    return int(where[np.searchsorted(where, index, side="right") % where.size])


def count_slices(
    mask: Grid | None,
    prediction: Grid | None = None,
    ignore: Grid | None = None,
    threshold: float = 0.5,
) -> SliceCounts:
    """Count spine and errors in every slice of all three planes.

    Args:
        mask: labels or booleans [x, y, z]; where it is None the prediction takes its place.
        prediction: labels, booleans or probabilities on the same grid.
        ignore: boolean, True where nothing is scored.
        threshold: a probability counts as spine from this value on.

    Returns:
        The counts; none at all where neither mask nor prediction is given.

    Raises:
        SpineError: where a label lies outside 0 to 255.
    """
    first = mask if mask is not None else prediction
    if first is None:
        return SliceCounts({}, ())
    others = [prediction if mask is not None else None, ignore]
    arrays = [None if one is None else one.array for one in (first, *others)]
    shape = first.array.shape
    tallies = [np.zeros((size, 4), np.int64) for size in shape]
    labels = np.zeros(256, bool)
    for axes, start, (truth, guess, skip) in slabs(arrays):
        spine = is_spine(truth, threshold)
        found = spine if guess is None else is_spine(guess, threshold)
        lines = _lines_with_any(spine, found)
        spine, found, skip = (_pick(one, lines) for one in (spine, found, skip))
        areas = overlays.compare(spine, found, skip)
        line, place = np.nonzero(areas)
        kind = areas[line, place] - 1
        places = (*np.unravel_index(lines[line], truth.shape[:2]), place)
        for axis, place in zip(axes, places):
            offset = start if axis == axes[0] else 0
            flat = (place + offset) * 4 + kind
            tallies[axis] += np.bincount(flat, minlength=tallies[axis].size).reshape(-1, 4)
        labels[np.unique(_ids(_pick(truth, lines)[spine]))] = True
    by_plane = {plane: tallies[plane_axes(plane)[0]][:, :3] for plane in PLANES}
    return SliceCounts(by_plane, tuple(np.flatnonzero(labels[1:]) + 1))


def slabs(
    arrays: Sequence[np.ndarray | None],
) -> Iterator[tuple[tuple[int, ...], int, list[np.ndarray | None]]]:
    """Walk through arrays of one shape together, in the order in which the first lies in memory.

    Yields:
        Which array axis each axis of the slab is, where the slab starts along the first of them,
        and the slabs, views of the arrays.
    """
    first = arrays[0]
    axes = tuple(int(axis) for axis in np.argsort([-abs(step) for step in first.strides]))
    depth = max(1, SLAB_VOXELS * first.shape[axes[0]] // max(first.size, 1))
    turned = [None if one is None else one.transpose(axes) for one in arrays]
    for start in range(0, first.shape[axes[0]], depth):
        yield axes, start, [None if one is None else one[start : start + depth] for one in turned]


def _lines_with_any(*masks: np.ndarray) -> np.ndarray:
    """Return which lines along the last axis hold anything, counted through the first two."""
    return np.flatnonzero(np.any([mask.any(axis=-1) for mask in masks], axis=0))


def _pick(array: np.ndarray | None, lines: np.ndarray) -> np.ndarray | None:
    """Return lines along the last axis: [line, place]."""
    return None if array is None else array.reshape(-1, array.shape[-1])[lines]


def is_spine(array: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return where labels are above 0, or probabilities at or above a threshold."""
    return array >= threshold if array.dtype.kind == "f" else array > 0


def _ids(values: np.ndarray) -> np.ndarray:
    """Return label ids as the viewers draw them; probabilities know none, so they are 1."""
    if values.dtype.kind in "fb":
        return np.ones(values.shape, np.uint8)
    if values.size and values.max() > 255:
        raise SpineError(
            f"A mask holds the label {values.max()}, outside 0 to 255: "
            "convert it with annotations.to_canonical."
        )
    return values
