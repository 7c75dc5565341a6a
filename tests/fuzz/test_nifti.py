"""NIfTI files changed at random load as nibabel loads them, or end in one sentence."""

import gzip
import os
import struct
import warnings

import nibabel as nib
import numpy as np
import pytest
from fuzzing import FUZZ, end
from hypothesis import given
from hypothesis import strategies as st

from spine_lib.ct.volume import Volume, load_ct, load_either, load_mask, save_nifti

SHAPE = (7, 6, 5)
UNITS = {1: 1000.0, 3: 0.001}

pytestmark = pytest.mark.filterwarnings("ignore")


@st.composite
def scans(draw, dtypes=("u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4")):
    """Draw the image of a small scan: version, type, orientation, spacing, scaling."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    voxels = rng.integers(0, 256 if dtype.itemsize == 1 else 3000, SHAPE)
    if dtype.kind != "u":
        voxels -= 1000
    affine = np.eye(4)
    flips = np.diag(rng.choice([-1, 1], 3)) @ np.eye(3)[rng.permutation(3)]
    turned = np.linalg.qr(flips + rng.uniform(-0.2, 0.2, (3, 3)) * draw(st.booleans()))
    rotation = turned[0] * np.sign(np.diag(turned[1]))
    affine[:3, :3] = rotation * rng.uniform(0.3, 5, 3)
    affine[:3, 3] = rng.uniform(-500, 500, 3)
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
    order = ">" if dtype.str.startswith(">") else "<"
    image = kind(voxels.astype(dtype), None, kind.header_class(endianness=order))
    image.header.set_data_dtype(dtype)
    image.header.set_qform(affine, draw(st.sampled_from([0, 1, 2])))
    image.header.set_sform(affine, draw(st.sampled_from([0, 1, 2])))
    image.header.set_xyzt_units("mm")
    return image


def bytes_of(image, slope=np.nan, intercept=np.nan) -> bytearray:
    """Return the bytes of an uncompressed file; nibabel itself would rescale the voxels."""
    header = image.header.copy()
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    header["scl_slope"], header["scl_inter"] = slope, intercept
    voxels = np.asanyarray(image.dataobj).astype(header.get_data_dtype())
    return bytearray(header.binaryblock + bytes(4) + voxels.tobytes("F"))


def written(folder, content, packed):
    path = folder / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))
    return path


def nibabel_reads(path):
    """Return the array and affine (mm) by which nibabel reads a file in RAS+, or None."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            image = nib.load(path)
            scale = UNITS.get(int(image.header["xyzt_units"]) & 7, 1.0)
            image = nib.as_closest_canonical(image)
            values = image.get_fdata()
    except Exception:  # it has many
        return None
    return values.reshape(values.shape[:3]), np.diag([scale, scale, scale, 1]) @ image.affine


def check(path, load=load_ct, note=""):
    """Load a file; where that succeeds, require nibabel's array and position."""
    volume = end(lambda: load(path), path)
    if isinstance(volume, str):
        return volume
    expected = nibabel_reads(path)
    assert expected is not None, note
    np.testing.assert_array_equal(volume.array, np.rint(expected[0]), note)
    np.testing.assert_allclose(volume.affine, expected[1], rtol=1e-4, atol=1e-3, err_msg=note)
    return volume


NUMBERS = [0, 1, -1, 2, 3, 5, 7, 100, 255, 256, 348, 352, 540, 32767, -32768, 2**31 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.8, 1e-3, 1e-30, 1e5, 1e35, -1e35, np.nan, np.inf, -np.inf]
NAMES = (set(kind.template_dtype.names) for kind in (nib.Nifti1Header, nib.Nifti2Header))
FIELDS = sorted(set.intersection(*NAMES) - {"magic"})


def put(header, name, index, value):
    """Set one number of a header field, wrapped to its type."""
    field = header[name]
    flat = np.atleast_1d(field).reshape(-1)
    if field.dtype.kind in "iu":
        value = int(np.nan_to_num(value, nan=0, posinf=2**15, neginf=-(2**15))) % 2**16
        flat[index % len(flat)] = np.array(value).astype(field.dtype)
    elif field.dtype.kind == "f":
        flat[index % len(flat)] = value
    header[name] = flat.reshape(field.shape)


@FUZZ
@given(
    scans(),
    st.lists(
        st.tuples(st.sampled_from(FIELDS), st.integers(0, 7), st.sampled_from(NUMBERS + FLOATS)),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_any_number_in_a_header_is_read_as_by_nibabel_or_refused(folder, image, changes, packed):
    content = bytes_of(image)
    size = image.header.sizeof_hdr
    header = type(image.header)(bytes(content[:size]), check=False)
    for change in changes:
        put(header, *change)
    path = written(folder, header.binaryblock + content[size:], packed)
    for load in (load_ct, load_mask, lambda path: load_either(path)[0]):
        volume = check(path, load, str(changes))
    if isinstance(volume, Volume):
        out = folder / "mask.nii"
        saved = end(lambda: save_nifti(volume.with_array(volume.array > 40), out), out)
        assert np.array_equal(nib.load(saved).affine, nib.load(path).affine, equal_nan=True)
        out.unlink()


@FUZZ
@given(scans(), st.integers(0, 351), st.binary(min_size=1, max_size=8), st.booleans())
def test_any_bytes_in_a_header_are_read_as_by_nibabel_or_refused(
    folder, image, offset, data, packed
):
    content = bytes_of(image)
    content[offset : offset + len(data)] = data
    check(written(folder, content, packed), note=f"{offset} {data}")


@FUZZ
@given(scans(), st.data(), st.sampled_from(["cut", "flip", "insert", "zero", "append"]))
def test_no_damage_to_a_compressed_file_goes_unnoticed(folder, image, data, how):
    path = written(folder, bytes_of(image), packed=True)
    right = load_ct(path)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(10, len(content) - 1), "at")
    if how == "cut":
        del content[at:]
    elif how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=30))
    elif how == "zero":
        content[at : at + 20] = bytes(20)
    else:
        content += data.draw(st.binary(min_size=1, max_size=30))
    path.write_bytes(content)
    volume = end(lambda: load_ct(path), path)
    if isinstance(volume, str):
        assert "truncated" in volume or "damaged" in volume or "not a NIfTI" in volume, volume
    else:
        np.testing.assert_array_equal(volume.array, right.array)


@FUZZ
@given(scans(), st.integers(-300, 300), st.booleans())
def test_a_file_of_another_length_than_its_header_announces_is_refused(folder, image, more, packed):
    content = bytes_of(image)
    content = content[:more] if more < 0 else content + b"\7" * more
    volume = check(written(folder, content, packed))
    assert isinstance(volume, Volume) == (more == 0)


@FUZZ
@given(scans(), st.floats(-3, 3, width=32), st.floats(-2000, 2000, width=32), st.booleans())
def test_every_type_orientation_and_scaling_is_read_as_by_nibabel(
    folder, image, slope, intercept, packed
):
    path = written(folder, bytes_of(image, slope, intercept), packed)
    check(path)
    check(path, load_mask)


@FUZZ
@given(st.binary(max_size=1200), st.sampled_from([b"", b"\x1f\x8b", struct.pack("<i", 348)]))
def test_random_bytes_are_refused(folder, content, start):
    path = folder / "scan.nii.gz"
    path.write_bytes(start + content)
    assert isinstance(check(path), str)


@FUZZ
@given(st.sampled_from(["scan", "a b", "ä", "a\nb", "-o", "%s", "{x}", "a" * 250, "nul\0", ".."]))
def test_any_name_can_be_read_and_written_or_is_refused(folder, name):
    path = folder / f"{name}.nii"
    volume = Volume(np.full((2, 2, 2), -50, np.int16), np.eye(4))
    before = set(os.listdir(folder))
    saved = end(lambda: save_nifti(volume, path), path.with_name(name.replace("\n", " ")))
    if isinstance(saved, str):
        assert set(os.listdir(folder)) == before
    else:
        np.testing.assert_array_equal(load_ct(path).array, volume.array)
        path.unlink()
