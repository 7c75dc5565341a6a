import pytest
import torch
from torch import nn

from spine_lib.models import build_model, fold_norms


def _trained(network):
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.uniform_(layer.bias, -0.1, 0.1)
    return network.eval()


def _norms(network):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["unet_resnet18", "unet_own", "unet_timm-tf_efficientnet_lite0", "deeplabv3plus_own"]
)
def test_a_network_with_folded_norms_has_the_same_logits(model):
    network = _trained(build_model(model, atrous_rates=(1, 2, 3)))
    folded, image = fold_norms(network), torch.rand(1, 1, 64, 96)
    assert _norms(folded) < _norms(network) / 4
    with torch.inference_mode():
        torch.testing.assert_close(folded(image), network(image), rtol=1e-3, atol=1e-3)


def test_a_norm_that_follows_another_convolution_leaves_the_network_as_it_is():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = (
                nn.Conv2d(1, 1, 3, padding=1),
                nn.BatchNorm2d(1),
                nn.Conv2d(1, 1, 3, padding=1),
            )

        def forward(self, image):
            return self.norm(torch.relu(self.last(self.first(image))))

    network = _trained(Crossed())
    assert fold_norms(network) is network
