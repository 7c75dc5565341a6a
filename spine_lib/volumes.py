"""Lesson 9: from a network for slices to a mask of the whole scan, on the scan's own grid.

Each slice is predicted at the pixel size that the network was trained with; the probabilities are
enlarged again to the scan's voxels, so that scores and exported masks speak of the real scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from spine_lib.augment import network_input
from spine_lib.checkpoints import load_weights
from spine_lib.ct import Volume, load_ct, save_nifti
from spine_lib.recipe import Recipe
from spine_lib.slices import (
    AIR_HU,
    resample_image,
    resampled_shape,
    slice_spacing_mm,
    to_slices,
    with_neighbours,
)
from spine_lib.training import choose_device, choose_precision

MULTIPLE = 32
"""Rows and columns must be multiples of this, for the encoder halves them five times."""

_TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that touch by a face, an edge or a corner belong to one piece."""


def predict_volume(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str = "auto", batch: int = 16
) -> Volume:
    """Predict the probability of spine for every voxel of a scan.

    Args:
        network: maps [batch, channel, row, column] to logits; stays on the device it is moved to.
        ct: scan in HU.
        recipe: says planes, pixel size and whether to average over the mirror image (not
            from the side).
        device: "auto", "cpu" or "gpu".
        batch: slices at once.

    Returns:
        float32 probabilities from 0 to 1 on the scan's grid.
    """
    kind = choose_device(device)
    network = network.to(kind, memory_format=torch.channels_last).eval()
    total = np.zeros(ct.shape, np.float32, order="F")
    for plane in recipe.planes:
        image = to_slices(ct.array, plane)
        target = to_slices(total, plane)
        spacing_hw = slice_spacing_mm(ct.spacing_mm, plane)[1:]
        shape_hw = resampled_shape(image.shape[1:], spacing_hw, recipe.spacing_mm)
        mirror = recipe.flip and plane != "sagittal"
        parts = [slice(start, start + batch) for start in range(0, len(image), batch)]
        small = np.concatenate([resample_image(image[part], shape_hw) for part in parts])
        distance_mm = slice_spacing_mm(ct.spacing_mm, plane)[0]
        seen = [
            with_neighbours(index, len(small), distance_mm, recipe.neighbour_mm)
            for index in range(len(small))
        ]
        for part in parts:
            found = _predict_slices(network, small[seen[part]], recipe, kind, mirror)
            target[part] += resample_image(found, image.shape[1:])
    total /= len(recipe.planes)
    return ct.with_array(total)


def _predict_slices(
    network: nn.Module, stack_hu: np.ndarray, recipe: Recipe, kind: str, mirror: bool
) -> np.ndarray:
    """Return probabilities [slice, row, column] of [slice, channel, row, column] in HU.

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
        logits = network(image).float()
        probability = torch.sigmoid(logits)
        if mirror:
            mirrored = torch.sigmoid(network(image.flip(-1)).float()).flip(-1)
            probability = (probability + mirrored) / 2
    top, left = before
    return probability[:, 0, top : top + rows, left : left + columns].cpu().numpy()


def to_mask(probability: Volume, recipe: Recipe) -> Volume:
    """Threshold probabilities and, if the recipe says so, keep the largest connected piece.

    Returns:
        uint8 volume, 1 is spine.
    """
    mask = probability.array > recipe.threshold
    if recipe.largest_component:
        mask = largest_component(mask)
    return probability.with_array(mask.astype(np.uint8))


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the largest piece whose voxels touch by a face; an empty mask stays empty."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return pieces == sizes.argmax()


def keep_pieces(
    mask: np.ndarray, spacing_mm: Sequence[float], smallest_ml: float = 0.5
) -> np.ndarray:
    """Keep every piece that is not smaller than a volume.

    A spine that the image cuts, or from which a vertebra is missing, falls into pieces rightly, and
    `largest_component` keeps one of them only.

    Args:
        mask: boolean [x, y, z].
        spacing_mm: size of a voxel along x, y and z.
        smallest_ml: of a piece, whose voxels touch by a face, an edge or a corner.

    Returns:
        A boolean mask of the same shape; empty where all pieces are smaller.
    """
    pieces, _ = ndimage.label(mask, _TOUCHING)
    sizes_ml = np.bincount(pieces.ravel()) * np.prod(spacing_mm) / 1000
    kept = sizes_ml >= smallest_ml
    kept[0] = False
    return kept[pieces]


def fill_holes(
    mask: np.ndarray, spacing_mm: Sequence[float], largest_ml: float = 1.0
) -> np.ndarray:
    """Fill cavities that the mask encloses on all sides, up to a volume.

    Cavities are looked for in three dimensions: in an axial slice the arch encloses the spinal
    canal, which is a hole there and none in the body. The limit leaves alone what is too large to
    be a gap, such as a canal that noise has closed at both ends.

    Args:
        mask: boolean [x, y, z].
        spacing_mm: size of a voxel along x, y and z.
        largest_ml: of a cavity, whose voxels touch by a face.

    Returns:
        A boolean mask of the same shape.
    """
    cavities, _ = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    sizes_ml = np.bincount(cavities.ravel()) * np.prod(spacing_mm) / 1000
    small = sizes_ml <= largest_ml
    small[0] = False
    return mask | small[cavities]


def predict_file(
    ct: str | Path, out: str | Path, checkpoint: str | Path, device: str = "auto"
) -> Path:
    """Segment a CT file or DICOM folder and write the mask on its original grid.

    Args:
        ct: `.nii`, `.nii.gz` or a folder with a DICOM series.
        out: NIfTI file to write; it lies on the scan in 3D Slicer.
        checkpoint: `weights.safetensors` or `.ckpt`.
        device: "auto", "cpu" or "gpu".

    Returns:
        The path written.

    Raises:
        SpineError: if a file is missing, broken or not what it should be.
    """
    network, recipe = load_weights(checkpoint)
    volume = load_ct(ct)
    mask = to_mask(predict_volume(network, volume, recipe, device), recipe)
    return save_nifti(mask, out)
