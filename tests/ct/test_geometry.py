"""Grids, planes and resampling."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.ct import (
    PLANES,
    Volume,
    require_same_grid,
    resample_image,
    resample_labels,
    slice_spacing_mm,
    to_slices,
)
from spine_lib.ct.geometry import plane_axes, resampled_shape

AFFINE = np.diag([0.7, 0.7, 2.5, 1])


def moved(mm):
    affine = AFFINE.copy()
    affine[0, 3] = mm
    return affine


def test_image_and_mask_of_one_grid_agree():
    header = AFFINE.astype(np.float32).astype(np.float64)
    require_same_grid(Volume(np.zeros((2, 3, 4)), AFFINE), Volume(np.zeros((2, 3, 4)), header))


@pytest.mark.parametrize(
    ("shape", "affine", "reason"),
    [
        ((2, 3, 5), AFFINE, r"shape, \(2, 3, 4\) and \(2, 3, 5\)"),
        ((2, 3, 4), np.diag([0.7, 0.7, 2.0, 1]), r"spacing, .*2\.5.* and .*2\.0"),
        *(((2, 3, 4), moved(mm), "apart in the pat") for mm in (0.08, 1, 1e30, np.nan, np.inf)),
    ],
)
def test_grids_that_differ_by_a_tenth_of_a_voxel_or_are_no_number_are_refused(
    shape, affine, reason
):
    a = Volume(np.zeros((2, 3, 4)), AFFINE, path=Path("ct.nii.gz"))
    b = Volume(np.zeros(shape), affine, path=Path("mask.nii.gz"))
    with pytest.raises(SpineError, match=rf"image and mask \(ct.nii.gz and mask.*{reason}"):
        require_same_grid(a, b)


BIG, COARSE = np.diag([-0.703125, -0.703125, 2.5, 1]), np.diag([1.5, 1.5, 1.5, 1])


@pytest.mark.parametrize(
    ("affine", "row", "column", "value"),
    [
        (BIG, 2, 2, 2.4999),  # the slice distance in other digits
        (BIG, 0, 0, -0.7031),
        (BIG, 0, 1, 1e-4),
        (COARSE, 1, 2, 3e-4),  # a sheared scan whose masks are straight
    ],
)
def test_headers_that_differ_in_their_last_digits_are_one_grid_with_a_note(
    affine, row, column, value
):
    voxels = np.broadcast_to(np.int16(0), (512, 512, 133))
    other = affine.copy()
    other[row, column] = value
    with pytest.warns(UserWarning, match=r"up to 0\.0\d* mm apart: harmless"):
        require_same_grid(Volume(voxels, affine), Volume(voxels, other))


def test_an_array_without_an_affine_has_no_grid():
    ct = Volume(np.zeros((2, 3, 4)), np.eye(4))
    with pytest.raises(SpineError, match="a ndarray without an affine has no position"):
        require_same_grid(ct, np.zeros((2, 3, 4)), "CT and mask")


@given(st.sampled_from(PLANES), st.tuples(*[st.integers(1, 6)] * 3))
def test_slices_of_a_volume_have_every_voxel_and_their_spacing(plane, shape):
    volume = np.arange(np.prod(shape)).reshape(shape)
    stack = to_slices(volume, plane)
    turned_back = stack[:, ::-1, ::-1].transpose(np.argsort(plane_axes(plane)))
    assert np.array_equal(turned_back, volume)
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
