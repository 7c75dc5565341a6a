"""Lesson 9: fold batch normalisation into the convolution before it, for prediction."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions scale and shift as their norms would.

    The logits are the same up to rounding; where they are not, since a norm does not follow the
    convolution that was defined before it, the network itself is returned.
    """
    folded = copy.deepcopy(network.eval())
    for parent in list(folded.modules()):
        before = None
        for name, layer in list(parent.named_children()):
            fits = isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d)
            if fits and before.out_channels == layer.num_features:
                statistics = (layer.running_mean, layer.running_var, layer.eps)
                before.weight, before.bias = fuse_conv_bn_weights(
                    before.weight, before.bias, *statistics, layer.weight, layer.bias
                )
                setattr(parent, name, getattr(layer, "act", nn.Identity()))
            before = layer
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None:
        return network
    image = torch.linspace(-1.5, 2.5, 64 * 64, device=first.weight.device).view(1, 1, 64, 64)
    image = image.expand(-1, first.in_channels, -1, -1)
    with torch.inference_mode():
        logits, again = network(image), folded(image)
    return folded if torch.allclose(logits, again, rtol=1e-3, atol=1e-3) else network
