"""Paint labelled areas on a picture so that they can be told apart, and not by colour alone.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which keep apart
under the common forms of colour blindness. Every kind of area also has a hatching, and every
area an outline, so that a grey print still tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from spine_lib import SpineError

OKABE_ITO: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "orange": (230, 159, 0),
        "sky blue": (86, 180, 233),
        "bluish green": (0, 158, 115),
        "yellow": (240, 228, 66),
        "blue": (0, 114, 178),
        "vermillion": (213, 94, 0),
        "reddish purple": (204, 121, 167),
    }
)
COLOURINGS = ("spine", "region", "vertebra")
HATCHES = ("solid", "rising", "falling", "dots")


class Paint(NamedTuple):
    """Tell one kind of area from the others: a name, an sRGB colour (0-255) and a hatching."""

    name: str
    rgb: tuple[int, int, int]
    hatch: str = "solid"


SPINE_PAINT = Paint("spine", OKABE_ITO["sky blue"])
UNKNOWN_PAINT = Paint("unknown", (255, 255, 255), "dots")
ERROR_PAINTS = (
    Paint("true positive", OKABE_ITO["sky blue"]),
    Paint("false positive", OKABE_ITO["vermillion"], "rising"),
    Paint("false negative", OKABE_ITO["yellow"], "dots"),
    Paint("not scored", (200, 200, 200), "falling"),
)
REGION_PAINTS = (
    Paint("cervical", OKABE_ITO["orange"]),
    Paint("thoracic", OKABE_ITO["sky blue"], "rising"),
    Paint("lumbar", OKABE_ITO["yellow"], "dots"),
    Paint("sacral", OKABE_ITO["reddish purple"], "falling"),
)
# Six colours in turn, every second one hatched: neighbours differ in both.
_VERTEBRA_COLOURS = ("sky blue", "orange", "bluish green", "yellow", "reddish purple", "vermillion")

# Where a hatching puts its marks, tiled over the picture; marks stand out from a paler ground.
_TILE = 8
_ROW, _COLUMN = np.indices((_TILE, _TILE))
_MARKS = (
    np.zeros((_TILE, _TILE), bool),
    (_ROW + _COLUMN) % _TILE < 2,
    (_ROW - _COLUMN) % _TILE < 2,
    (_ROW % 4 < 2) & (_COLUMN % 4 < 2),
)
_GROUND, _MARK = 0.6, 2.0  # times the opacity, under every hatching but the solid one


def colours_for(colouring: str) -> dict[int, Paint]:
    """Return how each canonical label id (1 to 26 and 28) is painted.

    Args:
        colouring: "spine" (all alike), "region" (cervical, thoracic, lumbar, sacral) or
            "vertebra" (neighbours differ in colour and hatching).

    Raises:
        SpineError: for another colouring.

    Example:
        >>> colours_for("region")[20].name
        'lumbar'
    """
    if colouring not in COLOURINGS:
        raise SpineError(f"Unknown colouring {colouring!r}: choose one of {', '.join(COLOURINGS)}.")
    labels = (*range(1, 27), 28)
    if colouring == "spine":
        return dict.fromkeys(labels, SPINE_PAINT)
    if colouring == "region":
        return {label: REGION_PAINTS[_region(label)] for label in labels}
    return {label: _vertebra_paint(label) for label in labels}


def _region(label: int) -> int:
    if label == 28:  # T13
        return 1
    return int(np.searchsorted((7, 19, 25), label))


def _vertebra_paint(label: int) -> Paint:
    place = label - 1
    name = _VERTEBRA_COLOURS[place % len(_VERTEBRA_COLOURS)]
    return Paint(f"label {label}", OKABE_ITO[name], HATCHES[place % 2])


@lru_cache(maxsize=4)
def paints_by_id(colouring: str) -> tuple[Paint, ...]:
    """Return the paints of the ids 1 to 255 under a colouring; ids without a name are white."""
    known = colours_for(colouring)
    return tuple(known.get(label, UNKNOWN_PAINT) for label in range(1, 256))


def compare(truth: np.ndarray, guess: np.ndarray, skip: np.ndarray | None = None) -> np.ndarray:
    """Return where two masks agree, as numbers into `ERROR_PAINTS` from 1 on.

    Args:
        truth, guess: [row, column], spine where above 0.
        skip: [row, column], neither right nor wrong where above 0; may be None.

    Returns:
        uint8 [row, column]: 0 background, 1 true positive, 2 false positive, 3 false negative,
        4 not scored.
    """
    missed, false = (np.asarray(one > 0).view(np.uint8) for one in (truth, guess))
    areas = 3 * missed + 2 * false - 4 * (missed & false)
    if skip is not None:
        areas[skip > 0] = 4
    return areas


def outline(areas: np.ndarray, width_px: int) -> np.ndarray:
    """Return the inner edge of every area: boolean [row, column], `width_px` pixels wide."""
    edge = np.zeros(areas.shape, bool)
    for step in range(1, width_px + 1):
        for after, before in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            differs = areas[after] != areas[before]
            edge[after] |= differs
            edge[before] |= differs
    edge &= areas > 0
    return edge


def paint_areas(
    grey: np.ndarray,
    areas: np.ndarray,
    paints: tuple[Paint, ...],
    opacity: float,
    outline_px: int,
) -> np.ndarray:
    """Paint areas on a grey picture.

    A pixel's colour depends on its grey value, on its paint, and on whether it lies on the
    ground, a mark of the hatching or the outline: one look-up for each pixel.

    Args:
        grey: uint8 [row, column].
        areas: uint8 [row, column]; the area k is painted with ``paints[k - 1]``, 0 is left.
        paints: at least as many as the highest area.
        opacity: of the areas, 0 to 1; hatching varies it.
        outline_px: width of the opaque outline, 0 for none.

    Returns:
        uint8 [row, column, 3].
    """
    hatch_bits = np.array([0, *(1 << HATCHES.index(paint.hatch) for paint in paints)], np.uint8)
    kind = ((hatch_bits[areas] & _mark_bits(areas.shape)) != 0).view(np.uint8)
    if outline_px > 0:
        kind[outline(areas, outline_px)] = 2
    place = areas.astype(np.intp)
    place *= 3
    place += kind
    place *= 256
    place += grey
    rgbx = _colour_table(paints, opacity).take(place)
    return np.ascontiguousarray(rgbx.view(np.uint8).reshape(*grey.shape, 4)[:, :, :3])


@lru_cache(maxsize=8)
def _mark_bits(shape_hw: tuple[int, int]) -> np.ndarray:
    """Return which hatchings have a mark at each pixel: bit k for ``HATCHES[k]``."""
    tile = sum(marks.astype(np.uint8) << bit for bit, marks in enumerate(_MARKS))
    repeats = [-(-side // _TILE) for side in shape_hw]
    bits = np.ascontiguousarray(np.tile(tile, repeats)[: shape_hw[0], : shape_hw[1]], np.uint8)
    bits.flags.writeable = False
    return bits


@lru_cache(maxsize=16)
def _colour_table(paints: tuple[Paint, ...], opacity: float) -> np.ndarray:
    """Return colours as four bytes, by (area, ground or mark or outline, grey)."""
    grey = np.arange(256, dtype=np.float32)[:, None]
    table = np.zeros((1 + len(paints), 3, 256, 4), np.uint8)
    table[0, :, :, :3] = grey
    for area, paint in enumerate(paints, start=1):
        solid = paint.hatch == "solid"
        covers = (opacity * (1 if solid else _GROUND), min(1, opacity * _MARK), 1)
        for kind, cover in enumerate(covers):
            mixed = grey * (1 - cover) + np.array(paint.rgb, np.float32) * cover
            table[area, kind, :, :3] = np.round(mixed)
    return table.view(np.uint32).reshape(-1)


def paint_dashes(rgb: np.ndarray, mask: np.ndarray, width_px: int) -> None:
    """Draw the outline of a boolean mask as yellow and black dashes, in place."""
    where = np.flatnonzero(outline(mask.view(np.uint8), width_px))
    row, column = np.divmod(where, mask.shape[1])
    dash = ((row + column) // 4 % 2).astype(bool)
    rgb.reshape(-1, 3)[where] = np.where(dash[:, None], OKABE_ITO["yellow"], (0, 0, 0))
