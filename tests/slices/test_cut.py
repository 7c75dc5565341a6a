"""Cutting volumes into slices, and splitting by patient."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.ct.geometry import (
    PLANES,
    from_slices,
    resample_image,
    resample_labels,
    resampled_shape,
    slice_spacing_mm,
    to_slices,
)
from spine_lib.ct.volume import Volume
from spine_lib.datasets import CaseData, phantom_cases
from spine_lib.slices.cut import (
    AIR_HU,
    IGNORE,
    UNLABELLED_TISSUE,
    cut,
    require_separate,
    split_by_patient,
)


@given(st.sampled_from(PLANES), st.tuples(*[st.integers(1, 6)] * 3))
def test_slices_put_together_again_are_the_volume(plane, shape):
    volume = np.arange(np.prod(shape)).reshape(shape)
    stack = to_slices(volume, plane)
    assert np.array_equal(from_slices(stack, plane), volume)
    assert slice_spacing_mm(shape, plane) == stack.shape


@pytest.mark.parametrize(
    ("plane", "first_row", "first_column"),
    [("axial", "A", "R"), ("coronal", "S", "R"), ("sagittal", "S", "A")],
)
def test_images_are_ready_to_look_at(plane, first_row, first_column):
    axis = {"R": 0, "A": 1, "S": 2}
    volume = np.indices((3, 4, 5))
    rows = to_slices(volume[axis[first_row]], plane)[0]
    columns = to_slices(volume[axis[first_column]], plane)[0]
    # RAS+ indices grow to the right, the front and the head: those sides come first.
    assert rows[0, 0] == rows.max() and rows[-1, 0] == 0
    assert columns[0, 0] == columns.max() and columns[0, -1] == 0


def test_an_unknown_plane_is_refused_with_the_known_ones():
    with pytest.raises(SpineError, match="Unknown plane 'oblique': choose one of axial, coronal"):
        to_slices(np.zeros((2, 2, 2)), "oblique")


@given(st.integers(2, 40), st.integers(2, 40), st.floats(-1000, 1000), st.floats(-30, 30))
def test_resampling_keeps_a_ramp_a_ramp(old, new, offset, slope):
    old_centres = (np.arange(old) + 0.5) / old
    new_centres = (np.arange(new) + 0.5) / new
    ramp = np.broadcast_to(offset + slope * old_centres, (1, 2, old))
    edge = 1.6 / new + 1 / old  # how far smoothing mirrors what lies beyond the image
    inside = (new_centres > edge) & (new_centres < 1 - edge)
    found = resample_image(ramp, (2, new))[0, 0]
    wanted = offset + slope * new_centres
    assert np.allclose(found[inside], wanted[inside], atol=1e-2)


def test_enlarging_an_image_and_shrinking_it_again_returns_a_smooth_image():
    rows, columns = np.mgrid[0:40, 0:30]
    image = (100 * np.sin(rows / 8) * np.cos(columns / 6))[None]
    back = resample_image(resample_image(image, (80, 60)), (40, 30))
    assert np.abs(back - image).max() < 6


@given(st.integers(1, 30), st.integers(1, 30))
def test_resampled_labels_are_labels_that_were_there(old, new):
    labels = np.arange(old, dtype=np.uint8)[None, None].repeat(2, axis=1) * 7
    found = resample_labels(labels, (2, new))
    assert found.shape == (1, 2, new)
    assert np.isin(found, labels).all()
    assert (np.diff(found[0, 0].astype(int)) >= 0).all()


def test_image_and_labels_stay_aligned_when_they_are_resampled():
    disc = (np.hypot(*np.mgrid[-20:20, -25:25]) < 12)[None]
    shape = resampled_shape(disc.shape[1:], (1.0, 1.0), 1.7)
    image = resample_image(disc * 1000.0, shape) > 500
    labels = resample_labels(disc.astype(np.uint8), shape) > 0
    assert 2 * (image & labels).sum() / (image.sum() + labels.sum()) > 0.95


def test_cutting_keeps_hu_labels_ignore_and_tissue_of_each_voxel():
    array = np.full((6, 4, 3), 40, np.int16)
    array[0] = -3024
    labels = np.zeros(array.shape, np.uint8)
    labels[2, 1, 1] = 21
    ignore = np.zeros(array.shape, bool)
    ignore[3, 1, 1] = True
    organs = np.zeros(array.shape, np.uint8)
    organs[5, 3, 2] = 7
    volume = Volume(array, np.eye(4))
    data = CaseData(volume, volume.with_array(labels), volume.with_array(ignore))
    stored = from_slices(cut(data, "axial", 1.0, volume.with_array(organs)), "axial")
    assert stored["hu"][0].max() == AIR_HU and stored["hu"][1:].min() == 40
    assert stored["label"][2, 1, 1] == 21 and stored["label"][3, 1, 1] == IGNORE
    assert np.count_nonzero(stored["label"]) == 2
    assert stored["tissue"][5, 3, 2] == 7
    assert stored["tissue"][0, 0, 0] == UNLABELLED_TISSUE
    assert stored["tissue"][1, 0, 0] > UNLABELLED_TISSUE


@given(st.integers(3, 30), st.integers(0, 5))
def test_no_patient_lies_on_both_sides_of_a_split(count, seed):
    # Two scans of each patient: the same seed in two sizes.
    cases = phantom_cases(count, spacing_mm=4.0) + phantom_cases(count, spacing_mm=5.0)
    parts = split_by_patient(cases, {"train": 0.6, "validation": 0.2, "test": 0.2}, seed)
    require_separate(parts)
    assert sum(len(part) for part in parts.values()) == 2 * count
    assert min(len(part) for part in parts.values()) >= (2 if count >= 5 else 0)


def test_a_patient_on_both_sides_is_refused_by_name():
    case = phantom_cases(1, seed=7)[0]
    with pytest.raises(SpineError, match="phantom-seed-7 is in both 'train' and 'test'"):
        require_separate({"train": [case], "test": [case]})


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.5, "test": 0.4}, "add up to 0.9, not to 1"),
        ({"a": 0.2, "b": 0.2, "c": 0.6}, "2 patients cannot be split in 3 parts"),
    ],
)
def test_an_impossible_split_is_refused(fractions, message):
    with pytest.raises(SpineError, match=message):
        split_by_patient(phantom_cases(2), fractions)
