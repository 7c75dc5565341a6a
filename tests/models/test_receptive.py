"""Receptive fields: by formula and by gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spine_lib.models import ResNet34
from spine_lib.models.receptive import Layer, encoder_layers, receptive_field


def side_seen(stack: nn.Module, size: int) -> int:
    """Return how many pixels along a row move the middle of what positive weights make."""
    for layer in stack:
        nn.init.constant_(layer.weight, 1 / layer.weight.numel())
    image = torch.ones(1, 1, size, size, requires_grad=True)
    output = stack.double()(image.double())
    output[..., output.shape[-2] // 2, output.shape[-1] // 2].sum().backward()
    columns = image.grad[0, 0].sum(0).nonzero()
    return int(columns.max() - columns.min()) + 1


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 2), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    )
)
def test_formula_and_gradient_agree_on_any_stack(layers):
    stack = nn.Sequential(
        *(
            nn.Conv2d(1, 1, kernel, stride, rate * (kernel // 2), rate, bias=False)
            for kernel, stride, rate in layers
        )
    )
    assert side_seen(stack, 192) == receptive_field(layers)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_the_listed_layers_are_those_of_our_encoder(output_stride):
    encoder = ResNet34(output_stride=output_stride)
    path = [
        Layer(layer.kernel_size[0], layer.stride[0], layer.dilation[0])
        for name, layer in encoder.named_modules()
        if isinstance(layer, nn.Conv2d) and "shortcut" not in name
    ]
    path.insert(1, Layer(encoder.pool.kernel_size, encoder.pool.stride))
    assert encoder_layers(output_stride) == path


def test_a_whole_resnet_34_sees_899_pixels():
    assert receptive_field(encoder_layers()) == 899
