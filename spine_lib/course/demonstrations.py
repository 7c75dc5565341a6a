"""Small experiments that lessons run in seconds; `benchmarks/lessons` repeats them at length.

A small network, crops around the spine and the loop that trains on them; what a split by slice
leaks (lesson 3), and the phantoms on which skips are compared (lesson 4).
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.course.patients import PATIENTS, course_case
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.phantom import make_phantom
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import AIR_HU, IGNORE, cut_slices
from spine_lib.training.losses import segmentation_loss

LEARNING_RATE = 3e-3
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
    """Return a batch of images and labels [channel, row, column]; 255 is unlabelled."""
    image, label = np.stack(images), np.stack(labels)
    target, weight = (label == 1).astype(np.float32), (label != IGNORE).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(target), torch.from_numpy(weight)


class SmallUNet(nn.Module):
    """A U-Net of three levels and about 67 000 parameters; lesson 4 explains it.

    `inputs` is the number of channels; with 3 `axes` its convolutions are 3 x 3 x 3 (lesson 9).
    """

    def __init__(self, width: int = 12, inputs: int = 1, axes: int = 2) -> None:
        super().__init__()
        self.first = _block(inputs, width, axes)
        self.second = _block(width, 2 * width, axes)
        self.third = _block(2 * width, 4 * width, axes)
        self.up_second = _block(6 * width, 2 * width, axes)
        self.up_first = _block(3 * width, width, axes)
        self.last = getattr(nn, f"Conv{axes}d")(width, 1, 1)
        self.shrink = getattr(nn, f"MaxPool{axes}d")(2)
        mode = "bilinear" if axes == 2 else "trilinear"
        self.enlarge = nn.Upsample(scale_factor=2, mode=mode, align_corners=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits [batch, 1, row, column] for [batch, channel, row, column]."""
        first = self.first(image)
        second = self.second(self.shrink(first))
        third = self.third(self.shrink(second))
        second = self.up_second(torch.cat([second, self.enlarge(third)], dim=1))
        return self.last(self.up_first(torch.cat([first, self.enlarge(second)], dim=1)))


def _block(inputs: int, outputs: int, axes: int) -> nn.Sequential:
    layers = []
    for channels in (inputs, outputs):
        layers += [
            getattr(nn, f"Conv{axes}d")(channels, outputs, 3, padding=1, bias=False),
            getattr(nn, f"BatchNorm{axes}d")(outputs),
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


# --- lesson 3: leakage ----------------------------------------------------------------------------


@cache
def leakage_patients(phantoms: int = 4, pixel_mm: float = 4.0, size: int = 32) -> tuple[Crops, ...]:
    """Return crops of the four patients of the sample and of some phantoms."""
    patients = [crop_slices(name, course_case(name), pixel_mm, size) for name in PATIENTS]
    for seed in range(100, 100 + phantoms):
        data = make_phantom(seed, shape=(64, 64, 48), spacing_mm=3.0, tight=True)
        patients.append(crop_slices(f"phantom {seed}", data, pixel_mm, size))
    return tuple(patients)


def split_slices(
    patients: Sequence[Crops], seed: int, scored_share: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Split all slices at random, whichever patient they belong to.

    Returns:
        Slices to train on and slices to score on: pairs of patient and slice, int [count, 2].
    """
    random = np.random.default_rng([seed, 0])
    training, scored = [], []
    for number, patient in enumerate(patients):
        order = random.permutation(len(patient))
        count = max(1, round(scored_share * len(patient)))
        scored += [(number, index) for index in sorted(order[:count])]
        training += [(number, index) for index in sorted(order[count:])]
    return np.array(training), np.array(scored)


def compare_splits(
    patients: Sequence[Crops],
    held_out: Sequence[str],
    seed: int,
    steps: int,
    batch: int = 16,
) -> dict[str, dict[str, float]]:
    """Train under both splits and score the same slices of each held-out patient.

    Neither training sees a slice that is scored.

    Args:
        patients: all patients.
        held_out: names of those to hold out, one after the other.
        seed: decides which slices are scored, the first weights and the order of training.
        steps: optimiser steps of each training.
        batch: slices of a step.

    Returns:
        For each held-out patient: "scored slices", "training slices", and the Dice "by slice" and
        "by patient".
    """
    random = np.random.default_rng([seed, 2])
    numbers = {patient.name: number for number, patient in enumerate(patients)}
    training, scored = split_slices(patients, seed)
    others = {name: training[training[:, 0] != numbers[name]] for name in held_out}
    count = min(map(len, others.values()))
    leaky = train_on_slices(patients, _draw(training, count, random), steps, seed, batch)
    results = {}
    for name in held_out:
        strict = train_on_slices(patients, _draw(others[name], count, random), steps, seed, batch)
        test = scored[scored[:, 0] == numbers[name]]
        results[name] = {
            "scored slices": len(test),
            "training slices": count,
            "by slice": score_slices(leaky, patients, test),
            "by patient": score_slices(strict, patients, test),
        }
    return results


def train_on_slices(
    patients: Sequence[Crops], pairs: np.ndarray, steps: int, seed: int, batch: int = 16
) -> nn.Module:
    """Return a small network trained on the given slices."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = SmallUNet().to(memory_format=torch.channels_last)  # a third faster on a CPU
    batches = iter(lambda: _batch(patients, _draw(pairs, batch, random)), None)
    for _ in train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


@torch.no_grad()
def score_slices(network: nn.Module, patients: Sequence[Crops], pairs: np.ndarray) -> float:
    """Return the Dice of the given slices, their pixels pooled."""
    image, target, weight = _batch(patients, pairs)
    prediction = (network(image) > 0).numpy()
    return metrics.dice(metrics.confusion(prediction, target.numpy() > 0, weight.numpy() == 0))


def _draw(pairs: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    return pairs[random.permutation(len(pairs))[:count]]


def _batch(patients: Sequence[Crops], pairs: np.ndarray) -> Batch:
    images = [patients[patient].images[index] for patient, index in pairs]
    return as_batch(images, [patients[patient].labels[index] for patient, index in pairs])


# --- lesson 4: skips ------------------------------------------------------------------------------


@cache
def phantom_crops(first_seed: int, count: int) -> tuple[Crops, ...]:
    """Return crops of 128 mm around the spine of phantoms, whose outlines are exact."""
    grid: dict[str, Any] = {"shape": (96, 96, 48), "spacing_mm": 2.0, "tight": True}
    return tuple(
        crop_slices(f"phantom {seed}", make_phantom(seed, **grid), 2.0, 64)
        for seed in range(first_seed, first_seed + count)
    )
