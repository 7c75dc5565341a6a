"""Recipes: read, checked, and kept as built-in types."""

import json
import re

import pytest

from spine_lib import SpineError
from spine_lib.training.recipe import Recipe, built_in_recipes, load_recipe, recipe_from_dict


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_survives_json(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_recipe_file_changes_only_what_it_names(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 7\naugmentation: {size: 64}\n", encoding="utf-8")
    recipe = load_recipe(file)
    assert (recipe.name, recipe.steps, recipe.augmentation.size) == ("mine", 7, 64)
    assert recipe.changed(name="sample", steps=Recipe().steps).batch == Recipe().batch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 7", "there is no setting 'stepz'"),
        ("steps: many", "steps is 'many'; it must be of type int"),
        ("steps: true", "steps is True; it must be of type int"),
        ("steps: 0", "steps is 0; it must be a number above 0"),
        ("planes: [oblique]", "planes is ('oblique',); it must be a list of axial"),
        ("target: vertebrae", "target is 'vertebrae'; it must be one of spine, regions"),
        ("phantom_share: 1.5", "phantom_share is 1.5; it must be from 0 to 1"),
        ("models: [unet]", "unknown model 'unet'"),
        ("augmentation: {size: 100}", "size is 100; it must be 32, 64"),
        ("- a list", "holds no settings"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpineError, match=re.escape(message)) as caught:
        load_recipe(file)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(SpineError, match="there is no recipe 'samples'.*sample"):
        load_recipe("samples")
