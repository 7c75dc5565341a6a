"""Exercises of lesson 0: regions, slices, millilitres, left and right."""

import numpy as np

from spine_lib.course.exercise import Exercise


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


def _by_number(*last: int):
    names = ("cervical", "thoracic", "lumbar", "sacral")
    return lambda vertebra: names[int(np.searchsorted(last, vertebra))]


def _but_t13(function):
    return lambda vertebra: "thoracic" if vertebra == 28 else function(vertebra)


REGION = Exercise(
    "0.1",
    reference=region_of,
    wrong={
        "T13 sacral": _by_number(7, 19, 25),
        "regions too short": (_by_number(6, 18, 24), _but_t13(_by_number(6, 18, 24))),
        "L6 sacral": (_by_number(7, 19, 24), _but_t13(_by_number(7, 19, 24))),
        "sacrum lumbar": _but_t13(_by_number(7, 19, 26)),
        "a number": (
            lambda vertebra: 1 + ["cervical", "thoracic", "lumbar"].count(region_of(vertebra)),
            lambda vertebra: int(np.searchsorted((7, 19, 25), vertebra)),
            lambda vertebra: int(np.searchsorted((7, 19, 25), vertebra)) + 1,
        ),
        "capitals": (
            lambda vertebra: region_of(vertebra).title(),
            lambda vertebra: region_of(vertebra).upper(),
        ),
        "a letter": lambda vertebra: region_of(vertebra)[0].upper(),
    },
    inputs=lambda rng: [(int(vertebra),) for vertebra in rng.permutation([*range(1, 27), 28])],
)


def a_label_map(rng: np.random.Generator) -> np.ndarray:
    """Make a small map [x, y, z]: many small ids low down, few large ids high up, and a gap."""
    shape = tuple(int(n) for n in rng.integers((13, 16, 22), (18, 21, 30)))
    labels = np.zeros(shape, np.uint8)
    areas = rng.permutation(np.arange(20, 20 + shape[2]))
    for z in range(2, shape[2] - 3):
        spots = rng.permutation(shape[0] * shape[1])[: areas[z]]
        labels[..., z].reshape(-1)[spots] = 1 + z
    full = int(rng.integers(3, 6))
    spots = rng.permutation(shape[0] * shape[1])[: areas.max() + 9]
    labels[..., full].reshape(-1)[spots] = 1
    mixed = labels[..., -5]  # few voxels, of many bones
    mixed[mixed > 0] = np.arange(np.count_nonzero(mixed)) % 12 + 1
    labels[..., shape[2] // 2 : shape[2] // 2 + 2] = 0
    return labels


def fullest_slice(labels):
    per_slice = (labels > 0).sum(axis=(0, 1))
    return per_slice.argmax()


FULLEST = Exercise(
    "0.2",
    reference=fullest_slice,
    wrong={
        "the count": lambda labels: (labels > 0).sum(axis=(0, 1)).max(),
        "ids added": (
            lambda labels: labels.sum(axis=(0, 1), dtype=int).argmax(),
            lambda labels: labels.sum(axis=(0, 1), dtype=labels.dtype).argmax(),
            lambda labels: labels.mean(axis=(0, 1)).argmax(),
        ),
        "bones counted": (
            lambda labels: int(np.argmax([len(np.unique(plane)) for plane in labels.T]))
        ),
        "one too high": lambda labels: fullest_slice(labels) + 1,
        "along x": lambda labels: (labels > 0).sum(axis=(1, 2)).argmax(),
        "along y": lambda labels: (labels > 0).sum(axis=(0, 2)).argmax(),
        "largest id": lambda labels: labels.max(axis=(0, 1)).argmax(),
        "argmin": lambda labels: (labels > 0).sum(axis=(0, 1)).argmin(),
        "whole array": (lambda labels: labels.argmax(), lambda labels: (labels > 0).argmax()),
        "first slice": lambda labels: (labels > 0).any(axis=(0, 1)).argmax(),
    },
    inputs=lambda rng: [(a_label_map(rng),) for _ in range(3)],
)


def volume_ml(labels, spacing_mm):
    x, y, z = spacing_mm
    voxel_mm3 = x * y * z
    return np.count_nonzero(labels) * voxel_mm3 / 1000


def _map_inputs(rng: np.random.Generator) -> list[tuple]:
    spacings = ((0.7, 0.8, 2.5), (1.5, 1.2, 3.0), (2.2, 1.1, 0.9))
    return [
        (a_label_map(rng), tuple(np.round(np.multiply(spacing, rng.uniform(0.8, 1.2)), 2).tolist()))
        for spacing in spacings
    ]


VOLUME = Exercise(
    "0.3",
    reference=volume_ml,
    wrong={
        "voxels": lambda labels, spacing: np.count_nonzero(labels),
        "mm³": lambda labels, spacing: volume_ml(labels, spacing) * 1000,
        "10 or 100": (
            lambda labels, spacing: volume_ml(labels, spacing) * 100,
            lambda labels, spacing: volume_ml(labels, spacing) * 10,
        ),
        "ids added": (
            lambda labels, spacing: labels.sum(dtype=int) * np.prod(spacing) / 1000,
            lambda labels, spacing: labels.sum(dtype=labels.dtype) * np.prod(spacing) / 1000,
        ),
        "labels counted": (
            lambda labels, spacing: len(np.unique(labels)) * np.prod(spacing) / 1000,
            lambda labels, spacing: len(np.unique(labels[labels > 0])) * np.prod(spacing) / 1000,
        ),
        "whole image": lambda labels, spacing: labels.size * np.prod(spacing) / 1000,
        "background": lambda labels, spacing: (labels == 0).sum() * np.prod(spacing) / 1000,
        "a cube": tuple(
            lambda labels, spacing, axis=axis: np.count_nonzero(labels) * spacing[axis] ** 3 / 1000
            for axis in range(3)
        ),
        "one side missing": tuple(
            lambda labels, spacing, axis=axis: volume_ml(labels, spacing) / spacing[axis]
            for axis in range(3)
        ),
        "sides added": lambda labels, spacing: np.count_nonzero(labels) * sum(spacing) / 1000,
        "id 1 left out": lambda labels, spacing: (labels > 1).sum() * np.prod(spacing) / 1000,
    },
    inputs=_map_inputs,
)


def side_of(voxel, shape):
    middle = (shape[0] - 1) / 2
    return "right" if voxel[0] > middle else "left"


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


def _side(axis: int, over: str = "right", under: str = "left"):
    return lambda voxel, shape: over if voxel[axis] > (shape[axis] - 1) / 2 else under


SIDE = Exercise(
    "0.4",
    reference=side_of,
    wrong={
        "mirrored": _side(0, "left", "right"),
        "along y": (_side(1), _side(1, "left", "right")),
        "along z": (_side(2), _side(2, "left", "right")),
        "other words": (
            _side(0, "R", "L"),
            _side(0, "L", "R"),
            _side(0, "Right", "Left"),
            _side(0, "RIGHT", "LEFT"),
            _side(0, True, False),
            _side(0, 1, 0),
        ),
        "one too far": (lambda voxel, shape: "right" if voxel[0] > shape[0] // 2 else "left",),
        "one too near": (lambda voxel, shape: "right" if voxel[0] >= shape[0] // 2 - 1 else "left"),
        "a fixed middle": tuple(
            lambda voxel, shape, middle=middle: "right" if voxel[0] > middle else "left"
            for middle in (0, 50, 100, 128, 256)
        ),
    },
    inputs=_side_inputs,
)


def spine_height_mm(labels, spacing_mm):
    slices = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    return (slices[-1] - slices[0] + 1) * spacing_mm[2]


def _along(axis: int, spacing_axis: int):
    def height(labels, spacing_mm):
        return spine_height_mm(np.moveaxis(labels, axis, 2), [spacing_mm[spacing_axis]] * 3)

    return height


HEIGHT = Exercise(
    "0.5",
    reference=spine_height_mm,
    wrong={
        "slices": (
            lambda labels, spacing: spine_height_mm(labels, (1, 1, 1)),
            lambda labels, spacing: spine_height_mm(labels, (1, 1, 1)) - 1,
        ),
        "one slice missing": lambda labels, spacing: spine_height_mm(labels, spacing) - spacing[2],
        "gap left out": lambda labels, spacing: (labels > 0).any(axis=(0, 1)).sum() * spacing[2],
        "whole image": lambda labels, spacing: labels.shape[2] * spacing[2],
        "spacing of x or y": (_along(2, 0), _along(2, 1)),
        "along x": (_along(0, 0), _along(0, 2)),
        "along y": (_along(1, 1), _along(1, 2)),
        "from the bottom": (
            lambda labels, spacing: np.flatnonzero(labels.any(axis=(0, 1)))[-1] * spacing[2],
            lambda labels, spacing: (np.flatnonzero(labels.any(axis=(0, 1)))[-1] + 1) * spacing[2],
        ),
        "largest spacing": lambda labels, spacing: spine_height_mm(labels, [max(spacing)] * 3),
    },
    inputs=_map_inputs,
)
