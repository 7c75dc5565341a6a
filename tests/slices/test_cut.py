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
from spine_lib.datasets import CaseData
from spine_lib.slices.cut import (
    AIR_HU,
    IGNORE,
    UNLABELLED_TISSUE,
    cut_slices,
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
    resampled = resample_image(ramp, (2, new))[0, 0]
    wanted = offset + slope * new_centres
    assert np.allclose(resampled[inside], wanted[inside], atol=1e-2)


def test_enlarging_an_image_and_shrinking_it_again_returns_a_smooth_image():
    rows, columns = np.mgrid[0:40, 0:30]
    image = (100 * np.sin(rows / 8) * np.cos(columns / 6))[None]
    back = resample_image(resample_image(image, (80, 60)), (40, 30))
    assert np.abs(back - image).max() < 6


@given(st.integers(1, 30), st.integers(1, 30))
def test_resampled_labels_are_labels_that_were_there(old, new):
    labels = np.arange(old, dtype=np.uint8)[None, None].repeat(2, axis=1) * 7
    resampled = resample_labels(labels, (2, new))
    assert resampled.shape == (1, 2, new)
    assert np.isin(resampled, labels).all()
    assert (np.diff(resampled[0, 0].astype(int)) >= 0).all()


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
    stored = from_slices(cut_slices(data, "axial", 1.0, volume.with_array(organs)), "axial")
    assert stored["hu"][0].max() == AIR_HU and stored["hu"][1:].min() == 40
    assert stored["label"][2, 1, 1] == 21 and stored["label"][3, 1, 1] == IGNORE
    assert np.count_nonzero(stored["label"]) == 2
    assert stored["tissue"][5, 3, 2] == 7
    assert stored["tissue"][0, 0, 0] == UNLABELLED_TISSUE
    assert stored["tissue"][1, 0, 0] > UNLABELLED_TISSUE
