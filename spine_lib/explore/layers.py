"""Encode a slice for a saved page: the CT in all windows at once, and its overlay apart from it.

The page draws the window itself, so a slice is stored as 256 levels that span all HU of a body.
The levels lie close where soft tissue is told apart, and wide apart in lung and in metal. The
overlay is a palette of a few transparent colours, which takes little room and is stored exactly.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image, features

from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore.picture import data_uri
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

_KNOTS_HU = (-1024, -250, 300, 1300, 3071)
_KNOTS_LEVEL = (0, 46, 176, 236, 255)  # steps of 17, 4, 17 and 93 HU between them
_ALL_BLACK, _ALL_WHITE = (1e6, 1.0), (-1e6, 1.0)


def level_hu() -> np.ndarray:
    """Return the HU that each of the 256 levels stands for, float64, ascending."""
    return np.interp(np.arange(256), _KNOTS_LEVEL, _KNOTS_HU)


def slice_levels(ct: Volume, index: int, plane: str, pixel_mm: float | None) -> np.ndarray:
    """Return a slice as levels, uint8 [row, column], resampled as `render_slice` does it."""
    shape_hw = planes.picture_shape(ct, plane, pixel_mm)
    hu = planes.resample_image(planes.cut_slice(ct, index, plane), shape_hw)
    return np.interp(hu, _KNOTS_HU, _KNOTS_LEVEL).round().astype(np.uint8)


def encode_levels(levels_hw: np.ndarray, quality: int) -> str:
    """Encode levels as a `data:` address, with loss; WebP where there is one, else JPEG."""
    image, buffer = Image.fromarray(levels_hw), io.BytesIO()
    kind = "webp" if features.check("webp") else "jpeg"
    image.save(buffer, kind, quality=quality, **({"method": 2} if kind == "webp" else {}))
    return data_uri(buffer.getvalue(), kind)


def overlay_rgba(scene: Scene, index: int, plane: str, style: Style) -> np.ndarray:
    """Return what an overlay paints, uint8 [row, column, 4], opacity last.

    Drawn over black and over white, a paint tells both its colour and how much it covers.
    """
    on_black, on_white = (
        scene.draw(index, plane, window, style).astype(np.int16)
        for window in (_ALL_BLACK, _ALL_WHITE)
    )
    rgba = np.zeros((*on_black.shape[:2], 4), np.uint8)
    painted = (on_white - on_black != 255).any(axis=2)
    dark, bright = (one[painted].astype(float) for one in (on_black, on_white))
    cover = np.clip(255 - (bright - dark).mean(axis=1), 1, 255)
    rgba[painted, :3] = np.clip(np.round(dark * 255 / cover[:, None]), 0, 255)
    rgba[painted, 3] = np.round(cover)
    return rgba


def encode_overlay(rgba: np.ndarray) -> str:
    """Encode an overlay of at most 255 colours as a `data:` address; "" where it paints nothing."""
    painted = rgba[..., 3] > 0
    if not painted.any():
        return ""
    colours, place = np.unique(rgba[painted].view(np.uint32)[:, 0], return_inverse=True)
    palette = np.vstack([np.zeros((1, 4), np.uint8), colours.view(np.uint8).reshape(-1, 4)])
    places = np.zeros(painted.shape, np.uint8)
    places[painted] = 1 + place
    image = Image.fromarray(places)
    image.putpalette(palette[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "png", transparency=palette[:, 3].tobytes())
    return data_uri(buffer.getvalue(), "png")


def fitted(style: Style, ct: Volume, plane: str, size_px: int) -> Style:
    """Return a style whose picture has at most about `size_px` pixels on its longer side."""
    native = planes.pixel_size_mm(ct, plane, style.pixel_mm)
    spacing_mm, axes = ct.spacing_mm, planes.plane_axes(plane)[1:]
    longest_mm = max(ct.array.shape[axis] * spacing_mm[axis] for axis in axes)
    return replace(style, pixel_mm=max(native, longest_mm / size_px))
