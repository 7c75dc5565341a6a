"""Lesson 9: from a network for slices to a mask of the whole scan, on the scan's own grid.

Each slice is predicted at the pixel size that the network was trained with; the probabilities are
enlarged again to the scan's voxels, so that scores and exported masks speak of the real scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from torch import nn

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.volume import Volume, load_ct, save_nifti
from spine_lib.training.checkpoints import load_weights
from spine_lib.training.recipe import Recipe
from spine_lib.volumes.predict import Ballot, add_enlarged, predict_parts, spine_of

_TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that touch by a face, an edge or a corner belong to one piece."""


def predict_volume(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str = "auto", batch: int = 16
) -> Volume:
    """Predict the probability of spine for every voxel of a scan.

    Args:
        network: maps [batch, channel, row, column] to logits of one class or several; stays on the
            device it is moved to.
        ct: scan in HU.
        recipe: says planes, pixel size and whether to average over the mirror image (not
            from the side).
        device: "auto", "cpu" or "cuda".
        batch: slices at once.

    Returns:
        float32 probabilities from 0 to 1 on the scan's grid; of several classes, that it is any but
        the background.
    """
    total = np.zeros(ct.shape, np.float32, order="F")
    for plane, part, found in predict_parts(network, ct, recipe, device, batch):
        add_enlarged(total, plane, part, spine_of(found))
    total /= len(recipe.planes)
    return ct.with_array(total)


def predict_regions(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str = "auto", batch: int = 16
) -> tuple[Volume, Volume]:
    """Predict the probability of spine and the likeliest region, running the network once.

    Beside what `predict_volume` needs this takes a byte a voxel for a network that sees one plane:
    its slices are done with one by one.  Over several planes the probabilities of all regions must
    wait until the last one has been seen, for two more bytes a region and voxel.

    Args:
        network: as for `predict_volume`, with the background and the regions as classes.
        ct, recipe, device, batch: as for `predict_volume`.

    Returns:
        float32 probabilities as `predict_volume` gives them, and uint8 ids of the likeliest region,
        1 and more in every voxel: what would be there, if it were spine (`to_region_mask` asks
        both).

    Raises:
        SpineError: if the recipe's networks tell spine from background only.
    """
    if recipe.classes == 1:
        raise SpineError(
            "this network tells spine from background and names no regions: use predict_volume, or "
            "train one with the recipe's target set to regions"
        )
    total = np.zeros(ct.shape, np.float32, order="F")
    ballot = Ballot(ct.shape, recipe)
    for plane, part, found in predict_parts(network, ct, recipe, device, batch):
        add_enlarged(total, plane, part, spine_of(found))
        ballot.add(plane, part, found)
    total /= len(recipe.planes)
    return ct.with_array(total), ct.with_array(ballot.likeliest())


def to_mask(probability: Volume, recipe: Recipe) -> Volume:
    """Threshold probabilities and, if the recipe says so, keep the largest connected piece.

    Returns:
        uint8 volume, 1 is spine.
    """
    mask = probability.array > recipe.threshold
    if recipe.largest_component:
        mask = largest_component(mask)
    return probability.with_array(mask.astype(np.uint8))


def to_region_mask(probability: Volume, likeliest: Volume, recipe: Recipe) -> Volume:
    """Name the regions of the mask that `to_mask` makes.

    A voxel is spine if the probabilities of all regions together pass the threshold, whichever of
    them is highest; so the mask is the same as without names, and what is cleaned away loses its
    name with it.

    Args:
        probability, likeliest: as `predict_regions` gives them.
        recipe: of the network.

    Returns:
        uint8 volume: 0 for background, 1 cervical, 2 thoracic, 3 lumbar, 4 sacral.
    """
    mask = to_mask(probability, recipe)
    return mask.with_array(mask.array * likeliest.array)


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
    ct: str | Path,
    out: str | Path,
    checkpoint: str | Path,
    device: str = "auto",
    say: Callable[[str], object] = lambda line: None,
) -> Path:
    """Segment a CT file or DICOM folder and write the mask on its original grid.

    Args:
        ct: `.nii`, `.nii.gz` or a folder with a DICOM series.
        out: NIfTI file to write; it lies on the scan in 3D Slicer.
        checkpoint: `weights.safetensors` or `.ckpt`.
        device: "auto", "cpu" or "cuda".
        say: called with a line on what the numbers in the mask mean.

    Returns:
        The path written.

    Raises:
        SpineError: if a file is missing, broken or not what it should be.
    """
    network, recipe = load_weights(checkpoint)
    volume = load_ct(ct)
    if recipe.classes == 1:
        mask = to_mask(predict_volume(network, volume, recipe, device), recipe)
        say("The mask holds 0 for background and 1 for spine.")
    else:
        mask = to_region_mask(*predict_regions(network, volume, recipe, device), recipe)
        ids = ", ".join(f"{number} {name}" for number, name in enumerate(REGIONS, start=1))
        say(f"The mask holds ids of regions: 0 background, {ids}.")
    return save_nifti(mask, out)
