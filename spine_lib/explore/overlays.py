"""Labelled areas over a grey picture, in colours, hatchings and outlines.

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
# Within a region the lightness changes with every third label and the hatching with every fourth,
# so that neighbours differ in both and no two of twelve are alike.
_SHADES = (0.0, 0.55, -0.4)
CANONICAL_LABELS = frozenset((*range(1, 27), 28))

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

GROUND, MARK, EDGE, LIGHT_DASH, DARK_DASH = range(5)
"""The kinds of pixel of an overlay: ground and mark of a hatching, outline, and dashes."""


@lru_cache(maxsize=4)
def label_swatches(colouring: str) -> tuple[Swatch, ...]:
    """Return the swatches of the label ids 1 to 255, that of id k at position k - 1.

    Args:
        colouring: "spine" (all alike), "region" (cervical, thoracic, lumbar, sacral) or
            "vertebra" (neighbours differ in colour and hatching); other ids are white.

    Example:
        >>> label_swatches("region")[20 - 1].name
        'lumbar'
    """
    require_choice("colouring", colouring, COLOURINGS)
    return tuple(_label_swatch(label, colouring) for label in range(1, 256))


def _label_swatch(label: int, colouring: str) -> Swatch:
    if label not in CANONICAL_LABELS:
        return UNKNOWN_SWATCH
    if colouring == "spine":
        return SPINE_SWATCH
    number = 1 if label == 28 else int(np.searchsorted((7, 19, 25), label))  # 28 is T13
    region = REGION_SWATCHES[number]
    if colouring == "region":
        return region
    position = 12 if label == 28 else label - (1, 8, 20, 26)[number]
    shade = _SHADES[position % 3]
    rgb = tuple(round(v + shade * (255 - v if shade > 0 else v)) for v in region.rgb)
    return Swatch(f"label {label}", rgb, HATCHES[position % 4])


def compare_masks(
    mask: np.ndarray, prediction: np.ndarray, ignore: np.ndarray | None = None
) -> np.ndarray:
    """Return where two masks agree, as positions in `ERROR_SWATCHES`, counted from 1.

    Args:
        mask, prediction: arrays of one shape, spine where above 0.
        ignore: not scored where above 0.

    Returns:
        uint8: 0 background, 1 true positive, 2 false positive, 3 false negative, 4 not scored.
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
    return edge & (areas > 0)


def pixel_kinds(areas: np.ndarray, swatches: tuple[Swatch, ...], outline_px: int) -> np.ndarray:
    """Return which pixels are GROUND, MARK or EDGE; uint8 [row, column], as `areas`."""
    hatch_bits = np.array([0, *(1 << HATCHES.index(swatch.hatch) for swatch in swatches)], np.uint8)
    kinds = ((hatch_bits[areas] & _mark_bits(areas.shape)) != 0).view(np.uint8)
    if outline_px > 0:
        kinds[outline(areas, outline_px)] = EDGE
    return kinds


def add_dashes(kinds: np.ndarray, mask: np.ndarray, width_px: int) -> None:
    """Add the outline of a boolean mask as yellow and black dashes to pixel kinds, in place."""
    row, column = np.nonzero(outline(mask.view(np.uint8), width_px))
    kinds[row, column] = np.where((row + column) // 4 % 2, LIGHT_DASH, DARK_DASH)


def colour(
    grey: np.ndarray,
    areas: np.ndarray,
    kinds: np.ndarray,
    swatches: tuple[Swatch, ...],
    opacity: float,
) -> np.ndarray:
    """Return areas over a grey picture, uint8 [row, column, 3]: one look-up for each pixel.

    Args:
        grey, areas: uint8 [row, column]; the area k has the colour of ``swatches[k - 1]``.
        kinds: of `pixel_kinds`.
        opacity: of the areas, 0 to 1; hatching varies it.
    """
    entry = areas.astype(np.intp)
    entry *= 5
    entry += kinds
    entry *= 256
    entry += grey
    rgbx = _colour_table(swatches, opacity).take(entry)
    return np.ascontiguousarray(rgbx.view(np.uint8).reshape(*grey.shape, 4)[:, :, :3])


def covers(swatches: tuple[Swatch, ...], opacity: float) -> np.ndarray:
    """Return colour and opacity (0 to 1) by area and kind of pixel: float32 [area, kind, 4]."""
    table = np.zeros((1 + len(swatches), 5, 4), np.float32)
    for area, swatch in enumerate(swatches, start=1):
        table[area, :, :3] = swatch.rgb
        ground = opacity * (1 if swatch.hatch == "solid" else _GROUND)
        table[area, :3, 3] = ground, min(1, opacity * _MARK), 1
    table[:, LIGHT_DASH], table[:, DARK_DASH] = (*OKABE_ITO["yellow"], 1), (0, 0, 0, 1)
    return table


@lru_cache(maxsize=8)
def _mark_bits(shape_hw: tuple[int, int]) -> np.ndarray:
    """Return which hatchings have a mark at each pixel: bit k for ``HATCHES[k]``."""
    tile = sum(marks.astype(np.uint8) << bit for bit, marks in enumerate(_MARKS))
    repeats = [-(-side // _TILE) for side in shape_hw]
    return np.ascontiguousarray(np.tile(tile, repeats)[: shape_hw[0], : shape_hw[1]], np.uint8)


@lru_cache(maxsize=16)
def _colour_table(swatches: tuple[Swatch, ...], opacity: float) -> np.ndarray:
    """Return colours as four bytes, by (area, kind of pixel, grey)."""
    grey = np.arange(256, dtype=np.float32)[:, None]
    rows = covers(swatches, opacity)[:, :, None, :]
    table = np.zeros((1 + len(swatches), 5, 256, 4), np.uint8)
    table[..., :3] = np.round(grey * (1 - rows[..., 3:]) + rows[..., :3] * rows[..., 3:])
    return table.view(np.uint32).reshape(-1)
