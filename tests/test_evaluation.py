"""Scores over several seeds, and masks that wait packed."""

import math

import numpy as np

from spine_lib.evaluation import _pack, _unpack, mean_over_seeds


def test_the_mean_over_seeds_keeps_the_shape_and_leaves_out_what_is_undefined():
    first = {"pooled": {"dice": 0.8, "tp": 10}, "volumes": {"a": {"hd95": 4.0, "patient_id": "p"}}}
    other = {"pooled": {"dice": 0.6, "tp": 20}, "volumes": {"a": {"hd95": math.nan}}}
    other["volumes"]["a"]["patient_id"] = "p"
    mean = mean_over_seeds([first, other])
    assert math.isclose(mean["pooled"]["dice"], 0.7) and mean["pooled"]["tp"] == 15
    assert mean["volumes"]["a"] == {"hd95": 4.0, "patient_id": "p"}
    assert mean_over_seeds([first]) is first


def test_one_that_is_undefined_with_every_seed_stays_so():
    assert math.isnan(mean_over_seeds([{"dice": math.nan}, {"dice": math.nan}])["dice"])


def test_a_packed_mask_comes_back():
    mask = np.random.default_rng(0).random((5, 7, 11)) > 0.7
    assert np.array_equal(_unpack(_pack(mask), mask.shape), mask)
