"""Exercises of lesson 1: from voxels to millimetres and back, axes, HU, windows, proportions."""

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes

from spine_lib.course.exercise import Exercise


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


def voxel_to_mm(affine, voxel):
    matrix, corner_mm = affine[:3, :3], affine[:3, 3]
    return matrix @ np.array(voxel) + corner_mm


TO_MM = Exercise(
    "1.1",
    reference=voxel_to_mm,
    wrong={
        "no last column": lambda affine, voxel: affine[:3, :3] @ voxel,
        "transposed": (
            lambda affine, voxel: affine[:3, :3].T @ voxel + affine[:3, 3],
            lambda affine, voxel: (np.array([*voxel, 1]) @ affine)[:3],
        ),
        "spacing alone": (
            lambda affine, voxel: voxel_sizes(affine) * voxel + affine[:3, 3],
            lambda affine, voxel: voxel_sizes(affine) * voxel,
        ),
        "diagonal alone": (
            lambda affine, voxel: np.diag(affine)[:3] * voxel + affine[:3, 3],
            lambda affine, voxel: np.diag(affine)[:3] * voxel,
        ),
        "a fourth number": lambda affine, voxel: affine @ [*voxel, 1],
        "column subtracted": lambda affine, voxel: affine[:3, :3] @ voxel - affine[:3, 3],
        "inverse": lambda affine, voxel: apply_affine(np.linalg.inv(affine), voxel),
        "added alone": lambda affine, voxel: affine[:3, 3] + voxel,
        "index reversed": lambda affine, voxel: voxel_to_mm(affine, voxel[::-1]),
    },
    inputs=lambda rng: [
        (an_affine(rng, forward), tuple(rng.integers(1, 120, 3).tolist()))
        for forward in (True, False, True)
    ],
    rtol=1e-5,
    atol=1e-3,
)


def mm_to_voxel(affine, place_mm):
    inverse = np.linalg.inv(affine)
    exact = inverse[:3, :3] @ np.array(place_mm) + inverse[:3, 3]
    return np.rint(exact).astype(int)


def a_place(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make an affine and a place that is not the centre of a voxel."""
    affine = an_affine(rng, bool(rng.integers(2)))
    voxel = rng.integers(20, 90, 3) + rng.permutation([-0.35, 0.3, 0.4])
    return affine, np.round(apply_affine(affine, voxel), 2)


def _rounded(exact):
    """Return a wrong way to a voxel as students would write it: rounded, cut off and as it is."""
    return tuple(
        lambda affine, place_mm, rounded=rounded: rounded(exact(affine, np.array(place_mm)))
        for rounded in (np.rint, np.floor, lambda values: values, lambda values: values.astype(int))
    )


TO_VOXEL = Exercise(
    "1.2",
    reference=mm_to_voxel,
    wrong={
        "not rounded": lambda affine, place: apply_affine(np.linalg.inv(affine), place),
        "cut off": lambda affine, place: np.floor(apply_affine(np.linalg.inv(affine), place)),
        "column kept": _rounded(lambda affine, place: np.linalg.inv(affine[:3, :3]) @ place),
        "spacing alone": (
            *_rounded(lambda affine, place: (place - affine[:3, 3]) / voxel_sizes(affine)),
            *_rounded(lambda affine, place: place / voxel_sizes(affine)),
        ),
        "diagonal alone": (
            *_rounded(lambda affine, place: (place - affine[:3, 3]) / np.diag(affine)[:3]),
            *_rounded(lambda affine, place: place / np.diag(affine)[:3]),
        ),
        "transposed": (
            *_rounded(
                lambda affine, place: (
                    np.linalg.inv(affine)[:3, :3].T @ place + np.linalg.inv(affine)[:3, 3]
                )
            ),
            *_rounded(lambda affine, place: affine[:3, :3].T @ (place - affine[:3, 3])),
        ),
        "forwards": _rounded(apply_affine),
        "a fourth number": _rounded(lambda affine, place: np.linalg.inv(affine) @ [*place, 1]),
        "column after the inverse": _rounded(
            lambda affine, place: np.linalg.inv(affine[:3, :3]) @ place - affine[:3, 3]
        ),
        "rounded up": lambda affine, place: np.ceil(apply_affine(np.linalg.inv(affine), place)),
    },
    inputs=lambda rng: [a_place(rng) for _ in range(4)],
)


def axis_codes(affine):
    letters = ""
    for axis in range(3):
        column = affine[:3, axis]
        along = np.abs(column).argmax()
        positive, negative = ("RL", "AP", "SI")[along]
        letters += positive if column[along] > 0 else negative
    return letters


def _letters(matrix: np.ndarray, along=lambda column: np.abs(column).argmax()) -> str:
    """Return a letter for each column, after a choice of the entry that counts."""
    entries = [(int(along(column)), column) for column in matrix[:3, :3].T]
    return "".join(("RL", "AP", "SI")[row][int(column[row] < 0)] for row, column in entries)


AXES = Exercise(
    "1.3",
    reference=axis_codes,
    wrong={
        "not joined": (nib.aff2axcodes, lambda affine: list(nib.aff2axcodes(affine))),
        "opposite": lambda affine: axis_codes(-affine),
        "LPS": lambda affine: axis_codes(np.diag([-1, -1, 1, 1]) @ affine),
        "rows": lambda affine: axis_codes(affine.T),
        "diagonal alone": tuple(
            lambda affine, least=least: "".join(
                pair[int(entry < least)] for pair, entry in zip(("RL", "AP", "SI"), np.diag(affine))
            )
            for least in (0, 1e-9)
        ),
        "no absolute value": lambda affine: _letters(affine, np.argmax),
        "no signs": lambda affine: _letters(np.abs(affine)),
        "reversed": lambda affine: axis_codes(affine)[::-1],
    },
    inputs=lambda rng: [
        (np.diag([-0.7, -0.7, 2.5, 1.0]),),
        *((an_affine(rng, forward),) for forward in (True, False, True, False)),
    ],
)


def to_hu(stored, slope, intercept):
    exact = stored.astype(np.float64) * slope + intercept
    return np.rint(exact).astype(np.int16)


def stored_pixels(rng, dtype: str, slope: float, intercept: float) -> tuple:
    """Make what a file might store, from air to metal; no HU is near a half."""
    hu = rng.integers(-1000, 2500, (5, 6))
    hu[0, :3] = -1000, 2600, -999
    stored = np.rint((hu - intercept) / slope)
    exact = stored * slope + intercept
    stored[np.abs(exact % 1 - 0.5) < 0.04] += 1
    return stored.astype(dtype), slope, intercept


HU = Exercise(
    "1.4",
    reference=to_hu,
    wrong={
        "unsigned": (
            lambda stored, slope, intercept: to_hu(stored, slope, intercept).astype(np.uint16),
            lambda stored, slope, intercept: to_hu(stored, slope, intercept).astype(stored.dtype),
        ),
        "int16 first": lambda stored, slope, intercept: to_hu(
            stored.astype(np.int16), slope, intercept
        ),
        "slope as int": lambda stored, slope, intercept: to_hu(stored, int(slope), intercept),
        "not rounded": lambda stored, slope, intercept: stored * np.float64(slope) + intercept,
        "cut off": (
            lambda stored, slope, intercept: np.trunc(stored * np.float64(slope) + intercept),
            lambda stored, slope, intercept: np.floor(stored * np.float64(slope) + intercept),
            lambda stored, slope, intercept: np.trunc(stored * np.float64(slope) + intercept + 0.5),
        ),
        "intercept first": lambda stored, slope, intercept: np.rint(
            (stored + np.float64(intercept)) * slope
        ),
        "intercept subtracted": lambda stored, slope, intercept: to_hu(stored, slope, -intercept),
        "no slope": lambda stored, slope, intercept: to_hu(stored, 1, intercept),
        "divided": (
            lambda s, m, b: np.rint((s + b) / np.float64(m)),
            lambda s, m, b: np.rint(s / np.float64(m) + b),
        ),
    },
    inputs=lambda rng: [
        stored_pixels(rng, "uint16", 1.0, -1024.0),
        stored_pixels(rng, "uint16", 0.3, -1000.0),
        stored_pixels(rng, "uint16", 0.1, -1003.0),
        stored_pixels(rng, "int16", 2.0, -50.0),
    ],
    dtype=True,
)


def apply_window(hu, center, width):
    lower_end = center - width / 2
    return np.clip((hu.astype(np.float32) - lower_end) / width, 0, 1)


def some_hu(rng, center: float, width: float, low: float, high: float) -> tuple:
    """Make uneven HU between two shares of a window, whose ends are 0 and 1."""
    shares = np.concatenate([rng.uniform(low, high, 17), [low, 0.53, high]])
    hu = np.rint(center + (shares - 0.5) * width)
    return hu.astype(np.int16).reshape(4, 5), center, width


def _to_unit(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / np.ptp(values)


WINDOW = Exercise(
    "1.5",
    reference=apply_window,
    wrong={
        "not clipped": lambda hu, center, width: (hu - (center - width / 2)) / width,
        "twice as wide": (
            lambda hu, center, width: apply_window(hu, center, 2 * width),
            lambda hu, center, width: np.clip((hu - (center - width)) / width, 0, 1),
        ),
        "own range": (
            lambda hu, center, width: _to_unit(hu.astype(float)),
            lambda hu, center, width: hu / np.float64(hu.max()),
        ),
        "own range after clipping": lambda hu, center, width: _to_unit(
            np.clip(hu.astype(float), center - width / 2, center + width / 2)
        ),
        "to 255": (
            lambda hu, center, width: 255 * apply_window(hu, center, width),
            lambda hu, center, width: np.trunc(255 * apply_window(hu, center, width)),
        ),
        "from the centre": lambda hu, center, width: apply_window(hu, center + width / 2, width),
        "half the width": lambda hu, center, width: apply_window(hu, center - width / 4, width / 2),
        "clipped alone": lambda hu, center, width: np.clip(
            hu, center - width / 2, center + width / 2
        ),
        "divided first": (
            lambda hu, center, width: np.clip(
                np.clip(hu, center - width / 2, center + width / 2) / width, 0, 1
            ),
            lambda hu, center, width: np.clip(hu / width, 0, 1),
        ),
        "whole numbers": lambda hu, center, width: np.floor(apply_window(hu, center, width)),
        "from -1": (
            lambda hu, c, w: np.clip((hu - c) / (w / 2), -1, 1),
            lambda hu, c, w: np.clip((hu - c + w / 2) / w, -1, 1),
        ),
    },
    inputs=lambda rng: [
        some_hu(rng, 40, 400, -0.6, 1.7),
        some_hu(rng, -600, 1500, 0.2, 1.4),
        some_hu(rng, 400, 1800, 0.1, 0.8),
    ],
    atol=1e-3,
)
