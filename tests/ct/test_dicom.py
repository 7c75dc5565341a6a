import itertools
import re
import struct

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import write_bare, write_series, write_slice
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    MPEG2MPML,
    BasicTextSRStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    MediaStorageDirectoryStorage,
    generate_uid,
)

from spine_lib import SpineError, cli
from spine_lib.ct import load_ct, load_mask, require_same_grid, save_nifti

ROTATIONS = [
    np.array(axes, np.float64)
    for axes in itertools.permutations(np.vstack([np.eye(3), -np.eye(3)]), 2)
    if axes[0] @ axes[1] == 0
]


def refusal(path, series=None) -> str:
    """Return the sentence with which a folder is refused."""
    with pytest.raises(SpineError) as caught:
        load_ct(path, series)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize("number", range(len(ROTATIONS)))
def test_a_series_of_any_direction_keeps_every_voxel_at_its_place(number, tmp_path):
    row, column = ROTATIONS[number]
    normal = np.cross(row, column)
    heights_mm = [-2.0, 0.5, 3.0, 5.5]
    first = np.array([-30.0, 12, 70])
    for name, height in zip("cadb", heights_mm, strict=True):
        place = first + normal * height
        j, i = np.indices((3, 4))
        points = (
            place[:, None, None] + row[:, None, None] * i * 0.6 + column[:, None, None] * j * 0.8
        )
        left, posterior, up = np.rint(points * 10)
        code = -left + 3 * -posterior + up - 700  # RAS: x = -left, y = -posterior
        write_slice(
            tmp_path / name, place, code.astype(np.int16), (row, column), RescaleIntercept=0
        )
    ct = load_ct(tmp_path)
    x, y, z = np.einsum("ij,jabc->iabc", ct.affine[:3, :3], np.indices(ct.shape))
    x, y, z = (axis + start for axis, start in zip((x, y, z), ct.affine[:3, 3], strict=True))
    np.testing.assert_allclose(ct.array, 10 * x + 30 * y + 10 * z - 700, atol=0.5)
    assert nib.aff2axcodes(ct.affine) == ("R", "A", "S")

    saved = nib.load(save_nifti(ct, tmp_path / "mask.nii.gz"))
    assert saved.shape == (4, 3, 4)
    to_lps = np.diag([-1.0, -1, 1])
    expected = to_lps @ np.column_stack([row * 0.6, column * 0.8, normal * 2.5])
    np.testing.assert_allclose(saved.affine[:3, :3], expected, atol=1e-5)


def test_spacing_comes_from_the_positions_and_not_from_the_thickness(tmp_path):
    ct = load_ct(write_series(tmp_path))
    assert ct.spacing_mm == pytest.approx((0.6, 0.8, 2))
    assert ct.array[0, 0].tolist() == [-24, -14, -4, 6]
    assert ct.array.dtype == np.int16


def test_each_slice_has_its_own_slope_and_intercept_and_nothing_overflows(tmp_path):
    (tmp_path / "unsigned").mkdir()
    for height in (0, 1):
        pixels = np.array([[0, 1024], [3000, 63]], np.uint16)
        write_slice(tmp_path / "unsigned" / str(height), (0, 0, height), pixels)
    hu = load_ct(tmp_path / "unsigned").array[:, :, 0]
    assert sorted(hu.ravel()) == [-1024, -961, 0, 1976]
    pixels = np.full((2, 2), 100, np.int16)
    write_slice(tmp_path / "a", (0, 0, 0), pixels, RescaleSlope=2, RescaleIntercept=-300)
    write_slice(tmp_path / "b", (0, 0, 1), pixels, RescaleSlope=0.5, RescaleIntercept=7)
    assert load_ct(tmp_path).array[0, 0].tolist() == [-100, 57]


def test_a_tilted_gantry_shows_as_a_shear(tmp_path):
    for number in range(4):
        write_slice(tmp_path / str(number), (0, number, 2 * number), np.full((2, 2), 9, "<i2"))
    ct = load_ct(tmp_path)
    assert ct.affine[1, 2] == pytest.approx(-1)
    assert ct.affine[2, 2] == pytest.approx(2)


def test_files_that_are_no_images_are_passed_over(tmp_path):
    write_series(tmp_path)
    (tmp_path / "README.txt").write_text("notes", encoding="utf-8")
    (tmp_path / "DICOMDIR").write_bytes(b"index")
    (tmp_path / ".hidden.dcm").write_bytes(b"x")
    (tmp_path / "thumbnails").mkdir()
    no_image = {"SOPClassUID": BasicTextSRStorage, "Rows": None, "PixelData": None}
    write_slice(tmp_path / "report.dcm", (0, 0, 0), np.zeros((1, 1), "<i2"), **no_image)
    assert load_ct(tmp_path).shape[2] == 4


def test_a_folder_without_images_is_refused(tmp_path):
    assert "no DICOM image" in refusal(tmp_path)
    (tmp_path / "notes.txt").write_text("notes", encoding="utf-8")
    write_series(tmp_path / "series")
    assert "no DICOM image" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("heights_mm", "words"),
    [
        ((0, 2, 6, 8), "misses 1 slice(s)"),
        ((0, 2, 4, 12, 14), "misses 3 slice(s)"),
        ((0, 2, 6), "misses 1 slice(s)"),
        ((0, 4, 6), "misses 1 slice(s)"),
        ((0, 2, 2, 4), "two slices at one position"),
        ((0, 2, 4.5, 6.5), "irregularly spaced"),
        ((0,), "one DICOM slice only"),
    ],
)
def test_a_series_with_a_gap_is_refused(tmp_path, heights_mm, words):
    assert words in refusal(write_series(tmp_path, heights_mm))


def test_slices_that_stand_beside_each_other_are_refused(tmp_path):
    for number, shift in enumerate((0, 0, 5, 0)):
        write_slice(tmp_path / f"{number}", (shift, 0, number), np.full((2, 2), 9, "<i2"))
    assert "lies 5 mm beside its place" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Modality", "MR", "modality MR"),
        ("NumberOfFrames", 30, "multi-frame"),
        ("SamplesPerPixel", 3, "colours"),
        ("SamplesPerPixel", b"", "has no SamplesPerPixel"),
        ("PhotometricInterpretation", "PALETTE COLOR", "colours (PALETTE COLOR)"),
        ("Columns", None, "has no Columns"),
        ("Rows", b"\0\0", "has 0 x 4 pixels"),
        ("Rows", b"\1\0\2\0", "has [1, 2] as Rows, which is one number"),
        ("BitsAllocated", b"", "Bits Allocated"),
        ("BitsStored", b"\x20\0", "HighBit 15, which BitsStored contradicts"),
        ("ImagePositionPatient", None, "has no ImagePositionPatient, which is 3 numbers"),
        ("ImagePositionPatient", b"0\\0", "as ImagePositionPatient, which is 3 numbers"),
        ("ImagePositionPatient", b"here", "has here as ImagePositionPatient"),
        ("ImagePositionPatient", b"0\\0\\NaN ", "as ImagePositionPatient"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\1", "which is 6 numbers"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\2\\0", "not two unit vectors"),
        ("ImageOrientationPatient", b"1\\0\\0\\0.1\\0.995\\0", "not two unit vectors"),
        ("PixelSpacing", None, "has no PixelSpacing"),
        ("PixelSpacing", b"0.8", "has 0.8 as PixelSpacing, which is 2 numbers"),
        ("PixelSpacing", b"0\\0.8", "has the PixelSpacing [0.0, 0.8] mm"),
        ("PixelSpacing", b"-0.8\\0.8", "has the PixelSpacing [-0.8, 0.8] mm"),
        ("PixelSpacing", b"1e-9\\1e-9", "has the PixelSpacing"),
        ("RescaleSlope", b"one ", "has one as RescaleSlope"),
        ("RescaleSlope", b"0 ", "RescaleSlope 0"),
        ("RescaleIntercept", b"NaN ", "as RescaleIntercept"),
    ],
)
def test_a_tag_that_a_slice_cannot_have_is_refused_with_its_value(tmp_path, name, value, words):
    for folder in (write_series(tmp_path / "all", **{name: value}), write_series(tmp_path / "one")):
        if folder.name == "one":
            pixels = np.full((3, 4), 1000, np.uint16)
            write_slice(folder / "odd.dcm", (0, 0, 8), pixels, **{name: value})
        message = refusal(folder)
        assert words in message and ".dcm " in message


def test_spacing_written_as_text_is_read(tmp_path):
    write_series(tmp_path, PixelSpacing=None)
    for path in tmp_path.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelSpacing", "UT", "0.8\\0.6")
        dataset.save_as(path)
    assert load_ct(tmp_path).spacing_mm == pytest.approx((0.6, 0.8, 2))


@pytest.mark.parametrize("name", ["RescaleIntercept", "RescaleSlope"])
def test_a_slice_without_the_scaling_of_the_others_is_refused(tmp_path, name):
    write_series(tmp_path)
    write_slice(tmp_path / "odd", (0, 0, 8), np.zeros((3, 4), "<u2"), **{name: None})
    assert f"odd has no {name}, though other slices have one" in refusal(tmp_path)


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_slices_without_preamble_and_file_meta_are_read(tmp_path, implicit, suffix):
    write_series(tmp_path)
    expected = load_ct(tmp_path)
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        write_bare(tmp_path / f"IM{number}{suffix}", pydicom.dcmread(path), implicit)
        path.unlink()
    assert np.array_equal(load_ct(tmp_path).array, expected.array)


def test_a_slice_that_lost_its_class_and_its_rows_is_refused(tmp_path):
    path = sorted(write_series(tmp_path).iterdir())[-1]
    dataset = pydicom.dcmread(path)
    del dataset.SOPClassUID, dataset.Rows
    write_bare(path, dataset, implicit=True)
    assert "is cut off or no DICOM image" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["DIRFILE", "DICOMDIR", "index.dcm"])
def test_a_directory_record_of_any_name_is_passed_over(tmp_path, name):
    write_series(tmp_path)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        MediaStorageDirectoryStorage, generate_uid(),
    )  # fmt: skip
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    record = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    record.FileSetID, record.DirectoryRecordSequence = "DISC", []
    (tmp_path / "alone").mkdir()
    for folder in (tmp_path, tmp_path / "alone"):
        record.save_as(folder / name, enforce_file_format=True)
    assert load_ct(tmp_path).shape == (4, 3, 4)
    assert "holds no DICOM image" in refusal(tmp_path / "alone")


@pytest.mark.parametrize("content", [b"", bytes(5000), b"notes"])
def test_a_file_that_may_be_a_lost_slice_is_named(tmp_path, content):
    for height in range(3):
        write_slice(tmp_path / f"IM{height}", (0, 0, height), np.zeros((2, 2), "<u2"))
    (tmp_path / "IM3").write_bytes(content)
    with pytest.warns(UserWarning, match="IM3 passed over, for it is no DICOM image"):
        assert load_ct(tmp_path).shape[2] == 3


def two_series(folder):
    """Write a series of four slices and one of three, which begin at the same place."""
    tags = {"SeriesNumber": 2, "SeriesDescription": "Bone 1.0"}
    write_series(folder, **tags)
    for height in (0, 2, 4):
        tags = {"SeriesNumber": 3, "SeriesDescription": "Lung", "series": "4.5"}
        write_slice(folder / f"lung{height}", (0, 0, height), np.zeros((3, 4), "<u2"), **tags)
    return folder


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    message = refusal(two_series(tmp_path))
    assert "mixes 2 DICOM series" in message and "--series" in message
    assert "2 (Bone 1.0, 4 slices); 3 (Lung, 3 slices)" in message
    assert "has no DICOM series '7', of 2 in all" in refusal(tmp_path, "7")
    with pytest.raises(SpineError, match="I0 is no folder of DICOM series: leave --series out"):
        load_ct(tmp_path / "I0", "2")
    for series, count in (("2", 4), ("3", 3), ("Lung", 3), ("4.5", 3), ("1.2.3", 4)):
        assert load_ct(tmp_path, series).shape[2] == count


@pytest.mark.filterwarnings("ignore:.*in every voxel")
def test_the_commands_take_the_series(tmp_path, capsys):
    two_series(tmp_path)
    for series, shape in (("Lung", "4 x 3 x 3"), ("2", "4 x 3 x 4")):
        with pytest.raises(SystemExit):
            cli.main(["info", str(tmp_path), "--series", series])
        assert shape in capsys.readouterr().out


def test_bits_above_those_stored_are_left_out(tmp_path):
    overlay = np.full((3, 4), 0x8000 + 1000, np.uint16)
    for height in range(3):
        tags = {"BitsStored": 12, "HighBit": 11, "NumberOfFrames": 1}
        write_slice(tmp_path / str(height), (0, 0, height), overlay, **tags)
    assert (load_ct(tmp_path).array == -24).all()


@pytest.mark.parametrize(
    "tags",
    [
        {"pixels": np.zeros((4, 4), "<u2")},
        {"PixelSpacing": [0.5, 0.5]},
        {"directions": (0, 1, 0, 0, 0, -1)},
        {"series": "4.5.6"},
    ],
)
def test_a_slice_unlike_the_others_is_refused(tmp_path, tags):
    write_series(tmp_path)
    write_slice(tmp_path / "odd", (0, 0, 8), **{"pixels": np.zeros((3, 4), "<u2")} | tags)
    words = "mixes 2 DICOM series" if "series" in tags else "differs from"
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("start", [0, 132], ids=["whole", "without preamble"])
@pytest.mark.parametrize("keep", [0, 9, 20, 200, 400, -10])
def test_a_truncated_slice_is_refused(tmp_path, keep, start):
    write_series(tmp_path)
    path = sorted(tmp_path.iterdir())[-1]
    path.write_bytes(path.read_bytes()[start:][:keep])
    assert path.name in refusal(tmp_path)


def test_the_real_series_is_decoded_and_lies_on_its_mask(sample_root, tmp_path):
    ct = load_ct(sample_root / "dicom" / "ct")
    mask = load_mask(sample_root / "dicom" / "mask.nii.gz")
    require_same_grid(ct, mask)
    assert ct.shape == (512, 512, 20)
    assert ct.spacing_mm == pytest.approx((0.9765625, 0.9765625, 2))
    assert ct.source.orientation == "LPS"
    assert 150 < ct.array[np.isin(mask.array, (32, 33))].mean() < 400  # T11 and T12 are bone
    saved = nib.load(save_nifti(ct.with_array(mask.array), tmp_path / "mask.nii.gz"))
    assert nib.aff2axcodes(saved.affine) == ("L", "P", "S")
    np.testing.assert_allclose(saved.affine[:3, 3], [249.51171875, 437.51171875, -804.5])


@pytest.mark.parametrize(
    ("syntax", "data", "words"),
    [
        (JPEGLosslessSV1, b"\xff\xd8", "cannot be decoded .*JPEG Lossless.*pylibjpeg-libjpeg"),
        (MPEG2MPML, b"\0\0", "cannot be decoded .*MPEG2.*or export it uncompressed"),
        (
            JPEG2000Lossless,
            struct.pack(">HH", 0xFF4F, 0xFF51) + bytes(60),
            r"damaged or missing pixel data \(.*SIZ marker",
        ),
    ],
)
def test_pixels_that_cannot_be_decoded_are_refused(tmp_path, syntax, data, words):
    write_series(tmp_path)
    path = sorted(tmp_path.iterdir())[0]
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([data])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert re.search(words, refusal(tmp_path))
