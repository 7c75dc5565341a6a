"""One CT slice with its overlays as an RGB array: what figures, viewers and reports show.

A slice is drawn upright, in its true proportions, windowed in HU, with a mask or a comparison of
two masks over it. :func:`render_slice` needs NumPy alone, and is fast enough for a slider.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry
from spine_lib.ct.geometry import (  # noqa: F401  (what a caller needs beside a drawn slice)
    Grid,
    orientation_marks,
    pixel_size_mm,
    plane_axes,
    scale_bar_mm,
    slice_count,
)
from spine_lib.explore import overlays
from spine_lib.explore.overlays import ERROR_SWATCHES, REGION_SWATCHES, Swatch  # noqa: F401

OVERLAYS = ("fill", "outline", "error")


@dataclass(frozen=True)
class Style:
    """How an overlay is drawn.

    Args:
        overlay: "fill", "outline", or "error" (needs a mask and a prediction).
        colouring: "spine" (one colour), "region" or "vertebra"; for canonical label ids.
            Probabilities and boolean masks are drawn as "spine".
        opacity: 0 (nothing) to 1 (covers the image); of the areas, not of their outlines.
        outline_px: width of outlines in pixels of the picture, 0 to 8.
        pixel_mm: side of a pixel of the picture in mm; by default the smaller of the slice's
            two spacings, so that no voxel is lost.
        threshold: a probability counts as spine from this value on.
        labels: the label ids to draw; by default all of them.
    """

    overlay: str = "fill"
    colouring: str = "spine"
    opacity: float = 0.4
    outline_px: int = 1
    pixel_mm: float | None = None
    threshold: float = 0.5
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        geometry.require_choice("overlay", self.overlay, OVERLAYS)
        geometry.require_choice("colouring", self.colouring, overlays.COLOURINGS)
        if not 0 <= self.opacity <= 1:
            raise SpineError(f"The opacity is {self.opacity}: give a value from 0 to 1.")
        if not 0 <= self.outline_px <= 8:
            raise SpineError(f"The outline is {self.outline_px} pixels wide: give 0 to 8.")
        if self.pixel_mm is not None and not 0 < self.pixel_mm < np.inf:
            raise SpineError(f"A pixel of {self.pixel_mm} mm cannot be drawn: give more than 0.")


def render_slice(
    volume: Grid,
    index: int,
    plane: str,
    window: tuple[float, float],
    mask: Grid | None = None,
    prediction: Grid | None = None,
    style: Style | str = "fill",
    ignore: Grid | None = None,
) -> np.ndarray:
    """Draw one slice of a CT, with its mask and a prediction if they are given.

    Axial and coronal slices have the patient's right on the viewer's left, sagittal ones anterior;
    anterior or superior is at the top. The image is resampled linearly, masks by nearest neighbour,
    to square pixels. With "fill" and "outline" a prediction beside a mask is a dashed line; with
    "error" true positives are plain, false positives hatched, false negatives dotted.

    Args:
        volume: CT in HU, [x, y, z] in RAS+; the other volumes lie on its grid.
        index: along the axis that the plane, "axial", "coronal" or "sagittal", cuts (z, y or x).
        window: centre and width in HU, for example ``WINDOWS["bone"]`` of `spine_lib.ct.volume`.
        mask: canonical label ids or booleans.
        prediction: labels, booleans or probabilities (float, 0 to 1).
        style: a :class:`Style`, or the name of an overlay.
        ignore: boolean, True where nothing is scored; only "error" draws it.

    Returns:
        uint8 array [row, column, 3].

    Raises:
        SpineError: for an unknown plane, an index outside the volume, a window without width,
            label ids outside 0 to 255, or volumes that lie on different grids.

    Example:
        >>> from types import SimpleNamespace
        >>> ct = SimpleNamespace(array=np.zeros((20, 30, 5), np.int16), affine=np.eye(4))
        >>> render_slice(ct, 2, "axial", (400, 1800)).shape
        (30, 20, 3)
    """
    style = Style(overlay=style) if isinstance(style, str) else style
    overlay = slice_overlay(volume, index, plane, mask, prediction, style, ignore)
    shape_hw = geometry.picture_shape(volume, plane, style.pixel_mm)
    image = geometry.cut_slice(volume, geometry.checked_index(volume, index, plane), plane)
    grey = _to_grey(geometry.resample_image(image, shape_hw, smooth=False), window)
    if overlay is None:
        return np.repeat(grey[:, :, None], 3, axis=2)
    return overlays.colour(grey, *overlay)


class Overlay(NamedTuple):
    """What is drawn over a slice: uint8 [row, column] areas and pixel kinds, and their colours."""

    areas: np.ndarray
    kinds: np.ndarray
    swatches: tuple[Swatch, ...]
    opacity: float


def slice_overlay(
    volume: Grid,
    index: int,
    plane: str,
    mask: Grid | None,
    prediction: Grid | None,
    style: Style,
    ignore: Grid | None = None,
) -> Overlay | None:
    """Return what `render_slice` draws over a slice; None without a mask and a prediction."""
    if style.overlay == "error" and (mask is None or prediction is None):
        raise SpineError("The overlay 'error' compares two masks: give a mask and a prediction.")
    for name, other in (("mask", mask), ("prediction", prediction), ("ignored region", ignore)):
        if other is not None:
            geometry.require_same_grid(volume, other, f"CT and {name}")
    source = prediction if mask is None else mask
    if source is None:
        return None
    index = geometry.checked_index(volume, index, plane)
    shape_hw = geometry.picture_shape(volume, plane, style.pixel_mm)
    truth, predicted, skip = (
        None
        if grid is None
        else geometry.resample_labels(
            as_labels(geometry.cut_slice(grid, index, plane), style.threshold), shape_hw
        )
        for grid in (mask, prediction, ignore)
    )
    if style.overlay == "error":
        areas = overlays.compare_masks(truth, predicted, skip)
        areas[(truth > 0) & (_chosen(truth, style.labels) == 0)] = 0
        kinds = overlays.pixel_kinds(areas, ERROR_SWATCHES, style.outline_px)
        return Overlay(areas, kinds, ERROR_SWATCHES, style.opacity)
    binary = source.array.dtype.kind in "bf"
    swatches = overlays.label_swatches("spine" if binary else style.colouring)
    areas = predicted if truth is None else truth
    areas = areas if binary else _chosen(areas, style.labels)
    outlined = style.overlay == "outline"
    width_px = max(style.outline_px, 1) if outlined else style.outline_px
    kinds = overlays.pixel_kinds(areas, swatches, width_px)
    if truth is not None and predicted is not None:
        overlays.add_dashes(kinds, predicted > 0, max(1, style.outline_px))
    return Overlay(areas, kinds, swatches, 0.0 if outlined else style.opacity)


def alt_text(volume: Grid, index: int, plane: str, case_id: str, overlaid: str = "") -> str:
    """Return a drawn slice in words: case, plane, position and what is overlaid."""
    position_mm = geometry.slice_position_mm(volume, index, plane)
    return (
        f"CT of case {case_id}, {plane} slice {index + 1} of {slice_count(volume, plane)} "
        f"({'RAS'[plane_axes(plane)[0]]} {position_mm:+.0f} mm), {overlaid or 'without overlay'}."
    )


def encode_png(rgb: np.ndarray) -> bytes:
    """Return a uint8 picture [row, column, 3] as a PNG, five to ten times as fast as Pillow."""
    from isal import isal_zlib  # here, so that drawing needs NumPy alone

    height, width, _ = rgb.shape
    flat = rgb.reshape(height, width * 3)
    rows = np.empty((height, 1 + width * 3), np.uint8)
    rows[:, 0] = 2  # the filter "up": a row is stored as its difference from the one above
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + header, b"IDAT" + isal_zlib.compress(rows, 2), b"IEND"):
        png += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png


def _to_grey(image_hw: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    try:
        centre, width = (float(value) for value in window)
    except (TypeError, ValueError):
        raise SpineError(
            f"The window {window!r} is not a centre and a width in HU: "
            "give two numbers, or WINDOWS['bone'] of spine_lib.ct.volume."
        ) from None
    if not (0 < width < np.inf and abs(centre) < np.inf):
        raise SpineError(f"A window of width {width:g} HU at {centre:g} HU shows nothing.")
    grey = (image_hw - np.float32(centre - width / 2)) * np.float32(255 / width)
    # fmax, unlike maximum and clip, draws a NaN as black instead of passing it on.
    np.fmin(np.fmax(grey, 0, out=grey), 255, out=grey)
    return (grey + np.float32(0.5)).astype(np.uint8)


def as_labels(labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return label ids as uint8; 1 for True and for a probability from the threshold on."""
    if labels.dtype.kind == "f":
        return (labels >= threshold).astype(np.uint8)
    if labels.dtype not in (np.uint8, np.bool_) and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > 255:
            raise SpineError(
                f"A mask holds the label {low if low < 0 else high}, outside 0 to 255: "
                "convert it with annotations.to_canonical."
            )
    return np.ascontiguousarray(labels, np.uint8)


def _chosen(labels_hw: np.ndarray, chosen: tuple[int, ...] | None) -> np.ndarray:
    if chosen is None:
        return labels_hw
    table = np.zeros(256, np.uint8)
    table[list(chosen)] = chosen
    return table[labels_hw]
