"""A procedural CT of the spine: exact labels in all four regions, any number, no download.

Each seed is another patient and another scan: build, curves, wear, contrast medium, dose, kernel,
pose and field of view are drawn anew. Bones are implicit shapes, and intensities and labels come
from the same shapes, so a label map is exact by construction. It is made to *train and test*
programs, not to replace patients: what it teaches a network has to be shown on real scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData, PhantomCase
from spine_lib.datasets.phantom import organs, skeleton, torso
from spine_lib.datasets.phantom.canvas import Canvas, Field
from spine_lib.datasets.phantom.column import Vertebra, build_column
from spine_lib.datasets.phantom.patient import Patient, PhantomOptions, draw_patient
from spine_lib.datasets.phantom.scanner import Scan, apply_kernel, scan_noise
from spine_lib.datasets.phantom.vertebra import vertebra_distance

TISSUES = torso.TISSUES
"""Ids of the map that `make_phantom(..., tissues=True)` returns; 0 is air."""


@dataclass(frozen=True, eq=False)
class PhantomData(CaseData):
    """A `CaseData` that also knows what each voxel was made of.

    Attributes:
        tissues: uint8 ids of `TISSUES`, or None if not asked for.
    """

    tissues: Volume | None = None


def make_phantom(
    seed: int,
    shape: Sequence[int] = (160, 160, 240),
    spacing_mm: float | Sequence[float] = 2.0,
    **options: Any,
) -> PhantomData:
    """Generate one patient's CT with its exact label map.

    A stack of 420 mm or more shows all four regions (the patient is made smaller where need be);
    a shorter one lies somewhere along the spine unless `levels` says where.

    Args:
        seed: any whole number from 0; the same seed and options give the same arrays.
        shape: voxels along x, y, z.
        spacing_mm: voxel size, one number or three.
        **options: see `PhantomOptions`.

    Returns:
        CT (int16 HU), labels (uint8 canonical ids), an empty ignore region and, if asked for,
        the tissue map; [x, y, z] in RAS+.

    Raises:
        SpineError: if an argument is out of range or an option is unknown.

    Example:
        >>> case = make_phantom(7, shape=(64, 64, 40), spacing_mm=3.0, levels=("L1", "L4"))
        >>> case.ct.array.shape, case.ct.spacing_mm
        ((64, 64, 40), (3.0, 3.0, 3.0))
    """
    shape, spacing, chosen = _checked(seed, shape, spacing_mm, options)
    patient = draw_patient(seed, chosen)
    column, window_z = _place(seed, patient, chosen, shape[2] * spacing[2])
    # Thick slices average what they cut through: paint thinner ones and take their mean.
    thin = 1
    if spacing[2] > 1.5 * max(spacing[:2]):
        thin = int(spacing[2] / 2.5) | 1
    fine_shape = (shape[0], shape[1], shape[2] * thin)
    fine_spacing = (spacing[0], spacing[1], spacing[2] / thin)
    canvas = _open_canvas(seed, column, window_z, fine_shape, fine_spacing, chosen)
    _paint(canvas, seed, column, patient)
    return _expose(canvas, seed, patient, column, spacing, thin, chosen)


def phantom_cases(count: int, seed: int = 0, **options: Any) -> list[PhantomCase]:
    """List phantoms as cases; nothing is generated before their `load()`.

    Args:
        count: how many.
        seed: of the first one; the others count up from it.
        **options: arguments of `make_phantom`, the same for all.

    Returns:
        Cases "phantom-0000", "phantom-0001" and so on, numbered by seed.

    Raises:
        SpineError: if count or an option is out of range.
    """
    if not isinstance(count, Integral) or count < 1:
        raise SpineError(f"count of phantoms is {count!r}: give a whole number from 1")
    arguments = {name: _frozen(value) for name, value in options.items()}
    rest = {n: v for n, v in arguments.items() if n not in ("shape", "spacing_mm")}
    geometry = arguments.get("shape", (8, 8, 8)), arguments.get("spacing_mm", 2.0)
    _checked(seed, *geometry, rest)
    seeds = range(seed, seed + count)
    return [PhantomCase.from_options(f"phantom-{s:04d}", s, arguments) for s in seeds]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, np.ndarray)) else value


def _checked(seed, shape, spacing_mm, options):
    """Return shape, spacing and options in their final types, or say what is wrong with them."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise SpineError(f"phantom seed is {seed!r}: give a whole number from 0")
    size = np.asarray(shape)
    if size.shape != (3,) or size.dtype.kind not in "iu" or (size < 8).any():
        raise SpineError(f"phantom shape is {shape!r}: give three whole numbers from 8")
    spacing = np.asarray(spacing_mm)
    spacing = np.full(3, spacing) if spacing.ndim == 0 else spacing
    if (
        spacing.shape != (3,)
        or spacing.dtype.kind not in "fiu"
        or not ((spacing >= 0.3) & (spacing <= 10)).all()
    ):
        raise SpineError(
            f"phantom spacing_mm is {spacing_mm!r}: give 0.3 to 10, once or three times"
        )
    known = PhantomOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise SpineError(f"unknown phantom option {name!r}: known are {', '.join(known)}")
    chosen = PhantomOptions(**options)
    return tuple(int(n) for n in size), tuple(float(s) for s in spacing), chosen


def _place(seed, patient: Patient, chosen: PhantomOptions, extent_mm: float):
    """Return the column and the height (mm) of the middle of the stack."""
    rng = np.random.default_rng([seed, 2])
    column = build_column(patient.build, np.random.default_rng([seed, 3]))
    if chosen.levels is not None:
        low, high = _range_of(column, chosen.levels)
        return column, (low + high) / 2 + rng.uniform(-0.03, 0.03) * extent_mm
    heights = {v.name: v.centre[2] for v in column}
    needed = heights["C6"] - heights["S2"] + 20
    shrink = min(1.0, extent_mm / needed)
    if patient.build.size * shrink >= 0.72:
        build = replace(patient.build, size=patient.build.size * shrink)
        column = build_column(build, np.random.default_rng([seed, 3]))
        heights = {v.name: v.centre[2] for v in column}
        slack = max(extent_mm - (heights["C6"] - heights["S2"] + 20 * shrink), 0)
        middle = (heights["C6"] + heights["S2"]) / 2
        # What is left over shows more of the neck or of the pelvis, never empty air.
        return column, middle + rng.uniform(-0.5, 0.5) * min(slack, 120)
    return column, rng.uniform(heights["S2"], heights["C3"])


def _range_of(column: list[Vertebra], levels) -> tuple[float, float]:
    names = [v.name for v in column if v.region != "S"] + ["sacrum"]
    if not isinstance(levels, (tuple, list)) or len(levels) != 2:
        raise SpineError(f"phantom option levels is {levels!r}: give the first and the last level")
    for name in levels:
        if name not in names:
            raise SpineError(f"phantom level {name!r} does not exist here: give {', '.join(names)}")
    if names.index(levels[0]) > names.index(levels[1]):
        raise SpineError(f"phantom levels are {levels!r}: give the upper one first")
    find = {v.name: v for v in column}
    upper, lower = find.get(levels[0], find["S1"]), find.get(levels[1], find["S5"])
    return lower.centre[2] - lower.height / 2, upper.centre[2] + upper.height / 2


def _open_canvas(seed, column, window_z, shape, spacing, chosen: PhantomOptions) -> Canvas:
    """Choose where the stack lies: on the body, or on the spine if it is narrow or `tight`."""
    rng = np.random.default_rng([seed, 4])
    extent = np.asarray(shape) * spacing
    near = [v for v in column if abs(v.centre[2] - window_z) < extent[2] / 2] or column
    middle = np.mean([v.centre for v in near], axis=0)
    spread = np.ptp([v.centre for v in near], axis=0)
    forward = np.clip((extent[1] - 130) / 2, 0, 45)
    centre = np.array([middle[0], middle[1] + forward - 12, window_z])
    room = np.clip((extent[:2] - 90 - spread[:2]) / 2, 3, 18)
    centre[:2] += rng.uniform(-room, room)
    roll = np.radians(np.clip(rng.normal(0, 3), -9, 9))
    cos, sin = np.cos(roll), np.sin(roll)
    centre[:2] = cos * centre[0] - sin * centre[1], sin * centre[0] + cos * centre[1]
    if chosen.tight:
        shape = _tight_shape(shape, spacing, spread, rng)
    origin = centre - (np.asarray(shape) - 1) / 2 * spacing
    return Canvas(tuple(shape), tuple(spacing), origin, float(roll), chosen.tissues)


def _tight_shape(shape, spacing, spread, rng) -> tuple[int, int, int]:
    wanted = spread[:2] + np.array([95, 105]) + rng.uniform(0, 50, 2)
    x, y = (max(8, min(n, round(w / s))) for n, w, s in zip(shape, wanted, spacing, strict=False))
    return x, y, shape[2]


def _paint(canvas: Canvas, seed: int, column: list[Vertebra], patient: Patient) -> None:
    rng = np.random.default_rng([seed, 5])
    scales = {"shape": 38.0, "lumps": 13.0, "strands": 4.0, "branches": 10.0}
    fields = {name: Field(canvas, rng, scale) for name, scale in scales.items()}
    trunk = torso.Torso(column, patient.habitus)
    torso.paint_trunk(canvas, trunk, fields, patient.table_hu)
    organs.paint_pads(canvas, trunk, fields)
    organs.paint_organs(canvas, trunk, fields, rng)
    organs.paint_vessels(canvas, trunk, rng)
    skeleton.paint_back(canvas, trunk, fields)
    skeleton.paint_canal(canvas, trunk)
    skeleton.paint_discs(canvas, trunk, patient.disc_hu, rng)
    skeleton.gather_head(canvas, trunk)
    skeleton.gather_ribs(canvas, trunk, rng)
    skeleton.gather_shoulders(canvas, trunk)
    skeleton.gather_pelvis(canvas, trunk, rng)
    h = patient.habitus
    canvas.paint_gathered(h.cortex_mm, h.cortical_hu, 0.8 * h.trabecular_hu, TISSUES["other bone"])
    _paint_spine(canvas, column, patient, np.random.default_rng([seed, 6]))


def _paint_spine(canvas: Canvas, column, patient: Patient, rng) -> None:
    """Paint and label the vertebrae: spongy inside, cortex outside, denser in the arch."""
    h, worn = patient.habitus, patient.build.degenerative
    seen = min(1.0, 0.9 / canvas.edge_mm)  # what coarse voxels leave of the trabeculae
    bumps, grain = Field(canvas, rng, 7.0), Field(canvas, rng, 1.2)
    for v in column:
        half = np.array([v.span / 2 + 6, 0, v.height + 14 + 0.3 * v.spinous])
        reach = v.depth / 2 + v.canal_depth + v.spinous + 16
        turn = np.abs(v.axes)
        centre = v.point(0, (v.depth / 2 + 8 - reach) / 2, -4 if v.name != "C2" else 4)
        half[1] = (v.depth / 2 + 8 + reach) / 2
        block = canvas.block(centre - turn @ half, centre + turn @ half)
        dense = rng.normal(1, 0.06)
        if block is None:
            continue
        rough = bumps.on(block) * np.float32(0.45 + 0.35 * worn)
        distance = vertebra_distance(v, block, rough)
        _, y, z = v.local(block)
        arch = np.clip((-y - v.depth / 2 + 3) / 8, 0, 1)
        plate = np.clip((np.abs(z) * (2 / v.height) - 0.72) * 4, 0, 1) * (1 - arch)
        inner = (
            h.trabecular_hu * dense * (1 + (0.2 + 0.6 * worn) * plate) + (40 + 110 * worn) * arch
        )
        inner += grain.on(block) * np.float32(seen * (28 + 0.22 * h.trabecular_hu))
        inner += rough * 40
        cortex = h.cortex_mm * np.maximum(0.42 + 0.65 * arch + 0.2 * plate + 0.35 * rough, 0.2)
        canvas.paint_bone(block, distance, cortex, h.cortical_hu, inner, TISSUES["spine"])
        canvas.claim(block, distance, v.label)


def _expose(canvas, seed, patient, column, spacing, thin: int, chosen) -> PhantomData:
    """Turn the painted canvas into a scan: thick slices, field of view, geometry."""
    pick = slice(thin // 2, None, thin)
    array = _scan(
        canvas, seed, patient.scan, spacing, thin, _between_shoulders(canvas, column)[pick]
    )
    labels = np.ascontiguousarray(canvas.labels[:, :, pick])
    if patient.scan.circle and not chosen.tight:
        outside = _outside_circle(array.shape, spacing)
        array[outside], labels[outside] = int(patient.scan.padding_hu), 0
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = canvas.origin_mm
    affine[2, 3] += canvas.spacing_mm[2] * (thin // 2)
    ct = Volume(array, affine)
    tissues = None
    if canvas.tissues is not None:
        tissues = ct.with_array(np.ascontiguousarray(canvas.tissues[:, :, pick]))
    ignore = np.zeros(array.shape, bool)
    return PhantomData(ct, ct.with_array(labels), ct.with_array(ignore), tissues)


def _scan(canvas: Canvas, seed, scan: Scan, spacing, thin: int, loud) -> np.ndarray:
    """Return int16 HU: slices of the wanted thickness, seen through the kernel, with noise."""
    hu = canvas.hu
    if thin > 1:
        hu = hu.reshape(*hu.shape[:2], -1, thin).mean(axis=3, dtype=np.float32)
    apply_kernel(hu, spacing, scan)
    noise = scan_noise(hu.shape, spacing, scan, np.random.default_rng([seed, 7]), loud)
    noise *= scan.noise_hu
    hu += noise
    np.clip(hu, -1024, 3071, out=hu)
    return np.rint(hu, out=hu).astype(np.int16)


def _between_shoulders(canvas: Canvas, column: list[Vertebra]) -> np.ndarray:
    middle = next(v for v in column if v.name == "T1").centre[2]
    return np.exp(-(((canvas.z[0, 0] - middle) / 40) ** 2)).astype(np.float32)


def _outside_circle(shape, spacing) -> np.ndarray:
    x, y = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape[:2], spacing[:2], strict=True))
    radius = max(x[-1], y[-1])
    return np.hypot(x[:, None], y[None, :]) > radius
