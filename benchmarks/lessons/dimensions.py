"""One slice, a slice with its neighbours, or a volume: 2D, 2.5D and 3D at the same processor time.

The same kind of small U-Net with about as many parameters is trained in each way on the same
phantoms and scored on whole phantoms that it has not seen. A step on 3D patches takes longer than
one on slices; the steps of each arm are chosen for about the same seconds of one core.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from spine_lib import metrics
from spine_lib.course import demonstrations
from spine_lib.course.demonstrations import Batch, Crops, SmallUNet, phantom_crops
from spine_lib.slices import cut

NAME = "dimensions"
SEEDS = (0, 1, 2)

ARMS = {
    "2D": {"width": 14, "inputs": 1, "axes": 2, "batch": 8, "steps": 240},
    "2.5D": {"width": 14, "inputs": 3, "axes": 2, "batch": 8, "steps": 240},
    "3D": {"width": 8, "inputs": 1, "axes": 3, "batch": 2, "steps": 185},
}
PATCH = 32
"""Slices, rows and columns of a 3D patch; a slice has 64 x 64 pixels of 2 mm, as far apart."""

TRAINING_FROM, TRAINING = 100, 8
HELD_OUT_FROM, HELD_OUT = 200, 8
LEARNING_RATE = demonstrations.LEARNING_RATE


def run(seed: int, fast: bool = False) -> dict:
    """Train each arm and score it on held-out phantoms.

    Args:
        seed: decides the first weights and the batches.
        fast: two steps and one phantom of each part, to see that it runs.

    Returns:
        By arm the "dice" of each held-out phantom, their "mean dice", the "parameters", the "steps"
        and the CPU "seconds" of the training.
    """
    training = phantom_crops(TRAINING_FROM, 1 if fast else TRAINING)
    held_out = phantom_crops(HELD_OUT_FROM, 1 if fast else HELD_OUT)
    arms = {}
    for arm, settings in ARMS.items():
        steps = 2 if fast else settings["steps"]
        started = time.process_time()
        network = train_arm(arm, training, steps, seed)
        seconds = round(time.process_time() - started, 1)
        scores = [score_volume(arm, network, crops) for crops in held_out]
        arms[arm] = {
            "dice": scores,
            "mean dice": float(np.mean(scores)),
            "parameters": sum(p.numel() for p in network.parameters()),
            "steps": steps,
            "seconds": seconds,
        }
    return {"arms": arms}


def train_arm(arm: str, cases: Sequence[Crops], steps: int, seed: int) -> nn.Module:
    """Return the trained network of an arm."""
    random = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    width, inputs, axes = (ARMS[arm][name] for name in ("width", "inputs", "axes"))
    network = SmallUNet(width, inputs, axes)
    network.to(memory_format=torch.channels_last if axes == 2 else torch.channels_last_3d)
    batches = iter(lambda: draw_batch(arm, cases, random), None)
    for _ in demonstrations.train_small(network, batches, steps, LEARNING_RATE):
        pass
    return network.eval()


def draw_batch(arm: str, cases: Sequence[Crops], random: np.random.Generator) -> Batch:
    """Return slices or patches at random, half of them mirrored; each case is drawn as often."""
    images, labels = [], []
    for _ in range(ARMS[arm]["batch"]):
        case = cases[random.integers(len(cases))]
        image, label = case.images[:, 0], case.labels[:, 0]
        if ARMS[arm]["axes"] == 3:
            corner = [random.integers(size - PATCH + 1) for size in image.shape]
            patch = tuple(slice(start, start + PATCH) for start in corner)
            image, label = image[patch][None], label[patch][None]
        else:
            index = random.integers(len(image))
            image, label = image[channels(arm, index, len(image))], label[[index]]
        step = -1 if random.random() < 0.5 else 1
        images.append(image[..., ::step])
        labels.append(label[..., ::step])
    return demonstrations.as_batch(images, labels)


def channels(arm: str, index: int, count: int) -> list[int]:
    """Return the slices that are the channels of a slice's image."""
    return cut.with_neighbours(index, count, 1.0, float(ARMS[arm]["inputs"] > 1))


@torch.inference_mode()
def score_volume(arm: str, network: nn.Module, crops: Crops) -> float:
    """Return the Dice of a whole phantom, all of its slices pooled."""
    volume, labels = crops.images[:, 0], crops.labels[:, 0]
    count = len(volume)
    if ARMS[arm]["axes"] == 3:  # both poolings halve: a multiple of four slices
        padded = np.pad(volume, ((0, -count % 4), (0, 0), (0, 0)), mode="edge")
        logits = network(torch.from_numpy(padded)[None, None])[0, 0, :count]
    else:
        images = np.stack([volume[channels(arm, index, count)] for index in range(count)])
        logits = network(torch.from_numpy(images))[:, 0]
    return metrics.dice(metrics.confusion((logits > 0).numpy(), labels == 1, labels == cut.IGNORE))
