"""Lesson 2: how well does a mask of bone lie on its scan?

Bone is bright, so the mean HU under a mask of vertebrae is highest where the mask belongs; the
correlation theorem tries all moves at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

STEP_MM = 3.0
"""Moves are tried on a grid thinned to this spacing at most, or the voxels' own if larger."""

HU_LIMITS = (-200, 500)
"""Air and metal count no more than these, so that neither decides where bone is."""


@dataclass(frozen=True)
class Peak:
    """The mean HU under a mask as it is, and after the move along x, y, z that makes it highest."""

    current_hu: float
    best_hu: float
    move_mm: tuple[float, float, float]

    @property
    def distance_mm(self) -> float:
        """Length of the move in mm."""
        return float(np.linalg.norm(self.move_mm))


def find_peak(
    image_hu: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float], reach_mm: float = 15.0
) -> Peak:
    """Return the move of a mask at which the image under it is brightest.

    Both are [x, y, z], the mask bool and not empty. Moves go as far as `reach_mm` along each axis,
    without those that push more than a tenth of the mask out of the image.
    """
    stride = np.array([max(1, int(STEP_MM / mm + 1e-3)) for mm in spacing_mm])
    step_mm = np.array(spacing_mm) * stride
    thinned = tuple(slice(None, None, n) for n in stride)
    image = np.clip(image_hu[thinned], *HU_LIMITS).astype(np.float32) - HU_LIMITS[0]
    marked = mask[thinned].astype(np.float32)
    reach = np.ceil(reach_mm / step_mm).astype(int)
    moves = np.ix_(*(np.arange(-n, n + 1) for n in reach))
    shape = [fft.next_fast_len(int(n), real=True) for n in image.shape + reach]
    conjugate = np.conj(fft.rfftn(marked, shape))
    total, inside = (
        fft.irfftn(fft.rfftn(array, shape) * conjugate, shape)[moves]
        for array in (image, np.ones_like(image))
    )
    mean = total / np.maximum(inside, 1) + HU_LIMITS[0]
    mean[inside < 0.9 * marked.sum()] = -np.inf
    centre = tuple(reach)
    best = np.unravel_index(int(mean.argmax()), mean.shape)
    if mean[best] - mean[centre] < 0.01:  # equal means differ by rounding
        best = centre
    move_mm = tuple(((np.array(best) - reach) * step_mm).tolist())
    return Peak(float(mean[centre]), float(mean[best]), move_mm)
