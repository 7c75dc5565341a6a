"""Strokes change what they cover, can be taken back, and scores follow as if counted anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_lib.ct import load_mask, save_nifti
from spine_lib.ct.volume import Volume
from spine_lib.explore import SliceViewer
from spine_lib.explore.brush import TOLERANCE_MM, MaskEditor
from spine_lib.explore.scene import share_in_slice
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics.surfaces import nsd, surface_distances

SPACING = (1.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING, 1.0])


def blank(shape=(20, 20, 12)):
    return Volume(np.zeros(shape, np.int16), AFFINE)


@pytest.mark.parametrize("cut", [0, 1, 2, None])
def test_a_stroke_covers_the_voxels_within_its_radius_in_mm_of_the_line(cut):
    ct, radius_mm = blank(), 4.0
    editor = MaskEditor(ct, None, None, None)
    start, end = [8, 8, 6], [12, 10, 8]
    if cut is not None:
        end[cut] = start[cut]
    editor.begin()
    editor.paint(tuple(start), tuple(end), radius_mm, 1, cut)
    points = np.linspace(start, end, 400) * SPACING
    where = np.argwhere(np.ones(ct.shape)) * SPACING
    apart = np.array([np.min(((points - voxel) ** 2).sum(axis=1)) for voxel in where])
    expected = (apart <= radius_mm**2 + 0.02).reshape(ct.shape)
    if cut is not None:
        outside = np.arange(ct.shape[cut]) != start[cut]
        np.moveaxis(expected, cut, 0)[outside] = False
    assert np.array_equal(editor.mask.array, expected)


def test_a_stroke_keeps_to_its_range_of_hu_and_to_the_array():
    ct = blank()
    ct.array[:10] = 500
    editor = MaskEditor(ct, None, None, None)
    editor.begin()
    editor.paint((0, 0, 0), (19, 0, 0), 6.0, 1, None, (100, 3071))
    assert editor.array[:10].any() and not editor.array[10:].any()


def test_a_fill_stays_in_its_slice_and_closes_a_hole_but_no_open_area():
    labels = np.zeros((20, 20, 12), np.uint8)
    labels[5:15, 5:15, 3:6] = 22
    labels[8:11, 8:11, 3:6] = 0
    editor = MaskEditor(blank(), blank().with_array(labels), None, None)
    editor.begin()
    assert not editor.fill((0, 0, 4), 22, 2)
    assert editor.fill((9, 9, 4), 22, 2)
    assert (editor.array[5:15, 5:15, 4] == 22).all()
    assert np.array_equal(editor.array[..., [3, 5]], labels[..., [3, 5]])
    assert not labels[8:11, 8:11, 4].any()  # what it was made from stays as it is


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_scores_after_any_strokes_undos_and_redos_are_those_counted_anew(seed, with_ignore):
    random = np.random.default_rng(seed)
    ct = blank((14, 12, 9))
    mask, truth = (ct.with_array(_blocks(random, ct.shape)) for _ in range(2))
    skip = ct.with_array(random.random(ct.shape) < 0.1) if with_ignore else None
    editor = MaskEditor(ct, mask, truth, skip)
    history = [editor.array.copy()]
    for _ in range(4):
        editor.begin()
        ends = [tuple(random.integers(0, ct.shape).tolist()) for _ in range(2)]
        editor.paint(*ends, random.uniform(0.5, 5), int(random.integers(0, 3)))
        history.append(editor.array.copy())
        _check_scores(editor, truth.array, skip)
    for before in history[-2::-1]:
        editor.undo()
        assert np.array_equal(editor.array, before)
        _check_scores(editor, truth.array, skip)
    for after in history[1:]:
        editor.redo()
        assert np.array_equal(editor.array, after)
    editor.redo()  # there is none
    _check_scores(editor, truth.array, skip)


def _blocks(random, shape):
    labels = np.zeros(shape, np.uint8)
    for label in (1, 2):
        low = random.integers(0, 6, 3)
        labels[tuple(slice(a, a + int(b)) for a, b in zip(low, random.integers(1, 7, 3)))] = label
    return labels


def _check_scores(editor, truth, skip):
    skipped = np.zeros(truth.shape, bool) if skip is None else skip.array
    for label, pair in (
        (None, (editor.array > 0, truth > 0)),
        (2, (editor.array == 2, truth == 2)),
    ):
        expected = metrics.dice(metrics.confusion(*pair, skipped))
        assert editor.dice(label) == pytest.approx(expected, nan_ok=True)
    distances = surface_distances(editor.array > 0, truth > 0, SPACING, skipped)
    assert editor.nsd == pytest.approx(nsd(distances, TOLERANCE_MM), nan_ok=True)


@pytest.fixture
def viewer(small_phantom):
    """A viewer whose mask lacks L3, with the whole mask as truth."""
    labels = small_phantom.labels.array.copy()
    labels[labels == 22] = 0
    mask = small_phantom.ct.with_array(labels)
    return SliceViewer(small_phantom.ct, mask, truth=small_phantom.labels, style="fill")


def stroke(viewer, *voxels, done=True):
    """Do what the front end does where the brush goes through voxels of the axial slice."""
    shares = [list(share_in_slice(viewer.scene.ct.shape, "axial", voxel)) for voxel in voxels]
    number = viewer.picture.stroke.get("id", 0) + 1
    for count in range(1, len(shares) + 1):
        done = done and count == len(shares)
        viewer.picture.stroke = {"id": number, "points": shares[:count], "done": done}


def test_the_brush_paints_erases_and_takes_back_and_the_picture_and_scores_follow(
    viewer, small_phantom
):
    voxel = tuple(np.argwhere(small_phantom.labels.array == 22)[0].tolist())
    viewer.go_to(voxel)
    given = viewer.mask.array
    before, picture = given.copy(), viewer.picture.image
    viewer.brush.tool.value, viewer.brush.label.value = "paint", 22
    viewer.brush.radius.value = 9
    assert viewer.picture.tool == "paint" and len(viewer.picture.radius) == 2
    text = viewer.brush.scores.text
    assert "L3: Dice 0.000" in text
    stroke(viewer, voxel, (voxel[0] + 3, *voxel[1:]))
    assert viewer.mask.array[voxel] == 22 and (viewer.mask.array != before).sum() > 10
    assert viewer.picture.image != picture and viewer.brush.scores.text != text
    assert np.array_equal(given, before)
    assert [22] == [n for _, n in viewer.overlay.structures.options if n == 22]
    viewer.picture.key = ["z", 1]
    assert np.array_equal(viewer.mask.array, before) and viewer.picture.image == picture
    viewer.picture.key = ["y", 2]
    viewer.brush.tool.value = "erase"
    viewer.brush.radius.value = 30
    stroke(viewer, voxel)
    assert viewer.mask.array[voxel] == 0
    viewer.picture.key = ["[", 3]
    assert viewer.brush.radius.value == 29


def test_the_corrected_mask_lies_on_the_scan_when_it_is_saved(viewer, tmp_path):
    viewer.brush.tool.value = "paint"
    stroke(viewer, (30, 30, viewer.slice.value))
    saved = load_mask(save_nifti(viewer.mask, tmp_path / "corrected.nii.gz"))
    assert np.array_equal(saved.array, viewer.mask.array)
    assert np.allclose(saved.affine, viewer.scene.ct.affine)


def test_a_scan_without_a_mask_is_painted_as_spine(small_phantom):
    viewer = SliceViewer(small_phantom.ct)
    viewer.brush.tool.value = "paint"
    stroke(viewer, (30, 30, viewer.slice.value))
    assert viewer.mask.array.dtype == bool and viewer.mask.array[30, 30, viewer.slice.value]
    assert viewer.caption.swatches[0][0] == "spine"
