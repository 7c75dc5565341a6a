"""DeepLabv3+ written out: the same network as the library's, with the same logits."""

import pytest
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.models import build_model
from spine_lib.models.deeplab import (
    ASPP,
    DeepLabV3Plus,
    ImagePooling,
    SeparableConv,
    copy_from_library,
    paired_layers,
)
from spine_lib.models.resnet import ResNet34, stride_or_rate


def library_twin(output_stride: int = 16, **options) -> nn.Module:
    """Make the library's network, with batch statistics that are not those of a fresh network."""
    import segmentation_models_pytorch as smp

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


@pytest.mark.parametrize("output_stride", [8, 16])
def test_with_the_librarys_weights_it_gives_the_librarys_logits(output_stride):
    library = library_twin(output_stride, in_channels=2, classes=3)
    own = DeepLabV3Plus(2, 3, (1, 2, 3), output_stride=output_stride).eval()
    image = torch.randn(2, 2, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before, wanted = own(image), library(image)
        copy_from_library(own, library)
        after = own(image)
    scale = wanted.abs().max()
    assert (before - wanted).abs().max() > 0.1 * scale
    assert (after - wanted).abs().max() < 1e-4 * scale


def test_gradients_and_batch_statistics_are_the_librarys_too():
    library = library_twin().train()
    own = DeepLabV3Plus(atrous_rates=(1, 2, 3), aspp_dropout=0)
    copy_from_library(own, library)
    library.decoder.aspp[0].project[3].p = 0.0
    image = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    for network in (own, library):
        network.double()(image.double()).square().mean().backward()
    for name, other_name in paired_layers(own, library):
        mine, theirs = own.get_submodule(name), library.get_submodule(other_name)
        assert torch.allclose(mine.weight.grad, theirs.weight.grad, rtol=1e-6, atol=1e-12), name
        if isinstance(mine, nn.BatchNorm2d):
            assert torch.allclose(mine.running_var, theirs.running_var), name


def test_it_has_as_many_parameters_as_the_papers_network():
    def count(network):
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(DeepLabV3Plus()) == count(build_model("deeplabv3plus_resnet34"))


def test_both_start_from_weights_of_the_same_strength():
    """Else a comparison of the two after training compares two beginnings."""
    torch.manual_seed(0)
    own, library = DeepLabV3Plus(), build_model("deeplabv3plus_resnet34")
    for name, other_name in paired_layers(own, library):
        mine, theirs = own.get_submodule(name).weight, library.get_submodule(other_name).weight
        if mine.numel() > 2000:
            assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.1), name


def test_every_weight_of_the_library_finds_a_place():
    pairs = dict(paired_layers(DeepLabV3Plus(), build_model("deeplabv3plus_resnet34")))
    assert pairs["encoder.stem.0"] == "encoder.conv1"
    assert pairs["encoder.stages.3.2.conv2"] == "encoder.layer4.2.conv2"
    assert pairs["aspp.branches.4.conv.0"] == "decoder.aspp.0.convs.4.1"
    assert pairs["reduce_low.0"] == "decoder.block1.0"
    assert pairs["head"] == "segmentation_head.0"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"atrous_rates": (2, 4, 6)}, "aspp.branches.1.0.0 is .*rate 2.*rate 1"),
        ({"output_stride": 8}, "encoder.stages.2.0.conv1 is .*stride 1.*stride 2"),
        ({"in_channels": 3}, "encoder.stem.0 is a convolution of 3 to 64.*of 1 to 64"),
        ({"classes": 4}, "head is a convolution of 256 to 4"),
    ],
)
def test_a_network_built_otherwise_is_no_twin(own, words):
    options = {"atrous_rates": (1, 2, 3)} | own
    with pytest.raises(SpineError, match=words):
        copy_from_library(DeepLabV3Plus(**options), library_twin())


def test_another_architecture_is_no_twin():
    with pytest.raises(SpineError, match="layers with weights, so they are no twins"):
        copy_from_library(DeepLabV3Plus(), build_model("unet_resnet34"))


def test_an_image_that_does_not_fit_is_refused():
    with pytest.raises(SpineError, match="64 x 72 pixels .* multiples of 16, so pad it"):
        DeepLabV3Plus().eval()(torch.zeros(1, 1, 64, 72))
    assert DeepLabV3Plus(output_stride=8).eval()(torch.zeros(1, 1, 64, 72)).shape[-1] == 72


def test_settings_that_cannot_be_built_are_refused():
    with pytest.raises(SpineError, match="8 or 16, and 32"):
        DeepLabV3Plus(output_stride=32)
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


def test_dilation_makes_up_for_each_stride_that_is_left_out():
    for output_stride in (8, 16, 32):
        reached, spread = 4, 1
        for wanted in (4, 8, 16, 32):
            stride, rate = stride_or_rate(wanted, reached, output_stride)
            reached *= stride
            assert reached * rate == wanted and rate >= spread
            spread = rate


def test_a_separable_convolution_takes_fewer_weights():
    separable = SeparableConv(512, 256, rate=2)
    assert sum(p.numel() for p in separable.parameters()) == 9 * 512 + 512 * 256
    assert separable(torch.zeros(1, 512, 7, 5)).shape == (1, 256, 7, 5)


def test_image_pooling_tells_every_pixel_the_same():
    pooling = ImagePooling(6, 4).eval()
    seen = pooling(torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0)))
    assert seen.shape == (2, 4, 5, 7)
    assert torch.equal(seen, seen[..., :1, :1].expand_as(seen))


def test_a_few_steps_teach_it_one_patch():
    torch.manual_seed(0)
    network = DeepLabV3Plus(atrous_rates=(1, 2, 3), aspp_dropout=0.0)
    image = torch.randn(2, 1, 32, 32)
    target = (image > 0.5).float().roll(1, -1)
    target[:] = 0
    target[..., 8:24, 8:24] = 1
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = nn.functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
