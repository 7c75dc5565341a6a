"""How much a split by slice flatters a network, measured.

The same small network is trained twice on equally many slices and scored on the same slices. Once
the training slices come from other patients only (split by patient), once from all patients, those
of the scored slices included (split by slice); neither ever trains on a slice that is scored. What
the second scores more is what leaked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn

from spine_lib.course.boxes import Boxes, as_batch, cut_boxes
from spine_lib.course.lesson_data import course_case
from spine_lib.course.small_networks import Batch, SmallUNet, train_small
from spine_lib.datasets import make_phantom
from spine_lib.metrics import overlap as metrics

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
def load_patients(phantoms: int = PHANTOMS) -> tuple[Boxes, ...]:
    """Load the four patients of the sample and some phantoms, cut into small axial slices."""
    patients = [cut_boxes(name, course_case(name)[0], PIXEL_MM, BOX) for name in PATIENTS]
    for seed in range(100, 100 + phantoms):
        data = make_phantom(seed, shape=(64, 64, 48), spacing_mm=3.0, tight=True)
        patients.append(cut_boxes(f"phantom {seed}", data, PIXEL_MM, BOX))
    return tuple(patients)


def split_slices(patients: Sequence[Boxes], seed: int) -> tuple[Slices, Slices]:
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


def train(patients: Sequence[Boxes], slices: Slices, steps: int, seed: int) -> nn.Module:
    """Train the small network on the named slices, nothing else changed between splits."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = SmallUNet().to(memory_format=torch.channels_last)  # a third faster on a CPU
    batches = iter(lambda: _batch(patients, slices.some(BATCH, random)), None)
    for _ in train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


def _batch(patients: Sequence[Boxes], slices: Slices) -> Batch:
    pairs = slices.pairs
    images = [patients[patient].images[index] for patient, index in pairs]
    return as_batch(images, [patients[patient].labels[index] for patient, index in pairs])


@torch.no_grad()
def score(network: nn.Module, patients: Sequence[Boxes], slices: Slices) -> float:
    """Return the Dice of the named slices, their pixels pooled."""
    image, target, weight = _batch(patients, slices)
    guess = (network(image) > 0).numpy()
    return metrics.dice(metrics.confusion(guess, target.numpy() > 0, weight.numpy() == 0))


def compare_splits(
    patients: Sequence[Boxes],
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
