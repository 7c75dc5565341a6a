"""Ablations: one setting changes, the test pair stays unread, nothing finished is done twice."""

import json
import re
from types import SimpleNamespace

import ablations
import numpy as np
import pytest
from ablations import ABLATIONS

from spine_lib import SpineError
from spine_lib.ct.files import array_sha256
from spine_lib.datasets import phantom_cases
from spine_lib.reproduce import sources
from spine_lib.reproduce.report import deviations
from spine_lib.reproduce.sources import gather
from spine_lib.slices import Draw, TrainingSlices, prepare
from spine_lib.training.checkpoints import DataRecord
from spine_lib.training.recipe import load_recipe, recipe_from_dict

KEPT = json.loads(ablations.KEPT.read_text(encoding="utf-8"))["ablations"]
RECIPE = load_recipe("ablation")
MINI = load_recipe("tiny").changed(
    models=("unet_timm-tf_efficientnet_lite0",), steps=2, steps_per_epoch=1, batch=2,
    largest_component=False,
)  # fmt: skip


def make_runs(scores, seeds=(0, 1, 2), group="phantoms"):
    """Make runs whose Dice by case is as given, a little other with each seed."""
    return [
        {
            "fold": "one",
            "seed": seed,
            "volumes": {
                case: {"dice": score + 0.001 * seed, "patient_id": f"of {case}", "group": group}
                for case, score in scores.items()
            },
        }
        for seed in seeds
    ]


# --- variants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_variant_changes_what_the_ablation_names_and_nothing_else(name):
    allowed = {
        "split": set(),
        "plane": {"planes"},
        "loss": {"loss"},
        "weights": {"encoder_weights"},
        "phantoms": {"phantoms", "phantom_share"},
        "neighbours": {"neighbour_mm"},
    }[name]
    model = RECIPE.models[0]
    variants = ABLATIONS[name].variants(RECIPE, model)
    recipes = [RECIPE.changed(**variant.changes).to_dict() for variant in variants]
    for recipe in recipes:
        assert {key for key in recipe if recipe[key] != RECIPE.to_dict()[key]} <= allowed
    kinds = {(json.dumps(r), v.model, v.split) for r, v in zip(recipes, variants, strict=True)}
    assert len(kinds) == len(variants) >= 2, "two variants are the same"
    assert len({variant.name for variant in variants}) == len(variants)


def test_what_cannot_be_varied_is_refused():
    with pytest.raises(SpineError, match=r"no ablation 'optimiser': name split, plane, .* or all"):
        ablations.ablate("optimiser")
    with pytest.raises(SpineError, match="trains without phantoms as it is"):
        ABLATIONS["phantoms"].variants(RECIPE.changed(phantoms=0), "unet_own")
    with pytest.raises(SpineError, match="nothing else to train on"):
        ABLATIONS["phantoms"].variants(RECIPE.changed(dataset="phantom"), "unet_own")
    with pytest.raises(SpineError, match="name a recipe with one plane"):
        ABLATIONS["split"].variants(RECIPE.changed(planes=("axial", "coronal")), "unet_own")
    with pytest.raises(SpineError, match="sample and phantom, not of pycad1089"):
        ablations.gather_cases(RECIPE.changed(dataset="pycad1089"))


# --- who is trained on, who is scored -------------------------------------------------------------


@pytest.fixture
def sides(sample_root):
    return ablations.gather_cases(RECIPE, say=lambda line: None)


def test_each_training_patient_is_left_out_once_and_the_test_pair_is_on_no_side(sides):
    assert [fold.scored[0].case_id for fold in sides.folds] == ["chest", "abdomen"]
    for fold in sides.folds:
        assert not {c.patient_id for c in fold.train} & {c.patient_id for c in fold.scored}
    everybody = [*sides.phantoms, *sides.validation, *sides.cohort, *sides.split_phantoms]
    everybody += [case for fold in sides.folds for case in (*fold.train, *fold.scored)]
    test = {case.patient_id for case in gather(RECIPE, say=lambda line: None).parts["test"]}
    assert len(test) == 2
    assert not test & {case.patient_id for case in everybody}
    scored = {case.patient_id for case in sides.cohort}
    trained = [*sides.phantoms, *sides.validation, *sides.split_phantoms]
    assert len(scored) >= 8 and not scored & {case.patient_id for case in trained}


# --- parts of a store -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    grid = {"shape": (40, 40, 20), "spacing_mm": 6.0}
    cases = phantom_cases(3, 0, **grid)
    return prepare(cases, tmp_path_factory.mktemp("store"), ("axial", "coronal"), 6.0)


def test_part_of_a_store_gives_the_very_slices_of_the_whole(store):
    part = ablations.SubsetStore(store, {2: [3, 7, 8], 0: None})
    assert [volume.shape[0] for volume in part.volumes] == [3, store.volumes[0].shape[0]]
    whole = TrainingSlices(store, MINI.augmentation)
    some = TrainingSlices(part, MINI.augmentation)
    for place, index in enumerate((3, 7, 8)):
        theirs = store.stack(Draw(2, index), 6.0)
        ours = part.stack(Draw(0, place), 6.0)
        assert (ours == theirs).all()
        assert (index in store.volumes[2].foreground) == (place in part.volumes[0].foreground)
        assert (some[Draw(0, place)][0] == whole[Draw(2, index)][0]).all()


def test_both_splits_train_on_equally_many_slices_and_on_none_that_is_scored(tmp_path):
    grid = {"shape": (24, 24, 20), "spacing_mm": 8.0}
    people = phantom_cases(8, 0, **grid)
    cases = dict(
        zip(
            ("train", "scored", "cohort", "others"),
            (people[i : i + 2] for i in range(0, 8, 2)),
            strict=True,
        )
    )
    whole = prepare(people, tmp_path, spacing_mm=8.0)
    fold = ablations.Fold("f", "f", tuple(cases["train"]), tuple(cases["scored"]))
    both = ablations.Cases((fold,), (), (), tuple(cases["cohort"]), tuple(cases["others"]))
    stores, scored = ablations.split_slices(whole, fold, both)
    counts = {name: sum(v.shape[0] for v in part.volumes) for name, part in stores.items()}
    assert counts["patient"] == counts["slice"] > 0
    numbers = {volume.case_id: number for number, volume in enumerate(whole.volumes)}
    looked_at = {(numbers[s.case.case_id], index) for s in scored for index in s.slices}
    trained = {
        name: {(n, i) for n, kept in zip(part.numbers, part.slices, strict=True) for i in kept}
        for name, part in stores.items()
    }
    assert not looked_at & (trained["patient"] | trained["slice"])
    people_scored = {number for number, _ in looked_at}
    assert not people_scored & {number for number, _ in trained["patient"]}
    assert people_scored <= {number for number, _ in trained["slice"]}


# --- scores ---------------------------------------------------------------------------------------


def test_a_case_is_scored_in_a_box_around_its_spine_and_nothing_of_it_is_lost(small_phantom):
    cut = ablations.crop_to_spine(small_phantom, 12.0)
    assert cut.labels.array.size < small_phantom.labels.array.size
    assert (cut.labels.array > 0).sum() == (small_phantom.labels.array > 0).sum()
    first = np.argwhere(cut.labels.array > 0)[0]
    at_mm = cut.ct.affine @ [*first, 1]
    there = np.rint(np.linalg.inv(small_phantom.ct.affine) @ at_mm).astype(int)[:3]
    assert cut.ct.array[tuple(first)] == small_phantom.ct.array[tuple(there)]


def test_slices_that_are_not_asked_for_are_not_scored():
    case = phantom_cases(1, 3, shape=(32, 32, 24), spacing_mm=6.0)[0]
    whole = ablations.load_scored(ablations.Scored(case, "phantoms"))
    some = ablations.load_scored(ablations.Scored(case, "phantoms", "axial", (2, 5)))
    assert not whole.ignore.array.any()
    scored = ~some.ignore.array
    assert sorted(set(np.argwhere(scored)[:, 2])) == [2, 5]


@pytest.mark.parametrize("name", ["phantom-0003", "copy"])
def test_a_network_is_not_scored_on_a_scan_that_it_has_seen(name, monkeypatch, tmp_path):
    (case,) = phantom_cases(1, 3, shape=(32, 32, 24), spacing_mm=6.0)
    row = (name, "axial", "phantom", (24, 32, 32), 6.0, "")
    record = DataRecord([row], [], {name: array_sha256(case.load().ct.array)})
    fitted = SimpleNamespace(data=record, weights=tmp_path / "w.safetensors")
    monkeypatch.setattr(ablations, "load_or_train", lambda *given, **options: fitted)
    scored = (ablations.Scored(case, "phantoms"),)
    training = ablations.Training("unet_own", MINI, None, None, tmp_path, scored)
    with pytest.raises(SpineError, match=f"phantom-0003 cannot test .* in training .{name}"):
        ablations._finish(training, "cpu")


# --- comparisons ----------------------------------------------------------------------------------

CASES = {f"phantom-{n}": 0.5 + 0.02 * n for n in range(8)}


def row_of(shift, group="phantoms", cases=CASES):
    found = {
        "reference": {"runs": make_runs(cases, group=group), "unfair_on": ""},
        "variant": {
            "runs": make_runs(
                {c: v + shift(n) for n, (c, v) in enumerate(cases.items())}, group=group
            ),
            "unfair_on": "",
        },
    }
    (row,) = ablations.compare_variants(found, "reference")
    return row


def test_a_shift_on_every_patient_is_read_as_an_effect():
    row = row_of(lambda n: 0.1 + 0.001 * n)
    assert row["estimate"] == pytest.approx(0.1035)
    assert row["low"] <= 0.1035 <= row["high"]
    assert row["p_holm"] == pytest.approx(2 / 2**8)
    assert row["reading"] == "better"
    assert row_of(lambda n: -0.1 - 0.001 * n)["reading"] == "worse"


def test_a_shift_to_and_fro_is_read_as_no_effect():
    row = row_of(lambda n: 0.05 * (-1) ** n)
    assert row["low"] < 0 < row["high"]
    assert row["reading"] == "no effect found"


def test_two_patients_get_a_reason_and_no_interval():
    row = row_of(lambda n: 0.3, "patients", {"chest": 0.4, "abdomen": 0.5})
    assert row["low"] is None and row["p_value"] is None and row["p_holm"] is None
    assert "2 patients" in row["reason"]
    assert row["reading"] == "no interval: 2 patients, 6 are needed"
    assert row["cases"] == pytest.approx({"chest": 0.3, "abdomen": 0.3})
    assert row["by_seed"]["1"] == pytest.approx({"chest": 0.3, "abdomen": 0.3})


def test_an_unfair_comparison_has_no_p_value_and_costs_the_others_nothing():
    shifted = make_runs({case: value + 0.1 for case, value in CASES.items()})
    found = {
        "reference": {"runs": make_runs(CASES), "unfair_on": ""},
        **{name: {"runs": shifted, "unfair_on": ""} for name in "abcd"},
        "unfair": {"runs": shifted, "unfair_on": "phantoms"},
    }
    *fair, unfair = ablations.compare_variants(found, "reference")
    assert [row["p_holm"] for row in fair] == pytest.approx([4 * 2 / 2**8] * 4)
    assert unfair["p_value"] is None and unfair["reading"] == "not comparable on these"


def test_an_effect_that_one_seed_reverses_is_read_so():
    row = {"low": 0.01, "high": 0.05, "estimate": 0.03, "p_holm": 0.01, "n": 8, "fair": True}
    seeds = {"low": -0.02, "high": 0.08}
    reading = ablations.reading
    assert reading(row | {"seeds": seeds}) == "better on average, not with every seed"
    assert reading(row | {"seeds": {"low": 0.01, "high": 0.08}}) == "better"
    assert "corrected" in reading(row | {"p_holm": 0.2, "seeds": None})


# --- one whole ablation in miniature --------------------------------------------------------------


def ablate_mini(folder, say, recipe=MINI):
    """Run an ablation of a miniature recipe on tiny phantoms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(folder / "data"))
        patch.setattr(sources, "PHANTOM_GRID", {"shape": (40, 40, 74), "spacing_mm": 6.0})
        patch.setattr(ablations, "COHORT_GRID", {"shape": (32, 32, 20), "spacing_mm": 6.0})
        options = {"seeds": (0, 1), "at_once": 1, "root": folder, "cohort": 6}
        ablations.ablate("split", recipe, say=say, **options)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """An ablation that was run twice, and what the second call printed."""
    folder, again = tmp_path_factory.mktemp("runs"), []
    ablate_mini(folder, len)
    weights = sorted((folder / "ablations").rglob("weights.safetensors"))
    times = [path.stat().st_mtime_ns for path in weights]
    first = (folder / "ablations" / "split" / "ablation.json").read_bytes()
    ablate_mini(folder, again.append)
    assert [path.stat().st_mtime_ns for path in weights] == times
    return folder / "ablations", again, json.loads(first)


@pytest.mark.slow
def test_every_training_leaves_a_run_folder_without_checkpoints(mini):
    runs = sorted(
        path.parent.relative_to(mini[0]).as_posix() for path in mini[0].rglob("weights.safetensors")
    )
    kinds = ["split/patient", "split/slice"]
    assert runs == [f"{kind}/phantoms/seed-{seed}" for kind in kinds for seed in (0, 1)]
    assert not list(mini[0].rglob("*.ckpt"))
    assert (mini[0] / runs[0] / "metrics.csv").is_file()


@pytest.mark.slow
def test_a_second_call_trains_and_scores_nothing_and_finds_the_same(mini):
    folder, again, first = mini
    assert not [line for line in again if re.match(r"\d+ trainings of", line)]
    new = json.loads((folder / "split" / "ablation.json").read_bytes())
    assert new["variants"] == first["variants"]
    assert new["comparisons"] == first["comparisons"]


@pytest.mark.slow
def test_results_say_how_they_were_made(mini):
    _, again, results = mini
    assert list(results["variants"]) == ["patient", "slice"]
    assert results["seeds"] == [0, 1] and results["versions"]["torch"]
    assert results["recipe"]["steps"] == MINI.steps
    assert any(name.startswith("scored/phantom-") for name in results["checksums"])
    assert any(name.startswith("train/phantom-") for name in results["checksums"])
    for entry in results["variants"].values():
        assert len(entry["dice"]["phantoms"]) == 6
        assert all(0 <= value <= 1 for value in entry["dice"]["phantoms"].values())
    table = ablations.ablation_table(results)
    assert list(table.index) == ["by patient", "by slice"]
    (row,) = results["comparisons"]
    assert ablations.estimate_text(row, sign="+") in again[-1]
    assert "not clearly above trivial" not in ablations.ablations_page({"split": results})


@pytest.mark.slow
def test_a_folder_of_another_recipe_is_refused(mini):
    with pytest.raises(SpineError, match="another recipe .*learning_rate"):
        ablate_mini(mini[0].parent, len, MINI.changed(learning_rate=0.1))


# --- what was measured and kept -------------------------------------------------------------------


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_of_an_ablation_follows_from_its_runs(name):
    kept = KEPT[name]
    assert kept["setting"] == ABLATIONS[name].setting
    again = ablations.compare_variants(kept["variants"], kept["reference"])
    for old, new in zip(kept["comparisons"], again, strict=True):
        assert old["reading"] == new["reading"]
        for key in ("estimate", "low", "high", "p_holm"):
            assert old[key] == (None if new[key] is None else pytest.approx(new[key])), key


@pytest.mark.parametrize("name", KEPT)
def test_kept_ablations_are_of_the_recipe_that_ships_and_of_no_test_patient(name):
    kept = KEPT[name]
    recipe = recipe_from_dict(kept["recipe"])
    assert recipe == RECIPE.changed(models=(kept["model"],))
    assert len(kept["seeds"]) >= 2
    assert len(kept["variants"][kept["reference"]]["dice"]["phantoms"]) == ablations.COHORT
    assert not any("dicom" in key or "crop" in key for key in kept["checksums"])


def test_the_page_is_written_from_what_is_kept():
    page = ablations.DOCUMENT.read_text(encoding="utf-8")
    assert page == ablations.ablations_page(KEPT)
    assert "not above a bone threshold on the abdomen" in page


def test_the_report_repeats_what_the_kept_ablations_found():
    notes = {row["setting"]: row["note"] for row in deviations(RECIPE.to_dict())}
    for kept in KEPT.values():
        assert notes[kept["setting"]].startswith(kept["finding"])
    assert sum(bool(note) for note in notes.values()) == len(KEPT) > 0


def test_keeping_one_ablation_leaves_the_others_as_they_were(tmp_path):
    (name, kept), *_ = KEPT.items()
    (tmp_path / "run").mkdir()
    changed = json.dumps({**kept, "created": "now"})
    (tmp_path / "run" / "ablation.json").write_text(changed, encoding="utf-8")
    file = tmp_path / "kept.json"
    file.write_bytes(ablations.KEPT.read_bytes())
    ablations.keep([tmp_path / "run"], file, tmp_path / "page.md")
    again = json.loads(file.read_text(encoding="utf-8"))["ablations"]
    assert again == {**KEPT, name: {**kept, "created": "now"}}
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page == ablations.ablations_page(again)
