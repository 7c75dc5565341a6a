"""Lesson 2: the size, height and brightness of each id of a label map.

From these measures alone, `misfit` decides whether a map can be meant in a scheme.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from spine_lib.annotations.schemes import CANONICAL, HEAD_TO_FOOT, LabelScheme, require_labels
from spine_lib.ct.volume import Volume

RARE = ("T13", "L6")
"""Vertebrae whose absence is the rule."""

TINY_FRACTION = 0.05
"""A label smaller than this part of the median label is reported, and not checked for order."""

BONE_HU = 80.0
"""Whole vertebrae, marrow and shell together, average more than this even in weak bone."""

ORDER_FRACTION = 0.8
"""A scheme fits if at least this part of neighbouring vertebrae lie in the right order."""


@dataclass(frozen=True)
class Structure:
    """One id of a label map: its size, height in the body, and mean HU (NaN: no CT)."""

    label: int
    voxels: int
    height_mm: float
    mean_hu: float


def measure(mask: Volume, image: np.ndarray | None) -> list[Structure]:
    """Return every id of a map with its measures, slice by slice so that memory stays small.

    Args:
        mask: label map, whole numbers from 0.
        image: HU on the same grid, or None where there is no such image.
    """
    array = mask.array
    require_labels(array)
    size = int(array.max()) + 1
    count, height, hu = np.zeros(size), np.zeros(size), np.zeros(size)
    for index in range(array.shape[2]):
        marked = array[:, :, index] > 0
        labels = array[:, :, index][marked]
        voxels = np.bincount(labels, minlength=size)
        count += voxels
        height += voxels * index * mask.spacing_mm[2]
        if image is not None:
            brightness = np.clip(image[:, :, index][marked], -1000, 2000)
            hu += np.bincount(labels, weights=brightness, minlength=size)
    hu = hu if image is not None else np.full(size, np.nan)
    return [
        Structure(int(i), int(count[i]), float(height[i] / count[i]), float(hu[i] / count[i]))
        for i in np.flatnonzero(count)
    ]


def misfit(structures: Sequence[Structure], scheme: LabelScheme) -> str | None:
    """Return why a map cannot be meant in a scheme, or None if it can."""
    unknown = [s.label for s in structures if not scheme.knows(s.label)]
    if unknown:
        return f"ids {listed(unknown)} mean nothing"
    spine = [s for s in structures if s.label in scheme.canonical]
    if not spine:
        return "nothing in it is spine"
    right, pairs = order(sizeable(spine), scheme)
    if pairs and right / pairs < ORDER_FRACTION:
        return f"only {right} of {pairs} neighbouring vertebrae lie in the right order"
    gaps = missing_between(spine, scheme)
    if len(gaps) > len(spine):
        return f"{len(gaps)} vertebrae are missing between the {len(spine)} that it has"
    hu = sum(s.mean_hu * s.voxels for s in spine) / sum(s.voxels for s in spine)
    if hu < BONE_HU:
        return f"its vertebrae average {hu:.0f} HU, which is no bone"
    return None


def sizeable(spine: Sequence[Structure]) -> list[Structure]:
    """Return the vertebrae without slivers, whose height says nothing about their order."""
    limit = TINY_FRACTION * float(np.median([s.voxels for s in spine]))
    return [s for s in spine if s.voxels >= limit]


def from_head(spine: Sequence[Structure], scheme: LabelScheme) -> list[Structure]:
    """Return vertebrae in the order of their names, from the head down."""
    rank = {vertebra: i for i, vertebra in enumerate(HEAD_TO_FOOT)}
    # Within the sacrum, S1 (a higher id than the rest where both exist) comes first.
    return sorted(spine, key=lambda s: (rank[scheme.canonical[s.label]], -s.label))


def order(spine: Sequence[Structure], scheme: LabelScheme) -> tuple[int, int]:
    """Return how many neighbouring vertebrae descend from head to foot, and of how many."""
    heights = [s.height_mm for s in from_head(spine, scheme)]
    pairs = list(zip(heights, heights[1:], strict=False))
    return sum(upper > lower for upper, lower in pairs), len(pairs)


def missing_between(spine: Sequence[Structure], scheme: LabelScheme) -> list[int]:
    """Return the canonical ids that lie between those of a map and are not in it, but `RARE`."""
    present = {scheme.canonical[s.label] for s in spine}
    ranks = [i for i, vertebra in enumerate(HEAD_TO_FOOT) if vertebra in present]
    between = HEAD_TO_FOOT[ranks[0] : ranks[-1]]
    return [v for v in between if v not in present and CANONICAL[v] not in RARE]


def listed(items: Iterable[object], most: int = 8) -> str:
    """Return the first few of many items in one line."""
    items = [str(item) for item in items]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
