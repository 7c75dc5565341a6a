"""The two networks of the paper."""

import pytest
import torch

from spine_lib.errors import SpineError
from spine_lib.models import build_model

PAPERS_TWO = ("unet_resnet34", "deeplabv3plus_resnet34")


@pytest.mark.parametrize("name", PAPERS_TWO)
def test_logits_have_the_size_of_the_image(name):
    network = build_model(name, in_channels=2, classes=5).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 64, 96)).shape == (1, 5, 64, 96)


@pytest.mark.parametrize(("name", "millions"), [(PAPERS_TWO[0], 24.4), (PAPERS_TWO[1], 22.4)])
def test_the_networks_have_the_parameters_of_their_kind(name, millions):
    count = sum(p.numel() for p in build_model(name).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize("name", ["unet", "resnet34", "unet_", "fpn_resnet34"])
def test_a_name_without_architecture_or_encoder_is_refused(name):
    with pytest.raises(SpineError, match=f"unknown model '{name}'.*for example unet_resnet34"):
        build_model(name)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(SpineError, match="unknown encoder 'resnet35'"):
        build_model("unet_resnet35")


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise ConnectionError("unreachable")

    monkeypatch.setitem(
        __import__("spine_lib.models.factory", fromlist=["x"]).ARCHITECTURES, "unet", no_network
    )
    with pytest.raises(SpineError, match="cannot be fetched .ConnectionError.: connect to the"):
        build_model(PAPERS_TWO[0], encoder_weights="imagenet")


def test_weights_that_nobody_has_are_refused_by_name():
    with pytest.raises(SpineError, match="no weights 'mine' for resnet34"):
        build_model(PAPERS_TWO[0], encoder_weights="mine")


def test_packaged_weights_are_imagenets_and_fit_a_grey_image(sample_root):
    """They come the way the sample does; without it there is no network either."""
    name = "unet_timm-tf_efficientnet_lite0"
    weight = build_model(name, encoder_weights="package").encoder.state_dict()["conv_stem.weight"]
    colour = build_model(name, 3, encoder_weights="package").encoder.state_dict()
    assert torch.allclose(weight.sum(1), colour["conv_stem.weight"].sum(1), atol=1e-6)
    assert colour["conv_stem.weight"].std() > 0.1
    random = build_model(name).encoder.state_dict()["bn1.running_var"]
    assert not torch.allclose(colour["bn1.running_var"], random)


def test_an_encoder_without_a_package_is_refused_with_one_that_has():
    with pytest.raises(SpineError, match="no package carries weights for resnet34.*lite0"):
        build_model(PAPERS_TWO[0], encoder_weights="package")
