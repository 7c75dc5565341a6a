import warnings

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError
from spine_lib.ct import load_ct, load_mask
from spine_lib.ct.hounsfield import HU_RANGE, hu_from_stored, label_likeness


def saved(path, values, slope=None, intercept=None, dtype=None):
    """Write a row of voxels, by hand so that nibabel does not rescale them, and return the path."""
    array = np.asarray(values, dtype).reshape(-1, 1, 1)
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_zooms((0.1, 0.1, 0.1))
    header.set_sform(np.diag([0.1, 0.1, 0.1, 1]), 1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    header["scl_slope"] = np.nan if slope is None else slope
    header["scl_inter"] = np.nan if intercept is None else intercept
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes())
    return path


def convert(stored, slope, intercept):
    out = np.zeros(stored.shape, np.int16)
    hu_from_stored(stored, slope, intercept, out, "ct.nii")
    return out


@given(
    st.sampled_from(["u1", "i2", "u2", "i4", ">i2", ">u2", "i8"]),
    st.integers(-70000, 70000),
    st.lists(st.integers(*HU_RANGE), min_size=1, max_size=20),
)
def test_whole_numbers_are_converted_without_overflow(dtype, intercept, hu):
    stored = np.array(hu, np.int64) - intercept
    limits = np.iinfo(dtype)
    stored = stored[(stored >= limits.min) & (stored <= limits.max)].astype(dtype)
    if stored.size:
        out = convert(stored, 1.0, float(intercept))
        np.testing.assert_array_equal(out, stored.astype(np.int64) + intercept)


@given(st.floats(-20, 20), st.floats(-3000, 3000), st.lists(st.integers(-1500, 1500), min_size=1))
def test_fractions_are_rounded_to_the_nearest_hu(slope, intercept, stored):
    exact = np.array(stored, np.float64) * slope + intercept
    if HU_RANGE[0] <= exact.min() and exact.max() <= HU_RANGE[1]:
        for dtype in (np.int16, np.float64):
            out = convert(np.array(stored, dtype), slope, intercept)
            assert np.abs(out - exact).max() <= 0.5


@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (0, 5), (np.nan, 3), (1, 0)])
def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope, intercept):
    path = saved(tmp_path / "ct.nii", [-1000, 40, 3000], slope, intercept, np.int16)
    assert load_ct(path).array.ravel().tolist() == [-1000, 40, 3000]


def test_slope_and_intercept_are_applied(tmp_path):
    path = saved(tmp_path / "ct.nii", [0, 1024, 4095], 1, -1024, np.uint16)
    assert load_ct(path).array.ravel().tolist() == [-1024, 0, 3071]
    path = saved(tmp_path / "ct.nii", [0, 1, 3], 500.4, -1000, np.uint8)
    assert load_ct(path).array.ravel().tolist() == [-1000, -500, 501]


@pytest.mark.parametrize("padding", [-2048, -3024, -10240, -32768])
def test_padding_outside_the_field_of_view_is_kept(tmp_path, padding):
    path = saved(tmp_path / "ct.nii", [padding, -1000, 40], dtype=np.float32)
    assert load_ct(path).array.ravel().tolist() == [padding, -1000, 40]


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([-1000, np.nan, 40], "f4", "not a number"),
        ([-1000, np.inf, 40], "f4", "to inf, which cannot be HU"),
        ([-1000, 40, 60000], "i4", "from -1000 to 60000, which cannot be HU"),
        ([-40000, 40, 600], "f8", "from -40000 to 600, which cannot be HU"),
        ([-1000, 40, 32000], "i2", "from -1000 to 32000, which cannot be HU"),
        ([-2048, -2048], "i2", "no tissue can be"),
        ([0, 0.25, 1], "f4", "a mask or a normalised image"),
        ([-1.7, 0.1, 5.3, 19], "f4", "a mask or a normalised image"),  # standard deviations
        ([0, 20, 28], "u1", "a mask or a normalised image"),
    ],
)
def test_intensities_that_cannot_be_hu_are_refused(tmp_path, values, dtype, words):
    path = saved(tmp_path / "ct.nii", values, dtype=dtype)
    with pytest.raises(SpineError, match=words) as caught:
        load_ct(path)
    assert str(path) in str(caught.value)


BODY = np.random.default_rng(0).choice([-1000, -90, 40, 300], 9000) + np.arange(9000) % 31


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (BODY + 1100, r"\(from 100 to 1430\) has .* air and fat, .*intercept may be lost"),
        (np.append(BODY + 1024, -2000), "from -2000 to .* air and fat, .*may be lost"),
        (np.append(BODY + 1024, [-3024] * 5000), "intercept may be lost"),
        (np.append(BODY + np.random.default_rng(1).normal(1024, 20, 9000), -2048), "may be lost"),
        (BODY - 1000, "soft tissue, above -300 HU, .*intercept may be applied twice"),
        (0 * BODY, "holds the value 0 in every voxel"),
        (np.clip((BODY + 1000) // 5, 0, 255), "air and fat"),
    ],
)
def test_intensities_that_may_not_be_hu_are_reported(tmp_path, values, words):
    path = saved(tmp_path / "ct.nii", values, dtype=np.int16)
    with pytest.warns(UserWarning, match=words) as caught:
        load_ct(path)
    assert [note.filename for note in caught] == [__file__]


@pytest.mark.parametrize("padding", [0, -2000, -2048, -3024])
def test_a_scan_in_hu_has_no_note(tmp_path, padding):
    path = saved(tmp_path / "ct.nii", np.append(BODY, [padding] * 4000), dtype=np.int16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_ct(path)


def test_labels_are_told_from_grey_values_by_their_neighbours():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[3:12, 4:9, 2:15], labels[12:18, 4:9, 2:15] = 20, 21
    noise = np.random.default_rng(0).integers(0, 4096, (20, 20, 20), np.uint16)
    assert label_likeness(labels) > 0.8 and label_likeness(noise) < 0.01
    assert label_likeness(0 * labels) == label_likeness((noise > 2000).astype(np.uint8)) == 1


@pytest.mark.parametrize(
    ("values", "dtype", "words"),
    [
        ([0, 1, 0.37], "f4", "holds 0.37"),
        ([0, np.nan], "f4", "holds nan"),
        ([0, np.inf], "f8", "holds inf"),
        ([0, -1024], "i2", "from -1024 to 0"),
        ([0, 70000], "i4", "from 0 to 70000"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, values, dtype, words):
    path = saved(tmp_path / "mask.nii", values, dtype=dtype)
    with pytest.raises(SpineError, match=f"is no label map, .*{words}") as caught:
        load_mask(path)
    assert str(path) in str(caught.value)


def test_labels_that_a_header_scales_are_rounded_to_whole_numbers(tmp_path):
    path = saved(tmp_path / "mask.nii", [0, 255], 1 / 255, 0, np.uint8)
    assert nib.load(path).get_fdata().ravel().tolist() == pytest.approx([0, 1], abs=1e-6)
    assert load_mask(path).array.ravel().tolist() == [0, 1]
