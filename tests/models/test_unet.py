"""The U-Net that lesson 4 writes out: its shapes, its parameters, its skips, its place."""

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

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


@pytest.mark.parametrize("depth", [1, 2])
def test_a_logit_sees_as_far_as_the_blocks_reach(depth):
    """Each block reaches 2 pixels of its level: down and up once, at the bottom once."""
    network = UNet(width=2, depth=depth, skips=False).double().eval()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.abs_()  # so that no ReLU and no sum takes a path away
    seen = torch.zeros(96)
    for _ in range(8):  # pooling passes on one pixel of four, each time another
        image = torch.rand(1, 1, 96, 96, dtype=torch.double, requires_grad=True)
        network(image)[0, 0, 48, 48].backward()
        seen += image.grad[0, 0].abs().sum(1)
    rows = torch.nonzero(seen).ravel()
    reach = 2 * (2 * (2**depth - 1) + 2**depth)
    assert 2 * reach < int(rows[-1] - rows[0]) + 1 <= 2 * reach + 2 ** (depth + 1)


def test_our_up_block_is_the_librarys_decoder_block():
    """With its weights, in its order, ours gives the same numbers."""
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=1).decoder.blocks[1].eval()
    ours = Up(256, 128, 128).eval()
    names = ours.convolve.state_dict()
    ours.convolve.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)))
    below, skip = torch.randn(2, 256, 4, 6), torch.randn(2, 128, 8, 12)
    with torch.inference_mode():
        assert torch.equal(ours(below, skip), theirs(below, 8, 12, skip))


def test_it_learns_one_image_by_heart():
    torch.manual_seed(0)
    image = torch.randn(1, 1, 16, 16)
    target = (torch.rand(1, 1, 16, 16) > 0.5).float()
    network = UNet(width=8, depth=2)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(network(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2  # noise can only be learnt by heart; guessing gives 0.69


@pytest.mark.parametrize("shape", [(40, 48), (48, 40)])
def test_an_image_that_cannot_be_halved_often_enough_is_refused_with_the_multiple(shape):
    with pytest.raises(SpineError, match=r"cannot be halved 4 times: pad it to multiples of 16"):
        UNet(width=2)(torch.zeros(1, 1, *shape))


@pytest.mark.parametrize(
    "arguments", [{"in_channels": 0}, {"classes": 0}, {"width": 0}, {"depth": -1}]
)
def test_a_network_that_cannot_be_is_refused(arguments):
    with pytest.raises(SpineError, match="cannot be built"):
        UNet(**arguments)
