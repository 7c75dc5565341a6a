"""Ignore rules: which voxels a mask says nothing about, so that they leave loss and scores."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations.schemes import SACRUM
from spine_lib.ct.volume import Volume

IgnoreRule = Callable[[Volume, np.ndarray, np.ndarray], np.ndarray]
"""A frozen dataclass that makes of the scan in HU, the ids of the mask file (other organs included)
and the canonical labels a bool array [x, y, z]: the voxels to ignore."""


@dataclass(frozen=True)
class UnlabelledBoneAtEnds:
    """Ignore bone beside the spine that the mask leaves out where the image ends, as it may.

    Only what is bright, without a label, near a labelled vertebra and not its rim is ignored: an
    error on the rim of a labelled bone stays an error.
    """

    end: str  # of the image: "superior" or "inferior"
    depth_mm: float = 8.0  # thickness of the slab at that end
    reach_mm: float = 10.0  # largest distance from a labelled vertebra
    above_hu: float = 250.0  # least intensity

    def __post_init__(self) -> None:
        if self.end not in ("superior", "inferior"):
            raise SpineError(f"The end of an image is 'superior' or 'inferior', not {self.end!r}.")

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        ignore = np.zeros(labels.shape, dtype=bool)
        slices = max(1, round(self.depth_mm / ct.spacing_mm[2]))
        slab = np.s_[:, :, -slices:] if self.end == "superior" else np.s_[:, :, :slices]
        spine = labels[slab] > 0
        if spine.any():
            (bounds,) = ndimage.find_objects(spine.astype(np.uint8))
            margin = [int(np.ceil(self.reach_mm / s)) for s in ct.spacing_mm]
            box = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(bounds, margin))
            away = ndimage.distance_transform_edt(~spine[box], sampling=ct.spacing_mm)
            rim = ndimage.binary_dilation(spine[box])
            bright = ct.array[slab][box] > self.above_hu
            unnamed = structures[slab][box] == 0
            ignore[slab][box] = bright & unnamed & ~rim & (away < self.reach_mm)
        return ignore


@dataclass(frozen=True)
class SacrumBelowS1:
    """Ignore the rest of the sacrum where a mask has S1 only: bone in a box behind and below S1."""

    depth_mm: float = 130.0  # height of the box, from S1's upper end down
    margin_mm: float = 25.0  # how much wider than S1 the box is on each side
    behind_mm: float = 110.0  # length of the box, from S1's front backwards
    above_hu: float = 100.0  # least smoothed intensity of bone

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        ignore = np.zeros(labels.shape, dtype=bool)
        sacrum = labels == SACRUM
        if not sacrum.any():
            return ignore
        ((x, y, z),) = ndimage.find_objects(sacrum.astype(np.uint8))
        lengths_mm = np.array([self.margin_mm, self.behind_mm, self.depth_mm])
        side, behind, depth = np.rint(lengths_mm / ct.spacing_mm).astype(int)
        box = (
            slice(max(0, x.start - side), x.stop + side),
            slice(max(0, y.stop - behind), y.stop),  # y grows to the front
            slice(max(0, z.stop - depth), z.stop),
        )
        rim = ndimage.binary_dilation(sacrum[box])  # an error on S1's own rim stays an error
        smooth = ndimage.gaussian_filter(
            ct.array[box].astype(np.float32), [1.5 / s for s in ct.spacing_mm]
        )
        ignore[box] = (smooth > self.above_hu) & (labels[box] == 0) & ~rim
        return ignore


@dataclass(frozen=True)
class OtherStructures:
    """Ignore the structures with these ids of the mask file: the source compared lacks them."""

    ids: tuple[int, ...]

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.isin(structures, self.ids)


@dataclass(frozen=True)
class BeyondLabelledVertebrae:
    """Ignore what is not labelled beyond the middle of the uppermost and lowest labelled vertebra.

    For masks that leave out the sacrum and every vertebra that the image cuts.
    """

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        vertebrae = np.unique(labels[labels > 0])
        if not vertebrae.size:
            return np.zeros(labels.shape, dtype=bool)
        height = np.arange(labels.shape[2])
        counts = [(labels == vertebra).sum(axis=(0, 1)) for vertebra in vertebrae]
        middles = [(count * height).sum() / count.sum() for count in counts]
        beyond = (height < int(min(middles))) | (height > int(max(middles)))
        return beyond & (labels == 0)
