"""Typical mistakes in the exercises of lesson 5, each with words of the message meant for it."""

import numpy as np
import torch
from scipy import ndimage
from torch import nn


def _taps(image, kernel, rate, mode="constant"):
    padded = np.pad(image, rate, mode=mode)
    rows, columns = image.shape
    return sum(
        kernel[i, j] * padded[i * rate : i * rate + rows, j * rate : j * rate + columns]
        for i in range(3)
        for j in range(3)
    )


def _with_holes(kernel, rate):
    wide = np.zeros((2 * rate + 1, 2 * rate + 1))
    wide[::rate, ::rate] = kernel
    return wide


def turns_the_kernel(image, kernel, rate):
    """Take scipy's convolve, which turns the kernel."""
    return ndimage.convolve(image, _with_holes(kernel, rate), mode="constant")


def ignores_the_rate(image, kernel, rate):
    """Do the ordinary convolution."""
    return ndimage.correlate(image, kernel, mode="constant")


def puts_rate_zeros_between(image, kernel, rate):
    """Leave as many pixels between the taps as the rate."""
    return _taps(image, kernel, rate + 1)


def does_not_pad(image, kernel, rate):
    """Compute only where all taps lie inside."""
    return _taps(image, kernel, rate)[rate:-rate, rate:-rate]


def wraps_round(image, kernel, rate):
    """Move the image with np.roll."""
    return sum(
        kernel[i, j] * np.roll(image, ((1 - i) * rate, (1 - j) * rate), (0, 1))
        for i in range(3)
        for j in range(3)
    )


def mirrors_at_the_edge(image, kernel, rate):
    """Leave scipy's edge rule as it is."""
    return ndimage.correlate(image, _with_holes(kernel, rate))


def swaps_rows_and_columns(image, kernel, rate):
    """Take the column of the kernel for the row."""
    return _taps(image, kernel.T, rate)


def counts_its_own_stride(layers):
    """Lengthen the step before the kernel is added."""
    seen, step = 1, 1
    for kernel, stride, rate in layers:
        step *= stride
        seen += rate * (kernel - 1) * step
    return seen


def forgets_strides(layers):
    """Add up the kernels."""
    return 1 + sum(rate * (kernel - 1) for kernel, _, rate in layers)


def forgets_rates(layers):
    """Add up kernels without holes."""
    seen, step = 1, 1
    for kernel, stride, _ in layers:
        seen += (kernel - 1) * step
        step *= stride
    return seen


def multiplies_kernel_and_rate(layers):
    """Take kernel times rate for the span."""
    seen, step = 1, 1
    for kernel, stride, rate in layers:
        seen += (kernel * rate - 1) * step
        step *= stride
    return seen


def begins_with_nothing(layers):
    """Forget the pixel itself."""
    seen, step = 0, 1
    for kernel, stride, rate in layers:
        seen += rate * (kernel - 1) * step
        step *= stride
    return seen


def adds_whole_kernels(layers):
    """Add the whole span of each kernel."""
    seen, step = 0, 1
    for kernel, stride, rate in layers:
        seen += (rate * (kernel - 1) + 1) * step
        step *= stride
    return seen


def _gradient(network, size, pick):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    pick(network(image)).backward()
    return image.grad[0, 0].numpy()


def _middle(output):
    return output[0, 0, output.shape[-2] // 2, output.shape[-1] // 2]


def _side(gradient):
    rows, columns = np.nonzero(gradient)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def sums_the_output(network, size):
    """Go backward from everything."""
    return _side(_gradient(network.eval(), size, torch.sum))


def stays_in_training_mode(network, size):
    """Leave the network as it was given."""
    return _side(_gradient(network, size, _middle))


def counts_pixels(network, size):
    """Return how many pixels have a gradient."""
    return int(np.count_nonzero(_gradient(network.eval(), size, _middle)))


def forgets_the_last_row(network, size):
    """Subtract first from last."""
    return _side(_gradient(network.eval(), size, _middle)) - 1


def counts_columns(network, size):
    """Count the columns that have a gradient, holes left out."""
    return int(np.count_nonzero(_gradient(network.eval(), size, _middle).any(axis=0)))


def takes_the_corner(network, size):
    """Take the first output pixel."""
    return _side(_gradient(network.eval(), size, lambda output: output[0, 0, 0, 0]))


def _convolutions(stage, kernel=None):
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d) and kernel in (None, layer.kernel_size[0]):
            yield layer


def takes_the_stride_away_only(stage, rate):
    """Set the strides and nothing else."""
    for layer in _convolutions(stage):
        layer.stride = (1, 1)
    return stage


def forgets_the_padding(stage, rate):
    """Set stride and dilation."""
    for layer in _convolutions(stage):
        layer.stride, layer.dilation = (1, 1), (rate, rate)
    return stage


def forgets_the_shortcut(stage, rate):
    """Change the 3 x 3 convolutions alone."""
    for layer in _convolutions(stage, 3):
        layer.stride, layer.dilation, layer.padding = (1, 1), (rate, rate), (rate, rate)
    return stage


def pads_the_shortcut(stage, rate):
    """Treat all convolutions alike."""
    for layer in _convolutions(stage):
        layer.stride, layer.dilation, layer.padding = (1, 1), (rate, rate), (rate, rate)
    return stage


def dilates_only_where_the_stride_was(stage, rate):
    """Dilate the first convolution alone."""
    for layer in _convolutions(stage):
        if layer.stride == (2, 2):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation, layer.padding = (rate, rate), (rate, rate)
    return stage


def makes_new_layers(stage, rate):
    """Build the stage anew."""
    from spine_lib.models.resnet import make_stage

    return make_stage(4, 6, len(stage), 1, rate)


def looks_at_the_middle(size, rate):
    """Count taps around the middle pixel."""
    return 1.0 if rate <= size // 2 else 1 / 9


def counts_taps(size, rate):
    """Return how many taps lie inside."""
    return (1 + 2 * max(size - rate, 0) / size) ** 2


def counts_along_one_line(size, rate):
    """Forget the other axis."""
    return (1 + 2 * max(size - rate, 0) / size) / 3


def is_off_by_one(size, rate):
    """Count places wrongly."""
    return ((1 + 2 * max(size - rate - 1, 0) / size) / 3) ** 2


def counts_below_zero(size, rate):
    """Let a tap miss more often than there are places."""
    return ((1 + 2 * (size - rate) / size) / 3) ** 2


def shrinks_low(deep, low, fuse):
    """Bring the fine map to the size of the coarse one."""
    small = nn.functional.interpolate(low, size=deep.shape[-2:], mode="bilinear")
    return fuse(torch.cat([deep, small], dim=1))


def repeats_pixels(deep, low, fuse):
    """Leave interpolate's mode as it is."""
    large = nn.functional.interpolate(deep, size=low.shape[-2:])
    return fuse(torch.cat([large, low], dim=1))


def leaves_corners_loose(deep, low, fuse):
    """Leave align_corners as it is."""
    large = nn.functional.interpolate(deep, size=low.shape[-2:], mode="bilinear")
    return fuse(torch.cat([large, low], dim=1))


def joins_in_the_other_order(deep, low, fuse):
    """Put the fine map first."""
    large = nn.functional.interpolate(
        deep, size=low.shape[-2:], mode="bilinear", align_corners=True
    )
    return fuse(torch.cat([low, large], dim=1))


def does_not_fuse(deep, low, fuse):
    """Return the joined maps."""
    large = nn.functional.interpolate(
        deep, size=low.shape[-2:], mode="bilinear", align_corners=True
    )
    return torch.cat([large, low], dim=1)


MISTAKES = {
    "5.1": [
        (turns_the_kernel, "you turned the kernel round"),
        (ignores_the_rate, "this is the ordinary convolution"),
        (puts_rate_zeros_between, "leaves 1 out between two taps"),
        (does_not_pad, "2 zeros belong on every side"),
        (wraps_round, "as np.roll does it"),
        (mirrors_at_the_edge, "neither mirrored nor repeated"),
        (swaps_rows_and_columns, "rows and columns of the kernel are exchanged"),
    ],
    "5.2": [
        (counts_its_own_stride, "own stride counts for the layers after it"),
        (forgets_strides, "one step on the map is two input pixels"),
        (forgets_rates, "the rates are left out"),
        (multiplies_kernel_and_rate, "spans 9 pixels and not 12"),
        (begins_with_nothing, "begin with 1"),
        (adds_whole_kernels, "adds 2 to what was seen"),
    ],
    "5.3": [
        (sums_the_output, "take it from one output pixel"),
        (stays_in_training_mode, "call network.eval() first"),
        (counts_pixels, "return the side of the square"),
        (forgets_the_last_row, "one too few"),
        (counts_columns, "there are holes between them"),
        (takes_the_corner, "near the middle"),
    ],
    "5.4": [
        (takes_the_stride_away_only, "has a dilation of 1 and should have 2"),
        (forgets_the_padding, "the padding must grow"),
        (forgets_the_shortcut, "of the shortcut"),
        (pads_the_shortcut, "needs no padding"),
        (dilates_only_where_the_stride_was, "in every block"),
        (makes_new_layers, "other weights"),
    ],
    "5.5": [
        (looks_at_the_middle, "the middle of the map alone"),
        (counts_taps, "divide by nine"),
        (counts_along_one_line, "in rows and in columns"),
        (is_off_by_one, "off by one"),
        (counts_below_zero, "more often than there are places"),
    ],
    "5.6": [
        (shrinks_low, "low was shrunk"),
        (repeats_pixels, "by repeating pixels"),
        (leaves_corners_loose, "align_corners=False"),
        (joins_in_the_other_order, "in the other order"),
        (does_not_fuse, "joined the maps and stopped"),
    ],
}
