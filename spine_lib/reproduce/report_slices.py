"""Choose and draw the test slices that a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spine_lib.ct.geometry import spacing_mm
from spine_lib.explore import render
from spine_lib.explore.render import Grid, Style

KINDS = ("best", "median", "worst")
_MARGIN_MM = 25.0
_NARROWEST_MM = 120.0


@dataclass(frozen=True, eq=False)
class Overlay:
    """Hold a drawn slice for the report.

    Args:
        image: uint8 RGB [row, column, 3].
        caption: what it shows, for the reader who sees it.
        alt: the same for the reader who does not.
        kind: "best", "median" or "worst" (another word is shown as it is).
        plane: if given, orientation marks are set on the picture.
        pixel_mm: if given, a scale bar is set on it.
    """

    image: np.ndarray
    caption: str
    alt: str
    kind: str
    plane: str | None = None
    pixel_mm: float | None = None


class _Box(NamedTuple):
    array: np.ndarray
    affine: np.ndarray


def pick_slices(dice_by_slice: Mapping[object, float]) -> dict[str, object]:
    """Return which slices have the best, the median and the worst Dice.

    Args:
        dice_by_slice: Dice by any key, for instance (case id, index); NaN is left out.

    Returns:
        Keys by "best", "median" and "worst"; of equals, the first counts. With fewer than three
        defined slices, "best" and "worst" as far as there are any.

    Example:
        >>> pick_slices({1: 0.9, 2: float("nan"), 3: 0.2, 4: 0.7})
        {'best': 1, 'median': 4, 'worst': 3}
    """
    defined = {key: float(dice) for key, dice in dice_by_slice.items() if np.isfinite(dice)}
    ranked = sorted(defined, key=lambda key: -defined[key])
    if len(ranked) < 3:
        return dict(zip(("best", "worst"), ranked))
    return {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}


def draw_overlay(
    ct: Grid,
    mask: Grid,
    prediction: Grid,
    index: int,
    case_id: str,
    kind: str,
    dice: float,
    plane: str = "axial",
    window: tuple[float, float] = (400, 1800),
    ignore: Grid | None = None,
    width_px: int = 512,
) -> Overlay:
    """Draw where a prediction is right and wrong on one slice, close up on the spine.

    Args:
        ct, mask, prediction, index, plane, window, ignore: as for
            :func:`spine_lib.explore.render.render_slice`, which also says what is refused.
        case_id: how the caption calls the case.
        kind: "best", "median" or "worst".
        dice: of the slice, for the caption.
        width_px: width of the picture.
    """
    # Drawn whole first: what does not fit together is refused before it is cropped.
    render.render_slice(ct, index, plane, window, mask, prediction, "error", ignore)
    box = _box_around((mask, prediction), ct, index, plane)
    close_ct, close_mask, close_prediction, close_ignore = (
        None if one is None else _crop(one, box) for one in (ct, mask, prediction, ignore)
    )
    columns = close_ct.array.shape[render.plane_axes(plane)[2]]
    column_mm = spacing_mm(ct.affine)[render.plane_axes(plane)[2]]
    style = Style(
        "error", opacity=0.3, outline_px=2, pixel_mm=float(columns * column_mm / width_px)
    )
    image = render.render_slice(
        close_ct, 0, plane, window, close_mask, close_prediction, style, close_ignore
    )
    where = f"case {case_id}, {plane} slice {index + 1} of {render.slice_count(ct, plane)}"
    caption = f"{where}, Dice {dice:.3f}."
    overlaid = (
        f"close up on the spine; the {kind} test slice of its model, Dice {dice:.3f}: "
        "true positives plain, false positives hatched, false negatives dotted"
    )
    alt = render.alt_text(ct, index, plane, case_id, overlaid)
    return Overlay(image, caption, alt, kind, plane, style.pixel_mm)


def _box_around(masks: tuple[Grid, ...], ct: Grid, index: int, plane: str) -> tuple[slice, ...]:
    """Return the voxels of one slice that hold its masks, with a margin around them."""
    cut_axis = render.plane_axes(plane)[0]
    box = [slice(0, size) for size in ct.array.shape]
    box[cut_axis] = slice(index, index + 1)
    marked = np.logical_or(*(one.array[tuple(box)] > 0.5 for one in masks))
    for axis in render.plane_axes(plane)[1:]:
        places = np.flatnonzero(marked.any(tuple({0, 1, 2} - {axis})))
        if places.size:
            voxel_mm = spacing_mm(ct.affine)[axis]
            middle = (places[0] + places[-1] + 1) / 2
            width_mm = (places[-1] + 1 - places[0]) * voxel_mm + 2 * _MARGIN_MM
            half = max(width_mm, _NARROWEST_MM) / voxel_mm / 2
            box[axis] = slice(
                max(0, int(middle - half)), min(ct.array.shape[axis], int(np.ceil(middle + half)))
            )
    return tuple(box)


def _crop(volume: Grid, box: tuple[slice, ...]) -> _Box:
    affine = np.array(volume.affine, float)
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return _Box(volume.array[box], affine)
