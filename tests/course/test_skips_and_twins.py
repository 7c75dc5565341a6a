"""Lesson 4's measurements: skips at the boundary, and the written-out networks with their twins."""

import math

import numpy as np
import pytest
import torch

from spine_lib.course import boxes
from spine_lib.course.experiments import skips, twins
from spine_lib.course.one_batch import fit_one_batch
from spine_lib.course.results import lesson_result, settings_of
from spine_lib.models import UNet
from spine_lib.slices.cut import IGNORE


@pytest.fixture(scope="module")
def cut_phantom(small_phantom):
    return boxes.cut_boxes("phantom", small_phantom, pixel_mm=4.0, size=32)


# --- boxes ----------------------------------------------------------------------------------------


def test_boxes_hold_the_spine_and_know_nothing_outside_the_scan(cut_phantom):
    assert cut_phantom.images.shape == cut_phantom.labels.shape == (len(cut_phantom), 1, 32, 32)
    assert (cut_phantom.labels == 1).any(axis=(1, 2, 3)).all()
    assert set(np.unique(cut_phantom.labels)) <= {0, 1, IGNORE}
    air = cut_phantom.images == cut_phantom.images.min()
    assert air[cut_phantom.labels == IGNORE].all()


def test_a_batch_has_images_with_their_own_labels_mirrored_or_not(cut_phantom):
    image, target, weight = boxes.draw_batch([cut_phantom], 12, np.random.default_rng(0))
    known = {
        one[..., ::way].tobytes(): label[..., ::way]
        for one, label in zip(cut_phantom.images, cut_phantom.labels)
        for way in (1, -1)
    }
    for one, is_spine, counts in zip(image.numpy(), target.numpy(), weight.numpy()):
        label = known[one.tobytes()]
        assert np.array_equal(is_spine == 1, label == 1)
        assert np.array_equal(counts == 0, label == IGNORE)


def test_the_same_seed_draws_the_same_batch(cut_phantom):
    first, again, other = (
        boxes.draw_batch([cut_phantom], 8, np.random.default_rng(seed))[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("mistake", ["", "sigmoid"])
def test_a_batch_is_learnt_by_heart_unless_a_second_sigmoid_forbids_it(cut_phantom, mistake):
    torch.manual_seed(0)
    image, target, _ = boxes.draw_batch([cut_phantom], 4, np.random.default_rng(0))
    losses = fit_one_batch(UNet(width=8, depth=2), image, target, 25, 1e-2, mistake)
    assert len(losses) == 25
    assert (losses[-1] < 0.25) == (mistake == "")


# --- skips ----------------------------------------------------------------------------------------


def test_arms_differ_in_skips_and_the_wider_one_has_the_most_weights():
    counts = {arm: sum(p.numel() for p in skips.build(arm, 0).parameters()) for arm in skips.ARMS}
    assert counts["without skips"] < counts["with skips"] < counts["without, wider"]
    assert [skips.build(arm, 0).skips for arm in skips.ARMS] == [True, False, False]


def test_every_arm_sees_the_same_batches(cut_phantom, monkeypatch):
    seen = {arm: [] for arm in skips.ARMS}
    for arm in skips.ARMS:

        def draw(*arguments, arm=arm):
            batch = boxes.draw_batch(*arguments)
            seen[arm].append(batch[0].numpy().tobytes())
            return batch

        monkeypatch.setattr(skips, "draw_batch", draw)
        skips.train(arm, [cut_phantom], steps=3, seed=5)
    assert len({tuple(batches) for batches in seen.values()}) == 1


def test_training_and_held_out_phantoms_are_other_patients():
    training = range(skips.TRAINING_FROM, skips.TRAINING_FROM + skips.TRAINING)
    held_out = range(skips.HELD_OUT_FROM, skips.HELD_OUT_FROM + skips.HELD_OUT)
    assert not set(training) & set(held_out)


def test_the_mean_distance_is_in_mm_and_counts_both_ways():
    one, other = np.zeros((2, 4, 4, 9), bool)
    one[1, 1, 1], other[1, 1, [1, 5]] = True, True
    assert skips.mean_distance_mm(one, other, (1, 1, 3)) == pytest.approx((0 + (0 + 12) / 2) / 2)
    nothing = np.zeros_like(one)
    assert math.isinf(skips.mean_distance_mm(one, nothing, (1, 1, 3)))
    assert math.isnan(skips.mean_distance_mm(nothing, nothing, (1, 1, 3)))


def test_the_kept_skips_were_measured_with_this_code_and_help_at_every_seed():
    kept = lesson_result("skips")
    assert kept["profile"] == "full"
    assert kept["settings"] == settings_of(skips) and kept["versions"]["spine_lib"]
    assert [row["seed"] for row in kept["seeds"]] == list(skips.SEEDS)
    for row in kept["seeds"]:
        first, second = row["arms"]["with skips"], row["arms"]["without skips"]
        gap = second["mean distance mm"] - first["mean distance mm"]
        assert row["distance gap"] == pytest.approx(gap)
        others = [row["arms"][arm] for arm in list(skips.ARMS)[1:]]
        assert all(first["mean distance mm"] < other["mean distance mm"] for other in others)


# --- twins ----------------------------------------------------------------------------------------


def test_the_four_networks_are_the_papers_two_and_those_of_the_lessons():
    assert set(twins.TWINS.values()) == {"unet_resnet34", "deeplabv3plus_resnet34"}
    for own, twin in twins.TWINS.items():
        assert own == twin.replace("resnet34", "own")


def test_twins_train_alike_and_are_scored_on_phantoms_that_none_has_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(twins, "TWINS", {"unet_own": "unet_mobilenet_v2"})
    monkeypatch.setattr(twins, "GRID", {"shape": (32, 32, 12), "spacing_mm": 5.0, "tight": True})
    found = twins.run(0, fast=True, root=tmp_path)
    assert set(found["networks"]) == {*twins.TWINS, *twins.TWINS.values()}
    for one in found["networks"].values():
        assert len(one["by phantom"]) == 2 and one["parameters"] > 1e6
    own, twin = found["networks"]["unet_own"], found["networks"]["unet_mobilenet_v2"]
    assert found["unet gap"] == own["dice"] - twin["dice"] or math.isnan(found["unet gap"])
    assert not list(tmp_path.rglob("*.ckpt"))  # they would fill a disk
    again = twins.run(0, fast=True, root=tmp_path)  # loaded, not trained
    assert again["networks"]["unet_own"]["training seconds"] == own["training seconds"]
    assert again["networks"]["unet_own"]["by phantom"] == own["by phantom"]


def test_the_recipe_of_twins_is_one_for_all_and_enough_phantoms_are_held_out():
    recipe = twins.recipe_for(1, fast=False)
    assert recipe.seed == 1 and recipe.augmentation.size == 64 and recipe.batch == 8
    assert set(recipe.models) == {*twins.TWINS, *twins.TWINS.values()}
    assert twins.HELD_OUT >= 6


def test_the_largest_gap_is_that_of_the_mean_over_seeds_either_way():
    rows = [
        {"unet gap": -0.05, "deeplabv3plus gap": 0.01, "other": 9},
        {"unet gap": 0.01, "deeplabv3plus gap": 0.01, "other": 9},
    ]
    assert twins.largest_gap(rows) == pytest.approx(0.02)


def test_the_kept_twins_were_measured_with_this_code_and_come_within_3_hundredths():
    kept = lesson_result("twins")
    assert kept["profile"] == "full"
    assert kept["settings"] == settings_of(twins) and kept["versions"]["spine_lib"]
    assert len(kept["seeds"]) >= 3
    assert twins.largest_gap(kept["seeds"]) < 0.03
