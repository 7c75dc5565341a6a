"""Lesson 9: predict whole scans with a network for slices, on the scan's own grid.

Each slice is predicted at the pixel size that the network was trained with; the probabilities are
enlarged again to the scan's voxels, so that scores and exported masks refer to the real scan.

A spine is a small part of a scan. With `near_spine` a few whole slices show where it is, and the
network then sees the others only there, which takes a fraction of the time.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from tqdm import tqdm

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.files import array_sha256, check_output
from spine_lib.ct.geometry import resample_image, resampled_shape, slice_spacing_mm, to_slices
from spine_lib.ct.volume import Volume, load_ct, save_nifti
from spine_lib.models import fold_norms
from spine_lib.slices.augment import network_input
from spine_lib.slices.cut import AIR_HU, with_neighbours
from spine_lib.training.checkpoints import read_checkpoint
from spine_lib.training.devices import autocast, choose_device
from spine_lib.training.recipe import Recipe
from spine_lib.volumes.masks import TOUCHING, to_mask

MULTIPLE = 32  # of rows and columns, for the encoder halves them five times

SEARCH_MM = 20.0  # distance of the slices in which spine is looked for first, less than a vertebra
SHOWN = 0.3  # probability from which spine counts as shown there
LEAST_SHARE = 0.25  # smaller pieces than this share of the largest are no spine
MARGIN_MM = 24.0  # so much around it is predicted too, which the networks see of its surroundings
BODY_HU = -300  # below is air


def predict_volume(
    network: nn.Module,
    ct: Volume,
    recipe: Recipe,
    device: str = "auto",
    batch: int = 16,
    progress: bool = False,
    near_spine: bool = False,
    regions: "_RegionArgmax | None" = None,
) -> Volume:
    """Predict the probability of spine for every voxel of a scan.

    Args:
        network: maps [batch, channel, row, column] to logits of one class or several; stays on the
            device it is moved to.
        ct: scan in HU.
        recipe: gives planes, pixel size, and whether to average over the mirror image.
        device: "auto", "cpu" or "cuda".
        batch: slices at once.
        progress: show a progress bar in a terminal.
        near_spine: predict only the part of the slices in which a few of them show spine; the
            probability elsewhere is 0.
        regions: collects the regions' probabilities (`predict_regions`).

    Returns:
        float32 probabilities from 0 to 1 on the scan's grid; of several classes, that it is any but
        the background.
    """
    total = np.zeros(ct.shape, np.float32, order="F")
    batches = _predict_batches(network, ct, recipe, choose_device(device), batch, near_spine)
    count = sum(-(-len(to_slices(ct.array, plane)) // batch) for plane in recipe.planes)
    hidden = None if progress else True  # None: shown in a terminal alone
    for plane, part, probability in tqdm(batches, "slices", count, unit="batch", disable=hidden):
        slices = to_slices(total, plane)
        slices[part] += resample_image(_spine(probability), slices.shape[1:])
        if regions is not None:
            regions.add(plane, part, probability)
    total /= len(recipe.planes)
    return ct.with_array(total)


def predict_regions(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str = "auto", **options: Any
) -> tuple[Volume, Volume]:
    """Predict the probability of spine and the likeliest region, running the network once.

    Args as for `predict_volume`, beside which this takes a byte a voxel; over several planes two
    more bytes a region and voxel. The likeliest region is a uint8 id, 1 and more in every voxel.
    """
    if recipe.classes == 1:
        raise SpineError(
            "this network tells spine from background and names no regions: use predict_volume, or "
            "train one with the recipe's target set to regions"
        )
    regions = _RegionArgmax(ct.shape, recipe.classes - 1, len(recipe.planes))
    probability = predict_volume(network, ct, recipe, device, regions=regions, **options)
    return probability, ct.with_array(regions.likeliest())


def predict_mask(
    network: nn.Module, ct: Volume, recipe: Recipe, device: str = "auto", **options: Any
) -> tuple[Volume, Volume]:
    """Predict the probability of spine, and the mask (uint8) that the recipe's clean-up leaves.

    The mask holds 1 or, of a network that names regions, their ids, 1 cervical to 4 sacral: a voxel
    is spine if the probabilities of all regions together pass the threshold. Args as for
    `predict_volume`.
    """
    likeliest = None
    if recipe.classes == 1:
        probability = predict_volume(network, ct, recipe, device, **options)
    else:
        probability, likeliest = predict_regions(network, ct, recipe, device, **options)
    cleaning = recipe.threshold, recipe.largest_component
    return probability, to_mask(probability, *cleaning, likeliest)


def predict_file(
    ct: str | Path,
    out: str | Path,
    checkpoint: str | Path,
    device: str = "auto",
    say: Callable[[str], object] = lambda line: None,
    series: str | None = None,
    overwrite: bool = False,
    straight: bool = False,
    mirror: bool | None = None,
) -> Path:
    """Segment a CT file or DICOM folder, write the mask on its original grid and return its path.

    Args:
        ct: `.nii`, `.nii.gz` or a folder with a DICOM series.
        out: NIfTI file to write; it lies on the scan in 3D Slicer.
        checkpoint: `weights.safetensors` or `.ckpt`.
        say: called with a line on what the numbers in the mask mean.
        device, series: as for `predict_volume` and `load_ct`.
        overwrite: replace a file that exists.
        straight: True writes a sheared grid (a tilted gantry) as a straight one, which ITK opens.
        mirror: average over the mirror image too, in twice the time; default as in the recipe.

    Raises a `SpineError` if a file is missing, broken or not what it should be, or `out` cannot be
    written, exists, or is an input.
    """
    options = {"overwrite": overwrite, "suffixes": (".nii", ".nii.gz")}
    check_output(out, [ct, checkpoint], **options)
    stored = read_checkpoint(Path(checkpoint))
    network, recipe = stored.network, stored.recipe
    if mirror is not None:
        recipe = recipe.changed(flip=mirror)
    volume = load_ct(ct, series)
    size = volume.array.size // (100 if Path(out).suffix == ".gz" else 1)
    check_output(out, [ct, checkpoint], **options, size=size)
    if stored.data and array_sha256(volume.array) in stored.data.images.values():
        say("This network was trained on this scan: the mask tells nothing about other scans.")
    options = {"progress": True, "near_spine": True}
    _, mask = predict_mask(network, volume, recipe, device, **options)
    if recipe.classes == 1:
        say("The mask holds 0 for background and 1 for spine.")
    else:
        ids = ", ".join(f"{number} {name}" for number, name in enumerate(REGIONS, start=1))
        say(f"The mask holds ids of regions: 0 background, {ids}.")
    if not mask.array.any():
        say("No spine was found: the mask is empty.")
    return save_nifti(mask, out, straight)


def _predict_batches(
    network: nn.Module, ct: Volume, recipe: Recipe, kind: str, batch: int, near_spine: bool
) -> Iterator[tuple[str, slice, np.ndarray]]:
    """Yield plane, slices and their probabilities [slice, class, row, column], not yet enlarged."""
    network = fold_norms(network.to(kind, memory_format=torch.channels_last))
    predict = functools.partial(_predict_window, network, kind, recipe.precision)
    if kind == "cuda":  # training looks for the fastest convolutions of one size; scans differ
        torch.backends.cudnn.benchmark = False
    for plane in recipe.planes:
        image = to_slices(ct.array, plane)
        distance_mm, *spacing_hw = slice_spacing_mm(ct.spacing_mm, plane)
        rows, columns = shape_hw = resampled_shape(image.shape[1:], spacing_hw, recipe.spacing_mm)
        parts = [slice(start, start + batch) for start in range(0, len(image), batch)]
        small = np.concatenate([resample_image(image[part], shape_hw) for part in parts])
        small, (top, left) = _padded(small, recipe.augmentation.size)
        neighbours = functools.partial(with_neighbours, count=len(small), distance_mm=distance_mm)
        seen = [neighbours(i, neighbour_mm=recipe.neighbour_mm) for i in range(len(small))]
        window = np.s_[:, :]
        if near_spine:
            few = seen[:: max(1, round(SEARCH_MM / distance_mm))]
            chunks = (few[start : start + batch] for start in range(0, len(few), batch))
            window = _spine_window(predict, small, chunks, round(MARGIN_MM / recipe.spacing_mm))
        for part in parts:
            mirror = recipe.flip and plane != "sagittal"
            probability = predict(small[seen[part]], window, mirror)
            yield plane, part, probability[:, :, top : top + rows, left : left + columns]


def _padded(small: np.ndarray, least: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return slices with air around them, multiples of `MULTIPLE`, and where they begin in it."""
    padding = [max(least, -(-n // MULTIPLE) * MULTIPLE) - n for n in small.shape[1:]]
    widths = [(0, 0), *((n // 2, n - n // 2) for n in padding)]
    return np.pad(small, widths, constant_values=AIR_HU), (widths[1][0], widths[2][0])


def _spine_window(
    predict: Callable, small: np.ndarray, chunks: Iterable[list], margin: int
) -> tuple[slice, slice]:
    """Return the rows and columns in which some slices show spine, or the body if none does."""
    body = _window((small > BODY_HU).any(0), 0)
    shown = [_spine(predict(small[chunk], body)) > SHOWN for chunk in chunks]
    pieces, count = ndimage.label(np.concatenate(shown), TOUCHING)
    sizes = np.bincount(pieces.ravel(), minlength=2)[1:]
    large = np.concatenate([[False], sizes >= max(1, LEAST_SHARE * sizes.max())])
    return _window(large[pieces].any(0), margin) if count else body


def _window(shown: np.ndarray, margin: int) -> tuple[slice, slice]:
    """Return rows and columns around all that is shown.

    They begin and end at multiples of `MULTIPLE`, so that the encoder halves the same pixels
    together as on the whole slice: its answers depend on that.
    """
    window = []
    for size, other in zip(shown.shape, (1, 0)):
        lines = np.flatnonzero(shown.any(other))
        first, last = (lines[0], lines[-1] + 1) if len(lines) else (0, size)
        start = max(0, int(first) - margin) // MULTIPLE * MULTIPLE
        window.append(slice(start, min(size, -(-(int(last) + margin) // MULTIPLE) * MULTIPLE)))
    return tuple(window)


def _predict_window(
    network: nn.Module,
    kind: str,
    precision: str,
    stack_hu: np.ndarray,
    window: tuple[slice, slice],
    mirror: bool = False,
) -> np.ndarray:
    """Return probabilities [slice, class, row, column] of [slice, channel, row, column] in HU.

    All is background outside the window.
    """
    image = torch.from_numpy(network_input(stack_hu[:, :, *window])).to(kind)
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(precision, kind):
        inside = _probabilities(network(image).float())
        if mirror:
            mirrored = _probabilities(network(image.flip(-1)).float()).flip(-1)
            inside = (inside + mirrored) / 2
    if not torch.isfinite(inside).all():
        raise SpineError(
            "the network predicts NaN, which is no probability: its weights are spoilt, train anew"
        )
    probability = np.zeros((*inside.shape[:2], *stack_hu.shape[2:]), np.float32)
    probability[:, 0] = inside.shape[1] > 1
    probability[:, :, *window] = inside.cpu().numpy()
    return probability


def _probabilities(logits: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(logits) if logits.shape[1] == 1 else logits.softmax(1)


def _spine(probability: np.ndarray) -> np.ndarray:
    """Return the probability of spine [slice, row, column] of [slice, class, row, column]."""
    return probability[:, 0] if probability.shape[1] == 1 else 1 - probability[:, 0]


class _RegionArgmax:
    """The region with the highest sum of probabilities over all planes.

    A single plane is decided at once; over several, sums are kept as whole numbers of 16 bits.
    """

    def __init__(self, shape: tuple[int, ...], regions: int, planes: int) -> None:
        self._steps = np.iinfo(np.uint16).max // planes
        kept = regions if planes > 1 else 0
        self._sums = [np.zeros(shape, np.uint16, order="F") for _ in range(kept)]
        self._likeliest = np.ones(shape, np.uint8, order="F")

    def add(self, plane: str, part: slice, probability: np.ndarray) -> None:
        likeliest = to_slices(self._likeliest, plane)[part]
        enlarged = (
            resample_image(region, likeliest.shape[1:])
            for region in probability[:, 1:].swapaxes(0, 1)
        )
        if not self._sums:
            _take_highest(enlarged, likeliest)
            return
        for total, slices in zip(self._sums, enlarged):
            to_slices(total, plane)[part] += np.rint(slices * self._steps).astype(np.uint16)

    def likeliest(self) -> np.ndarray:
        for z in range(self._likeliest.shape[2]) if self._sums else ():
            _take_highest((total[..., z] for total in self._sums), self._likeliest[..., z])
        return self._likeliest


def _take_highest(values: Iterable[np.ndarray], winner: np.ndarray) -> None:
    """Write into `winner`, which holds ones, the number of the highest array at each voxel."""
    numbered = enumerate(values, start=1)
    _, highest = next(numbered)
    for number, value in numbered:  # one at a time: the enlarged slices are not all kept
        winner[value > highest] = number
        highest = np.maximum(highest, value)
