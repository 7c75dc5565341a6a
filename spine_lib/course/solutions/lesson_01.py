"""Solutions of lesson 1."""

from __future__ import annotations

import numpy as np

from spine_lib.course.exercises.lesson_01 import a_place, an_affine, some_hu, stored_pixels


def voxel_to_mm(affine, voxel):
    """Return where the centre of a voxel lies in the patient: x, y, z in mm."""
    matrix, corner_mm = affine[:3, :3], affine[:3, 3]
    return matrix @ np.array(voxel) + corner_mm


def mm_to_voxel(affine, place_mm):
    """Return the indices of the voxel whose centre is nearest to a place in the patient."""
    inverse = np.linalg.inv(affine)
    exact = inverse[:3, :3] @ np.array(place_mm) + inverse[:3, 3]
    return np.rint(exact).astype(int)


def axis_codes(affine):
    """Return three letters that say where each array axis points to."""
    letters = ""
    for axis in range(3):
        column = affine[:3, axis]
        along = np.abs(column).argmax()
        positive, negative = ("RL", "AP", "SI")[along]
        letters += positive if column[along] > 0 else negative
    return letters


def to_hu(stored, slope, intercept):
    """Return Hounsfield units as int16."""
    exact = stored.astype(np.float64) * slope + intercept
    return np.rint(exact).astype(np.int16)


def apply_window(hu, center, width):
    """Return grey values from 0 to 1."""
    lower_end = center - width / 2
    return np.clip((hu.astype(np.float32) - lower_end) / width, 0, 1)


def pixel_aspect(spacing_mm, plane):
    """Return how many times as high as wide a pixel of a slice is."""
    x, y, z = spacing_mm
    if plane == "axial":
        return y / x
    if plane == "coronal":
        return z / x
    return z / y


REFERENCES = {
    "1.1": voxel_to_mm,
    "1.2": mm_to_voxel,
    "1.3": axis_codes,
    "1.4": to_hu,
    "1.5": apply_window,
    "1.6": pixel_aspect,
}

HIDDEN = {
    "1.1": lambda: [(an_affine(21), (3, 99, 12)), (an_affine(22), (250, 1, 8))],
    "1.2": lambda: [a_place(23), a_place(24)],
    "1.3": lambda: [(an_affine(25),), (an_affine(26),)],
    "1.4": lambda: [
        stored_pixels(27, "uint16", 1.0, -1000.0),
        stored_pixels(28, "int32", 0.5, -8.0),
    ],
    "1.5": lambda: [some_hu(29, 60, 120)],
    "1.6": lambda: [((1.0, 0.6, 3.1), plane) for plane in ("axial", "coronal", "sagittal")],
}
