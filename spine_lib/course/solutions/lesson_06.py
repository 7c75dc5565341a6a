"""Solutions of lesson 6."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from spine_lib.course.exercises.lesson_06 import a_run, a_training, an_accumulation, some_logits


def training_step(network, optimiser, image, target):
    """Do one step of training."""
    network.train()
    loss = functional.binary_cross_entropy_with_logits(network(image), target)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


def soft_dice_loss(logits, target, weight):
    """Return one minus the soft Dice of a whole batch."""
    probability = torch.sigmoid(logits) * weight
    target = target * weight
    overlap = 2 * (probability * target).sum() + 10
    return 1 - overlap / (probability.sum() + target.sum() + 10)


def focal_loss(logits, target, weight):
    """Return the focal loss of a batch."""
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong_by = (torch.sigmoid(logits) - target).abs()
    return (weight * wrong_by**2 * entropy).sum() / weight.sum()


def learning_rate(step, steps, highest, warm_up):
    """Return the learning rate of one step."""
    if step < warm_up:
        return highest * (step + 1) / warm_up
    way = (step - warm_up) / (steps - warm_up)
    return highest * (1 + math.cos(math.pi * way)) / 2


def accumulated_step(network, optimiser, image, target, parts):
    """Do one step on a batch that does not fit into memory."""
    optimiser.zero_grad()
    mean = 0.0
    for images, targets in zip(image.tensor_split(parts), target.tensor_split(parts)):
        loss = functional.binary_cross_entropy_with_logits(network(images), targets)
        loss = loss * len(images) / len(image)
        loss.backward()
        mean += loss.item()
    optimiser.step()
    return mean


def make_checkpoint(network, optimiser, schedule, step):
    """Gather all that a run needs to go on after a stop."""
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
    }


REFERENCES = {
    "6.1": training_step,
    "6.2": soft_dice_loss,
    "6.3": focal_loss,
    "6.4": learning_rate,
    "6.5": accumulated_step,
    "6.6": make_checkpoint,
}

HIDDEN = {
    "6.1": lambda: [a_training(31, training=False)],
    "6.2": lambda: [some_logits(31)],
    "6.3": lambda: [some_logits(32, extreme=True)],
    "6.4": lambda: [(step, 40, 0.3, 5) for step in (0, 3, 5, 20, 39)],
    "6.5": lambda: [an_accumulation(31, 10, 4)],
    "6.6": lambda: [a_run(31, 4)],
}
