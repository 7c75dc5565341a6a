"""One patient and one scan: what is drawn from a seed, and what kernel and dose do to an image."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from spine_lib import SpineError
from spine_lib.datasets.phantom.spine import Build
from spine_lib.datasets.phantom.trunk import Habitus

KERNELS = {"smooth": (0.95, 0.0), "standard": (0.6, 0.15), "sharp": (0.35, 0.9)}
"""Reconstruction kernels: width of the blur in mm, strength of the edges."""

_LIMITS = {
    "degenerative": (0, 1),
    "scoliosis_deg": (0, 30),
    "trabecular_hu": (0, 500),
    "noise_hu": (0, 200),
}


@dataclass(frozen=True)
class PhantomOptions:
    """What may be fixed about a phantom; None leaves it to the seed.

    Attributes:
        levels: first and last vertebra, head first, to centre the field of view on.
        tight: cut the field of view down to the spine and a small margin, as spine protocols do;
            the array is then smaller than `shape`.
        contrast: whether there is contrast medium in the blood.
        degenerative: wear, from 0 (young) to 1.
        scoliosis_deg: largest lateral lean of a vertebra.
        trabecular_hu: mean of the spongy bone; about 60 in osteoporosis, 250 in the young.
        noise_hu: standard deviation of the noise.
        kernel: a key of `KERNELS`.
        extra: "T13", "L6" or "" for a variant of the column.
        tissues: also return the tissue map.
    """

    levels: tuple[str, str] | None = None
    tight: bool = False
    contrast: bool | None = None
    degenerative: float | None = None
    scoliosis_deg: float | None = None
    trabecular_hu: float | None = None
    noise_hu: float | None = None
    kernel: str | None = None
    extra: str | None = None
    tissues: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and low <= value <= high):
                raise SpineError(f"phantom option {name} is {value!r}: give {low} to {high}")
        for name, known in (("kernel", tuple(KERNELS)), ("extra", ("", "T13", "L6"))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise SpineError(f"phantom option {name} is {value!r}: give one of {known}")


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


@dataclass(frozen=True)
class Patient:
    """A spine, a trunk and a scan."""

    build: Build
    habitus: Habitus
    scan: Scan
    table_hu: float
    disc_hu: float


def _choose(fixed: Any, drawn: Any) -> Any:
    return drawn if fixed is None else fixed


def draw_patient(seed: int, options: PhantomOptions) -> Patient:
    """Draw what the options leave open; the same seed gives the same patient."""
    # Every number is drawn whether it is needed or not: fixing one must not change the others.
    rng = np.random.default_rng([seed, 1])
    worn = _choose(options.degenerative, rng.beta(1.3, 1.6))
    scoliosis = rng.uniform(6, 16) if rng.uniform() < 0.25 else rng.uniform(0, 4)
    extra = rng.choice(["", "T13", "L6"], p=[0.92, 0.03, 0.05])
    build = Build(
        size=rng.uniform(0.88, 1.1),
        lordosis=rng.uniform(0.6, 1.2),
        kyphosis=rng.uniform(0.6, 1.4),
        scoliosis_deg=_choose(options.scoliosis_deg, scoliosis),
        degenerative=worn,
        fracture=0.25 * max(worn - 0.6, 0),
        extra=str(_choose(options.extra, extra)),
    )
    return Patient(
        build,
        _draw_habitus(rng, build, options),
        _draw_scan(rng, options),
        table_hu=rng.choice([-1000.0, rng.uniform(-500, 150)], p=[0.15, 0.85]),
        disc_hu=rng.uniform(65, 105),
    )


def _draw_habitus(rng: np.random.Generator, build: Build, options: PhantomOptions) -> Habitus:
    contrast = _choose(options.contrast, bool(rng.uniform() < 0.6))
    arterial, venous, organ, kidney = rng.uniform(size=4)
    trabecular = rng.uniform(120, 290) * (1 - 0.45 * build.degenerative * rng.uniform())
    large = rng.normal(0, 1)
    return Habitus(
        width=build.size * (1 + 0.06 * large),
        depth=build.size * (1 + 0.08 * large),
        fat_mm=float(np.clip(rng.lognormal(2.6, 0.5) + 3 * large, 4, 45)),
        muscle_hu=rng.uniform(40, 65) + 8 * contrast,
        wasting=float(np.clip(0.8 * build.degenerative + rng.normal(0, 0.2), 0, 1)),
        fat_hu=rng.uniform(-115, -90),
        lung_hu=rng.uniform(-890, -780),
        blood_hu=(150 + 260 * arterial if contrast else 40.0),
        vein_hu=(60 + 110 * venous if contrast else 38.0),
        organ_hu=rng.uniform(35, 65) + (55 * organ if contrast else 0),
        kidney_hu=(120 + 100 * kidney if contrast else 32.0),
        cortical_hu=rng.uniform(580, 960),
        trabecular_hu=_choose(options.trabecular_hu, trabecular),
        cortex_mm=rng.uniform(0.9, 1.5),
    )


def _draw_scan(rng: np.random.Generator, options: PhantomOptions) -> Scan:
    blur, sharpen = KERNELS[_choose(options.kernel, rng.choice(["smooth", "standard", "sharp"]))]
    return Scan(
        noise_hu=_choose(options.noise_hu, rng.lognormal(2.4, 0.5) * (1 + 0.7 * sharpen)),
        blur_mm=blur * rng.uniform(0.85, 1.15),
        sharpen=sharpen * rng.uniform(0.5, 1.2),
        streaks=rng.uniform(0, 1.2),
        circle=bool(rng.uniform() < 0.25),
        padding_hu=float(rng.choice([-1024, -2048, -3024])),
    )


# --- image formation ------------------------------------------------------------------------------


def scan_noise(
    shape, spacing_mm, scan: Scan, rng: np.random.Generator, attenuation=None
) -> np.ndarray:
    """Return CT noise with standard deviation 1.

    Filtered back projection weights frequencies by a ramp and the kernel takes the highest away,
    so the noise power spectrum is a ring (Riederer et al., Phys Med Biol 23:446-454, 1978,
    doi:10.1088/0031-9155/23/3/008): grains of a few voxels rather than pepper. Slices share some
    noise with the next one. Where few photons come through, as between the shoulders, the noise
    also makes streaks from side to side.

    Args:
        shape: voxels along x, y, z.
        spacing_mm: voxel size.
        scan: kernel settings.
        rng: source of the noise.
        attenuation: 0 to 1 for each slice: its share of `scan.streaks`; none if left out.

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
    slab += np.float32(np.exp(-spacing_mm[2] / 1.5)) * np.roll(slab, 1, axis=0)
    slab /= slab.std()
    noise = np.empty(shape, np.float32)
    for k in range(shape[2]):
        turn, index = divmod(k, depth)
        image = slab[index][:: -1 if turn & 1 else 1, :: -1 if turn & 2 else 1]
        noise[:, :, k] = np.roll(image, (37 * turn, 61 * turn), axis=(0, 1)) if turn else image
    if attenuation is not None:
        strength = np.float32(scan.streaks) * attenuation
        streaked = np.flatnonzero(strength > 0.05)
        if len(streaked):
            smeared = _blur(noise[:, :, streaked], 6.0 / spacing_mm[0], 0)
            noise[:, :, streaked] += smeared * (strength[streaked] / smeared.std())
    return noise


def apply_kernel(hu: np.ndarray, spacing_mm, scan: Scan) -> None:
    """Blur in the plane, then add back edges for sharp kernels; works in place."""
    sigma = scan.blur_mm / np.asarray(spacing_mm[:2])
    soft = _blur(_blur(hu, float(sigma[0]), 0), float(sigma[1]), 1)
    if scan.sharpen > 0:
        wide = _blur(_blur(soft, 1.1 / spacing_mm[0], 0), 1.1 / spacing_mm[1], 1)
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
    pad = [(0, 0)] * 3
    pad[axis] = (len(taps) // 2, len(taps) // 2)
    padded = np.pad(array, pad, mode="edge")
    result = np.zeros_like(array)
    for i, tap in enumerate(taps):
        part = [slice(None)] * 3
        part[axis] = slice(i, i + array.shape[axis])
        result += tap * padded[tuple(part)]
    return result
