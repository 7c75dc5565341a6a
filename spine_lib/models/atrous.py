"""Lesson 5: what an atrous convolution does, and how far a stack of layers sees.

The taps of an atrous kernel ("with holes") lie `rate` pixels apart, which is also called dilation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.models.resnet import STAGE_BLOCKS, stride_or_rate


class Layer(NamedTuple):
    """What a convolution or pooling means for the receptive field."""

    kernel: int
    stride: int = 1
    rate: int = 1


def atrous_convolution(image_hw: np.ndarray, kernel: np.ndarray, rate: int) -> np.ndarray:
    """Return an image convolved with a kernel with holes, which is not flipped, as in networks.

    Args:
        image_hw: float array [row, column]; beyond its edges there are zeros.
        kernel: float array [row, column] with an odd number of each.
        rate: distance between two taps of the kernel, in pixels; 1 leaves no holes.

    Returns:
        float64 array of the image's shape.

    Raises:
        SpineError: if the kernel has no middle or the rate is below 1.

    Example:
        >>> atrous_convolution(np.eye(3)[1:2], np.ones((1, 3)), rate=1)
        array([[1., 1., 1.]])
    """
    rows, columns = kernel.shape
    if rows % 2 == 0 or columns % 2 == 0 or rate < 1:
        raise SpineError(
            f"a kernel of {rows} x {columns} at rate {rate} has no middle tap: give odd sides and "
            "a rate of 1 or more"
        )
    top, left = rate * (rows // 2), rate * (columns // 2)
    padded = np.pad(image_hw.astype(np.float64), ((top, top), (left, left)))
    height, width = image_hw.shape
    result = np.zeros((height, width))
    for (row, column), weight in np.ndenumerate(kernel):
        above, beside = rate * row, rate * column
        result += weight * padded[above : above + height, beside : beside + width]
    return result


def effective_kernel(kernel: int, rate: int) -> int:
    """Return how many pixels a kernel with holes spans: `kernel` taps, `rate` apart.

    Example:
        >>> effective_kernel(3, 1), effective_kernel(3, 2), effective_kernel(3, 12)
        (3, 5, 25)
    """
    return rate * (kernel - 1) + 1


def receptive_field(layers: Iterable[Layer | tuple[int, int, int]]) -> int:
    """Return the side of the square of input pixels on which one output pixel depends.

    Args:
        layers: kernel, stride and rate of each layer, from the image on.

    Returns:
        The side in pixels of the input. Source: Araujo et al. 2019, doi:10.23915/distill.00021.

    Example:
        >>> receptive_field([(3, 1, 1), (3, 1, 1)]), receptive_field([(3, 2, 1), (3, 1, 1)])
        (5, 7)
    """
    side, step = 1, 1
    for kernel, stride, rate in layers:
        side += (effective_kernel(kernel, rate) - 1) * step
        step *= stride
    return side


def encoder_layers(output_stride: int = 32, stages: int = 4) -> list[Layer]:
    """Return the layers on the longest path through ResNet-34.

    Args:
        output_stride: 8, 16 or 32.
        stages: how many of the four to include.
    """
    layers, reached = [Layer(7, 2), Layer(3, 2)], 4
    for number, blocks in enumerate(STAGE_BLOCKS[:stages]):
        stride, rate = stride_or_rate(4 * 2**number, reached, output_stride)
        layers += [Layer(3, stride, rate), *[Layer(3, 1, rate)] * (2 * blocks - 1)]
        reached *= stride
    return layers


def tap_share(size: int, rate: int) -> float:
    """Return which share of a 3 x 3 kernel's taps lies on the map, not on the zeros around it.

    Args:
        size: rows and columns of the map.
        rate: of the kernel.

    Returns:
        The mean over all places of the kernel, from 1/9 (only ever the middle tap) to 1.

    Example:
        >>> round(9 * tap_share(4, 1), 2), round(9 * tap_share(4, 12), 2)
        (6.25, 1.0)
    """
    along_a_line = (size + 2 * max(size - rate, 0)) / (3 * size)
    return along_a_line**2


def pixel_gradient(network: nn.Module, size: int, in_channels: int = 1) -> np.ndarray:
    """Return how much each input pixel moves the middle pixel of a network's output.

    Args:
        network: maps [batch, in_channels, row, column] to maps of any size; of several outputs the
            last counts. It is asked in evaluation mode.
        size: rows and columns of the input.
        in_channels: of the input.

    Returns:
        float array [row, column], absolute gradients, summed over channels, for an input of noise.
    """
    like = next(network.parameters(), torch.empty(0))
    noise = torch.rand(1, in_channels, size, size, generator=torch.Generator().manual_seed(0))
    image = noise.to(like).requires_grad_()
    was_training = network.training
    output = network.eval()(image)
    network.train(was_training)
    output = output[-1] if isinstance(output, list) else output
    middle = output[0, :, output.shape[-2] // 2, output.shape[-1] // 2]
    (gradient,) = torch.autograd.grad(middle.sum(), image)
    return gradient[0].abs().sum(0).cpu().numpy()


def open_all_paths(network: nn.Module) -> nn.Module:
    """Return a copy of a network in which no path is blocked, to see what it *could* depend on.

    All weights become the same positive number, batch normalisation does nothing and pooling takes
    the mean, in float64.
    """
    network = copy.deepcopy(network).double().eval()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        if isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, nn.Identity())
        if isinstance(layer, nn.MaxPool2d):
            mean = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
            network.set_submodule(name, mean)
    return network


def side_seen(gradient_hw: np.ndarray) -> int:
    """Return the side of the square around all input pixels with a gradient.

    Args:
        gradient_hw: array [row, column]; 0 where a pixel has no influence.

    Raises:
        SpineError: if there is no such pixel.
    """
    rows, columns = np.nonzero(gradient_hw)
    if rows.size == 0:
        raise SpineError("no input pixel has a gradient: is the network's output constant?")
    return int(max(np.ptp(rows), np.ptp(columns))) + 1
