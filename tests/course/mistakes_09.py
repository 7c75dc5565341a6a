"""Typical mistakes in the exercises of lesson 9, each with words of the message meant for it."""

from itertools import product

import numpy as np
from scipy import ndimage

TOUCHING = np.ones((3, 3, 3))


def takes_mm3_for_ml(mask, spacing_mm, smallest_ml):
    """Forget to divide by 1000."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    large = np.bincount(pieces.ravel()) * np.prod(spacing_mm) >= smallest_ml
    large[0] = False
    return large[pieces]


def takes_ml_for_litres(mask, spacing_mm, smallest_ml):
    """Divide once too often."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    large = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1e6 >= smallest_ml
    large[0] = False
    return large[pieces]


def keeps_the_background(mask, spacing_mm, smallest_ml):
    """Count the background as a piece."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    return (np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000 >= smallest_ml)[pieces]


def keeps_the_largest(mask, spacing_mm, smallest_ml):
    """Keep one piece."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return (pieces == sizes.argmax()) & mask


def pieces_by_faces(mask, spacing_mm, smallest_ml):
    """Leave out the structure."""
    pieces, _ = ndimage.label(mask)
    large = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000 >= smallest_ml
    large[0] = False
    return large[pieces]


def keeps_the_small_ones(mask, spacing_mm, smallest_ml):
    """Turn the comparison around."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    small = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000 < smallest_ml
    small[0] = False
    return small[pieces]


def returns_numbers(mask, spacing_mm, smallest_ml):
    """Return the numbered pieces."""
    return ndimage.label(mask, TOUCHING)[0]


def fills_each_slice(mask):
    """Fill slice by slice."""
    slices = [ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])]
    return np.stack(slices, axis=2)


def closes(mask):
    """Close instead of filling."""
    return mask | ndimage.binary_closing(mask, iterations=4)


def returns_the_holes(mask):
    """Return what was filled."""
    return ndimage.binary_fill_holes(mask) & ~mask


def fills_one_voxel_holes(mask):
    """Take a median."""
    return ndimage.binary_closing(mask)


def erodes_after_filling(mask):
    """Smooth the result as well."""
    return ndimage.binary_opening(ndimage.binary_fill_holes(mask), iterations=3)


def leaves_everything(mask):
    """Forget to assign."""
    ndimage.binary_fill_holes(mask)
    return mask.copy()


def names_in_voxels(prediction, labels, spacing_mm, reach_mm):
    """Leave out the sampling."""
    away, place = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(prediction & (away <= reach_mm), labels[tuple(place)], 0).astype(np.uint8)


def names_the_overlap(prediction, labels, spacing_mm, reach_mm):
    """Multiply."""
    return np.where(prediction, labels, 0).astype(np.uint8)


def names_everything_near(prediction, labels, spacing_mm, reach_mm):
    """Forget the prediction."""
    away, place = ndimage.distance_transform_edt(labels == 0, spacing_mm, return_indices=True)
    return np.where(away <= reach_mm, labels[tuple(place)], 0).astype(np.uint8)


def names_without_reach(prediction, labels, spacing_mm, reach_mm):
    """Forget the reach."""
    _, place = ndimage.distance_transform_edt(labels == 0, spacing_mm, return_indices=True)
    return np.where(prediction, labels[tuple(place)], 0).astype(np.uint8)


def names_by_centroid(prediction, labels, spacing_mm, reach_mm):
    """Take the vertebra whose centroid is nearest."""
    away, _ = ndimage.distance_transform_edt(labels == 0, spacing_mm, return_indices=True)
    ids = np.unique(labels)[1:]
    centres = [np.argwhere(labels == one).mean(axis=0)[2] for one in ids]
    z = np.arange(labels.shape[2])
    nearest = ids[np.abs(z[:, None] - np.array(centres) - 2).argmin(axis=1)]
    named = np.broadcast_to(nearest, labels.shape)
    return np.where(prediction & (away <= reach_mm), named, 0).astype(np.uint8)


def names_as_int64(prediction, labels, spacing_mm, reach_mm):
    """Let NumPy choose the type."""
    away, place = ndimage.distance_transform_edt(labels == 0, spacing_mm, return_indices=True)
    return np.where(prediction & (away <= reach_mm), labels[tuple(place)].astype(int), 0)


def forgets_to_turn_back(predict, image):
    """Average an answer with a mirrored one."""
    first, second = predict(image), predict(image[:, ::-1])
    return (first + second) / 2, np.abs(first - second)


def turns_upside_down(predict, image):
    """Reverse the rows."""
    first, second = predict(image), predict(image[::-1])[::-1]
    return (first + second) / 2, np.abs(first - second)


def averages_the_images(predict, image):
    """Predict the mean image."""
    mean = predict((image + image[:, ::-1]) / 2)
    return mean, np.abs(predict(image) - mean)


def thresholds_first(predict, image):
    """Average masks."""
    first = predict(image) > 0.5
    second = predict(image[:, ::-1])[:, ::-1] > 0.5
    return (first + second.astype(float)) / 2, np.abs(first - second.astype(float))


def keeps_the_sign(predict, image):
    """Forget the absolute value."""
    first, second = predict(image), predict(image[:, ::-1])[:, ::-1]
    return (first + second) / 2, first - second


def returns_the_deviation(predict, image):
    """Return the standard deviation of two values, half their difference."""
    both = np.stack([predict(image), predict(image[:, ::-1])[:, ::-1]])
    return both.mean(axis=0), both.std(axis=0)


def returns_the_mean_alone(predict, image):
    """Return one array."""
    return (predict(image) + predict(image[:, ::-1])[:, ::-1]) / 2


def turns_the_pairs_round(uncertainty, wrong):
    """Count right voxels above wrong ones."""
    pairs = uncertainty[~wrong][:, None] - uncertainty[wrong]
    return (pairs > 0).mean() + (pairs == 0).mean() / 2


def leaves_ties_out(uncertainty, wrong):
    """Count larger pairs only."""
    return (uncertainty[wrong][:, None] > uncertainty[~wrong]).mean()


def counts_ties_in_full(uncertainty, wrong):
    """Count larger or equal pairs."""
    return (uncertainty[wrong][:, None] >= uncertainty[~wrong]).mean()


def takes_one_threshold(uncertainty, wrong):
    """Return the accuracy at the median."""
    return ((uncertainty > np.median(uncertainty)) == wrong).mean()


def counts_without_dividing(uncertainty, wrong):
    """Return how many pairs there are."""
    pairs = uncertainty[wrong][:, None] - uncertainty[~wrong]
    return (pairs > 0).sum() + (pairs == 0).sum() / 2


def compares_two_means(uncertainty, wrong):
    """Subtract the means."""
    return float(uncertainty[wrong].mean() - uncertainty[~wrong].mean())


def _gaps(affine, other, shape, last=1):
    corners = [(*corner, 1) for corner in product(*[(0, n - last) for n in shape])]
    return np.linalg.norm([((affine - other) @ corner)[:3] for corner in corners], axis=1)


def ends_one_voxel_too_far(affine, other, shape):
    """Take n for the last index."""
    return _gaps(affine, other, shape, last=0).max()


def compares_origins(affine, other, shape):
    """Look at the last column."""
    return np.linalg.norm(affine[:3, 3] - other[:3, 3])


def looks_at_the_far_corner(affine, other, shape):
    """Look at one corner."""
    corner = [*(n - 1 for n in shape), 1]
    return np.linalg.norm(((affine - other) @ corner)[:3])


def averages_the_corners(affine, other, shape):
    """Take the mean."""
    return _gaps(affine, other, shape).mean()


def subtracts_the_affines(affine, other, shape):
    """Take the largest difference of two entries."""
    return np.abs(affine - other).max()


def compares_spacings(affine, other, shape):
    """Compare the voxel sizes."""
    sizes = [np.linalg.norm(one[:3, :3], axis=0) for one in (affine, other)]
    return np.abs(sizes[0] - sizes[1]).max()


MISTAKES = {
    "9.1": [
        (takes_mm3_for_ml, "everything is kept"),
        (takes_ml_for_litres, "nothing is left"),
        (keeps_the_background, "numbers 0 is the background"),
        (keeps_the_largest, "you keep the largest piece alone"),
        (pieces_by_faces, "touch by an edge or a corner"),
        (keeps_the_small_ones, "throw the large ones away"),
        (returns_numbers, "return a boolean array"),
    ],
    "9.2": [
        (fills_each_slice, "the spinal canal is filled"),
        (closes, "closing or smoothing also changes"),
        (returns_the_holes, "the holes alone"),
        (erodes_after_filling, "filling only adds"),
        (leaves_everything, "nothing was filled"),
    ],
    "9.3": [
        (names_in_voxels, "count in voxels"),
        (names_the_overlap, "what the prediction shares with the labels"),
        (names_everything_near, "are not predicted carry an id"),
        (names_without_reach, "they get 0"),
        (names_by_centroid, "the nearest one"),
        (names_as_int64, "keep them uint8"),
    ],
    "9.4": [
        (forgets_to_turn_back, "turn it back first"),
        (turns_upside_down, "upside down"),
        (averages_the_images, "predict twice, then average"),
        (thresholds_first, "thresholded before they were averaged"),
        (keeps_the_sign, "take their absolute value"),
        (returns_the_deviation, "half the difference"),
        (returns_the_mean_alone, "return two arrays"),
    ],
    "9.5": [
        (turns_the_pairs_round, "the *right* voxel is more uncertain"),
        (leaves_ties_out, "ties are missing"),
        (counts_ties_in_full, "ties count in full"),
        (takes_one_threshold, "one threshold"),
        (counts_without_dividing, "divide by how many there are"),
        (compares_two_means, "depends on the unit"),
    ],
    "9.6": [
        (ends_one_voxel_too_far, "index n - 1"),
        (compares_origins, "the first voxel alone"),
        (looks_at_the_far_corner, "the last voxel alone"),
        (averages_the_corners, "the worst one counts"),
        (subtracts_the_affines, "send corners through"),
        (compares_spacings, "compares the spacings"),
    ],
}
