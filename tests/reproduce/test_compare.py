"""Two runs side by side: shared cases only, differences the right way round, or one sentence."""

import json

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.cli import main
from spine_lib.reproduce.compare import (
    Run,
    compare_runs,
    comparison_text,
    load_run,
    recipe_differences,
    save_comparison,
)

MODEL = "unet_resnet34"


def make_run(name="old", shift=0.0, cases=7, seeds=(0, 1), **recipe):
    """Make a run whose Dice is better by `shift` on every patient, more or less."""
    random = np.random.default_rng(1)
    dice = {f"c{n}": 0.7 + 0.02 * n + shift * random.uniform(0.5, 1.5) for n in range(cases)}
    runs = []
    for seed in seeds:
        volumes = {
            case: {"dice": d + 0.01 * seed, "iou": d / 2, "nsd": d, "hd95": 20 - 10 * d}
            | {"patient_id": f"p-{case}", "sha256": "a"}
            for case, d in dice.items()
        }
        mean = float(np.mean([volume["dice"] for volume in volumes.values()]))
        test = {"pooled": {"dice": mean}, "per_volume": {"dice": mean, "hd95": 9.0}}
        runs.append({"seed": seed, "test": test | {"volumes": volumes}})
    entry = {"test": runs[0]["test"], "runs": runs}
    settings = {"steps": 500, "seed": 0, "augmentation": {"size": 128}, **recipe}
    return Run(name, json.loads(json.dumps({"models": {MODEL: entry}, "recipe": settings})))


def test_differences_are_the_second_run_less_the_first():
    found = compare_runs(make_run(), make_run("new", shift=0.05))
    row = found["paired"][MODEL]["dice"]
    assert 0.02 < row["low"] < row["estimate"] < row["high"] < 0.08
    assert row["n"] == 7 and row["p_value"] == 2 / 2**7 and row["p_holm"] >= row["p_value"]
    assert found["paired"][MODEL]["hd95"]["estimate"] < 0
    older, newer = found["volumes"][MODEL]["c3"]["dice"]
    assert newer > older


def test_a_run_does_not_differ_from_itself():
    found = compare_runs(make_run(), make_run())
    assert found["recipe"] == {} and found["notes"] == []
    assert found["paired"][MODEL]["dice"]["estimate"] == 0
    assert "The recipes are the same." in comparison_text(found)


def test_only_shared_cases_are_compared_and_that_is_said():
    found = compare_runs(make_run(cases=7), make_run("new", cases=9, shift=0.1))
    assert found["cases"] == 7 and found["paired"][MODEL]["dice"]["n"] == 7
    assert list(found["volumes"][MODEL]) == [f"c{n}" for n in range(7)]
    assert "different test cases (7 and 9)" in found["notes"][0]
    assert found["notes"][0] in comparison_text(found)


def test_runs_without_a_common_case_or_model_are_refused():
    other = make_run("new")
    test = other.results["models"][MODEL]["test"]
    test["volumes"] = {"x": test["volumes"]["c0"]}
    with pytest.raises(SpineError, match="old and new have no test case in common"):
        compare_runs(make_run(), other)
    other.results["models"] = {"deeplabv3plus_resnet34": {}}
    with pytest.raises(SpineError, match="no model in common"):
        compare_runs(make_run(), other)


def test_the_same_name_for_other_data_is_noticed():
    other = make_run("new")
    other.results["models"][MODEL]["test"]["volumes"]["c2"]["sha256"] = "b"
    assert "The data of c2 differ" in compare_runs(make_run(), other)["notes"][0]


def test_recipe_differences_go_into_what_is_nested_and_name_the_seeds():
    old = make_run(seeds=(0,)).results
    new = make_run(augmentation={"size": 256}, loss="focal").results
    assert recipe_differences(old, new) == {
        "augmentation.size": [128, 256], "loss": [None, "focal"], "seeds": [[0], [0, 1]],
    }  # fmt: skip


def test_five_patients_get_a_reason_and_no_p_value():
    text = comparison_text(compare_runs(make_run(cases=5), make_run("new", cases=5, shift=0.1)))
    assert "not given for 5 patients" in text and "p, Holm" not in text


def test_the_text_shows_scores_with_their_range_over_seeds():
    text = comparison_text(compare_runs(make_run(), make_run("new", shift=0.05, seeds=(0,))))
    old = make_run().results["models"][MODEL]["runs"]
    low, high = (run["test"]["pooled"]["dice"] for run in old)
    assert f"{low:.3f} ({low:.3f} to {high:.3f})" in text
    assert "95 % interval" in text and "Dice, c6" in text


def test_what_is_undefined_is_called_so():
    other = make_run("new")
    other.results["models"][MODEL]["test"]["volumes"]["c0"]["hd95"] = None
    found = compare_runs(make_run(), other)
    assert found["paired"][MODEL]["hd95"]["n"] == 6
    assert "undefined" in comparison_text(found)


def write_run(root, run):
    folder = root / run.name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(run.results), encoding="utf-8")
    return folder


def test_a_run_is_found_by_folder_by_file_by_name_and_as_the_latest(tmp_path):
    folder = write_run(tmp_path, make_run())
    (tmp_path / "latest").write_text("old\n", encoding="utf-8")
    for name in (folder, folder / "results.json", "old", "latest"):
        run = load_run(name, tmp_path)
        assert run.name == "old" and MODEL in run.results["models"]


def test_a_folder_that_is_no_run_is_told_in_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs", make_run())
    (tmp_path / "empty").mkdir()
    assert main(["compare", "old", "empty"]) == 2
    assert "empty is no finished run" in capsys.readouterr().err
    broken = tmp_path / "empty" / "results.json"
    for content, words in (("{", "cannot be read"), ("{}", "holds no models")):
        broken.write_text(content, encoding="utf-8")
        with pytest.raises(SpineError, match=words):
            load_run("empty")


def test_the_command_prints_and_saves_only_if_asked(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in (make_run(), make_run("new", shift=0.05)):
        write_run(tmp_path / "runs", run)
    assert main(["compare", "old", "new"]) == 0
    printed = capsys.readouterr().out
    assert "old  against  new" in printed and MODEL in printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert main(["compare", "old", "new", "--out", "c.json"]) == 0
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["cases"] == 7
    assert main(["compare", "old", "new", "--out", "c.html"]) == 0
    assert "<pre" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(SpineError, match=r"\.json or \.html"):
        save_comparison(compare_runs(make_run(), make_run()), tmp_path / "c.txt")
