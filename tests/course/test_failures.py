"""Provoked failures: one thing changes and nothing else; and the gallery finds its places."""

import numpy as np
import pytest

from spine_lib.course import failures
from spine_lib.course.failures import FAILURES, Failure, Segmented, find, gallery
from spine_lib.course.provocations import PROVOCATIONS, provoke, streaks_hu
from spine_lib.datasets.phantom import TISSUES
from spine_lib.volumes.measure import error_pieces

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
    assert len({failure.cause for failure in FAILURES}) == len(FAILURES) >= 8
    known = {*failures.HELD_OUT, *PROVOCATIONS}
    assert {failure.scan for failure in FAILURES} <= known
    assert all(failure.tissue in ("", *TISSUES) for failure in FAILURES)


@pytest.mark.parametrize(
    "failure", [failure for failure in FAILURES if failure.near], ids=lambda failure: failure.cause
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
    under = plain.tissues.array[on_disc.box][on_disc.inside]
    assert np.mean(under == TISSUES["disc"]) > 0.5 and largest.ml > on_disc.ml
    assert find(Failure("x", "well scanned", "false negative"), segmented) is None


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
