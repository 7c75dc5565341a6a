"""See which input pixels one output pixel of a stack of convolutions depends on.

Dilation widens the view at no cost, and leaves holes in it where every layer dilates alike
(Wang et al. 2018, doi:10.1109/WACV.2018.00163, call it gridding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import Held, choice, column, row, whole
from spine_lib.explore.picture import Picture, text_html

if TYPE_CHECKING:
    from torch import nn

FIELD = 65
CELL = 6
ASPP_RATES = (6, 12, 18)
SAME, DOUBLING, ASPP = "the same in all layers", "doubling in each layer", "ASPP: 1x1 and 6, 12, 18"


def count_paths(kernel: int, dilations: Sequence[int]) -> np.ndarray:
    """Count the ways from each input pixel to one output pixel through layers of stride 1.

    Args:
        kernel: odd side of the kernels.
        dilations: of each layer in turn.

    Returns:
        int64 [row, column], odd and square, the output pixel in its middle; 0 is not seen.

    Raises:
        SpineError: if the kernel is even or a dilation is below 1.

    Example:
        >>> count_paths(3, [1, 1]).shape, count_paths(3, [2])[0].tolist()
        ((5, 5), [1, 0, 1, 0, 1])
    """
    if kernel < 1 or kernel % 2 == 0 or any(dilation < 1 for dilation in dilations):
        raise SpineError(
            f"A kernel of {kernel} with dilations {list(dilations)} has no middle: give an odd "
            "kernel and dilations of 1 or more."
        )
    line = np.ones(1, np.int64)
    for dilation in dilations:
        comb = np.zeros((kernel - 1) * dilation + 1, np.int64)
        comb[::dilation] = 1
        line = np.convolve(line, comb)
    return np.outer(line, line)


def count_paths_aspp(rates: Sequence[int] = ASPP_RATES) -> np.ndarray:
    """Count the ways through parallel branches: one 1x1 and a dilated 3x3 for each rate."""
    side = 2 * max(rates) + 1
    total = np.zeros((side, side), np.int64)
    total[side // 2, side // 2] = 1
    for rate in rates:
        branch = count_paths(3, [rate])
        pad = (side - len(branch)) // 2
        total += np.pad(branch, pad)
    return total


class ReceptiveFieldExplorer(Viewer):
    """Choose layers, kernel and dilation, and see what one output pixel sees.

    Args:
        networks: by name, real networks to measure as well; slow ones take a moment.
        size: rows and columns that the networks are measured on.
    """

    def __init__(self, networks: Mapping[str, nn.Module] | None = None, size: int = 128) -> None:
        self._networks, self._size = dict(networks or {}), size
        self._measured: dict[str, np.ndarray] = {}
        self.pattern = choice("dilation is", (SAME, DOUBLING, ASPP, *self._networks), SAME)
        self.layers = whole("layers", 3, 1, 5)
        self.kernel = whole("kernel", 3, 1, 7, 2)
        self.dilation = whole("dilation", 1, 1, 6)
        self.picture, self.text = Picture(420), widgets.HTML()
        Held(self._draw).watch(self.pattern, self.layers, self.kernel, self.dilation)
        sliders = (self.pattern, self.layers, self.kernel, self.dilation)
        controls = column(*sliders, self.text, width_px=400)
        super().__init__([row(self.picture, controls)])
        self._draw()

    @property
    def seen(self) -> np.ndarray:
        """How much each input pixel counts, [row, column]; 0 is not seen."""
        pattern, layers = self.pattern.value, self.layers.value
        if pattern in self._networks:
            if pattern not in self._measured:
                from spine_lib.models.atrous import pixel_gradient

                self._measured[pattern] = pixel_gradient(self._networks[pattern], self._size)
            return self._measured[pattern]
        if pattern == ASPP:
            return count_paths_aspp()
        grow = 2 if pattern == DOUBLING else 1
        return count_paths(
            self.kernel.value, [self.dilation.value * grow**layer for layer in range(layers)]
        )

    def _draw(self) -> None:
        seen = self.seen
        touched, side = int(np.count_nonzero(seen)), _side(seen)
        text = (
            f"One output pixel sees {touched} of the {side} x {side} = {side * side} input pixels "
            f"around it ({100 * touched / side**2:.0f} %)."
        )
        if self.pattern.value not in self._networks and side > FIELD:
            text += f" The picture shows the middle {FIELD} x {FIELD}."
        self.text.value = text_html(text)
        self.picture.show(_painted(seen, self.pattern.value not in self._networks), text)


def _side(seen: np.ndarray) -> int:
    """Return the side of the square around all that is seen."""
    rows, columns = np.nonzero(seen)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


def _painted(seen: np.ndarray, fixed_field: bool) -> np.ndarray:
    """Draw what is seen brighter the more it counts, each pixel as a cell with a rim."""
    if fixed_field:
        pad = max(0, FIELD - len(seen)) // 2
        crop = max(0, len(seen) - FIELD) // 2
        seen = np.pad(seen[crop : len(seen) - crop, crop : len(seen) - crop], pad)
    strength = np.log1p(1000 * seen / seen.max()) / np.log1p(1000)
    ramp = np.array([[24, 24, 24], [0, 90, 140], [86, 180, 233], [255, 255, 255]], float)
    at = np.linspace(0, 1, len(ramp))
    rgb = np.stack([np.interp(strength, at, ramp[:, band]) for band in range(3)], axis=2)
    rgb[(seen > 0) & (strength < 0.15)] = ramp[1]
    middle = len(seen) // 2
    cells = np.kron(rgb, np.ones((CELL, CELL, 1))).astype(np.uint8)
    cells[::CELL], cells[:, ::CELL] = 0, 0
    block = cells[middle * CELL : (middle + 1) * CELL, middle * CELL : (middle + 1) * CELL]
    block[[0, -1]], block[:, [0, -1]] = (213, 94, 0), (213, 94, 0)
    return cells
