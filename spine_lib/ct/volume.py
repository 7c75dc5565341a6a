"""Lesson 1: load a CT scan and know what its numbers and axes mean.

A scan is an array of Hounsfield units (HU) with an affine, which maps a voxel's index to its
position in the patient in mm. Whatever axes a file has, it is loaded in one orientation: index
[x, y, z] grows to the patient's Right, Anterior and Superior side (RAS+).
"""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, Self

import nibabel as nib
import numpy as np

from spine_lib import SpineError
from spine_lib.ct.dicom import open_series
from spine_lib.ct.geometry import GRID_TOLERANCE_MM, largest_gap_mm, require_choice, spacing_mm
from spine_lib.ct.hounsfield import check_hu, hu_from_stored, label_likeness, labels_from_stored
from spine_lib.ct.nifti import SourceGrid, is_straight, itk_affine, open_nifti, write_nifti


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

MOST_IDS, SPARE_BYTES = 130, 900_000_000
"""No scheme has more ids (TotalSegmentator has 117), so a map of more may be a scan. A loaded file
may take this much memory beside twice its own size; a gzip bomb takes more."""

SHEARED = (
    "lies on a sheared grid (a tilted gantry, for example), which ITK programs such as 3D Slicer "
    "cannot open: write it with `save_nifti(..., straight=True)` or `spine predict --straight`."
)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image or label map in canonical orientation.

    A loaded array is a turned view of the file's order, for a copy would double memory and time:
    `torch.from_numpy` needs `np.ascontiguousarray` first.

    Example:
        >>> volume = Volume(np.zeros((4, 5, 6), np.int16), np.diag([0.7, 0.7, 2.5, 1]))
        >>> volume.spacing_mm
        (0.7, 0.7, 2.5)
    """

    array: np.ndarray  # [x, y, z] in RAS+
    affine: np.ndarray  # 4x4 float64, voxel index -> mm in RAS+
    source: SourceGrid | None = None  # grid of its file, which `save_nifti` writes back to
    path: Path | None = None  # its file or folder

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, np.float64)
        if self.array.ndim != 3 or affine.shape != (4, 4):
            shapes = f"{self.array.ndim}-D and {affine.shape}"
            raise SpineError(f"A volume needs a 3-D array and a 4x4 affine, not {shapes}.")
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z in mm."""
        return spacing_mm(self.affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return self.array.shape

    @property
    def itk_affine(self) -> np.ndarray:
        """The affine by which ITK programs place the voxels, where the file's header has two."""
        header = self.source and self.source.header
        with contextlib.suppress(ValueError):  # a damaged qform
            if header is not None and (other := itk_affine(header)) is not None:
                return other @ np.linalg.inv(self.source.affine) @ self.affine
        return self.affine

    def with_array(self, array: np.ndarray) -> Self:
        """Return a volume with another array, any dtype; raise if its shape differs."""
        if array.shape != self.shape:
            raise SpineError(
                f"An array of shape {array.shape} does not fit the grid {self.shape} of "
                f"{self.path or 'this volume'}: resample it to that grid first."
            )
        return replace(self, array=array)


def load_ct(path: str | Path, series: str | None = None) -> Volume:
    """Load a CT scan in canonical orientation, as int16 [x, y, z] in HU.

    HU are rounded; padding outside the field of view (-2048, for example) is kept.

    Args:
        path: a `.nii` or `.nii.gz` file, or the folder of a DICOM series.
        series: number, description or UID of one DICOM series where a folder has several.

    Raises a `SpineError` if the file is missing, damaged, no 3-D scalar image, or not in HU. What
    is odd and harmless is a warning.
    """
    path = Path(path)
    if series is not None and not os.path.isdir(path):
        raise SpineError(f"{path} is no folder of DICOM series: leave --series out.")
    image = open_series(path, series) if os.path.isdir(path) else open_nifti(path)
    volume, low, high = _load(image, np.int16, hu_from_stored)
    _warn([*image.notes, *check_hu(volume.array, low, high, path)])
    return volume


def load_mask(path: str | Path) -> Volume:
    """Load a label map of a `.nii` or `.nii.gz` file: uint8 [x, y, z] if they fit, else uint16.

    Raises a `SpineError` if a value is no label (fraction, negative, NaN) or nothing can be read.
    """
    volume, high = _load_labels(path)
    notes = volume.source.notes
    if high > MOST_IDS and label_likeness(volume.array) < 0.2:
        notes += (f"{path} has neighbours that differ as in a scan: give the mask, not the CT.",)
    _warn(notes)
    return volume


def load_either(
    path: str | Path, series: str | None = None
) -> tuple[Volume, Literal["ct", "mask"], str]:
    """Load a CT (see `load_ct`) or a label map, whichever a file is by its values.

    Returns the volume, what it was read as, and the reason, with the doubt that there may be.
    """
    reason = "values that are no labels"
    with contextlib.suppress(SpineError):  # then `load_ct` reports what is wrong, if anything is
        labels, high = _load_labels(path)
        likeness = label_likeness(labels.array)
        reason = f"whole numbers, of which {100 * likeness:.0f} % equal their neighbour"
        if 0.2 < likeness < 0.7 or high == 0:
            reason += ", so this is in doubt"
        if likeness > 0.5:
            _warn(labels.source.notes)
            return labels, "mask", reason
        del labels
    return load_ct(path, series), "ct", reason


def save_nifti(volume: Volume, path: str | Path, straight: bool = False) -> Path:
    """Write a volume on the grid and orientation of the file that it came from.

    The position is written as that file's header states it, so that every program places both
    alike; without `volume.source` as RAS+. ITK programs cannot open a sheared grid, such as that of
    a tilted gantry: with `straight` it is resampled, see `straighten`.

    Bool becomes uint8, float becomes float32. Returns the path, which ends in `.nii` or `.nii.gz`;
    raises a `SpineError` if the volume no longer lies on its source's grid or writing fails.
    """
    path = Path(path)
    if straight:
        volume = straighten(volume)
    stored, affine, source = volume.array, volume.affine, volume.source
    if source is not None:
        from_ras = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], source.to_ras)
        stored, affine = nib.apply_orientation(stored, from_ras), source.affine
        moved_mm = largest_gap_mm(volume.shape, volume.affine, source.canonical_affine)
        if stored.shape != source.shape or moved_mm > GRID_TOLERANCE_MM:
            raise SpineError(
                f"{path} cannot be written on the grid of {volume.path or 'its source'}, which its "
                f"shape {volume.shape} or affine left: resample it back or drop `source`."
            )
    written = write_nifti(stored, affine, path, source and source.header)
    with contextlib.suppress(ValueError):  # a damaged qform
        if itk_affine(written) is None:
            _warn([f"{path} {SHEARED}"])
    return path


def straighten(volume: Volume) -> Volume:
    """Resample a sheared volume to the patient's axes, no coarser; return any other as it is.

    The result has no `source`. Integers but int16 are labels: they, and bool, take the nearest
    voxel; HU and probabilities are interpolated. Outside lies the lowest value.
    """
    if is_straight(volume.affine):
        return volume
    from nibabel.processing import resample_to_output

    to_voxel = np.linalg.inv(volume.affine)
    planes_mm = 1 / np.linalg.norm(to_voxel[:3, :3], axis=1)  # between them, perpendicular
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    order = 1 if array.dtype.kind == "f" or array.dtype == np.int16 else 0
    image = nib.spatialimages.SpatialImage(array, volume.affine)
    straight = resample_to_output(image, planes_mm, order, cval=array.min(), out_class=None)
    return Volume(straight.dataobj, straight.affine, path=volume.path)


def apply_window(array_hu: np.ndarray, window: Window | str) -> np.ndarray:
    """Spread a range of HU, any shape, over 0 (black) to 1 (white), as float32.

    `window` is a `Window` or a name from `WINDOWS`. Raises a `SpineError` if the name is unknown or
    the width is not positive.
    """
    if isinstance(window, str):
        require_choice("window", window, tuple(WINDOWS))
        window = WINDOWS[window]
    if not window.width > 0:
        raise SpineError(f"A window of width {window.width} HU shows nothing: give more than 0.")
    grey = np.asarray(array_hu).astype(np.float32)
    grey -= window.center - window.width / 2
    grey /= window.width
    return np.clip(grey, 0, 1, out=grey)


def _load(image: SourceGrid, dtype: type, convert: Callable) -> tuple[Volume, float, float]:
    """Read an image piece by piece into one canonical array; return its range too."""
    size = math.prod(image.shape) * np.dtype(dtype).itemsize
    files = image.path.iterdir() if os.path.isdir(image.path) else [image.path]
    on_disk = sum(file.stat().st_size for file in files if file.is_file())
    refusal = f"{image.path} needs {size / 1e9:.1f} GB of memory"
    if size > 2 * on_disk + SPARE_BYTES:
        raise SpineError(f"{refusal} and has {on_disk / 1e9:.3f} GB on disk: check the file.")
    first, ends = 0, []
    try:
        array = np.empty(size // np.dtype(dtype).itemsize, dtype)
        with contextlib.closing(image.pieces()) as pieces:
            for stored, *scaling in pieces:
                target = array[first : first + stored.size]
                try:
                    ends.append(convert(stored, *scaling, target, image.path))
                except SpineError:
                    for _ in pieces:  # if the file is damaged, that is the cause, and is raised
                        pass
                    raise
                first += stored.size
    except MemoryError as error:
        raise SpineError(f"{refusal}, which is not there: close other programs.") from error
    lows, highs = zip(*ends, strict=True)
    array = nib.apply_orientation(array.reshape(image.shape, order="F"), image.to_ras)
    return Volume(array, image.canonical_affine, image, image.path), min(lows), max(highs)


def _load_labels(path: str | Path) -> tuple[Volume, float]:
    """Read a label map in the smallest type that has its labels; return the highest too."""
    image = open_nifti(Path(path))
    volume, _, high = _load(image, np.uint8, labels_from_stored)
    if high > 255:
        del volume  # so that only one of the two is in memory
        volume, _, _ = _load(image, np.uint16, labels_from_stored)
    return volume, high


def _warn(notes: Iterable[str]) -> None:
    """Warn in the name of the line that called a public function of this module."""
    for note in notes:
        warnings.warn(note, stacklevel=3)
