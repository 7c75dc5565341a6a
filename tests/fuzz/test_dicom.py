"""DICOM folders changed at random load right, or end in one sentence that names file and value."""

import os

import numpy as np
import pydicom
import pytest
from dicom_files import write_bare, write_slice
from fuzzing import FUZZ, emptied, end
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from pydicom.uid import BasicTextSRStorage

from spine_lib.ct.volume import load_ct

HEIGHTS_MM = (0, 2, 4, 6)
PIXELS = np.arange(48, dtype=np.uint16).reshape(4, 3, 4) + 900

pytestmark = pytest.mark.filterwarnings("ignore")


def load(folder, series=None):
    """Load a folder; return the volume, or None where it is refused."""
    volume = end(lambda: load_ct(folder, series), folder)
    if isinstance(volume, str):
        return None
    assert np.isfinite(volume.affine).all() and volume.array.dtype == np.int16
    assert 0.01 <= min(volume.spacing_mm) and np.linalg.det(volume.affine[:3, :3]) > 0
    return volume


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
def test_a_tag_of_any_content_is_taken_as_it_is_or_refused(folder, tag, value, only):
    value += b" " * (len(value) % 2)
    emptied(folder)
    for number, height in enumerate(HEIGHTS_MM):
        tags = {tag: value} if only in (None, number) else {}
        try:
            write_slice(folder / f"{9 - number}.dcm", (0, 0, height), PIXELS[number], **tags)
        except Exception:  # pydicom does not write all that others do
            reject()
    volume = load(folder)
    if volume is None:
        return
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


@FUZZ
@given(st.data())
def test_bytes_changed_anywhere_never_end_in_more_than_a_sentence(folder, data):
    kind = data.draw(st.sampled_from(["standard", "explicit", "implicit"]))
    suffix = data.draw(st.sampled_from([".dcm", ""]))
    emptied(folder)
    for number, height in enumerate(HEIGHTS_MM):
        path = folder / f"{number}{suffix}"
        write_slice(path, (0, 0, height), PIXELS[number])
        if kind != "standard":
            write_bare(path, pydicom.dcmread(path), kind == "implicit")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, max(0, len(content) - 1)))
        stop = start + data.draw(st.sampled_from([1, 1, 2, 4, 40, 10**6]))
        new = data.draw(st.sampled_from([b"", b"\0", b"\xff\xff\xff\xff"]) | st.binary(max_size=4))
        content[start:stop] = new
    path.write_bytes(content)
    volume = load(folder)
    if volume is not None and volume.shape != (4, 3, 4):
        assert volume.shape == (4, 3, 3) and f"{path.name} passed over" in volume.source.notes[0]


def put_other_file(path):
    """Write a file that is no slice."""
    if path.name == "pipe":
        os.mkfifo(path)
    elif path.name == "folder.dcm":
        path.mkdir()
    elif path.name == "report.dcm":
        no_image = {"SOPClassUID": BasicTextSRStorage, "Rows": None, "PixelData": None}
        write_slice(path, (0, 0, 0), np.zeros((1, 1), "<u2"), **no_image)
    else:
        path.write_bytes(b"not an image of any kind")


CLUTTER = ["._0.dcm", ".DS_Store", "Thumbs.db", "README", "x.txt", "pipe", "folder.dcm"]
CLUTTER += ["report.dcm", "DICOMDIR", "desktop.ini"]


@settings(FUZZ, max_examples=FUZZ.max_examples // 3)
@given(st.data())
def test_a_folder_of_shuffled_series_gives_one_whole_series_or_none(folder, data):
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
        put_other_file(folder / name)
    if len(counts) > 1:
        assert load(folder) is None
    for series, count in enumerate(counts):
        volume = load(folder, str(series) if len(counts) > 1 else None)
        broken = series == 0 and wrong and not (count == 2 and wrong in ("gap", "shift"))
        assert (volume is None) == bool(broken)
        if volume and not wrong:
            stored = volume.array[0, 0] + 24 - 100 * series
            assert stored.tolist() == list(range(count))
            assert abs(volume.affine[2, 2]) == pytest.approx(step_mm)
