"""What the skips of a U-Net add, measured at the boundary and not by overlap alone.

The same small U-Net is trained with and without skips on the same batches and scored on phantoms
that it has not seen; phantoms, because their outlines are exact and a real patient's are not.
Without skips a network has fewer weights; so that this explains nothing, a third one without skips
is wider and has more than the first.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.course import demonstrations
from spine_lib.course.demonstrations import Crops, phantom_crops
from spine_lib.models.unet import UNet
from spine_lib.slices import cut

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

STEPS, BATCH, LEARNING_RATE = 240, 8, demonstrations.LEARNING_RATE
TOLERANCE_MM = 2.0


def run(seed: int, fast: bool = False) -> dict:
    """Train each arm and score it on held-out phantoms.

    Args:
        seed: decides the first weights and the batches.
        fast: few steps and one phantom of each part, to see that it runs.

    Returns:
        By arm the mean over phantoms of each score and its "parameters"; the "distance gap" in mm
        and the "dice gap" between the first two arms, and the CPU "seconds".
    """
    started = time.process_time()
    training = phantom_crops(TRAINING_FROM, 1 if fast else TRAINING)
    held_out = phantom_crops(HELD_OUT_FROM, 1 if fast else HELD_OUT)
    arms = {}
    for arm in ARMS:
        network = train_arm(arm, training, 2 if fast else STEPS, seed, BATCH)
        rows = [score_crops(network, crops, TOLERANCE_MM) for crops in held_out]
        arms[arm] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        arms[arm]["parameters"] = sum(p.numel() for p in network.parameters())
    first, second = arms["with skips"], arms["without skips"]
    return {
        "arms": arms,
        "distance gap": second["mean distance mm"] - first["mean distance mm"],
        "dice gap": first["dice"] - second["dice"],
        "seconds": round(time.process_time() - started, 1),
    }


def train_arm(arm: str, crops: Sequence[Crops], steps: int, seed: int, batch: int) -> nn.Module:
    """Return the trained network of an arm; every arm sees the same batches in the same order."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    network = UNet(depth=DEPTH, **ARMS[arm]).to(memory_format=torch.channels_last)
    batches = iter(lambda: demonstrations.draw_batch(crops, batch, random), None)
    for _ in demonstrations.train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


@torch.no_grad()
def score_crops(network: nn.Module, crops: Crops, tolerance_mm: float) -> dict[str, float]:
    """Return the overlap of a network's prediction, and how far the outlines are apart in mm."""
    labels = crops.labels[:, 0]
    prediction = (network(torch.from_numpy(crops.images)) > 0).numpy()[:, 0]
    truth, ignore = labels == 1, labels == cut.IGNORE
    sides = metrics.surface_distances(prediction, truth, crops.spacing_mm, ignore)
    return {
        "dice": metrics.dice(metrics.confusion(prediction, truth, ignore)),
        "mean distance mm": float(np.mean([side.mean() for side in sides if side.size])),
        "hd95 mm": metrics.hd95(sides),
        "nsd": metrics.nsd(sides, tolerance_mm),
    }
