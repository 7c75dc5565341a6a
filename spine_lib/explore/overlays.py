"""Draw labelled areas over a grey picture, in colours, hatchings and outlines.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which differ under the
common forms of colour blindness. Hatchings and outlines distinguish the areas in a grey print.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from spine_lib.ct.geometry import require_choice

OKABE_ITO = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermillion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
}
COLOURINGS = ("spine", "region", "vertebra")
HATCHES = ("solid", "rising", "falling", "dots")


class Swatch(NamedTuple):
    """The appearance of one kind of area: a name, an sRGB colour (0-255) and a hatching."""

    name: str
    rgb: tuple[int, int, int]
    hatch: str = "solid"


SPINE_SWATCH = Swatch("spine", OKABE_ITO["sky blue"])
UNKNOWN_SWATCH = Swatch("unknown", (255, 255, 255), "dots")
ERROR_SWATCHES = (
    Swatch("true positive", OKABE_ITO["sky blue"]),
    Swatch("false positive", OKABE_ITO["vermillion"], "rising"),
    Swatch("false negative", OKABE_ITO["yellow"], "dots"),
    Swatch("not scored", (200, 200, 200), "falling"),
)
REGION_SWATCHES = (
    Swatch("cervical", OKABE_ITO["orange"]),
    Swatch("thoracic", OKABE_ITO["sky blue"], "rising"),
    Swatch("lumbar", OKABE_ITO["yellow"], "dots"),
    Swatch("sacral", OKABE_ITO["reddish purple"], "falling"),
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


@lru_cache(maxsize=4)
def label_swatches(colouring: str) -> tuple[Swatch, ...]:
    """Return the swatches of the label ids 1 to 255.

    Args:
        colouring: "spine" (all alike), "region" (cervical, thoracic, lumbar, sacral) or
            "vertebra" (neighbours differ in colour and hatching).

    Returns:
        The swatch of id k at position k - 1; ids that are not canonical are white.

    Raises:
        SpineError: for another colouring.

    Example:
        >>> label_swatches("region")[20 - 1].name
        'lumbar'
    """
    require_choice("colouring", colouring, COLOURINGS)
    return tuple(_label_swatch(label, colouring) for label in range(1, 256))


def _label_swatch(label: int, colouring: str) -> Swatch:
    if label not in (*range(1, 27), 28):
        return UNKNOWN_SWATCH
    if colouring == "spine":
        return SPINE_SWATCH
    if colouring == "region":  # 28 is T13
        return REGION_SWATCHES[1 if label == 28 else int(np.searchsorted((7, 19, 25), label))]
    colour = _VERTEBRA_COLOURS[(label - 1) % len(_VERTEBRA_COLOURS)]
    return Swatch(f"label {label}", OKABE_ITO[colour], HATCHES[(label - 1) % 2])


def compare_masks(
    mask: np.ndarray, prediction: np.ndarray, ignore: np.ndarray | None = None
) -> np.ndarray:
    """Return where two masks agree, as positions in `ERROR_SWATCHES`, counted from 1.

    Args:
        mask, prediction: [row, column], spine where above 0.
        ignore: [row, column], not scored where above 0.

    Returns:
        uint8 [row, column]: 0 background, 1 true positive, 2 false positive, 3 false negative,
        4 not scored.
    """
    spine, predicted = (np.asarray(array > 0).view(np.uint8) for array in (mask, prediction))
    areas = 3 * spine + 2 * predicted - 4 * (spine & predicted)
    if ignore is not None:
        areas[ignore > 0] = 4
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


def draw_areas(
    grey: np.ndarray,
    areas: np.ndarray,
    swatches: tuple[Swatch, ...],
    opacity: float,
    outline_px: int,
) -> np.ndarray:
    """Draw areas over a grey picture.

    A pixel's colour depends on its grey value, on its swatch, and on whether it lies on the
    ground, a mark of the hatching or the outline: one look-up for each pixel.

    Args:
        grey: uint8 [row, column].
        areas: uint8 [row, column]; the area k is drawn with ``swatches[k - 1]``, 0 is left.
        swatches: at least as many as the highest area.
        opacity: of the areas, 0 to 1; hatching varies it.
        outline_px: width of the opaque outline, 0 for none.

    Returns:
        uint8 [row, column, 3].
    """
    hatch_bits = np.array([0, *(1 << HATCHES.index(swatch.hatch) for swatch in swatches)], np.uint8)
    kind = ((hatch_bits[areas] & _mark_bits(areas.shape)) != 0).view(np.uint8)
    if outline_px > 0:
        kind[outline(areas, outline_px)] = 2
    entry = areas.astype(np.intp)
    entry *= 3
    entry += kind
    entry *= 256
    entry += grey
    rgbx = _colour_table(swatches, opacity).take(entry)
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
def _colour_table(swatches: tuple[Swatch, ...], opacity: float) -> np.ndarray:
    """Return colours as four bytes, by (area, ground or mark or outline, grey)."""
    grey = np.arange(256, dtype=np.float32)[:, None]
    table = np.zeros((1 + len(swatches), 3, 256, 4), np.uint8)
    table[0, :, :, :3] = grey
    for area, swatch in enumerate(swatches, start=1):
        solid = swatch.hatch == "solid"
        covers = (opacity * (1 if solid else _GROUND), min(1, opacity * _MARK), 1)
        for kind, cover in enumerate(covers):
            mixed = grey * (1 - cover) + np.array(swatch.rgb, np.float32) * cover
            table[area, kind, :, :3] = np.round(mixed)
    return table.view(np.uint32).reshape(-1)


def draw_dashes(rgb: np.ndarray, mask: np.ndarray, width_px: int) -> None:
    """Draw the outline of a boolean mask as yellow and black dashes, in place."""
    where = np.flatnonzero(outline(mask.view(np.uint8), width_px))
    row, column = np.divmod(where, mask.shape[1])
    dash = ((row + column) // 4 % 2).astype(bool)
    rgb.reshape(-1, 3)[where] = np.where(dash[:, None], OKABE_ITO["yellow"], (0, 0, 0))
