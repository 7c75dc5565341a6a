"""Exercises of lesson 1: from voxels to millimetres and back, axes, HU, windows, proportions."""

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit, edits


def an_affine(rng: np.random.Generator, forward: bool = True) -> np.ndarray:
    """Make an affine with turned, flipped and slightly tilted axes of three different spacings."""
    # Axes in a circle (x becomes y, y becomes z) or back: a transposed affine is then another one.
    turned = np.eye(3)[[1, 2, 0] if forward else [2, 0, 1]]
    turned = turned * np.where(rng.permutation(3) > 0, -1, 1)
    tilt = np.radians(rng.uniform(4, 12))
    cosine, sine = np.cos(tilt), np.sin(tilt)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    spacing = np.round(rng.permutation([0.7, 1.1, 2.5]) * rng.uniform(0.9, 1.1), 2)
    corner = np.round(rng.uniform(80, 250, 3) * rng.choice([-1, 1], 3), 1)
    return nib.affines.from_matvec(rotation @ turned * spacing, corner)


@exercise(
    "1.1",
    wrong={
        "no last column": edit(" + corner_mm", ""),
        "transposed": (
            edit("matrix @", "matrix.T @"),
            lambda affine, voxel: (np.array([*voxel, 1]) @ affine)[:3],
        ),
        "spacing alone": (
            edit("matrix @", "nib.affines.voxel_sizes(affine) *"),
            edit("matrix @", "nib.affines.voxel_sizes(affine) *", " + corner_mm", ""),
        ),
        "diagonal alone": (
            edit("matrix @", "np.diag(matrix) *"),
            edit("matrix @", "np.diag(matrix) *", " + corner_mm", ""),
        ),
        "a fourth number": lambda affine, voxel: affine @ [*voxel, 1],
        "column subtracted": edit(" + corner_mm", " - corner_mm"),
        "inverse": lambda affine, voxel: apply_affine(np.linalg.inv(affine), voxel),
        "added alone": edit("matrix @ ", ""),
        "added first": edit("np.array(voxel) + corner_mm", "(np.array(voxel) + corner_mm)"),
    },
    inputs=lambda rng: [
        (an_affine(rng, forward), tuple(rng.integers(1, 120, 3).tolist()))
        for forward in (True, False, True)
    ],
    rtol=1e-5,
    atol=1e-3,
)
def voxel_to_mm(affine, voxel):
    matrix, corner_mm = affine[:3, :3], affine[:3, 3]
    return matrix @ np.array(voxel) + corner_mm


def a_place(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make an affine and a place that is not the centre of a voxel."""
    affine = an_affine(rng, bool(rng.integers(2)))
    voxel = rng.integers(20, 90, 3) + rng.permutation([-0.35, 0.3, 0.4])
    return affine, np.round(apply_affine(affine, voxel), 2)


def _rounded(exact: str) -> tuple:
    """Return a wrong way to a voxel as students would write it: rounded, cut off and as it is."""
    was, end = "inverse[:3, :3] @ np.array(place_mm) + inverse[:3, 3]", "np.rint(exact).astype(int)"
    ends = (end, "np.floor(exact)", "exact", "exact.astype(int)")
    return tuple(edit(was, exact, end, other) for other in ends)


@exercise(
    "1.2",
    wrong={
        "not rounded": edit("np.rint(exact).astype(int)", "exact"),
        "cut off": edit("np.rint", "np.floor"),
        "column kept": _rounded("inverse[:3, :3] @ np.array(place_mm)"),
        "spacing alone": (
            *_rounded("(place_mm - affine[:3, 3]) / nib.affines.voxel_sizes(affine)"),
            *_rounded("place_mm / nib.affines.voxel_sizes(affine)"),
        ),
        "diagonal alone": (
            *_rounded("(place_mm - affine[:3, 3]) / np.diag(affine)[:3]"),
            *_rounded("place_mm / np.diag(affine)[:3]"),
        ),
        "transposed": (
            *_rounded("inverse[:3, :3].T @ place_mm + inverse[:3, 3]"),
            *_rounded("affine[:3, :3].T @ (place_mm - affine[:3, 3])"),
        ),
        "forwards": _rounded("apply_affine(affine, place_mm)"),
        "a fourth number": _rounded("inverse @ [*place_mm, 1]"),
        "column after the inverse": _rounded("inverse[:3, :3] @ place_mm - affine[:3, 3]"),
        "rounded up": edit("np.rint", "np.ceil"),
    },
    inputs=lambda rng: [a_place(rng) for _ in range(4)],
)
def mm_to_voxel(affine, place_mm):
    inverse = np.linalg.inv(affine)
    exact = inverse[:3, :3] @ np.array(place_mm) + inverse[:3, 3]
    return np.rint(exact).astype(int)


@exercise(
    "1.3",
    wrong={
        "not joined": (nib.aff2axcodes, lambda affine: list(nib.aff2axcodes(affine))),
        "opposite": edit("> 0", "< 0"),
        "LPS": edit('"RL", "AP"', '"LR", "PA"'),
        "rows": edit("affine[:3, axis]", "affine[axis, :3]"),
        "diagonal alone": edit("np.abs(column).argmax()", "axis"),
        "no absolute value": edit("np.abs(column).argmax", "column.argmax"),
        "no signs": edit("column[along] > 0", "True"),
        "reversed": edit("return letters", "return letters[::-1]"),
        "four letters": edit("range(3)", "range(4)"),
    },
    inputs=lambda rng: [
        (np.diag([-0.7, -0.7, 2.5, 1.0]),),
        *((an_affine(rng, forward),) for forward in (True, False, True, False)),
    ],
)
def axis_codes(affine):
    letters = ""
    for axis in range(3):
        column = affine[:3, axis]
        along = np.abs(column).argmax()
        positive, negative = ("RL", "AP", "SI")[along]
        letters += positive if column[along] > 0 else negative
    return letters


def stored_pixels(rng, dtype: str, slope: float, intercept: float) -> tuple:
    """Make what a file might store, from air to metal; no HU is near a half."""
    hu = rng.integers(-1000, 2500, (5, 6))
    hu[0, :3] = -1000, 3500, -999
    stored = np.rint((hu - intercept) / slope)
    exact = stored * slope + intercept
    stored[np.abs(exact % 1 - 0.5) < 0.04] += 1
    return stored.astype(dtype), slope, intercept


@exercise(
    "1.4",
    wrong={
        "unsigned": (edit("int16", "uint16"), edit("np.int16", "stored.dtype")),
        "int16 first": edit("= stored.", "= stored.astype(np.int16)."),
        "slope as int": edit("* slope", "* int(slope)"),
        "not rounded": edit("np.rint(exact).astype(np.int16)", "exact"),
        "cut off": edits("np.rint(exact)", "exact", "(exact // 1)", "(exact + 0.5)"),
        "intercept first": edit("= st", "= (st", "* slope + intercept", "+ intercept) * slope"),
        "intercept subtracted": edit("+ intercept", "- intercept"),
        "no slope": edit("* slope ", ""),
        "divided": edits("* slope +", "/ slope +", "/ slope + 1 / slope *"),
        "rounded first": (
            edit("= st", "= np.rint(st", "* slope", "* slope)"),
            edit("= st", "= np.rint(st", "* slope", "* slope)", "np.rint(exact)", "exact"),
        ),
    },
    inputs=lambda rng: [
        stored_pixels(rng, "uint16", 1.0, -1024.0),
        stored_pixels(rng, "uint16", 0.3, -1000.45),
        stored_pixels(rng, "uint16", 0.1, -1003.0),
        stored_pixels(rng, "int16", 2.0, -50.0),
    ],
    dtype=True,
)
def to_hu(stored, slope, intercept):
    exact = stored.astype(np.float64) * slope + intercept
    return np.rint(exact).astype(np.int16)


def some_hu(rng, center: float, width: float, low: float, high: float) -> tuple:
    """Make uneven HU between two shares of a window, whose ends are 0 and 1."""
    shares = np.concatenate([rng.uniform(low, high, 17), [low, 0.53, high]])
    hu = np.rint(center + (shares - 0.5) * width)
    return hu.astype(np.int16).reshape(4, 5), center, width


@exercise(
    "1.5",
    wrong={
        "not clipped": edit("np.clip(", "", ", 0, 1)", ""),
        "twice as wide": (edit("/ 2", "", "/ width", "/ width / 2"), edit("/ 2", "")),
        "own range": (
            edit("lower_end) / width", "hu.min()) / np.ptp(hu)"),
            edit("np.clip(", "", " - lower_end) / width, 0, 1)", ") / hu.max()"),
        ),
        "own range after clipping": edit(
            "return ", "x = ", "1)", "1); return (x - x.min()) / np.ptp(x)"
        ),
        "to 255": edit("return ", "return 255 * "),
        "from the centre": edit(" - width / 2", ""),
        "half the width": edit("/ width", "/ width * 2"),
        "clipped alone": edit(
            "(hu.astype(np.float32) - lower_end) / width, 0, 1", "hu, lower_end, lower_end + width"
        ),
        "divided first": (
            edit(" - lower_end", ""),
            edit("(hu.astype(np.float32) - lower_end)", "hu.clip(lower_end, lower_end + width)"),
        ),
        "whole numbers": edit("1)", "1) // 1"),
        "from -1": (
            edit("0, 1", "-1, 1"),
            edit("lower_end) / width, 0", "center) / width * 2, -1"),
        ),
    },
    inputs=lambda rng: [
        some_hu(rng, 40, 400, -0.6, 1.7),
        some_hu(rng, -600, 1500, 0.2, 1.4),
        some_hu(rng, 400, 1800, 0.1, 0.8),
    ],
    atol=1e-3,
)
def apply_window(hu, center, width):
    lower_end = center - width / 2
    return np.clip((hu.astype(np.float32) - lower_end) / width, 0, 1)
