"""Which loss learns what, where about one pixel in a hundred is spine.

The same small network is trained with each loss on the same patches in the same order, from the
same first weights, and scored on phantoms that it never sees.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from torch import nn

from spine_lib.course.small_networks import Batch, SmallUNet, one_thread, train_small
from spine_lib.datasets import make_phantom
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import IGNORE, cut_slices

NAME = "losses"
SEEDS = (0, 1, 2)

KINDS = ("bce", "focal", "dice", "bce_dice", "focal_dice")
PHANTOM = {"shape": (64, 64, 48), "spacing_mm": (6.0, 6.0, 10.0)}
"""Coarse and with the whole body in view, so that spine is about 1 % of the pixels."""

TRAINED_ON, SCORED_ON = (400, 406), (500, 503)
"""First seed of the phantoms, and the one after the last."""

STEPS, BATCH, LEARNING_RATE, SCORED_EVERY = 200, 8, 3e-3, 20
WIDTH = 8
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@cache
def load_slices(first: int, end: int) -> Batch:
    """Cut phantoms into axial slices, those without spine too.

    Args:
        first, end: seeds of the phantoms.

    Returns:
        Images, targets (0 or 1) and weights (0 where unknown), float32 [slice, 1, 64, 64].
    """
    stored = [cut_slices(make_phantom(seed, **PHANTOM), "axial", 6.0) for seed in range(first, end)]
    pixels = np.concatenate(stored)[:, None]
    label = pixels["label"]
    known = label != IGNORE
    return (
        torch.from_numpy(network_input(pixels["hu"])),
        torch.from_numpy(((label > 0) & known).astype(np.float32)),
        torch.from_numpy(known.astype(np.float32)),
    )


def foreground_share(data: Batch) -> float:
    """Return the share of the pixels that are spine."""
    return float(data[1].mean())


def train(
    kind: str, data: Batch, seed: int, steps: int = STEPS
) -> Iterator[tuple[int, float, nn.Module]]:
    """Train the small network with a loss.

    Args:
        kind: name of the loss.
        data: what `load_slices` returned.
        seed: of the first weights and of the order of the slices; the same for every loss.
        steps: how many.

    Yields:
        After each step its number from 1, the loss, and the network.
    """
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = SmallUNet(WIDTH).to(memory_format=torch.channels_last)

    def draw() -> Batch:
        rows = torch.from_numpy(random.choice(len(data[0]), BATCH, replace=False))
        return tuple(part[rows] for part in data)

    losses = train_small(network, iter(draw, None), steps, LEARNING_RATE, kind)
    for step, loss in enumerate(losses, start=1):
        yield step, loss, network


def score(network: nn.Module, data: Batch) -> dict[float, dict[str, float]]:
    """Return pooled Dice, precision and recall by threshold of the probability."""
    image, target, weight = data
    network.eval()
    with torch.inference_mode(), one_thread():
        probability = torch.cat([torch.sigmoid(network(part)) for part in image.split(32)])
    network.train()
    return {threshold: _scores(probability > threshold, target, weight) for threshold in THRESHOLDS}


def _scores(guess: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    guess, true = guess & (weight > 0), target > 0
    both, guessed, spine = (float(part.sum()) for part in (guess & true, guess, true))
    return {
        "dice": 2 * both / max(1.0, guessed + spine),
        "precision": both / max(1.0, guessed),
        "recall": both / max(1.0, spine),
    }


def learn(kind: str, seed: int, steps: int = STEPS, every: int = SCORED_EVERY) -> dict:
    """Train with a loss and score as it goes on.

    Returns:
        "curve", pairs of step and Dice at a threshold of 0.5; "at 0.5", the last scores there; and
        "thresholds", the last Dice at each threshold.
    """
    held_out = load_slices(*SCORED_ON)
    curve = []
    for step, _, network in train(kind, load_slices(*TRAINED_ON), seed, steps):
        if step % every == 0 or step == steps:
            scores = score(network, held_out)
            curve.append([step, scores[0.5]["dice"]])
    by_threshold = {str(threshold): one["dice"] for threshold, one in scores.items()}
    return {"curve": curve, "at 0.5": scores[0.5], "thresholds": by_threshold}


def run(seed: int, fast: bool = False) -> dict:
    """Train with every loss.

    Args:
        seed: decides first weights and order.
        fast: a few steps, to see that it runs.

    Returns:
        What `learn` returns for each loss, the last Dice of each by its name, the share of the
        held-out pixels that are spine, and the CPU "seconds".
    """
    started = time.process_time()
    steps, every = (4, 2) if fast else (STEPS, SCORED_EVERY)
    found = {kind: learn(kind, seed, steps, every) for kind in KINDS}
    return {
        "losses": found,
        **{kind: one["at 0.5"]["dice"] for kind, one in found.items()},
        "foreground": foreground_share(load_slices(*SCORED_ON)),
        "seconds": round(time.process_time() - started, 1),
    }
