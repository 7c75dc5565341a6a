"""Which averaging of our own predictions shows the paper's pattern."""

import numpy as np
import pytest

from spine_lib.metrics.overlap import aggregate, evaluate_volume
from spine_lib.metrics.paper import PAPER, class_mean_iou
from spine_lib.metrics.paper_pattern import class_mean_excess, pattern_sentence, rank_averagings


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


def test_the_papers_own_gaps_are_near_the_curve():
    for row in PAPER.values():
        assert row["iou"] - row["dice"] == pytest.approx(class_mean_excess(row["dice"]), abs=0.001)


def test_where_spine_is_rare_a_class_mean_comes_closest():
    ranked = rank_averagings(models_at(0.05))
    assert len(ranked) == 6 and ranked[0].iou == "iou_mean"
    assert [one.distance for one in ranked] == sorted(one.distance for one in ranked)
    for one in ranked:
        if one.iou == "iou":
            assert all(gap < 0 for gap in one.gaps.values())


def test_where_spine_is_half_of_it_the_class_mean_is_off_the_curve():
    rare, common = (
        next(one for one in rank_averagings(models_at(p)) if one.name == ranked_name)
        for p in (0.05, 0.5)
    )
    assert common.distance > 3 * rare.distance


ranked_name = "IoU as the mean over background and spine, voxels pooled"


def test_the_sentence_gives_the_averaging_and_both_gaps():
    models = models_at(0.05)
    best = rank_averagings(models)[0]
    sentence = pattern_sentence(models, {model: model for model in models})
    assert sentence.count(".") > 5 and best.name in sentence
    for model, row in PAPER.items():
        assert f"{best.gaps[model]:+.3f} ({model})" in sentence
        assert f"{row['iou'] - row['dice']:+.3f} ({row['name']})" in sentence


def test_no_scores_no_sentence():
    assert pattern_sentence({"m": {}}, {}) == ""
    assert rank_averagings({"m": {"test": {"pooled": {"dice": None, "iou": 0.5}}}}) == []


def test_the_kept_run_is_closest_with_a_class_mean():
    from spine_lib.course.kept_run import KEPT, read_results

    if not KEPT.is_file():
        pytest.skip("the kept results come with the source tree")
    assert rank_averagings(read_results(KEPT)["models"])[0].iou == "iou_mean"
