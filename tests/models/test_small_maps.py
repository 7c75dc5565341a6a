import copy

import pytest
import torch
from torch import nn

from spine_lib.models import build_model, multiply_small_maps
from spine_lib.models.small_maps import SmallMapConv2d


@pytest.mark.parametrize(
    ("kernel", "stride", "rate", "size"),
    [(3, 1, 1, 2), (3, 2, 1, 4), (3, 2, 1, 5), (3, 1, 3, 4), (1, 1, 1, 4), (1, 2, 1, 3)],
)
def test_a_small_map_is_convolved_as_by_torch_with_the_same_gradients(kernel, stride, rate, size):
    torch.manual_seed(0)
    padding = rate * (kernel // 2)
    plain = nn.Conv2d(256, 3, kernel, stride, padding, rate)
    layer = multiply_small_maps(nn.Sequential(copy.deepcopy(plain)))[0]
    assert type(layer) is SmallMapConv2d
    results = []
    for convolution in (plain, layer):
        x = torch.linspace(-1, 1, 2 * 256 * size**2).reshape(2, 256, size, size).requires_grad_()
        result = convolution(x)
        result.square().sum().backward()
        results.append((result, x.grad, convolution.weight.grad, convolution.bias.grad))
    for expected, value in zip(*results):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["unet_resnet34", "deeplabv3plus_resnet34"])
def test_a_network_of_such_layers_has_the_same_weights_and_logits(model):
    network = build_model(model, atrous_rates=(1, 2, 3)).eval()
    faster = multiply_small_maps(copy.deepcopy(network))
    assert sum(type(layer) is SmallMapConv2d for layer in faster.modules()) > 20
    assert network.state_dict().keys() == faster.state_dict().keys()
    for size in (64, 160):  # at 160 most maps are too large
        image = torch.randn(2, 1, size, size)
        with torch.inference_mode():
            torch.testing.assert_close(faster(image), network(image), rtol=1e-4, atol=1e-4)
