"""Exercises of lesson 4: blocks, parameters, one batch, boundaries, other people's weights."""

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import exercise, expect
from spine_lib.course.mistakes import edit, edits
from spine_lib.models.unet import UNet


def generator_of(rng: np.random.Generator) -> torch.Generator:
    """Return PyTorch's generator, seeded from NumPy's."""
    return torch.Generator().manual_seed(int(rng.integers(10**6)))


@torch.no_grad()
def _observe_block(function, inputs, outputs):
    block = expect(function(inputs, outputs), nn.Module, "a network, a torch.nn.Module")
    layers = {kind: [] for kind in (nn.Conv2d, nn.BatchNorm2d)}
    for layer in block.modules():
        layers.get(type(layer), []).append(layer)
    for number, layer in enumerate(sum(layers.values(), [])):
        for name, weight in layer.named_parameters():  # the same for the same layer in every block
            seed = torch.Generator().manual_seed(100 * number + len(name))
            weight.copy_(torch.randn(weight.shape, generator=seed))
    image = torch.randn(2, inputs, 9, 12, generator=torch.Generator().manual_seed(inputs))
    convolutions, norms = layers.values()
    return {
        "the number of convolutions": len(convolutions),
        "the number of batch normalisations": len(norms),
        "the number of convolutions with a bias": sum(c.bias is not None for c in convolutions),
        "the channels of the convolutions": str(
            [(c.in_channels, c.out_channels) for c in convolutions]
        ),
        "the sizes of the kernels": str([c.kernel_size for c in convolutions]),
        "the shape of what your block gives": str(tuple(block.train()(image).shape)),
        "what your block gives": block.train()(image),
    }


def _block(order="cnrcnr", bias=False, padding=1, late=False):
    """Return a block of layers in an order: "c" is a convolution, "n" and "r" norm and ReLU."""

    def build(inputs, outputs):
        channels, layers = inputs, []
        for number, letter in enumerate(order):
            if letter == "c":
                out = inputs if late and number == 0 else outputs
                layers.append(nn.Conv2d(channels, out, 3, padding=padding, bias=bias))
                channels = out
            else:
                layers.append(nn.BatchNorm2d(channels) if letter == "n" else nn.ReLU())
        return nn.Sequential(*layers)

    return build


@exercise(
    "4.1",
    wrong={
        "one convolution": (_block("cnr"), _block("cr")),
        "no norms": (_block("crcr", bias=True), _block("crcr"), _block("cc")),
        "one norm": (_block("ccnr"), _block("crcnr")),
        "bias": (_block(bias=True), _block("crncrn", bias=True)),
        "no padding": (_block(padding=0), _block(padding=0, bias=True)),
        "late channels": _block(late=True),
        "no last ReLU": _block("cnrcn"),
        "no first ReLU": _block("cncnr"),
        "norm after ReLU": (_block("crncrn"), _block("crncnr")),
    },
    inputs=lambda rng: [(1, 4), (3, 8), (int(rng.integers(5, 8)), 2)],
    observe=_observe_block,
    atol=1e-5,
)
def double_convolution(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


@exercise(
    "4.3",
    wrong={
        "no skips": edit("below + above, above", "below, above"),
        "no norms": (edit(" + 4 * b", ""), edit(" + 4 * b", "", "width + classes", "width")),
        "one norm": edit("4 * b", "2 * b"),
        "biases": edits("4 * b", "6 * b", "5 * b"),
        "no head": edit("total + classes * width + classes", "total"),
        "no bias of the head": edit("width + classes", "width"),
        "one convolution": edits("9 * b * b + 4 * b", "4 * b", "2 * b"),
        "levels": edits("depth + 1", "depth", "depth + 2"),
        "first channels twice": edit("9 * b * b", "9 * a * b"),
    },
    inputs=lambda rng: [(1, 1, 4, 2), (3, 5, 8, 3), (2, int(rng.integers(2, 5)), 6, 4)],
    rtol=0,
)
def count_parameters(in_channels, classes, width, depth):
    def double(a, b):
        return 9 * a * b + 9 * b * b + 4 * b

    levels = [width * 2**level for level in range(depth + 1)]
    total = double(in_channels, width)
    for above, below in zip(levels[:-1], levels[1:]):
        total += double(above, below)  # down
        total += double(below + above, above)  # up, with the skip
    return total + classes * width + classes


def a_batch(rng: np.random.Generator, steps: int, learning_rate: float) -> tuple:
    """Make a tiny U-Net in evaluation mode and a batch that it can learn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(10**6)))
        network = UNet(width=4, depth=1).eval()
        target = torch.zeros(2, 1, 8, 8)
        target[0, 0, 2:5, 1:6], target[1, 0, 4:7, 3:6] = 1, 1
        return network, target + 0.3 * torch.randn(2, 1, 8, 8), target, steps, learning_rate


def _observe_fit(function, network, *rest):
    before = [weight.clone() for weight in network.parameters()]
    losses = expect(function(network, *rest), list | tuple, "a list with the loss of each step")
    moved = any(not torch.equal(old, new) for old, new in zip(before, network.parameters()))
    return {
        "the number of losses in your list": len(losses),
        "the number of losses that are tensors": sum(isinstance(x, torch.Tensor) for x in losses),
        "whether the weights change": moved,
        "the losses": np.array(
            [float(loss.item() if torch.is_tensor(loss) else loss) for loss in losses]
        ),
    }


@exercise(
    "4.4",
    wrong={
        "evaluation mode": edit("network.train()", "pass"),
        "sigmoid": edit("network(image)", "network(image).sigmoid()"),
        "no zero_grad": edit("optimiser.zero_grad()", "pass"),
        "SGD": edit("AdamW", "SGD"),
        "new optimiser": edit(
            "loss.b", "optimiser = type(optimiser)(network.parameters(), learning_rate); loss.b"
        ),
        "own learning rate": edits("(), learning_rate", "(), 1e-3", "(), 1e-2"),
        "no step": edit("optimiser.step()", "pass"),
        "tensors": edits("loss.item()", "loss.detach()", "loss"),
        "after the step": edit("(steps)", "(steps + 1)", "return losses", "return losses[1:]"),
        "sum": edit("target)\n", 'target, reduction="sum")\n'),
    },
    inputs=lambda rng: [a_batch(rng, 5, 3e-3), a_batch(rng, 4, 2e-2)],
    observe=_observe_fit,
    changes_inputs=True,
    rtol=5e-3,
    atol=1e-4,
)
def fit_one_batch(network, image, target, steps, learning_rate):
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate)
    losses = []
    for _ in range(steps):
        loss = functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def two_masks(rng: np.random.Generator, *spacing_mm: float) -> tuple:
    """Make two masks of different size, cut by the array's edge, and an uneven spacing."""
    truth, prediction = np.zeros((2, 16, 18, 12), bool)
    truth[3:11, 4:13, 5:] = True
    truth[8:, 4:8, 6:10] = False  # a notch, whose inner corners touch the outside by an edge
    shift = int(rng.integers(0, 3))
    prediction[3 + shift : 12, 5:15, 2:8] = True
    prediction[13, :3, 9] = True  # a piece of three voxels, far from the rest
    return prediction, truth, spacing_mm


@exercise(
    "4.5",
    wrong={
        "voxels": edit(", sampling=spacing_mm", ""),
        "from the prediction": edit("sum(ways) / 2", "ways[0]"),
        "from the truth": edit("sum(ways) / 2", "ways[1]"),
        "whole masks": edit("mask & ~ndimage.binary_erosion(mask)", "mask"),
        "largest": (
            edit(".mean()", ".max()", "sum(ways) / 2", "max(ways)"),
            edit(".mean()", ".max()"),
        ),
        "pooled": edit(".mean()", "", "sum(ways) / 2", "np.concatenate(ways).mean()"),
        "open at the edge": edit("erosion(mask", "erosion(mask, border_value=1"),
        "corners touch": edit("erosion(mask", "erosion(mask, np.ones((3, 3, 3))"),
        "to the mask": edit("~surface(other)", "~other"),
    },
    inputs=lambda rng: [
        two_masks(rng, 1.0, 1.2, 3.0),
        two_masks(rng, 0.8, 0.9, 2.5),
        two_masks(rng, 2.0, 1.5, 1.0),
    ],
    rtol=1e-3,
)
def boundary_distance_mm(prediction, truth, spacing_mm):
    def surface(mask):
        return mask & ~ndimage.binary_erosion(mask)

    def mean_way(mask, other):
        away_mm = ndimage.distance_transform_edt(~surface(other), sampling=spacing_mm)
        return away_mm[surface(mask)].mean()

    ways = mean_way(prediction, truth), mean_way(truth, prediction)
    return sum(ways) / 2


def two_states(rng: np.random.Generator) -> tuple[dict, dict]:
    """Make two state dictionaries of one network: other names, other values, one other shape."""
    generator, odd = generator_of(rng), int(rng.integers(3, 10))
    theirs, ours = {}, {}
    for number in range(12):
        for part, shape in (("weight", (3, 2, 3, 3)), ("bias", (3,))):
            theirs[f"encoder.stage{number + 5}.{part}"] = torch.randn(shape, generator=generator)
            if number == odd and part == "weight":
                shape = (3, 1, 3, 3)
            ours[f"blocks.{number}.conv.{part}"] = torch.randn(shape, generator=generator)
    return theirs, ours


def _observe_weights(function, theirs, ours):
    answer = expect(function(theirs, ours), dict, "a dictionary of names and tensors")
    return answer | {"the names in their order": list(answer)}


@exercise(
    "4.6",
    wrong={
        "their names": (
            lambda theirs, ours: dict(theirs),
            lambda theirs, ours: dict(zip(theirs, ours.values())),
        ),
        "names left out": edit("values())", "values()) if value.shape == own.shape"),
        "other shapes": edit(" if value.shape == own.shape else own", ""),
        "nothing taken": edit(
            "value if value.shape == own.shape else own", "theirs.get(name, own)"
        ),
        "by alphabet": lambda t, o: dict(zip(sorted(o), [v for _, v in sorted(t.items())])),
        "by shape": edit(
            "value if value.shape == own.shape else own",
            "next((v for v in theirs.values() if v.shape == own.shape), own)",
        ),
        "shifted": edit(
            *("return", "rest = [*theirs.values()]\n    return"),
            *("value if value", "rest.pop(0) if rest[0]"),
        ),
    },
    inputs=lambda rng: [two_states(rng) for _ in range(3)],
    observe=_observe_weights,
)
def take_weights(theirs, ours):
    return {
        name: value if value.shape == own.shape else own
        for (name, own), value in zip(ours.items(), theirs.values())
    }
