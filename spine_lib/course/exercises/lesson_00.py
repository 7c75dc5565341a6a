"""Exercises of lesson 0: regions, slices, millilitres, left and right."""

import numpy as np

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit, edits


@exercise(
    "0.1",
    wrong={
        "T13 sacral": edit("== 28", "== 99"),
        "or 28": edit("<= 19", "<= 19 or 28"),
        "regions too short": (
            *(edit("<=", "<"), edit("<=", "<", "== 28", "== 99")),
            *(edit("<= 7", "< 7"), edit("<= 19", "< 19")),
        ),
        "L6 sacral": (edit("<= 25", "<= 24"), edit("<= 25", "<= 24", "== 28", "== 99")),
        "sacrum lumbar": edit("<= 25", "<= 26"),
        "a letter": lambda vertebra: region_of(vertebra)[0].upper(),
    },
    inputs=lambda rng: [(int(vertebra),) for vertebra in rng.permutation([*range(1, 27), 28])],
)
def region_of(vertebra):
    if vertebra == 28:  # T13 has the last number, but it is thoracic
        return "thoracic"
    if vertebra <= 7:
        return "cervical"
    if vertebra <= 19:
        return "thoracic"
    if vertebra <= 25:
        return "lumbar"
    return "sacral"


def a_label_map(rng: np.random.Generator) -> np.ndarray:
    """Make a small map [x, y, z]: many small ids low down, few large ids high up, and a gap."""
    shape = tuple(int(n) for n in rng.integers((13, 16, 22), (18, 21, 30)))
    labels = np.zeros(shape, np.uint8)
    areas = rng.permutation(np.arange(20, 20 + shape[2]))
    for z in range(2, shape[2] - 3):
        spots = rng.permutation(shape[0] * shape[1])[: areas[z] if z > 2 else 5]
        labels[..., z].reshape(-1)[spots] = 1 + z * (z > 2)
    full = int(rng.integers(3, 6))
    labels[..., full] = 0
    labels[1:9, 1:9, full] = 1  # the most voxels, in few rows and columns
    mixed = labels[..., -5]  # few voxels, of many bones
    mixed[mixed > 0] = np.arange(np.count_nonzero(mixed)) % 12 + 1
    labels[..., shape[2] // 2 : shape[2] // 2 + 2] = 0
    return labels


@exercise(
    "0.2",
    wrong={
        "the count": edit("argmax", "max"),
        "ids added": edit("(labels > 0)", "labels"),
        "bones counted": (
            lambda labels: int(np.argmax([len(np.unique(plane)) for plane in labels.T]))
        ),
        "along x": edit("(0, 1)", "(1, 2)"),
        "along y": edit("(0, 1)", "(0, 2)"),
        "largest id": edit("(labels > 0).sum", "labels.max"),
        "whole array": edits("return per_slice", "return labels", "return (labels > 0)"),
        "first slice": edit(".sum(", ".any("),
        "C1 left out": edit("> 0", "> 1"),
        "rows counted": edits(".sum(axis=(0, 1))", ".any(1).sum(0)", ".any(0).sum(0)"),
    },
    inputs=lambda rng: [(a_label_map(rng),) for _ in range(3)],
)
def fullest_slice(labels):
    per_slice = (labels > 0).sum(axis=(0, 1))
    return per_slice.argmax()


def _map_inputs(rng: np.random.Generator) -> list[tuple]:
    spacings = ((0.7, 0.8, 2.5), (1.5, 1.2, 3.0), (2.2, 1.1, 0.9))
    return [
        (a_label_map(rng), tuple(np.round(np.multiply(spacing, rng.uniform(0.8, 1.2)), 2).tolist()))
        for spacing in spacings
    ]


@exercise(
    "0.3",
    wrong={
        "voxels": edit(" * voxel_mm3 / 1000", ""),
        "mm³": edit(" / 1000", ""),
        "10 or 100": edits("1000", "10", "100"),
        "ids added": edit("np.count_nonzero(labels)", "labels.sum(dtype=int)"),
        "labels counted": edits(
            "np.count_nonzero(labels)", "len(np.unique(labels))", "(len(np.unique(labels)) - 1)"
        ),
        "whole image": edit("np.count_nonzero(labels)", "labels.size"),
        "background": edit("(labels)", "(labels == 0)"),
        "a cube": tuple(edit("x * y * z", f"{side} ** 3") for side in "xyz"),
        "one side missing": (edit("x * ", ""), edit("y * ", ""), edit("y * z", "y")),
        "sides added": edit("x * y * z", "sum(spacing_mm)"),
        "id 1 left out": edit("(labels)", "(labels > 1)"),
    },
    inputs=_map_inputs,
)
def volume_ml(labels, spacing_mm):
    x, y, z = spacing_mm
    voxel_mm3 = x * y * z
    return np.count_nonzero(labels) * voxel_mm3 / 1000


def _side_inputs(rng: np.random.Generator) -> list[tuple]:
    """Draw voxels on both sides of every axis' middle, and the two next to that of x."""
    inputs = []
    for column, size in ((0, 50), (1, 40), (-1, 20), (2, 300)):
        for high in (False, True):
            shape = tuple(int(n) for n in 2 * rng.integers((size, 70, 10), (size + 9, 90, 20)))
            x = shape[0] // 2 - 1 if column in (0, 1) else int(shape[0] * rng.uniform(0.1, 0.3))
            x = shape[0] - 1 - x if high else x
            y, z = (int(n * rng.uniform(0.6, 0.9)) for n in shape[1:])
            voxel = (x, y if (column + high) % 2 else shape[1] - 1 - y, z if column > 0 else 2)
            inputs.append((voxel, shape))
    return inputs


@exercise(
    "0.4",
    wrong={
        "mirrored": edit(">", "<"),
        "along y": (edit("[0]", "[1]"), edit("[0]", "[1]", ">", "<")),
        "along z": (edit("[0]", "[2]"), edit("[0]", "[2]", ">", "<")),
        "other words": (
            edit('"right"', '"R"', '"left"', '"L"'),
            edit('"right"', '"L"', '"left"', '"R"'),
        ),
        "one too far": edit("> middle", "> shape[0] // 2"),
        "one too near": edit("> middle", ">= shape[0] // 2 - 1"),
        "a fixed middle": edits("> middle", "> 0", "> 50", "> 100", "> 128", "> 256"),
        "another middle": edits("shape[0]", "shape[1]", "shape[2]"),
        "whole width": edit("> middle", "> shape[0]"),
    },
    inputs=_side_inputs,
)
def side_of(voxel, shape):
    middle = (shape[0] - 1) / 2
    return "right" if voxel[0] > middle else "left"


@exercise(
    "0.5",
    wrong={
        "slices": (edit(" * spacing_mm[2]", ""), edit(" + 1) * spacing_mm[2]", ")")),
        "one slice missing": edit(" + 1", ""),
        "gap left out": edit("slices[-1] - slices[0] + 1", "len(slices)"),
        "whole image": edit("slices[-1] - slices[0] + 1", "labels.shape[2]"),
        "spacing of x or y": edits("[2]", "[0]", "[1]"),
        "along x": (edit("(0, 1)", "(1, 2)", "[2]", "[0]"), edit("(0, 1)", "(1, 2)")),
        "along y": (edit("(0, 1)", "(0, 2)", "[2]", "[1]"), edit("(0, 1)", "(0, 2)")),
        "from the bottom": (edit(" - slices[0] + 1", ""), edit(" - slices[0]", "")),
        "largest spacing": edit("spacing_mm[2]", "max(spacing_mm)"),
    },
    inputs=_map_inputs,
)
def spine_height_mm(labels, spacing_mm):
    slices = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    return (slices[-1] - slices[0] + 1) * spacing_mm[2]
