"""The paper's table as printed, and every claim that is made about it, derived."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.metrics import Confusion, aggregate, evaluate_volume, iou, iou_mean, paper
from spine_lib.metrics import accuracy as accuracy_of
from spine_lib.metrics import dice as dice_of
from spine_lib.metrics.paper import (
    PAPER,
    PREVALENCE,
    check_table,
    class_mean_excess,
    class_mean_iou,
    pattern_sentence,
    rank_averagings,
)

UNET, DEEPLAB = PAPER["unet_resnet34"], PAPER["deeplabv3plus_resnet34"]
confusions = st.builds(
    Confusion,
    tp=st.integers(1, 10**6),
    fp=st.integers(0, 10**6),
    fn=st.integers(0, 10**6),
    tn=st.integers(1, 10**7),
)


def as_row(c):
    """Print a segmentation's scores the way a table would."""
    return {
        "iou": round(iou(c), 3),
        "dice": round(dice_of(c), 3),
        "f1": round(dice_of(c), 3),
        "accuracy": round(accuracy_of(c), 3),
    }


def prevalence_of(c):
    return (c.tp + c.fn) / c.total


def codes(findings):
    return {finding.code for finding in findings}


# --- the claims about the paper -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "printed", "alone", "background", "class_mean", "prevalence", "accuracy"),
    [
        (UNET, (0.953, 0.951, 0.951, 0.986), 0.907, 0.998, 0.9529, (0.130, 0.157), "99.92%"),
        (DEEPLAB, (0.925, 0.920, 0.920, 0.985), 0.852, 0.996, 0.9253, (0.083, 0.105), "99.87%"),
    ],
)
def test_each_claim_about_a_row_of_the_table_follows_from_its_figures(
    row, printed, alone, background, class_mean, prevalence, accuracy
):
    assert tuple(row[score] for score in ("iou", "dice", "f1", "accuracy")) == printed
    dice = row["dice"]
    assert row["iou"] > dice and round(paper.iou_from_dice(dice), 3) == alone
    assert paper.mean_iou_range(dice).high < paper.within_rounding(row["iou"]).low
    background_iou = paper.background_iou_range(row["iou"], dice)
    assert (round(background_iou.low, 3), background_iou.high) == (background, 1)
    assert round(paper.class_mean_iou(dice, PREVALENCE), 4) == class_mean
    implied = paper.prevalence_range(row["accuracy"], dice)
    assert tuple(round(bound, 3) for bound in implied) == prevalence
    assert f"{paper.accuracy_from_dice(dice, PREVALENCE):.2%}" == accuracy
    assert paper.accuracy_range(dice, PREVALENCE).low > row["accuracy"] + 0.01


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
def test_iou_follows_from_dice(c):
    assert paper.iou_from_dice(dice_of(c)) == pytest.approx(iou(c))


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


def test_a_class_mean_that_fits_only_one_of_two_rows_does_not_become_the_verdict():
    for iou_printed, relation in ((0.99, "above"), (0.10, "too far below")):
        rows = {"fits": UNET, "does not": {"iou": iou_printed, "dice": 0.50}}
        findings = check_table(rows, prevalence=None)
        assert [f.model for f in findings if f.code == "class_mean_fits"] == ["fits"]
        assert f"IoU {iou_printed:.3f} is {relation} Dice" in findings[2].message
        assert "class-averaged" not in findings[-1].message


def test_an_f1_other_than_dice_is_found():
    row = {"iou": 0.818, "dice": 0.900}
    assert check_table({"model": row}) == []  # a score that is not given is not checked
    row["f1"] = 0.912
    assert codes(check_table({"model": row})) == {"f1_differs_from_dice", "verdict"}


def test_a_prevalence_cannot_be_told_from_perfect_scores():
    assert paper.prevalence_range(1.0, 0.9) is None
    assert paper.prevalence_range(0.9, 1.0) is None


@pytest.mark.parametrize(
    "row", [{"iou": 92.5, "dice": 0.92}, {"iou": 0.9}, {"iou": "?", "dice": 1}]
)
def test_a_table_in_percent_or_with_gaps_is_refused(row):
    with pytest.raises(SpineError, match="fraction between 0 and 1"):
        check_table({"model": row})


# --- which averaging of our own predictions shows the pattern -------------------------------------


def models_at(prevalence, wrong=0.08):
    """Score noisy predictions of a block that takes up so much of its volume."""
    models = {}
    for seed, model in enumerate(PAPER):
        random = np.random.default_rng(seed)
        truth = np.zeros((40, 40, 40), bool)
        truth[: round(prevalence * 40)] = True
        miss = truth & (random.random(truth.shape) < wrong)
        prediction = truth ^ miss ^ np.roll(miss, 20, 0)
        test = aggregate({"a": evaluate_volume(prediction, truth, (1.0, 1.0, 1.0))})
        models[model] = {"runs": [{"test": test}]}
    return models


def test_the_excess_is_that_of_the_class_mean_where_spine_is_rare():
    for dice in (0.3, 0.92, 0.951):
        assert class_mean_iou(dice, 1e-9) - dice == pytest.approx(class_mean_excess(dice))
    for row in PAPER.values():
        assert row["iou"] - row["dice"] == pytest.approx(class_mean_excess(row["dice"]), abs=0.001)


def test_where_spine_is_rare_a_class_mean_comes_closest():
    ranked = rank_averagings(models_at(0.05))
    assert len(ranked) == 6 and ranked[0].iou == "iou_mean"
    assert [one.distance for one in ranked] == sorted(one.distance for one in ranked)
    for one in ranked:
        if one.iou == "iou":
            assert all(gap < 0 for gap in one.gaps.values())


def test_the_sentence_gives_the_averaging_and_both_gaps():
    models = models_at(0.05)
    best = rank_averagings(models)[0]
    sentence = pattern_sentence(models, {model: model for model in models})
    assert sentence.count(".") > 5 and best.name in sentence
    for model, row in PAPER.items():
        assert f"{best.gaps[model]:+.3f} ({model})" in sentence
        assert f"{row['iou'] - row['dice']:+.3f} ({row['name']})" in sentence
    assert pattern_sentence({"m": {"test": {"pooled": {"dice": None, "iou": 0.5}}}}, {}) == ""
