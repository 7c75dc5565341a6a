"""Lesson 9: ask a network for the slices of a scan, and bring its answers back to the scan's grid.

Each slice is predicted at the pixel size that the network was trained with, and enlarged again to
the scan's voxels. `volumes.py` makes volumes of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from spine_lib.ct.geometry import resample_image, resampled_shape, slice_spacing_mm, to_slices
from spine_lib.ct.volume import Volume
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import AIR_HU, with_neighbours
from spine_lib.training.devices import choose_device, choose_precision
from spine_lib.training.recipe import Recipe

MULTIPLE = 32
"""Rows and columns must be multiples of this, for the encoder halves them five times."""


def predict_parts(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str, batch: int
) -> Iterator[tuple[str, slice, np.ndarray]]:
    """Predict a scan plane by plane and a few slices at a time.

    Yields:
        The plane, which slices, and their probabilities [slice, class, row, column] at the pixel
        size of the network.
    """
    kind = choose_device(device)
    network = network.to(kind, memory_format=torch.channels_last).eval()
    if kind == "cuda":  # training looks for the fastest convolutions of one size; scans differ
        torch.backends.cudnn.benchmark = False
    for plane in recipe.planes:
        image = to_slices(ct.array, plane)
        distance_mm, *spacing_hw = slice_spacing_mm(ct.spacing_mm, plane)
        shape_hw = resampled_shape(image.shape[1:], spacing_hw, recipe.spacing_mm)
        mirror = recipe.flip and plane != "sagittal"
        parts = [slice(start, start + batch) for start in range(0, len(image), batch)]
        small = np.concatenate([resample_image(image[part], shape_hw) for part in parts])
        seen = [
            with_neighbours(index, len(small), distance_mm, recipe.neighbour_mm)
            for index in range(len(small))
        ]
        for part in parts:
            yield plane, part, _predict_slices(network, small[seen[part]], recipe, kind, mirror)


def _predict_slices(
    network: nn.Module, stack_hu: np.ndarray, recipe: Recipe, kind: str, mirror: bool
) -> np.ndarray:
    """Return probabilities [slice, class, row, column] of [slice, channel, row, column] in HU.

    Air is put around the slices meanwhile, up to a size that the network takes.
    """
    size = recipe.augmentation.size
    rows, columns = stack_hu.shape[2:]
    padding = [max(size, -(-n // MULTIPLE) * MULTIPLE) - n for n in (rows, columns)]
    before = [n // 2 for n in padding]
    widths = [(0, 0), (0, 0), *((b, n - b) for b, n in zip(before, padding))]
    padded = np.pad(stack_hu, widths, constant_values=AIR_HU)
    image = torch.from_numpy(network_input(padded)).to(kind)
    image = image.contiguous(memory_format=torch.channels_last)
    bf16 = choose_precision(recipe.precision, kind) == "bf16-mixed"
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=bf16):
        probability = _probabilities(network(image).float())
        if mirror:
            mirrored = _probabilities(network(image.flip(-1)).float()).flip(-1)
            probability = (probability + mirrored) / 2
    top, left = before
    return probability[:, :, top : top + rows, left : left + columns].cpu().numpy()


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(logits) if logits.shape[1] == 1 else logits.softmax(1)


def spine_of(found: np.ndarray) -> np.ndarray:
    """Return probabilities of spine [slice, row, column] of [slice, class, row, column]."""
    return found[:, 0] if found.shape[1] == 1 else 1 - found[:, 0]


def add_enlarged(total: np.ndarray, plane: str, part: slice, found: np.ndarray) -> None:
    """Add predicted slices to a volume, at the size that they have there."""
    target = to_slices(total, plane)
    target[part] += resample_image(found, target.shape[1:])


class Ballot:
    """Find the region with the highest sum of probabilities over all planes.

    Where there is one plane, a slice is decided at once. Over several, sums are kept as whole
    numbers of 16 bits: half the memory of float32, and finer than half precision.

    Args:
        shape: of the volume.
        recipe: its planes and classes are used.
    """

    def __init__(self, shape: tuple[int, ...], recipe: Recipe) -> None:
        several = len(recipe.planes) > 1
        regions = recipe.classes - 1
        self._steps = np.iinfo(np.uint16).max // len(recipe.planes)
        self._sums = [np.zeros(shape, np.uint16, order="F") for _ in range(several * regions)]
        self._likeliest = np.ones(shape, np.uint8, order="F")

    def add(self, plane: str, part: slice, found: np.ndarray) -> None:
        """Count some slices, [slice, class, row, column]."""
        likeliest = to_slices(self._likeliest, plane)[part]
        enlarged = (resample_image(one, likeliest.shape[1:]) for one in found[:, 1:].swapaxes(0, 1))
        if not self._sums:
            _take_highest(enlarged, likeliest)
            return
        for total, one in zip(self._sums, enlarged):
            to_slices(total, plane)[part] += np.rint(one * self._steps).astype(np.uint16)

    def likeliest(self) -> np.ndarray:
        """Return the winner of each voxel, uint8, counted from 1."""
        for z in range(self._likeliest.shape[2]) if self._sums else ():
            _take_highest((total[..., z] for total in self._sums), self._likeliest[..., z])
        return self._likeliest


def _take_highest(values: Iterable[np.ndarray], winner: np.ndarray) -> None:
    """Write into `winner`, which is 1 so far, which array is highest, voxel by voxel."""
    numbered = enumerate(values, start=1)
    _, highest = next(numbered)
    for number, value in numbered:  # one at a time: the enlarged slices are not all kept
        winner[value > highest] = number
        highest = np.maximum(highest, value)
