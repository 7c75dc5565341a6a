"""Typical mistakes in the exercises of lesson 3, each with words of the message meant for it."""

import cv2
import numpy as np
from scipy import ndimage


def _plain_cut(array_xyz, plane, index):
    return np.take(array_xyz, index, {"axial": 2, "coronal": 1, "sagittal": 0}[plane])


def leaves_it_in_array_order(array_xyz, plane, index):
    """Cut and nothing else."""
    return _plain_cut(array_xyz, plane, index)


def only_transposes(array_xyz, plane, index):
    """Exchange rows and columns, keep the directions."""
    return _plain_cut(array_xyz, plane, index).T


def forgets_the_columns(array_xyz, plane, index):
    """Turn the rows round only: left and right are exchanged."""
    return _plain_cut(array_xyz, plane, index).T[::-1]


def forgets_the_rows(array_xyz, plane, index):
    """Turn the columns round only."""
    return _plain_cut(array_xyz, plane, index).T[:, ::-1]


def cuts_along_the_first_axis(array_xyz, plane, index):
    """Take the first axis for the slices."""
    return array_xyz[index].T[::-1, ::-1]


def forgets_to_transpose(array_xyz, plane, index):
    """Turn both directions round, transpose nothing."""
    return _plain_cut(array_xyz, plane, index)[::-1, ::-1]


def interpolates_labels(image_hu, labels, shape_hw):
    """Resize both linearly."""
    size = tuple(shape_hw)[::-1]
    return cv2.resize(image_hu, size), cv2.resize(labels, size)


def interpolates_labels_as_float(image_hu, labels, shape_hw):
    """Resize both linearly, the labels as float."""
    size = tuple(shape_hw)[::-1]
    return cv2.resize(image_hu, size), cv2.resize(labels.astype(np.float32), size)


def takes_nearest_for_both(image_hu, labels, shape_hw):
    """Resize both by nearest neighbour."""
    size = tuple(shape_hw)[::-1]
    return tuple(cv2.resize(a, size, interpolation=cv2.INTER_NEAREST) for a in (image_hu, labels))


def takes_cubic(image_hu, labels, shape_hw):
    """Resize the image with cubic splines, scipy's default."""
    factors = np.divide(shape_hw, image_hu.shape)
    return ndimage.zoom(image_hu, factors), ndimage.zoom(labels, factors, order=0)


def swaps_the_shape(image_hu, labels, shape_hw):
    """Give OpenCV rows and columns."""
    size = tuple(shape_hw)
    nearest = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image_hu, size), nearest


def draws_slices(patient_of_slice, test_share, seed):
    """Split the slices at random."""
    order = np.random.default_rng(seed).permutation(len(patient_of_slice))
    few = round(test_share * len(order))
    return order[few:], order[:few]


def cuts_the_list(patient_of_slice, test_share, seed):
    """Take the last slices for the test."""
    few = round(test_share * len(patient_of_slice))
    numbers = np.arange(len(patient_of_slice))
    return numbers[:-few], numbers[-few:]


def ignores_the_seed(patient_of_slice, test_share, seed):
    """Take the first patients of the alphabet."""
    patients = np.unique(patient_of_slice)
    is_test = np.isin(patient_of_slice, patients[: round(test_share * len(patients))])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def draws_without_the_seed(patient_of_slice, test_share, seed):
    """Shuffle anew at each call."""
    patients = np.random.default_rng().permutation(np.unique(patient_of_slice))
    is_test = np.isin(patient_of_slice, patients[: round(test_share * len(patients))])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def returns_patients(patient_of_slice, test_share, seed):
    """Split the patients and stop there."""
    patients = np.random.default_rng(seed).permutation(np.unique(patient_of_slice))
    few = round(test_share * len(patients))
    return patients[few:], patients[:few]


def swaps_the_sides(patient_of_slice, test_share, seed):
    """Return the test side first."""
    patients = np.random.default_rng(seed).permutation(np.unique(patient_of_slice))
    is_test = np.isin(patient_of_slice, patients[: round(test_share * len(patients))])
    return np.flatnonzero(is_test), np.flatnonzero(~is_test)


def does_not_clip(image_hu, low_hu, high_hu):
    """Scale without clipping."""
    return (image_hu.astype(np.float32) - low_hu) / (high_hu - low_hu)


def takes_min_and_max(image_hu, low_hu, high_hu):
    """Scale each image by itself."""
    image = image_hu.astype(np.float32)
    return (image - image.min()) / (image.max() - image.min())


def divides_by_high(image_hu, low_hu, high_hu):
    """Divide by the upper end instead of the width."""
    return (np.clip(image_hu.astype(np.float32), low_hu, high_hu) - low_hu) / high_hu


def stays_float64(image_hu, low_hu, high_hu):
    """Let NumPy choose the type."""
    return (np.clip(image_hu, low_hu, high_hu) - float(low_hu)) / (high_hu - low_hu)


def divides_integers(image_hu, low_hu, high_hu):
    """Divide whole numbers."""
    return (np.clip(image_hu, low_hu, high_hu) - low_hu) // (high_hu - low_hu)


def turns_the_image_alone(image_hu, labels, degrees):
    """Forget the labels."""
    return ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024), labels


def interpolates_turned_labels(image_hu, labels, degrees):
    """Turn both linearly."""
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024)
    return image, ndimage.rotate(labels, degrees, reshape=False, order=1)


def fills_with_water(image_hu, labels, degrees):
    """Leave the corners at the default, 0 HU."""
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1)
    return image, ndimage.rotate(labels, degrees, reshape=False, order=0)


def lets_the_shape_grow(image_hu, labels, degrees):
    """Leave reshape at its default."""
    image = ndimage.rotate(image_hu, degrees, order=1, cval=-1024)
    return image, ndimage.rotate(labels, degrees, order=0)


def turns_them_apart(image_hu, labels, degrees):
    """Turn the two in opposite directions."""
    image = ndimage.rotate(image_hu, degrees, reshape=False, order=1, cval=-1024)
    return image, ndimage.rotate(labels, -degrees, reshape=False, order=0)


MISTAKES = {
    "3.1": [
        (leaves_it_in_array_order, "as it lies in the array"),
        (only_transposes, "turned by 180 degrees"),
        (forgets_the_columns, "is mirrored"),
        (forgets_the_rows, "is upside down"),
        (cuts_along_the_first_axis, "is a sagittal one"),
        (forgets_to_transpose, "rows and columns exchanged"),
    ],
    "3.2": [
        (interpolates_labels, "between two ids lies no third one"),
        (interpolates_labels_as_float, "interpolated between ids"),
        (takes_nearest_for_both, "made of blocks"),
        (takes_cubic, "overshoots"),
        (swaps_the_shape, "OpenCV wants (columns, rows)"),
    ],
    "3.3": [
        (draws_slices, "draw patients, not slices"),
        (cuts_the_list, "has slices on both sides"),
        (ignores_the_seed, "one and the same split"),
        (draws_without_the_seed, "two different splits"),
        (returns_patients, "not the names of the patients"),
        (swaps_the_sides, "the sides are exchanged"),
    ],
    "3.4": [
        (does_not_clip, "clip to the range first"),
        (takes_min_and_max, "this image's own minimum and maximum"),
        (divides_by_high, "divide by the width of the range"),
        (stays_float64, "they are float64"),
        (divides_integers, "an integer array holds no fractions"),
    ],
    "3.5": [
        (turns_the_image_alone, "your labels stayed where they were"),
        (interpolates_turned_labels, "it was interpolated"),
        (fills_with_water, "0 HU would be water"),
        (lets_the_shape_grow, "keep the shape"),
        (turns_them_apart, "opposite directions"),
    ],
}
