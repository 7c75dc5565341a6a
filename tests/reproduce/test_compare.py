"""Models and runs side by side: by patient, paired, corrected, or the reason why not."""

import json
import math

import numpy as np
import pytest

from spine_lib import SpineError, cli
from spine_lib.metrics.statistics import bootstrap_interval, holm, sign_flip_test
from spine_lib.reproduce.compare import (
    METRICS,
    Run,
    compare_runs,
    comparison_text,
    intervals,
    load_run,
    number,
    paired,
    patient_scores,
    recipe_differences,
    run_statistics,
    seed_spread,
)

MODEL = "unet_resnet34"


def main(arguments) -> int:
    """Run a command; return its exit code."""
    with pytest.raises(SystemExit) as leaving:
        cli.main(arguments)
    return leaving.value.code


# --- statistics of one run ------------------------------------------------------------------------


def make_test(values, **more):
    """Make test scores; each patient has the same value in all metrics but HD95."""
    volumes = {
        f"case-{patient}": {"dice": v, "iou": v / (2 - v), "nsd": v, "hd95": 10 * (1 - v)}
        | {"patient_id": f"p{patient}"}
        for patient, v in enumerate(values)
    }
    return {"volumes": volumes | more, "per_volume": {"dice": float(np.mean(values))}}


@pytest.fixture
def two_models():
    random = np.random.default_rng(5)
    first = random.uniform(0.7, 0.9, 8)
    return make_test(first), make_test(first - random.normal(0.03, 0.03, 8))


def paired_tests(first, second):
    return paired(patient_scores(first), patient_scores(second))


def test_scans_of_a_patient_are_averaged_and_infinite_distances_left_out():
    again = {"dice": 0.4, "iou": 0.3, "nsd": None, "hd95": math.inf, "patient_id": "p0"}
    test = make_test([0.8, 0.6], again=again)
    scores = patient_scores(test)
    assert scores.dice.to_dict() == pytest.approx({"p0": 0.6, "p1": 0.6})
    assert scores.hd95.to_dict() == pytest.approx({"p0": 2.0, "p1": 4.0})
    assert patient_scores(test, {"again"}).dice.to_dict() == {"p0": 0.4}


def test_intervals_are_those_of_the_patients(two_models):
    scores = patient_scores(two_models[0])
    table = intervals(scores)
    assert list(table.index) == list(METRICS)
    expected = bootstrap_interval(scores.nsd)
    assert (table.low["nsd"], table.high["nsd"]) == (expected.low, expected.high)
    assert table.n["nsd"] == 8 and table.reason["nsd"] is None


def test_the_paired_test_is_made_on_differences_and_corrected_over_the_metrics(two_models):
    table = paired_tests(*two_models)
    first, second = map(patient_scores, two_models)
    raw = []
    for metric in METRICS:
        differences = first[metric] - second[metric]
        raw.append(sign_flip_test(differences).p_value)
        assert table.estimate[metric] == pytest.approx(differences.mean())
        assert table.low[metric] < differences.mean() < table.high[metric]
    assert list(table.p_value) == raw and list(table.p_holm) == holm(raw)
    assert table.p_holm["dice"] > table.p_value["dice"]


def test_a_patient_without_a_distance_is_left_out_of_that_metric_alone(two_models):
    first, second = two_models
    second["volumes"]["case-3"]["hd95"] = None
    table = paired_tests(first, second)
    assert (table.n["hd95"], table.n["dice"]) == (7, 8)


def test_models_on_different_patients_are_refused(two_models):
    del two_models[1]["volumes"]["case-3"]
    with pytest.raises(SpineError, match="p3"):
        paired_tests(*two_models)


def test_the_spread_over_seeds_is_that_of_the_means_over_volumes():
    runs = [{"test": {"per_volume": {"dice": dice, "hd95": None}}} for dice in (0.7, 0.8, 0.9)]
    table = seed_spread(runs).to_dict("index")
    assert list(table) == ["dice"]
    assert table["dice"] == pytest.approx({"mean": 0.8, "sd": 0.1, "low": 0.7, "high": 0.9, "n": 3})


def test_the_statistics_of_a_run_hold_each_model_and_each_pair(two_models):
    models = {
        name: {"test": test, "runs": [{"test": test}]} for name, test in zip("ab", two_models)
    }
    summary = run_statistics(models)
    assert summary["patients"] == 8 and summary["seeds"]["a"]["dice"]["sd"] is None
    assert [(pair["first"], pair["second"]) for pair in summary["paired"]] == [("a", "b")]
    assert summary["paired"][0]["metrics"] == paired_tests(*two_models).to_dict("index")
    assert run_statistics({"a": {}})["patients"] == 0


# --- two runs -------------------------------------------------------------------------------------


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
    comparison = compare_runs(make_run(), make_run("new", shift=0.05))
    row = comparison.paired[MODEL].loc["dice"]
    assert 0.02 < row.low < row.estimate < row.high < 0.08
    assert row.n == 7 and row.p_value == 2 / 2**7 and row.p_holm >= row.p_value
    assert comparison.paired[MODEL].estimate["hd95"] < 0
    scores = comparison.scores.set_index(["scope", "metric"]).loc[("c3", "dice")]
    assert scores.second > scores["first"]


def test_a_run_does_not_differ_from_itself():
    comparison = compare_runs(make_run(), make_run())
    assert comparison.recipe.empty and comparison.notes == []
    assert comparison.paired[MODEL].estimate["dice"] == 0
    assert "The recipes are the same." in comparison_text(comparison)


def test_only_shared_cases_are_compared_and_notes_say_so_and_where_data_differ():
    new = make_run("new", cases=9, shift=0.1)
    new.results["models"][MODEL]["test"]["volumes"]["c2"]["sha256"] = "b"
    comparison = compare_runs(make_run(cases=7), new)
    assert "The data of c2 differ" in comparison.notes[1]
    assert comparison.cases == [f"c{n}" for n in range(7)]
    assert comparison.paired[MODEL].n["dice"] == 7
    assert "different test cases (7 and 9)" in comparison.notes[0]
    assert comparison.notes[0] in comparison_text(comparison)


def test_runs_without_a_common_case_or_model_are_refused():
    other = make_run("new")
    test = other.results["models"][MODEL]["test"]
    test["volumes"] = {"x": test["volumes"]["c0"]}
    with pytest.raises(SpineError, match="old and new have no test case in common"):
        compare_runs(make_run(), other)
    other.results["models"] = {"deeplabv3plus_resnet34": {}}
    with pytest.raises(SpineError, match="no model in common"):
        compare_runs(make_run(), other)


def test_recipe_differences_include_nested_settings_and_the_seeds():
    old = make_run(seeds=(0,)).results
    new = make_run(augmentation={"size": 256}, loss="focal").results
    assert recipe_differences(old, new).values.tolist() == [
        ["augmentation.size", 128, 256], ["seeds", [0], [0, 1]], ["loss", None, "focal"],
    ]  # fmt: skip


def test_the_text_shows_scores_with_their_range_over_seeds():
    text = comparison_text(compare_runs(make_run(), make_run("new", shift=0.05, seeds=(0,))))
    old = make_run().results["models"][MODEL]["runs"]
    low, high = (run["test"]["pooled"]["dice"] for run in old)
    assert f"{low:.3f} ({low:.3f} to {high:.3f})" in text
    assert "95 % interval" in text and "Dice, c6" in text
    text = comparison_text(compare_runs(make_run(cases=5), make_run("new", cases=5, shift=0.1)))
    assert "not given for 5 patients" in text and "p, Holm" not in text


def test_undefined_scores_are_left_out_and_named():
    other = make_run("new")
    other.results["models"][MODEL]["test"]["volumes"]["c0"]["hd95"] = None
    comparison = compare_runs(make_run(), other)
    assert comparison.paired[MODEL].n["hd95"] == 6
    assert "undefined" in comparison_text(comparison)
    assert [number(v) for v in (None, math.nan, math.inf)] == ["–", "undefined", "infinite"]


def write_run(root, run):
    folder = root / run.name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(run.results), encoding="utf-8")
    return folder


def test_a_run_is_loaded_by_folder_by_file_by_name_and_as_the_latest(tmp_path):
    folder = write_run(tmp_path, make_run())
    (tmp_path / "latest").write_text("old\n", encoding="utf-8")
    for name in (folder, folder / "results.json", "old", "latest"):
        run = load_run(name, tmp_path)
        assert run.name == "old" and MODEL in run.results["models"]


DAMAGED = {
    "models": [({}, "models is {}"), (5, "models is 5"), ({MODEL: 5}, f"models.{MODEL} is 5")],
    "recipe": [([1], r"recipe is \[1\]")],
    "data": [({"train": 5}, "data.train is 5")],
    f"models.{MODEL}.runs": [(5, "runs is 5"), ([{"seed": "x", "test": {}}], "runs.0.seed is 'x'")],
    f"models.{MODEL}.test": [({"volumes": {"a": 5}}, "test.volumes.a is 5")],
    f"models.{MODEL}.test.volumes.c0.dice": [("0.9", "c0.dice is '0.9'")],
}


@pytest.mark.parametrize(
    ("key", "value", "words"), [(key, *row) for key, rows in DAMAGED.items() for row in rows]
)
def test_edited_results_are_one_sentence_that_names_file_and_key(tmp_path, key, value, words):
    write_run(tmp_path, make_run())
    file = tmp_path / "old" / "results.json"
    results = json.loads(file.read_text(encoding="utf-8"))
    *parents, last = key.split(".")
    entry = results
    for name in parents:
        entry = entry[name]
    entry[last] = value
    file.write_text(json.dumps(results), encoding="utf-8")
    with pytest.raises(SpineError, match=words) as caught:
        load_run("old", tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cannot be read as JSON"), ("[]", "it is"), ("{}", "models is missing")]
    + [(50_000 * "[", "cannot be read as JSON"), ("\xff", "is not UTF-8")],
)
def test_a_file_that_is_no_result_is_one_sentence(tmp_path, content, words):
    file = tmp_path / "results.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SpineError, match=words) as caught:
        load_run(file)
    assert str(file) in str(caught.value)


def test_a_run_that_was_trained_on_its_test_cases_is_refused():
    cheat = make_run()
    cheat.results["data"] = {"train": ["c1"]}
    with pytest.raises(SpineError, match="old was trained on c1 and tested on the same"):
        compare_runs(cheat, make_run("new"))


def test_the_command_prints_and_writes_a_file_that_is_none_of_its_runs(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for run in (make_run(), make_run("new", shift=0.05)):
        write_run(tmp_path / "runs", run)
    results = tmp_path / "runs" / "new" / "results.json"
    before = results.read_bytes()
    for out in (results, "runs/new/../new/results.json", "c.txt"):
        assert main(["compare", "old", "new", "--out", str(out), "--overwrite"]) == 2
    assert results.read_bytes() == before
    assert main(["compare", "old", "nothing"]) == 2
    assert "nothing is no finished run" in capsys.readouterr().err
    assert main(["compare", "old", "new"]) == 0
    printed = capsys.readouterr().out
    assert "old  against  new" in printed and MODEL in printed
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert main(["compare", "old", "new", "--out", "c.json"]) == 0
    saved = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert len(saved["cases"]) == 7 and saved["paired"][MODEL]["dice"]["n"] == 7
    assert main(["compare", "old", "new", "--out", "c.json"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["compare", "old", "new", "--out", "c.html"]) == 0
    assert "<pre" in (tmp_path / "c.html").read_text(encoding="utf-8")
