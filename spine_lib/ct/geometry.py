"""Say where a slice of a volume lies, which way it faces and what size it is drawn at.

Arrays are [x, y, z] in RAS+; a slice is [row, column], seen as a radiologist sees it. NumPy only.
"""

from __future__ import annotations

import operator
from typing import Protocol

import numpy as np

from spine_lib import SpineError

PLANES = ("axial", "coronal", "sagittal")

# Which array axis a plane cuts, and which one then runs down the rows and along the columns.
# Both run backwards: arrays are RAS+, and a viewer expects right, anterior and superior first.
_AXES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
_MARKS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
_SAME_GRID_MM = 1e-2


class Grid(Protocol):
    """What is drawn: an array [x, y, z] in RAS+ and its affine, such as `ct.Volume`."""

    @property
    def array(self) -> np.ndarray: ...

    @property
    def affine(self) -> np.ndarray: ...


def orientation_marks(plane: str) -> dict[str, str]:
    """Return the letters that belong at the "left", "right", "top" and "bottom" of a slice.

    Example:
        >>> orientation_marks("axial")
        {'left': 'R', 'right': 'L', 'top': 'A', 'bottom': 'P'}
    """
    require_choice("plane", plane, PLANES)
    return dict(zip(("left", "right", "top", "bottom"), _MARKS[plane]))


def slice_count(volume: Grid, plane: str) -> int:
    """Return how many slices a volume has along a plane."""
    require_choice("plane", plane, PLANES)
    return volume.array.shape[_AXES[plane][0]]


def plane_axes(plane: str) -> tuple[int, int, int]:
    """Return the array axes that a plane cuts, runs down the rows, and along the columns."""
    require_choice("plane", plane, PLANES)
    return _AXES[plane]


def spacing_mm(volume: Grid) -> np.ndarray:
    """Return the distances between voxel centres along x, y and z, in mm."""
    return np.linalg.norm(np.asarray(volume.affine, float)[:3, :3], axis=0)


def pixel_size_mm(volume: Grid, plane: str, pixel_mm: float | None = None) -> float:
    """Return the width in mm of a pixel that :func:`render_slice` draws."""
    require_choice("plane", plane, PLANES)
    axis = _AXES[plane][2]
    width_px = picture_shape(volume, plane, pixel_mm)[1]
    return float(volume.array.shape[axis] * spacing_mm(volume)[axis] / width_px)


def slice_position_mm(volume: Grid, index: int, plane: str) -> float:
    """Return where a slice's centre lies on its patient axis (R, A or S positive), in mm."""
    index = checked_index(volume, index, plane)
    axis = _AXES[plane][0]
    voxel = (np.array(volume.array.shape) - 1) / 2
    voxel[axis] = index
    return float((np.asarray(volume.affine) @ [*voxel, 1])[axis])


def scale_bar_mm(width_mm: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten), at most a third of a width."""
    if not 0 < width_mm < np.inf:
        raise SpineError(f"A picture {width_mm} mm wide has no scale: check the affine.")
    longest = width_mm / 3 * (1 + 1e-9)  # a third of 0.3 is a little less than 0.1
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def picture_shape(volume: Grid, plane: str, pixel_mm: float | None) -> tuple[int, int]:
    """Return the rows and columns of a slice drawn with square pixels of `pixel_mm`."""
    axes = _AXES[plane][1:]
    voxel_mm = spacing_mm(volume)
    pixel_mm = pixel_mm or min(voxel_mm[axis] for axis in axes)
    rows, columns = (
        max(1, round(float(volume.array.shape[axis] * voxel_mm[axis] / pixel_mm))) for axis in axes
    )
    return rows, columns


def cut_slice(volume: Grid, index: int, plane: str) -> np.ndarray:
    """Return one slice of an array [x, y, z], the right way up: [row, column], a view."""
    # The two axes that are left stand in rising order, and the later one runs down the rows.
    return np.moveaxis(volume.array, _AXES[plane][0], 0)[index].T[::-1, ::-1]


def resample_nearest(image_hw: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """Resample [row, column] to another shape of the same extent, by nearest neighbour."""
    for axis, count_out in enumerate(shape_hw):
        count_in = image_hw.shape[axis]
        if count_in != count_out:
            nearest = (2 * np.arange(count_out) + 1) * count_in // (2 * count_out)
            image_hw = image_hw.take(nearest, axis)
    return image_hw


def resample_linear(image_hw: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    """Resample [row, column] to another shape of the same extent, linearly, as float32."""
    image_hw = image_hw.astype(np.float32, order="C")
    for axis, count_out in enumerate(shape_hw):
        count_in = image_hw.shape[axis]
        if count_in == count_out:
            continue
        # Both grids share the edges of their outer pixels, not their centres.
        at = np.clip((np.arange(count_out) + 0.5) * count_in / count_out - 0.5, 0, count_in - 1)
        low = at.astype(int)
        part = (at - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        below = image_hw.take(low, axis)
        above = image_hw.take(np.minimum(low + 1, count_in - 1), axis)
        image_hw = below + (above - below) * part
    return image_hw


def require_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise SpineError(f"Unknown {what} {value!r}: choose one of {', '.join(choices)}.")


def require_grid(volume: Grid, other: Grid | None, name: str) -> None:
    """Refuse a volume that does not lie on the grid of the CT; None is accepted."""
    if other is None:
        return
    if not (hasattr(other, "array") and hasattr(other, "affine")):
        raise SpineError(
            f"The {name} is a {type(other).__name__} without an affine, so nothing tells where "
            "it lies: give a Volume, for example ct.with_array(...)."
        )
    if volume.array.shape != other.array.shape:
        theirs, ours = ("x".join(map(str, one.array.shape)) for one in (other, volume))
        raise SpineError(
            f"The {name} has {theirs} voxels and the CT {ours}: "
            "resample it onto the grid of the CT first."
        )
    apart_mm = _apart_mm(volume, other)
    if not apart_mm <= _SAME_GRID_MM:  # so that a NaN is refused too
        raise SpineError(
            f"The {name} lies up to {apart_mm:.3g} mm away from the CT by its affine: "
            "resample it onto the grid of the CT first."
        )


def _apart_mm(volume: Grid, other: Grid) -> float:
    corners = np.indices((2, 2, 2)).reshape(3, 8).T * (np.array(volume.array.shape) - 1)
    difference = np.asarray(volume.affine, float) - np.asarray(other.affine, float)
    return float(np.linalg.norm(corners @ difference[:3, :3].T + difference[:3, 3], axis=1).max())


def checked_index(volume: Grid, index: int, plane: str) -> int:
    """Return a slice index as int, or refuse one that lies outside the volume."""
    count = slice_count(volume, plane)
    try:
        index = operator.index(index)
    except TypeError:
        raise SpineError(f"Slice {index!r} is not a whole number.") from None
    if not 0 <= index < count:
        raise SpineError(f"There is no {plane} slice {index}: choose 0 to {count - 1}.")
    return index
