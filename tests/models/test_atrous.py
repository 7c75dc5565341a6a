"""Atrous convolution and receptive fields: by hand, by formula and by gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from spine_lib import SpineError
from spine_lib.explore import count_paths
from spine_lib.models.atrous import (
    Layer,
    atrous_convolution,
    effective_kernel,
    encoder_layers,
    open_all_paths,
    pixel_gradient,
    receptive_field,
    side_seen,
    tap_share,
)
from spine_lib.models.resnet import ResNet34


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 6),
)
def test_by_hand_is_what_torch_computes(rows, columns, height, width, rate):
    rng = np.random.default_rng([rows, columns, height, width, rate])
    image, kernel = rng.normal(size=(rows, columns)), rng.normal(size=(height, width))
    wanted = functional.conv2d(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(kernel)[None, None],
        padding=(rate * (height // 2), rate * (width // 2)),
        dilation=rate,
    )
    assert np.allclose(atrous_convolution(image, kernel, rate), wanted[0, 0].numpy())


def test_a_kernel_without_a_middle_is_refused():
    with pytest.raises(SpineError, match="2 x 3 at rate 1 has no middle"):
        atrous_convolution(np.ones((4, 4)), np.ones((2, 3)), 1)
    with pytest.raises(SpineError, match="rate 0"):
        atrous_convolution(np.ones((4, 4)), np.ones((3, 3)), 0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 2), st.integers(1, 3)), max_size=4
    )
)
def test_formula_and_gradient_agree_on_any_stack(layers):
    stack = nn.Sequential(
        *(
            nn.Conv2d(1, 1, kernel, stride, rate * (kernel // 2), rate, bias=False)
            for kernel, stride, rate in layers
        )
    )
    gradient = pixel_gradient(open_all_paths(stack), 192)
    assert side_seen(gradient) == receptive_field(layers)


def test_one_layer_sees_its_effective_kernel():
    for kernel, rate in ((1, 7), (3, 1), (3, 6), (5, 2), (7, 3)):
        assert receptive_field([Layer(kernel, 1, rate)]) == effective_kernel(kernel, rate)


@pytest.mark.parametrize(("output_stride", "stages"), [(32, 2), (8, 3)])
def test_the_formula_fits_our_encoder(output_stride, stages):
    encoder = ResNet34(output_stride=output_stride)
    encoder.stages = encoder.stages[:stages]
    wanted = receptive_field(encoder_layers(output_stride, stages))
    size = 32 * (wanted // 32 + 2)
    assert side_seen(pixel_gradient(open_all_paths(encoder), size)) == wanted


def test_a_whole_resnet_34_sees_899_pixels():
    assert receptive_field(encoder_layers(32)) == 899


def test_stacked_rates_leave_the_holes_that_path_counting_finds():
    stack = nn.Sequential(
        *(nn.Conv2d(1, 1, 3, padding=2, dilation=2, bias=False) for _ in range(3))
    )
    gradient = pixel_gradient(open_all_paths(stack), 64)
    seen = gradient[32 - 6 : 32 + 7, 32 - 6 : 32 + 7] > 0
    assert seen.sum() == 49
    assert np.array_equal(seen, count_paths(3, [2, 2, 2]) > 0)


@pytest.mark.parametrize("size", [1, 3, 4, 8])
@pytest.mark.parametrize("rate", [1, 2, 3, 12])
def test_the_share_of_taps_is_what_a_convolution_of_ones_counts(size, rate):
    taps = atrous_convolution(np.ones((size, size)), np.ones((3, 3)), rate)
    assert tap_share(size, rate) == pytest.approx(taps.mean() / 9)


def test_opening_paths_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(3, 2, 1))
    before = network[0].weight.clone()
    opened = open_all_paths(network)
    assert torch.equal(network[0].weight, before) and isinstance(network[2], nn.MaxPool2d)
    assert isinstance(opened[1], nn.Identity) and isinstance(opened[2], nn.AvgPool2d)


def test_a_gradient_of_zeros_is_told():
    with pytest.raises(SpineError, match="no input pixel has a gradient"):
        side_seen(np.zeros((4, 4)))
