"""How well a mask of bone lies on its scan, judged from the image alone.

Bone is bright, so the mean HU under a mask of vertebrae is highest where the mask belongs.  Moving
the mask about and looking where that mean peaks finds masks that are shifted or mirrored; the
correlation theorem tries all moves at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

STEP_MM = 3.0
"""Moves are tried on a grid thinned to this spacing at most, or the voxels' own if larger."""

HU_LIMITS = (-200, 500)
"""Air and metal count no more than these, so that neither decides where bone is."""


@dataclass(frozen=True)
class Peak:
    """Say where a mask lies best.

    Attributes:
        here_hu: mean HU under the mask where it is.
        best_hu: highest mean HU under the mask of all moves that were tried.
        move_mm: the move along x, y and z in mm that reaches it.
    """

    here_hu: float
    best_hu: float
    move_mm: tuple[float, float, float]

    @property
    def distance_mm(self) -> float:
        """Length of the move in mm."""
        return float(np.linalg.norm(self.move_mm))


def find_peak(
    image_hu: np.ndarray,
    mask: np.ndarray,
    spacing_mm: tuple[float, float, float],
    reach_mm: float = 15.0,
) -> Peak:
    """Move a mask up to `reach_mm` along each axis and find where the image under it is brightest.

    Args:
        image_hu: scan in HU, [x, y, z].
        mask: bool, same shape; not empty.
        spacing_mm: voxel spacing along x, y, z.
        reach_mm: how far to move.

    Returns:
        Where the mean HU (clipped to `HU_LIMITS`) peaks.  Moves that push more than a tenth of
        the mask out of the image are not considered.
    """
    stride = [max(1, int(STEP_MM / s + 1e-3)) for s in spacing_mm]
    thin = tuple(slice(None, None, k) for k in stride)
    image = np.clip(image_hu[thin], *HU_LIMITS).astype(np.float32)
    marked = mask[thin].astype(np.float32)
    pad = [int(np.ceil(reach_mm / (s * k))) for s, k in zip(spacing_mm, stride, strict=True)]
    moves = [np.arange(-p, p + 1) for p in pad]
    total, inside = _correlate(image - HU_LIMITS[0], marked, moves)
    mean = total / np.maximum(inside, 1) + HU_LIMITS[0]
    mean[inside < 0.9 * marked.sum()] = -np.inf
    centre = tuple(pad)
    # Equal means differ by rounding; among them the mask's own place wins.
    best = np.unravel_index(int(mean.argmax()), mean.shape)
    if mean[best] - mean[centre] < 0.01:
        best = centre
    move = [
        float((i - p) * s * k) for i, p, s, k in zip(best, pad, spacing_mm, stride, strict=True)
    ]
    return Peak(float(mean[centre]), float(mean[best]), (move[0], move[1], move[2]))


def _correlate(
    image: np.ndarray, marked: np.ndarray, moves: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each move the sum of the image under the mask and how much of it is inside."""
    shape = [
        fft.next_fast_len(n + len(m) // 2, real=True)
        for n, m in zip(image.shape, moves, strict=True)
    ]
    conjugate = np.conj(fft.rfftn(marked, shape))
    where = np.ix_(*moves)
    both = (image, np.ones_like(image))
    total, inside = (fft.irfftn(fft.rfftn(a, shape) * conjugate, shape)[where] for a in both)
    return total, inside
