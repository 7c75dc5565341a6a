"""Scores by region: regions of the truth for a binary prediction, or predicted regions."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.annotations import REGIONS
from spine_lib.metrics import Confusion, confusion, dice, regions, score_regions
from spine_lib.metrics.regions import (
    CLASSES,
    confusion_matrix,
    matrix_dice,
    mean_named,
    mean_regions,
    nearest_region,
    score_named,
)

SPACING = (1.0, 1.0, 2.0)


def column():
    """Return a column along z: lumbar (3) below, a gap, thoracic (2) above."""
    regions = np.zeros((9, 9, 20), np.uint8)
    regions[3:6, 3:6, 2:8] = 3
    regions[3:6, 3:6, 10:18] = 2
    return regions


def test_a_perfect_prediction_is_perfect_in_the_regions_that_there_are():
    regions = column()
    found = score_regions(regions > 0, regions, SPACING)
    assert list(found) == ["thoracic", "lumbar"]
    assert found["lumbar"] == {"dice": 1.0, "recall": 1.0, "tp": 54, "fp": 0, "fn": 0}


def test_a_false_positive_goes_to_the_region_that_is_nearest_in_mm():
    regions = column()
    prediction = regions > 0
    prediction[0, 0, 3] = True  # beside the lumbar part
    prediction[4, 4, 8] = True  # in the gap, 2 mm above the lumbar part, 4 mm below the thoracic
    prediction[8, 8, 19] = True  # beyond the upper end
    found = score_regions(prediction, regions, SPACING)
    assert (found["lumbar"]["fp"], found["thoracic"]["fp"]) == (2, 1)
    assert found["lumbar"]["recall"] == 1.0
    assert found["lumbar"]["dice"] == pytest.approx(2 * 54 / (2 * 54 + 2))


@pytest.mark.parametrize("many", [10, 10**6])
def test_the_nearest_region_is_that_of_a_search_through_all_voxels(many, monkeypatch):
    """From many voxels on, a map is made instead of looking up each."""
    monkeypatch.setattr(regions, "MANY_POINTS", many)
    random = np.random.default_rng(4)
    region_map = np.zeros((14, 12, 16), np.uint8)
    region_map[4:11, 3:9, 2:7], region_map[2:9, 4:10, 8:15] = 3, 2
    outside = np.argwhere(region_map == 0)
    outside = outside[random.permutation(len(outside))[:300]]
    spine = np.argwhere(region_map > 0)
    away = np.linalg.norm((outside[:, None] - spine) * SPACING, axis=2)
    nearest = nearest_region(outside, region_map, SPACING)
    for region, distances in zip(nearest, away, strict=True):
        ties = spine[distances <= distances.min() + 1e-9]
        assert region in region_map[tuple(ties.T)]


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_the_counts_of_the_regions_add_up_to_those_of_the_volume(seed):
    random = np.random.default_rng(seed)
    regions = random.integers(0, 5, (6, 7, 8)).astype(np.uint8)
    prediction, ignore = random.random((2, *regions.shape)) < 0.4
    found = score_regions(prediction, regions, SPACING, ignore)
    whole = confusion(prediction, regions > 0, ignore)
    for key in ("tp", "fp", "fn"):
        assert sum(row[key] for row in found.values()) == getattr(whole, key)
    assert all(row["recall"] == row["tp"] / (row["tp"] + row["fn"]) for row in found.values())


def test_a_region_that_is_ignored_is_not_scored_and_attracts_nothing():
    regions = column()
    prediction = regions > 0
    prediction[0, 0, 3] = True
    found = score_regions(prediction, regions, SPACING, ignore=regions == 3)
    assert list(found) == ["thoracic"] and found["thoracic"]["fp"] == 1


def test_means_are_over_the_volumes_that_show_the_region():
    row = {"dice": 0.8, "recall": 1.0, "tp": 8, "fp": 4, "fn": 0}
    large = {"dice": 0.4, "recall": 0.5, "tp": 400, "fp": 800, "fn": 400}
    volumes = [{"regions": {"lumbar": row}}, {"regions": {"lumbar": large, "thoracic": row}}]
    means = mean_regions([*volumes, {"regions": {}}])
    assert list(means) == ["thoracic", "lumbar"]
    assert means["lumbar"]["dice"] == pytest.approx(0.6) and means["lumbar"]["volumes"] == 2
    assert means["lumbar"]["pooled_dice"] == pytest.approx(816 / (816 + 804 + 400))
    assert means["thoracic"]["volumes"] == 1
    assert means["thoracic"]["pooled_dice"] == pytest.approx(dice(Confusion(8, 4, 0, 0)))


# --- regions that a network predicts itself -------------------------------------------------------

SHAPE = (5, 6, 7)


def maps(seed, share=0.4):
    random = np.random.default_rng(seed)
    predicted, truth = (random.integers(0, 5, SHAPE).astype(np.uint8) for _ in range(2))
    truth[random.random(SHAPE) < share] = 0
    return predicted, truth, random.random(SHAPE) < 0.2


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_a_regions_dice_is_that_of_its_two_masks(seed):
    predicted, truth, ignore = maps(seed)
    found = score_named(predicted, truth, ignore)
    for number, name in enumerate(REGIONS, start=1):
        by_mask = dice(confusion(predicted == number, truth == number, ignore))
        assert found["dice"][name] == pytest.approx(by_mask, nan_ok=True)
    assert found["mean_dice"] == pytest.approx(np.nanmean(list(found["dice"].values())))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_the_matrix_holds_every_scored_voxel_that_is_spine_in_either_once(seed):
    predicted, truth, ignore = maps(seed)
    matrix = confusion_matrix(predicted, truth, ignore)
    scored = ~ignore & ((predicted > 0) | (truth > 0))
    for i, true in enumerate(CLASSES):
        for j, name in enumerate(CLASSES):
            if i or j:
                wanted = np.count_nonzero((truth == i) & (predicted == j) & ~ignore)
                assert matrix[true][name] == wanted
    assert "background" not in matrix["background"]
    assert sum(sum(row.values()) for row in matrix.values()) == np.count_nonzero(scored)


def test_a_region_that_neither_has_is_undefined_and_an_invented_one_is_zero():
    truth, predicted = np.zeros((2, 3, 3, 3), np.uint8)
    truth[0], predicted[1] = 3, 1
    scores = score_named(predicted, truth)["dice"]
    assert math.isnan(scores["sacral"]) and math.isnan(scores["thoracic"])
    assert scores["lumbar"] == scores["cervical"] == 0
    assert math.isnan(score_named(truth * 0, truth * 0)["mean_dice"])


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(SpineError, match="shapes"):
        confusion_matrix(np.zeros(SHAPE, np.uint8), np.zeros((5, 6, 8), np.uint8))
    with pytest.raises(SpineError, match="ids other than 0 to 4: use to_regions"):
        confusion_matrix(np.full(SHAPE, 20, np.uint8), np.zeros(SHAPE, np.uint8))


def test_volumes_are_averaged_where_they_are_defined_and_pooled_by_voxel():
    volumes = [{"named": score_named(*maps(seed))} for seed in range(2)]
    lonely = np.zeros(SHAPE, np.uint8)
    lonely[0] = 3
    volumes.append({"named": score_named(lonely, lonely)})
    found = mean_named(volumes)
    assert found["volumes"] == {"cervical": 2, "thoracic": 2, "lumbar": 3, "sacral": 2}
    one, other = (volume["named"]["dice"] for volume in volumes[:2])
    assert found["dice"]["cervical"] == pytest.approx((one["cervical"] + other["cervical"]) / 2)
    assert found["dice"]["lumbar"] == pytest.approx((one["lumbar"] + other["lumbar"] + 1) / 3)
    together = [np.concatenate(parts) for parts in zip(maps(0), maps(1), strict=True)]
    pooled = matrix_dice(confusion_matrix(*together))
    assert found["pooled_dice"]["sacral"] == pytest.approx(pooled["sacral"])
    assert found["mean_dice"] == pytest.approx(
        np.mean([volume["named"]["mean_dice"] for volume in volumes])
    )
