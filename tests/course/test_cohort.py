"""The cohort of held-out phantoms: who is in it, how regions are scored, how scores are read."""

import json
import math

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.course import cohort_scores as reader
from spine_lib.course.experiments import cohort
from spine_lib.metrics import overlap as metrics
from spine_lib.reproduce.sources import gather
from spine_lib.training.recipe import load_recipe


def all_seeds():
    return [one for seed in cohort.SEEDS for one in cohort.cohort_seeds(seed)]


def test_no_phantom_of_the_cohort_was_ever_trained_validated_or_tested_on():
    assert len(set(all_seeds())) == len(all_seeds()) == 30
    cohort_ids = {case.patient_id for case in cohort.phantom_cases(30, cohort.FIRST_PHANTOM)}
    assert {f"phantom-seed-{seed}" for seed in all_seeds()} == cohort_ids
    for name in ("light", "sample", "pretrained-encoder", "tiny"):
        parts = gather(load_recipe(name).changed(dataset="phantom")).parts
        used = {case.patient_id for cases in parts.values() for case in cases}
        assert len(used) >= 4 and not used & cohort_ids


def test_regions_share_out_all_that_was_predicted_and_all_that_is_true(small_phantom):
    from spine_lib.annotations import to_regions

    regions = to_regions(small_phantom.labels.array)
    prediction = np.roll(regions > 0, 1, axis=1)
    scored = cohort.score_regions(prediction, regions, small_phantom)
    assert len(scored) >= 2
    whole = cohort.score_mask(prediction, regions > 0, small_phantom)
    assert sum(one["tp"] + one["fp"] for one in scored.values()) == np.count_nonzero(prediction)
    assert sum(one["tp"] + one["fn"] for one in scored.values()) == np.count_nonzero(regions)
    # A voxel found in the wrong region is an error of two regions, and none of the whole spine.
    assert sum(one["tp"] for one in scored.values()) <= whole["tp"]
    assert whole["hd95"] == pytest.approx(4.0)


def test_the_fast_version_scores_both_models_on_two_small_phantoms():
    found = cohort.run(1, fast=True)
    assert list(found["phantoms"]) == ["phantom-4010", "phantom-4011"]
    for row in found["phantoms"].values():
        assert set(row["models"]) == {"unet_light", "deeplabv3plus_light"}
        for scored in row["models"].values():
            assert 0.3 < scored["dice"] < 1 and scored["slices"]["count"] > 0
            assert scored["raw"]["tp"] >= scored["tp"] and "lumbar" in scored["regions"]
    json.dumps(found)


def test_the_kept_cohort_is_thirty_whole_spines_scored_by_this_code():
    from spine_lib.course.results import lesson_result, settings_of

    kept = lesson_result("cohort")
    assert kept["profile"] == "full" and kept["seconds"] < 3600
    assert kept["settings"] == settings_of(cohort) and kept["versions"]["spine_lib"]
    rows = {name: row for block in kept["seeds"] for name, row in block["phantoms"].items()}
    assert list(rows) == [f"phantom-{seed}" for seed in all_seeds()]
    for row in rows.values():
        for scored in row["models"].values():
            counts = metrics.Confusion(*(scored[name] for name in ("tp", "fp", "fn", "tn")))
            assert scored["dice"] == pytest.approx(metrics.dice(counts))
            assert scored["iou"] == pytest.approx(metrics.iou(counts))
            assert set(scored["regions"]) >= {"thoracic", "lumbar", "sacral"}


def test_scores_are_read_by_model_score_and_region():
    unet, deeplab = (reader.cohort_scores(model) for model in ("U-Net", "DeepLabv3+"))
    assert list(unet) == list(deeplab) and len(unet) == 30
    assert unet == reader.cohort_scores("unet_light") != deeplab
    raw = reader.cohort_scores("U-Net", "raw dice")
    assert raw != unet and all(abs(raw[case] - unet[case]) < 0.1 for case in unet)
    lumbar = reader.cohort_scores("U-Net", "hd95", "lumbar")
    assert all(value > 0 for value in lumbar.values())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("V-Net",), "no model 'V-Net'"),
        (("U-Net", "auc"), "no score 'auc'"),
        (("U-Net", "raw dice", "lumbar"), "no score 'raw dice'"),
        (("U-Net", "dice", "caudal"), "no region 'caudal'"),
    ],
)
def test_what_was_not_kept_is_said(arguments, words):
    with pytest.raises(SpineError, match=words):
        reader.cohort_scores(*arguments)


def test_a_region_that_a_phantom_does_not_show_has_no_score(monkeypatch):
    row = {"dice": 0.9, "hd95": None, "regions": {"lumbar": {"dice": 0.8}}}
    monkeypatch.setattr(reader, "cohort_rows", lambda model: {"phantom-1": row})
    assert reader.cohort_scores("U-Net", "dice", "lumbar") == {"phantom-1": 0.8}
    assert math.isnan(reader.cohort_scores("U-Net", "dice", "cervical")["phantom-1"])
    assert math.isnan(reader.cohort_scores("U-Net", "hd95")["phantom-1"])


# --- the two held-out patients --------------------------------------------------------------------


def test_held_out_patients_come_with_the_stored_predictions(sample_root):
    from spine_lib.course.held_out import held_out_case

    found = held_out_case("crop")
    assert not found.note and list(found.probability) == ["U-Net", "DeepLabv3+"]
    truth = found.data.labels.array > 0
    for probability in found.probability.values():
        guess = probability.array >= 0.5
        assert metrics.dice(metrics.confusion(guess, truth, found.data.ignore.array)) > 0.8
    with pytest.raises(SpineError, match="no held-out patient"):
        held_out_case("chest")


def test_a_phantom_that_stands_in_is_predicted_on_the_spot(monkeypatch):
    from spine_lib.course import held_out

    phantom = cohort.phantom_cases(
        1, 77, shape=(40, 40, 16), spacing_mm=3.0, levels=("L2", "L3"), tight=True
    )[0].load()
    monkeypatch.setattr(held_out, "course_case", lambda name: (phantom, "a phantom stands in"))
    found = held_out.held_out_case("crop")
    assert found.note == "a phantom stands in"
    for probability in found.probability.values():
        guess = probability.array >= 0.5
        assert probability.array.shape == phantom.ct.shape
        assert metrics.dice(metrics.confusion(guess, phantom.labels.array > 0)) > 0.5
