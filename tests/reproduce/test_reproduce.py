"""The main job in miniature, from nothing to the report."""

import functools
import json
import re

import pytest

from spine_lib import SpineError
from spine_lib.ct.files import sole_use
from spine_lib.datasets import phantom_cases
from spine_lib.reproduce import reproduce, sources
from spine_lib.reproduce import run as run_module
from spine_lib.reproduce.sources import PHANTOM_GRID, gather
from spine_lib.training.recipe import load_recipe

MODELS = ("unet_resnet34", "deeplabv3plus_resnet34")
MINI = load_recipe("tiny").changed(steps=4, steps_per_epoch=4)
GRID = {"shape": (40, 40, 24), "spacing_mm": 6.0, "levels": ("T12", "L4")}
SCORES = {"dice", "iou", "iou_mean", "f1", "accuracy"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run of the miniature recipe, and what it said."""
    folder, lines = tmp_path_factory.mktemp("runs"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(folder / "data"))
        patch.setattr(sources, "PHANTOM_GRID", GRID)
        path = reproduce(MINI, "mini", root=folder, progress=False, say=lines.append)
        again = []
        reproduce(MINI, "mini", root=folder, progress=False, say=again.append)
    return path, lines, again


@pytest.mark.slow
def test_results_have_every_score_of_every_model(run):
    results = json.loads((run[0] / "results.json").read_text(encoding="utf-8"))
    for model in MODELS:
        entry = results["models"][model]
        for way in ("pooled", "per_volume", "per_slice"):
            assert SCORES <= set(entry["test"][way])
        pooled = entry["test"]["pooled"]
        assert pooled["f1"] == pytest.approx(pooled["dice"])
        assert pooled["iou"] == pytest.approx(pooled["dice"] / (2 - pooled["dice"]))
        assert set(entry["test"]["volumes"]) == {"phantom-3000", "phantom-3001"}
        assert [row["seed"] for row in entry["runs"]] == [0]
        assert all(v["predict_seconds"] > 0 for v in entry["test"]["volumes"].values())
    wanted = {"wall_seconds", "peak_memory_mb", "device", "versions", "commit", "data"}
    assert wanted <= set(results) and results["peak_memory_mb"] > 100
    baseline = results["baseline"]
    assert SCORES <= set(baseline["test"]["pooled"])
    assert set(baseline["chosen_on"]) <= set(results["data"]["train"])
    parts = results["data"]
    assert not set(parts["train"]) & set(parts["test"])


@pytest.mark.slow
def test_the_report_stands_alone_beside_the_papers_table(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "0.953" in page and "0.925" in page
    assert not re.search(r'<(?:img|script|link)[^>]+(?:src|href)="(?!data:)', page)
    assert "Bone threshold" in page and "Predicting one scan" in page
    assert page.count("<img") == len(re.findall(r'<img[^>]+alt="[^"]+', page)) >= 6


@pytest.mark.slow
def test_a_run_ends_with_the_table_and_names_itself_the_latest(run):
    path, lines, _ = run
    assert "U-Net, ResNet34 encoder: paper" in lines[-2] and "0.951" in lines[-2]
    assert (path.parent / "latest").read_text(encoding="utf-8").strip() == "mini"
    for model in MODELS:
        files = {file.name for file in (path / model / "seed-0").iterdir()}
        assert {"best.ckpt", "last.ckpt", "weights.safetensors"} <= files


@pytest.mark.slow
def test_a_finished_run_is_not_repeated(run):
    _, first, again = run
    assert [line for line in first if "slicing" in line]
    assert not [line for line in again if "slicing" in line]
    assert again[-2] == first[-2]


@pytest.mark.slow
def test_trained_weights_are_tested_on_another_set_without_training(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PHANTOM_GRID", GRID)
    weights = sorted(run[0].glob("*/seed-0/weights.safetensors"))
    folder = tmp_path / "again"
    run_module.evaluate_on("phantom", weights, folder, say=len)
    first, again = (json.loads((f / "results.json").read_text()) for f in (run[0], folder))
    assert {*again["models"]} == {*MODELS} and again["baseline"]["chosen_on"] == []
    for model in MODELS:
        assert again["models"][model]["test"]["pooled"] == first["models"][model]["test"]["pooled"]
    assert "Nothing was chosen for this data set" in (folder / "report.html").read_text()
    assert str(run[0].parent) not in (folder / "results.json").read_text()
    with pytest.raises(SpineError, match="are of the same model and seed: test one after the othe"):
        run_module.evaluate_on("phantom", [weights[0], weights[0]], folder, say=len)


def test_no_phantom_is_in_two_parts():
    recipe = load_recipe("tiny").changed(phantoms=1000, validation_phantoms=1000)
    parts = gather(recipe).parts
    assert {part: len(cases) for part, cases in parts.items()} == {
        "train": 1000,
        "validation": 1000,
        "test": 2,
    }


def test_an_empty_case_list_is_refused():
    with pytest.raises(SpineError, match="no case in the train part of phantom"):
        gather(load_recipe("tiny").changed(phantoms=0))


@pytest.mark.parametrize("name", ["latest", "../x", "a b", "", ".hidden", "C:x"])
def test_nothing_is_written_outside_the_folder_of_runs(tmp_path, name):
    with pytest.raises(SpineError, match="^name is "):
        reproduce("tiny", name, root=tmp_path / "runs")
    assert not list(tmp_path.iterdir())


def test_a_run_is_not_written_into_the_folder_of_its_data(tmp_path):
    with pytest.raises(SpineError, match="is data, and the run would write there"):
        reproduce("paper", "x", root=tmp_path, data_root=tmp_path / "x" / "data")


def test_two_commands_do_not_write_into_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "sole_use", functools.partial(sole_use, seconds=0.1))
    with sole_use(tmp_path / "x"), pytest.raises(SpineError, match="x is in use by another proces"):
        reproduce("tiny", "x", root=tmp_path)


def test_only_a_trained_run_is_evaluated(tmp_path):
    with pytest.raises(SpineError, match="holds no trained run: train it"):
        run_module.evaluate_run(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": {"steps": -1}, "seeds": [0]}')
    with pytest.raises(SpineError, match=r"run\.json: steps is -1; it must be greater than 0$"):
        run_module.evaluate_run(tmp_path)
    (tmp_path / "run.json").write_text('{"recipe": {}, "seeds": []}')
    with pytest.raises(SpineError, match="run.json is damaged .plan: seeds is "):
        run_module.evaluate_run(tmp_path)


def test_the_seed_of_the_recipe_counts(tmp_path, monkeypatch):
    seen = []

    def train_run(recipe, folder, seeds, *rest, **options):
        seen.append(seeds)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "train_run", train_run)
    for seeds in (None, (3, 1, 3)):
        with pytest.raises(KeyboardInterrupt):
            reproduce(load_recipe("tiny").changed(seed=7), root=tmp_path, seeds=seeds)
    assert seen == [[7], [3, 1]]


@pytest.mark.slow
def test_phantoms_show_the_whole_spine():
    height_mm = PHANTOM_GRID["shape"][2] * PHANTOM_GRID["spacing_mm"][2]
    assert height_mm >= 420
    assert phantom_cases(1, **PHANTOM_GRID)[0].load().labels.array.max() == 26
