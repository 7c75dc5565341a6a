"""The small network of the lessons' measurements, and the loop that trains it in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from spine_lib.training.losses import segmentation_loss

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Images, targets (1 is spine) and weights (0 where unknown), float32 [slice, 1, row, column]."""


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


def train_small(
    network: nn.Module,
    batches: Iterable[Batch],
    steps: int,
    learning_rate: float,
    kind: str = "bce_dice",
) -> Iterator[float]:
    """Train a network in place, in one thread, with AdamW and a one-cycle schedule.

    Args:
        network: in training mode.
        batches: one a step; they are asked for one by one.
        steps: how many.
        learning_rate: the highest.
        kind: of the loss, as `losses.segmentation_loss` takes it.

    Yields:
        The loss of each step, after it was taken.
    """
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    for _, (image, target, weight) in zip(range(steps), batches):
        with one_thread():
            loss = segmentation_loss(network(image), target, weight, kind)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        yield float(loss.detach())


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: images this small gain little, and threads that wait cost a lot."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
