"""What the skips of a U-Net add, measured at the boundary and not by overlap alone.

The same small U-Net is trained with and without skips on the same batches and scored on phantoms
that it has not seen; phantoms, because their outlines are exact and a real patient's are not.
Without skips a network has fewer weights; so that this explains nothing, a third one without skips
is wider and has more than the first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.course.boxes import Boxes, cut_boxes, draw_batch
from spine_lib.course.small_networks import train_small
from spine_lib.datasets import make_phantom
from spine_lib.models.unet import UNet
from spine_lib.slices.cut import IGNORE

NAME = "skips"
SEEDS = (0, 1, 2)

ARMS = {
    "with skips": {"width": 12, "skips": True},
    "without skips": {"width": 12, "skips": False},
    "without, wider": {"width": 14, "skips": False},
}
DEPTH = 3

GRID = {"shape": (96, 96, 48), "spacing_mm": 2.0, "tight": True}
PIXEL_MM, BOX = 2.0, 64
TRAINING_FROM, TRAINING = 100, 8
HELD_OUT_FROM, HELD_OUT = 200, 4

STEPS, BATCH, LEARNING_RATE = 240, 8, 3e-3
TOLERANCE_MM = 2.0


@cache
def load_phantoms(first: int, count: int) -> tuple[Boxes, ...]:
    """Generate phantoms and cut them into boxes of 128 mm around the spine."""
    return tuple(
        cut_boxes(f"phantom {seed}", make_phantom(seed, **GRID), PIXEL_MM, BOX)
        for seed in range(first, first + count)
    )


def build(arm: str, seed: int) -> UNet:
    """Build the network of an arm with first weights from a seed."""
    torch.manual_seed(seed)
    return UNet(depth=DEPTH, **ARMS[arm])


def train(arm: str, boxes: Sequence[Boxes], steps: int, seed: int) -> nn.Module:
    """Train the network of an arm; every arm sees the same batches in the same order."""
    random = np.random.default_rng([seed, 1])
    network = build(arm, seed).to(memory_format=torch.channels_last)
    batches = iter(lambda: draw_batch(boxes, BATCH, random), None)
    for _ in train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


@torch.no_grad()
def predict(network: nn.Module, boxes: Boxes) -> np.ndarray:
    """Return the mask that a network gives, bool [slice, row, column]."""
    return (network(torch.from_numpy(boxes.images)) > 0).numpy()[:, 0]


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


def score(network: nn.Module, boxes: Boxes) -> dict[str, float]:
    """Score a network on one case: overlap, and how far the outlines are apart in mm."""
    labels = boxes.labels[:, 0]
    prediction, truth, ignore = predict(network, boxes), labels == 1, labels == IGNORE
    return {
        "dice": metrics.dice(metrics.confusion(prediction, truth, ignore)),
        "mean distance mm": mean_distance_mm(prediction, truth, boxes.spacing_mm, ignore),
        "hd95 mm": metrics.hd95(prediction, truth, boxes.spacing_mm, ignore),
        "nsd": metrics.nsd(prediction, truth, boxes.spacing_mm, TOLERANCE_MM, ignore),
    }


def score_all(network: nn.Module, cases: Sequence[Boxes]) -> dict[str, float]:
    """Return the mean of each score over cases."""
    rows = [score(network, case) for case in cases]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def run(seed: int, fast: bool = False) -> dict:
    """Train each arm and score it on held-out phantoms.

    Args:
        seed: decides the first weights and the batches.
        fast: few steps and one phantom of each part, to see that it runs.

    Returns:
        By arm what `score_all` gives and its "parameters"; the "distance gap" in mm and the "dice
        gap" between the first two arms, and the CPU "seconds".
    """
    started = time.process_time()
    training = load_phantoms(TRAINING_FROM, 1 if fast else TRAINING)
    held_out = load_phantoms(HELD_OUT_FROM, 1 if fast else HELD_OUT)
    arms = {}
    for arm in ARMS:
        network = train(arm, training, 2 if fast else STEPS, seed)
        parameters = sum(p.numel() for p in network.parameters())
        arms[arm] = {**score_all(network, held_out), "parameters": parameters}
    first, second = arms["with skips"], arms["without skips"]
    return {
        "arms": arms,
        "distance gap": second["mean distance mm"] - first["mean distance mm"],
        "dice gap": first["dice"] - second["dice"],
        "seconds": round(time.process_time() - started, 1),
    }
