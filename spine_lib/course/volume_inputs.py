"""What the exercises of lesson 9 are judged on, made from seeds: masks, maps, slices, grids."""

from __future__ import annotations

import math

import numpy as np


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
