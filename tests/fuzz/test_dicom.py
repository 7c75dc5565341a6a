"""DICOM folders changed at random load right, or end in one sentence that names file and value."""

import collections
import os
import shutil
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import write_slice
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import BasicTextSRStorage

from spine_lib.ct.volume import load_ct

FUZZ = settings.get_profile("fuzz")
ENDINGS = collections.Counter()
HEIGHTS_MM = (0, 2, 4, 6)
PIXELS = np.arange(48, dtype=np.uint16).reshape(4, 3, 4) + 900

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder that each try fills anew; how they ended is printed (`-s` shows it)."""
    yield tmp_path_factory.mktemp("dicom") / "series"
    print(f"\n{sum(ENDINGS.values())} DICOM inputs: {dict(ENDINGS)}")


def emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def load(ending, folder, series=None):
    """Load a folder; return the volume and the warnings, or None where it is refused."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        volume = ending(lambda: load_ct(folder, series), folder)
    refused = isinstance(volume, str)
    ENDINGS["one sentence" if refused else "a right value"] += 1
    if refused:
        return None
    assert np.isfinite(volume.affine).all() and volume.array.dtype == np.int16
    assert 0.01 <= min(volume.spacing_mm) and np.linalg.det(volume.affine[:3, :3]) > 0
    return volume, [str(note.message) for note in notes]


NUMBERS = ["0", "1", "-1", "0.8", "0.6", "2", "1e-9", "1e9", "NaN", "inf", "1e999", "", "x", "0,8"]
VALUES = st.one_of(
    st.lists(st.sampled_from(NUMBERS), max_size=7).map(lambda parts: "\\".join(parts).encode()),
    st.sampled_from(
        [b"1\\0\\0\\0\\1\\0", b"0\\1\\0\\0\\0\\-1", b"1\\0\\0\\0.1\\1\\0", b"MONOCHROME1"]
    ),
    st.binary(max_size=9),
)
TAGS = """Modality SeriesInstanceUID SOPClassUID Rows Columns NumberOfFrames SamplesPerPixel
    PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation
    ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept
    SliceThickness SeriesNumber SeriesDescription""".split()


@FUZZ
@given(tag=st.sampled_from(TAGS), value=VALUES, only=st.sampled_from([None, 0, 2]))
def test_a_tag_of_any_content_is_taken_as_it_is_or_refused(ending, folder, tag, value, only):
    value += b" " * (len(value) % 2)
    emptied(folder)
    for number, height in enumerate(HEIGHTS_MM):
        tags = {tag: value} if only in (None, number) else {}
        try:
            write_slice(folder / f"{9 - number}.dcm", (0, 0, height), PIXELS[number], **tags)
        except Exception:  # pydicom does not write all that others do
            reject()
    loaded = load(ending, folder)
    if loaded is None:
        return
    volume, _ = loaded
    slope, intercept, spacing = np.ones((4, 1, 1)), np.full((4, 1, 1), -1024.0), [0.6, 0.8, 2]
    changed = slice(None) if only is None else slice(only, only + 1)
    if tag in ("RescaleSlope", "RescaleIntercept") and value.strip():
        (slope if tag.endswith("Slope") else intercept)[changed] = float(value)
    elif tag == "RescaleIntercept":
        intercept[:] = 0
    if tag == "PixelSpacing" and only is None:
        spacing[1::-1] = map(float, value.decode().split("\\"))
    if tag not in ("ImageOrientationPatient", "BitsStored", "PixelRepresentation"):
        expected = np.rint(PIXELS * slope + intercept).transpose(2, 1, 0)[::-1, ::-1]
        assert np.array_equal(volume.array, expected)
        assert volume.spacing_mm == pytest.approx(spacing, rel=1e-3)
    assert abs(np.linalg.det(volume.affine)) == pytest.approx(np.prod(spacing), rel=1e-2)


def bare(path, implicit):
    """Write a file anew without preamble and file meta."""
    dataset = pydicom.dcmread(path)
    dataset.decode()
    with path.open("wb") as raw:
        stream = DicomFileLike(raw)
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        write_dataset(stream, dataset)


@FUZZ
@given(st.data())
def test_bytes_changed_anywhere_never_end_in_more_than_a_sentence(ending, folder, data):
    kind = data.draw(st.sampled_from(["standard", "explicit", "implicit"]))
    suffix = data.draw(st.sampled_from([".dcm", ""]))
    emptied(folder)
    for number, height in enumerate(HEIGHTS_MM):
        path = folder / f"{number}{suffix}"
        write_slice(path, (0, 0, height), PIXELS[number])
        if kind != "standard":
            bare(path, kind == "implicit")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(0, len(content) - 1)))
        stop = start + data.draw(st.sampled_from([1, 1, 2, 4, 40, 10**6]))
        new = data.draw(st.sampled_from([b"", b"\0", b"\xff\xff\xff\xff"]) | st.binary(max_size=4))
        content[start:stop] = new
    path.write_bytes(content)
    loaded = load(ending, folder)
    if loaded is not None and loaded[0].shape != (4, 3, 4):
        volume, notes = loaded
        assert volume.shape == (4, 3, 3) and any(f"{path.name} passed over" in n for n in notes)


def other_file(name):
    """Return what puts a file that is no slice into a folder."""

    def put(folder):
        path = folder / name
        if name == "pipe":
            os.mkfifo(path)
        elif name == "folder.dcm":
            path.mkdir()
        elif name == "report.dcm":
            no_image = {"SOPClassUID": BasicTextSRStorage, "Rows": None, "PixelData": None}
            write_slice(path, (0, 0, 0), np.zeros((1, 1), "<u2"), **no_image)
        else:
            path.write_bytes(b"not an image of any kind")

    return put


CLUTTER = ["._0.dcm", ".DS_Store", "Thumbs.db", "README", "x.txt", "pipe", "folder.dcm"]
CLUTTER += ["report.dcm", "DICOMDIR", "desktop.ini"]


@FUZZ
@given(st.data())
def test_a_folder_of_shuffled_series_gives_one_whole_series_or_none(ending, folder, data):
    emptied(folder)
    counts = data.draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    wrong = data.draw(st.sampled_from(["", "", "gap", "double", "shift", "turn"]))
    names = data.draw(st.permutations(range(sum(counts))))
    step_mm, tilt_mm = data.draw(st.sampled_from([(2, 0), (0.625, 0), (1.5, 0.4)]))
    suffix = data.draw(st.sampled_from(["", ".dcm", ".IMA", ".CT"]))
    for series, count in enumerate(counts):
        for number in range(count):
            position = np.array([0, tilt_mm * number, step_mm * number])
            directions = (1, 0, 0, 0, 1, 0)
            if (series, number) == (0, 1):
                position += {"gap": (0, 0, 9), "shift": (9, 0, 0)}.get(wrong, (0, 0, 0))
                position = np.zeros(3) if wrong == "double" else position
                directions = (0, 1, 0, 1, 0, 0) if wrong == "turn" else directions
            path = folder / f"I{names.pop()}{suffix}"
            pixels = np.full((3, 4), 1000 + 100 * series + number, np.uint16)
            uids = {"series": f"1.2.{series}", "SeriesNumber": series}
            write_slice(path, position, pixels, directions, **uids)
    for name in data.draw(st.lists(st.sampled_from(CLUTTER), unique=True, max_size=4)):
        other_file(name)(folder)
    if len(counts) > 1:
        assert load(ending, folder) is None
    for series, count in enumerate(counts):
        loaded = load(ending, folder, str(series) if len(counts) > 1 else None)
        broken = series == 0 and wrong and not (count == 2 and wrong in ("gap", "shift"))
        assert (loaded is None) == bool(broken)
        if loaded and not wrong:
            stored = loaded[0].array[0, 0] + 24 - 100 * series
            assert stored.tolist() == list(range(count))
            assert abs(loaded[0].affine[2, 2]) == pytest.approx(step_mm)
