"""Exercises of lesson 4: blocks, parameters, one batch, boundaries, other people's weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from spine_lib import metrics
from spine_lib.course.exercise import Wrong, declare, describe, raise_known
from spine_lib.course.one_batch import fit_one_batch
from spine_lib.models.unet import UNet, unet_parameters

# --- 4.1 ------------------------------------------------------------------------------------------


def _judge_double(function: Callable, inputs, outputs) -> None:
    block = function(inputs, outputs)
    if not isinstance(block, nn.Module):
        raise Wrong(f"return a network, a torch.nn.Module, and not {describe(block)}")
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    _judge_convolutions(convolutions, inputs, outputs)
    _judge_norms(norms, convolutions, outputs)
    _judge_order(block, convolutions, norms)


def _judge_order(block: nn.Module, convolutions: list, norms: list) -> None:
    inputs = convolutions[0].in_channels
    generator = torch.Generator().manual_seed(inputs)
    image = torch.randn(2, inputs, 10, 12, generator=generator)
    right = _apply(convolutions, norms, image, "cnr", "cnr")
    answer = block.train()(image.clone()).detach()
    if answer.shape != right.shape:
        raise Wrong(
            f"your block makes {tuple(answer.shape)} of {tuple(image.shape)}, and it should make "
            f"{tuple(right.shape)}"
        )
    if torch.allclose(answer, right, atol=1e-5):
        return
    mistakes = (
        ("cnr", "cn", "the last ReLU is missing: your block gives negative numbers"),
        ("cn", "cnr", "the ReLU between the two looks is missing"),
        ("cn", "cn", "there is no ReLU: two convolutions in a row can do no more than one"),
        ("crn", "crn", "normalise before the ReLU, not after it"),
    )
    for first, second, message in mistakes:
        if torch.allclose(answer, _apply(convolutions, norms, image, first, second), atol=1e-5):
            raise Wrong(message)
    raise Wrong(
        "your layers are the right ones, and what they give is not: apply convolution, "
        "normalisation and ReLU, and the same once more"
    )


def _judge_convolutions(convolutions: list[nn.Conv2d], inputs: int, outputs: int) -> None:
    if len(convolutions) != 2:
        raise Wrong(f"your block has {len(convolutions)} convolutions, and it should have two")
    for number, (layer, wanted) in enumerate(zip(convolutions, (inputs, outputs)), 1):
        if (layer.in_channels, layer.out_channels) != (wanted, outputs):
            raise Wrong(
                f"convolution {number} goes from {layer.in_channels} to {layer.out_channels} "
                f"channels, and it should go from {wanted} to {outputs}"
            )
        if layer.kernel_size != (3, 3):
            raise Wrong(f"convolution {number} has a kernel of {layer.kernel_size}: take 3 x 3")
        if layer.padding not in ((1, 1), "same"):
            raise Wrong(
                f"convolution {number} loses a row and a column at each edge: padding=1 puts zeros "
                "around the map first"
            )


@torch.no_grad()
def _apply(convolutions: list, norms: list, image: torch.Tensor, *orders: str) -> torch.Tensor:
    """Apply two orders of layers; "cnr" stands for convolution, normalisation, ReLU."""
    for convolution, norm, order in zip(convolutions, norms, orders):
        for letter in order:
            if letter == "c":
                image = functional.conv2d(image, convolution.weight, padding=1)
            elif letter == "n":
                image = functional.batch_norm(
                    image, None, None, norm.weight, norm.bias, training=True
                )
            else:
                image = functional.relu(image)
    return image


def _judge_norms(norms: list[nn.BatchNorm2d], convolutions: list, outputs: int) -> None:
    if len(norms) != 2:
        raise Wrong(
            f"your block has {len(norms)} batch normalisations: each convolution has its own"
        )
    if any(norm.num_features != outputs for norm in norms):
        raise Wrong(
            f"a normalisation takes {norms[0].num_features} channels: each stands behind its "
            f"convolution, which gives {outputs}"
        )
    if any(layer.bias is not None for layer in convolutions):
        raise Wrong(
            "your convolutions have a bias, which the normalisation behind takes away again: "
            "build them with bias=False"
        )


# --- 4.2 ------------------------------------------------------------------------------------------


def two_maps(seed: int, channels: int, others: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a small map and a skip of twice its size, every number another."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = 3 + seed % 3, 4 + seed % 2
    below = torch.randn(2, channels, rows, columns, generator=generator)
    return below, torch.randn(2, others, 2 * rows, 2 * columns, generator=generator)


def _judge_join(function: Callable, below, skip) -> None:
    answer = function(below, skip)
    if not isinstance(answer, torch.Tensor):
        raise Wrong(f"return a tensor, not {describe(answer)}")
    nearest = functional.interpolate(below, scale_factor=2)
    right = torch.cat([nearest, skip], dim=1)
    if answer.shape == right.shape and torch.allclose(answer, right, atol=1e-6):
        return
    smooth = [
        functional.interpolate(below, scale_factor=2, mode="bilinear", align_corners=corners)
        for corners in (False, True)
    ]
    blocks = "each pixel should become a block of 2 x 2 equal ones (mode nearest)"
    mistakes = {
        "the skip's channels come behind, not before": [torch.cat([skip, nearest], dim=1)],
        f"you interpolated linearly: {blocks}": [torch.cat([item, skip], dim=1) for item in smooth],
        f"you laid the whole map down four times: {blocks}": [
            torch.cat([below.repeat(1, 1, 2, 2), skip], dim=1)
        ],
        "the skip is missing: join the two along the channels": [nearest],
        "you added the two maps: a U-Net keeps both, side by side as channels": (
            [nearest + skip] if below.shape[1] == skip.shape[1] else []
        ),
        "you made the skip small instead of the map large, and lost its detail again": [
            torch.cat([below, functional.max_pool2d(skip, 2)], dim=1)
        ],
        "you joined along another axis: channels are axis 1": [
            torch.cat([nearest, skip], dim=d) for d in (0, 2, 3) if below.shape[1] == len(skip[0])
        ],
    }
    raise_known(answer.detach(), mistakes)
    if answer.shape != right.shape:
        raise Wrong(f"your map has shape {tuple(answer.shape)} instead of {tuple(right.shape)}")
    raise Wrong(f"the shape is right, and the values are not: {blocks}, with the skip behind")


# --- 4.3 ------------------------------------------------------------------------------------------


def _judge_count(function: Callable, *arguments) -> None:
    answer = function(*arguments)
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise Wrong(f"return a number, not {describe(answer)}")
    in_channels, classes, width, depth = arguments
    right = unet_parameters(*arguments)
    if answer == right:
        if not isinstance(answer, int | np.integer):
            raise Wrong("the value is right, but it is a float: parameters are whole numbers")
        return
    levels = [width * 2**level for level in range(depth + 1)]
    outputs = [*levels, *levels[:-1]]  # of all double convolutions
    seconds = sum(9 * channels**2 + 2 * channels for channels in outputs)
    mistakes = {
        "the skip's channels come in on the way up too": unet_parameters(*arguments, skips=False),
        "the normalisations are missing: a scale and a shift a channel": right - 4 * sum(outputs),
        "a normalisation learns two numbers a channel: scale and shift": right - 2 * sum(outputs),
        "the 3 x 3 convolutions have no bias": right + 2 * sum(outputs),
        "the head is missing": right - classes * (width + 1),
        "the head's 1 x 1 convolution has a bias, one for each class": right - classes,
        "each block convolves twice: the second time within its own channels": right - seconds,
    }
    raise_known(answer, mistakes, f"; you count {answer:,}, and there are {right:,}", 0, 0)
    for other in (depth - 1, depth + 1):
        if other >= 0 and answer == unet_parameters(in_channels, classes, width, other):
            raise Wrong(
                f"that is a network of depth {other}: the image is halved {depth} times, which "
                f"makes {depth + 1} levels"
            )
    raise Wrong(f"you count {answer:,}, and there are {right:,}")


# --- 4.4 ------------------------------------------------------------------------------------------


def a_batch(seed: int, steps: int, learning_rate: float) -> tuple:
    """Make a tiny U-Net in evaluation mode and a batch that it can learn."""
    torch.manual_seed(seed)
    network = UNet(width=4, depth=1).eval()
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 2:5, 1:6], target[1, 0, 4:7, 3:6] = 1, 1
    return network, target + 0.3 * torch.randn(2, 1, 8, 8), target, steps, learning_rate


FITTED_WRONGLY = {
    "eval": (
        "the network was in evaluation mode, so its normalisations used stored means instead of "
        "the batch's: call network.train() first"
    ),
    "sigmoid": (
        "the loss takes logits and has its own sigmoid: with a second one it can hardly fall"
    ),
    "no zero": (
        "gradients add up from step to step: clear them with optimiser.zero_grad() before backward"
    ),
    "sgd": "these are the losses of plain gradient descent (SGD): take torch.optim.AdamW",
}


def _judge_fit(function: Callable, *arguments) -> None:
    network, image, target, steps, learning_rate = arguments
    student = copy.deepcopy(network)
    losses = function(student, image.clone(), target.clone(), steps, learning_rate)
    if not isinstance(losses, list | tuple):
        raise Wrong(f"return a list with the loss of each step, not {describe(losses)}")
    if len(losses) != steps:
        raise Wrong(f"your list has {len(losses)} losses, and there are {steps} steps")
    if any(isinstance(loss, torch.Tensor) for loss in losses):
        raise Wrong(
            "your losses are tensors, each of which keeps all maps of its step in memory: take the "
            "number with loss.item()"
        )
    if _same_weights(student, network):
        raise Wrong(
            "the network's weights are as they were: each step needs loss.backward(), which finds "
            "the gradients, and optimiser.step(), which follows them"
        )
    right = _fitted(*arguments)
    if np.allclose(losses, right, rtol=5e-3, atol=1e-4):
        return
    for mistake, message in FITTED_WRONGLY.items():
        if np.allclose(losses, _fitted(*arguments, mistake), rtol=5e-3, atol=1e-4):
            raise Wrong(message)
    if np.allclose(losses[:-1], right[1:], rtol=5e-3, atol=1e-4):
        raise Wrong("your losses are those after each step: keep the one that the step was for")
    step = int(np.argmax(~np.isclose(losses, right, rtol=5e-3, atol=1e-4)))
    raise Wrong(
        f"the loss of step {step} is {losses[step]:.4f}, and it should be {right[step]:.4f} "
        f"(the first one {right[0]:.4f}): logits, loss, clear gradients, backward, step"
    )


def _fitted(network: nn.Module, *rest: object) -> list[float]:
    return fit_one_batch(copy.deepcopy(network), *rest)


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


# --- 4.5 ------------------------------------------------------------------------------------------


def two_masks(seed: int, spacing_mm: tuple[float, ...]) -> tuple:
    """Make two overlapping masks of different size, and an uneven spacing."""
    rng = np.random.default_rng([4, 5, seed])
    truth, prediction = np.zeros((2, 16, 18, 12), bool)
    truth[3:11, 4:13, 3:9] = True
    shift = rng.integers(0, 3)
    prediction[3 + shift : 12, 5:15, 2:8] = True
    prediction[13, 1:3, 9] = True  # a crumb, far from the rest
    return prediction, truth, spacing_mm


def _distances(a: np.ndarray, b: np.ndarray, spacing_mm: Iterable[float]) -> np.ndarray:
    return ndimage.distance_transform_edt(~b, sampling=tuple(spacing_mm))[a]


def _judge_boundary(function: Callable, prediction, truth, spacing_mm) -> None:
    answer = function(prediction, truth, spacing_mm)
    if isinstance(answer, np.ndarray) and answer.ndim or isinstance(answer, list | tuple):
        raise Wrong(f"return one number, and not {describe(answer)}")
    answer = float(answer)
    sides = metrics.surface_distances(prediction, truth, spacing_mm)
    right = (sides[0].mean() + sides[1].mean()) / 2
    if math.isclose(answer, right, rel_tol=1e-3):
        return
    voxels = metrics.surface_distances(prediction, truth, (1, 1, 1))
    turned = metrics.surface_distances(prediction, truth, spacing_mm[::-1])
    filled = [_distances(prediction, truth, spacing_mm), _distances(truth, prediction, spacing_mm)]
    mistakes = {
        "that is in voxels: distances need spacing_mm (sampling=... in scipy)": _mean(voxels),
        "your spacing is in reverse order: arrays here are [x, y, z]": _mean(turned),
        "that is one way only, from the prediction to the truth: what was missed would hardly "
        "count": sides[0].mean(),
        "that is one way only, from the truth to the prediction: what was predicted far away "
        "would not count": sides[1].mean(),
        "you took all voxels of the masks: most lie inside the other one and count 0; take the "
        "surfaces": _mean(filled),
        "that is the largest distance: take the mean": max(item.max() for item in sides),
        "the larger surface counts more in your mean: take the mean of each way "
        "first": np.concatenate(sides).mean(),
        "that is the sum of both ways: take half of it": right * 2,
    }
    raise_known(answer, mistakes, rtol=1e-3, atol=0)
    raise Wrong(f"you say {answer:.4g} mm, and the outlines are {right:.4g} mm apart")


def _mean(sides: Iterable[np.ndarray]) -> float:
    return float(np.mean([side.mean() for side in sides]))


# --- 4.6 ------------------------------------------------------------------------------------------


def two_states(seed: int, layers: int = 12) -> tuple[dict, dict]:
    """Make two state dictionaries of one network: other names, other values, one other shape."""
    generator = torch.Generator().manual_seed(seed)
    theirs, ours = {}, {}
    for number in range(layers):
        for part in ("weight", "bias"):
            shape = (3, 2, 3, 3) if part == "weight" else (3,)
            theirs[f"encoder.stage{number + 5}.{part}"] = torch.randn(shape, generator=generator)
            if number == seed % layers and part == "weight":
                shape = (3, 1, 3, 3)
            ours[f"blocks.{number}.conv.{part}"] = torch.randn(shape, generator=generator)
    return theirs, ours


def _judge_weights(function: Callable, theirs, ours) -> None:
    answer = function(theirs, ours)
    if not isinstance(answer, dict):
        raise Wrong(f"return a dictionary of names and tensors, not {describe(answer)}")
    if answer and set(answer) <= set(theirs):
        raise Wrong("these are their names: our network would find none of them; take ours")
    missing = [name for name in ours if name not in answer]
    if missing:
        raise Wrong(
            f"your answer lacks {missing[0]}: where shapes differ our own tensor stays, so that "
            "load_state_dict finds all names"
        )
    if set(answer) - set(ours):
        raise Wrong(f"our network has no layer {sorted(set(answer) - set(ours))[0]}")
    if all(_equal(answer[name], ours[name]) for name in ours):
        raise Wrong("nothing came over, all tensors are still ours: no two names are the same")
    for (name, own), (other, value) in zip(ours.items(), theirs.items()):
        right = value if value.shape == own.shape else own
        if _equal(answer[name], right):
            continue
        if _equal(answer[name], value):
            raise Wrong(
                f"our {name} has shape {tuple(own.shape)} and got their tensor of shape "
                f"{tuple(value.shape)}, which our layer cannot take: keep ours there"
            )
        if _equal(answer[name], own):
            raise Wrong(f"the tensor of {name} is still ours, although {other} has the same shape")
        source = next(
            (key for key, item in theirs.items() if _equal(item, answer[name])), "no layer"
        )
        raise Wrong(
            f"our {name} got the tensor of {source}, and its partner is {other}: pair them in the "
            "order of the dictionaries, not in that of the alphabet or of shapes"
        )
    if list(answer) != list(ours):
        raise Wrong("the names are in another order than in `ours`")


def _equal(a: object, b: torch.Tensor) -> bool:
    return isinstance(a, torch.Tensor) and a.shape == b.shape and torch.equal(a, b)


EXERCISES = declare(
    __file__,
    {
        "4.1": (lambda: [(1, 4), (3, 8), (6, 2)], _judge_double),
        "4.2": (lambda: [two_maps(0, 3, 2), two_maps(1, 4, 4), two_maps(2, 1, 5)], _judge_join),
        "4.3": (lambda: [(1, 1, 4, 2), (3, 5, 8, 3), (1, 2, 6, 4)], _judge_count),
        "4.4": (lambda: [a_batch(0, 12, 3e-3), a_batch(1, 8, 1e-2)], _judge_fit),
        "4.5": (
            lambda: [
                two_masks(0, (1.0, 1.0, 3.0)),
                two_masks(1, (0.8, 0.8, 2.5)),
                two_masks(2, (2.0, 1.5, 1.0)),
            ],
            _judge_boundary,
        ),
        "4.6": (lambda: [two_states(3), two_states(7), two_states(10)], _judge_weights),
    },
)
