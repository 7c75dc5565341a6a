"""DeepLabv3+ written out: the same network as the library's, with the same logits."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.models import build_model
from spine_lib.models.deeplab import ASPP, DeepLabV3Plus
from spine_lib.models.resnet import ResNet34


def library_twin(output_stride: int = 16, **options) -> nn.Module:
    """Make the library's network, with batch statistics that are not those of a fresh network."""
    torch.manual_seed(1)
    options = {"in_channels": 1, "classes": 1, "decoder_atrous_rates": (1, 2, 3)} | options
    network = smp.DeepLabV3Plus(
        "resnet34", encoder_weights=None, encoder_output_stride=output_stride, **options
    )
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return network.eval()


def pairs(own: nn.Module, library: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """Return the layers with weights of both, in the order in which each defines them."""
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    mine, theirs = (
        [layer for layer in network.modules() if isinstance(layer, kinds)]
        for network in (own, library)
    )
    return list(zip(mine, theirs, strict=True))


def copy_weights(own: nn.Module, library: nn.Module) -> None:
    for mine, theirs in pairs(own, library):
        mine.load_state_dict(theirs.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_with_the_librarys_weights_it_gives_the_librarys_logits(output_stride):
    library = library_twin(output_stride, in_channels=2, classes=3)
    own = DeepLabV3Plus(2, 3, (1, 2, 3), output_stride=output_stride).eval()
    image = torch.randn(2, 2, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, wanted = own(image), library(image)
        copy_weights(own, library)
        after = own(image)
    scale = wanted.abs().max()
    assert (before - wanted).abs().max() > 0.1 * scale
    assert (after - wanted).abs().max() < 1e-4 * scale


@pytest.mark.slow
def test_gradients_and_batch_statistics_are_the_librarys_too():
    library = library_twin().train()
    own = DeepLabV3Plus(atrous_rates=(1, 2, 3), aspp_dropout=0)
    copy_weights(own, library)
    library.decoder.aspp[0].project[3].p = 0.0
    image = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for network in (own, library):
        network.double()(image.double()).square().mean().backward()
    for mine, theirs in pairs(own, library):
        assert torch.allclose(mine.weight.grad, theirs.weight.grad, rtol=1e-6, atol=1e-12), mine
        if isinstance(mine, nn.BatchNorm2d):
            assert torch.allclose(mine.running_var, theirs.running_var), mine


def test_both_start_from_as_many_weights_of_the_same_strength():
    """Else a comparison of the two after training compares two beginnings."""
    torch.manual_seed(0)
    for mine, theirs in pairs(DeepLabV3Plus(), build_model("deeplabv3plus_resnet34")):
        assert mine.weight.shape == theirs.weight.shape
        if mine.weight.numel() > 2000:
            strength = theirs.weight.std().item()
            assert mine.weight.std().item() == pytest.approx(strength, rel=0.1), mine


def test_settings_that_cannot_be_built_and_images_that_do_not_fit_are_refused():
    with pytest.raises(SpineError, match="64 x 72 pixels .* multiples of 16, so pad it"):
        DeepLabV3Plus()(torch.zeros(1, 1, 64, 72))
    with pytest.raises(SpineError, match="one of .8, 16, 32."):
        ResNet34(output_stride=4)
    with pytest.raises(SpineError, match="three atrous rates"):
        ASPP(8, 4, (1, 2), 0.0)
    with pytest.raises(SpineError, match="three atrous rates"):
        ASPP(8, 4, (0, 1, 2), 0.0)


@pytest.mark.parametrize(
    ("output_stride", "sides"),
    [(32, [32, 16, 8, 4, 2]), (16, [32, 16, 8, 4, 4]), (8, [32, 16, 8, 8, 8])],
)
def test_the_encoder_keeps_its_maps_as_large_as_asked_for(output_stride, sides):
    encoder = ResNet34(output_stride=output_stride).eval()
    with torch.inference_mode():
        maps = encoder(torch.zeros(1, 1, 64, 64))
    assert [one.shape[-1] for one in maps] == sides
    assert [one.shape[1] for one in maps] == [64, 64, 128, 256, 512]
