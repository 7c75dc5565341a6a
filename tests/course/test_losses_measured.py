"""Lesson 6's measurement of losses: what it holds equal, and what it counts."""

import pytest
import torch

from spine_lib.course import small_networks
from spine_lib.course.experiments import losses
from spine_lib.training.losses import LOSSES


@pytest.fixture(scope="module")
def data():
    return losses.load_slices(losses.SCORED_ON[0], losses.SCORED_ON[0] + 1)


def test_about_one_pixel_in_a_hundred_is_spine(data):
    assert 0.004 < losses.foreground_share(data) < 0.02


def test_no_phantom_is_both_trained_and_scored_on():
    assert not set(range(*losses.TRAINED_ON)) & set(range(*losses.SCORED_ON))


def test_every_loss_of_the_library_is_measured():
    assert set(losses.KINDS) == set(LOSSES)


def test_every_loss_starts_from_the_same_weights_and_sees_the_same_batches(data, monkeypatch):
    seen = {}
    library = small_networks.segmentation_loss

    def noted(logits, target, weight, kind):
        seen.setdefault(kind, []).append((logits.detach().clone(), target.clone()))
        return library(logits, target, weight, kind)

    monkeypatch.setattr(small_networks, "segmentation_loss", noted)
    for kind in ("bce", "dice"):
        assert len(list(losses.train(kind, data, seed=4, steps=3))) == 3
    for (_, one), (_, other) in zip(seen["bce"], seen["dice"], strict=True):
        assert torch.equal(one, other)
    first, second = (seen[kind][0][0] for kind in ("bce", "dice"))
    assert torch.equal(first, second)
    assert not torch.equal(seen["bce"][2][0], seen["dice"][2][0])


def test_scores_are_counted_over_all_slices_where_the_label_is_known():
    logits = torch.tensor([3.0, 3.0, -3.0, -3.0, 3.0]).view(5, 1, 1, 1)
    target = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]).view(5, 1, 1, 1)
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]).view(5, 1, 1, 1)
    scores = losses.score(torch.nn.Identity(), (logits, target, weight))[0.5]
    assert scores == {"dice": 0.5, "precision": 0.5, "recall": 0.5}


def test_a_seed_gives_a_curve_and_every_threshold(monkeypatch):
    monkeypatch.setattr(losses, "TRAINED_ON", (losses.SCORED_ON[0], losses.SCORED_ON[0] + 1))
    monkeypatch.setattr(losses, "SCORED_ON", losses.TRAINED_ON)
    found = losses.learn("dice", seed=0, steps=3, every=2)
    assert [step for step, _ in found["curve"]] == [2, 3]
    assert found["thresholds"]["0.5"] == found["at 0.5"]["dice"] == found["curve"][-1][1]


def test_the_kept_result_is_of_this_code_and_three_seeds():
    from spine_lib.course.results import lesson_result, settings_of

    kept = lesson_result("losses")
    assert kept["profile"] == "full"
    assert [row["seed"] for row in kept["seeds"]] == list(losses.SEEDS)
    assert kept["settings"] == settings_of(losses) and kept["versions"]["spine_lib"]
    for row in kept["seeds"]:
        for kind in losses.KINDS:
            assert row[kind] == row["losses"][kind]["curve"][-1][1]
