"""Exercises of lesson 9: pieces, holes, names, views, a ranking of voxels, a grid of a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import Wrong, as_array, as_number, declare, describe, raise_known
from spine_lib.ct.volume import Volume
from spine_lib.volumes import masks as volumes
from spine_lib.volumes import measure as measures
from spine_lib.volumes import uncertainty


def a_cut_spine(seed: int) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Make a mask of a large piece, a smaller one that is right, and crumbs; and its spacing."""
    rng = np.random.default_rng([9, 1, seed])
    mask = np.zeros((30, 28, 24), bool)
    wide, deep = rng.integers(8, 11, 2)
    mask[3 : 3 + wide, 3 : 3 + deep, 8:20] = True
    mask[3 + wide : 6 + wide, 3 + deep : 6 + deep, 20:23] = True  # touches by a corner only
    mask[20:27, 4:10, 2 : 5 + seed % 3] = True
    for _ in range(4):
        x, y = rng.integers((3, 18), (24, 24))
        mask[x : x + 2, y : y + 2, 3 : 3 + rng.integers(1, 3)] = True
    return mask, tuple(float(size) for size in rng.choice([0.9, 1.1, 1.5, 2.0, 2.5], 3, False))


def a_hollow_vertebra(seed: int) -> np.ndarray:
    """Make a mask of a body with cavities and an arch around an open canal."""
    rng = np.random.default_rng([9, 2, seed])
    mask = np.zeros((30, 34, 16), bool)
    mask[6:24, 18:30, 3:13] = True
    mask[8:22, 6:18, 5:11] = True
    mask[12:18, 10:16, :] = False  # the canal
    for _ in range(3):
        x, y, z = rng.integers((8, 20, 5), (19, 25, 9))
        mask[x : x + rng.integers(2, 4), y : y + 3, z : z + 2] = False
    x, y = rng.integers((8, 24), (18, 28))
    mask[x : x + 3, 27:30, 6:9] = False  # a notch in the front, open to the outside
    return mask


def two_vertebrae(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Make a shifted prediction with a false positive far off, true ids, and spacing."""
    rng = np.random.default_rng([9, 3, seed])
    labels = np.zeros((26, 24, 20), np.uint8)
    low = int(rng.integers(2, 4))
    labels[6:16, 6:15, low : low + 5] = 22
    labels[5:17, 5:14, low + 8 : low + 13] = 21
    prediction = np.roll(labels > 0, rng.integers(1, 3, 3), axis=(0, 1, 2))
    prediction[6:16, 6:15, low + 4 : low + 9] = True  # the disc as well
    prediction[20:24, 18:22, 2 : 5 + seed % 3] = True
    spacing = (float(rng.choice([0.7, 1.0])), float(rng.choice([0.7, 1.0])), 3.0)
    return prediction, labels, spacing


class Lopsided:
    """A stand-in for a network: bright is spine, and more so on one side of the image.

    A class and not a function inside another, so that inputs compare as the same.
    """

    def __init__(self, tilt: float) -> None:
        self.tilt = tilt

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return probabilities of an image [row, column]."""
        image = np.asarray(image, np.float32)
        side = np.linspace(-self.tilt, self.tilt, image.shape[1], dtype=np.float32)
        return 1 / (1 + np.exp(-(4 * image + side)))


def a_slice(seed: int) -> np.ndarray:
    """Make a float32 image [row, column] with a bright spot off the middle."""
    rng = np.random.default_rng([9, 4, seed])
    image = rng.normal(-0.5, 0.1, (18, 24))
    row, column = rng.integers((2, 2), (9, 9))
    image[row : row + 6, column : column + 7] += 1.2
    return image.astype(np.float32)


def an_uncertainty(seed: int, count: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Make uncertainties with many ties, higher where something is wrong, and the errors."""
    rng = np.random.default_rng([9, 5, seed])
    wrong = rng.random((count // 10, 10)) < 0.15
    wrong[0, :2] = True, False
    value = rng.normal(0, 1, wrong.shape) + (0.9 - 0.5 * (seed % 3)) * wrong
    return np.clip(np.round(value, 0 if seed % 2 else 1), -1, 2).astype(np.float32), wrong


def two_grids(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Make two affines that differ in origin, spacing and by a small turn, and a shape."""
    rng = np.random.default_rng([9, 6, seed])
    spacing = rng.uniform(0.6, 3.0, 3)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    turn = np.radians(rng.uniform(-6, 6))
    about_z = np.eye(4)
    about_z[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    other = about_z @ affine @ np.diag([*rng.uniform(0.95, 1.05, 3), 1.0])
    other[:3, 3] = affine[:3, 3] + rng.uniform(-4, 4, 3)
    return affine, other, tuple(int(n) for n in rng.integers(9, 60, 3))


TOUCHING = np.ones((3, 3, 3), int)

# --- 9.1 ------------------------------------------------------------------------------------------


def _pieces_inputs(seeds: tuple[int, ...] = (0, 1, 2)) -> list[tuple]:
    inputs = []
    for seed in seeds:
        mask, spacing_mm = a_cut_spine(seed)
        sizes = np.sort(_piece_sizes(mask, TOUCHING))[::-1]
        # Between the second and the third piece, so that two have to stay.
        between = (sizes[1] + 2 * sizes[2]) / 3
        inputs.append((mask, spacing_mm, round(float(between * np.prod(spacing_mm) / 1000), 3)))
    return inputs


def _judge_pieces(function: Callable, mask, spacing_mm, smallest_ml) -> None:
    right = volumes.keep_pieces(mask, spacing_mm, smallest_ml)
    answer = _mask(function(mask, spacing_mm, smallest_ml), mask.shape)
    if np.array_equal(answer, right):
        return
    size = float(np.prod(spacing_mm))
    if not answer.any():
        raise Wrong(
            f"nothing is left: a voxel has {size:.3g} cubic millimetres, which are "
            f"{size / 1000:.2g} ml, so no piece of this mask would be large enough if the units "
            "were mixed up"
        )
    if np.array_equal(answer, mask):
        raise Wrong(
            f"everything is kept: smaller than {smallest_ml:g} ml means fewer than "
            f"{smallest_ml * 1000 / size:.0f} voxels of {size:.3g} cubic millimetres here"
        )
    if (answer & ~mask).any():
        raise Wrong(
            "your answer marks voxels that the mask does not: what `ndimage.label` numbers 0 is "
            "the background, which is no piece"
        )
    if np.array_equal(answer, _largest(mask)):
        raise Wrong(
            "you keep the largest piece alone: a spine that the image cuts has several, and all "
            f"that reach {smallest_ml:g} ml stay"
        )
    if np.array_equal(answer, mask & ~right):
        raise Wrong("you keep the small pieces and throw the large ones away")
    if np.array_equal(answer, _kept(mask, None, smallest_ml * 1000 / size)):
        raise Wrong(
            "your pieces fall apart where voxels touch by an edge or a corner only: give "
            "`ndimage.label` a structure of ones, 3 x 3 x 3"
        )
    raise Wrong(
        f"{np.count_nonzero(right)} voxels belong to pieces of {smallest_ml:g} ml or more, and "
        f"you keep {np.count_nonzero(answer)}"
    )


def _piece_sizes(mask: np.ndarray, structure: np.ndarray | None) -> np.ndarray:
    return np.bincount(ndimage.label(mask, structure)[0].ravel())[1:]


def _kept(mask: np.ndarray, structure: np.ndarray | None, fewest: float) -> np.ndarray:
    pieces, _ = ndimage.label(mask, structure)
    large = np.bincount(pieces.ravel()) >= fewest
    large[0] = False
    return large[pieces]


def _largest(mask: np.ndarray) -> np.ndarray:
    pieces, _ = ndimage.label(mask, TOUCHING)
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


# --- 9.2 ------------------------------------------------------------------------------------------


def _judge_holes(function: Callable, mask) -> None:
    right = volumes.fill_holes(mask, (1.0, 1.0, 1.0), math.inf)
    answer = _mask(function(mask), mask.shape)
    if np.array_equal(answer, right):
        return
    holes = right & ~mask
    if np.array_equal(answer, holes):
        raise Wrong("these are the holes alone: return the mask with them filled")
    if (mask & ~answer).any():
        raise Wrong(
            f"{np.count_nonzero(mask & ~answer)} voxels of the mask are gone: filling only adds"
        )
    in_slices = np.stack([ndimage.binary_fill_holes(item) for item in np.moveaxis(mask, 2, 0)], 2)
    if np.array_equal(answer, in_slices):
        raise Wrong(
            "the spinal canal is filled: in an axial slice the arch encloses it, in three "
            "dimensions it is open at both ends, so fill the whole volume at once"
        )
    if np.array_equal(answer, mask):
        raise Wrong(
            f"nothing was filled: this mask has cavities of {np.count_nonzero(holes)} voxels in all"
        )
    if (answer & ~right).any():
        raise Wrong(
            f"{np.count_nonzero(answer & ~right)} voxels outside any cavity are filled: closing or "
            "smoothing also changes the canal and the outer surface"
        )
    raise Wrong(
        f"{np.count_nonzero(right & ~answer)} voxels of cavities are still empty: a cavity may be "
        "of any size"
    )


# --- 9.3 ------------------------------------------------------------------------------------------


def _names_inputs(seeds: tuple[int, ...] = (0, 1, 2)) -> list[tuple]:
    return [(*two_vertebrae(seed), 5.0 + seed % 2) for seed in seeds]


def _judge_names(function: Callable, prediction, labels, spacing_mm, reach_mm) -> None:
    answer = function(prediction, labels, spacing_mm, reach_mm)
    answer = as_array(answer, prediction.shape)
    rests = answer[~prediction]
    if (rests != 0).any():
        raise Wrong(
            f"{np.count_nonzero(rests)} voxels that are not predicted carry an id: the prediction "
            "is what gets names, and the labels only lend them"
        )
    affine = np.diag([*spacing_mm, 1.0])
    ids = measures.borrow_names(Volume(prediction, affine), Volume(labels, affine), reach_mm).array
    away, _ = _nearest(labels, spacing_mm)
    far = prediction & (ids == 0)
    named = prediction & ~far
    tied = named & (answer != ids) & _as_near(answer, labels, away, spacing_mm)
    if ((answer == ids) | tied)[prediction].all():
        if answer.dtype != np.uint8:
            raise Wrong(f"the ids are right, but they are {answer.dtype}: keep them uint8")
        return
    in_voxels, ids_voxels = _nearest(labels, (1.0, 1.0, 1.0))
    if np.array_equal(answer, np.where(prediction & (in_voxels <= reach_mm), ids_voxels, 0)):
        raise Wrong(
            "your distances count in voxels, and a voxel here is "
            f"{' x '.join(f'{s:g}' for s in spacing_mm)} mm: give the transform its `sampling`"
        )
    if np.array_equal(answer, np.where(prediction, labels, 0)):
        raise Wrong(
            "you name only what the prediction shares with the labels: a voxel beside a vertebra "
            "gets the name of the nearest one"
        )
    if answer[far].any():
        raise Wrong(
            f"{np.count_nonzero(answer[far])} voxels lie more than {reach_mm:g} mm from every "
            "vertebra and still have a name: they get 0"
        )
    wrong = named & (answer != ids) & ~tied
    voxel = tuple(int(n) for n in np.argwhere(wrong)[0])
    raise Wrong(
        f"voxel {voxel} lies {away[voxel]:.1f} mm from vertebra {ids[voxel]}, the nearest one, and "
        f"has id {int(answer[voxel])} in your map"
    )


def _as_near(
    answer: np.ndarray, labels: np.ndarray, away: np.ndarray, spacing_mm: tuple
) -> np.ndarray:
    """Mark voxels whose named vertebra is as near as the nearest one: either name is right."""
    near = np.zeros(labels.shape, bool)
    for label in np.unique(labels)[1:]:
        item = ndimage.distance_transform_edt(labels != label, sampling=spacing_mm)
        near |= (answer == label) & np.isclose(item, away)
    return near


def _nearest(labels: np.ndarray, spacing_mm: tuple) -> tuple[np.ndarray, np.ndarray]:
    away, position = ndimage.distance_transform_edt(
        labels == 0, sampling=spacing_mm, return_indices=True
    )
    return away, labels[tuple(position)]


# --- 9.4 ------------------------------------------------------------------------------------------


def _judge_views(function: Callable, predict, image) -> None:
    answer = function(predict, image)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two arrays, the mean and the difference, and not {describe(answer)}")
    mean, apart = (as_array(item, image.shape) for item in answer)
    first, second = predict(image), predict(image[:, ::-1])[:, ::-1]
    right_mean, right_apart = (first + second) / 2, np.abs(first - second)
    if _close(mean, right_mean) and _close(apart, right_apart):
        return
    astray = predict(image[:, ::-1])
    mistakes = {
        "the second answer is still mirrored when you average: turn it back first, or left "
        "and right of the patient are mixed": (first + astray) / 2,
        "the image was turned upside down: mirroring left to right reverses the columns": (
            (first + predict(image[::-1])[::-1]) / 2
        ),
        "you averaged the two images and predicted once: predict twice, then average": predict(
            (image + image[:, ::-1]) / 2
        ),
        "this is the first prediction alone: the mirrored one does not enter": first,
        "this is the mirrored prediction alone: average it with the plain one": second,
        "this is the sum: divide it by two": first + second,
    }
    raise_known(mean, mistakes, atol=1e-4)
    if set(np.unique(mean)) <= {0, 0.5, 1}:
        raise Wrong(
            "your mean holds 0, 0.5 and 1 only: the probabilities were thresholded before they "
            "were averaged, which throws away how sure each answer is"
        )
    if _close(mean, right_apart) and _close(apart, right_mean):
        raise Wrong("the two arrays are exchanged: the mean comes first, then the difference")
    if not _close(mean, right_mean):
        raise Wrong(f"your mean is off by up to {np.abs(mean - right_mean).max():.2g}")
    if _close(np.abs(apart), right_apart):
        raise Wrong("some of your differences are negative: take their absolute value")
    if _close(apart, right_apart / 2):
        raise Wrong("this is half the difference: how far the answers lie apart, not from the mean")
    raise Wrong(
        f"the mean is right, but your difference is off by up to "
        f"{np.abs(apart - right_apart).max():.2g}"
    )


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.allclose(a, b, atol=1e-4)


# --- 9.5 ------------------------------------------------------------------------------------------


def _judge_auroc(function: Callable, value, wrong) -> None:
    right = uncertainty.auroc(value, wrong)
    answer = _number(function(value, wrong))
    if math.isclose(answer, right, abs_tol=1e-6):
        return
    pairs = value[wrong][:, None] - value[~wrong][None, :]
    mistakes = {
        "this is the share in which the *right* voxel is more uncertain": 1 - right,
        "ties are missing: a pair of equal values counts one half": (pairs > 0).mean(),
        "ties count in full: a pair of equal values counts one half": (pairs >= 0).mean(),
        "this is how often one threshold is right: compare pairs, without any threshold": float(
            ((value > np.median(value)) == wrong).mean()
        ),
        "this is the number of pairs: divide by how many there are": (
            (pairs > 0).sum() + (pairs == 0).sum() / 2
        ),
        "this is the difference of two means, which depends on the unit of the uncertainty: "
        "count pairs": float(value[wrong].mean() - value[~wrong].mean()),
        "this is a correlation: count pairs instead": float(
            np.corrcoef(value.ravel(), wrong.ravel())[0, 1]
        ),
    }
    raise_known(answer, mistakes, f" (you: {answer:.3f}, right: {right:.3f})", rtol=0, atol=1e-6)
    raise Wrong(
        f"{np.count_nonzero(wrong)} wrong and {np.count_nonzero(~wrong)} right voxels make "
        f"{pairs.size} pairs; the answer is {right:.3f} and yours {answer:.3f}"
    )


# --- 9.6 ------------------------------------------------------------------------------------------


def _grid_inputs() -> list[tuple]:
    affine, _, shape = two_grids(5)
    flipped = affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += (shape[0] - 1) * affine[:3, 0]  # the same box, left and right exchanged
    return [two_grids(0), two_grids(1), (affine, affine.copy(), shape), (affine, flipped, shape)]


def _judge_grid(function: Callable, affine, other, shape) -> None:
    answer = _number(function(affine, other, shape))
    away = _corner_gaps(affine, other, [(0, n - 1) for n in shape])
    right = away.max()
    if math.isclose(answer, right, rel_tol=1e-6, abs_tol=1e-6):
        return
    per_axis = np.abs(_corner_steps(affine, other, [(0, n - 1) for n in shape]))
    spacings = [np.linalg.norm(item[:3, :3], axis=0) for item in (affine, other)]
    mistakes = {
        "the last voxel of an axis of n voxels has index n - 1, not n": _corner_gaps(
            affine, other, [(0, n) for n in shape]
        ).max(),
        "this is the first voxel alone: two grids may share a corner and nothing else": away[0],
        "this is the last voxel alone: look at all eight corners": away[-1],
        "this is the mean over the corners: the worst one counts": away.mean(),
        "this is the best corner: the worst one counts": away.min(),
        "this is the largest step along one axis: a distance takes all three": per_axis.max(),
        "the affines' numbers are no distances: send corners through": [
            np.abs(affine - other).max(),
            np.linalg.norm(affine - other),
        ],
        "this compares the spacings, which do not say where a grid lies or how it is turned": float(
            np.abs(spacings[0] - spacings[1]).max()
        ),
    }
    raise_known(
        answer, mistakes, f" (you: {answer:.4g} mm, right: {right:.4g} mm)", rtol=1e-6, atol=1e-6
    )
    raise Wrong(f"these two grids lie up to {right:.4g} mm apart, and your answer is {answer:.4g}")


def _corner_steps(affine: np.ndarray, other: np.ndarray, ends: list) -> np.ndarray:
    corners = np.array([(*corner, 1) for corner in product(*ends)], float)
    return (corners @ (affine - other).T)[:, :3]


def _corner_gaps(affine: np.ndarray, other: np.ndarray, ends: list) -> np.ndarray:
    return np.linalg.norm(_corner_steps(affine, other, ends), axis=1)


# --- what several judges need ---------------------------------------------------------------------


def _mask(answer: object, shape: tuple[int, ...]) -> np.ndarray:
    answer = as_array(answer, shape)
    if answer.dtype != bool:
        raise Wrong(f"your mask is {answer.dtype}: return a boolean array")
    return answer


def _number(answer: object) -> float:
    number = as_number(answer)
    if math.isnan(number):
        raise Wrong("your answer is NaN, which is no number: is something divided by nothing?")
    return number


EXERCISES = declare(
    __file__,
    {
        "9.1": (_pieces_inputs, _judge_pieces),
        "9.2": (lambda: [(a_hollow_vertebra(seed),) for seed in range(3)], _judge_holes),
        "9.3": (_names_inputs, _judge_names),
        "9.4": (
            lambda: [(Lopsided(tilt), a_slice(seed)) for seed, tilt in enumerate((1.0, 2.5, -1.5))],
            _judge_views,
        ),
        "9.5": (lambda: [an_uncertainty(seed) for seed in range(4)], _judge_auroc),
        "9.6": (_grid_inputs, _judge_grid),
    },
)
