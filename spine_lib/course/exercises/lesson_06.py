"""Exercises of lesson 6: a training step, two losses, a schedule, accumulation, a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from spine_lib.course.exercise import Wrong, declare, describe
from spine_lib.course.judging_training import (
    a_batch,
    a_run,
    a_training,
    an_accumulation,
    judge_accumulate,
    judge_checkpoint,
    judge_step,
)
from spine_lib.training.losses import segmentation_loss

# --- 6.2 ------------------------------------------------------------------------------------------


def some_logits(seed: int, extreme: bool = False) -> tuple[torch.Tensor, ...]:
    """Make logits, a target in some of the images and weights of 0 and 1."""
    random = torch.Generator().manual_seed(600 + seed)
    _, target = a_batch(seed, 3, 16)
    target[0] = 0  # one image shows no spine
    logits = 3 * torch.randn(target.shape, generator=random) + 2 * target - 1
    weight = (torch.rand(target.shape, generator=random) > 0.2).float()
    if extreme:
        logits[1, 0, 0, :4] = torch.tensor([200.0, -200.0, 120.0, -120.0])
        weight[1, 0, 0, :4] = 1
    return logits, target, weight


def _judge_dice(function: Callable, arguments: tuple) -> None:
    logits, target, weight = arguments
    loss = _loss_with_slope(function, logits, target, weight)
    right = segmentation_loss(logits, target, weight, "dice").item()
    if math.isclose(loss.item(), right, abs_tol=1e-4):
        return
    p, hard = torch.sigmoid(logits), (logits > 0).float()
    each = torch.stack([_dice(*parts) for parts in zip(p, target, weight, strict=True)])
    mistakes = (
        (_dice(p, target, weight), "this is the Dice itself: a loss is small where it is good"),
        (1 - _dice(p, target, 1), "pixels of weight 0 count: they must leave all three sums"),
        (
            1 - (2 * (p * target * weight).sum() + 10) / (p.sum() + target.sum() + 10),
            "pixels of weight 0 still count below the line: they must leave all three sums",
        ),
        (1 - _dice(logits, target, weight), "these are logits: a sigmoid makes probabilities"),
        (1 - _dice(hard, target, weight), "a threshold has no slope: take the probabilities"),
        (
            1 - each.mean(),
            "this is the mean over images of their own losses: sum over the whole batch, so that "
            "images with little spine count little",
        ),
        (1 - _dice(p, target, weight, 0), "the 10 is missing, above and below the line"),
    )
    for value, message in mistakes:
        if math.isclose(loss.item(), value.item(), abs_tol=1e-4):
            raise Wrong(f"your loss is {loss.item():.4f} instead of {right:.4f}: {message}")
    raise Wrong(
        f"your loss is {loss.item():.4f} instead of {right:.4f}: compare your three sums with the "
        "formula, one by one"
    )


def _dice(p, target, weight, smoothing: float = 10.0) -> torch.Tensor:
    overlap = 2 * (p * target * weight).sum() + smoothing
    return overlap / ((p * weight).sum() + (target * weight).sum() + smoothing)


def _loss_with_slope(function: Callable, logits, target, weight) -> torch.Tensor:
    """Call a loss and make sure that it leads back to the logits."""
    leaf = logits.clone().requires_grad_()
    loss = function(leaf, target, weight)
    if not isinstance(loss, torch.Tensor):
        raise Wrong(f"return a tensor, from which backward can start, and not {describe(loss)}")
    if loss.shape != ():
        raise Wrong(f"return one number, and not {describe(loss)}: sum over all pixels")
    if not loss.requires_grad:
        raise Wrong(
            "no slope leads from your loss back to the logits: a threshold, .item() or .detach() "
            "cuts it off"
        )
    return loss.detach()


# --- 6.3 ------------------------------------------------------------------------------------------


def _judge_focal(function: Callable, arguments: tuple) -> None:
    logits, target, weight = arguments
    loss = _loss_with_slope(function, logits, target, weight).item()
    right = segmentation_loss(logits, target, weight, "focal").item()
    if math.isclose(loss, right, rel_tol=1e-3):
        return
    if not math.isfinite(loss):
        raise Wrong(
            f"your loss is {loss}: the logarithm of a sigmoid of -200 is that of 0; take "
            "binary_cross_entropy_with_logits(..., reduction='none'), which never leaves the logits"
        )
    p = torch.sigmoid(logits)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = (p - target).abs()
    mistakes = (
        (weight * entropy, weight, "this is the cross-entropy, with nothing turned down"),
        (weight * missed * entropy, weight, "how wrong a pixel is comes squared"),
        (
            weight * (1 - p) ** 2 * entropy,
            weight,
            "1 - p is how wrong a pixel is where there is spine; where there is none, that is p",
        ),
        (
            weight * (1 - missed) ** 2 * entropy,
            weight,
            "this turns down the pixels that are wrong: the factor is one minus the probability of "
            "the right answer",
        ),
        (
            weight * missed**2 * entropy,
            torch.ones_like(weight),
            "the mean runs over all pixels: divide by the number of those that are known",
        ),
        (missed**2 * entropy, torch.ones_like(weight), "pixels of weight 0 count: leave them out"),
        (weight * missed**2 * entropy, torch.ones(1), "this is the sum: take the mean"),
    )
    for parts, count, message in mistakes:
        if math.isclose(loss, (parts.sum() / count.sum()).item(), rel_tol=1e-3):
            raise Wrong(f"your loss is {loss:.4g} instead of {right:.4g}: {message}")
    raise Wrong(
        f"your loss is {loss:.4g} instead of {right:.4g}: each pixel has its own cross-entropy and "
        "its own factor; the mean comes last"
    )


# --- 6.4 ------------------------------------------------------------------------------------------


def warm_up_cosine(step: int, steps: int, highest: float, warm_up: int) -> float:
    """Return the learning rate of a step; see the exercise."""
    if step < warm_up:
        return highest * (step + 1) / warm_up
    gone = (step - warm_up) / (steps - warm_up)
    return highest * (0.5 + 0.5 * math.cos(math.pi * gone))


def _judge_schedule(function: Callable, arguments: tuple) -> None:
    step, steps, highest, warm_up = arguments
    right = warm_up_cosine(step, steps, highest, warm_up)
    rate = function(step, steps, highest, warm_up)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise Wrong(f"return a number, and not {describe(rate)}")
    if math.isclose(rate, right, rel_tol=1e-6, abs_tol=1e-9 * highest):
        return
    raise Wrong(f"step {step} has {rate:.4g} instead of {right:.4g}: {_why_rate(rate, *arguments)}")


def _why_rate(rate: float, step: int, steps: int, highest: float, warm_up: int) -> str:
    way = (step - warm_up) / (steps - warm_up)
    whole = step / steps
    rising = (
        (highest * step / warm_up, "the first step would do nothing: the line starts one up"),
        (highest, "there is no warm-up: the first steps of a run are the ones that go astray"),
    )
    falling = (
        (highest * (1 - way), "this falls in a straight line: take half a cosine wave"),
        (
            highest * (1 + math.cos(math.pi * whole)) / 2,
            "the wave starts at step 0: count from the end of the warm-up",
        ),
        (
            highest * (1 + math.cos(math.pi * (step - warm_up) / steps)) / 2,
            "the wave is too long: it has steps - warm_up steps to go",
        ),
        (
            highest * (1 + math.cos(2 * math.pi * way)) / 2,
            "this is a whole wave, down and up again: half a wave goes from 0 to pi",
        ),
        (highest * math.cos(math.pi * way), "a cosine runs from 1 to -1: bring it to 1 to 0"),
        (highest * (1 + math.cos(180 * way)) / 2, "math.cos takes radians: half a wave is pi"),
        (highest, "it stays at its highest: the wave starts after the warm-up"),
        (
            highest * math.cos(math.pi / 2 * way),
            "this is a quarter of a wave: half a wave goes from 0 to pi, between 1 and -1",
        ),
        (
            highest * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up - 1))) / 2,
            "the wave reaches 0 one step too early: it would do so at step number `steps`",
        ),
        (
            highest * (step + 1) / warm_up,
            "the line goes on for too long: its last step is number warm_up - 1",
        ),
    )
    for value, message in rising if step < warm_up else falling:
        if math.isclose(rate, value, rel_tol=1e-6, abs_tol=1e-9 * highest):
            return message
    return "draw the rates of all steps, and look where the line ends and the wave starts and ends"


EXERCISES = declare(
    __file__,
    {
        "6.1": (lambda: [a_training(0), a_training(1, training=False), a_training(2)], judge_step),
        "6.2": (lambda: [some_logits(0), some_logits(1), some_logits(2)], _judge_dice),
        "6.3": (
            lambda: [some_logits(3), some_logits(4), some_logits(5, extreme=True)],
            _judge_focal,
        ),
        "6.4": (
            lambda: [
                *((step, 100, 1e-3, 10) for step in (0, 4, 9, 10, 40, 80, 99)),
                *((step, 60, 0.02, 20) for step in (0, 25, 40, 59)),
            ],
            _judge_schedule,
        ),
        "6.5": (
            lambda: [an_accumulation(0, 8, 2), an_accumulation(1, 12, 4), an_accumulation(2, 7, 3)],
            judge_accumulate,
        ),
        "6.6": (lambda: [a_run(0, 3), a_run(1, 5)], judge_checkpoint),
    },
)
