"""One patient and one scan: what is drawn from a seed, and what kernel and dose do to an image."""

from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, NonNegativeInt

from spine_lib.datasets.settings import Settings, Share

KERNELS = {"smooth": (0.95, 0.0), "standard": (0.6, 0.15), "sharp": (0.35, 0.9)}
"""Reconstruction kernels: width of the blur in mm, strength of the edges."""

Length = Annotated[int, Field(ge=8)]
Millimetres = Annotated[float, Field(ge=0.3, le=10)]
Triple = BeforeValidator(lambda value: tuple(value) if np.ndim(value) else (value,) * 3)


class Phantom(Settings):
    """A phantom's seed, grid, and what may be fixed about it; None leaves it to the seed."""

    seed: NonNegativeInt
    shape: tuple[Length, Length, Length]  # voxels along x, y, z
    spacing_mm: Annotated[tuple[Millimetres, Millimetres, Millimetres], Triple]  # or one number
    levels: tuple[str, str] | None = None  # first and last vertebra, head first, to centre on
    # Cut the field of view down to the spine and a small margin, as spine protocols do; the array
    # is then smaller than `shape`.
    tight: bool = False
    contrast: bool | None = None  # whether there is contrast medium in the blood
    degenerative: Share | None = None  # 0 is young; 1 has osteophytes, thin discs, dense facets
    scoliosis_deg: Annotated[float, Field(ge=0, le=30)] | None = None  # largest lateral lean
    # Mean of the spongy bone: about 60 in osteoporosis, 250 in the young.
    trabecular_hu: Annotated[float, Field(ge=0, le=500)] | None = None
    noise_hu: Annotated[float, Field(ge=0, le=200)] | None = None  # standard deviation
    kernel: Literal[*KERNELS] | None = None
    extra: Literal["", "T13", "L6"] | None = None  # a variant of the column
    tissues: bool = False  # also return the tissue map

    def rng(self, step: int) -> np.random.Generator:
        """Return the random numbers of a step, independent of how many the others draw."""
        return np.random.default_rng([self.seed, step])


def _choose(fixed: Any, drawn: Any) -> Any:
    return drawn if fixed is None else fixed


def draw_patient(options: Phantom) -> SimpleNamespace:
    """Return a patient and a scan in numbers: lengths in mm, intensities in HU, the rest scales."""
    # Every number is drawn whether it is needed or not: fixing one must not change the others.
    rng = options.rng(1)
    worn = _choose(options.degenerative, rng.beta(1.3, 1.6))
    scoliosis = rng.uniform(6, 16) if rng.uniform() < 0.25 else rng.uniform(0, 4)
    extra = rng.choice(["", "T13", "L6"], p=[0.92, 0.03, 0.05])
    size = rng.uniform(0.88, 1.1)
    lordosis, kyphosis = rng.uniform(0.6, 1.2), rng.uniform(0.6, 1.4)
    trunk = _draw_trunk(rng, size, worn, options)
    blur, sharpen = KERNELS[_choose(options.kernel, rng.choice(["smooth", "standard", "sharp"]))]
    return SimpleNamespace(
        size=size,  # 1 is a mean adult
        degenerative=worn,
        scoliosis_deg=_choose(options.scoliosis_deg, scoliosis),
        extra=str(_choose(options.extra, extra)),
        fracture=0.25 * max(worn - 0.6, 0),  # chance that a thoracolumbar body is a wedge
        lordosis=lordosis,
        kyphosis=kyphosis,
        **trunk,
        noise_hu=_choose(options.noise_hu, rng.lognormal(2.4, 0.5) * (1 + 0.7 * sharpen)),
        blur_mm=blur * rng.uniform(0.85, 1.15),
        sharpen=sharpen * rng.uniform(0.5, 1.2),  # overshoot: 0 for soft tissue, 1 for bone
        streaks=rng.uniform(0, 1.2),  # how much noisier, along x, the shoulders' slices are
        circle=bool(rng.uniform() < 0.25),  # whether the field of view is round
        padding_hu=float(rng.choice([-1024, -2048, -3024])),
        table_hu=rng.choice([-1000.0, rng.uniform(-500, 150)], p=[0.15, 0.85]),
        disc_hu=rng.uniform(65, 105),
    )


def _draw_trunk(rng: np.random.Generator, size: float, worn: float, options: Phantom) -> dict:
    contrast = _choose(options.contrast, bool(rng.uniform() < 0.6))
    arterial, venous, organ, kidney = rng.uniform(size=4)
    trabecular = rng.uniform(120, 290) * (1 - 0.45 * worn * rng.uniform())
    large = rng.normal(0, 1)
    return {
        "width": size * (1 + 0.06 * large),
        "depth": size * (1 + 0.08 * large),
        "fat_mm": float(np.clip(rng.lognormal(2.6, 0.5) + 3 * large, 4, 45)),
        "muscle_hu": rng.uniform(40, 65) + 8 * contrast,
        # from 0 to 1: fat between and in the back muscles
        "wasting": float(np.clip(0.8 * worn + rng.normal(0, 0.2), 0, 1)),
        "fat_hu": rng.uniform(-115, -90),
        "lung_hu": rng.uniform(-890, -780),
        "blood_hu": 150 + 260 * arterial if contrast else 40.0,
        "vein_hu": 60 + 110 * venous if contrast else 38.0,
        "organ_hu": rng.uniform(35, 65) + (55 * organ if contrast else 0),
        "kidney_hu": 120 + 100 * kidney if contrast else 32.0,
        "cortical_hu": rng.uniform(580, 960),
        "trabecular_hu": _choose(options.trabecular_hu, trabecular),
        "cortex_mm": rng.uniform(0.9, 1.5),
    }


def scan_noise(
    shape, spacing_mm, sharpen: float, rng: np.random.Generator, streaks=0.0
) -> np.ndarray:
    """Return CT noise, float32 with standard deviation 1 where there are no streaks.

    Its power spectrum is a ring, as filtered back projection weights frequencies by a ramp and the
    kernel takes the highest away (Riederer et al., Phys Med Biol 23:446-454, 1978,
    doi:10.1088/0031-9155/23/3/008). Where few photons come through, as between the shoulders, there
    are streaks from side to side, `streaks` times as strong, for each slice.
    """
    # One slab of independent slices serves the whole stack, shifted and mirrored.
    depth = min(shape[2], 48)
    nx, ny = (int(np.ceil(n / 8) * 8) for n in shape[:2])
    white = rng.standard_normal((depth, nx, ny), dtype=np.float32)
    radius = np.hypot(
        np.fft.fftfreq(nx, spacing_mm[0])[:, None], np.fft.rfftfreq(ny, spacing_mm[1])
    )
    # The cut-off of a real kernel, or what is left of it on coarse voxels.
    cut = min(0.32 + 0.3 * sharpen, 0.45 / max(spacing_mm[:2]))
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
        noise[:, :, k] = np.roll(image, (37 * turn, 61 * turn), axis=(0, 1))
    strength = np.broadcast_to(np.float32(streaks), shape[2])
    streaked = np.flatnonzero(strength > 0.05)
    if len(streaked):
        smeared = _blur(noise[:, :, streaked], 6.0 / spacing_mm[0], 0)
        noise[:, :, streaked] += smeared * (strength[streaked] / smeared.std())
    return noise


def apply_kernel(hu: np.ndarray, spacing_mm, blur_mm: float, sharpen: float) -> np.ndarray:
    """Return an image blurred in the plane, with edges added back for sharp kernels."""
    soft = _blur(_blur(hu, blur_mm / spacing_mm[0], 0), blur_mm / spacing_mm[1], 1)
    if sharpen > 0:
        wide = _blur(_blur(soft, 1.1 / spacing_mm[0], 0), 1.1 / spacing_mm[1], 1)
        soft = soft + np.float32(0.7 * sharpen) * (soft - wide)
    return soft


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
    padded = np.moveaxis(np.pad(array, pad, mode="edge"), axis, 0)
    result = np.zeros_like(np.moveaxis(array, axis, 0))
    for i, tap in enumerate(taps):
        result += tap * padded[i : i + len(result)]
    return np.moveaxis(result, 0, axis)
