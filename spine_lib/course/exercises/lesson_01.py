"""Exercises of lesson 1: from voxels to millimetres and back, axes, HU, windows, proportions."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np

from spine_lib.course.exercise import Wrong, as_array, declare, raise_known
from spine_lib.ct import geometry as planes
from spine_lib.ct.hounsfield import hu_from_stored
from spine_lib.ct.volume import SourceGrid, Window
from spine_lib.ct.volume import apply_window as library_window

OPPOSITE = str.maketrans("RLAPSI", "LRPAIS")


def an_affine(seed: int) -> np.ndarray:
    """Make an affine with turned, flipped and slightly tilted axes of three different spacings."""
    rng = np.random.default_rng([seed, 1])
    # Axes in a circle (x becomes y, y becomes z) or back: a transposed affine is then another one.
    turned = np.eye(3)[[1, 2, 0] if seed % 2 else [2, 0, 1]]
    turned = turned * np.where(rng.permutation(3) > 0, -1, 1)
    tilt = np.radians(rng.uniform(4, 12))
    cosine, sine = np.cos(tilt), np.sin(tilt)
    rotation = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    spacing = np.round(rng.permutation([0.7, 1.1, 2.5]) * rng.uniform(0.9, 1.1), 2)
    corner = np.round(rng.uniform(80, 250, 3) * rng.choice([-1, 1], 3), 1)
    return nib.affines.from_matvec(rotation @ turned * spacing, corner)


# --- 1.1 ------------------------------------------------------------------------------------------


def _judge_to_mm(function: Callable, affine, voxel) -> None:
    right = nib.affines.apply_affine(affine, voxel)
    answer = _three(function(affine, voxel), "a place in mm")
    if np.allclose(answer, right, atol=1e-3):
        return
    matrix, corner = affine[:3, :3], affine[:3, 3]
    spacing = nib.affines.voxel_sizes(affine)
    mistakes = {
        "the last column of the affine is missing: it says where voxel (0, 0, 0) "
        "lies, and is added": matrix @ voxel,
        "rows and columns of the affine are swapped: each row gives one coordinate, so write "
        "`matrix @ voxel` and not `voxel @ matrix`": matrix.T @ voxel + corner,
        "spacing alone is not enough: it knows neither which way an "
        "axis points nor that it may be tilted": spacing * voxel + corner,
        "you used only the diagonal of the affine: here "
        "the axes are turned, so the other entries matter": np.diag(affine)[:3] * voxel + corner,
    }
    raise_known(answer, mistakes, atol=1e-3)
    raise Wrong(f"{_mm(right)} mm is the place of this voxel, and your answer is {_mm(answer)}")


# --- 1.2 ------------------------------------------------------------------------------------------


def a_place(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make an affine and a place that is not the centre of a voxel."""
    rng = np.random.default_rng([seed, 5])
    affine = an_affine(seed)
    voxel = rng.integers(20, 90, 3) + rng.choice([-0.35, 0.3], 3)
    voxel[int(rng.integers(3))] = int(rng.integers(20, 90)) - 0.4  # cut off, it would be one less
    return affine, np.round(nib.affines.apply_affine(affine, voxel), 2)


def _judge_to_voxel(function: Callable, affine, place_mm) -> None:
    exact = nib.affines.apply_affine(np.linalg.inv(affine), place_mm)
    right = np.rint(exact).astype(int)
    answer = _three(function(affine, place_mm), "a voxel")
    if np.array_equal(answer, right):
        return
    inverse = np.linalg.inv(affine)
    backwards = np.linalg.inv(affine[:3, :3]) @ place_mm
    mistakes = (
        (answer, exact, "these are the exact indices: a voxel has whole numbers, so round them to "
         "the nearest"),
        (answer, np.trunc(exact), "you cut the fraction off, which takes 19.9 for voxel 19: round "
         "with `np.rint`"),
        (np.rint(answer), np.rint(backwards), "the last column of the affine was not taken away "
         "first: the first voxel does not lie at 0 mm"),
        (np.rint(answer), np.rint(inverse[:3, :3].T @ place_mm + inverse[:3, 3]),
         "rows and columns of the inverse are swapped: write `inverse @ place`"),
        (np.rint(answer), np.rint(nib.affines.apply_affine(affine, place_mm)),
         "this goes the same way as before, from voxels to mm: the way back needs the inverse"),
    )  # fmt: skip
    for mine, value, message in mistakes:
        if np.allclose(mine, value, atol=1e-3):
            raise Wrong(message)
    raise Wrong(f"the nearest voxel is {tuple(right.tolist())}, and your answer is {_mm(answer)}")


# --- 1.3 ------------------------------------------------------------------------------------------


def _axes_inputs() -> list[tuple]:
    flipped = np.diag([-0.7, -0.7, 2.5, 1.0])
    return [(flipped,), *((an_affine(seed),) for seed in (7, 8, 10))]


def _judge_axes(function: Callable, affine) -> None:
    right = SourceGrid((8, 8, 8), affine).orientation
    answer = function(affine)
    if answer == right:
        return
    if isinstance(answer, list | tuple) and "".join(map(str, answer)) == right:
        raise Wrong('the letters are right: join them to one string with `"".join(letters)`')
    if not isinstance(answer, str) or len(answer) != 3:
        raise Wrong(f'the answer is a string of three letters such as "RAS", and yours is {answer}')
    if answer.upper() == right:
        raise Wrong(f"the letters are right: write them as capitals, {right}")
    if answer == right.translate(OPPOSITE):
        raise Wrong(
            f"every letter is the opposite of {right}: a letter says where an axis points *to*, so "
            "a positive number in the first row is R"
        )
    if answer == SourceGrid((8, 8, 8), affine.T).orientation:
        raise Wrong(
            "you went through the rows: a *column* of the affine is what one step along an array "
            "axis does, so each column gives a letter"
        )
    signs = "".join(
        pair[int(entry < 0)] for pair, entry in zip(("RL", "AP", "SI"), np.diag(affine))
    )
    if answer == signs:
        raise Wrong(
            "you looked at the diagonal only: here the axes are turned, so find the largest entry "
            "of each column first (`np.abs(column).argmax()`)"
        )
    wrong = next(axis for axis in range(3) if answer[axis] != right[axis])
    raise Wrong(
        f"axis {wrong} runs to {right[wrong]} and you say {answer[wrong]}: its column is "
        f"{np.round(affine[:3, wrong], 2).tolist()}"
    )


# --- 1.4 ------------------------------------------------------------------------------------------


def stored_pixels(seed: int, dtype: str, slope: float, intercept: float) -> tuple:
    """Make what a file might store, from air to metal."""
    rng = np.random.default_rng([seed, 4])
    hu = rng.integers(-1000, 2500, (5, 6))
    hu[0, 0] = -1000
    return np.rint((hu - intercept) / slope).astype(dtype), slope, intercept


def _judge_hu(function: Callable, stored, slope, intercept) -> None:
    right = np.empty(stored.shape, np.int16)
    hu_from_stored(stored, slope, intercept, right, "this input")
    answer = as_array(function(stored, slope, intercept), stored.shape)
    if answer.dtype.kind == "u":
        raise Wrong(
            f"your HU are {answer.dtype}, which has no negative numbers: air, at -1000 HU, has "
            f"become {int(answer.max())} at the most; leave the file's type before you add"
        )
    values = answer.astype(float)
    if np.array_equal(values, right):
        if answer.dtype != np.int16:
            raise Wrong(
                f"the numbers are right, but {answer.dtype} takes {answer.itemsize} bytes a "
                "voxel where int16 takes 2: finish with `.astype(np.int16)`"
            )
        return
    exact = stored * np.float64(slope) + intercept
    mistakes = {
        "these still have fractions: round to whole HU with `np.rint`": exact,
        "`astype` cuts fractions off and does not round: use `np.rint` first": np.trunc(exact),
        "you added the intercept before multiplying: first the slope, then the intercept": (
            (stored + np.float64(intercept)) * slope
        ),
        "the intercept is added, not taken away: it is negative already": (
            stored * np.float64(slope) - intercept
        ),
        "the intercept is missing": stored * np.float64(slope),
        "the slope is missing: it is often 1, but not here": stored + np.float64(intercept),
    }
    for message, value in mistakes.items():
        if np.allclose(values, value, atol=1e-6) or np.allclose(values, np.rint(value), atol=1e-6):
            raise Wrong(message)
    position = tuple(np.argwhere(values != right)[0].tolist())
    raise Wrong(
        f"a stored {stored[position]} with slope {slope:g} and intercept {intercept:g} is "
        f"{right[position]} HU, and you have {answer[position]}"
    )


# --- 1.5 ------------------------------------------------------------------------------------------


def some_hu(seed: int, center: float, width: float) -> tuple:
    """Make HU that lie below, inside and above a window, unevenly."""
    rng = np.random.default_rng([seed, 6])
    shares = np.concatenate([rng.uniform(-0.9, 1.4, 17), [-0.6, 0.5, 1.7]])
    return np.rint(center + (shares - 0.5) * width).astype(np.int16).reshape(4, 5), center, width


def _judge_window(function: Callable, hu, center, width) -> None:
    right = library_window(hu, Window(center, width))
    answer = as_array(function(hu, center, width), hu.shape)
    if answer.dtype.kind != "f":
        raise Wrong(f"grey values between 0 and 1 need a float type, and yours are {answer.dtype}")
    if np.allclose(answer, right, atol=1e-3):
        return
    span = hu.astype(float) - (center - width / 2)
    mistakes = {
        "nothing was clipped: what lies outside the window is exactly 0 or 1 (`np.clip`)": (
            span / width
        ),
        "your window is twice as wide: it reaches half the width to each side of its "
        "centre": np.clip((hu - float(center - width)) / (2 * width), 0, 1),
        "you spread the image's own range over 0 to 1: the same tissue would change its grey "
        "from scan to scan, so use the window": (hu - float(hu.min())) / np.ptp(hu.astype(float)),
        "these go to 255: here white is 1": 255 * right,
        "you start at the centre: the lower end is half a width below it": np.clip(
            (hu - float(center)) / width, 0, 1
        ),
        "black and white are swapped: more HU is brighter": 1 - right,
    }
    raise_known(answer, mistakes, atol=1e-3)
    position = tuple(np.argwhere(~np.isclose(answer, right, atol=1e-3))[0].tolist())
    raise Wrong(
        f"with centre {center:g} and width {width:g}, {hu[position]} HU is "
        f"{right[position]:.3f}, and you have {answer[position]:.3f}"
    )


# --- 1.6 ------------------------------------------------------------------------------------------


def _judge_aspect(function: Callable, spacing_mm, plane) -> None:
    _, rows, columns = planes.plane_axes(plane)
    right = spacing_mm[rows] / spacing_mm[columns]
    answer = function(spacing_mm, plane)
    if np.ndim(answer) != 0 or isinstance(answer, str):
        raise Wrong(f"the answer is one number, and yours is {answer!r}")
    if np.isclose(answer, right, rtol=1e-4):
        return
    x, y, z = spacing_mm
    if np.isclose(answer, 1 / right, rtol=1e-4):
        raise Wrong(
            "this is how wide a pixel is for its height: divide the distance between rows by the "
            "distance between columns"
        )
    if plane != "axial" and np.isclose(answer, y / x, rtol=1e-4):
        raise Wrong(f"this fits the axial plane: the rows of a {plane} slice lie along z")
    other = z / y if plane == "coronal" else z / x
    if plane != "axial" and np.isclose(answer, other, rtol=1e-4):
        raise Wrong(
            "coronal and sagittal are mixed up: a coronal slice is seen from the front, so its "
            "columns lie along x; those of a sagittal one lie along y"
        )
    names = "xyz"
    raise Wrong(
        f"rows of a {plane} slice lie along {names[rows]} ({spacing_mm[rows]} mm) and columns "
        f"along {names[columns]} ({spacing_mm[columns]} mm), so a pixel is {right:.3f} times as "
        f"high as wide, and your answer is {float(answer):.3f}"
    )


# --- what an answer must be -----------------------------------------------------------------------


def _three(answer: object, what: str) -> np.ndarray:
    values = np.asarray(answer)
    if values.dtype.kind not in "iuf":
        raise Wrong(f"{what} is three numbers, and your answer is a {type(answer).__name__}")
    if values.shape == (4,):
        raise Wrong(f"{what} is three numbers: leave out the 1 that you put behind the indices")
    if values.shape != (3,):
        raise Wrong(f"{what} is three numbers, and your answer has the shape {values.shape}")
    return values.astype(float)


def _mm(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.5g}" for value in np.asarray(values, float)) + ")"


EXERCISES = declare(
    __file__,
    {
        "1.1": (
            lambda: [
                (an_affine(1), (10, 20, 30)),
                (an_affine(2), (100, 7, 55)),
                (an_affine(3), (0, 0, 0)),
            ],
            _judge_to_mm,
        ),
        "1.2": (lambda: [a_place(seed) for seed in (4, 5, 6)], _judge_to_voxel),
        "1.3": (_axes_inputs, _judge_axes),
        "1.4": (
            lambda: [
                stored_pixels(1, "uint16", 1.0, -1024.0),
                stored_pixels(2, "uint16", 0.3, -1000.0),
                stored_pixels(3, "int16", 2.0, 50.0),
            ],
            _judge_hu,
        ),
        "1.5": (
            lambda: [some_hu(1, 40, 400), some_hu(2, -600, 1500), some_hu(3, 400, 1800)],
            _judge_window,
        ),
        "1.6": (
            lambda: (
                [((0.7, 0.9, 2.5), plane) for plane in planes.PLANES]
                + [((1.5, 1.2, 0.8), "sagittal")]
            ),
            _judge_aspect,
        ),
    },
)
