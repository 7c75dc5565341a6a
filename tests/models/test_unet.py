"""The U-Net that lesson 4 writes out: its shapes, its parameters, its skips, its place."""

import pytest
import segmentation_models_pytorch as smp
import torch

from spine_lib import SpineError
from spine_lib.models.unet import DoubleConvolution, Down, UNet, Up


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_logits_have_the_size_of_the_image(depth, skips):
    network = UNet(2, 5, width=4, depth=depth, skips=skips).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 32, 48)).shape == (1, 5, 32, 48)


def test_each_block_changes_the_shape_as_its_name_says():
    x = torch.zeros(2, 3, 8, 12)
    assert DoubleConvolution(3, 5)(x).shape == (2, 5, 8, 12)
    assert Down(3, 6)(x).shape == (2, 6, 4, 6)
    assert Up(3, 0, 4)(x).shape == (2, 4, 16, 24)
    assert Up(3, 2, 4)(x, torch.zeros(2, 2, 16, 24)).shape == (2, 4, 16, 24)


def test_without_skips_the_way_up_sees_the_bottom_alone():
    """Where the bottom is blanked, a network without skips has lost all of the image."""
    image = torch.randn(1, 1, 16, 16)
    for skips in (True, False):
        network = UNet(width=4, depth=2, skips=skips).eval()
        network.downs[-1].register_forward_hook(lambda module, inputs, output: output * 0)
        with torch.inference_mode():
            spread = network(image) - network(torch.zeros_like(image))
        assert bool(spread.abs().max() > 1e-6) == skips


def test_our_up_block_is_the_librarys_decoder_block():
    """With its weights, in its order, ours gives the same numbers."""
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=1).decoder.blocks[1].eval()
    ours = Up(256, 128, 128).eval()
    names = ours.convolve.state_dict()
    ours.convolve.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)))
    below, skip = torch.randn(2, 256, 4, 6), torch.randn(2, 128, 8, 12)
    with torch.inference_mode():
        assert torch.equal(ours(below, skip), theirs(below, 8, 12, skip))


def test_an_image_that_cannot_be_halved_often_enough_is_refused_with_the_multiple():
    with pytest.raises(SpineError, match=r"cannot be halved 4 times: pad it to multiples of 16"):
        UNet(width=2)(torch.zeros(1, 1, 48, 40))
