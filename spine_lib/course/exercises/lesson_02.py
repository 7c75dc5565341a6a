"""Exercises of lesson 2: ids and schemes, centroids, stray voxels, mirrored and coarse masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from spine_lib.annotations.schemes import CANONICAL, SACRUM, SCHEMES, to_canonical
from spine_lib.course.exercise import (
    Wrong,
    as_array,
    as_number,
    as_whole,
    declare,
    describe,
    raise_known,
)
from spine_lib.metrics import overlap as metrics

TOUCHING = np.ones((3, 3, 3), int)

# --- 2.1 ------------------------------------------------------------------------------------------


def a_total_map(seed: int) -> np.ndarray:
    """Make a small map [x, y, z] with blocks of vertebrae and of other organs."""
    rng = np.random.default_rng([2, 1, seed])
    ids = np.concatenate([[0, 25, 26, 27, 50], rng.integers(27, 51, 8), [5, 8, 20, 52, 117]])
    blocks = rng.permutation(np.resize(ids, 3 * 4 * 5)).reshape(3, 4, 5)
    return np.kron(blocks, np.ones((2, 2, 2), int)).astype(np.uint8)


def _judge_scheme(function: Callable, labels) -> None:
    right = to_canonical(labels, "totalsegmentator")
    answer = as_array(function(labels), labels.shape)
    if np.array_equal(answer, right):
        if answer.dtype != np.uint8:
            raise Wrong(
                f"the ids are right, but they are {answer.dtype}: ids below 256 are kept as uint8, "
                "an eighth of the memory (`.astype(np.uint8)`)"
            )
        return
    organs = (right == 0) & (labels > 0)
    spine = (labels >= 27) & (labels <= 50)
    if (answer[organs] > 0).any():
        example = int(labels[organs & (answer > 0)].min())
        name = SCHEMES["totalsegmentator"].names[example].replace("_", " ")
        called = int(answer[labels == example][0])
        raise Wrong(
            f"id {example} is the {name}, and your map has {called} there, as if it were "
            f"{CANONICAL.get(called, 'a vertebra')}: everything that is no spine becomes 0"
        )
    if (answer[labels == 0] != 0).any():
        raise Wrong("the background, 0, must stay 0")
    if not np.array_equal(answer[spine], right[spine]):
        example = int(labels[spine & (answer != right)][0])
        raise Wrong(
            f"id {example} is {CANONICAL[51 - example]}, which is {51 - example} in VerSe's "
            f"numbering, and your map says {int(answer[labels == example][0])}: one list runs up "
            "the spine, the other down, so the two ids of a vertebra add up to the same number"
        )
    example = 25 if (answer[labels == 25] != SACRUM).any() else 26
    raise Wrong(
        f"id {example} belongs to the sacrum, which is {SACRUM} in VerSe's numbering, and your map "
        f"says {int(answer[labels == example][0])}"
    )


# --- 2.2 ------------------------------------------------------------------------------------------


def a_blob_map(seed: int, number: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Make a map [x, y, z] of uneven blobs with ids 20, 21, ... and a turned affine."""
    rng = np.random.default_rng([2, 2, seed])
    labels = np.zeros((22, 26, 30), np.uint8)
    for index in range(number):
        x, y = rng.integers(1, 10, 2)
        z = 2 + 7 * index
        labels[x : x + rng.integers(4, 12), y : y + 6, z : z + 5] = 20 + index
        labels[x : x + 3, y + 6 : y + 6 + rng.integers(4, 9), z] = 20 + index
    turn = rng.uniform(-0.1, 0.1)
    affine = np.eye(4)
    affine[:2, :2] = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    affine[:3, :3] *= rng.uniform(0.7, 3.0, 3)
    affine[:3, 3] = rng.uniform(-300, 300, 3)
    return labels, affine


def _centroid_inputs(seeds: tuple[int, ...] = (0, 1, 2)) -> list[tuple]:
    inputs = []
    for seed in seeds:
        labels, affine = a_blob_map(seed)
        inputs.append((labels, 20 + seed % 4, affine))
    return inputs


def _judge_centroid(function: Callable, labels, label, affine) -> None:
    places = np.argwhere(labels == label)
    voxel = places.mean(axis=0)
    right = affine[:3, :3] @ voxel + affine[:3, 3]
    answer = _three_numbers(function(labels, label, affine))
    if np.allclose(answer, right, atol=1e-3):
        return
    box = (places.min(axis=0) + places.max(axis=0)) / 2
    every = np.argwhere(labels > 0).mean(axis=0)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    mistakes = {
        "this is the centroid as a voxel index: take it through the affine to get mm": voxel,
        "you multiplied the index by the spacing, which leaves out where the image begins and "
        "how it is turned: use the whole affine": voxel * spacing,
        "the affine's last column, where voxel (0, 0, 0) lies, is missing: append a 1 to the "
        "index, or add that column": affine[:3, :3] @ voxel,
        "the affine is used the wrong way round: it stands before the index, `affine @ "
        "index`": affine[:3, :3].T @ voxel + affine[:3, 3],
        "this is the middle of the bounding box; the centroid is the mean over all voxels of "
        "the label": affine[:3, :3] @ box + affine[:3, 3],
        f"this is the centroid of all labels together: take the voxels of label {label} "
        "only": affine[:3, :3] @ every + affine[:3, 3],
    }
    raise_known(answer, mistakes, atol=1e-3)
    away = float(np.linalg.norm(answer - right))
    raise Wrong(f"your point lies {away:.4g} mm from the centroid of label {label}")


# --- 2.3 ------------------------------------------------------------------------------------------


def a_scan_with_bone(seed: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """Make a scan [x, y, z] with an off-centre bone and its mask, or the mask mirrored."""
    rng = np.random.default_rng([2, 3, seed])
    image = rng.normal(40, 15, (30, 24, 12))
    image[:, :4] = -1000  # air in front of the patient and behind
    mask = np.zeros(image.shape, bool)
    x, y, z = rng.integers((2, 8, 1), (6, 12, 4))
    mask[x : x + 7, y : y + 5, z : z + 7] = True
    mask[x + 2 : x + 5, y + 5 : y + 9, z + 2] = True
    image[mask] += rng.normal(300, 60, int(mask.sum()))
    # A bright contrast-filled bowel on the other side, so that the image alone gives no answer.
    image[-8:-4, 18:22, 2:6] += 500
    return image.astype(np.int16), mask[::-1].copy() if mirrored else mask


def _judge_mirror(function: Callable, image, mask) -> None:
    on_mask, on_mirrored = float(image[mask].mean()), float(image[mask[::-1]].mean())
    right = on_mirrored > on_mask
    answer = function(image, mask)
    if not isinstance(answer, bool | np.bool_):
        raise Wrong(
            f"the answer is True or False, and yours is {describe(answer)}: compare the two means "
            "with `>`"
        )
    if bool(answer) == right:
        return
    finding = (
        f"here the mask lies on {on_mask:.0f} HU and, swapped left to right, on "
        f"{on_mirrored:.0f} HU, so the answer is {right}"
    )
    if right:
        raise Wrong(
            f"{finding}: left to right is the first axis, x; flipping another one compares with "
            "something else, and flipping image and mask together changes nothing"
        )
    raise Wrong(
        f"{finding}: bone is bright, so the mask belongs where the mean HU under it is higher; "
        "whether the mask looks symmetric says nothing"
    )


# --- 2.4 ------------------------------------------------------------------------------------------


def a_crumbled_mask(seed: int, crumbs: int = 3) -> np.ndarray:
    """Make a boolean mask: a block, a piece that touches it by a corner, and loose crumbs."""
    rng = np.random.default_rng([2, 4, seed])
    mask = np.zeros((24, 24, 24), bool)
    size = rng.integers(6, 9, 3)
    mask[2 : 2 + size[0], 2 : 2 + size[1], 2 : 2 + size[2]] = True
    x, y, z = 2 + size
    mask[x : x + 3, y : y + 2, z : z + 3] = True  # begins at the corner that is diagonally next
    for index in range(crumbs):
        start = rng.integers(0, 3)
        mask[19:22, 1 + 7 * index : 3 + 7 * index + start, 18 : 19 + rng.integers(1, 4)] = True
    return mask


def _judge_stray(function: Callable, mask) -> None:
    sizes = _piece_sizes(mask, TOUCHING)
    faces = _piece_sizes(mask, None)
    voxels = int(mask.sum())
    right = voxels - sizes.max()
    answer = as_whole(function(mask), "a number of voxels")
    if answer == right:
        return
    mistakes = {
        "your pieces fall apart where voxels touch by an edge or a corner only: give "
        "`ndimage.label` a structure of ones, 3 x 3 x 3": voxels - faces.max(),
        "this is the size of the largest piece: count what lies outside it": sizes.max(),
        "this is the number of pieces: count the voxels outside the largest one": len(sizes),
        "this is how many pieces are loose: count the voxels in them": len(sizes) - 1,
        "this is the whole mask: the largest count in `np.bincount` is the background's, whose "
        "number is 0, so leave that one out": voxels,
        "the background counts too in this: count voxels of the mask": mask.size - sizes.max(),
        "this is the smallest piece alone: add up all but the largest": sizes.min(),
    }
    raise_known(answer, mistakes, f" (you: {answer}, right: {right})")
    raise Wrong(
        f"this mask of {voxels} voxels falls into {len(sizes)} pieces, the largest of "
        f"{sizes.max()}: {right} voxels lie outside it, and your answer is {answer}"
    )


def _piece_sizes(mask: np.ndarray, structure: np.ndarray | None) -> np.ndarray:
    pieces, _ = ndimage.label(mask, structure)
    return np.bincount(pieces.ravel())[1:]


# --- 2.5 ------------------------------------------------------------------------------------------


def a_jagged_mask(seed: int) -> np.ndarray:
    """Make a boolean mask [x, y, z]: a bone with a thin process and a step of noise."""
    rng = np.random.default_rng([2, 5, seed])
    mask = np.zeros((36, 32, 20), bool)
    mask[8:26, 8:20, 4:15] = True
    mask[15:18, 20:29, 8:10] = True
    teeth = np.kron(rng.random((9, 8, 10)) > 0.5, np.ones((4, 4, 2), bool)).astype(bool)
    mask[6:28, 6:8, 4:15] |= teeth[6:28, 6:8, 4:15]
    mask[26:29, 8:20, 4:15] |= teeth[26:29, 8:20, 4:15]
    return mask


def smoothed(mask: np.ndarray, sigma_voxels: object, above: float = 0.5) -> np.ndarray:
    """Return where a Gaussian of a mask exceeds a share; sigma in voxels."""
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma_voxels) > above


def _judge_smooth(function: Callable, mask, spacing_mm, sigma_mm) -> None:
    sigmas = [sigma_mm / size for size in spacing_mm]
    right = metrics.confusion(smoothed(mask, sigmas), mask)
    answer = as_number(function(mask, spacing_mm, sigma_mm), "a Dice")
    if math.isclose(answer, metrics.dice(right), abs_tol=2e-3):
        return
    grown = metrics.confusion(smoothed(mask, sigmas, 0), mask)
    in_voxels = metrics.confusion(smoothed(mask, sigma_mm), mask)
    multiplied = metrics.confusion(smoothed(mask, [sigma_mm * s for s in spacing_mm]), mask)
    mistakes = {
        "you gave the Gaussian its width in mm, and it counts in voxels: divide by the spacing "
        "along each axis": metrics.dice(in_voxels),
        "you multiplied by the spacing: millimetres become voxels by dividing": metrics.dice(
            multiplied
        ),
        "this is the IoU: for Dice the overlap counts twice": metrics.iou(right),
        "for Dice the overlap counts twice": metrics.dice(right) / 2,
        "the smoothed mask is where the Gaussian exceeds one half; yours is wherever it "
        "exceeds 0, which makes the bone fatter": metrics.dice(grown),
        "this is the accuracy, in which all the background counts too": metrics.accuracy(right),
        "your smoothing changes nothing: a Gaussian of a boolean array stays boolean, so turn "
        "the mask into float first": 1.0,
        "your smoothed mask is empty: a Gaussian of a boolean array stays boolean, so turn the "
        "mask into float first": 0.0,
    }
    ending = f" (you: {answer:.3f}, right: {metrics.dice(right):.3f})"
    raise_known(answer, mistakes, ending, rtol=0, atol=1e-4)
    boolean = metrics.confusion(ndimage.gaussian_filter(mask, sigmas).astype(bool), mask)
    if math.isclose(answer, metrics.dice(boolean), abs_tol=1e-4):
        raise Wrong(
            "a Gaussian of a boolean array stays boolean, which cuts everything below 1 off: turn "
            "the mask into float first"
        )
    raise Wrong(
        f"after smoothing by {sigma_mm:g} mm this mask has a Dice of {metrics.dice(right):.3f} "
        f"with itself, and your answer is {answer:.3f}"
    )


# --- what several judges need ---------------------------------------------------------------------


def _three_numbers(answer: object) -> np.ndarray:
    try:
        numbers = np.asarray(answer, float)
    except (TypeError, ValueError):
        raise Wrong(f"return three numbers, not {describe(answer)}") from None
    if numbers.shape == (4,) and numbers[3] == 1:
        raise Wrong("your point still has the 1 at its end: return the first three numbers")
    if numbers.shape != (3,):
        raise Wrong(f"a point has three numbers (x, y, z), and yours is {describe(answer)}")
    return numbers


EXERCISES = declare(
    __file__,
    {
        "2.1": (lambda: [(a_total_map(seed),) for seed in range(3)], _judge_scheme),
        "2.2": (_centroid_inputs, _judge_centroid),
        "2.3": (
            lambda: [
                a_scan_with_bone(seed, mirrored) for seed, mirrored in enumerate((False, True) * 2)
            ],
            _judge_mirror,
        ),
        "2.4": (
            lambda: [
                (a_crumbled_mask(0),),
                (a_crumbled_mask(1, crumbs=1),),
                (a_crumbled_mask(2, crumbs=0),),
            ],
            _judge_stray,
        ),
        "2.5": (
            lambda: [
                (a_jagged_mask(0), (0.9, 1.1, 2.0), 2.0),
                (a_jagged_mask(1), (1.5, 1.2, 2.5), 3.0),
                (a_jagged_mask(2), (0.7, 0.7, 2.5), 1.0),
            ],
            _judge_smooth,
        ),
    },
)
