"""Provoked failures: one thing changes and nothing else; and the gallery finds its places."""

import math

import numpy as np
import pytest

from spine_lib.course import failures
from spine_lib.course.demonstrations import judge_uncertainty
from spine_lib.course.failures import FAILURES, Failure, Segmented, find, tissue_under
from spine_lib.course.figures import dots, gallery, sagittal_maps, volume_bars
from spine_lib.course.provocations import PROVOCATIONS, provoke, streaks_hu
from spine_lib.datasets.phantom import TISSUES
from spine_lib.volumes.measure import Amount, error_pieces

SMALL = {"shape": (80, 80, 24)}


@pytest.fixture(scope="module")
def plain():
    return provoke("well scanned", 5, **SMALL)


def provoked(name: str):
    return provoke(name, 5, **SMALL)


@pytest.mark.parametrize("name", ("pedicle screws", "low dose", "lost intercept"))
def test_a_provocation_of_the_scan_leaves_the_patient_as_it_is(name, plain):
    other = provoked(name)
    assert np.array_equal(other.labels.array, plain.labels.array)
    assert np.array_equal(other.tissues.array, plain.tissues.array)
    assert not np.array_equal(other.ct.array, plain.ct.array)


@pytest.mark.parametrize("name", PROVOCATIONS)
def test_a_provoked_scan_is_a_case_on_one_grid(name):
    data = provoke(name, 5, **SMALL)
    assert data.ct.array.dtype == np.int16
    assert data.ct.shape == data.labels.shape == data.ignore.shape == data.tissues.shape
    for other in (data.labels, data.ignore, data.tissues):
        assert np.array_equal(other.affine, data.ct.affine)
    assert (data.labels.array > 0).any()


def test_screws_are_bright_run_through_the_pedicles_and_leave_dark_streaks(plain):
    metal = provoked("pedicle screws")
    bright = metal.ct.array == 3071
    assert 0.5 < bright.sum() * np.prod(metal.ct.spacing_mm) / 1000 < 30
    inside = metal.labels.array[bright] > 0
    assert 0.2 < inside.mean() < 1
    change = metal.ct.array.astype(int) - plain.ct.array
    slices = bright.any(axis=(0, 1))
    assert change[:, :, slices][~bright[:, :, slices]].min() < -150
    assert not change[:, :, ~slices].any()


def test_streaks_are_darkest_between_two_rods_and_none_are_without_metal():
    metal = np.zeros((81, 81, 2), bool)
    metal[20:24, 39:43, 0] = metal[57:61, 39:43, 0] = True
    added = streaks_hu(metal, (1.0, 1.0, 3.0))
    assert not added[:, :, 1].any()
    between, beside = added[40, 40, 0], added[40, 10, 0]
    assert between < -20 and between < beside - 20
    mirrored = streaks_hu(metal[::-1], (1.0, 1.0, 3.0))[::-1]
    assert np.allclose(mirrored[20:60, 20:60], added[20:60, 20:60], atol=0.02 * abs(added).max())
    assert not streaks_hu(np.zeros_like(metal), (1.0, 1.0, 3.0)).any()


def test_a_childs_spine_has_the_same_voxels_in_less_room(plain):
    child = provoked("child's size")
    assert np.array_equal(child.ct.array, plain.ct.array)
    assert child.ct.spacing_mm == pytest.approx([0.55 * size for size in plain.ct.spacing_mm])


def test_a_wrong_header_turns_scan_and_labels_alike(plain):
    turned = provoked("front and back swapped")
    assert np.array_equal(turned.ct.array[:, ::-1], plain.ct.array)
    assert np.array_equal(turned.labels.array[:, ::-1], plain.labels.array)


def test_a_lost_intercept_adds_1024_hu(plain):
    lost = provoked("lost intercept")
    assert np.array_equal(lost.ct.array, plain.ct.array + np.int16(1024))


# --- the gallery ----------------------------------------------------------------------------------


def test_the_gallery_names_at_least_eight_causes_on_scans_that_there_are():
    assert len({one.cause for one in FAILURES}) == len(FAILURES) >= 8
    known = {*failures.HELD_OUT, *PROVOCATIONS}
    assert {one.scan for one in FAILURES} <= known
    assert all(one.tissue in ("", *TISSUES) for one in FAILURES)


@pytest.mark.parametrize(
    "failure", [one for one in FAILURES if one.near], ids=lambda one: one.cause
)
def test_a_failure_of_a_real_patient_is_where_it_was_seen(failure, sample_root):
    segmented = failures.segment(failure.scan, failure.model)
    piece = find(failure, segmented)
    assert piece.kind == failure.kind
    away = (np.array(piece.voxel) - failure.near) * segmented.data.ct.spacing_mm
    assert np.linalg.norm(away) < 12
    x, y, z = piece.voxel
    truth = segmented.data.labels.array[x, y, z] > 0
    assert truth == (failure.kind == "false negative")
    assert segmented.mask.array[x, y, z] != truth


def test_the_arm_in_the_gallery_is_an_arm(sample_root):
    from spine_lib.annotations.schemes import SCHEMES
    from spine_lib.datasets import sample_cases

    (case,) = (one for one in sample_cases(sample_root) if one.case_id == "dicom")
    (failure,) = (one for one in FAILURES if "arm" in one.cause.split())
    piece = find(failure, failures.segment(failure.scan, failure.model))
    organs = case.load_structures().array[piece.box][piece.inside]
    names = SCHEMES["totalsegmentator"].names
    assert names[int(np.bincount(organs[organs > 0]).argmax())] == "humerus_right"


def test_a_piece_is_chosen_by_the_tissue_that_it_lies_on(plain):
    found = plain.labels.array > 0
    found[5:20, 5:20, 5:15] = True  # a large error in whatever lies there
    disc = (plain.tissues.array == TISSUES["disc"]) & ~found
    found |= disc
    segmented = Segmented(plain, plain.ct.with_array(found.astype(np.float32)))
    largest = find(Failure("x", "well scanned", "false positive"), segmented)
    on_disc = find(Failure("x", "well scanned", "false positive", tissue="disc"), segmented)
    assert tissue_under(on_disc, plain.tissues) == "disc"
    assert tissue_under(largest, plain.tissues) != "disc" and largest.ml > on_disc.ml
    assert find(Failure("x", "well scanned", "false negative"), segmented) is None


def test_a_close_up_shows_the_same_places_of_the_patient(plain):
    whole = Segmented(plain, plain.ct.with_array(plain.labels.array.astype(np.float32)))
    near = failures.close_up(whole, margin_mm=6.0)
    assert near.data.ct.array.size < plain.ct.array.size
    assert (near.data.labels.array > 0).sum() == (plain.labels.array > 0).sum()
    assert np.array_equal(near.mask.array, near.data.labels.array > 0)
    voxel = np.argwhere(near.data.labels.array)[0]
    place = np.linalg.solve(plain.ct.affine, near.data.ct.affine @ [*voxel, 1])[:3]
    x, y, z = np.rint(place).astype(int)
    assert np.allclose(place, (x, y, z))
    assert near.data.ct.array[tuple(voxel)] == plain.ct.array[x, y, z]


def test_the_gallery_draws_a_panel_for_each_failure(plain):
    found = plain.labels.array > 0
    found[30:45, 40:52, 8:14] = False
    segmented = Segmented(plain, plain.ct.with_array(found.astype(np.float32)))
    failure = Failure("a bite", "well scanned", "false negative")
    assert error_pieces(segmented.mask, plain.labels)[0].kind == "false negative"
    pairs = [(failure, find(failure, segmented)), (failure, None)]
    figure = gallery(pairs, {failure.key: segmented}, columns=3)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in drawn] == ["a bite"]
    texts = {text.get_text() for text in drawn[0].texts}
    assert {"R", "L", "A", "P"} <= texts and any("mm" in text for text in texts)


def test_bars_show_what_was_measured_and_leave_out_what_has_no_truth():
    rows = [Amount("L3", 60.0, 61.5), Amount("no vertebra", 0.0, 2.0)]
    axes = volume_bars({"crop": rows, "dicom": rows[:1]}).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [60.0, 60.0, 61.5, 61.5]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["L3\ncrop", "L3\ndicom"]


def test_dots_show_every_value_and_their_mean():
    axes = dots({"A": {"x": [0.2, 0.4], "y": [0.9]}, "B": {"x": [0.1], "y": [0.7]}}, "Dice").axes[0]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert [list(line.get_xdata()) for line in marks] == [[0.2, 0.4], [0.9], [0.1], [0.7]]
    ticks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("o", "s")]
    assert ticks == pytest.approx([0.3, 0.9, 0.1, 0.7])


def test_sagittal_maps_have_the_front_on_the_left_and_the_head_at_the_top(plain):
    values = np.zeros(plain.ct.shape, np.float32)
    values[7, -1, -1] = 1  # in front, at the top
    axes = sagittal_maps(plain.ct, {"one": values}, 7).axes[0]
    picture = axes.images[0].get_array()
    assert picture[0, 0] == 1 and picture.sum() == 1
    assert {"A", "P"} <= {text.get_text() for text in axes.texts}


# --- uncertainty ---------------------------------------------------------------------------------


def test_an_uncertainty_that_knows_the_errors_is_judged_perfect():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 20, 10), bool)
    truth[5:15, 5:15, 2:8] = True
    sure = np.where(truth, 0.99, 0.01).astype(np.float32)
    unsure = rng.random(truth.shape) < 0.1
    sure[unsure] = np.where(truth[unsure], 0.45, 0.55)
    views = np.stack([sure] * 4)
    judged = judge_uncertainty(views, sure, truth, np.zeros_like(truth), (2.0, 2.0, 3.0))
    assert judged["entropy"]["near"] == judged["entropy"]["everywhere"] == 1.0
    assert judged["spread over views"]["near"] == 0.5 == judged["disagreement"]["near"]
    assert judged["plain"] == judged["views"] < 1
    assert not math.isnan(judged["closeness to the outline"]["near"])


def test_what_is_ignored_is_not_judged():
    truth = np.zeros((16, 16, 8), bool)
    truth[4:12, 4:12, 2:6] = True
    answer = np.where(truth, 0.9, 0.1).astype(np.float32)
    answer[0, :, :] = 0.8  # wrong, but nobody knows
    answer[5, 5, 3] = 0.2  # wrong
    ignore = np.zeros_like(truth)
    ignore[0] = True
    views = np.stack([answer, answer])
    with_it = judge_uncertainty(views, answer, truth, ignore, (1.0, 1.0, 1.0))
    without = judge_uncertainty(views, answer, truth, ~np.ones_like(truth), (1, 1, 1))
    assert with_it["plain"] > without["plain"]
    assert with_it["entropy"]["near"] == pytest.approx(1.0)
