"""Small experiments that lessons run live; `benchmarks/lessons` repeats them at length.

Lesson 3: what a split by slice leaks. Lesson 4: what skips add. Lesson 6: which loss learns what.
Lesson 9: how well an uncertainty finds the errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.course.patients import PATIENTS, course_case
from spine_lib.course.small_networks import (
    Batch,
    Crops,
    SmallUNet,
    as_batch,
    crop_slices,
    draw_batch,
    one_thread,
    train_small,
)
from spine_lib.datasets.phantom import make_phantom
from spine_lib.metrics.calibration import near_spine
from spine_lib.models.unet import UNet
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import IGNORE, cut_slices
from spine_lib.volumes import uncertainty

LEARNING_RATE = 3e-3


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
    report: Callable[[str], object] = lambda line: None,
) -> dict[str, dict[str, float]]:
    """Train under both splits and score the same slices of each held-out patient.

    Neither training sees a slice that is scored.

    Args:
        patients: all patients.
        held_out: names of those to hold out, one after the other.
        seed: decides which slices are scored, the first weights and the order of training.
        steps: optimiser steps of each training.
        batch: slices of a step.
        report: called with a line after each training.

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
    report(f"trained on {count} slices of all {len(patients)} patients")
    results = {}
    for name in held_out:
        strict = train_on_slices(patients, _draw(others[name], count, random), steps, seed, batch)
        report(f"trained on {count} slices of all patients but {name}")
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

SKIP_ARMS = {
    "with skips": {"width": 12, "skips": True},
    "without skips": {"width": 12, "skips": False},
    "without, wider": {"width": 14, "skips": False},
}


@cache
def phantom_crops(first_seed: int, count: int) -> tuple[Crops, ...]:
    """Return crops of 128 mm around the spine of phantoms, whose outlines are exact."""
    grid: dict[str, Any] = {"shape": (96, 96, 48), "spacing_mm": 2.0, "tight": True}
    return tuple(
        crop_slices(f"phantom {seed}", make_phantom(seed, **grid), 2.0, 64)
        for seed in range(first_seed, first_seed + count)
    )


def train_arm(arm: str, crops: Sequence[Crops], steps: int, seed: int, batch: int = 8) -> nn.Module:
    """Return the trained network of an arm; every arm sees the same batches in the same order."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = UNet(depth=3, **SKIP_ARMS[arm]).to(memory_format=torch.channels_last)
    batches = iter(lambda: draw_batch(crops, batch, random), None)
    for _ in train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


@torch.no_grad()
def predict_crops(network: nn.Module, crops: Crops) -> np.ndarray:
    """Return the predicted mask, bool [slice, row, column]."""
    return (network(torch.from_numpy(crops.images)) > 0).numpy()[:, 0]


def mean_distance_mm(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, ...],
    ignore: np.ndarray | None = None,
) -> float:
    """Return how far two outlines are apart: the mean of the means of both directions, in mm.

    The arguments are those of `metrics.surface_distances`.

    Returns:
        NaN if neither mask has a surface, infinity if only one has.
    """
    sides = metrics.surface_distances(prediction, truth, spacing_mm, ignore)
    means = [float(side.mean()) for side in sides if side.size]
    return float(np.mean(means)) if means else math.nan


def score_crops(network: nn.Module, crops: Crops, tolerance_mm: float = 2.0) -> dict[str, float]:
    """Return the overlap of a network's prediction, and how far the outlines are apart in mm."""
    labels = crops.labels[:, 0]
    prediction, truth, ignore = predict_crops(network, crops), labels == 1, labels == IGNORE
    distances = metrics.surface_distances(prediction, truth, crops.spacing_mm, ignore)
    return {
        "dice": metrics.dice(metrics.confusion(prediction, truth, ignore)),
        "mean distance mm": mean_distance_mm(prediction, truth, crops.spacing_mm, ignore),
        "hd95 mm": metrics.hd95(distances),
        "nsd": metrics.nsd(distances, tolerance_mm),
    }


# --- lesson 6: losses -----------------------------------------------------------------------------


@cache
def phantom_slices(first_seed: int, end: int) -> Batch:
    """Return all axial slices of coarse phantoms with the whole body in view, 64 x 64 pixels.

    About 1 % of the pixels are spine.
    """
    grid: dict[str, Any] = {"shape": (64, 64, 48), "spacing_mm": (6.0, 6.0, 10.0)}
    stored = [
        cut_slices(make_phantom(seed, **grid), "axial", 6.0) for seed in range(first_seed, end)
    ]
    pixels = np.concatenate(stored)[:, None]
    label = pixels["label"]
    known = label != IGNORE
    return (
        torch.from_numpy(network_input(pixels["hu"])),
        torch.from_numpy(((label > 0) & known).astype(np.float32)),
        torch.from_numpy(known.astype(np.float32)),
    )


def score_batch(
    network: nn.Module, batch: Batch, thresholds: Sequence[float] = (0.5,)
) -> dict[float, dict[str, float]]:
    """Return pooled Dice, precision and recall by threshold of the probability."""
    image, target, weight = batch
    network.eval()
    with torch.inference_mode(), one_thread():
        probability = torch.cat([torch.sigmoid(network(part)) for part in image.split(32)])
    network.train()
    truth = target > 0
    scores = {}
    for threshold in thresholds:
        prediction = (probability > threshold) & (weight > 0)
        masks = (prediction & truth, prediction, truth)
        both, positive, spine = (float(mask.sum()) for mask in masks)
        scores[threshold] = {
            "dice": 2 * both / max(1.0, positive + spine),
            "precision": both / max(1.0, positive),
            "recall": both / max(1.0, spine),
        }
    return scores


# --- lesson 9: uncertainty ------------------------------------------------------------------------


def uncertainty_maps(
    views: np.ndarray, other: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, np.ndarray]:
    """Return three uncertainties of a prediction and the baseline that they should beat.

    Args:
        views: what `predict_views` returned; the mean of the first two (as it is and mirrored) is
            the prediction.
        other: probabilities of another model.
        spacing_mm: size of a voxel.
    """
    probability = views[:2].mean(axis=0)
    return {
        "entropy": uncertainty.entropy(probability),
        "spread over views": views.std(axis=0),
        "disagreement": np.abs(probability - other),
        "closeness to the outline": uncertainty.closeness_to_outline(probability > 0.5, spacing_mm),
    }


def judge_uncertainty(
    views: np.ndarray,
    other: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray,
    spacing_mm: tuple[float, float, float],
    reach_mm: float = 10.0,
    share: float = 0.1,
) -> dict[str, Any]:
    """Return how well every map finds the errors of one scan.

    Args:
        views, other, spacing_mm: as for `uncertainty_maps`.
        truth, ignore: boolean [x, y, z].
        reach_mm: how far from the predicted spine a voxel counts as near.
        share: of the voxels near the spine that somebody has time to review.

    Returns:
        Dice of the "plain" prediction and of the mean over all "views"; and for each map the AUROC
        "near" the predicted spine and "everywhere", and the share of the errors "found" in the
        most uncertain voxels near it.
    """
    plain, mean = views[:2].mean(axis=0) > 0.5, views.mean(axis=0) > 0.5
    near = near_spine(plain, spacing_mm, ignore, reach_mm)
    wrong = plain != truth
    scores: dict[str, Any] = {
        "plain": metrics.dice(metrics.confusion(plain, truth, ignore)),
        "views": metrics.dice(metrics.confusion(mean, truth, ignore)),
    }
    for name, values in uncertainty_maps(views, other, spacing_mm).items():
        errors = uncertainty.errors_found(values[near], wrong[near], (share,))
        scores[name] = {
            "near": uncertainty.auroc(values[near], wrong[near]),
            "everywhere": uncertainty.auroc(values[~ignore], wrong[~ignore]),
            "found": errors[share],
        }
    return scores
