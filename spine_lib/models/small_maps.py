"""Lesson 6: convolutions over maps of few pixels as one matrix product each, which CPUs do faster.

Deep in a network a patch of 64 pixels is a map of 2 x 2 or 4 x 4 with hundreds of channels. oneDNN
then spends most of a convolution's time on bringing millions of weights into its own order.
"""

import torch
from torch import nn
from torch.nn import functional

# Maps of more pixels than this, and convolutions from fewer channels, go to oneDNN.
MOST_PIXELS, LEAST_CHANNELS = 16, 256


class SmallMapConv2d(nn.Conv2d):
    """An `nn.Conv2d` that computes the same as a matrix product where maps are small."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [batch, in_channels, row, column] to [batch, out_channels, ...], up to rounding."""
        (high, wide), (step, _), (rate, _) = self.kernel_size, self.stride, self.dilation
        rows, columns = (-(-n // step) for n in x.shape[2:])
        if x.device.type != "cpu" or rows * columns > MOST_PIXELS:
            return super().forward(x)
        x = functional.pad(x.permute(0, 2, 3, 1), (0, 0, *self.padding, *self.padding))
        starts = [(i * rate, j * rate) for i in range(high) for j in range(wide)]
        shifted = [
            x[:, i : i + step * rows : step, j : j + step * columns : step] for i, j in starts
        ]
        taps = torch.cat(shifted, dim=3).flatten(0, 2)
        result = functional.linear(taps, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias)
        return result.view(-1, rows, columns, self.out_channels).permute(0, 3, 1, 2)


def multiply_small_maps(network: nn.Module) -> nn.Module:
    """Return a network whose deep convolutions become `SmallMapConv2d`, in place; weights stay."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and _fits(layer):
            layer.__class__ = SmallMapConv2d
    return network


def _fits(layer: nn.Conv2d) -> bool:
    """Return whether a convolution has many channels, is square and keeps its map's size."""
    kernel, rate, padding, step = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    return (
        layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.in_channels >= LEAST_CHANNELS
        and all(len(set(pair)) == 1 for pair in (kernel, rate, padding, step))
        and 2 * padding[0] == rate[0] * (kernel[0] - 1)
    )
