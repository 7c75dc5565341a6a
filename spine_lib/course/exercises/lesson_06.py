"""Exercises of lesson 6: a training step, two losses, a schedule, accumulation, a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

from spine_lib.course.exercise import Exercise, Wrong, describe
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

# --- 6.1 ------------------------------------------------------------------------------------------

STEP_STUB = '''\
def training_step(network, optimiser, image, target):
    """Do one step of training: the weights change a little, so that the loss gets smaller.

    network:   maps images to logits; it may be in evaluation mode, and is to be in training mode.
    optimiser: holds the network's weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column].
    target:    float32 tensor of the same shape, 0 or 1.
    returns the loss before the step, a Python number: the mean binary cross-entropy, which takes
    logits (torch.nn.functional.binary_cross_entropy_with_logits).
    """
    raise NotImplementedError
'''


# --- 6.2 ------------------------------------------------------------------------------------------

DICE_STUB = '''\
def soft_dice_loss(logits, target, weight):
    """Return one minus the soft Dice of a whole batch, a tensor that has a slope.

    logits: float32 tensor [batch, 1, row, column]; a sigmoid makes probabilities p of them.
    target: float32 tensor t of the same shape, 0 or 1.
    weight: float32 tensor w of the same shape; 0 where nobody knows the label: such a pixel must
            not count anywhere.
    The soft Dice is (2 * sum(p t w) + 10) / (sum(p w) + sum(t w) + 10), each sum over all pixels
    of the batch. The 10 keeps a batch without spine from dividing 0 by 0.
    """
    raise NotImplementedError
'''


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

FOCAL_STUB = '''\
def focal_loss(logits, target, weight):
    """Return the focal loss of a batch, a tensor that has a slope.

    logits: float32 tensor [batch, 1, row, column], sometimes as large as 200.
    target: float32 tensor of the same shape, 0 or 1.
    weight: float32 tensor of the same shape, 1 where the label is known and 0 elsewhere.
    Each pixel's cross-entropy is multiplied by the square of how wrong the pixel is: of one minus
    the probability that the network gives to the right answer. The loss is the mean of that over
    the pixels whose label is known.
    """
    raise NotImplementedError
'''


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

SCHEDULE_STUB = '''\
def learning_rate(step, steps, highest, warm_up):
    """Return the learning rate of one step: a straight line up, then half a cosine wave down.

    step:    number of the step, from 0.
    steps:   how many there are; the wave would reach 0 at a step of that number.
    highest: reached in the last step of the warm-up, and still there in the one after it.
    warm_up: number of steps that the line takes; the first of them has highest / warm_up.
    """
    raise NotImplementedError
'''


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


# --- 6.5 ------------------------------------------------------------------------------------------

ACCUMULATE_STUB = '''\
def accumulated_step(network, optimiser, image, target, parts):
    """Do one step on a batch that does not fit into memory, in several parts.

    network:   maps images to logits; it has no BatchNorm.
    optimiser: holds its weights; gradients of an earlier step may still be there.
    image:     float32 tensor [batch, 1, row, column]; target is of the same shape.
    parts:     how many parts to cut the batch into (torch.tensor_split makes them nearly equal).
    The weights end where one step on the mean binary cross-entropy of the whole batch would bring
    them. returns that mean, a Python number.
    """
    raise NotImplementedError
'''


# --- 6.6 ------------------------------------------------------------------------------------------

CHECKPOINT_STUB = '''\
def make_checkpoint(network, optimiser, schedule, step):
    """Gather all that a run needs to go on after a stop as if there had been none.

    network:   with dropout, which draws from PyTorch's random numbers (torch.get_rng_state).
    optimiser: AdamW, which remembers a mean gradient for every weight.
    schedule:  of the learning rate.
    step:      number of steps done.
    returns a dict with the keys "network", "optimiser", "schedule", "random" and "step". It is
    written by torch.save and read by torch.load(..., weights_only=True), which takes tensors,
    numbers and containers of them, and refuses objects that could run code.
    """
    raise NotImplementedError
'''


EXERCISES = (
    Exercise(
        "6.1",
        "A training step",
        STEP_STUB,
        lambda: [a_training(0), a_training(1, training=False), a_training(2)],
        judge_step,
        (
            "Five lines: mode, loss, clear, backward, step. Gradients are added to what is there.",
            "network.train(); loss = ...(network(image), target); optimiser.zero_grad(); "
            "loss.backward(); optimiser.step(). loss.item() is a Python number.",
            "A network that answers 0 everywhere has a loss of log(2), about 0.693; after one step "
            "on the same batch it must be lower.",
        ),
        changes_inputs=True,
    ),
    Exercise(
        "6.2",
        "Soft Dice",
        DICE_STUB,
        lambda: [some_logits(0), some_logits(1), some_logits(2)],
        _judge_dice,
        (
            "Multiply the probabilities by the weights first; then all sums are easy.",
            "torch.sigmoid(logits) * weight; .sum() without arguments runs over the whole batch "
            "and returns a tensor of shape ().",
            "For logits of 0 on 10 pixels, all of them spine and known, it is "
            "1 - (2 * 5 + 10) / (5 + 10 + 10) = 0.2.",
        ),
    ),
    Exercise(
        "6.3",
        "Focal loss",
        FOCAL_STUB,
        lambda: [some_logits(3), some_logits(4), some_logits(5, extreme=True)],
        _judge_focal,
        (
            "The right answer's probability is p where there is spine and 1 - p where there is "
            "none.",
            "functional.binary_cross_entropy_with_logits(logits, target, reduction='none') keeps "
            "one value a pixel; one minus the right answer's probability is |p - target|.",
            "For logits of 0 everywhere it is 0.25 * log(2), about 0.173, whatever the target.",
        ),
    ),
    Exercise(
        "6.4",
        "A schedule",
        SCHEDULE_STUB,
        lambda: [
            *((step, 100, 1e-3, 10) for step in (0, 4, 9, 10, 40, 80, 99)),
            *((step, 60, 0.02, 20) for step in (0, 25, 40, 59)),
        ],
        _judge_schedule,
        (
            "Two cases: before the end of the warm-up, and after it.",
            "After the warm-up, the way gone is (step - warm_up) / (steps - warm_up), from 0 to 1; "
            "(1 + cos(pi * way)) / 2 falls from 1 to 0.",
            "With 100 steps, a highest rate of 1 and a warm-up of 10: step 0 has 0.1, steps 9 and "
            "10 have 1, and step 55 has 0.5.",
        ),
    ),
    Exercise(
        "6.5",
        "A batch in parts",
        ACCUMULATE_STUB,
        lambda: [an_accumulation(0, 8, 2), an_accumulation(1, 12, 4), an_accumulation(2, 7, 3)],
        judge_accumulate,
        (
            "backward adds to the gradients that are there; so clear once, add several times, step "
            "once.",
            "The mean over the batch is the sum of the parts' means, each times its share "
            "len(part) / len(image).",
            "With 7 images in 3 parts, the shares are 3/7, 2/7 and 2/7.",
        ),
        changes_inputs=True,
    ),
    Exercise(
        "6.6",
        "A checkpoint",
        CHECKPOINT_STUB,
        lambda: [a_run(0, 3), a_run(1, 5)],
        judge_checkpoint,
        (
            "Ask of everything that changes during a run: would it be the same after a start?",
            "Networks, optimisers and schedules have state_dict(), a dict of numbers and tensors.",
            "AdamW keeps two tensors for every weight: its checkpoint is about three times as "
            "large as the network's weights.",
        ),
    ),
)
