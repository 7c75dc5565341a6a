"""Exercises of lesson 5: holes in kernels, what a pixel sees, output stride, ASPP, decoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from spine_lib.course.exercise import Wrong, declare, describe, raise_known
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


def an_image_and_kernel(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a small image and a kernel of 3 x 3 in which no two taps are alike."""
    rng = np.random.default_rng([5, 1, seed])
    return rng.normal(size=(9 + seed % 3, 12)).round(2), rng.normal(size=(3, 3)).round(2)


def _judge_atrous(function: Callable, image, kernel, rate) -> None:
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


def _other_convolutions(image: np.ndarray, kernel: np.ndarray, rate: int) -> dict:
    wrapped = sum(
        weight * np.roll(image, (rate * (1 - row), rate * (1 - column)), (0, 1))
        for (row, column), weight in np.ndenumerate(kernel)
    )
    return {
        "you turned the kernel round, as mathematicians do: in a network kernel[0, 0] weighs "
        "the pixel above and to the left": atrous_convolution(image, kernel[::-1, ::-1], rate),
        f"this is the ordinary convolution: the taps should lie {rate} pixels "
        "apart": atrous_convolution(image, kernel, 1),
        f"your taps lie {rate + 1} pixels apart: a rate of {rate} leaves {rate - 1} out "
        "between two taps, not as many as the rate": atrous_convolution(image, kernel, rate + 1),
        "rows and columns of the kernel are exchanged": atrous_convolution(image, kernel.T, rate),
        "pixels that leave the image on one side come back on the other, as np.roll does it: "
        "beyond the edge there are zeros": wrapped,
    }


def _inner(image: np.ndarray, kernel: np.ndarray, rate: int) -> np.ndarray:
    return atrous_convolution(image, kernel, rate)[rate:-rate, rate:-rate]


# --- 5.2 ------------------------------------------------------------------------------------------


def some_layers(seed: int) -> list[tuple[int, int, int]]:
    """Draw a few layers with strides first and rates later, as networks have them."""
    rng = np.random.default_rng([5, 2, seed])
    strided = [(int(rng.choice([3, 5, 7])), 2, 1) for _ in range(2)]
    dilated = [(3, int(rng.choice([1, 2])), int(rng.integers(2, 5))) for _ in range(3)]
    return strided + dilated


def _judge_field(function: Callable, layers) -> None:
    answer = function(layers)
    if isinstance(answer, bool) or not isinstance(answer, int | float | np.number):
        raise Wrong(f"return one number of pixels, not {describe(answer)}")
    right = receptive_field(layers)
    if answer == right:
        return
    beginning = f"you found {answer} for {layers}, and it is {right}: "
    raise_known(answer, _other_fields(layers), rtol=0, atol=0, beginning=beginning)
    raise Wrong(f"you found {answer} for {layers}, and one output pixel sees {right}")


def _other_fields(layers: list[tuple[int, int, int]]) -> dict:
    kernels = [kernel for kernel, _, _ in layers]
    strides = [stride for _, stride, _ in layers]
    spans = [effective_kernel(kernel, rate) for kernel, _, rate in layers]
    before = [math.prod(strides[:n]) for n in range(len(layers))]
    after = [math.prod(strides[: n + 1]) for n in range(len(layers))]
    return {
        "a layer's own stride counts for the layers after it, not for itself": (
            1 + sum(((span - 1) * own for span, own in zip(spans, after)))
        ),
        "after a stride of 2 one step on the map is two input pixels; multiply by the strides "
        "of all layers before": 1 + sum(span - 1 for span in spans),
        "the rates are left out: a kernel of 3 at rate 4 spans 9 pixels": (
            1 + sum(((kernel - 1) * step for kernel, step in zip(kernels, before)))
        ),
        "a kernel of 3 at rate 4 spans 9 pixels and not 12: there are holes between its taps, "
        "none beside them": (
            1 + sum(((kernel * rate - 1) * step for (kernel, _, rate), step in zip(layers, before)))
        ),
        "a kernel of 3 adds 2 to what was seen, since its middle tap was there before": sum(
            (span * step for span, step in zip(spans, before))
        ),
        "begin with 1, the output pixel itself": sum(
            (span - 1) * step for span, step in zip(spans, before)
        ),
    }


# --- 5.3 ------------------------------------------------------------------------------------------


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


def _judge_gradient(function: Callable, network, size) -> None:
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


def a_stage(seed: int, blocks: int = 2) -> nn.Sequential:
    """Make a small stage of stride 2 with random weights and batch statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stage = make_stage(4, 6, blocks, stride=2, rate=1)
        for layer in stage.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.running_mean, -0.5, 0.5)
    return stage


def _judge_dilate(function: Callable, stage, rate) -> None:
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


def _judge_taps(function: Callable, size, rate) -> None:
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
    mistakes = {
        "this is how many of the nine taps lie inside: divide by nine": 9 * right,
        "this is the share along one line: a tap must lie inside in rows and in columns": line,
        "you counted in columns only: taps above and below have edges too": line / 3,
        "you looked at the middle of the map alone: near the edge taps hang over; take the "
        "mean over all places": 1.0 if rate <= size // 2 else 1 / 9,
        f"you are off by one: {places}": near,
        "this is the share that lies outside": 1 - right,
        "this is the share of places where all nine lie inside: count taps, at every place": (
            (max(size - 2 * rate, 0) / size) ** 2
        ),
        "a tap cannot miss more often than there are places: mind rates above the map's size": (
            ((3 * size - 2 * rate) / (3 * size)) ** 2
        ),
    }
    raise_known(answer, mistakes, rtol=1e-6, atol=1e-9)
    raise Wrong(
        f"you found {answer:.4g} for a map of {size} x {size} at rate {rate}, and it is {right:.4g}"
    )


# --- 5.6 ------------------------------------------------------------------------------------------


def some_maps(seed: int, factor: int) -> tuple[Tensor, Tensor, nn.Module]:
    """Make a deep and a low map, and a convolution for both together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep, low = torch.randn(2, 6, 4, 5), torch.randn(2, 3, 4 * factor, 5 * factor)
        return deep, low, nn.Conv2d(9, 4, 3, padding=1)


def _judge_decode(function: Callable, deep, low, fuse) -> None:
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
        raise_known(answer.detach(), _other_decodings(deep, low, fuse), atol=1e-5)
    raise Wrong("your result has the right shape and other values: enlarge, join, fuse, no more")


def _other_decodings(deep: Tensor, low: Tensor, fuse: nn.Module) -> dict:
    size = tuple(low.shape[-2:])
    resize = nn.functional.interpolate
    nearest = resize(deep, size)
    loose = resize(deep, size, mode="bilinear", align_corners=False)
    return {
        "the maps are joined in the other order: fuse expects the channels of deep first": fuse(
            torch.cat([low, enlarge(deep, size)], dim=1)
        ),
        "deep was enlarged by repeating pixels, interpolate's default: ask for bilinear": fuse(
            torch.cat([nearest, low], dim=1)
        ),
        "deep was enlarged with align_corners=False, which places its pixels otherwise: a "
        "network trained with True would see everything "
        "moved": fuse(torch.cat([loose, low], dim=1)),
        "low is not in your result: without it there are no fine outlines": fuse(
            torch.cat([enlarge(deep, size), torch.zeros_like(low)], dim=1)
        ),
    }


EXERCISES = declare(
    __file__,
    {
        "5.1": (
            lambda: [(*an_image_and_kernel(seed), rate) for seed, rate in enumerate((2, 1, 3))],
            _judge_atrous,
        ),
        "5.2": (
            lambda: [
                ([(3, 1, 1), (3, 1, 1)],),
                ([(3, 1, 4), (5, 1, 2)],),
                ([(3, 2, 1), (3, 2, 1), (3, 1, 1)],),
                (some_layers(0),),
            ],
            _judge_field,
        ),
        "5.3": (
            lambda: [
                (a_small_network(0, [(3, 1, 3), (3, 1, 3)], False), 40),
                (a_small_network(1, [(3, 2, 1), (3, 2, 1), (3, 1, 1)], False), 48),
                (a_small_network(2, [(5, 1, 1), (3, 1, 3)], True), 44),
            ],
            _judge_gradient,
        ),
        "5.4": (lambda: [(a_stage(0), 2), (a_stage(1, 3), 4)], _judge_dilate),
        "5.5": (lambda: [(8, 1), (4, 2), (5, 3), (4, 10), (16, 6)], _judge_taps),
        "5.6": (lambda: [some_maps(0, 4), some_maps(1, 2)], _judge_decode),
    },
)
