"""A small network, small crops around the spine, and the loop that trains on them in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from spine_lib.datasets.case import CaseData
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import AIR_HU, IGNORE, cut_slices
from spine_lib.training.losses import segmentation_loss

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images, targets (1 is spine) and weights (0: unlabelled), float32 [slice, 1, row, column]."""


@dataclass(frozen=True)
class Crops:
    """A case's axial slices that show spine, each cropped to a square around it.

    Attributes:
        name: of the case.
        images: float32 [slice, 1, row, column], scaled as the networks take them.
        labels: uint8, same shape; 0 background, 1 spine, 255 unlabelled.
        spacing_mm: between slices, rows and columns.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray
    spacing_mm: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.images)


def crop_slices(name: str, data: CaseData, pixel_mm: float, size: int) -> Crops:
    """Return the axial slices of a case that show spine, cropped around the middle of the spine.

    Args:
        name: of the case.
        data: scan and labels.
        pixel_mm: size of a pixel.
        size: rows and columns; outside the scan there is air, which is unlabelled.
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
    return Crops(name, network_input(image), labels, spacing_mm)


def draw_batch(cases: Sequence[Crops], count: int, random: np.random.Generator) -> Batch:
    """Return slices at random, half of them mirrored; each case is drawn from as often."""
    images, labels = [], []
    for _ in range(count):
        case = cases[random.integers(len(cases))]
        index = random.integers(len(case))
        step = -1 if random.random() < 0.5 else 1
        images.append(case.images[index, :, :, ::step])
        labels.append(case.labels[index, :, :, ::step])
    return as_batch(images, labels)


def as_batch(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Batch:
    """Return a batch of images and labels [1, row, column]; 255 is unlabelled."""
    image, label = np.stack(images), np.stack(labels)
    target, weight = (label == 1).astype(np.float32), (label != IGNORE).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(target), torch.from_numpy(weight)


class SmallUNet(nn.Module):
    """A U-Net of three levels and about 67 000 parameters; lesson 4 explains it."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.first = _block(1, width)
        self.second = _block(width, 2 * width)
        self.third = _block(2 * width, 4 * width)
        self.up_second = _block(6 * width, 2 * width)
        self.up_first = _block(3 * width, width)
        self.last = nn.Conv2d(width, 1, 1)
        self.shrink = nn.MaxPool2d(2)
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits for [batch, 1, row, column], of the same shape."""
        first = self.first(image)
        second = self.second(self.shrink(first))
        third = self.third(self.shrink(second))
        second = self.up_second(torch.cat([second, self.enlarge(third)], dim=1))
        return self.last(self.up_first(torch.cat([first, self.enlarge(second)], dim=1)))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def train_small(
    network: nn.Module,
    batches: Iterable[Batch],
    steps: int,
    learning_rate: float,
    kind: str = "bce_dice",
) -> Iterator[float]:
    """Train a network in place, in one thread, with AdamW and a one-cycle schedule.

    Args:
        network: in training mode.
        batches: one a step.
        steps: how many.
        learning_rate: the highest.
        kind: of the loss, as `losses.segmentation_loss` takes it.

    Yields:
        The loss of each step, after it was taken.
    """
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    for _, (image, target, weight) in zip(range(steps), batches):
        with one_thread():
            loss = segmentation_loss(network(image), target, weight, kind)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        yield float(loss.detach())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread, which is faster for images this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
