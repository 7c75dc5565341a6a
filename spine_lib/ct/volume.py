"""Lesson 1: load a CT scan and know what its numbers and axes mean.

A scan is an array of Hounsfield units (HU) with an affine, which maps a voxel's index to its
position in the patient in mm. Whatever axes a file has, it is loaded in one orientation: index
[x, y, z] grows to the patient's Right, Anterior and Superior side (RAS+).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from spine_lib import SpineError
from spine_lib.ct.dicom import DicomSeries, open_series
from spine_lib.ct.geometry import GRID_TOLERANCE_MM, largest_gap_mm, spacing_mm
from spine_lib.ct.hounsfield import check_hu, hu_from_stored, labels_from_stored
from spine_lib.ct.nifti import NiftiFile, open_nifti, write_nifti


class Window(NamedTuple):
    """The range of HU that is spread over black to white."""

    center: float
    width: float


WINDOWS: dict[str, Window] = {
    "bone": Window(400, 1800),
    "soft tissue": Window(40, 400),
    "lung": Window(-600, 1500),
    "full": Window(1023.5, 4095),
}
"""The usual windows for reading a CT; "full" spans the 12 bits of a scanner, -1024 to 3071 HU."""


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid of the file that a volume came from.

    Attributes:
        shape: voxels along the three stored axes.
        affine: 4x4 float64, stored voxel index -> mm in RAS+.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def orientation(self) -> str:
        """Where the stored axes point to, for example "LPS"."""
        return "".join(nib.aff2axcodes(self.affine))

    @property
    def to_ras(self) -> np.ndarray:
        """The axes and flips that turn a stored array to RAS+, as nibabel writes them."""
        return nib.io_orientation(self.affine)

    @property
    def canonical_affine(self) -> np.ndarray:
        """The affine after the axes were turned to RAS+, float64 4x4."""
        return self.affine @ nib.orientations.inv_ornt_aff(self.to_ras, self.shape)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image or label map in canonical orientation.

    Attributes:
        array: [x, y, z] in RAS+. A loaded one is a turned view of the file's order, for a copy
            would double memory and time; `torch.from_numpy` needs `np.ascontiguousarray` first.
        affine: 4x4 float64, voxel index -> mm in RAS+.
        source: grid of the file it came from, which `save_nifti` writes back to.
        path: file or folder it came from.

    Example:
        >>> volume = Volume(np.zeros((4, 5, 6), np.int16), np.diag([0.7, 0.7, 2.5, 1]))
        >>> volume.spacing_mm
        (0.7, 0.7, 2.5)
    """

    array: np.ndarray
    affine: np.ndarray
    source: SourceGrid | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, np.float64)
        if self.array.ndim != 3 or affine.shape != (4, 4):
            raise SpineError(
                f"A volume needs a 3-D array and a 4x4 affine, not {self.array.ndim}-D and "
                f"{affine.shape}: pass one scan with its affine."
            )
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z in mm."""
        return spacing_mm(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return self.array.shape

    def with_array(self, array: np.ndarray) -> Volume:
        """Return a volume with the same geometry and another array of this shape, any dtype.

        Raises:
            SpineError: if the shape differs.
        """
        if array.shape != self.shape:
            raise SpineError(
                f"An array of shape {array.shape} does not fit the grid {self.shape} of "
                f"{self.path or 'this volume'}: resample it to that grid first."
            )
        return replace(self, array=array)


def load_ct(path: str | Path, series: str | None = None) -> Volume:
    """Load a CT scan in HU, in canonical orientation.

    Args:
        path: a `.nii` or `.nii.gz` file, or the folder of a DICOM series.
        series: number, description or UID of one DICOM series where a folder has several.

    Returns:
        A volume with an int16 array [x, y, z] in HU, rounded; padding outside the field of view
        (-2048, for example) is kept.

    Raises:
        SpineError: if the file is missing, damaged, no 3-D scalar image, or not in HU.

    Example:
        >>> ct = load_ct("data/sample/chest/ct.nii.gz")  # doctest: +SKIP
        >>> ct.array[256, 256, 60], ct.spacing_mm  # doctest: +SKIP
    """
    path = Path(path)
    image = open_series(path, series) if path.is_dir() else open_nifti(path)
    _warn_about_file(image)
    volume, low, high = _load(image, np.int16, hu_from_stored)
    check_hu(low, high, path)
    return volume


def load_mask(path: str | Path) -> Volume:
    """Load a label map in canonical orientation.

    Args:
        path: a `.nii` or `.nii.gz` file of whole numbers, which may be stored as floats.

    Returns:
        A volume with an array [x, y, z] of labels: uint8 if they fit, else uint16.

    Raises:
        SpineError: if the file is unreadable or a value is no label (fraction, negative, NaN).
    """
    path = Path(path)
    if path.is_dir():
        raise SpineError(f"{path} is a folder: give the mask as one .nii or .nii.gz file.")
    image = open_nifti(path)
    _warn_about_file(image)
    plain = image.dtype == np.uint8 and (image.slope, image.intercept) == (1, 0)
    volume, _, high = _load(image, np.uint8 if plain else np.uint16, labels_from_stored)
    if not plain and high < 256:
        return volume.with_array(volume.array.astype(np.uint8))
    return volume


def save_nifti(volume: Volume, path: str | Path) -> Path:
    """Write a volume on the grid and orientation of the file that it came from.

    Args:
        volume: image, label map or probabilities; bool becomes uint8, float becomes float32.
        path: a name ending in `.nii` or `.nii.gz`.

    Returns:
        The path. Without `volume.source` the file is written as RAS+.

    Raises:
        SpineError: if the volume no longer lies on its source's grid or writing fails.
    """
    path = Path(path)
    stored, affine, source = volume.array, volume.affine, volume.source
    if source is not None:
        ras = nib.orientations.axcodes2ornt("RAS")
        from_ras = nib.orientations.ornt_transform(ras, source.to_ras)
        stored, affine = nib.apply_orientation(stored, from_ras), source.affine
        moved_mm = largest_gap_mm(volume.shape, volume.affine, source.canonical_affine)
        if stored.shape != source.shape or moved_mm > GRID_TOLERANCE_MM:
            raise SpineError(
                f"{path} cannot be written on the grid of {volume.path or 'its source'}: shape "
                f"{volume.shape} and affine changed since loading, so resample it back or drop "
                "`source`."
            )
    write_nifti(stored, affine, path)
    return path


def apply_window(array_hu: np.ndarray, window: Window | str) -> np.ndarray:
    """Spread a range of HU over 0 (black) to 1 (white).

    Args:
        array_hu: any shape, HU.
        window: a `Window` or a name from `WINDOWS`.

    Returns:
        float32 array of the same shape, clipped to 0..1.

    Raises:
        SpineError: if the name is unknown or the width is not positive.
    """
    if isinstance(window, str):
        if window not in WINDOWS:
            raise SpineError(f"There is no window {window!r}: choose one of {', '.join(WINDOWS)}.")
        window = WINDOWS[window]
    if not window.width > 0:
        raise SpineError(f"A window of width {window.width} HU shows nothing: give more than 0.")
    grey = np.asarray(array_hu).astype(np.float32)
    grey -= window.center - window.width / 2
    grey /= window.width
    return np.clip(grey, 0, 1, out=grey)


def _load(
    image: NiftiFile | DicomSeries, dtype: type, convert: Callable
) -> tuple[Volume, float, float]:
    """Read an image piece by piece into one canonical array; return its range too."""
    source = SourceGrid(image.shape, image.affine)
    stored = np.empty(image.shape, dtype, order="F")
    ends = []
    with contextlib.closing(image.pieces()) as pieces:
        for piece in pieces:
            target = stored[:, :, piece.planes]
            ends.append(convert(piece.stored, piece.slope, piece.intercept, target, image.path))
    lows, highs = zip(*ends, strict=True)
    array = nib.apply_orientation(stored, source.to_ras)
    volume = Volume(array, source.canonical_affine, source, image.path)
    return volume, min(lows), max(highs)


def _warn_about_file(image: NiftiFile | DicomSeries) -> None:
    """Warn if a file has no orientation or may be confused with its neighbour."""
    if not image.oriented:
        warnings.warn(
            f"{image.path} says nothing about orientation (sform and qform code 0): left and "
            "right are a guess, so check them against the patient.",
            stacklevel=3,
        )
    # asked for a.nii.gz, SimpleITK opens an a.nii that lies beside it
    path = image.path
    sibling = path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz")
    if sibling.name.endswith((".nii", ".nii.gz")) and sibling.is_file() and path.is_file():
        warnings.warn(
            f"{path} lies beside {sibling.name}: other programs may open that one instead, "
            "so remove one of them.",
            stacklevel=3,
        )
