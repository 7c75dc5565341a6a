"""Lesson 9: from probabilities to a mask of the whole scan, and its clean-up."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spine_lib.ct.volume import Volume

TOUCHING = np.ones((3, 3, 3), bool)  # by a face, an edge or a corner


def to_mask(
    probability: Volume, threshold: float, largest: bool, likeliest: Volume | None = None
) -> Volume:
    """Return the mask (uint8) of what passes a threshold, or the largest component of that.

    It holds 1 or, where `likeliest` gives each voxel's region, the region's id.
    """
    mask = probability.array > threshold
    if largest:
        mask = largest_component(mask)
    mask = mask.astype(np.uint8)
    return probability.with_array(mask if likeliest is None else mask * likeliest.array)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest component, whose voxels touch by a face; an empty mask stays empty."""
    (box,) = ndimage.find_objects((mask != 0).astype(np.uint8), 1)  # the rest takes seconds
    if box is None:
        return mask
    pieces, count = ndimage.label(mask[box])
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = np.zeros_like(mask, bool)
    largest[box] = pieces == sizes.argmax()
    return largest


def keep_pieces(
    mask: np.ndarray, spacing_mm: Sequence[float], smallest_ml: float = 0.5
) -> np.ndarray:
    """Return a boolean mask [x, y, z] without connected components smaller than a volume.

    `largest_component` keeps one piece only, also of a spine from which a vertebra is missing.
    """
    pieces, sizes_ml = numbered_pieces(mask, spacing_mm, TOUCHING)
    kept = sizes_ml >= smallest_ml
    kept[0] = False
    return kept[pieces]


def fill_holes(
    mask: np.ndarray, spacing_mm: Sequence[float], largest_ml: float = 1.0
) -> np.ndarray:
    """Return a boolean mask [x, y, z] with cavities filled that it encloses, up to a volume.

    A cavity's voxels touch by a face: the spinal canal is a hole in an axial slice and none in the
    body. The limit leaves alone a canal that noise has closed.
    """
    cavities, sizes_ml = numbered_pieces(ndimage.binary_fill_holes(mask) & ~mask, spacing_mm)
    small = sizes_ml <= largest_ml
    small[0] = False
    return mask | small[cavities]


def numbered_pieces(
    mask: np.ndarray, spacing_mm: Sequence[float], touching: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask's numbered components, and the volume of each in ml."""
    numbered, _ = ndimage.label(mask, touching)
    return numbered, np.bincount(numbered.ravel()) * np.prod(spacing_mm) / 1000
