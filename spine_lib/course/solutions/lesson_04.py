"""Solutions of lesson 4."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from spine_lib.course.exercises.lesson_04 import a_batch, two_maps, two_masks, two_states


def double_convolution(inputs, outputs):
    """Build two looks at each pixel's neighbourhood."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def enlarge_and_join(below, skip):
    """Bring a map to twice its size and put the skip's channels behind its own."""
    enlarged = functional.interpolate(below, scale_factor=2, mode="nearest")
    return torch.cat([enlarged, skip], dim=1)


def count_parameters(in_channels, classes, width, depth):
    """Predict how many parameters a U-Net has."""

    def double(a, b):
        return 9 * a * b + 9 * b * b + 4 * b

    levels = [width * 2**level for level in range(depth + 1)]
    total = double(in_channels, width)
    for above, below in zip(levels[:-1], levels[1:]):
        total += double(above, below)  # down
        total += double(below + above, above)  # up, with the skip
    return total + classes * width + classes


def fit_one_batch(network, image, target, steps, learning_rate):
    """Train a network on one batch, again and again."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        loss = functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def boundary_distance_mm(prediction, truth, spacing_mm):
    """Return how far the outlines of two masks are apart on average."""

    def one_way(mask, other):
        surface, others = (one & ~ndimage.binary_erosion(one) for one in (mask, other))
        return ndimage.distance_transform_edt(~others, sampling=spacing_mm)[surface].mean()

    return (one_way(prediction, truth) + one_way(truth, prediction)) / 2


def take_weights(theirs, ours):
    """Give another network's weights our names."""
    return {
        name: value if value.shape == own.shape else own
        for (name, own), value in zip(ours.items(), theirs.values())
    }


REFERENCES = {
    "4.1": double_convolution,
    "4.2": enlarge_and_join,
    "4.3": count_parameters,
    "4.4": fit_one_batch,
    "4.5": boundary_distance_mm,
    "4.6": take_weights,
}

HIDDEN = {
    "4.1": lambda: [(5, 3)],
    "4.2": lambda: [two_maps(31, 2, 6)],
    "4.3": lambda: [(2, 3, 5, 3), (1, 1, 7, 1)],
    "4.4": lambda: [a_batch(31, 5, 2e-3)],
    "4.5": lambda: [two_masks(31, (1.2, 0.9, 4.0))],
    "4.6": lambda: [two_states(31, layers=14)],
}
