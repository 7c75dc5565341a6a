"""The two networks of the paper, and the written-out ones, by name."""

import pytest
import torch

from spine_lib import SpineError
from spine_lib.models import ARCHITECTURES, build_model
from spine_lib.slices.augment import Augmentation
from spine_lib.training.checkpoints import load_weights, save_weights
from spine_lib.training.recipe import Recipe

PAPERS_TWO = ("unet_resnet34", "deeplabv3plus_resnet34")
OWN = ("unet_own", "deeplabv3plus_own")


@pytest.mark.parametrize("name", [*PAPERS_TWO, *OWN])
def test_logits_have_the_size_of_the_image(name):
    network = build_model(name, 2, 5, atrous_rates=(1, 2, 3)).eval()
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


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("unet_resnet35", None, "unknown encoder 'resnet35'"),
        (PAPERS_TWO[0], "mine", "no weights 'mine' for resnet34"),
        (PAPERS_TWO[0], "package", "no package carries weights for resnet34.*lite0"),
        ("unet_own", "imagenet", "unet_own starts from random weights, and 'imagenet'"),
    ],
)
def test_an_encoder_or_weights_that_there_are_not_are_refused(name, weights, message):
    with pytest.raises(SpineError, match=message):
        build_model(name, encoder_weights=weights)


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def no_network(*args, **kwargs):
        raise ConnectionError("unreachable")

    monkeypatch.setitem(ARCHITECTURES, "unet", no_network)
    with pytest.raises(SpineError, match="cannot be fetched .ConnectionError.: connect to the"):
        build_model(PAPERS_TWO[0], encoder_weights="imagenet")


def test_packaged_weights_are_imagenets_and_fit_a_grey_image(sample_root):
    """They come the way the sample does; without it there is no network either."""
    name = "unet_timm-tf_efficientnet_lite0"
    weight = build_model(name, encoder_weights="package").encoder.state_dict()["conv_stem.weight"]
    colour = build_model(name, 3, encoder_weights="package").encoder.state_dict()
    assert torch.allclose(weight.sum(1), colour["conv_stem.weight"].sum(1), atol=1e-6)
    assert colour["conv_stem.weight"].std() > 0.1
    random = build_model(name).encoder.state_dict()["bn1.running_var"]
    assert not torch.allclose(colour["bn1.running_var"], random)


@pytest.mark.parametrize("name", OWN)
def test_a_recipe_may_name_a_written_out_network_and_its_weights_are_saved_and_loaded(
    name, tmp_path
):
    recipe = Recipe(models=(name,), atrous_rates=(1, 2, 3), augmentation=Augmentation(size=32))
    network = recipe.build(name).eval()
    assert type(network).__module__.startswith("spine_lib.models.")
    path = save_weights(network, name, recipe, tmp_path / "weights.safetensors")
    loaded, found = load_weights(path, name)
    image = torch.randn(1, 1, 32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), loaded(image))
    assert found == recipe
