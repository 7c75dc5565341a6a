"""Scores by region: all that is counted has one, a false positive that of the nearest bone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.annotations.schemes import to_regions
from spine_lib.metrics import region_scores
from spine_lib.metrics.overlap import by_region, confusion, dice
from spine_lib.metrics.region_scores import NearestRegion, mean_regions, score_regions

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


def test_spacing_decides_what_is_near():
    regions = np.zeros((12, 1, 12), np.uint8)
    regions[0, 0, 4] = 3  # 4 voxels along x and 1 along z from (4, 0, 5)
    regions[4, 0, 8] = 2  # 3 voxels along z
    voxel = np.array([[4, 0, 5]])
    assert NearestRegion(regions, (1.0, 1.0, 1.0)).of(voxel) == [2]
    assert NearestRegion(regions, (0.5, 1.0, 3.0)).of(voxel) == [3]


@pytest.mark.parametrize("many", [10, 10**6])
def test_the_nearest_region_is_that_of_a_search_through_all_voxels(many, monkeypatch):
    """From many voxels on, a map is made instead of looking up each."""
    monkeypatch.setattr(region_scores, "MANY_POINTS", many)
    random = np.random.default_rng(4)
    regions = np.zeros((14, 12, 16), np.uint8)
    regions[4:11, 3:9, 2:7], regions[2:9, 4:10, 8:15] = 3, 2
    outside = np.argwhere(regions == 0)
    outside = outside[random.permutation(len(outside))[:300]]
    spine = np.argwhere(regions > 0)
    away = np.linalg.norm((outside[:, None] - spine) * SPACING, axis=2)
    given_to = NearestRegion(regions, SPACING).of(outside)
    for place, region in enumerate(given_to):
        ties = spine[away[place] <= away[place].min() + 1e-9]
        assert region in regions[tuple(ties.T)]


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
    assert [row["recall"] for row in found.values()] == list(
        by_region(prediction, regions, ignore).values()
    )


def test_a_region_that_is_ignored_is_not_scored_and_attracts_nothing():
    regions = column()
    prediction = regions > 0
    prediction[0, 0, 3] = True
    found = score_regions(prediction, regions, SPACING, ignore=regions == 3)
    assert list(found) == ["thoracic"] and found["thoracic"]["fp"] == 1


def test_a_volume_without_spine_has_no_regions():
    empty = np.zeros((4, 4, 4), np.uint8)
    assert score_regions(empty == 0, empty, SPACING) == {}
    assert score_regions(empty > 0, empty, SPACING) == {}


def test_masks_of_another_shape_are_refused():
    with pytest.raises(SpineError, match="shape"):
        score_regions(np.zeros((9, 9, 19), bool), column(), SPACING)


def test_a_real_phantom_shows_all_four_and_a_shifted_mask_harms_each(small_phantom):
    regions = to_regions(small_phantom.labels.array)
    ignore = small_phantom.ignore.array
    spine = small_phantom.labels.array > 0
    perfect = score_regions(spine, regions, small_phantom.ct.spacing_mm, ignore)
    shifted = score_regions(np.roll(spine, 1, 0), regions, small_phantom.ct.spacing_mm, ignore)
    assert set(perfect) <= {"cervical", "thoracic", "lumbar", "sacral"} and len(perfect) >= 2
    for name, row in perfect.items():
        assert row["dice"] == 1 and 0.2 < shifted[name]["dice"] < 1


def test_means_are_over_the_volumes_that_show_the_region():
    row = {"dice": 0.8, "recall": 1.0, "tp": 8, "fp": 4, "fn": 0}
    large = {"dice": 0.4, "recall": 0.5, "tp": 400, "fp": 800, "fn": 400}
    volumes = [{"regions": {"lumbar": row}}, {"regions": {"lumbar": large, "thoracic": row}}]
    means = mean_regions([*volumes, {"regions": {}}])
    assert list(means) == ["thoracic", "lumbar"]
    assert means["lumbar"]["dice"] == pytest.approx(0.6) and means["lumbar"]["volumes"] == 2
    assert means["lumbar"]["pooled_dice"] == pytest.approx(816 / (816 + 804 + 400))
    assert means["thoracic"]["volumes"] == 1
    assert means["thoracic"]["pooled_dice"] == pytest.approx(dice(confusion_of(row)))


def confusion_of(row):
    from spine_lib.metrics.overlap import Confusion

    return Confusion(row["tp"], row["fp"], row["fn"], 0)
