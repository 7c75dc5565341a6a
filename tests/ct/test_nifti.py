import errno
import gzip
import os
import socket
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from spine_lib import SpineError
from spine_lib.ct import nifti
from spine_lib.ct.volume import Volume, load_ct, load_mask, save_nifti


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


ALIGNED = np.array([[0.8, 0, 0, 40], [0, 0.8, 0, -20], [0, 0, 3, 55], [0, 0, 0, 1]])
SCANNER = np.array([[-0.8, 0, 0, 16], [0, -0.8, 0, 14], [0, 0, 3, -200], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(-1000, 1500, (6, 5, 4), np.int16)


def file_with(path, fields, sform=ALIGNED, qform=SCANNER, voxels=VOXELS):
    """Write a scan whose header has these fields, two positions and both codes 1 otherwise."""
    header = nib.Nifti1Image(voxels, None).header
    header.set_sform(sform, 1)
    header.set_qform(qform, 1)
    header["vox_offset"] = 352
    for name, value in fields.items():
        if name == "pixdim":
            header[name][: len(value)] = value
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes("F"))
    return path


def itk_sees(path) -> np.ndarray | None:
    """Return the affine (RAS+) by which SimpleITK places a file's voxels; None: it refuses."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return np.diag([-1, -1, 1, 1]) @ nib.affines.from_matvec(directions, image.GetOrigin())


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
    assert "needs 6.8 GB of memory and has" in refusal(ct_path)


@pytest.mark.parametrize("share", np.linspace(0.05, 0.95, 10))
def test_damage_in_a_gzip_file_is_not_taken_for_odd_intensities(ct_path, share):
    content = bytearray(ct_path.read_bytes())
    first = int(share * len(content))
    content[first : first + 40] = bytes(40)
    ct_path.write_bytes(content)
    assert "damaged" in refusal(ct_path) or "truncated" in refusal(ct_path)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_at_once(tmp_path):
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).header
    header["dim"][1:4], header["vox_offset"] = (1000, 1000, 1200), 352
    head = gzip.compress(header.binaryblock + bytes(4))
    (tmp_path / "ct.nii.gz").write_bytes(head + 12 * gzip.compress(bytes(100_000_000), 1))
    tracemalloc.start()
    for load in (load_ct, load_mask):
        with pytest.raises(SpineError, match=r"ct\.nii\.gz needs [12]\.[24] GB of memory and has"):
            load(tmp_path / "ct.nii.gz")
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_memory_that_is_not_there_is_one_sentence(ct_path, monkeypatch):
    def no_memory(shape, *rest, **options):
        raise MemoryError(f"Unable to allocate {shape}")

    monkeypatch.setattr(np, "empty", no_memory)
    assert "GB of memory, which is not there" in refusal(ct_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither pipes nor sockets as files")
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "folder.nii").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket.nii")
        for name in ("pipe.nii", "socket.nii", "/dev/zero"):
            assert "is a pipe, socket or device" in refusal(tmp_path / name)
    with pytest.raises(SpineError, match=r"folder\.nii is a folder: name a file"):
        load_mask(tmp_path / "folder.nii")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    assert "a link to itself" in refusal(tmp_path / "loop.nii")
    assert "name is too long" in refusal(tmp_path / (300 * "a" + ".nii"))
    assert "no file can have this name" in refusal(tmp_path / "a\0.nii")


@pytest.mark.parametrize("content", [b"", b"no", b"a text about spines" * 99, bytes(400)])
def test_what_is_no_nifti_is_refused(tmp_path, content):
    path = tmp_path / "ct.nii.gz"
    assert "does not exist" in refusal(path)
    path.write_bytes(content)
    assert "not a NIfTI" in refusal(path)
    path.write_bytes(gzip.compress(content))
    assert "not a NIfTI" in refusal(path)


@pytest.mark.parametrize(
    ("kind", "array", "words"),
    [
        (nib.Nifti1Image, np.zeros((4, 5, 6, 3), np.int16), "has the shape 4x5x6x3"),
        (nib.Nifti1Image, np.zeros((4, 5), np.int16), "has the shape 4x5"),
        (nib.Nifti1Image, np.zeros((4, 5, 1, 2), np.int16), "has the shape 4x5x1x2"),
        (nib.Nifti1Image, np.zeros((2, 3, 4), "u1,u1,u1"), "colours (RGB)"),
        (nib.Nifti1Image, np.zeros((2, 3, 4), "c8"), "complex64"),
        (nib.Nifti1Pair, np.zeros((2, 3, 4), np.int16), ".hdr/.img pair"),
    ],
)
def test_what_is_no_single_scalar_volume_is_refused(tmp_path, kind, array, words):
    path = tmp_path / ("ct.hdr" if kind is nib.Nifti1Pair else "ct.nii")
    array = array.astype([("R", "u1"), ("G", "u1"), ("B", "u1")]) if array.dtype.names else array
    nib.save(kind(array, np.eye(4)), path)
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (70, struct.pack("<h", 9999), "damaged NIfTI header"),  # no such data type
        (40, struct.pack("<h", -3), "header"),  # a negative number of axes
        (42, struct.pack("<h", 0), "0x30x40"),  # no voxel along x
        (108, struct.pack("<f", 8), "byte 8"),  # voxels inside the header
        (108, struct.pack("<f", np.nan), "damaged NIfTI header"),
        (72, struct.pack("<h", 8), "bitpix 8 contradicts the data type int16"),
        (344, b"n+9", "not a NIfTI file"),
        (0, struct.pack("<i", 349), "not a NIfTI file"),
        (42, struct.pack("<h", 10), "more voxels than the 10x30x40"),
        (42, struct.pack("<h", 21), "truncated"),
        (80, struct.pack("<f", np.inf), "spacing [inf"),
        (280, struct.pack("<f", np.nan), "maps voxels to no volume"),
        (280, struct.pack("<f", 1e35), "no patient"),  # an srow
        (312, bytes(12), "maps voxels to no volume"),  # all slices at one height
    ],
)
def test_a_damaged_header_is_refused(plain_path, offset, data, words):
    put(plain_path, offset, data)
    assert words in refusal(plain_path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"qform_code": 0, "srow_x": 0, "srow_y": 0, "srow_z": 0}, "maps voxels to no volume"),
        ({"sform_code": 0, "quatern_b": 2}, "w2 should be positive"),
        ({"sform_code": 0, "quatern_b": np.nan}, "maps voxels to no volume"),
        ({"sform_code": 0, "pixdim": [1, 0, 0.8, 3]}, "maps voxels to no volume"),
        ({"sform_code": 0, "pixdim": [1, -0.8, 0.8, 3]}, "should be positive"),
        ({"sform_code": 0, "pixdim": [1, 800, 800, 3000]}, "800 x 800 x 3e"),  # micrometres, unsaid
        ({"sform_code": 0, "pixdim": [1, 8e-4, 8e-4, 3e-3]}, "0.0008 x 0.0008 x"),  # metres
        ({"xyzt_units": 1}, "800 x 800 x 3e"),  # millimetres called metres
    ],
)
def test_a_position_that_no_patient_has_is_refused(tmp_path, fields, words):
    assert words in refusal(file_with(tmp_path / "ct.nii", fields))


SHEARED = ALIGNED + np.outer([0, 0.6, 0, 0], [0, 0, 1, 0])
POSITIONS = [
    *({"qform_code": q, "sform_code": s} for q in (-1, 0, 1, 2, 5, 7) for s in (-1, 0, 1, 2, 5, 7)),
    *({"sform_code": 0, "pixdim": [qfac]} for qfac in (0, 5, -1)),
    *({"pixdim": [1, mm, mm, mm], "qform_code": code} for mm in (0, 1) for code in (0, 1)),
    {"xyzt_units": 7},
]


@pytest.mark.parametrize("fields", POSITIONS, ids=str)
@pytest.mark.parametrize("sform", [ALIGNED, SHEARED], ids=["straight", "sheared"])
@pytest.mark.filterwarnings("ignore")
def test_every_program_sees_a_mask_on_its_scan(tmp_path, fields, sform):
    path = file_with(tmp_path / "ct.nii", fields, sform)
    ct = load_ct(path)
    mask = save_nifti(ct.with_array((ct.array > 200).astype(np.uint8)), tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(ct.source.affine, nib.load(path).affine, atol=1e-4)
    np.testing.assert_array_equal(nib.load(mask).affine, nib.load(path).affine)
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), VOXELS > 200)
    expected = nifti.itk_affine(ct.source.header)
    for seen in (itk_sees(path), itk_sees(mask)):
        assert (seen is None) == (expected is None)
        assert seen is None or np.allclose(seen, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("unit", "factor"), [("micron", 1000), ("meter", 0.001), ("mm", 1), ("unknown", 1)]
)
def test_lengths_are_read_in_the_unit_of_the_header(tmp_path, unit, factor):
    scale = np.diag([factor, factor, factor, 1])
    image = nib.Nifti1Image(VOXELS, scale @ ALIGNED)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "ct.nii")
    ct = load_ct(tmp_path / "ct.nii")
    np.testing.assert_allclose(ct.affine, ALIGNED, rtol=1e-5)
    mask = save_nifti(ct, tmp_path / "mask.nii")
    assert nib.load(mask).header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(itk_sees(mask), ALIGNED, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(nib.load(mask).affine, image.affine, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sform_code": 2}, "holds two positions up to 2[0-9]* mm apart"),
        ({"qform_code": 0, "pixdim": [1, 1, 1, 1]}, "holds two positions up to 6"),
        ({"qform_code": 0, "sform_code": 0}, "says nothing about orientation"),
        ({"sform_code": 7}, "sform_code 7, which NIfTI does not define"),
        ({"qform_code": -3}, "qform_code -3, which NIfTI does not define"),
        ({"srow_x": 0, "srow_y": 0, "srow_z": 0}, "sform of zeros: its qform is used"),
        ({"sform_code": 2, "quatern_b": 2}, "damaged qform"),
        ({"xyzt_units": 5}, "unknown unit of length"),
    ],
)
def test_an_odd_position_is_reported(tmp_path, fields, words):
    path = file_with(tmp_path / "ct.nii", fields)
    with pytest.warns(UserWarning, match=f"ct.nii .*{words}") as caught:
        ct = load_ct(path)
    if "zeros" in words:
        np.testing.assert_allclose(ct.source.affine, SCANNER, atol=1e-5)
    assert all(note.filename == __file__ and "\n" not in str(note.message) for note in caught)


@pytest.mark.parametrize(("offset", "data"), [(4, b"n+3"), (8, b"\0"), (10, b"\n")])
def test_the_magic_of_nifti_2_is_checked_to_its_line_ends(tmp_path, offset, data):
    nib.save(nib.Nifti2Image(VOXELS, ALIGNED), tmp_path / "ct.nii")
    load_ct(tmp_path / "ct.nii")
    put(tmp_path / "ct.nii", offset, data)
    assert "damaged NIfTI header (sizeof_hdr 540, magic" in refusal(tmp_path / "ct.nii")


def test_plain_compressed_and_misnamed_files_hold_the_same_scan(ct_path, plain_path, tmp_path):
    """So do several gzip members, NIfTI-2, a fourth axis of one, and header extensions."""
    image, expected, content = nib.load(ct_path), load_ct(ct_path).array, plain_path.read_bytes()
    (tmp_path / "compressed.nii").write_bytes(ct_path.read_bytes())
    parts = [content[:1000], content[1000:30000], content[30000:]]
    (tmp_path / "members.nii.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    second = nib.Nifti2Image(np.asarray(image.dataobj)[..., None], image.affine)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"labels" * 500))
    images = {"two.nii.gz": second, "plain-two.nii": second, "long.nii.gz": image}
    for name, other in images.items():
        nib.save(other, tmp_path / name)
    for path in (plain_path, *tmp_path.glob("*.nii*")):
        np.testing.assert_array_equal(load_ct(path).array, expected)


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
        (np.array([-1, 300], np.int64), "i2"),
        (np.array([0, 65535], np.uint32), "u2"),
        (np.array([-1, 70000], np.int64), "i4"),
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
