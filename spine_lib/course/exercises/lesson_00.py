"""Exercises of lesson 0: regions, slices, millilitres, left and right."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from spine_lib.annotations.schemes import CANONICAL, REGIONS, T13, to_regions
from spine_lib.course.exercise import Wrong, as_number, as_whole, declare, raise_known

# --- 0.1 ------------------------------------------------------------------------------------------


def _judge_region(function: Callable, vertebra) -> None:
    right = REGIONS[int(to_regions(np.array(vertebra))) - 1]
    answer = function(vertebra)
    if answer == right:
        return
    if not isinstance(answer, str):
        raise Wrong(f'a region is a name such as "{right}", and your answer is {answer!r}')
    if answer.strip().lower() == right:
        raise Wrong(f'the region is right but spelt {answer!r}: write it as "{right}"')
    if vertebra == T13:
        raise Wrong(
            "id 28 is T13, a thirteenth thoracic vertebra that few people have: its number is the "
            f"last one, but its place is above L1, so it is thoracic and not {answer}"
        )
    raise Wrong(
        f"id {vertebra} is {CANONICAL[vertebra]}, which is {right}, and your answer is {answer!r}: "
        "look at where each region starts and ends"
    )


# --- 0.2 ------------------------------------------------------------------------------------------


def a_label_map(seed: int) -> np.ndarray:
    """Make a small map [x, y, z]: many small ids low down, few large ids high up, and a gap."""
    rng = np.random.default_rng([seed, 2])
    shape = tuple(int(n) for n in rng.integers((13, 16, 22), (18, 21, 30)))
    labels = np.zeros(shape, np.uint8)
    areas = rng.permutation(np.arange(20, 20 + shape[2]))
    for z in range(2, shape[2] - 3):
        spots = rng.permutation(shape[0] * shape[1])[: areas[z]]
        labels[..., z].reshape(-1)[spots] = 1 + z
    full = int(rng.integers(3, 6))
    spots = rng.permutation(shape[0] * shape[1])[: areas.max() + 9]
    labels[..., full].reshape(-1)[spots] = 1
    labels[..., shape[2] // 2 : shape[2] // 2 + 2] = 0
    return labels


def _judge_fullest(function: Callable, labels) -> None:
    spine = labels > 0
    per_slice = spine.sum(axis=(0, 1))
    right = int(per_slice.argmax())
    answer = as_whole(function(labels), "an index")
    if answer == right:
        return
    others = {int(spine.sum(axis=axes).argmax()) for axes in ((1, 2), (0, 2))}
    if answer == per_slice.max():
        raise Wrong(
            f"{answer} is how many voxels the fullest slice has: return its index (`argmax`)"
        )
    if answer == labels.sum(axis=(0, 1), dtype=int).argmax():
        raise Wrong(
            "you added up the ids, so a voxel of L5 counts 24 times as much as one of C1: count "
            "the voxels that are not 0"
        )
    if answer == right + 1:
        raise Wrong("your answer is one too high: indices start at 0")
    if answer in others:
        raise Wrong(
            "you counted along another axis: axial slices lie along the last one, z, so the sum "
            "runs over x and y"
        )
    raise Wrong(
        f"slice {answer} has {per_slice[answer] if 0 <= answer < per_slice.size else 'no'} voxels "
        f"of spine, and there is one with {per_slice.max()}"
    )


# --- 0.3 ------------------------------------------------------------------------------------------


def _volume_inputs() -> list[tuple]:
    spacings = ((0.7, 0.7, 2.5), (3.0, 3.0, 3.0), (0.9, 1.1, 2.0))
    return [(a_label_map(seed + 10), spacing) for seed, spacing in enumerate(spacings)]


def _judge_volume(function: Callable, labels, spacing_mm) -> None:
    voxels = np.count_nonzero(labels)
    voxel_ml = math.prod(spacing_mm) / 1000
    right = voxels * voxel_ml
    answer = as_number(function(labels, spacing_mm), "a volume")
    if math.isclose(answer, right, rel_tol=1e-3):
        return
    mistakes = {
        "this is the number of voxels: multiply it by the volume of one voxel": voxels,
        "this is in mm³: a millilitre is 1000 mm³": right * 1000,
        "a millilitre is 1000 mm³, not 10: (10 mm)³": right * 100,
        "a millilitre is 1000 mm³, not 100: (10 mm)³": right * 10,
        "you added up the ids: a voxel counts once, whatever its id, so count those above 0": (
            labels.sum(dtype=int) * voxel_ml
        ),
        "this is the volume of the whole image: count only the voxels above 0": (
            labels.size * voxel_ml
        ),
        "you took the voxel for a cube: its sides along x, y and z differ": (
            voxels * spacing_mm[0] ** 3 / 1000
        ),
        "the sides of a voxel are multiplied, not added, to give its volume": (
            voxels * sum(spacing_mm) / 1000
        ),
    }
    ending = f" (you: {answer:.4g}, right: {right:.4g} ml)"
    raise_known(answer, mistakes, ending, rtol=1e-3)
    raise Wrong(f"these {voxels} voxels fill {right:.4g} ml, and your answer is {answer:.4g}")


# --- 0.4 ------------------------------------------------------------------------------------------


def _side_inputs() -> list[tuple]:
    # Both halves agree in the first two, so that a mirrored answer is not taken for one along y.
    return [
        ((90, 101, 30), (100, 120, 60)),
        ((200, 100, 4), (512, 512, 20)),
        ((8, 110, 31), (100, 120, 60)),
        ((300, 150, 12), (512, 640, 20)),
    ]


def _judge_side(function: Callable, voxel, shape) -> None:
    right = "right" if voxel[0] > (shape[0] - 1) / 2 else "left"
    answer = function(voxel, shape)
    if answer == right:
        return
    if not isinstance(answer, str) or answer.strip().lower() not in ("left", "right"):
        raise Wrong(f'the answer is "left" or "right", and yours is {answer!r}')
    if answer.strip().lower() == right:
        raise Wrong(f'the side is right but spelt {answer!r}: write it as "{right}"')
    front = "right" if voxel[1] > (shape[1] - 1) / 2 else "left"
    if answer == front:
        raise Wrong(
            "the second index, y, runs from the back to the front: left and right are along the "
            f"first one, x, which is {voxel[0]} of {shape[0]} here"
        )
    raise Wrong(
        f"x = {voxel[0]} of {shape[0]} lies on the patient's {right}: x grows to the Right. It is "
        "the picture that shows the patient mirrored, with the right side on your left"
    )


# --- 0.5 ------------------------------------------------------------------------------------------


def _height_inputs() -> list[tuple]:
    spacings = ((0.7, 0.8, 2.5), (1.5, 1.2, 3.0), (0.9, 1.1, 2.0))
    return [(a_label_map(seed + 20), spacing) for seed, spacing in enumerate(spacings)]


def _judge_height(function: Callable, labels, spacing_mm) -> None:
    shown = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    slices = int(shown[-1] - shown[0] + 1)
    right = slices * spacing_mm[2]
    answer = as_number(function(labels, spacing_mm), "a height")
    if math.isclose(answer, right, rel_tol=1e-3):
        return
    mistakes = {
        "this counts slices: multiply by the distance between them to get mm": slices,
        "one slice is missing: from slice 10 to slice 11 are two slices, not one": (
            right - spacing_mm[2]
        ),
        "you counted the slices that show spine, and there is a gap among them: take the "
        "highest less the lowest": len(shown) * spacing_mm[2],
        "this is the height of the whole image: only slices with a voxel above 0 "
        "count": labels.shape[2] * spacing_mm[2],
        "this is the spacing along x: slices are stacked along z": slices * spacing_mm[0],
    }
    ending = f" (you: {answer:.4g}, right: {right:.4g} mm)"
    raise_known(answer, mistakes, ending, rtol=1e-3)
    raise Wrong(
        f"the spine goes from slice {shown[0]} to slice {shown[-1]}, which is {right:.4g} mm high, "
        f"and your answer is {answer:.4g}"
    )


EXERCISES = declare(
    __file__,
    {
        "0.1": (lambda: [(vertebra,) for vertebra in (3, 7, 8, 19, 20, 24, 26, 28)], _judge_region),
        "0.2": (lambda: [(a_label_map(seed),) for seed in range(3)], _judge_fullest),
        "0.3": (_volume_inputs, _judge_volume),
        "0.4": (_side_inputs, _judge_side),
        "0.5": (_height_inputs, _judge_height),
    },
)
