"""Calibration near the spine: bins of probability, and the expected error."""

import math

import numpy as np
import pytest
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.metrics.calibration import add_up, expected_error, near_spine, reliability, summarise


def drawn(stated, real, count=4000, seed=0):
    """Return probabilities that state one thing and truths that are drawn from another."""
    random = np.random.default_rng(seed)
    probability = np.full(count, stated)
    return probability, random.random(count) < real, np.ones(count, bool)


@pytest.mark.parametrize(("stated", "real"), [(0.95, 0.6), (0.35, 0.6), (0.05, 0.5)])
def test_the_error_is_by_how_much_the_stated_and_the_real_differ(stated, real):
    assert expected_error(reliability(*drawn(stated, real))) == pytest.approx(
        abs(stated - real), abs=0.03
    )


def test_the_error_is_that_of_torchmetrics():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(2)
    # Above one half its "confidence" is the probability of spine, as it is here.
    probability = random.uniform(0.5, 1, 5000)
    truth = random.random(5000) < probability**2
    mine = expected_error(reliability(probability, truth, np.ones(5000, bool)))
    other = theirs.binary_calibration_error(
        torch.tensor(probability), torch.tensor(truth).int(), n_bins=10, norm="l1"
    )
    assert mine == pytest.approx(float(other), abs=1e-5)


def test_bins_hold_every_voxel_once_also_the_ends():
    probability = np.array([0.0, 0.099, 0.1, 0.5, 0.999, 1.0, 1.0])
    bins = reliability(probability, probability > 0.4, np.array([True] * 6 + [False]))
    assert [bins[name]["voxels"] for name in ("0.0-0.1", "0.1-0.2", "0.5-0.6")] == [2, 1, 1]
    assert bins["0.9-1.0"] == {"voxels": 2, "spine": 2, "probability": 1.999}
    assert sum(counts["voxels"] for counts in bins.values()) == 6


def test_bins_of_volumes_add_up_to_those_of_their_voxels_together():
    one, two = drawn(0.7, 0.5, seed=1), drawn(0.2, 0.4, seed=2)
    together = reliability(*(np.concatenate(pair) for pair in zip(one, two)))
    summed = add_up([reliability(*one), reliability(*two)])
    for name, counts in together.items():
        assert summed[name] == pytest.approx(counts)
    assert summarise(summed)["voxels"] == 8000 and summarise(summed)["reach_mm"] == 10


def test_no_voxels_leave_the_error_undefined():
    nothing = reliability(np.zeros(3), np.zeros(3, bool), np.zeros(3, bool))
    assert math.isnan(expected_error(nothing)) and math.isnan(expected_error(add_up([])))


def test_logits_and_nan_are_refused():
    for wrong in (np.array([-3.0, 4.0]), np.array([0.5, np.nan])):
        with pytest.raises(SpineError, match="probabilities"):
            reliability(wrong, np.zeros(2, bool), np.ones(2, bool))


def test_the_neighbourhood_is_within_reach_in_mm_and_never_ignored():
    truth = np.zeros((30, 40, 25), bool)
    truth[12:15, 30:40, 3:9] = True
    ignore = np.zeros_like(truth)
    ignore[:13] = True
    spacing = (1.0, 2.0, 3.0)
    whole = ndimage.distance_transform_edt(~truth, spacing) <= 10
    assert np.array_equal(near_spine(truth, spacing), whole)
    assert np.array_equal(near_spine(truth, spacing, ignore), whole & ~ignore)
    assert not near_spine(np.zeros_like(truth), spacing).any()
