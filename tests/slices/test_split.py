"""Splitting cases by patient."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.datasets import phantom_cases
from spine_lib.slices import require_separate, split_by_patient


@given(st.integers(3, 30), st.integers(0, 5))
def test_no_patient_lies_on_both_sides_of_a_split(count, seed):
    # Two scans of each patient: the same seed in two sizes.
    cases = phantom_cases(count, spacing_mm=4.0) + phantom_cases(count, spacing_mm=5.0)
    parts = split_by_patient(cases, {"train": 0.6, "validation": 0.2, "test": 0.2}, seed)
    require_separate(parts)
    assert sum(len(part) for part in parts.values()) == 2 * count
    assert min(len(part) for part in parts.values()) >= (2 if count >= 5 else 0)


def test_a_patient_on_both_sides_is_refused_by_name():
    case = phantom_cases(1, seed=7)[0]
    with pytest.raises(SpineError, match="phantom-seed-7 is in both 'train' and 'test'"):
        require_separate({"train": [case], "test": [case]})


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5, "test": 0.4}, "add up to 0.9, not to 1"),
        ({"a": 0.2, "b": 0.2, "c": 0.6}, "2 patients cannot be split in 3 parts"),
    ],
)
def test_an_impossible_split_is_refused(fractions, message):
    with pytest.raises(SpineError, match=message):
        split_by_patient(phantom_cases(2), fractions)
