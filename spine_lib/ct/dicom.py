"""Read the folder of one DICOM CT series.

The order of the slices and their distance follow from their positions in the patient, not from file
names, instance numbers or SliceThickness (which may be larger than the distance).
"""

import mmap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from spine_lib import SpineError
from spine_lib.ct.files import list_folder, listed
from spine_lib.ct.nifti import SPACING_LIMITS_MM, SourceGrid

GAP_TOLERANCE, ANGLE_TOLERANCE = 0.1, 1e-3
"""How much a distance between slices may differ from the usual one, as a fraction of it; and
direction cosines between slices, and from unit vectors at right angles."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's x grows to the Left and y to Posterior; ours grow to Right and Anterior."""

AGAIN = "export the series again."

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
_TAGS = """
    SOPClassUID Modality SeriesInstanceUID SeriesNumber SeriesDescription DirectoryRecordSequence
    Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation
    BitsAllocated BitsStored HighBit
    ImagePositionPatient ImageOrientationPatient PixelSpacing RescaleSlope RescaleIntercept
""".split()


@dataclass(frozen=True, eq=False)
class Slice:
    """One file of a series: its place in the patient (LPS mm), and the scaling of pixels to HU."""

    path: Path
    position: np.ndarray
    directions: np.ndarray  # unit vectors along a row and along a column
    spacing_mm: np.ndarray  # between rows and between columns
    shape: tuple[int, int]  # rows, columns
    slope: float | None
    intercept: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class DicomSeries(SourceGrid):
    """One series: its slices along their normal, its grid [column, row, slice] in RAS+ mm."""

    slices: tuple[Slice, ...]

    def pieces(self) -> Iterator[tuple[np.ndarray, float, float]]:
        """Yield one slice at a time, as stored, with its slope and intercept."""
        for image in self.slices:
            yield _pixels(image).ravel(), image.slope or 1.0, image.intercept or 0.0


def open_series(folder: Path, series: str | None = None) -> DicomSeries:
    """Read where the slices of one DICOM CT series lie in the patient; no pixel is read yet.

    They lie directly in the folder, in which other files are passed over; `series` is the number,
    description or UID of one of several series. Raises a `SpineError` if there is no image, more
    than one series and none chosen, a tag of the wrong kind, or slices are no regular grid.
    """
    headers, notes = _image_headers(folder)
    slices = [_slice(header) for header in _choose_series(folder, headers, series)]
    _check_alike(slices)
    normal = np.cross(*slices[0].directions)
    slices.sort(key=lambda image: float(image.position @ normal))
    step = _slice_step(folder, slices, normal)
    first = slices[0]
    (row, column), (row_spacing, column_spacing) = first.directions, first.spacing_mm
    affine = np.eye(4)
    # PixelSpacing has the distance between rows first; a row runs along the first direction
    affine[:3] = np.column_stack([row * column_spacing, column * row_spacing, step, first.position])
    shape = (first.shape[1], first.shape[0], len(slices))
    return DicomSeries(shape, LPS_TO_RAS @ affine, None, folder, notes, slices=tuple(slices))


def _image_headers(folder: Path) -> tuple[list[pydicom.Dataset], tuple[str, ...]]:
    """Return the headers of the DICOM images in a folder, and notes of files that may be slices."""
    files = {path: _read_header(path) for path in list_folder(folder) if path.is_file()}
    images = [header for header in files.values() if header is not None and "Rows" in header]
    if not images:
        raise SpineError(
            f"{folder} holds no DICOM image: give the folder with the slices of one CT series."
        )
    suffixes = {Path(header.filename).suffix.lower() for header in images}
    others = [path for path, header in files.items() if header is None]
    alike = [path.name for path in others if path.suffix.lower() in suffixes]
    note = f"{folder}: {listed(alike, most=1)} passed over, for it is no DICOM image."
    return images, (note,) if alike else ()


def _read_header(path: Path) -> pydicom.Dataset | None:
    """Return the header of a DICOM file, None for other files; raise if an image is cut off."""
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
        # planning systems leave out the preamble: then a group of the header stands first
        standard, bare = head[128:132] == b"DICM", head[:2] in (b"\x02\0", b"\x08\0")
        named = path.suffix.lower() in (".dcm", ".ima")  # these must be DICOM, others may be
        if not (standard or bare or named):
            return None
        if _DEFLATED in head and path.stat().st_size > 1 << 20:
            raise ValueError("deflated data of more than 1 MB are not unpacked")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a value that is used is checked
            header = _read(path, stop_before_pixels=True, specific_tags=_TAGS)
    except Exception as error:  # pydicom lets many kinds through when bytes are damaged
        if not standard and not named:
            return None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpineError(f"{path} cannot be read ({reason}): copy the series again.") from error
    kind = _text(header, "SOPClassUID") or _text(header.file_meta, "MediaStorageSOPClassUID")
    kind = UID(kind, pydicom.config.IGNORE)
    # directories, reports and plans have no pixels; a CT without them was cut off
    private = kind and kind.is_private and _text(header, "Modality")  # which stands behind it
    known = kind not in _CT_CLASSES and (private or kind.name != kind)
    if not (known or "DirectoryRecordSequence" in header or "Rows" in header):
        raise SpineError(f"{path} is cut off or no DICOM image: copy the series again.")
    return header


def _read(path: Path, **options: Any) -> pydicom.Dataset:
    """Read a DICOM file; where no transfer syntax is stated, take the one that was found."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # gives no more bytes than it has, whatever length a damaged element announces
        dataset = pydicom.dcmread(content, force=True, **options)
    dataset.filename = str(path)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _ = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _choose_series(
    folder: Path, headers: Sequence[pydicom.Dataset], wanted: str | None
) -> list[pydicom.Dataset]:
    """Return the headers of the series with this number, description or UID, or of the only one."""
    series: dict[str, list[pydicom.Dataset]] = {}
    for header in headers:
        series.setdefault(_text(header, "SeriesInstanceUID"), []).append(header)
    tags = ("SeriesNumber", "SeriesDescription", "SeriesInstanceUID")
    names = {uid: [_text(group[0], tag) for tag in tags] for uid, group in series.items()}
    fitting = [uid for uid in series if wanted is None or wanted in names[uid]]
    if len(fitting) == 1:
        return series[fitting[0]]
    numbers = [number for number, *_ in names.values()]
    listing = [
        f"{number if numbers.count(number) == 1 and number else uid or 'no number'} "
        f"({text or 'no description'}, {len(series[uid])} slices)"
        for uid, (number, text, _) in names.items()
    ]
    what = f"mixes {len(series)} DICOM series"
    if wanted is not None:
        what = f"has {len(fitting) or 'no'} DICOM series {wanted!r}, of {len(series)} in all"
    raise SpineError(f"{folder} {what}: choose one with --series: {listed(listing, '; ')}.")


def _value(header: pydicom.Dataset, name: str) -> Any:
    """Return the value of a tag, None where it is missing or empty, its bytes if it is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a value that is used is checked
        try:
            value = header.get(name)
        except Exception:  # pydicom converts late, and raises many kinds
            value = header.get_item(name).value
    if isinstance(value, bytes):
        value = value.decode("latin-1").strip("\0 ")
    return None if value is None or str(value) in ("", "[]") else value


def _text(header: pydicom.Dataset, name: str) -> str:
    """Return the value of a tag in one line of at most 64 characters that can be printed."""
    value = _value(header, name)
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return "" if value is None else " ".join(text.split())[:64]


def _numbers(header: pydicom.Dataset, name: str, count: int) -> np.ndarray:
    """Return the numbers of a tag; raise unless it has `count` finite ones."""
    value = _value(header, name)
    parts = value.split("\\") if isinstance(value, str) else np.atleast_1d(value).tolist()
    try:
        numbers = np.array([float(part) for part in parts])
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if len(numbers) != count or not np.isfinite(numbers).all():
        what = "no" if value is None else f"{_text(header, name)} as"
        wanted = "one number" if count == 1 else f"{count} numbers"
        raise SpineError(f"{header.filename} has {what} {name}, which is {wanted}: {AGAIN}")
    return numbers


def _number(header: pydicom.Dataset, name: str) -> float:
    return float(_numbers(header, name, 1)[0])


def _slice(header: pydicom.Dataset) -> Slice:
    """Return a header as a slice; raise a `SpineError` that names the tag if it cannot be used."""
    modality, colours = _text(header, "Modality"), _text(header, "PhotometricInterpretation")
    problem = ""
    if modality not in ("", "CT"):
        problem = f"has the modality {modality}, not CT: give a CT series."
    elif _text(header, "NumberOfFrames") not in ("", "0", "1"):
        problem = "is a multi-frame image: convert it to NIfTI first, for example with dcm2niix."
    elif _number(header, "SamplesPerPixel") != 1 or "MONOCHROME" not in colours:
        problem = f"holds colours ({colours or 'unknown'}), not HU: remove screen shots."
    if problem:  # before anything that such an image lacks
        raise SpineError(f"{header.filename} {problem}")
    rows, columns = (int(_number(header, name)) for name in ("Rows", "Columns"))
    position = _numbers(header, "ImagePositionPatient", 3)
    spacing_mm = _numbers(header, "PixelSpacing", 2)
    directions = _numbers(header, "ImageOrientationPatient", 6).reshape(2, 3)
    slope, intercept = (
        None if _value(header, name) is None else _number(header, name)
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    high, (low, most) = _text(header, "HighBit"), SPACING_LIMITS_MM
    if high not in ("", f"{_number(header, 'BitsStored') - 1:g}"):
        problem = f"has the HighBit {high}, which BitsStored contradicts"
    elif min(rows, columns) < 1:
        problem = f"has {rows} x {columns} pixels"
    elif not low <= spacing_mm.min() <= spacing_mm.max() <= most:
        problem = f"has the PixelSpacing {spacing_mm.tolist()} mm"
    elif np.abs(directions @ directions.T - np.eye(2)).max() > ANGLE_TOLERANCE:
        values = f"{directions.ravel().tolist()}, not two unit vectors at a right angle"
        problem = f"has the ImageOrientationPatient {values}"
    elif slope == 0:
        problem = "has the RescaleSlope 0, which makes all pixels equal"
    if problem:
        raise SpineError(f"{header.filename} {problem}: {AGAIN}")
    shape = (rows, columns)
    return Slice(Path(header.filename), position, directions, spacing_mm, shape, slope, intercept)


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for image in slices:
        same = image.shape == first.shape and np.allclose(image.spacing_mm, first.spacing_mm, 1e-3)
        if not same or np.abs(image.directions - first.directions).max() > ANGLE_TOLERANCE:
            raise SpineError(
                f"{image.path} differs from {first.path.name} in size, pixel spacing or direction: "
                "remove scouts and reformatted images from the folder."
            )
    for name in ("slope", "intercept"):
        lacking = [image.path for image in slices if getattr(image, name) is None]
        if 0 < len(lacking) < len(slices):
            raise SpineError(
                f"{lacking[0]} has no Rescale{name.title()}, though other slices have one: {AGAIN}"
            )


def _slice_step(folder: Path, slices: Sequence[Slice], normal: np.ndarray) -> np.ndarray:
    """Return the vector from slice to slice in LPS mm; a tilted gantry shows in it as a shear."""
    if len(slices) < 2:
        raise SpineError(f"{folder} holds one DICOM slice only: give the whole series.")
    positions = np.array([image.position for image in slices])
    gaps_mm = np.diff(positions @ normal)
    usual_mm = np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2]
    for gap_mm, (lower, upper) in zip(gaps_mm, pairwise(slices), strict=True):
        between = f"{lower.path.name} and {upper.path.name}"
        gap = f"{gap_mm:.3g} mm instead of {usual_mm:.3g} mm"
        if gap_mm < SPACING_LIMITS_MM[0]:
            problem = f"has two slices at one position ({between}): keep one image a position."
        elif gap_mm > 1.5 * usual_mm:
            count = max(1, round(gap_mm / usual_mm) - 1)
            problem = f"misses {count} slice(s) between {between} ({gap}): copy the whole series."
        elif abs(gap_mm - usual_mm) > GAP_TOLERANCE * usual_mm:
            problem = f"is irregularly spaced between {between} ({gap}): resample the series first."
        else:
            continue
        raise SpineError(f"{folder} {problem}")
    step = (positions[-1] - positions[0]) / len(gaps_mm)
    stray_mm = np.linalg.norm(positions - positions[0] - np.outer(range(len(slices)), step), axis=1)
    worst = stray_mm.argmax()
    if stray_mm[worst] > max(0.2, GAP_TOLERANCE * np.linalg.norm(step)):
        raise SpineError(
            f"{folder} does not form one grid, {slices[worst].path.name} lies "
            f"{stray_mm[worst]:.3g} mm beside its place: resample the series first."
        )
    return step


def _pixels(image: Slice) -> np.ndarray:
    """Return the stored pixels [row, column] of one file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = _read(image.path).pixel_array
        if pixels.shape != image.shape:
            raise ValueError(f"{pixels.shape} instead of {image.shape} pixels")
        return pixels
    except Exception as error:  # each of pydicom's decoders fails in its own way
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        what, advice = "has damaged or missing pixel data", "copy the series again."
        if isinstance(error, NotImplementedError) or "missing dependencies" in reason:
            what, advice = "cannot be decoded", "install such a package, or export it uncompressed."
        raise SpineError(f"{image.path} {what} ({reason}): {advice}") from error
