"""Exercises of lesson 9: pieces, cavities, ids of voxels, two views, AUROC, grids of two files."""

from functools import partial
from itertools import product

import numpy as np
from scipy import ndimage

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit, edits

FACES, EDGES, CORNERS = (ndimage.generate_binary_structure(3, n) for n in (1, 2, 3))


def a_cut_spine(rng: np.random.Generator, more: float) -> tuple:
    """Make a mask, its spacing and a limit: the third largest piece and some more voxels."""
    mask = np.zeros((30, 28, 24), bool)
    x, y = 3 + rng.integers(8, 11, 2)
    mask[3:x, 3:y, 8:18] = True  # two more touch it: by a corner only, and by an edge only
    mask[x : x + 3, y : y + 3, 18:22] = mask[3:6, y : y + 4, 18:22] = True
    mask[20:27, 4:10, 2:6] = mask[20:24, 14 : 14 + rng.integers(4, 7), 3:6] = True
    mask[20:22, 23:25, 3:5] = mask[24:26, 24:27, 0:2] = True
    sizes = np.bincount(ndimage.label(mask, CORNERS)[0].ravel())
    # A voxel has 1/64 ml, so that no rounding hides whether a piece equals the limit.
    spacing = tuple(rng.permutation([1.25, 2.5, 5.0]).tolist())
    return mask[:: rng.choice([-1, 1])], spacing, float(np.sort(sizes)[-4] + more) / 64


@exercise(
    "9.1",
    wrong={
        "faces": edits(", np.ones((3, 3, 3))", "", ", EDGES"),
        "above alone": edit(">=", ">"),
        "mm³": edits("* np.prod(spacing_mm) / 1000", "* np.prod(spacing_mm)", "* 1.0"),
        "background": edit("= False", "= True"),
        "everything": edit("large[pieces]", "mask"),
        "nothing": edit("large[pieces]", "mask & False"),
        "largest alone": edits("= smallest_ml", "= max(0, *ml[1:])", "= max(smallest_ml, *ml[1:])"),
        "small kept": edit(">=", "<"),
        "another volume": edits("np.prod(spacing_mm)", "sum(spacing_mm)", "spacing_mm[0] ** 3"),
        "one off": edit("ml >=", "np.append(ml[1:], 0) >=", "large[0] = False", "pass"),
        "voxels": edit("ml >= smallest_ml", "ml * 64 >= int(smallest_ml * 64)"),
    },
    inputs=lambda rng: [a_cut_spine(rng, more) for more in (0, 0.5, 0, 0.3, -0.7, 9000)],
)
def keep_pieces(mask, spacing_mm, smallest_ml):
    pieces, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    ml = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000
    large = ml >= smallest_ml
    large[0] = False  # the background is no piece
    return large[pieces]


def a_hollow_vertebra(rng: np.random.Generator, cut: bool) -> np.ndarray:
    """Make a mask of a body with cavities, openings and a canal, which the image may cut."""
    mask = np.zeros((30, 34, 16), bool)
    mask[4:25, 17:30, 2:14] = mask[6:23, 4:18, 4:12] = True
    x, z = rng.integers((7, 5), (10, 8))
    mask[12:18, 8:14] = False  # the canal; cavities, the second of which has a corner outside
    mask[x : x + 3, 20 : 20 + rng.integers(3, 6), z : z + 3] = mask[20:22, 20:22, 9] = False
    mask[8, 4, 6] = mask[9, 5, 6] = mask[14, 24, 8] = False
    mask[x + 5, 21:30, 4] = mask[:12, 9, 6:8] = False  # openings to the front and to the side
    mask[17:19, 17, 10] = mask[19, 17:19, 10] = mask[19, 18, 10:] = False  # a bent way out
    return mask[:, :, 4:12] if cut else mask


def _by_slices(mask, *axes):
    for axis in axes:
        planes = [ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, axis, 0)]
        mask = np.stack(planes, axis)
    return mask


@exercise(
    "9.2",
    wrong={
        "canal filled": (lambda mask: _by_slices(mask, 2), lambda mask: _by_slices(mask, 0, 1, 2)),
        "sagittal": lambda mask: _by_slices(mask, 0),
        "coronal": lambda mask: _by_slices(mask, 1),
        "corners": tuple(
            lambda mask, by=by: ndimage.binary_fill_holes(mask, by) for by in (EDGES, CORNERS)
        ),
        "cavities alone": lambda mask: fill_holes(mask) ^ mask,
        "nothing filled": lambda mask: mask,
        "closing": tuple(
            lambda mask, n=n, by=by, more=more: mask * more | ndimage.binary_closing(mask, by, n)
            for n, by, more in product((1, 2, 3, 4, 5), (FACES, CORNERS), (True, False))
        ),
        "one corner": lambda mask: (parts := ndimage.label(~mask)[0]) != parts[0, 0, 0],
        "dilated": (ndimage.binary_dilation, lambda mask: ndimage.binary_dilation(mask, CORNERS)),
    },
    inputs=lambda rng: [(a_hollow_vertebra(rng, cut),) for cut in (False, True, False)],
)
def fill_holes(mask):
    return ndimage.binary_fill_holes(mask)


def two_vertebrae(rng: np.random.Generator, reach_mm: float) -> tuple:
    """Make a shifted prediction with a disc and a false positive, true ids, spacing and reach."""
    labels = np.zeros((26, 24, 20), np.uint8)
    low, (lower, upper) = rng.integers(2, 4), rng.permutation([21, 22])
    labels[6:16, 6:15, low : low + 5] = lower
    labels[5:17, 5:14, low + 9 : low + 13] = upper  # four voxels above: no voxel is in the middle
    labels[21, 5:14, low : low + 13] = lower  # a wall beside the upper one, far from its own middle
    prediction = np.roll(labels > 0, rng.integers(1, 3, 3), axis=(0, 1, 2))
    prediction[6:22, 6:15, low + 4 : low + 9] = prediction[2:24, 8:10, low + 2] = True
    prediction[20:24, 18:22, 2:5] = prediction[20, 8:10, low + 9 : low + 12] = True
    return prediction, labels, (*rng.permutation([0.7, 1.1]).tolist(), 2.5), reach_mm


@exercise(
    "9.3",
    wrong={
        "voxels": edits("sampling=spacing_mm", "sampling=None", "sampling=spacing_mm[::-1]"),
        "every voxel 0": edit("return nearest", "return nearest * 0"),
        "inside alone": edit("labels[tuple(place)]", "labels.copy()"),
        "not predicted": edits("~prediction", "False", "~prediction & (labels == 0)"),
        "no reach": edit("(away > reach_mm) | ", ""),
        "turned round": edit(">", "<="),
        "exactly at reach": edit(">", ">="),
        "nearest middle": edit(
            "labels[tuple(place)]",
            "(ids := np.unique(labels)[1:])[np.argmin([((np.indices(labels.shape).T - middle)"
            " * spacing_mm)**2 @ [1, 1, 1] for middle in ndimage.center_of_mass(labels > 0, labels,"
            " ids)], axis=0).T]",
        ),
        "larger id": edit("labels[tuple(place)]", "ndimage.grey_dilation(labels, (15, 15, 9))"),
    },
    inputs=lambda rng: [two_vertebrae(rng, reach) for reach in (5.0, 6.0, 2.5)],
    dtype=True,
)
def borrow_names(prediction, labels, spacing_mm, reach_mm):
    away, place = ndimage.distance_transform_edt(
        labels == 0, sampling=spacing_mm, return_indices=True
    )
    nearest = labels[tuple(place)]
    nearest[(away > reach_mm) | ~prediction] = 0
    return nearest


def lopsided(tilt: float, image: np.ndarray) -> np.ndarray:
    """Predict as a network might: bright is spine, more so to one side and to one end."""
    row, column = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    return 1 / (1 + np.exp(-(4 * image + tilt * column * (1.2 - row[:, None]))))


def a_slice(rng: np.random.Generator) -> np.ndarray:
    """Make a float32 image [row, column] with a bright spot off the middle."""
    image = rng.normal(-0.5, 0.1, (18, 24)).astype(np.float32)
    image[rng.integers(2, 9) :, rng.integers(2, 9) :][:6, :7] += 1.2
    return image


@exercise(
    "9.4",
    wrong={
        "not turned back": edit(")[:, ::-1]", ")"),
        "upside down": edit("[:, ::-1]", "[::-1]"),
        "turned by 180 degrees": edit("[:, ::-1]", "[::-1, ::-1]"),
        "images averaged": edit("(first + second) / 2", "predict((image + image[:, ::-1]) / 2)"),
        "another mean": edits(
            "(first + second) / 2", "first", "first + second", "np.maximum(first, second)"
        ),
        "signed": edits("np.abs(first - second)", "first - second", "second - first"),
        "half the difference": edits("np.abs(first - second)", "np.std([first, second], axis=0)"),
        "both predictions": edit("(first + second) / 2, np.abs(first - second)", "first, second"),
    },
    inputs=lambda rng: [(partial(lopsided, tilt), a_slice(rng)) for tilt in (1.0, 2.5, -1.5)],
    rtol=1e-3,
    atol=1e-4,
)
def predict_twice(predict, image):
    first = predict(image)
    second = predict(image[:, ::-1])[:, ::-1]
    return (first + second) / 2, np.abs(first - second)


def an_uncertainty(rng: np.random.Generator, shape: tuple, more: float, digits: int) -> tuple:
    """Make uncertainties with many ties, higher by `more` where something is wrong, and errors."""
    wrong = rng.random(shape) < 0.15
    wrong.flat[:2] = True, False
    value = rng.normal(0.6, 1, shape) + more * wrong
    return np.clip(np.round(value, digits), -1, 2).astype(np.float32), wrong


_PAIRS = "(difference > 0).mean() + (difference == 0).mean() / 2"


@exercise(
    "9.5",
    wrong={
        "right voxel": (
            edit("[wrong]", "[wrong == 0]", "[~wrong]", "[wrong]"),
            edit(_PAIRS, "(difference < 0).mean()"),
            edit(_PAIRS, "(difference <= 0).mean()"),
        ),
        "no ties": edit(_PAIRS, "(difference > 0).mean()"),
        "full ties": edit(" / 2", ""),
        "one threshold": edits(
            _PAIRS,
            "((uncertainty > 0.5) == wrong).mean()",
            "(uncertainty[wrong] > uncertainty.mean()).mean()",
            "(uncertainty[wrong] > uncertainty[~wrong].mean()).mean()",
        ),
        "not divided": edits(
            _PAIRS, "(difference > 0).sum()", "(difference > 0).sum() + (difference == 0).sum() / 2"
        ),
        "means": edits(
            _PAIRS,
            "difference.mean()",
            "uncertainty[wrong].mean()",
            "np.corrcoef(uncertainty.flat, wrong.flat)[0, 1]",
        ),
        "means compared": edit(_PAIRS, "float(difference.mean() > 0)"),
        "ties by their order": edits(
            "uncertainty[",
            "uncertainty.argsort(None).argsort().reshape(wrong.shape)[",
            "uncertainty.argsort(None, 'stable').argsort().reshape(wrong.shape)[",
        ),
    },
    inputs=lambda rng: [
        an_uncertainty(rng, *kind) for kind in (((12, 10), 0.9, 2), (90, 0.4, 0), (99, -0.4, 2))
    ],
)
def auroc(uncertainty, wrong):
    difference = uncertainty[wrong][:, None] - uncertainty[~wrong]
    return (difference > 0).mean() + (difference == 0).mean() / 2


def two_grids(rng: np.random.Generator, far: tuple[int, int, int]) -> tuple:
    """Make two affines and a shape; the grids lie farthest apart at the corner `far`."""
    affine, shape = np.diag([*rng.permutation([0.7, 1.3, 2.6]), 1.0]), rng.integers(9, 60, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    other = affine + np.diag([*rng.uniform(0.03, 0.06, 3), 0])
    other[:3, :3] += rng.uniform(-0.01, 0.01, (3, 3))
    middle = (other - affine)[:3, :3] @ (shape - 1) / 2
    other[:3, 3] += (np.array(far) - 0.5) * rng.uniform(2, 4, 3) - middle
    return affine, other, tuple(shape.tolist())


@exercise(
    "9.6",
    wrong={
        "n for n - 1": edit("n - 1", "n"),
        "some corners": edits("in steps", "in steps[:1]", "in steps[7:]", "in steps[::7]"),
        "another corner": edits("max(", "min(", "sum(", "1 / 8 * sum("),
        "another norm": edit("np.linalg.norm(step[:3])", "np.abs(step[:3]).max()"),
        "numbers compared": (
            lambda a, b, shape: np.abs(a - b).max(),
            lambda a, b, shape: np.linalg.norm(a - b),
        ),
        "no last column": edit("*corner, 1", "*corner, 0"),
        "transposed": edit("(affine - other)", "(affine - other).T"),
        "in voxels": edits("[(a", "[np.linalg.inv(affine) @ (a", "[np.linalg.inv(other) @ (a"),
        "beyond the last corner": edit("n - 1", "n", "in steps", "in steps[7:]"),
    },
    inputs=lambda rng: [two_grids(rng, far) for far in ((0, 1, 0), (1, 0, 1), (1, 1, 0))],
)
def grid_gap_mm(affine, other, shape):
    corners = product(*[(0, n - 1) for n in shape])
    steps = [(affine - other) @ [*corner, 1] for corner in corners]
    return max(np.linalg.norm(step[:3]) for step in steps)
