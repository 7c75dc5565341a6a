"""Solutions of lesson 2."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from spine_lib.course.exercises.lesson_02 import (
    a_blob_map,
    a_crumbled_mask,
    a_jagged_mask,
    a_scan_with_bone,
    a_total_map,
)


def to_verse_ids(labels):
    """Translate a TotalSegmentator label map into VerSe's ids."""
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra]
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def centroid_mm(labels, label, affine):
    """Return where the centroid of one label lies in the patient, in mm."""
    voxel = np.argwhere(labels == label).mean(axis=0)
    point = affine @ [*voxel, 1]
    return point[:3]


def is_mirrored(image_hu, mask):
    """Tell whether a mask of bone lies on brighter voxels once left and right are swapped."""
    here = image_hu[mask].mean()
    swapped = image_hu[mask[::-1]].mean()
    return swapped > here


def stray_voxels(mask):
    """Count the voxels of a mask that lie outside its largest piece."""
    pieces, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]  # without the background
    return sizes.sum() - sizes.max()


def dice_after_smoothing(mask, spacing_mm, sigma_mm):
    """Return the Dice of a mask with itself after smoothing."""
    sigma_voxels = [sigma_mm / size for size in spacing_mm]
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), sigma_voxels) > 0.5
    return 2 * (mask & smooth).sum() / (mask.sum() + smooth.sum())


REFERENCES = {
    "2.1": to_verse_ids,
    "2.2": centroid_mm,
    "2.3": is_mirrored,
    "2.4": stray_voxels,
    "2.5": dice_after_smoothing,
}


def _hidden_centroids() -> list[tuple]:
    (first, first_affine), (second, second_affine) = a_blob_map(31), a_blob_map(32)
    return [(first, 23, first_affine), (second, 21, second_affine)]


HIDDEN = {
    "2.1": lambda: [(a_total_map(31),), (np.arange(118, dtype=np.uint8),)],
    "2.2": _hidden_centroids,
    "2.3": lambda: [a_scan_with_bone(31, mirrored=False), a_scan_with_bone(32, mirrored=True)],
    "2.4": lambda: [(a_crumbled_mask(31, crumbs=2),)],
    "2.5": lambda: [(a_jagged_mask(31), (1.3, 0.8, 1.9), 1.7)],
}
