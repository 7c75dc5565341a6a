"""Lesson 1: where voxels and slices lie in the patient, and how arrays change their grid.

Arrays are [x, y, z] in RAS+. A slice is [row, column], as a radiologist looks at it: rows begin
anterior (axial) or superior, columns at the patient's right or anterior (sagittal).
"""

import operator
import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from spine_lib import SpineError

PLANES = ("axial", "coronal", "sagittal")

GRID_TOLERANCE_MM, HARMLESS_VOXELS = 1e-2, 0.1
"""How far two grids may lie apart without a word (headers store 32-bit floats), and how far, in the
smallest spacing, they may lie apart and still be the same."""

# The array axis that a plane cuts, and those that run, backwards, down the rows and columns.
_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
_MARKS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


class Grid(Protocol):
    """An array [x, y, z] in RAS+ with its affine, such as `spine_lib.ct.volume.Volume`."""

    array: np.ndarray
    affine: np.ndarray


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise a `SpineError` unless a value is one of the choices."""
    if value not in choices:
        raise SpineError(f"Unknown {name} {value!r}: choose one of {', '.join(choices)}.")


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """Return the distances between voxel centres along x, y and z, in mm."""
    return tuple(np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0).tolist())


def largest_gap_mm(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Return how far apart two affines put the corner voxels of an array, in mm, at most."""
    corners = np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(shape) - 1)
    difference = np.asarray(affine, float) - np.asarray(other, float)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def require_same_grid(a: Grid, b: Grid, names: str = "image and mask") -> None:
    """Raise unless two volumes lie on the same voxels; `names` are what they are, for the message.

    Raises a `SpineError` if one has no affine, or shapes, spacings or positions differ by more than
    a tenth of a voxel; less is a warning. Of a file with two positions either counts.
    """
    for volume in (a, b):
        if not hasattr(volume, "affine"):
            kind = f"a {type(volume).__name__} without an affine has no position in the patient"
            raise SpineError(f"The {names} must be volumes, {kind}: give ct.with_array(array).")
    first, second = (getattr(volume, "path", None) for volume in (a, b))
    names = f"{names} ({first or 'first volume'} and {second or 'second volume'})"
    advice = "use the mask that belongs to this image or resample one to the other."
    if (shape := a.array.shape) != b.array.shape:
        raise SpineError(f"The {names} differ in shape, {shape} and {b.array.shape}: {advice}")
    gap_mm = largest_gap_mm(shape, a.affine, b.affine)
    spacings = [spacing_mm(volume.affine) for volume in (a, b)]
    limit_mm = HARMLESS_VOXELS * min(map(min, spacings))
    if gap_mm <= GRID_TOLERANCE_MM:
        return
    others = [getattr(volume, "itk_affine", volume.affine) for volume in (a, b)]
    pairs = [(a.affine, others[1]), (others[0], b.affine), (others[0], others[1])]
    if gap_mm <= limit_mm:
        note = f"lie up to {gap_mm:.2g} mm apart: harmless."
    elif any(largest_gap_mm(shape, *pair) <= limit_mm for pair in pairs):
        note = (
            "lie on the same voxels by the position that ITK programs read, though "
            f"{gap_mm:.3g} mm apart by nibabel's: check that they belong together."
        )
    elif np.allclose(*spacings, atol=limit_mm, rtol=0):
        raise SpineError(f"The {names} lie up to {gap_mm:.3g} mm apart in the patient: {advice}")
    else:
        first, second = (tuple(round(mm, 4) for mm in spacing) for spacing in spacings)
        raise SpineError(f"The {names} differ in spacing, {first} and {second} mm: {advice}")
    warnings.warn(f"The {names} {note}", stacklevel=2)


def plane_axes(plane: str) -> tuple[int, int, int]:
    """Return the array axes that a plane cuts, runs down the rows, and along the columns."""
    require_choice("plane", plane, PLANES)
    return _AXES[plane]


def orientation_marks(plane: str) -> dict[str, str]:
    """Return the letters that belong at a slice's sides: {"left": "R", ...} if it is axial."""
    require_choice("plane", plane, PLANES)
    return dict(zip(("left", "right", "top", "bottom"), _MARKS[plane]))


def to_slices(array_xyz: np.ndarray, plane: str) -> np.ndarray:
    """Return a volume [x, y, z] in RAS+ as a view [slice, row, column], ready to look at."""
    return array_xyz.transpose(plane_axes(plane))[:, ::-1, ::-1]


def cut_slice(volume: Grid, index: int, plane: str) -> np.ndarray:
    """Return one slice of a volume: a view [row, column]."""
    return to_slices(volume.array, plane)[index]


def slice_spacing_mm(spacing_mm: Sequence[float], plane: str) -> tuple[float, float, float]:
    """Return the distance between slices, rows and columns in mm, from a volume's spacing."""
    return tuple(float(spacing_mm[axis]) for axis in plane_axes(plane))


def slice_count(volume: Grid, plane: str) -> int:
    """Return how many slices a volume has along a plane."""
    return volume.array.shape[plane_axes(plane)[0]]


def checked_index(volume: Grid, index: int, plane: str) -> int:
    """Return a slice index as int; raise a `SpineError` if the volume has no such slice."""
    count = slice_count(volume, plane)
    try:
        index = operator.index(index)
    except TypeError:
        raise SpineError(f"Slice {index!r} is not a whole number.") from None
    if not 0 <= index < count:
        raise SpineError(f"There is no {plane} slice {index}: choose 0 to {count - 1}.")
    return index


def slice_position_mm(volume: Grid, index: int, plane: str) -> float:
    """Return where a slice's centre lies on its patient axis (R, A or S positive), in mm."""
    axis = plane_axes(plane)[0]
    voxel = (np.array(volume.array.shape) - 1) / 2
    voxel[axis] = checked_index(volume, index, plane)
    return float((np.asarray(volume.affine) @ [*voxel, 1])[axis])


def resampled_shape(
    shape_hw: Sequence[int], spacing_hw: Sequence[float], spacing_mm: float
) -> tuple[int, ...]:
    """Return how many rows and columns of `spacing_mm` cover an image, at least one each."""
    return tuple(max(1, round(n * old / spacing_mm)) for n, old in zip(shape_hw, spacing_hw))


def picture_shape(volume: Grid, plane: str, pixel_mm: float | None) -> tuple[int, int]:
    """Return rows and columns of a slice drawn with square pixels (None: the finest spacing)."""
    _, *shape_hw = slice_spacing_mm(volume.array.shape, plane)
    _, *spacing_hw = slice_spacing_mm(spacing_mm(volume.affine), plane)
    return resampled_shape(shape_hw, spacing_hw, pixel_mm or min(spacing_hw))


def pixel_size_mm(volume: Grid, plane: str, pixel_mm: float | None = None) -> float:
    """Return the width in mm of a pixel of a slice drawn in its `picture_shape`."""
    axis = plane_axes(plane)[2]
    width_mm = volume.array.shape[axis] * spacing_mm(volume.affine)[axis]
    return float(width_mm / picture_shape(volume, plane, pixel_mm)[1])


def scale_bar_mm(width_mm: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten), at most a third of a width."""
    if not 0 < width_mm < np.inf:
        raise SpineError(f"A picture {width_mm} mm wide has no scale: check the affine.")
    longest = width_mm / 3 * (1 + 1e-9)  # a third of 0.3 is a little less than 0.1
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def resample_image(image: np.ndarray, shape_hw: tuple[int, int], smooth: bool = True) -> np.ndarray:
    """Resample images [..., row, column] linearly in their plane to float32 of the same area.

    Where pixels get larger they are smoothed first, unless `smooth` is False, which a picture that
    follows a slider needs.
    """
    image = np.asarray(image, np.float32)
    ratios = [old / new for old, new in zip(image.shape[-2:], shape_hw, strict=True)]
    sigmas = [0.4 * ratio if ratio > 1 else 0.0 for ratio in ratios]
    if smooth and any(sigmas):
        from scipy import ndimage  # here, so that drawing needs NumPy alone

        image = ndimage.gaussian_filter(image, sigmas, axes=(-2, -1), mode="nearest")
    for axis, length in zip((-2, -1), shape_hw):
        image = _interpolate(image, axis, length)
    return image


def _interpolate(image: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Interpolate linearly along one axis; pixels are areas, so centres lie half a pixel in."""
    old = image.shape[axis]
    if old == length:
        return image
    position = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, old - 1)
    below = np.minimum(position.astype(np.intp), max(old - 2, 0))
    weight = (position - below).astype(np.float32)
    low = image.take(below, axis)
    high = image.take(np.minimum(below + 1, old - 1), axis)
    high -= low
    high *= weight[:, None] if axis == -2 else weight
    high += low
    return high


def resample_labels(labels: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """Resample labels [..., row, column] in their plane by nearest neighbour, with no new label."""
    for axis, length in zip((-2, -1), shape_hw, strict=True):
        old = labels.shape[axis]
        if old != length:
            nearest = (2 * np.arange(length) + 1) * old // (2 * length)
            labels = labels.take(nearest, axis)
    return labels
