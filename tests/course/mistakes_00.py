"""Typical mistakes in the exercises of lesson 0, each with words of the message meant for it."""

import numpy as np


def starts_one_too_early(vertebra):
    """Write < where <= is meant."""
    if vertebra < 7:
        return "cervical"
    if vertebra < 19:
        return "thoracic"
    return "lumbar" if vertebra < 26 else "sacral"


def forgets_t13(vertebra):
    """Go by the number alone."""
    names = {7: "cervical", 19: "thoracic", 25: "lumbar", 99: "sacral"}
    return next(name for last, name in names.items() if vertebra <= last)


def capitalises(vertebra):
    """Write names as in a title."""
    if vertebra == 28:
        return "Thoracic"
    names = {7: "Cervical", 19: "Thoracic", 25: "Lumbar", 99: "Sacral"}
    return next(name for last, name in names.items() if vertebra <= last)


def returns_the_number(vertebra):
    """Return the region's number."""
    return int(np.searchsorted((7, 19, 25), vertebra)) + 1


def returns_the_count(labels):
    """Take max for argmax."""
    return (labels > 0).sum(axis=(0, 1)).max()


def adds_up_ids(labels):
    """Forget that a label is a name and not an amount."""
    return labels.sum(axis=(0, 1)).argmax()


def counts_along_x(labels):
    """Sum over the wrong axes."""
    return (labels > 0).sum(axis=(1, 2)).argmax()


def counts_from_one(labels):
    """Number slices as a person would."""
    return (labels > 0).sum(axis=(0, 1)).argmax() + 1


def counts_voxels(labels, spacing_mm):
    """Leave out the spacing."""
    return np.count_nonzero(labels)


def stays_in_mm3(labels, spacing_mm):
    """Forget the unit."""
    return np.count_nonzero(labels) * np.prod(spacing_mm)


def sums_labels(labels, spacing_mm):
    """Sum the ids."""
    return labels.sum() * np.prod(spacing_mm) / 1000


def takes_a_cube(labels, spacing_mm):
    """Take the first spacing for all three."""
    return np.count_nonzero(labels) * spacing_mm[0] ** 3 / 1000


def reads_the_picture(voxel, shape):
    """Take the side of the picture, which is mirrored."""
    return "left" if voxel[0] > shape[0] / 2 else "right"


def takes_y(voxel, shape):
    """Take the second index, as if it were the column."""
    return "right" if voxel[1] > shape[1] / 2 else "left"


def returns_a_letter(voxel, shape):
    """Answer as on the edge of a picture."""
    return "R" if voxel[0] > shape[0] / 2 else "L"


def counts_the_slices_shown(labels, spacing_mm):
    """Count slices with spine, gaps left out."""
    return (labels > 0).any(axis=(0, 1)).sum() * spacing_mm[2]


def forgets_the_last_slice(labels, spacing_mm):
    """Take the difference of two indices for a count."""
    slices = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    return (slices[-1] - slices[0]) * spacing_mm[2]


def measures_the_image(labels, spacing_mm):
    """Take the height of the array."""
    return labels.shape[2] * spacing_mm[2]


def returns_slices(labels, spacing_mm):
    """Leave out the spacing."""
    slices = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    return slices[-1] - slices[0] + 1


MISTAKES = {
    "0.1": [
        (starts_one_too_early, "look at where each region starts and ends"),
        (forgets_t13, "a thirteenth thoracic vertebra"),
        (capitalises, "spelt"),
        (returns_the_number, "a region is a name"),
    ],
    "0.2": [
        (returns_the_count, "how many voxels the fullest slice has"),
        (adds_up_ids, "added up the ids"),
        (counts_along_x, "along another axis"),
        (counts_from_one, "indices start at 0"),
    ],
    "0.3": [
        (counts_voxels, "number of voxels"),
        (stays_in_mm3, "in mm³"),
        (sums_labels, "added up the ids"),
        (takes_a_cube, "for a cube"),
    ],
    "0.4": [
        (reads_the_picture, "x grows to the Right"),
        (takes_y, "from the back to the front"),
        (returns_a_letter, 'is "left" or "right"'),
    ],
    "0.5": [
        (counts_the_slices_shown, "a gap among them"),
        (forgets_the_last_slice, "one slice is missing"),
        (measures_the_image, "height of the whole image"),
        (returns_slices, "counts slices"),
    ],
}
