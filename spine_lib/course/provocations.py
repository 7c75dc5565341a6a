"""Provoke failures: the same phantom scanned once well and once badly, all else being equal."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import ndimage

from spine_lib.ct.volume import Volume
from spine_lib.datasets import CaseData
from spine_lib.datasets.phantom import make_phantom

PLAIN: dict[str, Any] = {
    "shape": (120, 112, 32),
    "spacing_mm": (2.0, 2.0, 3.0),
    "levels": ("L1", "L4"),
    "noise_hu": 12.0,
    "kernel": "standard",
    "contrast": False,
    "degenerative": 0.2,
    "trabecular_hu": 180.0,
    "scoliosis_deg": 2.0,
    "extra": "",
    "tissues": True,
}
"""A healthy lumbar spine, well scanned."""

METAL_HU = 3071
"""The top of a scanner's 12 bits: metal is brighter."""

# Titanium and water, linear attenuation per mm; titanium at 60 and 100 keV (NIST XCOM).
_TITANIUM_PER_MM = (0.345, 0.122)
_WATER_PER_MM = 0.02


# --- metal ----------------------------------------------------------------------------------------


def with_screws(data: CaseData, levels: tuple[int, ...] = (21, 22)) -> CaseData:
    """Return a phantom with pedicle screws and rods, and with the streaks that metal leaves.

    Args:
        data: a phantom.
        levels: canonical ids of the vertebrae; those that are not in it are left out.

    Returns:
        The phantom with the same labels: metal inside a vertebra counts as vertebra.
    """
    metal = np.zeros(data.ct.shape, bool)
    axes = [np.arange(n, dtype=np.float32) * mm for n, mm in zip(data.ct.shape, data.ct.spacing_mm)]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    heads: dict[int, list[np.ndarray]] = {-1: [], 1: []}
    for level in levels:
        if not (data.labels.array == level).any():
            continue
        body = _body_centre_mm(data, level)
        for side in heads:
            tip = body + (side * 7, 9, 2)
            head = body + (side * 21, -46, 5)
            metal |= _distance_to_line_mm(grid, tip, head) < 3.2
            heads[side].append(head)
    for ends in heads.values():
        for low, high in zip(ends, ends[1:]):
            metal |= _distance_to_line_mm(grid, low, high) < 3.0
    hu = data.ct.array + streaks_hu(metal, data.ct.spacing_mm)
    hu[metal] = METAL_HU
    array = np.rint(np.clip(hu, -1024, METAL_HU)).astype(np.int16)
    return replace(data, ct=data.ct.with_array(array))


def streaks_hu(metal: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Return what beam hardening by metal adds to a scan.

    Rays of two energies pass the metal; the scanner takes them for one. The difference is
    projected back with a ramp filter, slice by slice. Scatter and missing photons are left out.

    Args:
        metal: boolean [x, y, z].
        spacing_mm: size of a voxel; x and y must be alike.

    Returns:
        float32 HU [x, y, z].
    """
    added = np.zeros(metal.shape, np.float32)
    slices = np.flatnonzero(metal.any(axis=(0, 1)))
    if not slices.size:
        return added
    size = spacing_mm[0]
    x, y = (np.arange(n) - (n - 1) / 2 for n in metal.shape[:2])
    reach = int(np.ceil(np.hypot(x[-1], y[-1]))) + 2
    angles = np.arange(180) * np.pi / 180
    for angle in angles:
        position = np.cos(angle) * x[:, None] + np.sin(angle) * y[None, :] + reach
        lengths = [
            np.bincount(np.rint(position[metal[:, :, k]]).astype(int), minlength=2 * reach + 1)
            for k in slices
        ]
        error = _ramp(_hardening(np.array(lengths) * size), size)
        below = position.astype(int)
        weight = (position - below).astype(np.float32)
        for k, line in zip(slices, error):
            added[:, :, k] += line[below] * (1 - weight) + line[below + 1] * weight
    return added * np.float32(np.pi / len(angles) * 1000 / _WATER_PER_MM)


def _hardening(length_mm: np.ndarray) -> np.ndarray:
    """Return how much less attenuation is measured than a single energy would give."""
    soft, hard = _TITANIUM_PER_MM
    measured = -np.log((np.exp(-soft * length_mm) + np.exp(-hard * length_mm)) / 2)
    return measured - (soft + hard) / 2 * length_mm


def _ramp(lines: np.ndarray, size_mm: float) -> np.ndarray:
    """Filter projections [line, place] with a ramp, softened towards the highest frequencies."""
    padded = 2 * lines.shape[1]
    frequency = np.fft.rfftfreq(padded, size_mm)
    soft = np.cos(np.pi / 2 * frequency / frequency[-1])
    filtered = np.fft.irfft(np.fft.rfft(lines, padded, axis=1) * frequency * soft, padded, axis=1)
    return filtered[:, : lines.shape[1]].astype(np.float32)


def _body_centre_mm(data: CaseData, level: int) -> np.ndarray:
    """Return the middle of a vertebral body: the deepest point of the vertebra."""
    depth = ndimage.distance_transform_edt(data.labels.array == level, data.ct.spacing_mm)
    return np.array(np.unravel_index(depth.argmax(), depth.shape)) * data.ct.spacing_mm


def _distance_to_line_mm(grid: list, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel to the line between two points."""
    direction = end - start
    offsets = [axis - coordinate for axis, coordinate in zip(grid, start)]
    along = sum(o * d for o, d in zip(offsets, direction)) / float(direction @ direction)
    along = np.clip(along, 0, 1)
    return np.sqrt(sum((o - along * d) ** 2 for o, d in zip(offsets, direction)))


# --- other changes --------------------------------------------------------------------------------


def _with_each(data: CaseData, change: Callable[[Volume], Volume]) -> CaseData:
    names = ("ct", "labels", "ignore", "tissues")
    volumes = {name: getattr(data, name) for name in names}
    return replace(data, **{name: v and change(v) for name, v in volumes.items()})


def with_child_size(data: CaseData, scale: float = 0.55) -> CaseData:
    """Return the same voxels, each smaller, as in a scan of a small child."""
    affine = data.ct.affine @ np.diag([scale, scale, scale, 1.0])
    return _with_each(data, lambda volume: replace(volume, affine=affine))


def with_lost_intercept(data: CaseData) -> CaseData:
    """Return a scan with 1024 HU too many, as by a reader without the file's intercept of -1024."""
    array = np.clip(data.ct.array.astype(np.int32) + 1024, -1024, 4095).astype(np.int16)
    return replace(data, ct=data.ct.with_array(array))


def with_wrong_header(data: CaseData) -> CaseData:
    """Return image and labels turned front to back, as by a wrong header."""
    return _with_each(data, lambda volume: volume.with_array(volume.array[:, ::-1]))


PROVOCATIONS: dict[str, dict[str, Any] | Callable[[CaseData], CaseData]] = {
    "well scanned": {},
    "pedicle screws": with_screws,
    "low dose": {"noise_hu": 90.0, "kernel": "sharp"},
    "osteoporosis": {"trabecular_hu": 20.0, "degenerative": 0.9},
    "contrast medium": {"contrast": True},
    "tight field of view": {"tight": True},
    "thick slices": {"spacing_mm": (2.0, 2.0, 8.0), "shape": (120, 112, 12)},
    "child's size": with_child_size,
    "scoliosis": {"scoliosis_deg": 25.0},
    "pelvis": {"levels": ("L5", "sacrum")},
    "neck": {"levels": ("C1", "C7")},
    "lost intercept": with_lost_intercept,
    "front and back swapped": with_wrong_header,
}
"""By name, options of `make_phantom` put over `PLAIN`, or a change of the finished phantom."""


def provoke(name: str, seed: int, **options: Any) -> CaseData:
    """Make a phantom under a provocation.

    Args:
        name: one of `PROVOCATIONS`.
        seed: of the patient.
        **options: of `make_phantom`, put over `PLAIN` with and without the provocation.
    """
    provocation = PROVOCATIONS[name]
    if callable(provocation):
        return provocation(make_phantom(seed, **{**PLAIN, **options}))
    return make_phantom(seed, **{**PLAIN, **options, **provocation})
