"""Read the folder of one DICOM CT series.

DICOM stores a file a slice and gives neither their order nor their distance directly: both follow
from the positions of the slices in the patient. File names, instance numbers and SliceThickness do
not say it (thickness may be larger than the distance).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
class SliceFile:
    """What is needed to place one slice: the header of its file, and the file."""

    path: Path
    header: pydicom.Dataset

    @property
    def position_mm(self) -> np.ndarray:
        """Centre of the first pixel in LPS mm."""
        return np.array(self.header.ImagePositionPatient, np.float64)

    @property
    def directions(self) -> np.ndarray:
        """Two unit vectors (LPS): along a row, and along a column."""
        return np.array(self.header.ImageOrientationPatient, np.float64).reshape(2, 3)


@dataclass(frozen=True, eq=False)
class DicomSeries:
    """One series whose slices stand in order.

    Attributes:
        path: the folder.
        files: the slices, sorted along the slice normal.
        shape: columns, rows, slices.
        affine: 4x4 float64, [column, row, slice] -> mm in RAS+.
    """

    path: Path
    files: tuple[SliceFile, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray
    oriented: ClassVar[bool] = True

    def pieces(self) -> Iterator[Piece]:
        """Yield one slice at a time, as stored, with its rescale slope and intercept.

        Raises:
            SpineError: where the pixels of a slice cannot be decoded.
        """
        for number, file in enumerate(self.files):
            pixels = _pixels(file.path)
            slope = float(file.header.get("RescaleSlope") or 1)
            intercept = float(file.header.get("RescaleIntercept") or 0)
            yield Piece(slice(number, number + 1), pixels.T[:, :, None], slope, intercept)


def open_series(folder: Path) -> DicomSeries:
    """Find the slices of a DICOM series and where they lie in the patient.

    Args:
        folder: a folder with the files of one CT series; other files in it are passed over.

    Returns:
        The series; no pixel has been read.

    Raises:
        SpineError: where there is no image, more than one series, a slice missing, or slices that
            do not form a regular grid.
    """
    files = [file for path in sorted(folder.iterdir()) if (file := _slice_file(path))]
    if not files:
        raise SpineError(
            f"{folder} holds no DICOM image: give the folder that has the slices of one CT series "
            "directly in it."
        )
    _check_one_series(folder, files)
    row, column = files[0].directions
    normal = np.cross(row, column)
    files.sort(key=lambda file: float(file.position_mm @ normal))
    _check_gaps(folder, files, normal)
    header = files[0].header
    shape = (int(header.Columns), int(header.Rows), len(files))
    return DicomSeries(folder, tuple(files), shape, _affine(folder, files))


def _slice_file(path: Path) -> SliceFile | None:
    """Return a file with its header if it is a DICOM image, else None."""
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
    return SliceFile(path, header) if is_slice else None


def _check_one_series(folder: Path, files: list[SliceFile]) -> None:
    """Refuse what is not one CT series of plain slices of one size and direction."""
    series = {str(file.header.get("SeriesInstanceUID", "")) for file in files}
    if len(series) > 1:
        raise SpineError(
            f"{folder} mixes {len(series)} DICOM series: put the files of each series "
            "into a folder of its own."
        )
    first = files[0]
    for file in files:
        header = file.header
        problem = _unusable(header)
        if problem:
            raise SpineError(f"{file.path} {problem}")
        same_size = (header.Rows, header.Columns) == (first.header.Rows, first.header.Columns)
        same_pixels = np.allclose(header.PixelSpacing, first.header.PixelSpacing, rtol=1e-3)
        turned = np.abs(file.directions - first.directions).max()
        if not same_size or not same_pixels or turned > ANGLE_TOLERANCE:
            raise SpineError(
                f"{file.path} differs from {first.path.name} in size, pixel spacing or direction: "
                "remove scouts and reformatted images from the folder."
            )


def _unusable(header: pydicom.Dataset) -> str | None:
    """Say why a slice cannot be used, or None."""
    modality = header.get("Modality", "CT")
    if modality != "CT":
        return f"has the modality {modality}, not CT: give a CT series."
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        return "is a multi-frame image: convert it to NIfTI first, for example with dcm2niix."
    if int(header.get("SamplesPerPixel", 1)) != 1:
        return "holds colours (RGB), not HU: remove screen shots from the folder."
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    missing = [name for name in needed if not header.get(name)]
    if missing:
        return f"has no {missing[0]}: export the series again with its geometry."
    return None


def _check_gaps(folder: Path, files: list[SliceFile], normal: np.ndarray) -> None:
    """Refuse a series in which slices are missing, doubled or irregularly spaced."""
    if len(files) < 2:
        raise SpineError(
            f"{folder} holds one DICOM slice only, so no distance between slices is known: "
            "give the whole series."
        )
    gaps_mm = np.diff([float(file.position_mm @ normal) for file in files])
    usual_mm = float(np.sort(gaps_mm)[(len(gaps_mm) - 1) // 2])
    for gap_mm, before, after in zip(gaps_mm, files[:-1], files[1:], strict=True):
        between = f"between {before.path.name} and {after.path.name}"
        if gap_mm < 1e-3:
            raise SpineError(
                f"{folder} has two slices at one position ({before.path.name} and "
                f"{after.path.name}): keep one image a position."
            )
        if gap_mm > 1.5 * usual_mm:
            raise SpineError(
                f"{folder} misses {max(1, round(gap_mm / usual_mm) - 1)} slice(s) {between}, where "
                f"the gap is {gap_mm:.3g} mm instead of {usual_mm:.3g} mm: copy the whole series."
            )
        if abs(gap_mm - usual_mm) > GAP_TOLERANCE * usual_mm:
            raise SpineError(
                f"{folder} is irregularly spaced {between} ({gap_mm:.3g} mm instead of "
                f"{usual_mm:.3g} mm): resample the series to regular slices first."
            )


def _affine(folder: Path, files: list[SliceFile]) -> np.ndarray:
    """Return the affine [column, row, slice] -> RAS mm; a tilted gantry shows as a shear."""
    row, column = files[0].directions
    positions = np.array([file.position_mm for file in files])
    row_spacing, column_spacing = (float(s) for s in files[0].header.PixelSpacing)
    step = (positions[-1] - positions[0]) / (len(files) - 1)
    expected = positions[0] + np.arange(len(files))[:, None] * step
    stray_mm = np.linalg.norm(positions - expected, axis=1)
    worst = int(stray_mm.argmax())
    if stray_mm[worst] > max(0.2, GAP_TOLERANCE * float(np.linalg.norm(step))):
        raise SpineError(
            f"{folder} does not form one grid, {files[worst].path.name} lies "
            f"{stray_mm[worst]:.3g} mm beside its place: resample the series first."
        )
    affine = np.eye(4)
    # PixelSpacing names the distance between rows first; a row runs along the first direction
    affine[:3, 0] = row * column_spacing
    affine[:3, 1] = column * row_spacing
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return LPS_TO_RAS @ affine


def _pixels(path: Path) -> np.ndarray:
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
