"""The explorer of the prevalence says which printed scores one segmentation can have."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.explore.explorers import PrevalenceExplorer, shares
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics import paper
from spine_lib.metrics.paper import PAPER

fractions = st.floats(0, 1)


@given(st.floats(0.5, 1), st.floats(0.001, 0.3), fractions)
def test_the_shares_have_the_dice_prevalence_and_balance_that_were_asked_for(dice, share, alarms):
    pair = shares(dice, share, alarms)
    assert pair.total == pytest.approx(1)
    assert metrics.dice(pair) == pytest.approx(dice)
    assert pair.tp + pair.fn == pytest.approx(share)
    wrong = pair.fp + pair.fn
    assert pair.fp == pytest.approx(alarms * wrong, abs=1e-12)


@given(st.floats(0.5, 1), st.floats(0.001, 0.3))
def test_balanced_errors_give_the_scores_of_the_papers_calculator(dice, share):
    pair = shares(dice, share)
    assert metrics.iou_mean(pair) == pytest.approx(paper.class_mean_iou(dice, share))
    assert metrics.accuracy(pair) == pytest.approx(paper.accuracy_from_dice(dice, share))


@pytest.mark.parametrize(("dice", "share", "alarms"), [(0, 0.1, 0.5), (0.1, 0.3, 1)])
def test_a_pair_that_cannot_be_is_refused(dice, share, alarms):
    with pytest.raises(SpineError, match="no mask pair has Dice"):
        shares(dice, share, alarms)


def test_at_the_counted_share_the_iou_fits_both_rows_and_the_accuracy_none():
    viewer = PrevalenceExplorer()
    for row in PAPER.values():
        viewer.model.value = row["name"]
        assert viewer.fits == {"class-mean IoU": True, "accuracy": False}
        assert row["name"] in viewer.text.value


def test_the_accuracy_fits_where_spine_is_far_more_common_and_the_iou_does_not():
    viewer = PrevalenceExplorer()
    for row in PAPER.values():
        viewer.model.value = row["name"]
        viewer.percent.value = 100 * np.mean(paper.prevalence_range(row["accuracy"], row["dice"]))
        assert viewer.fits == {"class-mean IoU": False, "accuracy": True}


def test_no_place_of_the_sliders_fits_both():
    viewer = PrevalenceExplorer()
    places = {"class-mean IoU": [], "accuracy": []}
    for row in PAPER.values():
        viewer.model.value = row["name"]
        for alarms in (0.0, 0.5, 1.0):
            viewer.alarms.value = alarms
            for percent in np.arange(0.25, 20, 0.5):
                viewer.percent.value = percent
                for name in (name for name, fits in viewer.fits.items() if fits):
                    places[name].append(percent)
    assert 0 < max(places["class-mean IoU"]) < 4 < 7 < min(places["accuracy"])


def test_moving_a_slider_moves_the_mark_and_changes_the_words():
    viewer = PrevalenceExplorer()
    chart, words = viewer.chart.value, viewer.alt
    viewer.percent.value = 10
    assert viewer.chart.value != chart and viewer.alt != words
    assert "10.00 % spine" in viewer.alt and "does not fit" in viewer.alt


def test_the_still_is_small_and_has_alt_text():
    data, metadata = PrevalenceExplorer()._repr_mimebundle_()
    assert metadata["image/png"]["alt"].startswith(PAPER["deeplabv3plus_resnet34"]["name"])
    assert len(data["image/png"]) < 60_000
