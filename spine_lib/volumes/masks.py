"""Lesson 9: from probabilities to a mask of the whole scan, and its clean-up."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spine_lib.ct.volume import Volume
from spine_lib.training.recipe import Recipe

TOUCHING = np.ones((3, 3, 3), bool)  # by a face, an edge or a corner


def to_mask(probability: Volume, recipe: Recipe) -> Volume:
    """Return the mask (uint8) of a recipe's threshold, or its largest component if so set."""
    mask = probability.array > recipe.threshold
    if recipe.largest_component:
        mask = largest_component(mask)
    return probability.with_array(mask.astype(np.uint8))


def to_region_mask(probability: Volume, likeliest: Volume, recipe: Recipe) -> Volume:
    """Return the region ids of the mask that `to_mask` makes, uint8: 1 cervical to 4 sacral.

    A voxel is spine if the probabilities of all regions together pass the threshold, whichever of
    them is highest; both volumes are those of `predict_regions`.
    """
    mask = to_mask(probability, recipe)
    return mask.with_array(mask.array * likeliest.array)


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
    pieces, sizes_ml = _sizes(mask, spacing_mm, TOUCHING)
    kept = sizes_ml >= smallest_ml
    kept[0] = False
    return kept[pieces]


def fill_holes(
    mask: np.ndarray, spacing_mm: Sequence[float], largest_ml: float = 1.0
) -> np.ndarray:
    """Return a boolean mask [x, y, z] with cavities filled that it encloses, up to a volume.

    A cavity is one in three dimensions, of voxels that touch by a face: the spinal canal is a hole
    in an axial slice and none in the body. The limit leaves alone a canal that noise has closed.
    """
    cavities, sizes_ml = _sizes(ndimage.binary_fill_holes(mask) & ~mask, spacing_mm)
    small = sizes_ml <= largest_ml
    small[0] = False
    return mask | small[cavities]


def _sizes(
    mask: np.ndarray, spacing_mm: Sequence[float], touching: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask's numbered components, and the volume of each in ml."""
    numbered, _ = ndimage.label(mask, touching)
    return numbered, np.bincount(numbered.ravel()) * np.prod(spacing_mm) / 1000
