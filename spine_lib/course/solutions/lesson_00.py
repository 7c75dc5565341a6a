"""Solutions of lesson 0."""

from __future__ import annotations

import numpy as np

from spine_lib.course.exercises.lesson_00 import a_label_map


def region_of(vertebra):
    """Name the region of a vertebra."""
    if vertebra == 28:  # T13 has the last number, but it is thoracic
        return "thoracic"
    if vertebra <= 7:
        return "cervical"
    if vertebra <= 19:
        return "thoracic"
    if vertebra <= 25:
        return "lumbar"
    return "sacral"


def fullest_slice(labels):
    """Return the index of the axial slice that has the most voxels of spine."""
    per_slice = (labels > 0).sum(axis=(0, 1))
    return per_slice.argmax()


def volume_ml(labels, spacing_mm):
    """Return the volume of all spine in millilitres."""
    x, y, z = spacing_mm
    voxel_mm3 = x * y * z
    return np.count_nonzero(labels) * voxel_mm3 / 1000


def side_of(voxel, shape):
    """Say in which half of the image a voxel lies."""
    middle = (shape[0] - 1) / 2
    return "right" if voxel[0] > middle else "left"


def spine_height_mm(labels, spacing_mm):
    """Return the height of the labelled spine in mm."""
    slices = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    return (slices[-1] - slices[0] + 1) * spacing_mm[2]


REFERENCES = {
    "0.1": region_of,
    "0.2": fullest_slice,
    "0.3": volume_ml,
    "0.4": side_of,
    "0.5": spine_height_mm,
}

HIDDEN = {
    "0.1": lambda: [(vertebra,) for vertebra in (1, 12, 22, 25)],
    "0.2": lambda: [(a_label_map(seed),) for seed in (31, 32)],
    "0.3": lambda: [(a_label_map(33), (0.35, 0.4, 1.3))],
    "0.4": lambda: [((61, 70, 5), (120, 80, 40)), ((58, 3, 39), (120, 80, 40))],
    "0.5": lambda: [(a_label_map(34), (0.5, 0.6, 1.25))],
}
