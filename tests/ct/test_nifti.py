import errno
import gzip
import os
import struct

import nibabel as nib
import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.ct.volume import Volume, load_ct, save_nifti


@pytest.fixture
def ct_path(tmp_path):
    array = np.random.default_rng(0).integers(-1024, 3071, (20, 30, 40), np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([-0.7, 0.7, 2.5, 1])), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


@pytest.fixture
def plain_path(ct_path, tmp_path):
    """The same scan uncompressed, in a folder of its own."""
    path = tmp_path / "plain" / "ct.nii"
    path.parent.mkdir()
    path.write_bytes(gzip.decompress(ct_path.read_bytes()))
    return path


def refusal(path) -> str:
    """Return the sentence with which a file is refused."""
    with pytest.raises(SpineError) as caught:
        load_ct(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".") and "\n" not in message and ". " not in message
    return message


def put(path, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file."""
    content = bytearray(path.read_bytes())
    content[offset : offset + len(data)] = data
    path.write_bytes(content)


@pytest.mark.parametrize("keep", [4, 10, 200, 352, 20000, -8, -1])
def test_a_truncated_file_is_refused(ct_path, plain_path, keep):
    for path in (ct_path, plain_path):
        path.write_bytes(path.read_bytes()[:keep])
        assert "truncated" in refusal(path)


def test_a_header_that_announces_more_than_the_file_can_hold_is_refused_at_once(ct_path):
    content = bytearray(gzip.decompress(ct_path.read_bytes())[:400])
    content[42:48] = struct.pack("<3h", 1500, 1500, 1500)
    ct_path.write_bytes(gzip.compress(bytes(content)))
    assert "header announces 6750000352" in refusal(ct_path)


def test_a_flipped_bit_in_a_gzip_file_is_found(ct_path):
    content = ct_path.read_bytes()
    for place in (len(content) // 2, len(content) - 6):  # the data, the checksum behind them
        ct_path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        assert "damaged" in refusal(ct_path) or "truncated" in refusal(ct_path)


@pytest.mark.parametrize("content", [b"", b"no", b"a text about spines" * 99, bytes(400)])
def test_what_is_no_nifti_is_refused(tmp_path, content):
    path = tmp_path / "ct.nii.gz"
    assert "does not exist" in refusal(path)
    path.write_bytes(content)
    assert "not a NIfTI" in refusal(path)
    path.write_bytes(gzip.compress(content))
    assert "not a NIfTI" in refusal(path)


def test_an_analyze_pair_is_refused(tmp_path):
    image = nib.Nifti1Pair(np.zeros((2, 2, 2), np.int16), np.eye(4))
    nib.save(image, tmp_path / "ct.img")
    assert ".hdr/.img pair" in refusal(tmp_path / "ct.hdr")


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 5), (4, 5, 1, 2)])
def test_what_is_no_single_volume_is_refused(tmp_path, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "ct.nii.gz")
    assert "x".join(map(str, shape)) in refusal(tmp_path / "ct.nii.gz")


def test_colours_and_complex_numbers_are_refused(tmp_path):
    rgb = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii.gz")
    assert "colours (RGB)" in refusal(tmp_path / "rgb.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), "c8"), np.eye(4)), tmp_path / "complex.nii")
    assert "complex64" in refusal(tmp_path / "complex.nii")


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (70, struct.pack("<h", 9999), "damaged NIfTI header"),  # no such data type
        (40, struct.pack("<h", -3), "header"),  # a negative number of axes
        (42, struct.pack("<h", 0), "0x30x40"),  # no voxel along x
        (108, struct.pack("<f", 8), "byte 8"),  # voxels inside the header
        (108, struct.pack("<f", np.nan), "damaged NIfTI header"),
        (280, bytes(48), "maps voxels to no volume"),  # an affine of zeros
        (280, struct.pack("<f", np.nan), "maps voxels to no volume"),
    ],
)
def test_a_damaged_header_is_refused(plain_path, offset, data, words):
    put(plain_path, offset, data)
    assert words in refusal(plain_path)


def test_plain_compressed_and_misnamed_files_hold_the_same_scan(ct_path, plain_path):
    expected = load_ct(ct_path)
    misnamed = plain_path.with_name("compressed.nii")
    misnamed.write_bytes(ct_path.read_bytes())
    for path in (plain_path, misnamed):
        np.testing.assert_array_equal(load_ct(path).array, expected.array)


def test_a_gzip_file_of_several_members_is_read_to_its_end(ct_path, plain_path):
    content = plain_path.read_bytes()
    parts = [content[:1000], content[1000:30000], content[30000:]]
    expected = load_ct(ct_path).array
    ct_path.write_bytes(b"".join(gzip.compress(part) for part in parts))
    np.testing.assert_array_equal(load_ct(ct_path).array, expected)


def test_nifti_2_and_header_extensions_are_read(ct_path, tmp_path):
    image = nib.load(ct_path)
    voxels = np.asarray(image.dataobj)[..., None]  # a fourth axis of one is dropped
    second = nib.Nifti2Image(voxels, image.affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"labels" * 500))
    images = {"two.nii.gz": second, "plain-two.nii": second, "long.nii.gz": image}
    for name, other in images.items():
        nib.save(other, tmp_path / name)
        np.testing.assert_array_equal(load_ct(tmp_path / name).array, load_ct(ct_path).array)


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"the older result")

    def half(self, stream):
        stream.write(bytes(9000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", half)
    with pytest.raises(SpineError, match=f"{name} cannot be written, the disk is full: free"):
        save_nifti(Volume(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"the older result"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([True, False]), "u1"),
        (np.array([0, 255], np.int64), "u1"),
        (np.array([-1, 300], np.int64), "i2"),
        (np.array([0, 65535], np.uint32), "u2"),
        (np.array([-1, 70000], np.int64), "i4"),
        (np.array([0.5, 1], np.float16), "f4"),
        (np.array([0.5, 1], np.float64), "f4"),
    ],
)
def test_values_are_stored_in_the_smallest_common_type(tmp_path, values, expected):
    volume = Volume(values.reshape(1, 1, 2), np.eye(4))
    image = nib.load(save_nifti(volume, tmp_path / "a.nii.gz"))
    assert image.get_data_dtype() == np.dtype(expected)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).ravel(), values)


def test_numbers_beyond_32_bits_and_other_names_are_refused(tmp_path):
    volume = Volume(np.full((1, 1, 2), 2**40), np.eye(4))
    with pytest.raises(SpineError, match="1099511627776"):
        save_nifti(volume, tmp_path / "a.nii.gz")
    with pytest.raises(SpineError, match=r"mask\.png must end in \.nii or \.nii\.gz"):
        save_nifti(volume, tmp_path / "mask.png")
    assert not list(tmp_path.iterdir())


def test_the_same_mask_gives_the_same_bytes(tmp_path):
    volume = Volume(np.random.default_rng(0).integers(0, 3, (9, 9, 9), np.uint8), np.eye(4))
    first, second = (
        save_nifti(volume, tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz")
    )
    assert first == second


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_a_written_file_can_be_read_by_whom_the_umask_allows(tmp_path):
    path = save_nifti(Volume(np.zeros((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "reference").touch()
    assert path.stat().st_mode == (tmp_path / "reference").stat().st_mode
