"""Small boxes around the spine, cut from a case: what the lessons train small networks on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spine_lib.course.small_networks import Batch
from spine_lib.datasets import CaseData
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import AIR_HU, IGNORE, cut_slices


@dataclass(frozen=True)
class Boxes:
    """Hold one case's axial slices that show spine, each cut to a square around it.

    Attributes:
        name: of the case.
        images: float32 [slice, 1, row, column], scaled as the networks take them.
        labels: uint8, same shape; 0 background, 1 spine, 255 unknown.
        spacing_mm: between slices, rows and columns.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.images)


def cut_boxes(name: str, data: CaseData, pixel_mm: float, size: int) -> Boxes:
    """Cut the axial slices of a case that show spine to squares around the middle of the spine.

    Args:
        name: of the case.
        data: scan and labels.
        pixel_mm: size of a pixel.
        size: rows and columns; what lies outside the scan is air, and its label unknown.
    """
    stored = cut_slices(data, "axial", pixel_mm)
    spine = (stored["label"] > 0) & (stored["label"] != IGNORE)
    stored = stored[spine.any(axis=(1, 2))]
    image = np.full((len(stored), 1, size, size), AIR_HU, np.float32)
    labels = np.full(image.shape, IGNORE, np.uint8)
    source, target = [], []
    for middle, length in zip(np.median(np.argwhere(spine), axis=0)[1:], stored.shape[1:]):
        start = int(middle) - size // 2
        low, high = max(start, 0), min(start + size, length)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    pixels = stored[:, *source]
    image[:, 0, *target] = pixels["hu"]
    label = pixels["label"]
    labels[:, 0, *target] = np.where(label == IGNORE, IGNORE, label > 0)
    spacing_mm = (float(data.ct.spacing_mm[2]), pixel_mm, pixel_mm)
    return Boxes(name, network_input(image), labels, spacing_mm)


def draw_batch(boxes: Sequence[Boxes], count: int, random: np.random.Generator) -> Batch:
    """Draw slices at random, half of them mirrored left to right.

    Args:
        boxes: of some cases; each case is drawn from as often.
        count: how many slices.
        random: decides which.

    Returns:
        Images, targets and weights, each float32 [count, 1, row, column].
    """
    images, labels = [], []
    for _ in range(count):
        one = boxes[random.integers(len(boxes))]
        index = random.integers(len(one))
        way = -1 if random.random() < 0.5 else 1
        images.append(one.images[index, :, :, ::way])
        labels.append(one.labels[index, :, :, ::way])
    return as_batch(images, labels)


def as_batch(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Batch:
    """Stack images and labels [1, row, column], 0, 1 or 255 for unknown, to a batch."""
    image, label = np.stack(images), np.stack(labels)
    target, weight = (label == 1).astype(np.float32), (label != IGNORE).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(target), torch.from_numpy(weight)
