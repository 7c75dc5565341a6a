"""How much a split by slice flatters a network, measured.

The same small network is trained twice on equally many slices and scored on the same slices. Once
the training slices come from other patients only (split by patient), once from all patients, those
of the scored slices included (split by slice); neither ever trains on a slice that is scored. What
the second scores more is what leaked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.augment import network_input
from spine_lib.course.lesson_data import course_case
from spine_lib.datasets import CaseData, make_phantom
from spine_lib.slices import AIR_HU, IGNORE, cut
from spine_lib.training import segmentation_loss

NAME = "leakage"
SEEDS = (0, 1, 2, 3, 4)

PATIENTS = ("chest", "abdomen", "dicom", "crop")
"""The patients held out in turn."""

PHANTOMS = 4
"""Generated patients that are only ever trained on, so that a split leaves enough to learn from."""

PIXEL_MM, BOX = 4.0, 32
"""Slices show a box of this many pixels around the spine, so that a step takes little time."""

SCORED_SHARE = 0.25
"""Share of each patient's slices that are scored and never trained on."""

STEPS, BATCH, LEARNING_RATE = 200, 16, 3e-3


@dataclass(frozen=True)
class Patient:
    """Hold one patient's axial slices that show spine.

    Attributes:
        name: of the patient.
        images: float32 [slice, 1, row, column], scaled as the networks take them.
        labels: uint8, same shape; 0 background, 1 spine, 255 unknown.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Slices:
    """Name slices of several patients: pairs of patient and slice, int [count, 2]."""

    pairs: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)

    def of(self, patient: int) -> Slices:
        """Return those of one patient."""
        return Slices(self.pairs[self.pairs[:, 0] == patient])

    def without(self, patient: int) -> Slices:
        """Return those of all other patients."""
        return Slices(self.pairs[self.pairs[:, 0] != patient])

    def some(self, count: int, random: np.random.Generator) -> Slices:
        """Draw some of them."""
        return Slices(self.pairs[random.permutation(len(self))[:count]])


@cache
def load_patients(phantoms: int = PHANTOMS) -> tuple[Patient, ...]:
    """Load the four patients of the sample and some phantoms, cut into small axial slices."""
    patients = [patient_from(name, course_case(name)[0]) for name in PATIENTS]
    for seed in range(100, 100 + phantoms):
        data = make_phantom(seed, shape=(64, 64, 48), spacing_mm=3.0, tight=True)
        patients.append(patient_from(f"phantom {seed}", data))
    return tuple(patients)


def patient_from(name: str, data: CaseData) -> Patient:
    """Cut a case into axial slices and take a box around the spine from each that shows it."""
    stored = cut(data, "axial", PIXEL_MM)
    spine = (stored["label"] > 0) & (stored["label"] != IGNORE)
    stored = stored[spine.any(axis=(1, 2))]
    image = np.full((len(stored), 1, BOX, BOX), AIR_HU, np.float32)
    labels = np.full(image.shape, IGNORE, np.uint8)  # outside the image nothing is known
    middle = np.median(np.argwhere(spine), axis=0)[1:]
    source, target = [], []
    for centre, size in zip(middle, stored.shape[1:]):
        start = int(centre) - BOX // 2
        low, high = max(start, 0), min(start + BOX, size)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    pixels = stored[:, *source]
    image[:, 0, *target] = pixels["hu"]
    label = pixels["label"]
    labels[:, 0, *target] = np.where(label == IGNORE, IGNORE, label > 0)
    return Patient(name, network_input(image), labels)


def split_slices(patients: Sequence[Patient], seed: int) -> tuple[Slices, Slices]:
    """Split all slices at random, whoever they belong to.

    Returns:
        Slices to train on and slices to score on.
    """
    random = np.random.default_rng([seed, 0])
    kept, scored = [], []
    for number, patient in enumerate(patients):
        order = random.permutation(len(patient))
        few = max(1, round(SCORED_SHARE * len(patient)))
        scored += [(number, index) for index in sorted(order[:few])]
        kept += [(number, index) for index in sorted(order[few:])]
    return Slices(np.array(kept)), Slices(np.array(scored))


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
        """Map [batch, 1, row, column] to logits of the same shape."""
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


def train(patients: Sequence[Patient], slices: Slices, steps: int, seed: int) -> nn.Module:
    """Train the small network on the named slices, nothing else changed between splits."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = SmallUNet().to(memory_format=torch.channels_last)  # a third faster on a CPU
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    with _one_thread():
        for _ in range(steps):
            image, label = _batch(patients, slices.some(BATCH, random))
            target, known = (label == 1).float(), (label != IGNORE).float()
            loss = segmentation_loss(network(image), target, known)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: images this small gain little, and threads that wait cost a lot."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _batch(patients: Sequence[Patient], slices: Slices) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.stack([patients[p].images[i] for p, i in slices.pairs])
    labels = np.stack([patients[p].labels[i] for p, i in slices.pairs])
    return torch.from_numpy(images), torch.from_numpy(labels)


@torch.no_grad()
def score(network: nn.Module, patients: Sequence[Patient], slices: Slices) -> float:
    """Return the Dice of the named slices, their pixels pooled."""
    image, label = _batch(patients, slices)
    guess, label = (network(image) > 0).numpy(), label.numpy()
    return metrics.dice(metrics.confusion(guess, label == 1, label == IGNORE))


def compare_splits(
    patients: Sequence[Patient],
    held_out: Sequence[str],
    seed: int,
    steps: int,
    report: Callable[[str], object] = lambda line: None,
) -> dict[str, dict[str, float]]:
    """Train under both splits and score the same slices of each held-out patient.

    Args:
        patients: all patients.
        held_out: names of those to hold out, one after the other.
        seed: decides which slices are scored, the first weights and the order of training.
        steps: optimiser steps of each training.
        report: called with a line after each training.

    Returns:
        For each held-out patient: "scored slices", "training slices", and the Dice "by slice" and
        "by patient".
    """
    random = np.random.default_rng([seed, 2])
    numbers = {p.name: n for n, p in enumerate(patients)}
    kept, scored = split_slices(patients, seed)
    count = min(len(kept.without(numbers[name])) for name in held_out)
    leaky = train(patients, kept.some(count, random), steps, seed)
    report(f"trained on {count} slices of all {len(patients)} patients")
    results = {}
    for name in held_out:
        number = numbers[name]
        strict = train(patients, kept.without(number).some(count, random), steps, seed)
        report(f"trained on {count} slices of all patients but {name}")
        results[name] = {
            "scored slices": len(scored.of(number)),
            "training slices": count,
            "by slice": score(leaky, patients, scored.of(number)),
            "by patient": score(strict, patients, scored.of(number)),
        }
    return results


def run(seed: int, fast: bool = False) -> dict:
    """Hold out each real patient in turn and measure the Dice that a split by slice adds.

    Args:
        seed: decides everything random.
        fast: few steps and one phantom, to see that it runs.

    Returns:
        Numbers of each patient (see `compare_splits`), their means "by slice" and "by patient",
        the "gap" between these, and the CPU "seconds".
    """
    started = time.process_time()
    patients = load_patients(1 if fast else PHANTOMS)
    results = compare_splits(patients, PATIENTS, seed, 6 if fast else STEPS)
    means = {
        split: float(np.mean([one[split] for one in results.values()]))
        for split in ("by slice", "by patient")
    }
    return {
        "patients": results,
        **means,
        "gap": means["by slice"] - means["by patient"],
        "seconds": round(time.process_time() - started, 1),
    }
