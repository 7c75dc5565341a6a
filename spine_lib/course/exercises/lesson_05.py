"""Exercises of lesson 5: holes in kernels, what a pixel sees, output stride, ASPP, decoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from spine_lib.course.exercise import Exercise, Wrong, describe, raise_known
from spine_lib.models.atrous import (
    atrous_convolution,
    effective_kernel,
    pixel_gradient,
    receptive_field,
    side_seen,
    tap_share,
)
from spine_lib.models.deeplab import enlarge
from spine_lib.models.resnet import make_stage

# --- 5.1 ------------------------------------------------------------------------------------------

ATROUS_STUB = '''\
def atrous_conv(image, kernel, rate):
    """Convolve an image with a kernel whose taps lie `rate` pixels apart, as conv2d does.

    image:  float array [row, column]; beyond its edges there are zeros.
    kernel: float array of shape (3, 3). Its middle tap lies on the pixel itself, and it is not
            turned round: kernel[0, 0] weighs the pixel above and to the left.
    rate:   1 for an ordinary kernel, 2 to leave out every second pixel, ...
    returns a float array of the image's shape.
    """
    raise NotImplementedError
'''


def an_image_and_kernel(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a small image and a kernel of 3 x 3 in which no two taps are alike."""
    rng = np.random.default_rng([5, 1, seed])
    return rng.normal(size=(9 + seed % 3, 12)).round(2), rng.normal(size=(3, 3)).round(2)


def _judge_atrous(function: Callable, arguments: tuple) -> None:
    image, kernel, rate = arguments
    answer = function(image, kernel, rate)
    if not isinstance(answer, np.ndarray):
        raise Wrong(f"return an array, not {describe(answer)}")
    if answer.shape != image.shape:
        raise Wrong(
            f"your result has shape {answer.shape} and the image {image.shape}: at rate {rate} the "
            f"outermost taps reach {rate} pixels out, so {rate} zeros belong on every side"
        )
    if np.allclose(answer, atrous_convolution(image, kernel, rate), atol=1e-6):
        return
    raise_known(answer, _other_convolutions(image, kernel, rate), atol=1e-6)
    if np.allclose(answer[rate:-rate, rate:-rate], _inner(image, kernel, rate), atol=1e-6):
        raise Wrong(
            "the middle of your result is right and its rim is not: beyond the edge of the image "
            "there are zeros, neither mirrored nor repeated pixels"
        )
    raise Wrong(
        f"your result is another one: for each of the nine taps, add its weight times the image "
        f"moved by {rate} or 0 pixels"
    )


def _other_convolutions(image: np.ndarray, kernel: np.ndarray, rate: int) -> list[tuple]:
    wrapped = sum(
        weight * np.roll(image, (rate * (1 - row), rate * (1 - column)), (0, 1))
        for (row, column), weight in np.ndenumerate(kernel)
    )
    return [
        (
            atrous_convolution(image, kernel[::-1, ::-1], rate),
            "you turned the kernel round, as mathematicians do: in a network kernel[0, 0] weighs "
            "the pixel above and to the left",
        ),
        (
            atrous_convolution(image, kernel, 1),
            f"this is the ordinary convolution: the taps should lie {rate} pixels apart",
        ),
        (
            atrous_convolution(image, kernel, rate + 1),
            f"your taps lie {rate + 1} pixels apart: a rate of {rate} leaves {rate - 1} out "
            "between two taps, not as many as the rate",
        ),
        (atrous_convolution(image, kernel.T, rate), "rows and columns of the kernel are exchanged"),
        (
            wrapped,
            "pixels that leave the image on one side come back on the other, as np.roll does it: "
            "beyond the edge there are zeros",
        ),
    ]


def _inner(image: np.ndarray, kernel: np.ndarray, rate: int) -> np.ndarray:
    return atrous_convolution(image, kernel, rate)[rate:-rate, rate:-rate]


# --- 5.2 ------------------------------------------------------------------------------------------

FIELD_STUB = '''\
def receptive_field(layers):
    """Return the side of the square of input pixels that one output pixel depends on.

    layers: list of (kernel, stride, rate), from the image on; for example [(7, 2, 1), (3, 1, 2)]
            is a 7 x 7 convolution of stride 2, then a 3 x 3 one of rate 2.
    returns a whole number of input pixels; 1 for no layers at all.
    """
    raise NotImplementedError
'''


def some_layers(seed: int) -> list[tuple[int, int, int]]:
    """Draw a few layers with strides first and rates later, as networks have them."""
    rng = np.random.default_rng([5, 2, seed])
    strided = [(int(rng.choice([3, 5, 7])), 2, 1) for _ in range(2)]
    dilated = [(3, int(rng.choice([1, 2])), int(rng.integers(2, 5))) for _ in range(3)]
    return strided + dilated


def _judge_field(function: Callable, arguments: tuple) -> None:
    (layers,) = arguments
    answer = function(layers)
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise Wrong(f"return one number of pixels, not {describe(answer)}")
    right = receptive_field(layers)
    if answer == right:
        return
    for value, message in _other_fields(layers):
        if answer == value:
            raise Wrong(f"you found {answer} for {layers}, and it is {right}: {message}")
    raise Wrong(f"you found {answer} for {layers}, and one output pixel sees {right}")


def _other_fields(layers: list[tuple[int, int, int]]) -> list[tuple]:
    kernels = [kernel for kernel, _, _ in layers]
    strides = [stride for _, stride, _ in layers]
    spans = [effective_kernel(kernel, rate) for kernel, _, rate in layers]
    before = [math.prod(strides[:n]) for n in range(len(layers))]
    after = [math.prod(strides[: n + 1]) for n in range(len(layers))]
    return [
        (
            1 + sum((span - 1) * own for span, own in zip(spans, after)),
            "a layer's own stride counts for the layers after it, not for itself",
        ),
        (
            1 + sum(span - 1 for span in spans),
            "after a stride of 2 one step on the map is two input pixels; multiply by the strides "
            "of all layers before",
        ),
        (
            1 + sum((kernel - 1) * step for kernel, step in zip(kernels, before)),
            "the rates are left out: a kernel of 3 at rate 4 spans 9 pixels",
        ),
        (
            1 + sum((kernel * rate - 1) * step for (kernel, _, rate), step in zip(layers, before)),
            "a kernel of 3 at rate 4 spans 9 pixels and not 12: there are holes between its taps, "
            "none beside them",
        ),
        (
            sum(span * step for span, step in zip(spans, before)),
            "a kernel of 3 adds 2 to what was seen, since its middle tap was there before",
        ),
        (
            sum((span - 1) * step for span, step in zip(spans, before)),
            "begin with 1, the output pixel itself",
        ),
    ]


# --- 5.3 ------------------------------------------------------------------------------------------

GRADIENT_STUB = '''\
def field_by_gradient(network, size):
    """Measure what one output pixel of a network depends on, by its gradient.

    network: maps a float tensor [1, 1, row, column] to one [1, channel, row, column], whose rows
             and columns may be fewer; in training mode, as it was made.
    size:    rows and columns of the input to try, more than what the network sees.
    returns the side of the smallest square of input pixels around all that have a gradient.
    """
    raise NotImplementedError
'''


def a_small_network(seed: int, layers: list[tuple[int, int, int]], norm: bool) -> nn.Sequential:
    """Make a stack of convolutions with random weights, leaky so that no path is ever shut."""
    parts: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels = 1
        for kernel, stride, rate in layers:
            padding = rate * (kernel // 2)
            parts += [nn.Conv2d(channels, 3, kernel, stride, padding, rate), nn.LeakyReLU(0.3)]
            parts += [nn.BatchNorm2d(3)] if norm else []
            channels = 3
    return nn.Sequential(*parts)


def _judge_gradient(function: Callable, arguments: tuple) -> None:
    network, size = arguments
    with_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in network)
    answer = function(network, size)
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise Wrong(f"return one number, the side of the square, not {describe(answer)}")
    gradient = pixel_gradient(copy.deepcopy(network).eval(), size)
    right = side_seen(gradient)
    if answer == right:
        return
    if answer == size and with_norm:
        raise Wrong(
            "you found a gradient everywhere: in training mode batch normalisation makes each "
            "pixel depend on the mean of all; call network.eval() first"
        )
    if answer == size:
        raise Wrong(
            "you found a gradient everywhere: take it from one output pixel, not from the sum or "
            "the mean of the whole output"
        )
    if answer in (np.count_nonzero(gradient), right**2):
        raise Wrong(
            f"you counted pixels, {answer} of them: return the side of the square around them"
        )
    if answer == right - 1:
        raise Wrong(
            f"you found {answer}, one too few: from row 3 to row 7 there are 7 - 3 + 1 = 5 rows"
        )
    if answer == np.count_nonzero(gradient.any(axis=0)):
        raise Wrong(
            f"you counted {answer} columns with a gradient, and there are holes between them: take "
            "the first and the last"
        )
    if answer < right:
        raise Wrong(
            f"you found {answer} and it is {right}: is the output pixel near the middle, so that "
            "no edge cuts off what it sees, and do negative gradients count too?"
        )
    raise Wrong(f"you found {answer}, and the square around all gradients has a side of {right}")


# --- 5.4 ------------------------------------------------------------------------------------------

DILATE_STUB = '''\
def dilate_stage(stage, rate):
    """Make a stage of an encoder keep the size of its map: dilation instead of stride.

    stage: nn.Module of residual blocks with convolutions of 3 x 3, and one of 1 x 1 in the
           shortcut of the first block. Its first 3 x 3 and the 1 x 1 have a stride of 2.
    rate:  for all its 3 x 3 convolutions; no convolution keeps a stride.
    returns the changed stage, with the weights that it had. `stride`, `dilation` and `padding` of
    an nn.Conv2d are pairs that may be set.
    """
    raise NotImplementedError
'''


def a_stage(seed: int, blocks: int = 2) -> nn.Sequential:
    """Make a small stage of stride 2 with random weights and batch statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stage = make_stage(4, 6, blocks, stride=2, rate=1)
        for layer in stage.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
    return stage


def _judge_dilate(function: Callable, arguments: tuple) -> None:
    stage, rate = arguments
    weights = copy.deepcopy(stage.state_dict())
    answer = function(stage, rate)
    if not isinstance(answer, nn.Module):
        raise Wrong(f"return the stage, an nn.Module, not {describe(answer)}")
    for name, layer in answer.named_modules():
        if isinstance(layer, nn.Conv2d):
            _judge_convolution(f"`{name}`", layer, rate)
    right = make_stage(4, 6, len(stage), stride=1, rate=rate)
    right.load_state_dict(weights)
    image = torch.randn(1, 4, 12, 10, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = right.eval()(image), answer.eval()(image)
    if theirs.shape != ours.shape:
        raise Wrong(f"your stage maps {tuple(image.shape)} to {tuple(theirs.shape)}")
    if not torch.allclose(ours, theirs, atol=1e-5):
        raise Wrong(
            "your stage has other weights than the one it was made from: change the layers that "
            "are there, and make no new ones"
        )


def _judge_convolution(name: str, layer: nn.Conv2d, rate: int) -> None:
    stride, dilation, padding = (_side(x) for x in (layer.stride, layer.dilation, layer.padding))
    if stride != 1:
        which = "of the shortcut " if layer.kernel_size == (1, 1) else ""
        raise Wrong(
            f"the convolution {which}{name} still has a stride of {stride}, so its map shrinks"
        )
    if layer.kernel_size == (1, 1):
        if padding:
            raise Wrong(
                f"{name} is a 1 x 1 convolution and needs no padding: yours, of {padding}, makes "
                "its map larger than the one it is added to"
            )
        return
    if dilation != rate:
        more = "in every block, not only where the stride was" if dilation == 1 else "not more"
        raise Wrong(f"{name} has a dilation of {dilation} and should have {rate}, {more}")
    if padding != rate:
        raise Wrong(
            f"{name} has a dilation of {rate} and a padding of {padding}: its map becomes smaller; "
            "the padding must grow with the dilation"
        )


def _side(value: int | str | tuple) -> int | str:
    return value[0] if isinstance(value, tuple) else value


# --- 5.5 ------------------------------------------------------------------------------------------

TAPS_STUB = '''\
def tap_share(size, rate):
    """Return the share of a 3 x 3 kernel's taps that lie on a map, not on the zeros around it.

    size: rows and columns of the map.
    rate: distance of the taps.
    returns the mean over all places of the kernel's middle on the map: 1 if all nine taps always
    lie inside, 1/9 if ever only the middle one does.
    """
    raise NotImplementedError
'''


def _judge_taps(function: Callable, arguments: tuple) -> None:
    size, rate = arguments
    answer = function(size, rate)
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise Wrong(f"return one number from 1/9 to 1, not {describe(answer)}")
    right = tap_share(size, rate)
    if math.isclose(answer, right, rel_tol=1e-6):
        return
    lost = (size - rate - 1, size - rate + 1)
    near = [((size + 2 * max(inside, 0)) / (3 * size)) ** 2 for inside in lost]
    line = math.sqrt(right)
    places = f"of {size} places on a line, a tap {rate} away falls off at {min(rate, size)}"
    mistakes = [
        (9 * right, "this is how many of the nine taps lie inside: divide by nine"),
        (line, "this is the share along one line: a tap must lie inside in rows and in columns"),
        (line / 3, "you counted in columns only: taps above and below have edges too"),
        (
            1.0 if rate <= size // 2 else 1 / 9,
            "you looked at the middle of the map alone: near the edge taps hang over; take the "
            "mean over all places",
        ),
        *((value, f"you are off by one: {places}") for value in near),
        (1 - right, "this is the share that lies outside"),
        (
            (max(size - 2 * rate, 0) / size) ** 2,
            "this is the share of places where all nine lie inside: count taps, at every place",
        ),
        (
            ((3 * size - 2 * rate) / (3 * size)) ** 2,
            "a tap cannot miss more often than there are places: mind rates above the map's size",
        ),
    ]
    raise_known(answer, mistakes, rtol=1e-6, atol=1e-9)
    raise Wrong(
        f"you found {answer:.4g} for a map of {size} x {size} at rate {rate}, and it is {right:.4g}"
    )


# --- 5.6 ------------------------------------------------------------------------------------------

DECODE_STUB = '''\
def decode(deep, low, fuse):
    """Do the step of DeepLabv3+'s decoder: enlarge, join, fuse.

    deep: float tensor [batch, channel, row, column], coarse; what ASPP made.
    low:  float tensor of the same batch, 2 or 4 times as many rows and columns, other channels.
    fuse: nn.Module that takes the channels of deep, then those of low, on the grid of low.
    returns what fuse makes of the two. deep is enlarged bilinearly with align_corners=True.
    """
    raise NotImplementedError
'''


def some_maps(seed: int, factor: int) -> tuple[Tensor, Tensor, nn.Module]:
    """Make a deep and a low map, and a convolution for both together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep, low = torch.randn(2, 6, 4, 5), torch.randn(2, 3, 4 * factor, 5 * factor)
        return deep, low, nn.Conv2d(9, 4, 3, padding=1)


def _judge_decode(function: Callable, arguments: tuple) -> None:
    deep, low, fuse = arguments
    answer = function(deep, low, fuse)
    if not isinstance(answer, Tensor):
        raise Wrong(f"return a tensor, not {describe(answer)}")
    joined = torch.cat([enlarge(deep, low.shape[-2:]), low], dim=1)
    if answer.shape == joined.shape:
        raise Wrong("you joined the maps and stopped: give them to `fuse`")
    with torch.no_grad():
        right = fuse(joined)
        if answer.shape != right.shape:
            shrunk = answer.shape[-2:] == deep.shape[-2:]
            more = ": low was shrunk to the size of deep, and with it went the outlines"
            raise Wrong(
                f"your result has shape {tuple(answer.shape)} instead of {tuple(right.shape)}"
                f"{more if shrunk else ''}"
            )
        if torch.allclose(answer, right, atol=1e-5):
            return
        for value, message in _other_decodings(deep, low, fuse):
            if torch.allclose(answer, value, atol=1e-5):
                raise Wrong(message)
    raise Wrong("your result has the right shape and other values: enlarge, join, fuse, no more")


def _other_decodings(deep: Tensor, low: Tensor, fuse: nn.Module) -> list[tuple]:
    size = tuple(low.shape[-2:])
    resize = nn.functional.interpolate
    nearest = resize(deep, size)
    loose = resize(deep, size, mode="bilinear", align_corners=False)
    return [
        (
            fuse(torch.cat([low, enlarge(deep, size)], dim=1)),
            "the maps are joined in the other order: fuse expects the channels of deep first",
        ),
        (
            fuse(torch.cat([nearest, low], dim=1)),
            "deep was enlarged by repeating pixels, interpolate's default: ask for bilinear",
        ),
        (
            fuse(torch.cat([loose, low], dim=1)),
            "deep was enlarged with align_corners=False, which places its pixels otherwise: a "
            "network trained with True would see everything moved",
        ),
        (
            fuse(torch.cat([enlarge(deep, size), torch.zeros_like(low)], dim=1)),
            "low is not in your result: without it there are no fine outlines",
        ),
    ]


EXERCISES = (
    Exercise(
        "5.1",
        "A kernel with holes",
        ATROUS_STUB,
        lambda: [(*an_image_and_kernel(seed), rate) for seed, rate in enumerate((2, 1, 3))],
        _judge_atrous,
        (
            "Nine taps, nine moved copies of the image, each times one weight, all added up.",
            "With np.pad(image, rate) the copy for kernel[i, j] is the part that starts at row "
            "i * rate and column j * rate and has the image's shape.",
            "For np.eye(3), a kernel of ones and rate 2, the result is [[2, 0, 1], [0, 1, 0], "
            "[1, 0, 2]]; at rate 1 its middle is 3.",
        ),
    ),
    Exercise(
        "5.2",
        "Receptive field by formula",
        FIELD_STUB,
        lambda: [
            ([(3, 1, 1), (3, 1, 1)],),
            ([(3, 1, 4), (5, 1, 2)],),
            ([(3, 2, 1), (3, 2, 1), (3, 1, 1)],),
            (some_layers(0),),
        ],
        _judge_field,
        (
            "Keep two numbers while you go through the layers: what is seen so far, and how many "
            "input pixels one step on the map is.",
            "A layer adds rate * (kernel - 1) steps; after it, a step is `stride` times as long. "
            "Begin with 1 seen and a step of 1.",
            "[(7, 2, 1), (3, 1, 2)] sees 7 + 2 * 4 = 15 pixels, and all of ResNet-34 899.",
        ),
    ),
    Exercise(
        "5.3",
        "Receptive field by gradient",
        GRADIENT_STUB,
        lambda: [
            (a_small_network(0, [(3, 1, 3), (3, 1, 3)], False), 40),
            (a_small_network(1, [(3, 2, 1), (3, 2, 1), (3, 1, 1)], False), 48),
            (a_small_network(2, [(5, 1, 1), (3, 1, 3)], True), 44),
        ],
        _judge_gradient,
        (
            "Give the network an input that wants a gradient, pick one pixel of what comes out, "
            "go backward, and look where the input's gradient is not zero.",
            "image = torch.rand(1, 1, size, size, requires_grad=True); after `.backward()` on a "
            "single number, image.grad has the image's shape. np.nonzero lists rows and columns.",
            "For nn.Conv2d(1, 1, 3, padding=4, dilation=4) the side is 9, although only 9 of those "
            "81 pixels have a gradient.",
        ),
    ),
    Exercise(
        "5.4",
        "Dilation instead of stride",
        DILATE_STUB,
        lambda: [(a_stage(0), 2), (a_stage(1, 3), 4)],
        _judge_dilate,
        (
            "Go through stage.modules() and set what each nn.Conv2d needs; the weights stay.",
            "All: stride (1, 1). Those with kernel_size (3, 3): dilation and padding (rate, rate). "
            "The 1 x 1 needs neither.",
            "With rate 2, a stage of ResNet-34 maps [1, 256, 8, 8] to [1, 512, 8, 8] instead of "
            "[1, 512, 4, 4], and its state_dict() is the same as before.",
        ),
    ),
    Exercise(
        "5.5",
        "What a rate reaches",
        TAPS_STUB,
        lambda: [(8, 1), (4, 2), (5, 3), (4, 10), (16, 6)],
        _judge_taps,
        (
            "Go along one line first: how often does a tap that lies `rate` to the right fall off?",
            "On a line of `size` places the middle tap is always inside and each outer one "
            "size - rate times, never less than 0; over rows and columns the shares multiply.",
            "tap_share(4, 1) is 0.694, tap_share(4, 3) is 0.25 and tap_share(4, 12) is 0.111.",
        ),
    ),
    Exercise(
        "5.6",
        "The decoder's step",
        DECODE_STUB,
        lambda: [some_maps(0, 4), some_maps(1, 2)],
        _judge_decode,
        (
            "The size to enlarge to is known: it is that of the other map.",
            "torch.nn.functional.interpolate(deep, size=..., mode=..., align_corners=...) and "
            "torch.cat([...], dim=1), for channels are the second axis.",
            "With deep [1, 256, 4, 4] and low [1, 48, 16, 16], fuse gets [1, 304, 16, 16].",
        ),
    ),
)
