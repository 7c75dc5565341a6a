"""Exercises of lesson 5: holes in kernels, what a pixel sees, output stride, ASPP, decoder."""

import numpy as np
import torch
from torch import nn

from spine_lib.course.exercise import exercise, expect
from spine_lib.course.mistakes import edit, edits
from spine_lib.models.resnet import make_stage


def an_image_and_kernel(rng: np.random.Generator, rate: int) -> tuple:
    """Make a small image, a kernel of 3 x 3 in which no two taps are alike, and a rate."""
    image = rng.normal(size=(9 + int(rng.integers(3)), 13))
    return image.round(2), rng.normal(size=(3, 3)).round(2), rate


@exercise(
    "5.1",
    wrong={
        "kernel turned": edit("kernel[i, j]", "kernel[2 - i, 2 - j]"),
        "no holes": edit("padded =", "rate = 1; padded ="),
        "rate one off": edits(
            "padded =", "rate += 1; padded =", "rate = max(rate - 1, 1); padded ="
        ),
        "kernel transposed": edit("[i, j]", "[j, i]"),
        "rolled": edit("rate)\n", "rate, mode='wrap')\n"),
        "another edge": edits(
            "rate)\n", "rate, 'symmetric')\n", "rate, 'edge')\n", "rate, 'reflect')\n"
        ),
        "smaller": edits("result\n", "result[rate:-rate, rate:-rate]\n", "result[1:-1, 1:-1]\n"),
    },
    inputs=lambda rng: [an_image_and_kernel(rng, rate) for rate in (2, 1, 3)],
    atol=1e-6,
)
def atrous_conv(image, kernel, rate):
    rows, columns = image.shape
    padded = np.pad(image, rate)
    result = np.zeros((rows, columns))
    for i in range(3):
        for j in range(3):
            moved = padded[i * rate : i * rate + rows, j * rate : j * rate + columns]
            result += kernel[i, j] * moved
    return result


def some_layers(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw a few layers with strides first and rates later, as networks have them."""
    strided = [(int(rng.choice([3, 5, 7])), 2, 1) for _ in range(2)]
    return strided + [(3, int(rng.integers(1, 3)), int(rng.integers(2, 5))) for _ in range(3)]


@exercise(
    "5.2",
    wrong={
        "own stride": edit("* step\n", "* step * stride\n"),
        "no strides": edit("step *= stride", "pass"),
        "strides added": edits("step *= stride", "step += stride", "step += stride - 1"),
        "no rates": edit("rate * (", "("),
        "holes beside": edit("rate * (kernel - 1)", "(kernel * rate - 1)"),
        "whole kernels": (
            edit("rate * (kernel - 1)", "(rate * (kernel - 1) + 1)", "= 1, 1", "= 0, 1"),
            *edits("rate * (kernel - 1)", "(rate * (kernel - 1) + 1)", "kernel * rate"),
        ),
        "from 0": edit("= 1, 1", "= 0, 1"),
        "own stride alone": edit("* step\n", "* stride\n"),
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
def receptive_field(layers):
    seen, step = 1, 1
    for kernel, stride, rate in layers:
        seen += rate * (kernel - 1) * step
        step *= stride
    return seen


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


def a_dark_rim(rows: int = 7) -> nn.Conv2d:
    """Make a convolution of 7 columns whose outer taps are all negative."""
    layer = nn.Conv2d(1, 1, (rows, 7), padding=(rows // 2, 3))
    nn.init.constant_(layer.weight, -0.02)
    nn.init.constant_(layer.weight[..., 1:-1, 1:-1], 0.1)
    return layer


@exercise(
    "5.3",
    wrong={
        "whole output": edit("output[0, 0, rows // 2, columns // 2]", "output.sum()"),
        "training mode": edit("eval", "train"),
        "pixels counted": edit("int(max(extents)) + 1", "len(touched_rows)"),
        "one too few": edit(" + 1", ""),
        "rows counted": edits(
            "int(max(extents)) + 1", "len(set(touched_rows))", "round(len(touched_rows) ** 0.5)"
        ),
        "rows alone": edit("max(extents)", "extents[0]"),
        "positive alone": edit(".numpy()", ".numpy() > 0"),
        "at the edge": edit("rows // 2, columns // 2", "0, 0"),
    },
    inputs=lambda rng: [
        (a_small_network(rng, [(3, 1, 3), (3, 1, 3)]), 40),
        (a_small_network(rng, [(3, 2, 1), (3, 2, 1), (3, 1, 1)]), 48),
        (a_small_network(rng, [(5, 1, 1), (3, 1, 3)], norm=True), 44),
        (a_dark_rim(), 24),
        (a_dark_rim(rows=3), 20),
    ],
    changes_inputs=True,
)
def field_by_gradient(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network.eval()(image)
    rows, columns = output.shape[-2:]
    output[0, 0, rows // 2, columns // 2].backward()
    touched_rows, touched_columns = np.nonzero(image.grad[0, 0].numpy())
    extents = np.ptp(touched_rows), np.ptp(touched_columns)
    return int(max(extents)) + 1


def a_stage(rng: np.random.Generator, blocks: int) -> nn.Sequential:
    """Make a small stage of stride 2 with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(10**6)))
        return make_stage(4, 6, blocks, stride=2, rate=1)


@torch.no_grad()
def _observe_stage(function, stage, rate):
    weights = {name: weight.clone() for name, weight in stage.state_dict().items()}
    answer = expect(function(stage, rate), nn.Module, "the stage, an nn.Module")
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


@exercise(
    "5.4",
    wrong={
        "not dilated": edit("= (rate, rate)", "= (1, 1)"),
        "no padding": edit("layer.padding = (rate, rate)", "pass"),
        "shortcut strided": edit(
            "layer.stride = (1, 1)",
            "layer.stride = layer.stride if layer.kernel_size == (1, 1) else (1, 1)",
        ),
        "shortcut padded": (
            edit("layer.kernel_size == (3, 3)", "True"),
            edit(".stride = (1, 1)", ".stride, layer.padding = (1, 1), (rate, rate)"),
        ),
        "first block alone": (
            edit("stage.modules()", "stage[0].modules()"),
            edit("if layer", "if layer.in_channels == 4 and layer"),
        ),
        "strided left out": edit("if layer", "if layer.in_channels != 4 and layer"),
        "new weights": edit("return stage", "return make_stage(4, 6, len(stage), 1, rate)"),
    },
    inputs=lambda rng: [(a_stage(rng, 2), 2), (a_stage(rng, 3), 4)],
    observe=_observe_stage,
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


@exercise(
    "5.5",
    wrong={
        "number of taps": edit("return ", "return 9 * "),
        "one line": edit("**2", ""),
        "middle alone": edits(
            "on_a_line**2", "1.0 if rate < size / 2 else 1 / 9", "1.0 if rate < size else 1 / 9"
        ),
        "one off": edits("- rate", "- rate - 1", "- rate + 1"),
        "all nine": edit("- rate", "- 2 * rate", "on_a_line**2", "outer**2"),
        "above the size": edit("max(size - rate, 0)", "(size - rate)"),
        "both sides": edit("- rate", "- 2 * rate"),
        "corners as edges": edits("on_a_line**2", "(1 + 8 * outer) / 9", "(1 + 8 * outer**2) / 9"),
        "corner alone": edit("on_a_line**2", "outer**2"),
    },
    inputs=lambda rng: [*((8, 1), (4, 2), (5, 3), (4, 10), (16, 6)), (9, int(rng.integers(2, 8)))],
    rtol=1e-6,
)
def tap_share(size, rate):
    outer = max(size - rate, 0) / size
    on_a_line = (1 + 2 * outer) / 3
    return on_a_line**2
