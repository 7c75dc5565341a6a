"""Recipes: read, checked, and kept as built-in types."""

import json
import os
import pickle
import re

import pytest

from spine_lib import SpineError
from spine_lib.slices.augment import Augmentation
from spine_lib.training.recipe import Recipe, built_in_recipes, load_recipe, recipe_from_dict


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_survives_json_and_another_process(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    copy = pickle.loads(pickle.dumps(recipe))
    assert copy == recipe and hash(copy) == hash(recipe)


def test_a_recipe_file_changes_only_what_it_names(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 7\naugmentation: {size: 64}\n", encoding="utf-8")
    recipe = load_recipe(file)
    assert (recipe.name, recipe.steps, recipe.augmentation.size) == ("mine", 7, 64)
    assert recipe.changed(name="sample", steps=Recipe().steps).batch == Recipe().batch


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("learning_rate: 1e-3\nspacing_mm: 2\n", encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.learning_rate == 0.001 and isinstance(recipe.spacing_mm, float)


NO_NAMES = ("../../x", "/x", "..", ".", "", ".hidden", "a b", "a.", "latest", "C:x", 100 * "a")

BILLION_LAUGHS = "a0: &a0 x\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 7", "there is no setting 'stepz'; there are name, dataset, target"),
        ("steps: many", "steps is 'many'; it must be a valid integer"),
        ("atrous_rates: [1, 2]", "atrous_rates is [1, 2]; it must have at least 3 items"),
        ("steps: true", "steps is True; it must not be true or false"),
        ("steps: 0", "steps is 0; it must be greater than 0"),
        ("steps: 1e20", "steps is '1e20'; it must be a valid integer"),
        ("steps: 100000000000000000000", "it must be less than or equal to 100000000"),
        ("steps: " + 900 * "[" + 900 * "]", "cannot be read as YAML (maximum recursion"),
        ("batch: 1", "batch is 1; it must be greater than or equal to 2"),
        ("batch: 2.5", "batch is 2.5; it must be a valid integer"),
        ("seed: -1", "seed is -1; it must be greater than or equal to 0"),
        ("workers: -1", "workers is -1; it must be greater than or equal to 0"),
        ("averaging: 1", "averaging is 1; it must be less than 1"),
        ("averaging: 1.5", "averaging is 1.5; it must be less than 1"),
        ("averaging: .nan", "averaging is nan; it must be a finite number"),
        ("learning_rate: .nan", "learning_rate is nan; it must be a finite number"),
        ("spacing_mm: 1e-9", "spacing_mm is '1e-9'; it must be greater than or equal to 0.1"),
        ("planes: [oblique]", "planes is 'oblique'; it must be 'axial', 'coronal' or 'sagittal'"),
        ("planes: [[1]]", "planes is [1]; it must be 'axial', 'coronal' or 'sagittal'"),
        ("planes: []", "planes is []; it must have at least 1 item"),
        ("planes: [axial, axial]", "planes is ['axial', 'axial']; it must name each only once"),
        ("models: []", "models is []; it must have at least 1 item"),
        ("models: [1]", "models is 1; it must be a valid string"),
        ("models: unet_resnet34", "models is 'unet_resnet34'; it must be a valid tuple"),
        ("models: [unet]", "models names 'unet'; unknown model 'unet'"),
        ("models: [unet_resnet99]", "unknown encoder 'resnet99'"),
        ("models: [unet_tu-hf-hub:a/x]", "unknown encoder 'tu-hf-hub:a/x'"),
        ("models: [unet_own, unet_own]", "it must name each only once"),
        ("encoder_weights: mine", "encoder_weights is 'mine'; it must be 'imagenet' or 'package'"),
        ("encoder_weights: package", "no package carries weights for resnet34"),
        ("models: [unet_own]\nencoder_weights: imagenet", "starts from random weights"),
        ("target: vertebrae", "target is 'vertebrae'; it must be 'spine' or 'regions'"),
        ("dataset: kaggle", "dataset is 'kaggle'; it must be 'sample', 'phantom'"),
        ("phantom_share: 1.5", "phantom_share is 1.5; it must be less than or equal to 1"),
        ("augmentation: 5", "augmentation is 5; it must be a valid dictionary"),
        ("augmentation: {size: 100}", "augmentation: size is 100; it must be a multiple of 32"),
        ("augmentation: {zoom: [2, 1]}", "zoom is [2, 1]; it must name the smaller enlargement"),
        ("augmentation: {siz: 64}", "augmentation: there is no setting 'siz'"),
        ("augmentation:", "augmentation is None; it must be a valid dictionary"),
        *((f"name: '{name}'", f"name is {name!r:.80}; a run is named by") for name in NO_NAMES),
        ("- a list", "holds no settings"),
        ("1: 2", "holds no settings"),
        ("name: " + 200_000 * "a", "is larger than 100,000 bytes"),
        ("a: [", "cannot be read as YAML (expected the node content, but found '<stream end>' in"),
        ("steps: 1\nsteps: 2", "cannot be read as YAML (it sets 'steps' twice)"),
        (BILLION_LAUGHS, "cannot be read as YAML (it refers to another part with *)"),
        ("steps: \xff", "is not UTF-8 (byte 7 is 0xff)"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence_that_names_the_file(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpineError, match=re.escape(message)) as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(file))
    assert len(str(caught.value)) < 600


def test_settings_made_in_python_are_checked_alike_and_cannot_be_changed():
    with pytest.raises(SpineError, match="^recipe: batch is 1; it must be"):
        Recipe(batch=1)
    with pytest.raises(SpineError, match="^augmentation: noise is 2; it must be"):
        Augmentation(noise=2)
    with pytest.raises(SpineError, match="^recipe: steps is 0; "):
        Recipe().changed(steps=0)
    with pytest.raises(ValueError, match="frozen"):
        Recipe().steps = 7


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(SpineError, match="there is no recipe"):
        load_recipe(tmp_path / "pipe.yaml")


def test_a_file_whose_name_cannot_name_a_run_is_a_recipe(tmp_path):
    (tmp_path / "my recipe.v2.yaml").write_text("steps: 7\n", encoding="utf-8")
    assert load_recipe(tmp_path / "my recipe.v2.yaml").name == "my-recipe-v2"


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(SpineError, match="there is no recipe 'samples'.*sample"):
        load_recipe("samples")
