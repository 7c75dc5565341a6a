"""The paper's table as printed, and every claim that is made about it, derived."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.metrics import paper
from spine_lib.metrics.overlap import Confusion, iou, iou_mean
from spine_lib.metrics.overlap import accuracy as accuracy_of
from spine_lib.metrics.overlap import dice as dice_of
from spine_lib.metrics.paper import PAPER, PREVALENCE, check_table

UNET, DEEPLAB = PAPER["unet_resnet34"], PAPER["deeplabv3plus_resnet34"]
confusions = st.builds(
    Confusion,
    tp=st.integers(1, 10**6),
    fp=st.integers(0, 10**6),
    fn=st.integers(0, 10**6),
    tn=st.integers(1, 10**7),
)


def as_row(c, decimals=3):
    """Print a segmentation's scores the way a table would."""
    return {
        "iou": round(iou(c), decimals),
        "dice": round(dice_of(c), decimals),
        "f1": round(dice_of(c), decimals),
        "accuracy": round(accuracy_of(c), decimals),
    }


def prevalence_of(c):
    return (c.tp + c.fn) / c.total


def codes(findings):
    return {finding.code for finding in findings}


# --- the claims about the paper -------------------------------------------------------------------


def test_the_table_is_the_one_in_the_abstract():
    assert [UNET[score] for score in ("iou", "dice", "f1", "accuracy")] == [
        0.953,
        0.951,
        0.951,
        0.986,
    ]
    assert [DEEPLAB[score] for score in ("iou", "dice", "f1", "accuracy")] == [
        0.925,
        0.920,
        0.920,
        0.985,
    ]
    assert paper.DOI in paper.CITATION


@pytest.mark.parametrize(("row", "alone"), [(UNET, 0.907), (DEEPLAB, 0.852)])
def test_both_rows_have_an_iou_above_dice_which_no_mean_over_masks_can_have(row, alone):
    assert row["iou"] > row["dice"]
    assert round(paper.iou_from_dice(row["dice"]), 3) == alone
    assert paper.mean_iou_range(row["dice"]).high < paper.within_rounding(row["iou"]).low


@pytest.mark.parametrize(("row", "low"), [(UNET, 0.998), (DEEPLAB, 0.996)])
def test_a_background_iou_close_to_one_explains_each_row(row, low):
    found = paper.background_iou_range(row["iou"], row["dice"])
    assert (round(found.low, 3), found.high) == (low, 1)


@pytest.mark.parametrize(("row", "expected"), [(UNET, 0.9529), (DEEPLAB, 0.9253)])
def test_the_class_mean_at_the_known_prevalence_is_the_papers_iou(row, expected):
    found = paper.class_mean_iou(row["dice"], PREVALENCE)
    assert round(found, 4) == expected
    assert round(found, 3) == row["iou"]


@pytest.mark.parametrize(("row", "expected"), [(UNET, (0.130, 0.157)), (DEEPLAB, (0.083, 0.105))])
def test_accuracy_and_dice_imply_a_prevalence(row, expected):
    found = paper.prevalence_range(row["accuracy"], row["dice"])
    assert tuple(round(bound, 3) for bound in found) == expected


def test_the_two_implied_prevalences_are_disjoint():
    one, two = (paper.prevalence_range(row["accuracy"], row["dice"]) for row in (UNET, DEEPLAB))
    assert not one.overlaps(two)


@pytest.mark.parametrize(("row", "expected"), [(UNET, "99.92%"), (DEEPLAB, "99.87%")])
def test_at_the_known_prevalence_the_dice_scores_mean_a_higher_accuracy(row, expected):
    assert f"{paper.accuracy_from_dice(row['dice'], PREVALENCE):.2%}" == expected
    assert paper.accuracy_range(row["dice"], PREVALENCE).low > row["accuracy"] + 0.01


def test_predicting_background_everywhere_is_more_accurate_than_either_row():
    everywhere = accuracy_of(Confusion(tp=0, fp=0, fn=79, tn=10_000 - 79))
    assert f"{everywhere:.1%}" == "99.2%"
    assert everywhere > max(UNET["accuracy"], DEEPLAB["accuracy"])


def test_the_findings_state_every_figure_and_end_in_the_verdict():
    findings = check_table()
    text = " ".join(finding.message for finding in findings)
    for figure in ("0.9529", "0.9253", "0.130 to 0.157", "0.083 to 0.105", "99.92%", "99.87%"):
        assert figure in text
    assert findings[-1].code == "verdict"
    assert "not reproducible as defined; most consistent with class-averaged IoU" in text
    for code in ("iou_and_dice_disagree", "class_mean_fits", "accuracy_does_not_fit"):
        assert {f.model for f in findings if f.code == code} == set(PAPER)


def test_the_findings_are_whole_sentences_that_allege_nothing():
    for finding in check_table():
        assert finding.message.endswith(".") and finding.message.isascii()
        accusing = r"wrong|error|mistake|false claim|fraud|invent|mislead|incorrect|impossible"
        assert not re.search(accusing, finding.message, re.IGNORECASE)


# --- the formulas, against counted voxels ---------------------------------------------------------


@given(confusions)
def test_iou_and_dice_turn_into_each_other(c):
    assert paper.iou_from_dice(dice_of(c)) == pytest.approx(iou(c))
    assert paper.dice_from_iou(iou(c)) == pytest.approx(dice_of(c))


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**7))
def test_with_as_many_false_positives_as_negatives_the_formulas_are_exact(tp, wrong, tn):
    c = Confusion(tp, wrong, wrong, tn)
    dice, prevalence = dice_of(c), prevalence_of(c)
    assert paper.class_mean_iou(dice, prevalence) == pytest.approx(iou_mean(c))
    assert paper.accuracy_from_dice(dice, prevalence) == pytest.approx(accuracy_of(c))


@given(confusions)
def test_the_ranges_hold_the_truth_of_every_rounded_segmentation(c):
    row = as_row(c)
    implied = paper.prevalence_range(row["accuracy"], row["dice"])
    if implied is not None:
        assert implied.low - 1e-12 <= prevalence_of(c) <= implied.high + 1e-12
    allowed = paper.accuracy_range(row["dice"], prevalence_of(c))
    assert allowed.low - 1e-12 <= accuracy_of(c) <= allowed.high + 1e-12
    background = paper.background_iou_range(round(iou_mean(c), 3), row["dice"])
    assert background.low - 1e-12 <= c.tn / (c.tn + c.fp + c.fn) <= background.high + 1e-12


@given(st.lists(confusions, min_size=1, max_size=6))
def test_mean_iou_over_masks_lies_in_its_range(masks):
    dice, jaccard = np.mean([dice_of(c) for c in masks]), np.mean([iou(c) for c in masks])
    found = paper.mean_iou_range(round(float(dice), 3))
    assert found.low - 1e-12 <= jaccard <= found.high + 1e-12


# --- tables in general ----------------------------------------------------------------------------


@given(confusions)
def test_a_table_of_one_pooled_evaluation_gives_no_finding(c):
    assert check_table({"model": as_row(c)}, prevalence_of(c)) == []


@given(st.integers(10**3, 10**6), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_two_models_on_one_test_set_give_no_finding(spine, shares):
    background = 20 * spine
    rows = {}
    for model, (found, spurious) in zip("ab", (shares[:2], shares[2:])):
        tp, fp = int(found * spine), int(spurious * background)
        rows[model] = as_row(Confusion(tp, fp, spine - tp, background - fp))
    assert check_table(rows, prevalence=None) == []


@given(confusions)
def test_an_iou_averaged_over_the_classes_is_recognised(c):
    row = as_row(c) | {"iou": round(iou_mean(c), 3)}
    assume(row["iou"] > row["dice"] + 0.0011)
    findings = check_table({"model": row}, prevalence_of(c))
    assert codes(findings) == {"iou_and_dice_disagree", "class_mean_fits", "verdict"}


def test_an_iou_that_no_class_mean_explains_is_not_called_one():
    findings = check_table({"model": {"iou": 0.99, "dice": 0.50}}, prevalence=None)
    assert codes(findings) == {"iou_and_dice_disagree", "verdict"}
    assert "class-averaged" not in findings[-1].message


def test_a_class_mean_that_fits_only_one_of_two_rows_does_not_become_the_verdict():
    rows = {"fits": UNET, "does not": {"iou": 0.99, "dice": 0.50}}
    findings = check_table(rows, prevalence=None)
    assert [f.model for f in findings if f.code == "class_mean_fits"] == ["fits"]
    assert "class-averaged" not in findings[-1].message


def test_an_iou_too_far_below_dice_is_found_too():
    findings = check_table({"model": {"iou": 0.50, "dice": 0.90}}, prevalence=None)
    assert "too far below" in findings[0].message


def test_an_f1_other_than_dice_is_found():
    row = {"iou": 0.818, "dice": 0.900, "f1": 0.912}
    assert codes(check_table({"model": row})) == {"f1_differs_from_dice", "verdict"}


def test_scores_that_are_not_given_are_not_checked():
    assert check_table({"model": {"iou": 0.818, "dice": 0.900}}) == []


def test_a_prevalence_cannot_be_told_from_perfect_scores():
    assert paper.prevalence_range(1.0, 0.9) is None
    assert paper.prevalence_range(0.9, 1.0) is None


@pytest.mark.parametrize(
    "row", [{"iou": 92.5, "dice": 0.92}, {"iou": 0.9}, {"iou": "?", "dice": 1}]
)
def test_a_table_in_percent_or_with_gaps_is_refused(row):
    with pytest.raises(SpineError, match="fraction between 0 and 1"):
        check_table({"model": row})
