"""Solutions of lesson 3."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from spine_lib.course.exercises.lesson_03 import (
    a_lopsided_pair,
    a_slice_pair,
    a_volume,
    an_image_hu,
    some_slices,
)


def cut_slice(array_xyz, plane, index):
    """Return one slice of a volume, the right way up."""
    if plane == "axial":
        cut = array_xyz[:, :, index]
    elif plane == "coronal":
        cut = array_xyz[:, index, :]
    else:
        cut = array_xyz[index, :, :]
    return cut.T[::-1, ::-1]


def resample_pair(image_hu, labels, shape_hw):
    """Enlarge a slice and its label map to the same new shape."""
    rows, columns = shape_hw
    image = cv2.resize(image_hu, (columns, rows), interpolation=cv2.INTER_LINEAR)
    labels = cv2.resize(labels, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return image, labels


def split_by_patient(patient_of_slice, test_share, seed):
    """Split slices in two so that no patient has slices on both sides."""
    patients = np.random.default_rng(seed).permutation(np.unique(patient_of_slice))
    tested = patients[: round(test_share * len(patients))]
    is_test = np.isin(patient_of_slice, tested)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def to_unit(image_hu, low_hu, high_hu):
    """Spread a range of HU over 0 to 1."""
    image = np.clip(image_hu.astype(np.float32), low_hu, high_hu)
    return (image - low_hu) / (high_hu - low_hu)


def rotate_pair(image_hu, labels, degrees):
    """Turn a slice and its label map together around their middle."""
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024)
    labels = ndimage.rotate(labels, degrees, reshape=False, order=0, cval=0)
    return image, labels


REFERENCES = {
    "3.1": cut_slice,
    "3.2": resample_pair,
    "3.3": split_by_patient,
    "3.4": to_unit,
    "3.5": rotate_pair,
}

HIDDEN = {
    "3.1": lambda: [(a_volume(31), "coronal", 3), (a_volume(32), "axial", 0)],
    "3.2": lambda: [(*a_slice_pair(31), (53, 29))],
    "3.3": lambda: [(some_slices(31, 12), 0.5, 8)],
    "3.4": lambda: [(an_image_hu(31), -200, 300)],
    "3.5": lambda: [(*a_lopsided_pair(31), 27.0)],
}
