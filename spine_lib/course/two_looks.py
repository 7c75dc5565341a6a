"""Judge a double convolution: two looks of convolution, normalisation and ReLU."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from spine_lib.course.exercise import Wrong, describe


def judge_double_convolution(block: nn.Module, inputs: int, outputs: int) -> None:
    """Tell what is wrong with a double convolution, by its layers and by what it makes of an image.

    Args:
        block: the student's.
        inputs: channels that come in.
        outputs: channels that go out.

    Raises:
        Wrong: what is wrong, in the student's terms.
    """
    if not isinstance(block, nn.Module):
        raise Wrong(f"return a network, a torch.nn.Module, and not {describe(block)}")
    convolutions = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)]
    _judge_convolutions(convolutions, inputs, outputs)
    _judge_norms(norms, convolutions, outputs)
    _judge_order(block, convolutions, norms)


def _judge_order(block: nn.Module, convolutions: list, norms: list) -> None:
    inputs = convolutions[0].in_channels
    generator = torch.Generator().manual_seed(inputs)
    image = torch.randn(2, inputs, 10, 12, generator=generator)
    right = _looks(convolutions, norms, image, "cnr", "cnr")
    answer = block.train()(image.clone()).detach()
    if answer.shape != right.shape:
        raise Wrong(
            f"your block makes {tuple(answer.shape)} of {tuple(image.shape)}, and it should make "
            f"{tuple(right.shape)}"
        )
    if torch.allclose(answer, right, atol=1e-5):
        return
    told = (
        ("cnr", "cn", "the last ReLU is missing: your block gives negative numbers"),
        ("cn", "cnr", "the ReLU between the two looks is missing"),
        ("cn", "cn", "there is no ReLU: two convolutions in a row can do no more than one"),
        ("crn", "crn", "normalise before the ReLU, not after it"),
    )
    for first, second, words in told:
        if torch.allclose(answer, _looks(convolutions, norms, image, first, second), atol=1e-5):
            raise Wrong(words)
    raise Wrong(
        "your layers are the right ones, and what they give is not: apply convolution, "
        "normalisation and ReLU, and the same once more"
    )


def _judge_convolutions(convolutions: list[nn.Conv2d], inputs: int, outputs: int) -> None:
    if len(convolutions) != 2:
        raise Wrong(f"your block has {len(convolutions)} convolutions, and it should have two")
    for number, (layer, wanted) in enumerate(zip(convolutions, (inputs, outputs)), 1):
        if (layer.in_channels, layer.out_channels) != (wanted, outputs):
            raise Wrong(
                f"convolution {number} goes from {layer.in_channels} to {layer.out_channels} "
                f"channels, and it should go from {wanted} to {outputs}"
            )
        if layer.kernel_size != (3, 3):
            raise Wrong(f"convolution {number} has a kernel of {layer.kernel_size}: take 3 x 3")
        if layer.padding not in ((1, 1), "same"):
            raise Wrong(
                f"convolution {number} loses a row and a column at each edge: padding=1 puts zeros "
                "around the map first"
            )


@torch.no_grad()
def _looks(convolutions: list, norms: list, image: torch.Tensor, *orders: str) -> torch.Tensor:
    """Apply two looks; "cnr" stands for convolution, normalisation, ReLU."""
    for convolution, norm, order in zip(convolutions, norms, orders):
        for letter in order:
            if letter == "c":
                image = functional.conv2d(image, convolution.weight, padding=1)
            elif letter == "n":
                image = functional.batch_norm(
                    image, None, None, norm.weight, norm.bias, training=True
                )
            else:
                image = functional.relu(image)
    return image


def _judge_norms(norms: list[nn.BatchNorm2d], convolutions: list, outputs: int) -> None:
    if len(norms) != 2:
        raise Wrong(
            f"your block has {len(norms)} batch normalisations: each convolution has its own"
        )
    if any(norm.num_features != outputs for norm in norms):
        raise Wrong(
            f"a normalisation takes {norms[0].num_features} channels: each stands behind its "
            f"convolution, which gives {outputs}"
        )
    if any(layer.bias is not None for layer in convolutions):
        raise Wrong(
            "your convolutions have a bias, which the normalisation behind takes away again: "
            "build them with bias=False"
        )
