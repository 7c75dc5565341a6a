"""Intervals and tests over patients: our rules, since SciPy does the resampling."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.metrics import (
    bootstrap_interval,
    holm,
    paired_differences,
    sign_flip_test,
    spread,
)

scores = st.floats(0, 1)


# --- intervals ------------------------------------------------------------------------------------


def coverage(draw, truth, patients, cohorts=300):
    """Count how often the interval holds the true mean, over simulated cohorts."""
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(cohorts):
        found = bootstrap_interval(draw(rng, patients), resamples=500, seed=seed)
        hits += found.low <= truth <= found.high
    return hits / cohorts


@pytest.mark.parametrize(("patients", "lowest"), [(6, 0.85), (30, 0.91)])
def test_the_interval_holds_the_true_mean_about_as_often_as_promised(patients, lowest):
    skewed = coverage(lambda rng, n: rng.beta(8, 2, n), truth=0.8, patients=patients)
    assert lowest <= skewed <= 0.99


@settings(max_examples=40, deadline=None)
@given(st.lists(scores, min_size=6, max_size=30))
def test_the_interval_lies_around_the_mean_and_inside_the_data(values):
    found = bootstrap_interval(values, resamples=300)
    assert found.estimate == pytest.approx(np.mean(values))
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert found.n == len(values) and found.reason is None


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    values = np.random.default_rng(0).random(12)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)
    same = bootstrap_interval([0.9] * 7)
    assert same.low == same.high == pytest.approx(0.9)


def test_undefined_scores_are_left_out_before_patients_are_counted():
    values = [0.7, 0.8, 0.9, 0.85, 0.75, math.nan]
    found = bootstrap_interval(values)
    assert (found.n, found.low, found.high) == (5, None, None)
    assert found.estimate == pytest.approx(0.8)
    with pytest.raises(SpineError, match="count infinite distances"):
        bootstrap_interval([*values, math.inf])


@pytest.mark.parametrize("patients", range(6))
def test_below_six_patients_the_reason_stands_in_place_of_the_interval(patients):
    found = bootstrap_interval([0.1 * number for number in range(patients)])
    assert (found.low, found.high) == (None, None)
    assert f"not given for {patients} patient" in found.reason
    assert "at least 6" in found.reason


# --- sign flips -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=6, max_size=9))
def test_the_exact_p_value_is_the_share_of_all_sign_choices_as_extreme(differences):
    sums = [abs(np.dot(signs, differences)) for signs in product([1, -1], repeat=len(differences))]
    expected = np.mean(np.array(sums) >= abs(sum(differences)))
    assert sign_flip_test(np.array(differences) / 7).p_value == pytest.approx(expected)


def test_six_patients_can_go_below_five_percent_and_two_get_the_reason():
    assert sign_flip_test([0.1, 0.2, 0.3, 0.1, 0.2, 0.3]).p_value == 2 / 2**6
    assert sign_flip_test([5.0, 9.0]).p_value is None
    assert "0.5" in sign_flip_test([5.0, 9.0]).reason


def test_means_that_are_equal_on_paper_count_as_equal():
    assert sign_flip_test([0.0] * 20).p_value == 1
    # (0.1 + 0.2 - 0.3) and its mirror image differ in the last bit only
    assert sign_flip_test([0.1, 0.2, -0.3, 0.1, 0.2, -0.3]).p_value == 1


def test_a_sampled_p_value_is_never_zero_and_repeats_with_its_seed():
    differences = np.full(60, 0.1)
    found = sign_flip_test(differences)
    assert 0 < found.p_value < 1e-4
    mixed = np.random.default_rng(1).normal(0.1, 1, 40)
    assert sign_flip_test(mixed) == sign_flip_test(mixed)
    assert sign_flip_test(mixed) != sign_flip_test(mixed, seed=1)


# --- several questions ----------------------------------------------------------------------------


def test_holm_gives_the_textbook_answer_in_the_order_of_the_questions():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_questions_without_a_test_do_not_count():
    assert holm([None, 0.03, None, 0.02]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([]) == []


@given(st.lists(scores, min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for before, after in zip(p_values, adjusted):
        assert before <= after <= min(1, len(p_values) * before)
    ordered = [adjusted[position] for position in np.argsort(p_values)]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize("wrong", [-0.1, 1.2, math.nan])
def test_a_p_value_outside_its_range_is_refused(wrong):
    with pytest.raises(SpineError, match="p-value number 2"):
        holm([0.5, wrong])


# --- patients and seeds ---------------------------------------------------------------------------


def test_differences_are_paired_by_patient_and_not_by_position():
    found = paired_differences({"a": 0.9, "b": 0.5}, {"b": 0.4, "a": 0.7})
    assert found == pytest.approx({"a": 0.2, "b": 0.1})


def test_models_scored_on_different_patients_are_refused():
    with pytest.raises(SpineError, match="c"):
        paired_differences({"a": 0.9, "b": 0.5}, {"a": 0.4, "c": 0.7})


def test_the_spread_over_seeds_is_given_from_one_seed_on():
    three = spread([0.7, 0.8, 0.9])
    assert (three.mean, three.sd) == pytest.approx((0.8, 0.1))
    assert (three.low, three.high, three.n) == (0.7, 0.9, 3)
    assert spread([0.7]).sd is None
    with pytest.raises(SpineError, match="at least one seed"):
        spread([])
