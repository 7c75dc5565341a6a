"""Views of a scan, maps of uncertainty, and how well they find errors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.slices.augment import Augmentation
from spine_lib.training.recipe import Recipe
from spine_lib.volumes import predict_volume
from spine_lib.volumes.uncertainty import (
    VIEWS,
    View,
    auroc,
    closeness_to_outline,
    entropy,
    predict_views,
)

RECIPE = Recipe(spacing_mm=2.0, precision="32-true", augmentation=Augmentation(size=32))


class BrightIsSpine(nn.Module):
    """Call everything above 375 HU spine: an answer that follows the image wherever it goes."""

    def forward(self, image):
        return 50 * (image - 0.5)


class RightIsSpine(nn.Module):
    """Call the left half of the image, the patient's right, spine, whatever it shows."""

    def forward(self, image):
        return torch.linspace(20, -20, image.shape[-1]).expand_as(image)


def scan(shape=(48, 40, 6), spacing=(2.0, 2.0, 3.0)) -> Volume:
    array = np.full(shape, -50, np.int16)
    array[14:22, 18:30, 1:5] = 900
    return Volume(array, np.diag([*spacing, 1.0]))


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_every_view_is_brought_back_to_the_scan(view):
    ct = scan()
    plain, seen = predict_views(BrightIsSpine(), ct, RECIPE, (View("as it is"), view), "cpu")
    a, b = plain > 0.5, seen > 0.5
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.93


def test_a_turn_keeps_its_angle_where_pixels_are_not_square():
    # 45 degrees turn a bar along x into a diagonal, in mm and not in voxels.
    array = np.full((40, 80, 1), -50, np.int16)
    array[10:30, 38:42] = 900
    ct = Volume(array, np.diag([2.0, 1.0, 3.0, 1.0]))
    from spine_lib.volumes.uncertainty import _turn

    turned = _turn(ct.array, ct, 45.0, -50.0)[:, :, 0] > 400
    x, y = np.nonzero(turned)
    slope = np.polyfit(2.0 * x, 1.0 * y, 1)[0]
    assert abs(abs(slope) - 1) < 0.05


def test_the_first_two_views_are_what_a_prediction_averages():
    ct = scan()
    views = predict_views(RightIsSpine(), ct, RECIPE, VIEWS[:2], "cpu")
    both = predict_volume(RightIsSpine(), ct, RECIPE, "cpu").array
    assert np.allclose(views.mean(axis=0), both, atol=1e-6)


def test_zoom_makes_pixels_smaller_and_a_shift_makes_them_brighter():
    seen = []

    class Watches(nn.Module):
        def forward(self, image):
            seen.append(image)
            return image

    ct = scan((64, 64, 1))
    views = (View("as it is"), View("larger", zoom=2.0), View("brighter", shift_hu=100.0))
    predict_views(Watches(), ct, RECIPE, views, "cpu")
    with pytest.raises(SpineError, match="no views"):
        predict_views(Watches(), ct, RECIPE, (), "cpu")
    plain, larger, brighter = seen
    assert larger.shape[-1] == 2 * plain.shape[-1]
    assert (brighter - plain).median().item() == pytest.approx(4 * 100 / 1250, rel=1e-3)


def test_entropy_is_one_bit_at_one_half_and_nothing_where_all_is_sure():
    values = entropy(np.array([0, 0.5, 1, 0.25, 0.75], np.float32))
    assert values[:3] == pytest.approx([0, 1, 0], abs=1e-4)
    assert values[3] == pytest.approx(values[4])
    assert values[3] == pytest.approx(0.8113, abs=1e-4)
    assert values.dtype == np.float32


# --- AUROC ----------------------------------------------------------------------------------------


@given(
    hnp.arrays(np.int8, st.integers(2, 40), elements=st.integers(-3, 3)),
    st.randoms(use_true_random=False),
)
def test_auroc_is_the_share_of_pairs_in_the_right_order(score, random):
    wrong = np.array([random.random() < 0.4 for _ in score])
    wrong[:2] = True, False
    pairs = score[wrong][:, None].astype(int) - score[~wrong]
    expected = (pairs > 0).mean() + (pairs == 0).mean() / 2
    assert auroc(score, wrong) == pytest.approx(expected)
    assert auroc(-score.astype(float), wrong) == pytest.approx(1 - expected)


def test_auroc_survives_more_pairs_than_fit_in_32_bits_and_needs_one():
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, bool)))
    assert np.isnan(auroc(np.arange(3.0), np.ones(3, bool)))
    wrong = np.arange(200_000) % 2 == 0
    assert auroc(np.where(wrong, 2.0, 1.0), wrong) == 1.0


def test_scores_that_do_not_belong_to_the_errors_are_refused():
    with pytest.raises(SpineError, match="do not belong together"):
        auroc(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(SpineError, match="do not belong together"):
        auroc(np.zeros(3), np.zeros(3, int))
    with pytest.raises(SpineError, match="NaN"):
        auroc(np.array([0.0, np.nan]), np.array([True, False]))


# --- where to look --------------------------------------------------------------------------------


def test_the_outline_is_closest_to_itself():
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    close = closeness_to_outline(mask, (1.0, 1.0, 1.0))
    assert close[5, 10, 10] == close[4, 10, 10] == close.max()
    assert close[10, 10, 10] < close[6, 10, 10] and close[0, 10, 10] < close[3, 10, 10]
