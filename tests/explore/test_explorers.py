"""The small explorers of the lessons show what they teach."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.annotations import check_annotation
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.explore import (
    AnnotationQuiz,
    AugmentationExplorer,
    PrevalenceExplorer,
    ReceptiveFieldExplorer,
    ThresholdExplorer,
    WindowExplorer,
    view_3d,
)
from spine_lib.explore.explorers import (
    ASPP,
    DOUBLING,
    MOVES_MASK,
    STEPS,
    THRESHOLDS,
    augment_slice,
    count_paths,
    count_paths_aspp,
    counts_by_threshold,
    shares,
)
from spine_lib.explore.quiz import MISTAKES, plant
from spine_lib.explore.view3d import VIEWS, surface_picture
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics import paper
from spine_lib.metrics.paper import PAPER


def test_the_window_explorer_says_what_share_is_black_and_white(small_phantom):
    viewer = WindowExplorer(small_phantom.ct, case_id="phantom")
    viewer.window.preset.value = "bone"
    low, high = -500, 1300
    black = 100 * (small_phantom.ct.array < low).mean()
    white = 100 * (small_phantom.ct.array > high).mean()
    assert f"-500 HU and less is black ({black:.0f} %" in viewer.shares.text
    assert f"is white ({white:.0f} %)" in viewer.shares.text
    assert viewer.chart.alt.startswith("Histogram of case phantom")
    assert viewer.chart.band == [low, high]
    viewer.pictures[0].pointer = ["hover", 0.50001, 0.24999, 1]
    assert f"{small_phantom.ct.array[31, 48, viewer.slice.value]} HU" in viewer.caption.text
    viewer.window.centre.value += 200
    assert viewer.chart.band == [low + 200, high + 200]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_counts_at_every_threshold_are_those_of_the_metrics(seed, with_ignore):
    random = np.random.default_rng(seed)
    shape = tuple(random.integers(1, 7, 3))
    # Many values exactly at a threshold, where rounding would tell.
    chance = (random.integers(0, 101, shape) / 100).astype(np.float32)
    truth, skip = random.random(shape) < 0.4, random.random(shape) < 0.3
    volumes = [Volume(one, np.eye(4)) for one in (chance, truth, skip)]
    counted = counts_by_threshold(*volumes[: 3 if with_ignore else 2])
    for threshold, counts in zip(THRESHOLDS, counted):
        guess = chance >= np.float32(threshold)
        assert counts == metrics.confusion(guess, truth, skip if with_ignore else None)


def test_every_score_and_the_picture_follow_the_threshold(small_phantom):
    ct, labels = small_phantom.ct, small_phantom.labels
    truth = labels.array > 0
    chance = np.where(truth, 0.6, 0.2).astype(np.float32)
    chance[np.roll(truth, 2, axis=2) & ~truth] = 0.4
    viewer = ThresholdExplorer(ct, labels, ct.with_array(chance), tolerance_mm=2.0)
    text, picture = viewer.all_scores, viewer.pictures[0].image
    assert viewer.scores["dice"] == viewer.scores["nsd"] == 1 and "HD95 0.0 mm" in text.text
    assert "accuracy 1.000" in text.text and list(viewer.chart.shown[0])[-1] == "accuracy"
    viewer.chart.mark = 0.301  # what a click does
    assert viewer.threshold.value == viewer.chart.mark == 0.3
    measured = metrics.evaluate_volume(chance >= 0.3, truth, ct.spacing_mm)
    assert viewer.scores == {name: measured[name] for name in viewer.scores}
    assert f"HD95 {measured['hd95']:.1f} mm" in text.text
    assert f"{measured['fp']} false positive" in text.text
    assert viewer.pictures[0].image != picture
    viewer.threshold.value = 0.9
    assert "recall 0.000" in text.text and "precision undefined" in text.text
    assert np.isinf(viewer.scores["hd95"]) and "HD95 without a value" in text.text
    with pytest.raises(SpineError, match="predict_volume"):
        ThresholdExplorer(ct, labels, labels)


@pytest.fixture(scope="module")
def slice_and_mask():
    rows, columns = np.indices((64, 72))
    mask = (np.hypot(rows - 30, columns - 40) < 9).astype(np.uint8) * 20
    noise = np.random.default_rng(0).normal(0, 30, mask.shape)
    return (np.where(mask, 500, 0) + noise).astype(np.float32), mask


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_no_strength_changes_nothing_and_a_stronger_one_more(slice_and_mask, step):
    image, mask = slice_and_mask
    still, same = augment_slice(image, mask, step, 0)
    assert np.allclose(still, np.clip(image, -250, 1000), atol=1e-3)
    assert np.array_equal(same, mask)
    change = []
    for strength in (0.1, 1.0):
        moved, labels = augment_slice(image, mask, step, strength, seed=3)
        change.append(float(np.abs(moved - still).mean()))
        assert set(np.unique(labels)) <= {0, 20}
        assert (step in MOVES_MASK) or np.array_equal(labels, mask)
        again, _ = augment_slice(image, mask, step, strength, seed=3)
        assert np.array_equal(moved, again)
    assert 0 < change[0] and (step == "mirror" or change[0] < change[1])


@pytest.mark.parametrize("step", MOVES_MASK)
def test_geometry_moves_image_and_mask_alike(slice_and_mask, step):
    image, mask = slice_and_mask
    moved, labels = augment_slice(image, mask, step, 1.0)
    assert not np.array_equal(labels, mask)
    inside, outside = moved[labels > 0], moved[labels == 0]
    assert np.median(inside) > 400 and np.median(outside) < 100
    assert (outside > 350).mean() < 0.01


def test_the_augmentation_explorer_draws_before_and_after(small_phantom):
    viewer = AugmentationExplorer(small_phantom.ct, small_phantom.labels, case_id="phantom")
    seen = set()
    for step in STEPS:
        viewer.step.value = step
        seen.add(viewer.after.rgb.tobytes())
        assert viewer.after.alt.startswith(f"After {step}")
    assert len(seen) == len(STEPS)
    viewer.strength.value = 0
    window = WINDOWS["soft tissue"]  # within what the networks see, so nothing is cut off
    assert viewer.window.window == window
    assert np.abs(viewer.after.rgb.astype(int) - viewer.before.rgb).max() <= 1


@pytest.mark.parametrize(
    ("kernel", "dilations"), [(3, [1]), (3, [1, 2, 4]), (5, [2, 2]), (3, [3, 3, 3]), (1, [1, 1])]
)
def test_paths_are_the_gradients_of_real_convolutions(kernel, dilations):
    layers = []
    for dilation in dilations:
        layer = torch.nn.Conv2d(
            1, 1, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
        )
        torch.nn.init.ones_(layer.weight)
        layers.append(layer)
    paths = count_paths(kernel, dilations)
    size = len(paths) + 4
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    torch.nn.Sequential(*layers)(image)[0, 0, size // 2, size // 2].backward()
    assert np.array_equal(image.grad[0, 0].numpy(), np.pad(paths, 2))


def test_paths_of_parallel_branches_are_their_sum():
    paths = count_paths_aspp((2, 3))
    assert paths.shape == (7, 7) and paths[3, 3] == 3 and paths.sum() == 1 + 9 + 9
    assert paths[0, 0] == paths[1, 1] == paths[3, 0] == paths[3, 1] == 1 and paths[0, 1] == 0


def test_the_receptive_field_explorer_tells_field_and_holes():
    viewer = ReceptiveFieldExplorer()
    assert "sees 49 of the 7 x 7 = 49" in viewer.caption.text
    viewer.dilation.value = 2
    assert "sees 49 of the 13 x 13 = 169" in viewer.caption.text
    viewer.dilation.value, viewer.pattern.value = 1, DOUBLING
    assert "sees 225 of the 15 x 15 = 225" in viewer.caption.text
    viewer.pattern.value = ASPP
    assert "sees 25 of the 37 x 37" in viewer.caption.text
    assert viewer.picture.alt in viewer.caption.text


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_planted_mistake_is_where_the_quiz_says(small_phantom, kind):
    labels = small_phantom.labels
    before = labels.array.copy()
    question = plant(labels, kind, seed=1)
    assert np.array_equal(labels.array, before)
    changed = question.labels.array != before
    assert changed.any() == (kind != "nothing")
    if kind not in ("nothing", "shifted"):
        assert changed[question.voxel]
    assert question.explanation.endswith(".")


def test_the_checks_of_lesson_two_find_what_the_quiz_plants(small_phantom):
    ct, labels = small_phantom.ct, small_phantom.labels
    clean = set(check_annotation(ct, labels))
    for kind, code in (("swapped", "order"), ("missing", "gap"), ("stray", "stray")):
        found = check_annotation(ct, plant(labels, kind, 1).labels)
        assert code in {one.code for one in found if one not in clean}


def test_the_quiz_asks_judges_shows_and_keeps_the_score(small_phantom):
    quiz = AnnotationQuiz(small_phantom.ct, small_phantom.labels, rounds=3, seed=4)
    quiz.submit.click()
    assert "Choose an answer first" in quiz.verdict.text and not quiz.answered
    kinds = []
    for number in range(3):
        kind = quiz.question.kind
        kinds.append(kind)
        wrong = next(other for other in MISTAKES if other != kind)
        quiz.answer.value = wrong if number == 1 else kind
        quiz.submit.click()
        assert quiz.question.explanation in quiz.verdict.text
        assert ("No: " in quiz.verdict.text) == (number == 1)
        assert quiz.viewer.voxel == quiz.question.voxel
        if number == 1:
            quiz.answer.value = kind
            quiz.submit.click()
            assert "Right." in quiz.verdict.text
        if number < 2:
            quiz.following.click()
    assert quiz.right == 2 and "2 of 3 right, the quiz is over" in quiz.verdict.text
    assert len(set(kinds)) == 3
    assert quiz.following.description == "Play again"
    first = quiz.question
    quiz.following.click()
    assert "Question 1 of 3" in quiz.caption.text and quiz.right == 0 and quiz.verdict.text == ""
    assert quiz.question is not first
    with pytest.raises(SpineError, match="3 or more"):
        plant(small_phantom.ct.with_array(np.zeros(small_phantom.ct.shape, np.uint8)), "cut")


def test_the_surface_shows_each_side_and_nothing_beside_the_mask():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:5, 4:8, 2:10] = 20  # on the patient's left, low x
    labels[2:5, 9:11, 2:4] = 26  # in front, at the foot
    mask = Volume(labels, np.diag([2.0, 2, 2, 1]))
    front, left, back = (surface_picture(mask, view, "region") for view in VIEWS)
    background = (24, 24, 24)
    inside = (front != background).any(axis=2)
    assert inside[:, 7:10].any() and not inside[:, :7].any()  # left is on the viewer's right
    assert (back != background).any(axis=2)[:, 2:5].any()
    assert np.array_equal(inside, (labels > 0).any(axis=1).T[::-1, ::-1])
    sacrum_from_left = left[8:10, 1:3].reshape(-1, 3).astype(int)
    assert (sacrum_from_left[:, 0] > sacrum_from_left[:, 1]).all()  # reddish purple, at the left


def test_without_the_package_the_still_views_are_shown(small_phantom, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    viewer = view_3d(small_phantom.ct, small_phantom.labels, case_id="phantom")
    assert viewer.scene_3d is None and "install ipyniivue" in viewer.caption.text
    assert len(viewer.pictures) == 3
    assert [one.alt for one in viewer.pictures][0].endswith("phantom seen from the front.")
    assert all((one.rgb != 24).any() for one in viewer.pictures)
    assert [one.marks[0] for one in viewer.pictures] == ["R", "A", "L"]
    predicted = small_phantom.ct.with_array((small_phantom.labels.array > 0).astype(np.uint8))
    assert [one.name for one in view_3d(small_phantom.ct, predicted).swatches()] == ["spine"]


def test_the_scene_to_turn_gets_ct_and_mask_on_one_grid(small_phantom):
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed (the extra lessons)")
    import nibabel as nib

    viewer = view_3d(small_phantom.ct, small_phantom.labels)
    ct, mask = viewer.scene_3d.volumes
    images = [nib.Nifti1Image.from_bytes(one.data) for one in (ct, mask)]
    assert np.array_equal(np.asarray(images[0].dataobj), small_phantom.ct.array)
    assert np.array_equal(np.asarray(images[1].dataobj), small_phantom.labels.array)
    assert all(np.allclose(one.affine, small_phantom.ct.affine) for one in images)


@given(st.floats(0.5, 1), st.floats(0.001, 0.3), st.floats(0, 1))
def test_the_shares_have_the_dice_prevalence_and_balance_that_were_asked_for(dice, share, alarms):
    pair = shares(dice, share, alarms)
    assert pair.total == pytest.approx(1)
    assert metrics.dice(pair) == pytest.approx(dice)
    assert pair.tp + pair.fn == pytest.approx(share)
    wrong = pair.fp + pair.fn
    assert pair.fp == pytest.approx(alarms * wrong, abs=1e-12)


@pytest.mark.parametrize("row", PAPER.values(), ids=list(PAPER))
def test_the_iou_fits_at_the_counted_share_and_the_accuracy_where_spine_is_common(row):
    viewer = PrevalenceExplorer()
    viewer.model.value = row["name"]
    assert viewer.fits == {"class-mean IoU": True, "accuracy": False}
    assert row["name"] in viewer.caption.text
    viewer.percent.value = 100 * np.mean(paper.prevalence_range(row["accuracy"], row["dice"]))
    assert viewer.fits == {"class-mean IoU": False, "accuracy": True}


def test_moving_a_slider_moves_the_mark_and_changes_the_words():
    viewer = PrevalenceExplorer()
    words = viewer.alt
    viewer.chart.mark = 10.0  # what a click does
    assert viewer.percent.value == viewer.chart.mark == 10 and viewer.alt != words
    assert "10.00 % spine" in viewer.alt and "does not fit" in viewer.alt
    drawn, *_ = viewer.chart.shown
    for name, score in (("accuracy", metrics.accuracy), ("class-mean IoU", metrics.iou_mean)):
        pair = shares(PAPER["deeplabv3plus_resnet34"]["dice"], 0.1)
        height = np.interp(10, *drawn[name])
        assert height == pytest.approx(score(pair), abs=1e-4)
    data, metadata = viewer._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == viewer.alt and len(data["image/png"]) < 60_000
