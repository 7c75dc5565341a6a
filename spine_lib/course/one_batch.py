"""The first test of any new network: can it learn one batch by heart?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

MISTAKES = ("eval", "sigmoid", "no zero", "sgd")


def fit_one_batch(
    network: nn.Module,
    image: torch.Tensor,
    target: torch.Tensor,
    steps: int,
    learning_rate: float,
    mistake: str = "",
) -> list[float]:
    """Train a network on one batch, again and again, in place.

    Args:
        network: image to logits.
        image: float32 [batch, channel, row, column].
        target: float32 [batch, 1, row, column], 1 is spine.
        steps: how often the weights are changed.
        learning_rate: of AdamW.
        mistake: what to do wrong, to see what its losses look like: "eval" trains in evaluation
            mode, "sigmoid" applies a second sigmoid, "no zero" lets gradients add up, "sgd" takes
            plain gradient descent.

    Returns:
        The cross-entropy before each change of the weights.
    """
    network.train(mistake != "eval")
    kind = torch.optim.SGD if mistake == "sgd" else torch.optim.AdamW
    optimiser = kind(network.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        logits = network(image)
        if mistake == "sigmoid":
            logits = torch.sigmoid(logits)
        loss = functional.binary_cross_entropy_with_logits(logits, target)
        if mistake != "no zero":
            optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
