"""Lesson 6: what a network is told to make small.

Spine is about one pixel in a hundred, which is what the losses differ in: cross-entropy counts
every pixel alike, soft Dice asks for overlap whatever the size, and the focal loss turns down the
pixels that are right already (compared over seeds in `spine_lib.course.experiments.losses`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed
from torch.nn import functional

LOSSES = ("bce_dice", "bce", "dice", "focal", "focal_dice")
"""Names of the losses; two names together are a sum."""

FOCUS = 2.0
"""Exponent of the focal loss, as its paper chose it."""

SMOOTHING = 10.0
"""Pixels added to both parts of the soft Dice, so that a batch without spine has a slope too."""

Together = Callable[..., tuple[torch.Tensor, ...]]


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    kind: str = "bce_dice",
    together: Together = lambda *sums: sums,
) -> torch.Tensor:
    """Return cross-entropy, focal loss, one minus soft Dice, or a sum, over the labelled pixels.

    Args:
        logits: float [batch, class, row, column]; one class is spine or not.
        target: float [batch, 1, row, column], the number of each pixel's class.
        weight: float, as the target; weight 0 leaves a pixel out.
        kind: one of `LOSSES`.
        together: given sums over this process's pixels, returns those over all processes' pixels;
            see `sum_over_processes`.

    Returns:
        A scalar.  Cross-entropy is over all classes.  Soft Dice is taken over the whole batch:
        slices without spine then count.  Of several classes it is the mean over all but the
        background, those included that the batch does not show: were these left out, nothing would
        keep a network from seeing a neck in every pelvis.  Focal loss is the mean over pixels (Lin
        et al. 2017, doi:10.1109/ICCV.2017.324, without its weights of the classes).
    """
    logits = logits.float()
    entropy = _entropy(logits, target)
    parts = []
    if "bce" in kind:
        total, known = together((weight * entropy).sum(), weight.sum())
        parts.append(total / known.clamp(min=1))
    if "focal" in kind:
        missed = _missed(logits, target, entropy)
        focal, known = together((weight * missed**FOCUS * entropy).sum(), weight.sum())
        parts.append(focal / known.clamp(min=1))
    if "dice" in kind:
        sums = together(*_dice_sums(logits, target, weight))
        overlap, guessed, true = torch.stack(sums).view(3, -1)
        parts.append((1 - (2 * overlap + SMOOTHING) / (guessed + true + SMOOTHING)).mean())
    return torch.stack(parts).sum()


def _entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each pixel, [batch, 1, row, column]."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return functional.cross_entropy(logits, target[:, 0].long(), reduction="none")[:, None]


def _missed(logits: torch.Tensor, target: torch.Tensor, entropy: torch.Tensor) -> torch.Tensor:
    """Return one less the probability of the truth: 0 where right and sure, 1 where wrong."""
    if logits.shape[1] == 1:
        return (torch.sigmoid(logits) - target).abs()
    return -torch.expm1(-entropy)


def _dice_sums(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
) -> list[torch.Tensor]:
    """Sum over pixels: each class's overlap, then what was guessed of each, then what is true."""
    if logits.shape[1] == 1:
        probability, truth = torch.sigmoid(logits), target
    else:
        classes = torch.arange(1, logits.shape[1], device=target.device)
        probability = logits.softmax(1)[:, 1:]
        truth = (target == classes.view(1, -1, 1, 1)).to(logits.dtype)
    guessed, true = probability * weight, truth * weight
    return [one.sum() for part in (guessed * truth, guessed, true) for one in part.unbind(1)]


def sum_over_processes(*sums: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Add up numbers over all processes of a run, so that each has the loss of the global batch.

    The mean over processes of the gradients, which is what DistributedDataParallel takes, is then
    the gradient of that loss; of losses taken process by process it would not be, since Dice is no
    mean over pixels.

    Args:
        *sums: scalars, each over this process's part of the batch.  All processes must call this.

    Returns:
        The sums over all parts.  Their slopes lead to this process's part alone, times the number
        of processes, which the mean divides by again.
    """
    count = distributed.get_world_size()
    own = torch.stack(sums)
    total = own.detach().clone()
    distributed.all_reduce(total)
    scaled = count * own
    return tuple(scaled + (total - scaled).detach())
