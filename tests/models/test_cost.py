"""What a network costs."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.models import build_model, cost
from spine_lib.models.deeplab import DeepLabV3Plus


def test_multiply_adds_are_those_of_the_formula():
    convolution = nn.Conv2d(3, 8, 3, padding=1)
    assert cost.count_multiply_adds(convolution, 10, 12, in_channels=3) == 9 * 3 * 8 * 10 * 12
    strided = nn.Conv2d(1, 4, 5, stride=2, padding=2, groups=1)
    assert cost.count_multiply_adds(strided, 16, 16) == 25 * 4 * 8 * 8


def test_counting_computes_nothing_and_changes_nothing():
    network = DeepLabV3Plus()
    weight = network.head.weight.clone()
    small = cost.count_multiply_adds(network, 512, 512)
    assert cost.count_multiply_adds(network, 1024, 512) / small == pytest.approx(2, rel=1e-3)
    assert torch.equal(network.head.weight, weight) and network.training


def test_an_output_stride_of_8_costs_more_and_weighs_the_same():
    coarse, fine = DeepLabV3Plus(output_stride=16), DeepLabV3Plus(output_stride=8)
    assert cost.count_parameters(coarse) == cost.count_parameters(fine)
    ratio = cost.count_multiply_adds(fine, 64, 64) / cost.count_multiply_adds(coarse, 64, 64)
    assert 1.5 < ratio < 4


def test_frozen_parameters_do_not_count():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 1))
    network[0].requires_grad_(False)
    assert cost.count_parameters(network) == 2 * 4 + 4


def test_what_is_kept_is_counted_once_and_without_weights():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.ReLU())
    images = torch.zeros(2, 1, 32, 32)
    # the convolution keeps its input, the ReLU its output
    wanted = 4 * 2 * 32 * 32 * (1 + 4) / cost.MB
    assert cost.kept_for_backward_mb(network, images) == pytest.approx(wanted)


def test_a_larger_batch_takes_longer():
    network = nn.Conv2d(1, 32, 7, padding=3)
    few, many = (cost.forward_seconds(network, torch.zeros(n, 1, 64, 64), 0.1) for n in (1, 32))
    assert many > 2 * few > 0


def test_a_step_updates_the_weights():
    network = nn.Conv2d(1, 1, 3, padding=1)
    before = network.weight.clone()
    cost.training_step(network, torch.ones(1, 1, 8, 8))()
    assert not torch.equal(network.weight, before)


def test_memory_is_measured_in_processes_of_their_own():
    names = ("unet_resnet34", "deeplabv3plus_resnet34")
    before = cost.resident_bytes()
    measured = cost.peak_memory_mb(names, 8, 96)
    assert list(measured) == list(names)
    for name in names:
        weights_mb = 4 * cost.count_parameters(build_model(name)) / cost.MB
        # weights, gradients and the optimiser's two averages, and then the maps
        assert measured[name]["train"] > 4 * weights_mb
        assert weights_mb < measured[name]["predict"] < measured[name]["train"] < 20 * weights_mb
    assert cost.resident_bytes() - before < 1e9


def test_a_measurement_that_fails_says_why():
    code = "raise SystemExit('out of memory')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with pytest.raises(SpineError, match="memory of a_network could not .*: out of memory"):
        cost._collect(process, "a_network")


def test_the_peak_is_never_below_what_is_held():
    assert cost.resident_bytes(peak=True) >= 0.9 * cost.resident_bytes() > 1e7
