"""Typical mistakes in the exercises of lesson 1, each with words of the message meant for it."""

import nibabel as nib
import numpy as np

# --- 1.1 ------------------------------------------------------------------------------------------


def forgets_the_corner(affine, voxel):
    """Leave out the last column."""
    return affine[:3, :3] @ voxel


def multiplies_from_the_left(affine, voxel):
    """Swap rows and columns."""
    return np.array(voxel) @ affine[:3, :3] + affine[:3, 3]


def uses_the_spacing(affine, voxel):
    """Multiply by the spacing, as many scripts do."""
    return nib.affines.voxel_sizes(affine) * voxel + affine[:3, 3]


def keeps_the_one(affine, voxel):
    """Return homogeneous coordinates."""
    return affine @ [*voxel, 1]


# --- 1.2 ------------------------------------------------------------------------------------------


def cuts_off(affine, place_mm):
    """Let astype take the fraction away."""
    return nib.affines.apply_affine(np.linalg.inv(affine), place_mm).astype(int)


def does_not_round(affine, place_mm):
    """Return exact indices."""
    return nib.affines.apply_affine(np.linalg.inv(affine), place_mm)


def inverts_the_matrix_only(affine, place_mm):
    """Forget that the corner was added."""
    return np.rint(np.linalg.inv(affine[:3, :3]) @ place_mm).astype(int)


def goes_the_same_way(affine, place_mm):
    """Forget the inverse."""
    return np.rint(nib.affines.apply_affine(affine, place_mm)).astype(int)


# --- 1.3 ------------------------------------------------------------------------------------------


def says_where_from(affine):
    """Name the side that an axis comes from."""
    return "".join(nib.aff2axcodes(affine, (("R", "L"), ("A", "P"), ("S", "I"))))


def looks_at_the_diagonal(affine):
    """Take the signs of the diagonal."""
    return "".join(pair[int(affine[i, i] < 0)] for i, pair in enumerate(("RL", "AP", "SI")))


def goes_through_rows(affine):
    """Read rows where columns are meant."""
    return "".join(nib.aff2axcodes(affine.T))


def returns_a_tuple(affine):
    """Return what nibabel returns."""
    return nib.aff2axcodes(affine)


# --- 1.4 ------------------------------------------------------------------------------------------


def keeps_the_type(stored, slope, intercept):
    """Go back to the type of the file."""
    return np.rint(stored * slope + intercept).astype(np.int64).astype(np.uint16)


def adds_first(stored, slope, intercept):
    """Swap the order of the two steps."""
    return np.rint((stored + intercept) * slope).astype(np.int16)


def truncates(stored, slope, intercept):
    """Let astype do the rounding."""
    return (stored * slope + intercept).astype(np.int16)


def subtracts(stored, slope, intercept):
    """Take the intercept away."""
    return np.rint(stored * slope - intercept).astype(np.int16)


def stays_float(stored, slope, intercept):
    """Return float64."""
    return np.rint(stored * slope + intercept)


# --- 1.5 ------------------------------------------------------------------------------------------


def does_not_clip(hu, center, width):
    """Leave values outside 0 to 1."""
    return (hu.astype(np.float32) - (center - width / 2)) / width


def takes_the_width_to_each_side(hu, center, width):
    """Take the width for half of it."""
    return np.clip((hu.astype(np.float32) - (center - width)) / (2 * width), 0, 1)


def stretches_the_image(hu, center, width):
    """Normalise by the image's own range."""
    hu = hu.astype(np.float32)
    return (hu - hu.min()) / (hu.max() - hu.min())


def goes_to_255(hu, center, width):
    """Make grey values of a picture file."""
    return 255 * np.clip((hu.astype(np.float32) - (center - width / 2)) / width, 0, 1)


def makes_integers(hu, center, width):
    """Keep the type of the image."""
    return np.clip((hu - (center - width / 2)) / width, 0, 1).astype(hu.dtype)


# --- 1.6 ------------------------------------------------------------------------------------------


def inverts(spacing_mm, plane):
    """Divide width by height."""
    x, y, z = spacing_mm
    return {"axial": x / y, "coronal": x / z, "sagittal": y / z}[plane]


def knows_one_plane(spacing_mm, plane):
    """Take every slice for an axial one."""
    return spacing_mm[1] / spacing_mm[0]


def mixes_up_planes(spacing_mm, plane):
    """Swap coronal and sagittal."""
    x, y, z = spacing_mm
    return {"axial": y / x, "coronal": z / y, "sagittal": z / x}[plane]


MISTAKES = {
    "1.1": [
        (forgets_the_corner, "the last column of the affine is missing"),
        (multiplies_from_the_left, "rows and columns of the affine are swapped"),
        (uses_the_spacing, "spacing alone is not enough"),
        (keeps_the_one, "leave out the 1"),
    ],
    "1.2": [
        (cuts_off, "cut the fraction off"),
        (does_not_round, "a voxel has whole numbers"),
        (inverts_the_matrix_only, "was not taken away first"),
        (goes_the_same_way, "the way back needs the inverse"),
    ],
    "1.3": [
        (says_where_from, "where an axis points *to*"),
        (looks_at_the_diagonal, "the diagonal only"),
        (goes_through_rows, "went through the rows"),
        (returns_a_tuple, "join them to one string"),
    ],
    "1.4": [
        (keeps_the_type, "has no negative numbers"),
        (adds_first, "before multiplying"),
        (truncates, "does not round"),
        (subtracts, "is added, not taken away"),
        (stays_float, "takes 8 bytes"),
    ],
    "1.5": [
        (does_not_clip, "nothing was clipped"),
        (takes_the_width_to_each_side, "twice as wide"),
        (stretches_the_image, "the image's own range"),
        (goes_to_255, "white is 1"),
        (makes_integers, "need a float type"),
    ],
    "1.6": [
        (inverts, "divide the distance between rows"),
        (knows_one_plane, "fits the axial plane"),
        (mixes_up_planes, "mixed up"),
    ],
}
