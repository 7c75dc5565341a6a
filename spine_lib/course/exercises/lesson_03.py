"""Exercises of lesson 3: cutting slices, resampling, splitting, windowing, turning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import Wrong, as_array, declare, describe, raise_known
from spine_lib.ct.geometry import PLANES, resample_image, resample_labels, to_slices
from spine_lib.slices.cut import AIR_HU

# --- 3.1 ------------------------------------------------------------------------------------------


def a_volume(seed: int) -> np.ndarray:
    """Make an int16 volume [x, y, z] of three different lengths, every voxel another number."""
    rng = np.random.default_rng([3, 1, seed])
    shape = tuple(int(n) for n in rng.permutation([5, 7, 9]))
    return rng.permutation(math.prod(shape)).reshape(shape).astype(np.int16)


def _judge_cut(function: Callable, array_xyz, plane, index) -> None:
    right = to_slices(array_xyz, plane)[index]
    answer = as_array(function(array_xyz, plane, index))
    if np.array_equal(answer, right):
        return
    where = f"your {plane} slice"
    for other in PLANES:
        others = to_slices(array_xyz, other)
        if other != plane and index < len(others) and _same_pixels(answer, others[index]):
            raise Wrong(f"{where} is a {other} one: {plane} slices cut across another axis")
    if _same_pixels(answer, to_slices(array_xyz, plane)[-1 - index]):
        raise Wrong(f"{where} is counted from the other end: index {index} is the array's own")
    if not _same_pixels(answer, right):
        raise Wrong(f"{where} has shape {answer.shape} and other voxels than it should show")
    rows, columns = _directions(plane)
    mistakes = {
        "has rows and columns exchanged: transpose it": right.T,
        "is as it lies in the array: transpose it, so that x or y run along the columns, then "
        "turn rows and columns round": right[::-1, ::-1].T,
        f"is turned by 180 degrees: rows run {rows}, columns {columns}": right[::-1, ::-1],
        f"is upside down: rows run {rows}": right[::-1],
        f"is mirrored: columns run {columns}, and the array the other way": right[:, ::-1],
    }
    for message, value in mistakes.items():
        if np.array_equal(answer, value):
            raise Wrong(f"{where} {message}")
    raise Wrong(f"{where} is turned: rows run {rows}, columns {columns}")


def _directions(plane: str) -> tuple[str, str]:
    rows = "from anterior to posterior" if plane == "axial" else "from superior to inferior"
    side = "from anterior to posterior" if plane == "sagittal" else "from the right to the left"
    return rows, side


def _same_pixels(a: np.ndarray, b: np.ndarray) -> bool:
    return a.size == b.size and np.array_equal(np.sort(a.ravel()), np.sort(b.ravel()))


# --- 3.2 ------------------------------------------------------------------------------------------


STEP_HU = 900.0


def a_slice_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a slice in HU with two bones that touch, and their ids, 20 and 24."""
    rng = np.random.default_rng([3, 2, seed])
    labels = np.zeros((24, 20), np.uint8)
    row = int(rng.integers(4, 8))
    labels[row : row + 8, 4:9] = 20
    labels[row : row + 8, 9:15] = 24
    labels[row + 8 : row + 12, 8:11] = 24
    image = np.where(labels > 0, STEP_HU, 40.0)
    image = ndimage.gaussian_filter(image, 0.6) + rng.normal(0, 10, labels.shape)
    return image.astype(np.float32), labels


def _judge_resample(function: Callable, image, labels, shape_hw) -> None:
    answer = function(image, labels, shape_hw)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays, image and labels, and not {describe(answer)}")
    new_image, new_labels = (as_array(item) for item in answer)
    for name, item in (("image", new_image), ("label map", new_labels)):
        if item.shape == tuple(shape_hw):
            continue
        swapped = item.shape == tuple(shape_hw)[::-1]
        more = ": OpenCV wants (columns, rows)" if swapped else ""
        raise Wrong(f"your {name} has shape {item.shape} instead of {tuple(shape_hw)}{more}")
    _judge_new_labels(new_labels, labels, shape_hw)
    _judge_new_image(new_image, image, shape_hw)


def _judge_new_labels(answer: np.ndarray, labels: np.ndarray, shape_hw: tuple) -> None:
    invented = np.setdiff1d(answer, labels)
    if (answer != np.floor(answer)).any():
        raise Wrong(
            f"your labels have fractions such as {invented[invented % 1 > 0][0]:.3g}: they were "
            "interpolated between ids; take the nearest one instead"
        )
    if invented.size:
        raise Wrong(
            f"your labels hold id {int(invented[0])}, and the map has only 0, 20 and 24: between "
            "two ids lies no third one, so take the nearest pixel's"
        )
    if answer.dtype != np.uint8:
        raise Wrong(f"your labels are {answer.dtype}: keep them uint8")
    right = resample_labels(labels[None], shape_hw)[0]
    if np.mean(answer != right) > 0.08:
        raise Wrong(
            f"{np.mean(answer != right):.0%} of your labels lie elsewhere than they should: is the "
            "whole map enlarged, and not a part of it?"
        )


def _judge_new_image(answer: np.ndarray, image: np.ndarray, shape_hw: tuple) -> None:
    if answer.dtype != np.float32:
        raise Wrong(f"your image is {answer.dtype}: keep it float32")
    right = resample_image(image[None], shape_hw)[0]
    nearest = resample_labels(image[None], shape_hw)[0]
    far, near = np.abs(answer - right).mean(), np.abs(answer - nearest).mean()
    if np.isin(answer, image).mean() > 0.95:
        raise Wrong(
            "your image is made of blocks: every pixel has its nearest neighbour's HU; interpolate "
            "it linearly"
        )
    if answer.max() > image.max() + 5 or answer.min() < image.min() - 5:
        raise Wrong(
            f"your image runs from {answer.min():.0f} to {answer.max():.0f} HU and the slice from "
            f"{image.min():.0f} to {image.max():.0f}: cubic interpolation overshoots at edges; "
            "take linear"
        )
    if far > 45:  # scipy and OpenCV place pixels differently, which costs up to about 30 HU
        raise Wrong(
            f"your image differs by {far:.0f} HU on average from a linear enlargement"
            + (", and less from blocks" if near < far else "")
        )


# --- 3.3 ------------------------------------------------------------------------------------------


def some_slices(seed: int, patients: int = 8) -> np.ndarray:
    """Name the patients of some slices: uneven numbers, names out of order."""
    rng = np.random.default_rng([3, 3, seed])
    names = rng.permutation([f"patient-{number:02d}" for number in range(10, 10 + patients)])
    return np.repeat(names, rng.integers(3, 30, patients))


def _judge_split(function: Callable, *arguments) -> None:
    patient_of_slice, test_share, seed = arguments
    train, test = _two_sides(function(patient_of_slice, test_share, seed), patient_of_slice)
    both = np.intersect1d(train, test)
    if both.size:
        raise Wrong(f"slice {both[0]} is on both sides: every slice goes to one")
    leaked = np.intersect1d(patient_of_slice[train], patient_of_slice[test])
    if leaked.size:
        raise Wrong(
            f"{leaked[0]} has slices on both sides, so the network is tested on a patient that it "
            "knows: draw patients, not slices"
        )
    left_out = len(patient_of_slice) - len(train) - len(test)
    if left_out:
        raise Wrong(f"{left_out} slices are on neither side (or twice on one)")
    patients = np.unique(patient_of_slice)
    wanted = round(test_share * len(patients))
    tested = len(np.unique(patient_of_slice[test]))
    if tested == len(patients) - wanted != wanted:
        raise Wrong("the sides are exchanged: return those to train on first")
    if tested != wanted:
        raise Wrong(
            f"{tested} of {len(patients)} patients are on the test side: {test_share:.0%} of them, "
            f"rounded, are {wanted}"
        )
    _judge_seeds(function, arguments, test)


def _judge_seeds(function: Callable, arguments: tuple, test: np.ndarray) -> None:
    patient_of_slice, test_share, seed = arguments
    again = np.sort(_two_sides(function(*arguments), patient_of_slice)[1])
    if not np.array_equal(again, np.sort(test)):
        raise Wrong(
            "the same seed gave two different splits: make a generator from it, "
            "np.random.default_rng(seed), and draw from that"
        )
    others = [function(patient_of_slice, test_share, seed + more)[1] for more in range(1, 7)]
    if all(np.array_equal(np.sort(other), np.sort(test)) for other in others):
        raise Wrong(
            "seven seeds gave one and the same split: shuffle the patients before you take the "
            "first of them"
        )


def _two_sides(answer: object, patient_of_slice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays of slice numbers, and not {describe(answer)}")
    train, test = (np.asarray(side) for side in answer)
    for side in (train, test):
        if side.dtype == bool:
            raise Wrong("return slice numbers, not True and False: `np.flatnonzero` turns them")
        if side.dtype.kind in "US":
            raise Wrong("return the numbers of the slices, not the names of the patients")
        if side.dtype.kind not in "iu" or side.ndim != 1:
            raise Wrong(f"each side is a list of whole numbers, and one is {describe(side)}")
        if side.size and not (0 <= side.min() and side.max() < len(patient_of_slice)):
            raise Wrong(f"there is no slice {side.max()}: they are numbered from 0")
    return train, test


# --- 3.4 ------------------------------------------------------------------------------------------


def an_image_hu(seed: int) -> np.ndarray:
    """Make an int16 image with air, soft tissue, bone and metal."""
    rng = np.random.default_rng([3, 4, seed])
    image = rng.normal(50, 200, (12, 14))
    image[0], image[1, :5], image[2, :5] = -2048, 3071, -1000
    image[3, :7] = rng.uniform(300, 1500, 7)
    return image.astype(np.int16)


def _window_inputs() -> list[tuple]:
    windows = ((-250, 1000), (-160, 240), (-1024, 1024))
    return [(an_image_hu(seed), *window) for seed, window in enumerate(windows)]


def _judge_window(function: Callable, image, low, high) -> None:
    right = (np.clip(image.astype(np.float64), low, high) - low) / (high - low)
    answer = as_array(function(image, low, high))
    if answer.shape != image.shape:
        raise Wrong(f"your image has shape {answer.shape}, and it came as {image.shape}")
    if np.allclose(answer, right, atol=1e-4):
        if answer.dtype != np.float32:
            raise Wrong(
                f"the values are right, but they are {answer.dtype}: networks and albumentations "
                "want float32"
            )
        return
    values = image.astype(np.float64)
    straight = (values - low) / (high - low)
    clipped = np.clip(values, low, high)
    mistakes = {
        "values leave 0 to 1: clip to the range first, for metal and air lie beyond it": straight,
        "you took this image's own minimum and maximum, so the same bone has another value in "
        "every slice: use the range that is given": (values - values.min()) / np.ptp(values),
        "you scaled by what is left of this image after clipping: divide by high_hu - low_hu": (
            (clipped - clipped.min()) / max(np.ptp(clipped), 1e-09)
        ),
        "subtract low_hu before you divide, so that it becomes 0": clipped / high,
        "divide by the width of the range, high_hu - low_hu": (clipped - low) / high,
        "this runs from 0 to 255: divide by the width of the range alone": 255 * right,
        "this runs from -1 to 1, and it should run from 0 to 1": 2 * right - 1,
        "everything in between became 0: an integer array holds no fractions": np.floor(right),
        "black and white are exchanged: low_hu becomes 0": 1 - right,
    }
    raise_known(answer, mistakes, atol=1e-3)
    wrapped = (image - np.int16(low)).astype(np.float64)  # wraps round beyond 32767
    if np.allclose(answer, wrapped / (high - low), atol=1e-3):
        raise Wrong("int16 ran over: turn the image into float32 before you subtract")
    position = np.unravel_index(np.abs(answer - right).argmax(), image.shape)
    raise Wrong(
        f"a voxel of {image[position]} HU became {float(answer[position]):.4g} instead of "
        f"{right[position]:.4g}"
    )


# --- 3.5 ------------------------------------------------------------------------------------------


def a_lopsided_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a slice in HU and its ids, 11 and 19, that no turn leaves as they are."""
    rng = np.random.default_rng([3, 5, seed])
    labels = np.zeros((40, 40), np.uint8)
    labels[6:16, 18:32] = 11
    labels[16:28, 24 : 28 + int(rng.integers(0, 4))] = 19
    image = np.where(labels > 0, 600.0, 50.0) + rng.normal(0, 8, labels.shape)
    return ndimage.gaussian_filter(image, 0.8).astype(np.float32), labels


def turned(array: np.ndarray, degrees: float, order: int, fill: float) -> np.ndarray:
    """Turn an array [row, column] around its middle; `order` 0 is nearest and 1 linear."""
    return ndimage.rotate(array, degrees, reshape=False, order=order, cval=fill)


def _judge_rotate(function: Callable, image, labels, degrees) -> None:
    answer = function(image, labels, degrees)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays, image and labels, and not {describe(answer)}")
    new_image, new_labels = (as_array(item) for item in answer)
    for name, item in (("image", new_image), ("label map", new_labels)):
        if item.shape != image.shape:
            raise Wrong(
                f"your {name} has shape {item.shape} instead of {image.shape}: keep the shape "
                "(scipy's `rotate` needs reshape=False)"
            )
    _judge_turned_labels(new_labels, labels)
    signs = {s: np.mean(new_labels != turned(labels, s * degrees, 0, 0)) for s in (1, -1)}
    sign = min(signs, key=signs.get)
    if signs[sign] > 0.06:
        unmoved = np.array_equal(new_labels, labels)
        raise Wrong(
            "your labels stayed where they were, and the bone under them has moved"
            if unmoved
            else f"your labels are not turned by {degrees:g} degrees around the middle"
        )
    _judge_turned_image(new_image, image, sign * degrees)


def _judge_turned_labels(answer: np.ndarray, labels: np.ndarray) -> None:
    invented = np.setdiff1d(answer, labels)
    if invented.size:
        raise Wrong(
            f"your labels hold {invented[0]:.4g}, and the map has only 0, 11 and 19: it was "
            "interpolated; labels take the nearest neighbour's id (order 0)"
        )
    if answer.dtype != np.uint8:
        raise Wrong(f"your labels are {answer.dtype}: keep them uint8")


def _judge_turned_image(answer: np.ndarray, image: np.ndarray, degrees: float) -> None:
    right = turned(image, degrees, 1, AIR_HU)
    inside = turned(np.ones_like(image), degrees, 0, 0) > 0
    inside = ndimage.binary_erosion(inside, iterations=2, border_value=1)
    beyond = turned(np.ones_like(image), degrees, 1, 0) == 0
    corner_hu = float(np.median(answer[ndimage.binary_erosion(beyond, border_value=1)]))
    if np.array_equal(answer, image):
        raise Wrong("your image stayed as it was, and its labels were turned: turn both alike")
    off = np.abs(answer - right)[inside].mean()
    if off > np.abs(answer - turned(image, -degrees, 1, AIR_HU))[inside].mean():
        raise Wrong("image and labels are turned in opposite directions")
    if off > 40:
        raise Wrong(f"your image differs by {off:.0f} HU on average from one turned as its labels")
    if abs(corner_hu - AIR_HU) > 1:
        raise Wrong(
            f"the corners of your image hold {corner_hu:.0f} HU: what comes in from "
            f"outside the scan is air, {AIR_HU} HU (0 HU would be water)"
        )
    if np.isin(answer[inside], image).mean() > 0.9:
        raise Wrong("your image took its nearest neighbours' HU: interpolate it linearly (order 1)")
    if answer.dtype != np.float32:
        raise Wrong(f"your image is {answer.dtype}: keep it float32")


EXERCISES = declare(
    __file__,
    {
        "3.1": (
            lambda: [(a_volume(seed), plane, 1 + seed) for seed, plane in enumerate(PLANES)],
            _judge_cut,
        ),
        "3.2": (
            lambda: [
                (*a_slice_pair(0), (48, 40)),
                (*a_slice_pair(1), (60, 70)),
                (*a_slice_pair(2), (31, 44)),
            ],
            _judge_resample,
        ),
        "3.3": (
            lambda: [
                (some_slices(0), 0.25, 0),
                (some_slices(1, 10), 0.2, 3),
                (some_slices(2, 5), 0.4, 1),
            ],
            _judge_split,
        ),
        "3.4": (_window_inputs, _judge_window),
        "3.5": (
            lambda: [
                (*a_lopsided_pair(seed), degrees)
                for seed, degrees in enumerate((20.0, -35.0, 12.0))
            ],
            _judge_rotate,
        ),
    },
)
