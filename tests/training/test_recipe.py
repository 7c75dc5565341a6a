"""Recipes: read, checked, and kept as built-in types."""

import json
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 7", "there is no setting 'stepz'; there are name, dataset, target"),
        ("steps: many", "steps is 'many'; it must be a valid integer"),
        ("steps: true", "steps is True; it must not be true or false"),
        ("steps: 0", "steps is 0; it must be greater than 0"),
        ("batch: 1", "batch is 1; it must be greater than or equal to 2"),
        ("batch: 2.5", "batch is 2.5; it must be a valid integer"),
        ("seed: -1", "seed is -1; it must be greater than or equal to 0"),
        ("averaging: 1", "averaging is 1; it must be less than 1"),
        ("learning_rate: .nan", "learning_rate is nan; it must be a finite number"),
        ("planes: [oblique]", "planes is 'oblique'; it must be 'axial', 'coronal' or 'sagittal'"),
        ("planes: []", "planes is []; it must have at least 1 item"),
        ("models: []", "models is []; it must have at least 1 item"),
        ("models: unet_resnet34", "models is 'unet_resnet34'; it must be a valid tuple"),
        ("models: [unet]", "unknown model 'unet'"),
        ("models: [unet_resnet99]", "unknown encoder 'resnet99'"),
        ("encoder_weights: mine", "encoder_weights is 'mine'; it must be 'imagenet' or 'package'"),
        ("target: vertebrae", "target is 'vertebrae'; it must be 'spine' or 'regions'"),
        ("phantom_share: 1.5", "phantom_share is 1.5; it must be less than or equal to 1"),
        ("augmentation: {size: 100}", "augmentation: size is 100; it must be a multiple of 32"),
        ("augmentation: {siz: 64}", "augmentation: there is no setting 'siz'"),
        ("augmentation:", "augmentation is None; it must be a valid dictionary"),
        ("- a list", "holds no settings"),
        ("name: " + 200_000 * "a", "holds no settings"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence_that_names_the_file(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
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


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(SpineError, match="there is no recipe 'samples'.*sample"):
        load_recipe("samples")
