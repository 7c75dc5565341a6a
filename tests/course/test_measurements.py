"""The kept measurements: made by the scripts in `benchmarks/lessons`, and read by lessons."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from spine_lib import SpineError, metrics
from spine_lib.course import cohort_scores, lesson_result, measurements
from spine_lib.course.measurements import scores_by_patient
from spine_lib.reproduce.sources import gather
from spine_lib.training.losses import LOSSES
from spine_lib.training.recipe import load_recipe

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "lessons"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "measure")


def load_script(name: str):
    """Return a script of `benchmarks/lessons` as a module."""
    spec = importlib.util.spec_from_file_location(f"lessons_{name}", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def scripts():
    return {name: load_script(name) for name in NAMES}


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_measurement_has_the_settings_of_its_script_and_three_seeds(name, scripts):
    kept, script = lesson_result(name), scripts[name]
    assert kept["name"] == script.NAME == name and kept["profile"] == "full"
    assert [row["seed"] for row in kept["seeds"]] == list(script.SEEDS)
    assert len(set(script.SEEDS)) >= 3
    assert kept["settings"] == load_script("measure").settings_of(script)
    assert kept["versions"]["torch"] and kept["versions"]["spine_lib"] and kept["seconds"] > 0


def test_a_measurement_is_kept_with_all_that_repeats_it(scripts, monkeypatch):
    script = scripts["skips"]
    monkeypatch.setattr(
        script, "run", lambda seed, fast: {"turns": np.float32(seed), "x": math.nan}
    )
    made = load_script("measure").measure(script, [0, 1, 2], fast=True)
    assert [(row["seed"], row["turns"], row["x"]) for row in made["seeds"]] == [
        (0, 0.0, None), (1, 1.0, None), (2, 2.0, None),
    ]  # fmt: skip
    assert made["about"].startswith("What the skips of a U-Net add")
    assert {"settings", "versions", "device", "seconds", "made"} <= set(made)
    json.dumps(made, allow_nan=False)


def test_a_measurement_that_does_not_exist_is_an_error():
    with pytest.raises(SpineError, match="no measurement 'spin': known are augmentation, cohort"):
        lesson_result("spin")


# --- fast versions --------------------------------------------------------------------------------


@pytest.mark.slow
def test_leakage_holds_out_each_patient(scripts, sample_root):
    result = scripts["leakage"].run(0, fast=True)
    assert set(result["patients"]) == {"chest", "abdomen", "dicom", "crop"}
    assert result["gap"] == pytest.approx(result["by slice"] - result["by patient"])


@pytest.mark.slow
def test_augmentations_are_measured_on_a_patient_that_no_arm_trains_on(
    scripts, sample_root, monkeypatch
):
    script, trained_on = scripts["augmentation"], []
    make_batch = script.augmented_batch
    monkeypatch.setattr(
        script,
        "augmented_batch",
        lambda patients, *rest: trained_on.append(patients) or make_batch(patients, *rest),
    )
    monkeypatch.setattr(script, "PATIENTS", ("crop",))
    arms = script.run(0, fast=True)["arms"]
    assert set(arms) == set(script.ARMS)
    assert trained_on and all(p.name != "crop" for patients in trained_on for p in patients)


@pytest.mark.slow
def test_losses_are_all_measured_on_phantoms_that_no_loss_is_trained_on(scripts, monkeypatch):
    script = scripts["losses"]
    assert not set(range(*script.TRAINED_ON)) & set(range(*script.SCORED_ON))
    assert set(script.KINDS) == set(LOSSES)
    monkeypatch.setattr(script, "TRAINED_ON", (400, 401))
    monkeypatch.setattr(script, "SCORED_ON", (500, 501))
    result = script.run(0, fast=True)
    assert 0.004 < result["foreground"] < 0.02
    for kind in script.KINDS:
        assert [step for step, _ in result["losses"][kind]["curve"]] == [2, 4]
        assert result[kind] == result["losses"][kind]["thresholds"]["0.5"]


def test_skips_are_measured_on_phantoms_that_no_arm_is_trained_on(scripts):
    script = scripts["skips"]
    training = range(script.TRAINING_FROM, script.TRAINING_FROM + script.TRAINING)
    assert script.HELD_OUT_FROM not in training
    arms = script.run(0, fast=True)["arms"]
    counts = [arms[arm]["parameters"] for arm in ("without skips", "with skips", "without, wider")]
    assert counts == sorted(counts)


def test_2d_and_25d_and_3d_are_measured_on_phantoms_that_none_is_trained_on(scripts):
    script = scripts["dimensions"]
    training, held_out = script.TRAINING_FROM, script.HELD_OUT_FROM
    assert training + script.TRAINING <= held_out
    arms = script.run(0, fast=True)["arms"]
    assert set(arms) == {"2D", "2.5D", "3D"}
    assert script.channels("2.5D", 0, 9) == [0, 0, 1] and script.channels("2D", 5, 9) == [5]


@pytest.mark.slow
def test_stress_scores_each_model_and_their_agreement(scripts):
    scans = scripts["stress"].run(0, fast=True)["scans"]
    assert len(scans) == 3
    for scores in scans.values():
        for name in ("unet_light", "deeplabv3plus_light"):
            p, r = scores[name]["precision"], scores[name]["recall"]
            assert scores[name]["dice"] == pytest.approx(2 * p * r / (p + r))
        assert 0 <= scores["agreement"] <= 1
    screws, well = (
        scans[name]["unet_light"]["dice"] for name in ("pedicle screws", "well scanned")
    )
    assert screws < well


@pytest.mark.slow
def test_uncertainty_is_judged_on_a_scan(scripts):
    (judged,) = scripts["uncertainty"].run(0, fast=True)["scans"].values()
    assert 0.5 < judged["entropy"]["near"] <= judged["entropy"]["everywhere"] <= 1


def test_an_uncertainty_that_knows_the_errors_is_judged_perfect(scripts):
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 20, 10), bool)
    truth[5:15, 5:15, 2:8] = True
    sure = np.where(truth, 0.99, 0.01).astype(np.float32)
    unsure = rng.random(truth.shape) < 0.1
    sure[unsure] = np.where(truth[unsure], 0.45, 0.55)
    views, nothing = np.stack([sure] * 4), np.zeros_like(truth)
    judge = scripts["uncertainty"].judge_uncertainty
    judged = judge(views, sure, truth, nothing, (2.0, 2.0, 3.0))
    assert judged["entropy"]["near"] == judged["entropy"]["everywhere"] == 1.0
    assert judged["spread over views"]["near"] == 0.5 == judged["disagreement"]["near"]
    assert judged["plain"] == judged["views"] < 1
    assert judge(views, sure, truth, unsure, (2.0, 2.0, 3.0))["plain"] == 1


@pytest.mark.slow
def test_the_cohort_scores_both_models_on_phantoms(scripts):
    result = scripts["cohort"].run(1, fast=True)
    assert list(result["phantoms"]) == ["phantom-4010", "phantom-4011"]
    for row in result["phantoms"].values():
        for scores in row["models"].values():
            assert 0.3 < scores["dice"] < 1 and scores["slices"]["count"] > 0
            assert scores["raw"]["tp"] >= scores["tp"] and "lumbar" in scores["regions"]


# --- what the lessons say of them -----------------------------------------------------------------


def test_kept_skips_help_at_every_seed():
    for row in lesson_result("skips")["seeds"]:
        distance = {arm: scores["mean distance mm"] for arm, scores in row["arms"].items()}
        assert min(distance, key=distance.get) == "with skips"


def test_kept_3d_is_behind_2d_and_25d_after_equal_seconds_with_equal_parameters():
    for row in lesson_result("dimensions")["seeds"]:
        for name, share in (("seconds", 0.1), ("parameters", 0.03)):
            values = [scores[name] for scores in row["arms"].values()]
            assert max(values) < (1 + share) * min(values)
        flat, neighbours, volume = (row["arms"][arm]["mean dice"] for arm in ("2D", "2.5D", "3D"))
        assert abs(flat - neighbours) < 0.03 and volume < min(flat, neighbours) - 0.1


def test_the_cohort_is_thirty_phantoms_that_were_never_trained_validated_or_tested_on(scripts):
    cohort = scripts["cohort"]
    seeds = [seed for block in cohort.SEEDS for seed in cohort.cohort_seeds(block)]
    assert list(cohort_scores("U-Net")) == [f"phantom-{seed}" for seed in seeds]
    assert len(set(seeds)) == 30
    for name in ("light", "sample", "pretrained-encoder", "tiny"):
        parts = gather(load_recipe(name).changed(dataset="phantom")).parts
        used = {case.patient_id for cases in parts.values() for case in cases}
        assert len(used) >= 4 and not used & {f"phantom-seed-{seed}" for seed in seeds}


def test_kept_scores_of_the_cohort_follow_from_their_counts():
    for model in ("U-Net", "DeepLabv3+"):
        for scores in measurements.cohort_rows(model).values():
            counts = metrics.Confusion(*(scores[name] for name in ("tp", "fp", "fn", "tn")))
            assert scores["dice"] == pytest.approx(metrics.dice(counts))
            assert scores["iou"] == pytest.approx(metrics.iou(counts))


# --- reading --------------------------------------------------------------------------------------


def test_scores_of_the_cohort_are_read_by_model_score_and_region():
    unet, deeplab = (cohort_scores(model) for model in ("U-Net", "DeepLabv3+"))
    assert list(unet) == list(deeplab) and unet != deeplab
    raw = cohort_scores("U-Net", "raw dice")
    assert raw != unet and all(abs(raw[case] - unet[case]) < 0.1 for case in unet)
    assert all(value > 0 for value in cohort_scores("U-Net", "hd95", "lumbar").values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("V-Net",), "no model 'V-Net'"),
        (("U-Net", "auc"), "no score 'auc'"),
        (("U-Net", "raw dice", "lumbar"), "no score 'raw dice'"),
        (("U-Net", "dice", "caudal"), "no region 'caudal'"),
    ],
)
def test_a_score_that_was_not_kept_is_an_error(arguments, message):
    with pytest.raises(SpineError, match=message):
        cohort_scores(*arguments)


def test_a_region_that_a_phantom_does_not_show_has_no_score(monkeypatch):
    row = {"dice": 0.9, "hd95": None, "regions": {"lumbar": {"dice": 0.8}}}
    monkeypatch.setattr(measurements, "cohort_rows", lambda model: {"phantom-1": row})
    assert cohort_scores("U-Net", "dice", "lumbar") == {"phantom-1": 0.8}
    assert math.isnan(cohort_scores("U-Net", "dice", "cervical")["phantom-1"])
    assert math.isnan(cohort_scores("U-Net", "hd95")["phantom-1"])


def test_the_built_in_run_is_part_of_the_package():
    results = lesson_result("reproduce")
    assert set(results["models"]) == {"unet_resnet34", "deeplabv3plus_resnet34"}
    for model, rows in scores_by_patient(results).items():
        runs = results["models"][model]["runs"]
        assert all(len(values) == len(runs) for values in rows.values())
        assert all(0 <= value <= 1 for values in rows.values() for value in values)


def test_scores_are_listed_by_patient_a_value_for_each_run():
    volumes = {
        seed: {
            "a": {"dice": 0.5 + seed / 10, "patient_id": "p"},
            "b": {"dice": 0.7 + seed / 10, "patient_id": "p"},
            "c": {"dice": None if seed else 0.9},
        }
        for seed in (1, 0)
    }
    runs = [{"seed": seed, "test": {"volumes": rows}} for seed, rows in volumes.items()]
    results = {"models": {"unet": {"runs": runs}}}
    scores = scores_by_patient(results)["unet"]
    assert scores["p"] == pytest.approx([0.7, 0.6])
    assert math.isnan(scores["c"][0]) and scores["c"][1] == 0.9


def test_one_set_of_predictions_has_seven_dice_a_tenth_apart():
    table = measurements.holdout_counts()

    def dice(rows):
        return 2 * rows.tp / (2 * rows.tp + rows.fp + rows.fn)

    assert table.case.nunique() == 211 and table.label.between(1, 25).all()
    pooled = dice(table[["tp", "fp", "fn"]].sum())
    by_case = dice(table.groupby("case")[["tp", "fp", "fn"]].sum())
    by_vertebra = dice(table).groupby(table.case).mean()
    assert pooled == pytest.approx(0.9256, abs=1e-4)  # as its authors' file has it
    assert by_case.mean() == pytest.approx(0.909, abs=5e-4)
    assert by_case.median() == pytest.approx(0.967, abs=5e-4)
    assert by_vertebra.mean() == pytest.approx(0.863, abs=5e-4)
