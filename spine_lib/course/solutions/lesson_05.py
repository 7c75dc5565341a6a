"""Solutions of lesson 5."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spine_lib.course.exercises.lesson_05 import (
    a_small_network,
    a_stage,
    an_image_and_kernel,
    some_layers,
    some_maps,
)


def atrous_conv(image, kernel, rate):
    """Convolve an image with a kernel whose taps lie `rate` pixels apart."""
    rows, columns = image.shape
    padded = np.pad(image, rate)
    result = np.zeros((rows, columns))
    for i in range(3):
        for j in range(3):
            moved = padded[i * rate : i * rate + rows, j * rate : j * rate + columns]
            result += kernel[i, j] * moved
    return result


def receptive_field(layers):
    """Return the side of the square of input pixels that one output pixel depends on."""
    seen, step = 1, 1
    for kernel, stride, rate in layers:
        seen += rate * (kernel - 1) * step
        step *= stride
    return seen


def field_by_gradient(network, size):
    """Measure what one output pixel of a network depends on, by its gradient."""
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network.eval()(image)
    rows, columns = output.shape[-2:]
    output[0, 0, rows // 2, columns // 2].backward()
    touched_rows, touched_columns = np.nonzero(image.grad[0, 0].numpy())
    return int(max(np.ptp(touched_rows), np.ptp(touched_columns))) + 1


def dilate_stage(stage, rate):
    """Make a stage of an encoder keep the size of its map."""
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = (rate, rate)
                layer.padding = (rate, rate)
    return stage


def tap_share(size, rate):
    """Return the share of a 3 x 3 kernel's taps that lie on a map."""
    outer = max(size - rate, 0) / size
    along_a_line = (1 + 2 * outer) / 3
    return along_a_line**2


def decode(deep, low, fuse):
    """Do the step of DeepLabv3+'s decoder: enlarge, join, fuse."""
    enlarged = nn.functional.interpolate(
        deep, size=low.shape[-2:], mode="bilinear", align_corners=True
    )
    return fuse(torch.cat([enlarged, low], dim=1))


REFERENCES = {
    "5.1": atrous_conv,
    "5.2": receptive_field,
    "5.3": field_by_gradient,
    "5.4": dilate_stage,
    "5.5": tap_share,
    "5.6": decode,
}

HIDDEN = {
    "5.1": lambda: [(*an_image_and_kernel(31), 4), (*an_image_and_kernel(32), 1)],
    "5.2": lambda: [(some_layers(31),), ([],), ([(3, 1, 36)],)],
    "5.3": lambda: [(a_small_network(31, [(3, 2, 1), (3, 1, 4)], True), 64)],
    "5.4": lambda: [(a_stage(31, 4), 3)],
    "5.5": lambda: [(9, 4), (2, 36), (32, 12)],
    "5.6": lambda: [some_maps(31, 4), some_maps(32, 2)],
}
