"""Solutions of lesson 9."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from spine_lib.course.exercises.lesson_09 import (
    Lopsided,
    a_cut_spine,
    a_hollow_vertebra,
    a_slice,
    an_uncertainty,
    two_grids,
    two_vertebrae,
)


def keep_pieces(mask, spacing_mm, smallest_ml):
    """Keep every piece of a mask that is not smaller than a volume."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    ml = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000
    large = ml >= smallest_ml
    large[0] = False  # the background is no piece
    return large[pieces]


def fill_holes(mask):
    """Fill the cavities of a mask, and leave the spinal canal open."""
    return ndimage.binary_fill_holes(mask)


def borrow_names(prediction, labels, spacing_mm, reach_mm):
    """Give each predicted voxel the id of the nearest labelled vertebra."""
    away, place = ndimage.distance_transform_edt(
        labels == 0, sampling=spacing_mm, return_indices=True
    )
    nearest = labels[tuple(place)]
    nearest[(away > reach_mm) | ~prediction] = 0
    return nearest


def predict_twice(predict, image):
    """Predict a slice as it is and mirrored; say what the two answers agree on, and where not."""
    first = predict(image)
    second = predict(image[:, ::-1])[:, ::-1]
    return (first + second) / 2, np.abs(first - second)


def auroc(uncertainty, wrong):
    """Return how often a wrong voxel is more uncertain than a right one."""
    difference = uncertainty[wrong][:, None] - uncertainty[~wrong]
    return (difference > 0).mean() + (difference == 0).mean() / 2


def grid_gap_mm(affine, other, shape):
    """Return how far two grids lie apart, at the corner voxel where it is worst."""
    corners = product(*[(0, n - 1) for n in shape])
    steps = [(affine - other) @ [*corner, 1] for corner in corners]
    return max(np.linalg.norm(step[:3]) for step in steps)


REFERENCES = {
    "9.1": keep_pieces,
    "9.2": fill_holes,
    "9.3": borrow_names,
    "9.4": predict_twice,
    "9.5": auroc,
    "9.6": grid_gap_mm,
}


def _hidden_pieces() -> list[tuple]:
    mask, spacing_mm = a_cut_spine(31)
    return [(mask, spacing_mm, 0.02), (np.zeros_like(mask), spacing_mm, 0.5)]


HIDDEN = {
    "9.1": _hidden_pieces,
    "9.2": lambda: [(a_hollow_vertebra(31),)],
    "9.3": lambda: [(*two_vertebrae(31), 7.5)],
    "9.4": lambda: [(Lopsided(4.0), a_slice(31))],
    "9.5": lambda: [an_uncertainty(31), an_uncertainty(32, 400)],
    "9.6": lambda: [two_grids(31), two_grids(32)],
}
