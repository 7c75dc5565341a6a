"""The scanner: what its kernel, dose and field of view do to a painted phantom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scan:
    """How a phantom is scanned.

    Attributes:
        noise_hu: standard deviation of the noise in the middle of the body.
        blur_mm: width (standard deviation) of the kernel in the plane.
        sharpen: 0 for a soft-tissue kernel, up to about 1 for a bone kernel with its overshoot.
        streaks: how much noisier, along x, slices through the shoulders are.
        circle: whether everything outside the round field of view is padding.
        padding_hu: value of the padding.
    """

    noise_hu: float = 12.0
    blur_mm: float = 0.6
    sharpen: float = 0.0
    streaks: float = 0.0
    circle: bool = False
    padding_hu: float = -1024.0


def scan_noise(shape, spacing_mm, scan: Scan, rng: np.random.Generator, loud=None) -> np.ndarray:
    """Return CT noise with standard deviation 1.

    Filtered back projection weights frequencies by a ramp and the kernel takes the highest away,
    so the noise power spectrum is a ring (Riederer et al., Phys Med Biol 23:446-454, 1978,
    doi:10.1088/0031-9155/23/3/008): grains of a few voxels rather than pepper. Slices share some
    noise with the next one. Where few photons come through, as between the shoulders, the noise
    also draws streaks from side to side.

    Args:
        shape: voxels along x, y, z.
        spacing_mm: voxel size.
        scan: kernel settings.
        rng: source of the noise.
        loud: 0 to 1 for each slice: how much of `scan.streaks` it gets; none if left out.

    Returns:
        float32 array; the standard deviation is 1 where there are no streaks.
    """
    # One slab of independent slices serves the whole stack, shifted and mirrored.
    depth = min(shape[2], 48)
    nx, ny = (int(np.ceil(n / 8) * 8) for n in shape[:2])
    white = rng.standard_normal((depth, nx, ny), dtype=np.float32)
    fx = np.fft.fftfreq(nx, spacing_mm[0])[:, None]
    fy = np.fft.rfftfreq(ny, spacing_mm[1])[None, :]
    radius = np.hypot(fx, fy)
    # The cut-off of a real kernel, or what is left of it on coarse voxels.
    cut = min(0.32 + 0.3 * scan.sharpen, 0.45 / max(spacing_mm[:2]))
    spectrum = np.sqrt(radius + 0.005) * np.exp(-((radius / cut) ** 2) * 0.7)
    spectrum[0, 0] = 0.0
    slab = np.fft.irfft2(np.fft.rfft2(white) * spectrum.astype(np.float32), s=(nx, ny))
    slab = slab[:, : shape[0], : shape[1]].astype(np.float32)
    share = np.float32(np.exp(-spacing_mm[2] / 1.5))
    slab += share * np.roll(slab, 1, axis=0)
    slab /= slab.std()
    noise = np.empty(shape, np.float32)
    for k in range(shape[2]):
        turn, place = divmod(k, depth)
        piece = slab[place][:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
        noise[:, :, k] = np.roll(piece, (37 * turn, 61 * turn), axis=(0, 1)) if turn else piece
    if loud is not None:
        _add_streaks(noise, spacing_mm, np.float32(scan.streaks) * loud)
    return noise


def _add_streaks(noise: np.ndarray, spacing_mm, strength: np.ndarray) -> None:
    where = np.flatnonzero(strength > 0.05)
    if len(where):
        part = noise[:, :, where]
        smeared = _blur(part, 6.0 / spacing_mm[0], 0)
        noise[:, :, where] = part + smeared * (strength[where] / smeared.std())


def apply_kernel(hu: np.ndarray, spacing_mm, scan: Scan) -> None:
    """Blur in the plane, then add back edges for sharp kernels; works in place."""
    sigma = scan.blur_mm / np.asarray(spacing_mm[:2])
    soft = hu
    for axis in (0, 1):
        soft = _blur(soft, float(sigma[axis]), axis)
    if scan.sharpen > 0:
        wide = soft
        for axis in (0, 1):
            wide = _blur(wide, 1.1 / spacing_mm[axis], axis)
        soft = soft + np.float32(0.7 * scan.sharpen) * (soft - wide)
    hu[...] = soft


def _blur(array: np.ndarray, sigma: float, axis: int) -> np.ndarray:
    if sigma < 0.15:
        return array
    # Below about a voxel, taps of the same variance are truer than a sampled Gaussian.
    if sigma < 0.9:
        side = sigma * sigma / 2
        taps = np.array([side, 1 - 2 * side, side], np.float32)
    else:
        reach = int(np.ceil(3 * sigma))
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        taps = (taps / taps.sum()).astype(np.float32)
    reach = len(taps) // 2
    pad = [(0, 0)] * 3
    pad[axis] = (reach, reach)
    padded = np.pad(array, pad, mode="edge")
    result = np.zeros_like(array)
    for i, tap in enumerate(taps):
        part = [slice(None)] * 3
        part[axis] = slice(i, i + array.shape[axis])
        result += tap * padded[tuple(part)]
    return result
