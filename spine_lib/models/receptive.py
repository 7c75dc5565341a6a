"""Lessons 4 and 5: how far a stack of layers sees."""

from collections.abc import Iterable
from typing import NamedTuple

from spine_lib.models.resnet import STAGE_BLOCKS, stride_or_rate


class Layer(NamedTuple):
    """What a convolution or pooling means for the receptive field."""

    kernel: int
    stride: int = 1
    rate: int = 1


def receptive_field(layers: Iterable[Layer | tuple[int, int, int]]) -> int:
    """Return the side of the square of input pixels on which one output pixel depends.

    Args:
        layers: kernel, stride and rate (dilation) of each layer, from the image on.

    Returns:
        The side in pixels of the input. Source: Araujo et al. 2019, doi:10.23915/distill.00021.

    Example:
        >>> receptive_field([(3, 1, 1), (3, 1, 1)]), receptive_field([(3, 2, 1), (3, 1, 1)])
        (5, 7)
    """
    side, step = 1, 1
    for kernel, stride, rate in layers:
        side += rate * (kernel - 1) * step
        step *= stride
    return side


def encoder_layers(output_stride: int = 32, stages: int = 4) -> list[Layer]:
    """Return the layers on the longest path through ResNet-34 up to one of its four stages."""
    layers, reached = [Layer(7, 2), Layer(3, 2)], 4
    for number, blocks in enumerate(STAGE_BLOCKS[:stages]):
        stride, rate = stride_or_rate(4 * 2**number, reached, output_stride)
        layers += [Layer(3, stride, rate), *[Layer(3, 1, rate)] * (2 * blocks - 1)]
        reached *= stride
    return layers
