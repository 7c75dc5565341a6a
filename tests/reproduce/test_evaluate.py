"""Scores of cases, over seeds, kept, and of the bone threshold."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from spine_lib.datasets import phantom_cases
from spine_lib.metrics.overlap import aggregate
from spine_lib.reproduce.evaluate import (
    BONE_HU,
    Truth,
    _read_scores,
    _write_scores,
    best_threshold,
    bone_mask,
    evaluate_case,
    mean_over_seeds,
    summarise,
)
from spine_lib.reproduce.sources import prepare


def test_the_mean_over_seeds_keeps_the_shape_and_leaves_out_what_is_undefined():
    first = {"pooled": {"dice": 0.8, "tp": 10}, "volumes": {"a": {"hd95": 4.0, "patient_id": "p"}}}
    other = {"pooled": {"dice": 0.6, "tp": 20}, "volumes": {"a": {"hd95": math.nan}}}
    other["volumes"]["a"]["patient_id"] = "p"
    mean = mean_over_seeds([first, other])
    assert math.isclose(mean["pooled"]["dice"], 0.7) and mean["pooled"]["tp"] == 15
    assert mean["volumes"]["a"] == {"hd95": 4.0, "patient_id": "p"}
    assert mean_over_seeds([first]) is first
    assert math.isnan(mean_over_seeds([{"dice": math.nan}, {"dice": math.nan}])["dice"])


# --- what is measured of a case -------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(small_phantom):
    """Measure a prediction of the phantom that is a voxel off, with its probabilities."""
    truth = Truth(small_phantom)
    probability = np.roll(truth.mask, 1, 0) * 0.8 + 0.1
    return truth, evaluate_case(probability, probability > 0.5, truth)


def test_a_case_has_its_regions_and_its_calibration(measured):
    truth, row = measured
    assert {"thoracic", "lumbar"} <= set(row["regions"])
    assert sum(of["tp"] for of in row["regions"].values()) == row["tp"]
    bins = row["calibration"]
    assert sum(counts["voxels"] for counts in bins.values()) == np.count_nonzero(truth.near)
    assert bins["0.5-0.6"]["voxels"] == 0 < bins["0.9-1.0"]["voxels"] + bins["0.8-0.9"]["voxels"]


def test_a_summary_adds_regions_and_calibration_to_the_averages(measured):
    _, row = measured
    test = summarise({"a": row, "b": row})
    plain = aggregate({"a": row, "b": row})
    assert all(test[way] == plain[way] for way in ("pooled", "per_volume", "per_slice"))
    assert test["regions"]["lumbar"]["volumes"] == 2
    assert test["volumes"]["a"]["regions"] == row["regions"]
    assert test["volumes"]["a"]["ece"] == pytest.approx(test["calibration"]["ece"])
    assert "calibration" not in test["volumes"]["a"] and "calibration" in row
    assert mean_over_seeds([test, test]) == test


def test_scores_that_an_older_version_kept_are_made_anew(tmp_path, measured):
    case = SimpleNamespace(case_id="a", ct_path=None, mask_path=None)
    _write_scores(tmp_path, case, {"dice": 0.5, "slices": []})
    assert _read_scores(tmp_path, case) is None
    _write_scores(tmp_path, case, measured[1])
    kept = _read_scores(tmp_path, case)
    assert kept["regions"] == measured[1]["regions"] and kept["dice"] == measured[1]["dice"]


def test_the_bone_threshold_is_the_best_one_of_the_training_volumes(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_DATA", str(tmp_path / "data"))
    cases = phantom_cases(2, 0, shape=(40, 40, 74), spacing_mm=6.0)
    store = prepare(cases, ("axial",), 6.0, progress=False)
    threshold_hu, chosen_on = best_threshold(store, keep_largest=False)
    assert chosen_on == ["phantom-0000", "phantom-0001"] and threshold_hu in BONE_HU
    dice = []
    for limit in BONE_HU:
        pairs = [(store.read(n)["hu"] > limit, store.read(n)["label"] > 0) for n in (0, 1)]
        dice.append(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))
    assert threshold_hu == BONE_HU[int(np.argmax(dice))]


def test_the_bone_mask_is_cleaned_up_like_a_networks():
    hu = np.zeros((9, 9, 9))
    hu[1:3, 1:3, 1:3], hu[5:8, 5:8, 5:8] = 400, 400
    assert bone_mask(hu, 300, False).sum() == 8 + 27
    assert bone_mask(hu, 300, True).sum() == 27
