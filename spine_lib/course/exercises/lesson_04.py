"""Exercises of lesson 4: blocks, parameters, one batch, boundaries, other people's weights."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import Exercise, Wrong, describe
from spine_lib.models.unet import UNet


def generator_of(rng: np.random.Generator) -> torch.Generator:
    """Return PyTorch's generator, seeded from NumPy's."""
    return torch.Generator().manual_seed(int(rng.integers(10**6)))


# --- 4.1 ------------------------------------------------------------------------------------------


def double_convolution(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


@torch.no_grad()
def _observe_block(function, inputs, outputs):
    block = function(inputs, outputs)
    if not isinstance(block, nn.Module):
        raise Wrong(f"return a network, a torch.nn.Module, and not {describe(block)}")
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


BLOCK = Exercise(
    "4.1",
    reference=double_convolution,
    wrong={
        "there is one convolution, and a block has two of them": (_block("cnr"), _block("cr")),
        "the batch normalisations are missing: each convolution has one behind it": (
            _block("crcr", bias=True),
            _block("crcr"),
            _block("cc"),
        ),
        "each convolution has its own batch normalisation": (_block("ccnr"), _block("crcnr")),
        "your convolutions have a bias, which the normalisation behind takes away again: "
        "bias=False": (_block(bias=True), _block("crncrn", bias=True)),
        "your convolutions lose a row and a column at each edge: padding=1 puts zeros around the "
        "map first": (_block(padding=0), _block(padding=0, bias=True)),
        "the channels grow in the first convolution, not in the second": _block(late=True),
        "the last ReLU is missing: your block gives negative numbers": _block("cnrcn"),
        "the ReLU between the two looks is missing": _block("cncnr"),
        "normalise before the ReLU, not after it": (_block("crncrn"), _block("crncnr")),
    },
    inputs=lambda rng: [(1, 4), (3, 8), (int(rng.integers(5, 8)), 2)],
    observe=_observe_block,
    atol=1e-5,
)


# --- 4.3 ------------------------------------------------------------------------------------------


def count_parameters(in_channels, classes, width, depth):
    def double(a, b):
        return 9 * a * b + 9 * b * b + 4 * b

    levels = [width * 2**level for level in range(depth + 1)]
    total = double(in_channels, width)
    for above, below in zip(levels[:-1], levels[1:]):
        total += double(above, below)  # down
        total += double(below + above, above)  # up, with the skip
    return total + classes * width + classes


def _count(skips=1, norm=4, bias=0, second=1, head=1, head_bias=1, deeper=0):
    def double(a, b):
        return 9 * (a * b + second * b * b) + (norm + bias) * b

    def count(in_channels, classes, width, depth):
        levels = [width * 2**level for level in range(depth + 1 + deeper)]
        total = double(in_channels, width) + head * classes * (width + head_bias)
        for above, below in zip(levels[:-1], levels[1:]):
            total += double(above, below) + double(below + skips * above, above)
        return total

    return count


COUNT = Exercise(
    "4.3",
    reference=count_parameters,
    wrong={
        "the skip's channels come in on the way up too": _count(skips=0),
        "the normalisations are missing: a scale and a shift a channel, twice a block": (
            _count(norm=0),
            _count(norm=0, head_bias=0),
        ),
        "a block has two normalisations, and each learns two numbers a channel, scale and shift": (
            _count(norm=2)
        ),
        "the 3 x 3 convolutions have no bias": (_count(bias=2), _count(bias=1)),
        "the head is missing: classes * width weights and a bias for each class": _count(head=0),
        "the head's 1 x 1 convolution has a bias, one for each class": _count(head_bias=0),
        "each block convolves twice: the second time within its own channels": (
            _count(second=0),
            _count(second=0, norm=2),
        ),
        "the image is halved depth times, which makes depth + 1 levels": (
            _count(deeper=-1),
            _count(deeper=1),
        ),
    },
    inputs=lambda rng: [(1, 1, 4, 2), (3, 5, 8, 3), (2, int(rng.integers(2, 5)), 6, 4)],
    rtol=0,
)


# --- 4.4 ------------------------------------------------------------------------------------------


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
    losses = function(network, *rest)
    if not isinstance(losses, list | tuple):
        raise Wrong(f"return a list with the loss of each step, not {describe(losses)}")
    moved = any(not torch.equal(old, new) for old, new in zip(before, network.parameters()))
    return {
        "the number of losses in your list": len(losses),
        "the number of losses that are tensors": sum(isinstance(x, torch.Tensor) for x in losses),
        "whether the weights change": moved,
        "the losses": np.array([float(loss) for loss in losses]),
    }


def _fit(train=True, zero=True, step=True, kind=torch.optim.AdamW, rate=None, sigmoid=False,
         after=False, keep=torch.Tensor.item, reduction="mean"):  # fmt: skip
    """Return a training with mistakes; see the messages."""

    def fit(network, image, target, steps, learning_rate):
        network.train(train)
        optimiser = kind(network.parameters(), rate or learning_rate)
        losses = []
        for _ in range(steps + after):
            logits = torch.sigmoid(network(image)) if sigmoid else network(image)
            loss = functional.binary_cross_entropy_with_logits(logits, target, reduction=reduction)
            if zero:
                optimiser.zero_grad()
            loss.backward()
            if step:
                optimiser.step()
            losses.append(keep(loss))
        return losses[after:]

    return fit


FIT = Exercise(
    "4.4",
    reference=fit_one_batch,
    wrong={
        "the network was in evaluation mode, so its normalisations used stored means instead of "
        "the batch's: call network.train() first": (
            _fit(train=False),
            _fit(train=False, zero=False),
        ),
        "the loss takes logits and has its own sigmoid: with a second one it can hardly fall": (
            _fit(sigmoid=True)
        ),
        "gradients add up from step to step: clear them with optimiser.zero_grad() before "
        "backward": _fit(zero=False),
        "these are the losses of plain gradient descent (SGD): take torch.optim.AdamW": (
            _fit(kind=torch.optim.SGD)
        ),
        "these are the losses of another learning rate: give AdamW the one that you are given": (
            _fit(rate=1e-3),
            _fit(rate=1e-2),
        ),
        "the weights are as they were: each step needs loss.backward(), which computes the "
        "gradients, and optimiser.step(), which applies them": (
            _fit(step=False),
            _fit(step=False, train=False),
        ),
        "your losses are tensors, each of which keeps all maps of its step in memory: take the "
        "number with loss.item()": (_fit(keep=torch.Tensor.detach), _fit(keep=lambda loss: loss)),
        "your losses are those after each step: keep the one that the step was for": (
            _fit(after=True)
        ),
        "this is the sum over pixels: take the mean": _fit(reduction="sum"),
    },
    inputs=lambda rng: [a_batch(rng, 5, 3e-3), a_batch(rng, 4, 2e-2)],
    observe=_observe_fit,
    changes_inputs=True,
    rtol=5e-3,
    atol=1e-4,
)


# --- 4.5 ------------------------------------------------------------------------------------------


def boundary_distance_mm(prediction, truth, spacing_mm):
    def one_way(mask, other):
        surface, others = (one & ~ndimage.binary_erosion(one) for one in (mask, other))
        return ndimage.distance_transform_edt(~others, sampling=spacing_mm)[surface].mean()

    return (one_way(prediction, truth) + one_way(truth, prediction)) / 2


def two_masks(rng: np.random.Generator, *spacing_mm: float) -> tuple:
    """Make two masks of different size, cut by the array's edge, and an uneven spacing."""
    truth, prediction = np.zeros((2, 16, 18, 12), bool)
    truth[3:11, 4:13, 5:] = True
    truth[8:, 4:8, 6:10] = False  # a notch, whose inner corners touch the outside by an edge
    shift = int(rng.integers(0, 3))
    prediction[3 + shift : 12, 5:15, 2:8] = True
    prediction[13, :3, 9] = True  # a piece of three voxels, far from the rest
    return prediction, truth, spacing_mm


def _boundary(pool=lambda a, b: (a.mean() + b.mean()) / 2, spacing=lambda mm: mm, **erosion):
    """Return another mean, spacing or surface; `structure=None` takes whole masks."""

    def surface(mask):
        if "structure" in erosion and erosion["structure"] is None:
            return mask
        return mask & ~ndimage.binary_erosion(mask, **erosion)

    def compute(prediction, truth, spacing_mm):
        a, b = surface(prediction), surface(truth)
        ways = (
            ndimage.distance_transform_edt(~other, sampling=spacing(spacing_mm))[one]
            for one, other in ((a, b), (b, a))
        )
        return pool(*ways)

    return compute


BOUNDARY = Exercise(
    "4.5",
    reference=boundary_distance_mm,
    wrong={
        "that is in voxels: distances need spacing_mm (sampling=... in SciPy)": (
            _boundary(spacing=lambda mm: None)
        ),
        "that is one way only, from the prediction to the truth: what was missed would hardly "
        "count": _boundary(lambda a, b: a.mean()),
        "that is one way only, from the truth to the prediction: what was predicted far away would "
        "not count": _boundary(lambda a, b: b.mean()),
        "you took all voxels of the masks: most lie inside the other one and count 0; take the "
        "surfaces": _boundary(structure=None),
        "that is the largest distance (Hausdorff): take the mean": (
            _boundary(lambda a, b: max(a.max(), b.max())),
            _boundary(lambda a, b: (a.max() + b.max()) / 2),
        ),
        "the larger surface counts more in your mean: take the mean of each way first": (
            _boundary(lambda a, b: np.concatenate([a, b]).mean())
        ),
        "that is the sum of both ways: take half of it": _boundary(
            lambda a, b: a.mean() + b.mean()
        ),
        "where a mask ends at the edge of the array it has a surface too: beyond it all is "
        "background": _boundary(border_value=1),
        "a surface voxel has background at one of its six faces: edges and corners do not count": (
            _boundary(structure=np.ones((3, 3, 3)))
        ),
    },
    inputs=lambda rng: [
        two_masks(rng, 1.0, 1.2, 3.0),
        two_masks(rng, 0.8, 0.9, 2.5),
        two_masks(rng, 2.0, 1.5, 1.0),
    ],
    rtol=1e-3,
)


# --- 4.6 ------------------------------------------------------------------------------------------


def take_weights(theirs, ours):
    return {
        name: value if value.shape == own.shape else own
        for (name, own), value in zip(ours.items(), theirs.values())
    }


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
    answer = function(theirs, ours)
    if not isinstance(answer, dict):
        raise Wrong(f"return a dictionary of names and tensors, not {describe(answer)}")
    return answer | {"the names in their order": list(answer)}


def _by_name(state: dict) -> dict:
    return {name: state[name] for name in sorted(state)}


WEIGHTS = Exercise(
    "4.6",
    reference=take_weights,
    wrong={
        "these are their names: our network would find none of them; take ours": (
            lambda theirs, ours: dict(theirs),
            lambda theirs, ours: dict(zip(theirs, ours.values())),
        ),
        "your answer lacks a name: where shapes differ our own tensor stays, so that "
        "load_state_dict finds all": lambda theirs, ours: {
            n: v for (n, own), v in zip(ours.items(), theirs.values()) if v.shape == own.shape
        },
        "one of our layers got a tensor of another shape, which it cannot take: keep ours there": (
            lambda theirs, ours: dict(zip(ours, theirs.values()))
        ),
        "nothing came over, all tensors are still ours: no two names are the same": (
            lambda theirs, ours: {name: theirs.get(name, own) for name, own in ours.items()}
        ),
        "pair the layers in the order of the dictionaries, not in that of the alphabet, where 10 "
        "comes before 2": (
            lambda t, o: take_weights(_by_name(t), _by_name(o)),
            lambda t, o: {name: take_weights(_by_name(t), _by_name(o))[name] for name in o},
        ),
        "many tensors have the same shape: pair the layers in the order of the dictionaries": (
            lambda theirs, ours: {
                n: next((v for v in theirs.values() if v.shape == own.shape), own)
                for n, own in ours.items()
            }
        ),
    },
    inputs=lambda rng: [two_states(rng) for _ in range(3)],
    observe=_observe_weights,
)
