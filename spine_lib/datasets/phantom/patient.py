"""One patient and one scan, drawn from a seed: everything about a phantom that is a number."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from spine_lib import SpineError
from spine_lib.datasets.phantom.column import Build
from spine_lib.datasets.phantom.scanner import Scan
from spine_lib.datasets.phantom.torso import Habitus

KERNELS = {"smooth": (0.95, 0.0), "standard": (0.6, 0.15), "sharp": (0.35, 0.9)}
"""Reconstruction kernels: width of the blur in mm, strength of the edges."""


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
        limits = {
            "degenerative": (0, 1),
            "scoliosis_deg": (0, 30),
            "trabecular_hu": (0, 500),
            "noise_hu": (0, 200),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and low <= value <= high):
                raise SpineError(f"phantom option {name} is {value!r}: give {low} to {high}")
        for name, known in (("kernel", tuple(KERNELS)), ("extra", ("", "T13", "L6"))):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise SpineError(f"phantom option {name} is {value!r}: give one of {known}")


@dataclass(frozen=True)
class Patient:
    """A spine, a trunk and a scan."""

    build: Build
    habitus: Habitus
    scan: Scan
    table_hu: float
    disc_hu: float


def _pick(fixed: Any, drawn: Any) -> Any:
    return drawn if fixed is None else fixed


def draw_patient(seed: int, chosen: PhantomOptions) -> Patient:
    """Draw what the options leave open; the same seed gives the same patient."""
    rng = np.random.default_rng([seed, 1])
    worn = _pick(chosen.degenerative, rng.beta(1.3, 1.6))
    scoliosis = rng.uniform(6, 16) if rng.uniform() < 0.25 else rng.uniform(0, 4)
    extra = rng.choice(["", "T13", "L6"], p=[0.92, 0.03, 0.05])
    build = Build(
        size=rng.uniform(0.88, 1.1),
        lordosis=rng.uniform(0.6, 1.2),
        kyphosis=rng.uniform(0.6, 1.4),
        scoliosis_deg=_pick(chosen.scoliosis_deg, scoliosis),
        degenerative=worn,
        fracture=0.25 * max(worn - 0.6, 0),
        extra=str(_pick(chosen.extra, extra)),
    )
    habitus = _draw_habitus(rng, build, chosen)
    return Patient(
        build,
        habitus,
        _draw_scan(rng, chosen),
        table_hu=rng.choice([-1000.0, rng.uniform(-500, 150)], p=[0.15, 0.85]),
        disc_hu=rng.uniform(65, 105),
    )


def _draw_habitus(rng, build: Build, chosen: PhantomOptions) -> Habitus:
    # Every number is drawn whether it is needed or not: fixing one must not change the others.
    contrast = _pick(chosen.contrast, bool(rng.uniform() < 0.6))
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
        trabecular_hu=_pick(chosen.trabecular_hu, trabecular),
        cortex_mm=rng.uniform(0.9, 1.5),
    )


def _draw_scan(rng, chosen: PhantomOptions) -> Scan:
    blur, sharpen = KERNELS[_pick(chosen.kernel, rng.choice(["smooth", "standard", "sharp"]))]
    return Scan(
        noise_hu=_pick(chosen.noise_hu, rng.lognormal(2.4, 0.5) * (1 + 0.7 * sharpen)),
        blur_mm=blur * rng.uniform(0.85, 1.15),
        sharpen=sharpen * rng.uniform(0.5, 1.2),
        streaks=rng.uniform(0, 1.2),
        circle=bool(rng.uniform() < 0.25),
        padding_hu=float(rng.choice([-1024, -2048, -3024])),
    )
