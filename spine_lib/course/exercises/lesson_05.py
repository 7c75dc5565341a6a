"""Exercises of lesson 5: holes in kernels, what a pixel sees, output stride, ASPP, decoder."""

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from spine_lib.course.exercise import Exercise, Wrong, describe
from spine_lib.models.resnet import make_stage


def atrous_conv(image, kernel, rate):
    rows, columns = image.shape
    padded = np.pad(image, rate)
    result = np.zeros((rows, columns))
    for i in range(3):
        for j in range(3):
            moved = padded[i * rate : i * rate + rows, j * rate : j * rate + columns]
            result += kernel[i, j] * moved
    return result


def an_image_and_kernel(rng: np.random.Generator, rate: int) -> tuple:
    """Make a small image, a kernel of 3 x 3 in which no two taps are alike, and a rate."""
    image = rng.normal(size=(9 + int(rng.integers(3)), 13))
    return image.round(2), rng.normal(size=(3, 3)).round(2), rate


def _atrous(kernel=lambda kernel: kernel, rate=lambda rate: rate, mode="constant"):
    """Return a convolution with another kernel, rate or edge."""

    def convolve(image, taps, spread):
        wide = np.zeros((2 * rate(spread) + 1,) * 2)
        wide[:: rate(spread), :: rate(spread)] = kernel(taps)
        return ndimage.correlate(image, wide, mode=mode)

    return convolve


ATROUS = Exercise(
    "5.1",
    reference=atrous_conv,
    wrong={
        "kernel turned": _atrous(lambda kernel: kernel[::-1, ::-1]),
        "no holes": _atrous(rate=lambda rate: 1),
        "rate one off": (
            _atrous(rate=lambda rate: rate + 1),
            _atrous(rate=lambda rate: max(rate - 1, 1)),
        ),
        "kernel transposed": _atrous(np.transpose),
        "rolled": _atrous(mode="wrap"),
        "another edge": tuple(_atrous(mode=mode) for mode in ("reflect", "nearest", "mirror")),
        "smaller": (
            lambda image, kernel, rate: atrous_conv(image, kernel, rate)[rate:-rate, rate:-rate],
            lambda image, kernel, rate: atrous_conv(image, kernel, rate)[1:-1, 1:-1],
        ),
        "no holes, turned or mirrored": (
            _atrous(lambda kernel: kernel[::-1, ::-1], lambda rate: 1),
            _atrous(rate=lambda rate: 1, mode="mirror"),
        ),
    },
    inputs=lambda rng: [an_image_and_kernel(rng, rate) for rate in (2, 1, 3)],
    atol=1e-6,
)


def receptive_field(layers):
    seen, step = 1, 1
    for kernel, stride, rate in layers:
        seen += rate * (kernel - 1) * step
        step *= stride
    return seen


def some_layers(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw a few layers with strides first and rates later, as networks have them."""
    strided = [(int(rng.choice([3, 5, 7])), 2, 1) for _ in range(2)]
    return strided + [(3, int(rng.integers(1, 3)), int(rng.integers(2, 5))) for _ in range(3)]


def _field(grown=lambda kernel, rate: rate * (kernel - 1), start=1, own=False, strides=True):
    def compute(layers):
        seen, step = start, 1
        for kernel, stride, rate in layers:
            after = step * stride if strides else 1
            seen += grown(kernel, rate) * (after if own else step)
            step = after
        return seen

    return compute


FIELD = Exercise(
    "5.2",
    reference=receptive_field,
    wrong={
        "own stride": _field(own=True),
        "no strides": _field(strides=False),
        "no rates": _field(lambda kernel, rate: kernel - 1),
        "holes beside": _field(lambda kernel, rate: kernel * rate - 1),
        "whole kernels": (
            _field(lambda kernel, rate: rate * (kernel - 1) + 1, start=0),
            _field(lambda kernel, rate: rate * (kernel - 1) + 1),
            _field(lambda kernel, rate: kernel * rate),
        ),
        "from 0": _field(start=0),
        "own stride alone": lambda layers: 1 + sum(r * (k - 1) * s for k, s, r in layers),
    },
    inputs=lambda rng: [
        ([(3, 1, 1), (3, 1, 1)],),
        ([(3, 1, 4), (5, 1, 2)],),
        ([(3, 2, 1), (3, 2, 1), (3, 2, 1), (3, 1, 1)],),
        (some_layers(rng),),
        ([],),
    ],
    rtol=0,
)


def field_by_gradient(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network.eval()(image)
    rows, columns = output.shape[-2:]
    output[0, 0, rows // 2, columns // 2].backward()
    touched_rows, touched_columns = np.nonzero(image.grad[0, 0].numpy())
    return int(max(np.ptp(touched_rows), np.ptp(touched_columns))) + 1


def a_small_network(rng, layers: list[tuple[int, int, int]], norm: bool = False) -> nn.Sequential:
    """Make a stack of convolutions with random weights, leaky so that no path is ever shut."""
    parts: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(10**6)))
        channels = 1
        for kernel, stride, rate in layers:
            padding = rate * (kernel // 2)
            parts += [nn.Conv2d(channels, 3, kernel, stride, padding, rate), nn.LeakyReLU(0.3)]
            parts += [nn.BatchNorm2d(3)] if norm else []
            channels = 3
    return nn.Sequential(*parts)


def a_dark_rim() -> nn.Conv2d:
    """Make a convolution of 7 x 7 whose outer taps are all negative."""
    layer = nn.Conv2d(1, 1, 7, padding=3)
    nn.init.constant_(layer.weight, -0.02)
    nn.init.constant_(layer.weight[..., 1:-1, 1:-1], 0.1)
    return layer


def _gradient(side, pick=lambda o: o[0, 0, o.shape[-2] // 2, o.shape[-1] // 2], train=False):
    """Return another side of the gradient, of another pixel, or in training mode."""

    def measure(network, size):
        generator = torch.Generator().manual_seed(size)
        image = torch.rand(1, 1, size, size, generator=generator).requires_grad_()
        pick(network.train(train)(image)).backward()
        return int(side(image.grad[0, 0].numpy()))

    return measure


def _extent(gradient: np.ndarray) -> int:
    return max(map(np.ptp, np.nonzero(gradient))) + 1


GRADIENT = Exercise(
    "5.3",
    reference=field_by_gradient,
    wrong={
        "whole output": (_gradient(_extent, torch.sum), _gradient(_extent, torch.sum, True)),
        "training mode": _gradient(_extent, train=True),
        "pixels counted": (
            _gradient(np.count_nonzero),
            _gradient(lambda gradient: _extent(gradient) ** 2),
        ),
        "one too few": _gradient(lambda gradient: _extent(gradient) - 1),
        "rows counted": _gradient(lambda gradient: gradient.any(axis=0).sum()),
        "positive alone": (_gradient(lambda gradient: _extent(gradient > 0))),
        "at the edge": _gradient(_extent, lambda output: output[0, 0, 0, 0]),
    },
    inputs=lambda rng: [
        (a_small_network(rng, [(3, 1, 3), (3, 1, 3)]), 40),
        (a_small_network(rng, [(3, 2, 1), (3, 2, 1), (3, 1, 1)]), 48),
        (a_small_network(rng, [(5, 1, 1), (3, 1, 3)], norm=True), 44),
        (a_dark_rim(), 24),
    ],
    changes_inputs=True,
)


def dilate_stage(stage, rate):
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            if layer.kernel_size == (3, 3):
                layer.dilation = (rate, rate)
                layer.padding = (rate, rate)
    return stage


def a_stage(rng: np.random.Generator, blocks: int) -> nn.Sequential:
    """Make a small stage of stride 2 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(10**6)))
        return make_stage(4, 6, blocks, stride=2, rate=1)


@torch.no_grad()
def _observe_stage(function, stage, rate):
    weights = {name: weight.clone() for name, weight in stage.state_dict().items()}
    answer = function(stage, rate)
    if not isinstance(answer, nn.Module):
        raise Wrong(f"return the stage, an nn.Module, not {describe(answer)}")
    facts = {"stride": [], "dilation": [], "padding": []}
    for layer in answer.modules():
        if isinstance(layer, nn.Conv2d):
            same = layer.dilation[0] * (layer.kernel_size[0] // 2)
            for name, values in facts.items():
                value = same if getattr(layer, name) == "same" else getattr(layer, name)
                values.append(value[0] if isinstance(value, tuple) else value)
    state = answer.state_dict()
    return {
        "whether the weights are those that the stage had": state.keys() == weights.keys()
        and all(torch.equal(state[name], weight) for name, weight in weights.items()),
        **{f"the {name} of the convolutions": str(values) for name, values in facts.items()},
    }


def _dilated(strides=(3, 1), dilations=(3,), paddings=(3,), first_only=False):
    """Return a change of the convolutions with these kernels, of the first 3 x 3 alone or all."""

    def change(stage, rate):
        for layer in stage.modules():
            if isinstance(layer, nn.Conv2d):
                kernel, had_stride = layer.kernel_size[0], layer.stride != (1, 1)
                layer.stride = (1, 1) if kernel in strides else layer.stride
                if had_stride or not first_only:
                    layer.dilation = (rate, rate) if kernel in dilations else layer.dilation
                    layer.padding = (rate, rate) if kernel in paddings else layer.padding
        return stage

    return change


STAGE = Exercise(
    "5.4",
    reference=dilate_stage,
    wrong={
        "not dilated": _dilated(dilations=(), paddings=()),
        "no padding": (_dilated(paddings=()), _dilated(dilations=(3, 1), paddings=())),
        "shortcut strided": _dilated(strides=(3,)),
        "shortcut padded": (_dilated(dilations=(3, 1), paddings=(3, 1)), _dilated(paddings=(3, 1))),
        "first block alone": _dilated(first_only=True),
        "new weights": lambda stage, rate: make_stage(4, 6, len(stage), 1, rate),
    },
    inputs=lambda rng: [(a_stage(rng, 2), 2), (a_stage(rng, 3), 4)],
    observe=_observe_stage,
    changes_inputs=True,
)


def tap_share(size, rate):
    outer = max(size - rate, 0) / size
    along_a_line = (1 + 2 * outer) / 3
    return along_a_line**2


def _line(inside=lambda size, rate: max(size - rate, 0)):
    return lambda size, rate: ((1 + 2 * inside(size, rate) / size) / 3) ** 2


TAPS = Exercise(
    "5.5",
    reference=tap_share,
    wrong={
        "number of taps": lambda size, rate: 9 * tap_share(size, rate),
        "one line": lambda size, rate: tap_share(size, rate) ** 0.5,
        "middle alone": (
            lambda size, rate: 1.0 if rate <= size // 2 else 1 / 9,
            lambda size, rate: 1.0 if rate < size / 2 else 1 / 9,
            lambda size, rate: 1.0 if rate < size else 1 / 9,
        ),
        "one off": (
            _line(lambda size, rate: max(size - rate - 1, 0)),
            _line(lambda size, rate: max(size - rate + 1, 0)),
        ),
        "all nine": lambda size, rate: (max(size - 2 * rate, 0) / size) ** 2,
        "above the size": _line(lambda size, rate: size - rate),
        "both sides": _line(lambda size, rate: max(size - 2 * rate, 0)),
        "corners as edges": (
            lambda n, r: (1 + 8 * max(n - r, 0) / n) / 9,
            lambda n, r: (1 + 8 * (max(n - r, 0) / n) ** 2) / 9,
        ),
        "corner alone": lambda n, r: (max(n - r, 0) / n) ** 2,
    },
    inputs=lambda rng: [*((8, 1), (4, 2), (5, 3), (4, 10), (16, 6)), (9, int(rng.integers(2, 8)))],
    rtol=1e-6,
)
