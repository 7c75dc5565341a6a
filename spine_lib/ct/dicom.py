"""Read the folder of one DICOM CT series.

The order of the slices and their distance follow from their positions in the patient, not from file
names, instance numbers or SliceThickness (which may be larger than the distance).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import ImplicitVRLittleEndian

from spine_lib import SpineError
from spine_lib.ct.nifti import Piece

GAP_TOLERANCE = 0.1
"""How much a distance between slices may differ from the usual one, as a fraction of it."""

ANGLE_TOLERANCE = 1e-3
"""How much the direction cosines of two slices may differ."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""DICOM's x grows to the Left and y to Posterior; ours grow to Right and Anterior."""


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series: its headers along the slice normal, its grid [column, row, slice] in RAS+ mm."""

    path: Path
    headers: tuple[pydicom.Dataset, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray
    oriented: ClassVar[bool] = True

    def pieces(self) -> Iterator[Piece]:
        """Yield one slice at a time, as stored; raise a `SpineError` if it cannot be decoded."""
        for number, header in enumerate(self.headers):
            pixels = _pixels(header.filename)
            slope = float(header.get("RescaleSlope") or 1)
            intercept = float(header.get("RescaleIntercept") or 0)
            yield Piece(slice(number, number + 1), pixels.T[:, :, None], slope, intercept)


def open_series(folder: Path) -> DicomSeries:
    """Read where the slices of one DICOM CT series lie in the patient; no pixel is read yet.

    Other files in the folder are passed over. Raises a `SpineError` if there is no image, more
    than one series, a slice missing, or slices that do not form a regular grid.
    """
    headers = [header for path in sorted(folder.iterdir()) if (header := _slice_header(path))]
    if not headers:
        raise SpineError(
            f"{folder} holds no DICOM image: give the folder that has the slices of one CT series "
            "directly in it."
        )
    _check_one_series(folder, headers)
    row, column = _directions(headers[0])
    normal = np.cross(row, column)
    headers.sort(key=lambda header: np.dot(header.ImagePositionPatient, normal))
    names = [Path(header.filename).name for header in headers]
    positions = np.array([header.ImagePositionPatient for header in headers], np.float64)
    _check_gaps(folder, names, positions @ normal)
    step = _slice_step(folder, names, positions)
    # PixelSpacing has the distance between rows first; a row runs along the first direction
    row_spacing, column_spacing = (float(mm) for mm in headers[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3] = np.column_stack([row * column_spacing, column * row_spacing, step, positions[0]])
    shape = (int(headers[0].Columns), int(headers[0].Rows), len(headers))
    return DicomSeries(folder, tuple(headers), shape, LPS_TO_RAS @ affine)


def _directions(header: pydicom.Dataset) -> np.ndarray:
    """Return two unit vectors (LPS): along a row, and along a column."""
    return np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3)


def _slice_header(path: Path) -> pydicom.Dataset | None:
    """Return the header of a file if it is a DICOM image, else None."""
    if not path.is_file() or path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return None
    named = path.suffix.lower() in (".dcm", ".ima")  # these must be DICOM, others may be
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=named)
        is_slice = "Rows" in header
        # reports and plans have no pixels; a CT without them was cut off
        damaged = not is_slice and header.get("Modality", "CT") == "CT"
    except InvalidDicomError:
        return None
    except Exception as error:  # pydicom lets many kinds through when bytes are damaged
        raise SpineError(f"{path} cannot be read ({error}): copy the series again.") from error
    if damaged:
        raise SpineError(f"{path} is cut off or no DICOM image: copy the series again.")
    return header if is_slice else None


def _check_one_series(folder: Path, headers: list[pydicom.Dataset]) -> None:
    series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
    if len(series) > 1:
        raise SpineError(
            f"{folder} mixes {len(series)} DICOM series: put the files of each series "
            "into a folder of its own."
        )
    first = headers[0]
    for header in headers:
        if problem := _unusable(header):
            raise SpineError(f"{header.filename} {problem}")
        same_size = (header.Rows, header.Columns) == (first.Rows, first.Columns)
        same_pixels = np.allclose(header.PixelSpacing, first.PixelSpacing, rtol=1e-3)
        turned = np.abs(_directions(header) - _directions(first)).max()
        if not same_size or not same_pixels or turned > ANGLE_TOLERANCE:
            raise SpineError(
                f"{header.filename} differs from {Path(first.filename).name} in size, pixel "
                "spacing or direction: remove scouts and reformatted images from the folder."
            )


def _unusable(header: pydicom.Dataset) -> str | None:
    """Return why a slice cannot be used, or None."""
    modality = header.get("Modality", "CT")
    if modality != "CT":
        return f"has the modality {modality}, not CT: give a CT series."
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        return "is a multi-frame image: convert it to NIfTI first, for example with dcm2niix."
    if int(header.get("SamplesPerPixel", 1)) != 1:
        return "holds colours (RGB), not HU: remove screen shots from the folder."
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        if not header.get(name):
            return f"has no {name}: export the series again with its geometry."
    return None


def _check_gaps(folder: Path, names: Sequence[str], heights_mm: np.ndarray) -> None:
    """Raise if slices are missing, doubled or irregularly spaced."""
    if len(names) < 2:
        raise SpineError(
            f"{folder} holds one DICOM slice only, so no distance between slices is known: "
            "give the whole series."
        )
    gaps_mm = np.diff(heights_mm)
    usual_mm = np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2]
    for gap_mm, pair in zip(gaps_mm, pairwise(names), strict=True):
        between = " and ".join(pair)
        if gap_mm < 1e-3:
            raise SpineError(
                f"{folder} has two slices at one position ({between}): keep one image a position."
            )
        if gap_mm > 1.5 * usual_mm:
            raise SpineError(
                f"{folder} misses {max(1, round(gap_mm / usual_mm) - 1)} slice(s) between "
                f"{between}, where the gap is {gap_mm:.3g} mm instead of {usual_mm:.3g} mm: copy "
                "the whole series."
            )
        if abs(gap_mm - usual_mm) > GAP_TOLERANCE * usual_mm:
            raise SpineError(
                f"{folder} is irregularly spaced between {between} ({gap_mm:.3g} mm instead of "
                f"{usual_mm:.3g} mm): resample the series to regular slices first."
            )


def _slice_step(folder: Path, names: Sequence[str], positions: np.ndarray) -> np.ndarray:
    """Return the vector from slice to slice in LPS mm; a tilted gantry shows in it as a shear."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    expected = positions[0] + np.arange(len(positions))[:, None] * step
    stray_mm = np.linalg.norm(positions - expected, axis=1)
    worst = stray_mm.argmax()
    if stray_mm[worst] > max(0.2, GAP_TOLERANCE * np.linalg.norm(step)):
        raise SpineError(
            f"{folder} does not form one grid, {names[worst]} lies {stray_mm[worst]:.3g} mm "
            "beside its place: resample the series first."
        )
    return step


def _pixels(path: str) -> np.ndarray:
    """Return the stored pixels [row, column] of one file."""
    dataset = pydicom.dcmread(path, force=True)
    try:
        return dataset.pixel_array
    except Exception as error:  # each of pydicom's decoders fails in its own way
        syntax = dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
        if "missing dependencies" in str(error):
            raise SpineError(
                f"{path} is compressed as {syntax.name}, which cannot be decoded here: install "
                "pylibjpeg, pylibjpeg-libjpeg and pylibjpeg-openjpeg with pip."
            ) from error
        raise SpineError(
            f"{path} has damaged or missing pixel data ({syntax.name}): copy the series again."
        ) from error
