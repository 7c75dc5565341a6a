"""Recipes, checkpoints and result files changed at random are read, or end in one sentence."""

import copy
import json
import random
from functools import partial
from pathlib import Path

import fuzzing
import pytest
import torch
import yaml
from fuzzing import TIMES

from spine_lib import training
from spine_lib.models import build_model
from spine_lib.reproduce import compare
from spine_lib.training.checkpoints import DataRecord, read_checkpoint, save_weights
from spine_lib.training.recipe import Recipe, built_in_recipes, load_recipe, recipe_from_dict

MODEL = "deeplabv3plus_tu-mobilenetv3_small_050"

ODD = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.5, 1e-9, 1e20, 10**20, float("nan"), float("inf")),
    *("", "x", "1e-3", "1e20", "nan", "../../x", "/x", "..", 300 * "a", "unet_tu-hf-hub:a/x", "\0"),
    *([], [1], ["axial", "axial"], [[1]], ["x"], [None], [2, 1], [1e300], ["unet_own"]),
    *({}, {"a": 1}, {"size": [1]}, {1: 2}, {"size": 64, "zoom": [2, 1]}),
)
"""What a setting may be set to by mistake, or to harm."""


end = partial(fuzzing.end, measured=False)


def deep(levels):
    """Return lists in lists."""
    value = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def numbers():
    """Random numbers, the same in each run unless more is tried."""
    return random.Random(0 if TIMES == 1 else None)


def places(value, above=()):
    """Yield the keys that lead to each entry of nested dictionaries and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in entries:
        yield (*above, key)
        if isinstance(item, dict | list):
            yield from places(item, (*above, key))


def changed(value, keys, new):
    """Return a copy with one entry changed; without it where `new` is a `KeyError`."""
    value = copy.deepcopy(value)
    entry = value
    for key in keys[:-1]:
        entry = entry[key]
    if new is KeyError:
        del entry[keys[-1]]
    else:
        entry[keys[-1]] = new
    return value


def damaged(content, numbers):
    """Return bytes with a piece lost, doubled, changed or filled in."""
    place = numbers.randrange(len(content))
    piece = content[place : place + numbers.choice((1, 1, 4, 30))]
    before, after = content[:place], content[place + len(piece) :]
    others = b"", piece * numbers.choice((2, 4, 101)), numbers.randbytes(len(piece))
    return before if numbers.random() < 0.2 else before + numbers.choice(others) + after


# --- recipes --------------------------------------------------------------------------------------


def check_recipe(path, content):
    """Require that a recipe is refused, or is one that a run can use and keep."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    recipe = end(lambda: load_recipe(path), path)
    if not isinstance(recipe, str):
        assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
        assert "/" not in recipe.name and recipe.name.strip(".")
        assert len(set(recipe.planes)) == len(recipe.planes) and recipe.batch >= 2


def test_each_setting_of_a_recipe_set_to_odd_values(tmp_path, numbers):
    base = Recipe().to_dict()
    for keys in [*places(base), ("unknown",), ("augmentation", "unknown")]:
        for new in (*numbers.sample(ODD, 6), deep(30)):
            check_recipe(tmp_path / "odd.yaml", yaml.safe_dump(changed(base, keys, new)))


def test_recipes_with_damaged_text(tmp_path, numbers):
    folder = Path(training.__file__).parent / "recipes"
    texts = [(folder / f"{name}.yaml").read_bytes() for name in built_in_recipes()]
    for _ in range(300 * TIMES):
        check_recipe(tmp_path / "odd.yaml", damaged(numbers.choice(texts), numbers))


@pytest.mark.parametrize(
    "text",
    [
        "steps: " + 20_000 * "[",
        "steps: " + 20_000 * "{a: ",
        20_000 * "- ",
        "".join(f"a{n}: &a{n} [{9 * f'*a{n - 1}, '}]\n" for n in range(1, 40)),
        "a: &a {<<: *a}",
        "".join(f"k{n}: 1\n" for n in range(9_000)),
        "steps: !!python/object/apply:os.system [ls]",
        "steps: !!binary x",
        "steps: 2024-13-45",
        "steps: " + 5000 * "9",
        "steps: 0x" + 5000 * "f",
        "? [a]\n: 1",
        "a: 1\n---\nb: 2",
        "\ufeffsteps: 7",
        "%YAML 9.9\n---\nsteps: 7",
        "\x00",
        "",
    ],
)
def test_hostile_yaml(tmp_path, text):
    check_recipe(tmp_path / "odd.yaml", text)


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The weights of a small network, with all that is stored beside them."""
    data = DataRecord([("a", "axial", "x", (1, 2, 3), 1.0, "ff")], [], {"a": "ee"})
    recipe = Recipe(models=(MODEL,))
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return save_weights(build_model(MODEL), MODEL, recipe, path, half=True, data=data)


def lightning_content(weights):
    """Return what a training's checkpoint holds, of those parts that are read."""
    stored = read_checkpoint(weights)
    return {
        "state_dict": {
            f"network.{name}": value for name, value in stored.network.state_dict().items()
        },
        "hyper_parameters": {"model": MODEL, "recipe": stored.recipe.to_dict()},
        "training_data": stored.data.to_dict(),
        "encoder_sha256": "",
        "global_step": 2,
    }


def test_each_note_of_a_checkpoint_set_to_each_odd_value(weights, tmp_path):
    content = lightning_content(weights)
    content["state_dict"] = dict(list(content["state_dict"].items())[:3])
    path = tmp_path / "odd.ckpt"
    for keys in places(content):
        if len(keys) < 3 or keys[2] in ("models", "atrous_rates", "augmentation"):
            for new in (KeyError, *ODD[::2], torch.zeros(2), deep(30)):
                torch.save(changed(content, keys, new), path)
                end(lambda: read_checkpoint(path), path)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_damaged_checkpoints(weights, tmp_path, numbers, suffix):
    path = tmp_path / f"odd.{suffix}"
    whole = weights.read_bytes()
    if suffix == "ckpt":
        torch.save(lightning_content(weights), path)
        whole = path.read_bytes()
    for _ in range(60 * TIMES):
        ends = (4000, len(whole)) if suffix == "safetensors" else (len(whole),)
        first = numbers.choice(ends)
        path.write_bytes(damaged(whole[:first], numbers) + whole[first:])
        end(lambda: read_checkpoint(path), path)


# --- results --------------------------------------------------------------------------------------


def make_results():
    """Return the results of a small run."""
    volumes = {
        f"c{n}": {"dice": 0.7, "iou": 0.6, "nsd": 0.8, "hd95": 4.0, "patient_id": f"p{n}"}
        for n in range(2)
    }
    test = {"volumes": volumes, "pooled": {"dice": 0.7}, "per_volume": {"dice": 0.7, "hd95": 4.0}}
    models = {MODEL: {"name": "x", "test": test, "runs": [{"seed": 0, "test": test}]}}
    data = {"train": ["a"], "validation": [], "test": ["c0", "c1"]}
    return {"models": models, "recipe": Recipe().to_dict(), "data": data, "baseline": {}}


def test_each_entry_of_results_set_to_each_odd_value(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RESAMPLES", 20)
    path = tmp_path / "odd" / "results.json"
    path.parent.mkdir()
    good, whole = make_results(), compare.Run("good", make_results())
    for keys in places(good):
        for new in (KeyError, *ODD[::16], deep(30)):
            path.write_text(json.dumps(changed(good, keys, new)), encoding="utf-8")
            run = end(lambda: compare.load_run(path), path)
            if not isinstance(run, str):
                pair = partial(compare.compare_runs, whole, run)
                assert end(
                    lambda pair=pair: compare.comparison_text(pair()), path.parent, named=False
                )
