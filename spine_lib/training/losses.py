"""Lesson 6: the losses, which training makes small.

Spine is about one pixel in a hundred, which is what the losses differ in: cross-entropy weighs
every pixel alike, soft Dice measures overlap whatever the size, and the focal loss gives less
weight to pixels that are right already (compared over seeds in `benchmarks/lessons/losses.py`).
"""

from collections.abc import Callable

import torch
from torch import distributed
from torch.nn import functional

LOSSES = ("bce_dice", "bce", "dice", "focal", "focal_dice")  # two names together are a sum
FOCUS = 2.0  # exponent of the focal loss, as its paper chose it
# Pixels added to both parts of the soft Dice, so that a batch without spine has a gradient too.
SMOOTHING = 10.0


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    kind: str = "bce_dice",
    all_reduce: Callable[..., tuple[torch.Tensor, ...]] = lambda *sums: sums,
) -> torch.Tensor:
    """Return cross-entropy, focal loss, one minus soft Dice, or a sum, over the labelled pixels.

    Args:
        logits: float [batch, class, row, column]; one class is spine or not.
        target: float [batch, 1, row, column], the number of each pixel's class.
        weight: float, as the target; weight 0 leaves a pixel out.
        kind: one of `LOSSES`.
        all_reduce: turns sums over this process's pixels into those over all processes' pixels;
            see `sum_over_processes`.

    Returns:
        A scalar. Soft Dice is taken over the whole batch, so that slices without spine count. Of
        several classes it is the mean over all but the background, those included that the batch
        does not show: without them, nothing would keep a network from predicting cervical spine in
        every pelvis. Focal loss is that of Lin et al. 2017, doi:10.1109/ICCV.2017.324, without its
        weights of the classes.
    """
    logits = logits.float()
    binary = logits.shape[1] == 1
    if binary:
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        entropy = functional.cross_entropy(logits, target[:, 0].long(), reduction="none")[:, None]
    terms = []
    if "bce" in kind:
        total, known = all_reduce((weight * entropy).sum(), weight.sum())
        terms.append(total / known.clamp(min=1))
    if "focal" in kind:  # one minus the probability of the true class
        missed = (torch.sigmoid(logits) - target).abs() if binary else -torch.expm1(-entropy)
        focal, known = all_reduce((weight * missed**FOCUS * entropy).sum(), weight.sum())
        terms.append(focal / known.clamp(min=1))
    if "dice" in kind:
        sums = all_reduce(*_dice_sums(logits, target, weight))
        overlap, predicted, true = torch.stack(sums).view(3, -1)
        terms.append((1 - (2 * overlap + SMOOTHING) / (predicted + true + SMOOTHING)).mean())
    return torch.stack(terms).sum()


def _dice_sums(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> list[torch.Tensor]:
    """Return sums over pixels: each class's overlap, then what is predicted, then what is true."""
    if logits.shape[1] == 1:
        probability, truth = torch.sigmoid(logits), target
    else:
        classes = torch.arange(1, logits.shape[1], device=target.device)
        probability = logits.softmax(1)[:, 1:]
        truth = (target == classes.view(1, -1, 1, 1)).to(logits.dtype)
    predicted, true = probability * weight, truth * weight
    maps = (predicted * truth, predicted, true)
    return [channel.sum() for pixels in maps for channel in pixels.unbind(1)]


def sum_over_processes(*sums: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return sums over all processes, so that each process has the loss of the whole batch.

    The mean over processes of their own losses would not be that, since Dice is no mean over
    pixels. The gradients of the sums lead to this process's part alone, times the number of
    processes, by which DistributedDataParallel divides again.
    """
    count = distributed.get_world_size()
    own = torch.stack(sums)
    total = own.detach().clone()
    distributed.all_reduce(total)
    scaled = count * own
    return tuple(scaled + (total - scaled).detach())
