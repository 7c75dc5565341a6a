"""Statistics of a run: by patient, paired, corrected for the number of metrics, or not given."""

import math

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.metrics.statistics import bootstrap_interval, holm, sign_flip_test
from spine_lib.reproduce.patient_statistics import (
    METRICS,
    intervals,
    of_models,
    paired,
    per_patient,
    seed_spread,
)


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


def test_scans_of_a_patient_are_averaged_and_infinite_distances_left_out():
    again = {"dice": 0.4, "iou": 0.3, "nsd": None, "hd95": math.inf, "patient_id": "p0"}
    test = make_test([0.8, 0.6], again=again)
    assert per_patient(test, "dice") == pytest.approx({"p0": 0.6, "p1": 0.6})
    assert per_patient(test, "hd95") == pytest.approx({"p0": 2.0, "p1": 4.0})
    assert per_patient(test, "dice", cases={"again"}) == {"p0": 0.4}


def test_intervals_are_those_of_the_patients(two_models):
    found = intervals(two_models[0])
    assert list(found) == list(METRICS)
    expected = bootstrap_interval(per_patient(two_models[0], "nsd").values())
    assert (found["nsd"]["low"], found["nsd"]["high"]) == (expected.low, expected.high)
    assert found["nsd"]["n"] == 8 and found["nsd"]["reason"] is None


def test_the_paired_test_is_made_on_differences_and_corrected_over_the_metrics(two_models):
    found = paired(*two_models)
    raw = []
    for metric in METRICS:
        one, two = (per_patient(test, metric) for test in two_models)
        differences = [one[patient] - two[patient] for patient in one]
        raw.append(sign_flip_test(differences).p_value)
        assert found[metric]["estimate"] == pytest.approx(np.mean(differences))
        assert found[metric]["low"] < np.mean(differences) < found[metric]["high"]
    assert [found[metric]["p_value"] for metric in METRICS] == raw
    assert [found[metric]["p_holm"] for metric in METRICS] == holm(raw)
    assert found["dice"]["p_holm"] > found["dice"]["p_value"]


def test_a_better_model_is_better_whichever_comes_first(two_models):
    forth, back = paired(*two_models), paired(*reversed(two_models))
    for metric in METRICS:
        assert forth[metric]["estimate"] == pytest.approx(-back[metric]["estimate"])
        assert forth[metric]["p_value"] == back[metric]["p_value"]


def test_five_patients_get_the_reason_and_no_p_value():
    found = paired(make_test([0.5, 0.6, 0.7, 0.8, 0.9]), make_test([0.4] * 5))
    for row in found.values():
        assert row["low"] is row["p_value"] is row["p_holm"] is None
        assert "at least 6" in row["reason"]
    assert found["dice"]["estimate"] == pytest.approx(0.3)


def test_a_patient_without_a_distance_leaves_that_metric_alone(two_models):
    first, second = two_models
    second["volumes"]["case-3"]["hd95"] = None
    found = paired(first, second)
    assert (found["hd95"]["n"], found["dice"]["n"]) == (7, 8)


def test_models_on_different_patients_are_refused(two_models):
    del two_models[1]["volumes"]["case-3"]
    with pytest.raises(SpineError, match="p3"):
        paired(*two_models)


def test_the_spread_over_seeds_is_that_of_the_means_over_volumes():
    runs = [{"test": {"per_volume": {"dice": dice, "hd95": None}}} for dice in (0.7, 0.8, 0.9)]
    found = seed_spread(runs)
    assert list(found) == ["dice"]
    assert found["dice"] == pytest.approx({"mean": 0.8, "sd": 0.1, "low": 0.7, "high": 0.9, "n": 3})


def test_all_of_a_run_together(two_models):
    entries = [{"test": test, "runs": [{"test": test}]} for test in two_models]
    models = dict(zip("ab", entries))
    found = of_models(models)
    assert found["patients"] == 8 and found["seeds"]["a"]["dice"]["sd"] is None
    assert [(pair["first"], pair["second"]) for pair in found["paired"]] == [("a", "b")]
    assert found["paired"][0]["metrics"] == paired(*two_models)
    assert of_models({"a": {}})["patients"] == 0
