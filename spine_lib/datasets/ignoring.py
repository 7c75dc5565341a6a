"""What the public data sets leave unlabelled, so that neither loss nor scores look there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spine_lib.annotations.schemes import SACRUM
from spine_lib.ct.volume import Volume


@dataclass(frozen=True)
class SacrumBelowS1:
    """Ignore the rest of the sacrum where a mask has S1 only.

    Unlabelled bone behind and below S1 is ignored, in a box as wide as S1 with a margin.  Marrow
    counts as bone: brightness is taken after smoothing.

    Attributes:
        depth_mm: how far below S1's upper end.
        margin_mm: how much wider than S1 to each side.
        behind_mm: how far behind S1's front.
        above_hu: how bright bone is.
    """

    depth_mm: float = 130.0
    margin_mm: float = 25.0
    behind_mm: float = 110.0
    above_hu: float = 100.0

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the voxels to ignore, bool [x, y, z]."""
        ignore = np.zeros(labels.shape, dtype=bool)
        sacrum = labels == SACRUM
        if not sacrum.any():
            return ignore
        (found,) = ndimage.find_objects(sacrum.astype(np.uint8))
        box = self._box(found, ct)
        away = ndimage.binary_dilation(sacrum[box])  # an error on S1's own rim stays an error
        smooth = ndimage.gaussian_filter(
            ct.array[box].astype(np.float32), [1.5 / s for s in ct.spacing_mm]
        )
        ignore[box] = (smooth > self.above_hu) & (labels[box] == 0) & ~away
        return ignore

    def _box(self, found: tuple[slice, ...], ct: Volume) -> tuple[slice, ...]:
        x, y, z = found
        side, behind, depth = (
            round(mm / s)
            for mm, s in zip(
                (self.margin_mm, self.behind_mm, self.depth_mm), ct.spacing_mm, strict=True
            )
        )
        return (
            slice(max(0, x.start - side), x.stop + side),
            slice(max(0, y.stop - behind), y.stop),  # y grows to the front
            slice(max(0, z.stop - depth), z.stop),
        )


@dataclass(frozen=True)
class OtherStructures:
    """Ignore structures that a mask names, where another source with which it is to agree has none.

    Attributes:
        ids: of the structures, in the label map as its file has them.
    """

    ids: tuple[int, ...]

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the voxels to ignore, bool [x, y, z]."""
        return np.isin(structures, self.ids)


@dataclass(frozen=True)
class BeyondLabelledVertebrae:
    """Ignore what is not labelled above the uppermost and below the lowest labelled vertebra.

    For masks that leave out the sacrum and every vertebra that the image cuts: beyond the middle of
    the last whole vertebra nobody said what is spine.
    """

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the voxels to ignore, bool [x, y, z]."""
        slices = labels.reshape(-1, labels.shape[2])
        middles = []
        for vertebra in np.unique(labels[labels > 0]):
            count = (slices == vertebra).sum(axis=0)
            middles.append(float((count * np.arange(len(count))).sum() / count.sum()))
        ignore = np.zeros(labels.shape, dtype=bool)
        if middles:
            ignore[:, :, : int(min(middles))] = True
            ignore[:, :, int(max(middles)) + 1 :] = True
        return ignore & (labels == 0)
