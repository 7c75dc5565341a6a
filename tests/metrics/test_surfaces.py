"""Surface distances in mm, empty masks, ignore regions; compared with MONAI."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_pairs import SPACING_MM, ball, masks, one_hot, pairs

from spine_lib import SpineError, metrics
from spine_lib.metrics import surface_distances, surfaces


def hd95(*masks_and_spacing):
    return metrics.hd95(surface_distances(*masks_and_spacing))


def nsd(prediction, truth, spacing_mm, tolerance_mm, ignore=None):
    distances = surface_distances(prediction, truth, spacing_mm, ignore)
    return metrics.nsd(distances, tolerance_mm)


def test_a_shift_by_one_voxel_is_that_voxel_in_mm_along_each_axis():
    truth = np.zeros((16, 16, 16), dtype=bool)
    truth[4:11, 4:11, 4:11] = True
    for axis, length_mm in enumerate(SPACING_MM):
        shifted = np.roll(truth, 1, axis)
        assert hd95(shifted, truth, SPACING_MM) == pytest.approx(length_mm)
        assert nsd(shifted, truth, SPACING_MM, tolerance_mm=length_mm) == 1
        assert nsd(shifted, truth, SPACING_MM, tolerance_mm=0.9 * length_mm) < 1


def test_three_voxels_of_a_length_that_binary_cannot_hold_are_within_their_sum():
    truth = np.zeros((20, 9, 9), dtype=bool)
    truth[4:9, 3:6, 3:6] = True
    shifted = np.roll(truth, 3, 0)
    assert nsd(shifted, truth, (0.7, 0.7, 0.7), tolerance_mm=2.1) == 1


def test_surface_scores_of_empty_masks_follow_the_stated_rules():
    empty = np.zeros((6, 6, 6), dtype=bool)
    full = ball((6, 6, 6), (3, 3, 3), 2)
    assert math.isnan(nsd(empty, empty, SPACING_MM, 2.0))
    assert math.isnan(hd95(empty, empty, SPACING_MM))
    for prediction, truth in ((full, empty), (empty, full)):
        assert nsd(prediction, truth, SPACING_MM, 2.0) == 0
        assert hd95(prediction, truth, SPACING_MM) == math.inf


@settings(max_examples=50, deadline=None)
@given(masks(2, st.tuples(*[st.integers(1, 6)] * 3)))
def test_surface_scores_are_symmetric_and_perfect_only_for_equal_surfaces(arrays):
    first, second = arrays
    share = nsd(first, second, SPACING_MM, 1.0)
    assert share == pytest.approx(nsd(second, first, SPACING_MM, 1.0), nan_ok=True)
    distance = hd95(first, second, SPACING_MM)
    assert distance == pytest.approx(hd95(second, first, SPACING_MM), nan_ok=True)
    if first.any():
        assert hd95(first, first, SPACING_MM) == 0
        assert nsd(first, first, SPACING_MM, 0) == 1


def test_a_prediction_that_goes_on_into_the_ignore_region_is_not_punished():
    truth = np.zeros((12, 12, 20), dtype=bool)
    truth[4:8, 4:8, 10:16] = True
    prediction = truth.copy()
    prediction[4:8, 4:8, 4:10] = True  # a vertebra that the truth leaves unlabelled
    ignore = np.zeros_like(truth)
    ignore[:, :, :10] = True
    assert hd95(prediction, truth, SPACING_MM) > 10
    assert hd95(prediction, truth, SPACING_MM, ignore) == 0
    assert nsd(prediction, truth, SPACING_MM, 0.0, ignore) == 1


def test_there_is_no_surface_where_a_mask_meets_the_ignore_region():
    mask = np.zeros((12, 12, 20), dtype=bool)
    mask[4:8, 4:8, 10:16] = True
    ignore = np.zeros_like(mask)
    ignore[:, :, :10] = True
    shell, open_shell = 4 * 4 * 6 - 2 * 2 * 4, 4 * 4 * 6 - 2 * 2 * 5
    assert surface_distances(mask, mask, SPACING_MM)[0].size == shell
    assert surface_distances(mask, mask, SPACING_MM, ignore)[0].size == open_shell


def test_very_many_surface_voxels_are_measured_by_a_map_to_the_same_distances(monkeypatch):
    random = np.random.default_rng(2)
    prediction, truth, ignore = random.random((3, 12, 14, 16)) < 0.3
    looked_up = surface_distances(prediction, truth, SPACING_MM, ignore)
    monkeypatch.setattr(surfaces, "MANY_POINTS", 5)
    mapped = surface_distances(prediction, truth, SPACING_MM, ignore)
    for one, other in zip(looked_up, mapped, strict=True):
        assert one.size > 100 and np.allclose(one, other, rtol=1e-12)
    nothing = np.zeros_like(truth)
    assert np.isinf(surface_distances(prediction, nothing, SPACING_MM)[0]).all()


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, -1.0, 1.0), 2.0])
def test_a_spacing_that_does_not_fit_is_refused(spacing_mm):
    mask = ball((6, 6, 6), (3, 3, 3), 2)
    with pytest.raises(SpineError, match="spacing_mm"):
        hd95(mask, mask, spacing_mm)


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_length_is_refused(tolerance_mm):
    mask = ball((6, 6, 6), (3, 3, 3), 2)
    with pytest.raises(SpineError, match="tolerance_mm"):
        nsd(mask, mask, SPACING_MM, tolerance_mm)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), SPACING_MM])
def test_surface_dice_and_hausdorff_distance_agree_with_monai(spacing_mm):
    monai = pytest.importorskip("monai.metrics")
    for prediction, truth in pairs():
        hats = one_hot(prediction), one_hot(truth)
        theirs = monai.compute_hausdorff_distance(*hats, percentile=95, spacing=spacing_mm)
        assert hd95(prediction, truth, spacing_mm) == pytest.approx(theirs.item(), rel=1e-5)
        for tolerance_mm in (0.5, 1.1, 2.6):
            theirs = monai.compute_surface_dice(*hats, [tolerance_mm], spacing=spacing_mm)
            ours = nsd(prediction, truth, spacing_mm, tolerance_mm)
            assert ours == pytest.approx(theirs.item(), rel=1e-5)
