"""The two models that come with the library."""

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.datasets import sample_cases
from spine_lib.metrics.overlap import confusion, dice
from spine_lib.training import pretrained
from spine_lib.training.pretrained import PRETRAINED, load_pretrained, load_probability
from spine_lib.training.recipe import load_recipe
from spine_lib.volumes import predict_volume


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_shipped_model_is_small_and_says_how_it_was_trained(name):
    network, recipe = load_pretrained(name)
    assert not network.training
    assert recipe == load_recipe("light")
    assert (pretrained.FOLDER / f"{name}.safetensors").stat().st_size < 15e6


def test_stored_predictions_are_small():
    files = list(pretrained.FOLDER.glob("*.npz"))
    assert len(files) == 4
    assert sum(path.stat().st_size for path in files) < 5e6


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINED)
def test_a_stored_prediction_is_what_the_model_says(name, sample_root):
    case = {case.case_id: case for case in sample_cases(sample_root)}["crop"]
    data = case.load()
    network, recipe = load_pretrained(name)
    again = predict_volume(network, data.ct, recipe.changed(precision="32-true"), "cpu").array
    stored = load_probability(name, "crop", data.ct).array
    # Stored from half-precision weights, perhaps on another kind of processor.
    assert np.abs(again - stored).mean() < 0.01
    found = dice(confusion(stored > 0.5, data.labels.array > 0, data.ignore.array))
    assert found > 0.65


def test_a_stored_prediction_of_another_grid_is_refused(sample_root):
    cases = {case.case_id: case for case in sample_cases(sample_root)}
    with pytest.raises(SpineError, match="scan and stored prediction of crop"):
        load_probability("unet_light", "crop", cases["abdomen"].load().ct)


def test_a_model_that_is_not_shipped_is_refused_with_the_ones_that_are():
    with pytest.raises(SpineError, match="no shipped model 'unet': use unet_light or deep"):
        load_pretrained("unet")
    with pytest.raises(SpineError, match="no stored prediction of 'unet_light' for 'chest'"):
        load_probability("unet_light", "chest", None)
