"""Typical mistakes in the exercises of lesson 2, each with words of the message meant for it."""

import numpy as np
from scipy import ndimage


def keeps_organs(labels):
    """Translate the vertebrae and leave everything else as it was."""
    verse = labels.copy()
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra]
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def is_off_by_one(labels):
    """Subtract from 50 instead of 51."""
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 50 - labels[vertebra]
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def runs_the_same_way(labels):
    """Take both lists to run from the head down."""
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = labels[vertebra] - 26
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def forgets_s1(labels):
    """Translate the sacrum but not its first vertebra."""
    verse = np.zeros_like(labels)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra]
    verse[labels == 25] = 26
    return verse


def widens_to_int64(labels):
    """Let NumPy choose the type."""
    verse = np.zeros(labels.shape, int)
    vertebra = (labels >= 27) & (labels <= 50)
    verse[vertebra] = 51 - labels[vertebra].astype(int)
    verse[(labels == 25) | (labels == 26)] = 26
    return verse


def stays_in_voxels(labels, label, affine):
    """Forget the affine."""
    return np.argwhere(labels == label).mean(axis=0)


def uses_the_spacing_alone(labels, label, affine):
    """Multiply by the spacing."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return np.argwhere(labels == label).mean(axis=0) * spacing


def leaves_out_the_origin(labels, label, affine):
    """Use the 3x3 part alone."""
    return affine[:3, :3] @ np.argwhere(labels == label).mean(axis=0)


def takes_the_box(labels, label, affine):
    """Take the middle of the extent."""
    places = np.argwhere(labels == label)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    return (affine @ [*middle, 1])[:3]


def takes_all_labels(labels, label, affine):
    """Take every voxel above 0."""
    return (affine @ [*np.argwhere(labels > 0).mean(axis=0), 1])[:3]


def keeps_the_one(labels, label, affine):
    """Return the homogeneous point."""
    return affine @ [*np.argwhere(labels == label).mean(axis=0), 1]


def connects_by_faces(mask):
    """Leave out the structure."""
    pieces, _ = ndimage.label(mask)
    sizes = np.bincount(pieces.ravel())[1:]
    return sizes.sum() - sizes.max()


def counts_the_pieces(mask):
    """Return the number of pieces."""
    return ndimage.label(mask, np.ones((3, 3, 3)))[1]


def counts_the_background(mask):
    """Take the background for the largest piece."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())
    return sizes.sum() - sizes.max()


def returns_the_largest(mask):
    """Return the size of the largest piece."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return np.bincount(pieces.ravel())[1:].max()


def flips_back_and_front(image_hu, mask):
    """Flip the second axis."""
    return image_hu[mask[:, ::-1]].mean() > image_hu[mask].mean()


def flips_both(image_hu, mask):
    """Mirror image and mask together, which changes nothing."""
    return image_hu[::-1][mask[::-1]].mean() > image_hu[mask].mean()


def looks_at_symmetry(image_hu, mask):
    """Judge by the mask alone."""
    return bool((mask != mask[::-1]).any())


def returns_the_difference(image_hu, mask):
    """Return how much brighter it is."""
    return image_hu[mask[::-1]].mean() - image_hu[mask].mean()


def answers_the_opposite(image_hu, mask):
    """Turn the comparison around."""
    return image_hu[mask].mean() > image_hu[mask[::-1]].mean()


def smooths_in_voxels(mask, spacing_mm, sigma_mm):
    """Take the width for one in voxels."""
    smooth = ndimage.gaussian_filter(mask.astype(float), sigma_mm) > 0.5
    return 2 * (mask & smooth).sum() / (mask.sum() + smooth.sum())


def multiplies_by_the_spacing(mask, spacing_mm, sigma_mm):
    """Multiply where one divides."""
    smooth = ndimage.gaussian_filter(mask.astype(float), np.multiply(sigma_mm, spacing_mm)) > 0.5
    return 2 * (mask & smooth).sum() / (mask.sum() + smooth.sum())


def stays_boolean(mask, spacing_mm, sigma_mm):
    """Smooth the boolean array."""
    smooth = ndimage.gaussian_filter(mask, np.divide(sigma_mm, spacing_mm)) > 0.5
    return 2 * (mask & smooth).sum() / (mask.sum() + smooth.sum())


def computes_iou(mask, spacing_mm, sigma_mm):
    """Divide overlap by union."""
    smooth = ndimage.gaussian_filter(mask.astype(float), np.divide(sigma_mm, spacing_mm)) > 0.5
    return (mask & smooth).sum() / (mask | smooth).sum()


def counts_everything_above_zero(mask, spacing_mm, sigma_mm):
    """Forget the one half."""
    smooth = ndimage.gaussian_filter(mask.astype(np.float32), np.divide(sigma_mm, spacing_mm)) > 0
    return 2 * (mask & smooth).sum() / (mask.sum() + smooth.sum())


MISTAKES = {
    "2.1": [
        (keeps_organs, "everything that is no spine becomes 0"),
        (is_off_by_one, "add up to the same number"),
        (runs_the_same_way, "one list runs up the spine, the other down"),
        (forgets_s1, "id 26 belongs to the sacrum"),
        (widens_to_int64, "they are int64"),
    ],
    "2.2": [
        (stays_in_voxels, "as a voxel index"),
        (uses_the_spacing_alone, "multiplied the index by the spacing"),
        (leaves_out_the_origin, "the affine's last column"),
        (takes_the_box, "the middle of the bounding box"),
        (takes_all_labels, "the centroid of all labels together"),
        (keeps_the_one, "the 1 at its end"),
    ],
    "2.3": [
        (flips_back_and_front, "left to right is the first axis"),
        (flips_both, "flipping image and mask together changes nothing"),
        (looks_at_symmetry, "whether the mask looks symmetric says nothing"),
        (returns_the_difference, "the answer is True or False"),
        (answers_the_opposite, "bone is bright"),
    ],
    "2.4": [
        (connects_by_faces, "touch by an edge or a corner"),
        (counts_the_pieces, "the number of pieces"),
        (counts_the_background, "leave that one out"),
        (returns_the_largest, "the size of the largest piece"),
    ],
    "2.5": [
        (smooths_in_voxels, "it counts in voxels"),
        (multiplies_by_the_spacing, "millimetres become voxels by dividing"),
        (stays_boolean, "stays boolean"),
        (computes_iou, "this is the IoU"),
        (counts_everything_above_zero, "exceeds one half"),
    ],
}
