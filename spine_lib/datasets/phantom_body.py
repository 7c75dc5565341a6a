"""What surrounds the phantom's spine: outline, wall, lungs, organs, vessels and other bones.

Lengths that change from head to foot are given at a few vertebral levels (C1 = 1, T1 = 8, L1 = 20,
S1 = 25, S5 = 29) and interpolated, so the trunk follows whatever curve the spine has. The values
are typical of adults lying on their backs, chosen by eye against CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spine_lib.datasets.phantom_canvas import Block, Canvas, Field, capsule, ellipsoid, tube, union
from spine_lib.datasets.phantom_column import Vertebra

TISSUES = {
    "fat": 1,
    "muscle": 2,
    "lung": 3,
    "organ": 4,
    "bowel": 5,
    "vessel": 6,
    "disc": 7,
    "canal": 8,
    "other bone": 9,
    "spine": 10,
    "table": 11,
    "gas": 12,
}

# level: 1   4   7   8   10   13   17   20   22   24   25   27   29
_LEVELS = (1, 4, 7, 8, 10, 13, 17, 20, 22, 24, 25, 27, 29)
_HALF_WIDTH = (74, 60, 84, 140, 168, 148, 142, 138, 136, 146, 154, 166, 168)
_BACK = (62, 58, 66, 66, 60, 55, 55, 60, 64, 68, 66, 56, 46)
_DEPTH = (165, 112, 122, 145, 172, 196, 208, 198, 190, 186, 186, 188, 186)
_CAVITY = (1, 1, 8, 52, 88, 116, 128, 126, 121, 120, 112, 92, 72)
_GUTTER = (10, 10, 14, 24, 34, 40, 40, 32, 16, 6, 0, -8, -6)
_WALL = (20, 20, 20, 16, 14, 12, 14, 16, 16, 16, 18, 24, 30)


@dataclass(frozen=True)
class Habitus:
    """One patient's trunk in numbers (mm, HU)."""

    width: float  # scales
    depth: float
    fat_mm: float
    muscle_hu: float
    wasting: float  # 0..1: fat between and in the back muscles
    fat_hu: float
    lung_hu: float
    blood_hu: float  # arteries
    vein_hu: float
    organ_hu: float
    kidney_hu: float
    cortical_hu: float
    trabecular_hu: float
    cortex_mm: float


class Torso:
    """The trunk of one patient: profiles along z, and positions that follow the spine.

    Args:
        column: C1 to S5.
        habitus: the patient's sizes and intensities.
        z_mm: heights at which profiles are wanted, ascending.
    """

    def __init__(self, column: list[Vertebra], habitus: Habitus, z_mm: np.ndarray) -> None:
        self.column, self.habitus = column, habitus
        self.by_name = {v.name: v for v in column}
        upwards = sorted(column, key=lambda v: v.centre[2])
        self._centres = np.array([v.centre for v in upwards])
        self._levels = np.array([v.level for v in upwards])
        self._sizes = np.array([(v.width, v.depth) for v in upwards])
        self.size = float(np.mean([v.width for v in column[7:24]]) / 36.0)
        fine = np.linspace(self._centres[0, 2] - 150, self._centres[-1, 2] + 200, 800)
        y = self._interpolate(fine, self._centres[:, 1])
        kernel = np.hanning(121)
        y = np.convolve(np.pad(y, 60, mode="edge"), kernel / kernel.sum(), mode="valid")
        # Lying flat takes some of the curves out of the back.
        self._fine, self._back_y = fine, y.mean() + 0.75 * (y - y.mean())
        self._z = z_mm

    def _interpolate(self, z: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.interp(z, self._centres[:, 2], values)

    def height(self, level: float) -> float:
        """Return z (mm) of a level, extended evenly beyond both ends."""
        ends = self._levels[::-1], self._centres[::-1, 2]
        beyond = 20.0 * (min(level - 1, 0) + max(level - 29, 0))
        return float(np.interp(level, *ends)) - beyond

    def profile(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Return the trunk's lengths at heights z as float32 arrays of z's shape (mm)."""
        h = self.habitus
        level = self._interpolate(z, self._levels)
        at = {
            "half_width": np.interp(level, _LEVELS, _HALF_WIDTH) * h.width + h.fat_mm,
            "spine_x": self._interpolate(z, self._centres[:, 0]),
            "spine_y": self._interpolate(z, self._centres[:, 1]),
            "body_w": self._interpolate(z, self._sizes[:, 0]) / 2,
            "body_d": self._interpolate(z, self._sizes[:, 1]) / 2,
            "level": level,
        }
        back = np.interp(z, self._fine, self._back_y) - self.size * np.interp(level, _LEVELS, _BACK)
        # The spinous processes stay under the skin.
        back = np.minimum(back, at["spine_y"] - 46 * self.size)
        front = back + np.interp(level, _LEVELS, _DEPTH) * h.depth
        at["x"] = 0.5 * at["spine_x"]
        at["y"] = (back + front) / 2
        at["half_depth"] = (front - back) / 2 + h.fat_mm * 0.9
        cavity_back = at["spine_y"] - np.interp(level, _LEVELS, _GUTTER) * self.size
        cavity_front = front - np.interp(level, _LEVELS, _WALL)
        at["cavity_w"] = np.interp(level, _LEVELS, _CAVITY) * h.width
        at["cavity_y"] = (cavity_back + cavity_front) / 2
        at["cavity_d"] = np.maximum((cavity_front - cavity_back) / 2, 4.0)
        return {name: np.asarray(value, np.float32) for name, value in at.items()}


def superellipse(x, y, half_x, half_y, power: float) -> np.ndarray:
    """Return the signed distance, along the ray from the middle, to a rounded rectangle."""
    ratio = (np.abs(x) / half_x) ** power + (np.abs(y) / half_y) ** power
    rho = np.maximum(ratio, np.float32(1e-6)) ** np.float32(1 / power)
    return (1 - 1 / rho) * np.sqrt(x * x + y * y)


def paint_trunk(canvas: Canvas, torso: Torso, fields: dict[str, Field], table_hu: float) -> None:
    """Paint table, skin, fat, muscle, the cavity and the lungs, a few planes at a time."""
    table_y = float(_table_height(canvas, torso))
    for first in range(0, canvas.shape[0], 8):
        index = (slice(first, first + 8), slice(None), slice(None))
        block = Block(index, canvas.x[first : first + 8], canvas.y[first : first + 8], canvas.z)
        at = torso.profile(block.z)
        noise = {name: field.on(block) for name, field in fields.items()}
        if table_hu > -900:
            shell = np.abs(block.y - table_y - (block.x / 28) ** 2 * 0.5) - np.float32(1.6)
            shell = np.maximum(shell, np.abs(block.x) - 210)
            canvas.paint(block, shell, table_hu, TISSUES["table"])
        _paint_wall(canvas, block, torso, at, noise)
        _paint_cavity(canvas, block, torso, at, noise)


def _table_height(canvas: Canvas, torso: Torso) -> float:
    at = torso.profile(canvas.z)
    return float((at["y"] - at["half_depth"]).min()) - 7.0


def _paint_wall(canvas, block, torso: Torso, at, noise) -> None:
    h = torso.habitus
    x, y = block.x - at["x"], block.y - at["y"]
    # A furrow runs down the middle of the back.
    furrow = np.exp(-((x / 16) ** 2)) * np.where(y < 0, 5.0, 0.0).astype(np.float32)
    skin = superellipse(x, y, at["half_width"], at["half_depth"], 2.4) + furrow
    skin += noise["shape"] * np.float32(3.0)
    canvas.paint(block, skin, 10.0, TISSUES["muscle"])
    texture = noise["strands"] * 9 + noise["lumps"] * 5
    canvas.paint(block, skin + 2.0, h.fat_hu + texture, TISSUES["fat"])
    sides = np.float32(0.25) * (x / at["half_width"]) ** 2
    thick = np.float32(h.fat_mm) * (1 - sides + np.float32(0.2) * noise["shape"])
    muscle = skin + np.maximum(thick, 3.0)
    # Fat runs between muscles in sheets: where two fields change sign is a surface.
    sheets = np.clip(1 - np.abs(noise["lumps"]) * 6, 0, 1) * np.clip(noise["branches"], 0, 1)
    lean = h.muscle_hu + noise["strands"] * (4 + 8 * h.wasting) - sheets * (40 + 90 * h.wasting)
    canvas.paint(block, muscle, lean, TISSUES["muscle"])


def _paint_cavity(canvas, block, torso: Torso, at, noise) -> None:
    h = torso.habitus
    x, y = block.x - at["x"], block.y - at["cavity_y"]
    cavity = superellipse(x, y, at["cavity_w"], at["cavity_d"], 2.3)
    # The spine and what lies beside it bulge into the cavity from behind.
    dx, dy = np.abs(block.x - at["spine_x"]), block.y - at["spine_y"]
    bulge = dx - (at["body_w"] + 5 + np.clip(-dy, 0, 60) * 0.75 - np.clip(dy, 0, 60) * 0.4)
    bulge = np.maximum(bulge, dy - at["body_d"] - 5)
    cavity = -union(-cavity, bulge, 8.0) + noise["shape"] * np.float32(2.0)
    vessels = np.clip(1 - (noise["lumps"] ** 2 + noise["branches"] ** 2) * 16, 0, 1)
    inside = h.fat_hu + noise["strands"] * 8 + vessels * (0.5 * h.vein_hu + 140)
    canvas.paint(block, cavity, inside, TISSUES["fat"])
    z_low = torso.height(21.5)
    if block.z.max() < z_low:
        return
    lung = np.maximum(cavity + 2.5, -_mediastinum(torso, at, block))
    lung = np.maximum(lung, diaphragm(torso, at, block) - block.z)
    lung = np.maximum(lung, block.z - torso.height(7.6)) + noise["lumps"] * np.float32(1.2)
    branch = np.clip(1 - (noise["lumps"] ** 2 + noise["branches"] ** 2) * 9, 0, 1)
    air = (
        h.lung_hu - 1.0 * (y + 40) * 0.6 + noise["branches"] * 14 + branch * (840 + h.vein_hu * 0.6)
    )
    canvas.paint(block, lung, air, TISSUES["lung"])


def diaphragm(torso: Torso, at, block: Block) -> np.ndarray:
    """Return the height of the diaphragm's two domes above each point (mm)."""
    low, top = torso.height(20.6), torso.height(16.3)
    x, y = block.x - at["x"], block.y - at["cavity_y"]
    half = np.float32(66 * torso.size)
    across = np.abs(np.abs(x) - half) / (half * np.float32(1.02))
    dome = 1 - across * across * across - ((y - 14) / (at["cavity_d"] * 0.98)) ** 2
    return low + np.maximum(dome, 0) ** np.float32(0.38) * (top - low) * np.where(x > 0, 1.1, 0.9)


def _mediastinum(torso: Torso, at, block: Block) -> np.ndarray:
    """Return the signed distance to heart, great vessels and the strip before the spine."""
    x, y = block.x - at["x"], block.y - at["cavity_y"]
    s = torso.size
    heart = ellipsoid(
        x + 18 * s, y - 22 * s, block.z - torso.height(15.2), (62 * s, 50 * s, 62 * s)
    )
    upper = tube(x, y - 8, np.float32(30 * s), at["cavity_d"] * 1.1) + np.maximum(
        (torso.height(12.5) - block.z) * 0.6, 0
    )
    strip = np.maximum(np.abs(x + 6) - 15 * s, y - 20)
    return union(union(heart, upper, 15.0), strip, 10.0)


def paint_organs(canvas: Canvas, torso: Torso, fields: dict[str, Field], rng) -> None:
    """Paint liver, spleen, stomach, kidneys, bowel, heart and muscles beside the spine."""
    h, s = torso.habitus, torso.size
    lumps = fields["lumps"]
    solid = [  # level, x, y from the cavity's middle, radii, HU, needs to lie below the lungs
        (18.4, 72, 10, (98, 100, 88), h.organ_hu, True),
        (18.2, -88, -38, (44, 54, 58), h.organ_hu + 12, True),
        (18.3, -58, 34, (58, 52, 66), 30.0, True),
        (15.3, -16, 22, (54, 42, 54), h.blood_hu * rng.uniform(0.5, 1.0), False),
    ]
    for level, x, y, radii, hu, below in solid:
        radii = tuple(r * s * f for r, f in zip(radii, rng.uniform(0.85, 1.12, 3), strict=True))
        _paint_blob(canvas, torso, lumps, (x * s, y * s, torso.height(level)), radii, hu, below)
    for sign in (1, -1):
        place = (sign * 62 * s, -28 * s, torso.height(21.2 + 0.5 * (sign > 0)))
        _paint_kidney(canvas, torso, lumps, place, h.kidney_hu)
        _paint_psoas(canvas, torso, sign)
    for _ in range(int(rng.integers(24, 44))):
        _paint_bowel(canvas, torso, fields, rng)
    _paint_pelvic_floor(canvas, torso, lumps, rng)


def _paint_blob(canvas, torso: Torso, lumps: Field, place, radii, hu, below_lungs) -> None:
    at = torso.profile(np.float32(place[2]))
    centre = np.array([place[0] + at["x"], place[1] + at["cavity_y"], place[2]])
    reach = np.asarray(radii) * 1.25
    block = canvas.block(centre - reach, centre + reach)
    if block is None:
        return
    distance = ellipsoid(*block.around(centre), radii)
    bump = lumps.on(block)
    distance = distance + bump * 4
    at = torso.profile(block.z)
    wall = superellipse(
        block.x - at["x"], block.y - at["cavity_y"], at["cavity_w"], at["cavity_d"], 2.3
    )
    distance = np.maximum(distance, wall + 4)
    # Leave the spine, the aorta and the fat around them alone.
    keep = tube(
        block.x - at["spine_x"], block.y - at["spine_y"] - 10, at["body_w"] + 16, at["body_d"] + 26
    )
    distance = np.maximum(distance, 4 - keep)
    if below_lungs:
        distance = np.maximum(distance, block.z - diaphragm(torso, at, block) + 3)
    canvas.paint(block, distance, hu + bump * 4, TISSUES["organ"])


def _paint_kidney(canvas, torso: Torso, lumps: Field, place, hu: float) -> None:
    at, s = torso.profile(np.float32(place[2])), torso.size
    centre = np.array([place[0] + at["spine_x"], place[1] + at["spine_y"] + 18, place[2]])
    block = canvas.block(centre - 65 * s, centre + 65 * s)
    if block is None:
        return
    x, y, z = block.around(centre)
    distance = (
        ellipsoid(x + 0.15 * z * np.sign(place[0]), y, z, (27 * s, 25 * s, 54 * s))
        + lumps.on(block) * 2
    )
    canvas.paint(block, distance - 9, torso.habitus.fat_hu, TISSUES["fat"])
    canvas.paint(block, distance, hu, TISSUES["organ"])
    sinus = ellipsoid(x + np.sign(place[0]) * 11 * s, y, z, (15 * s, 9 * s, 28 * s))
    canvas.paint(block, sinus, torso.habitus.fat_hu + 30, TISSUES["fat"])


def _paint_psoas(canvas, torso: Torso, sign: int) -> None:
    low, high = torso.height(29), torso.height(19.6)
    block = canvas.slab(low, high)
    if block is None:
        return
    at, s = torso.profile(block.z), torso.size
    grow = np.clip((at["level"] - 19.6) / 4.5, 0.05, 1.0)
    away = np.clip(at["level"] - 24.0, 0, 5)
    x = block.x - at["spine_x"] - sign * (at["body_w"] + 4 + 12 * grow * s + 7 * away)
    y = block.y - at["spine_y"] - 9 * away + 4
    distance = tube(x, y, (6 + 15 * grow) * s, (8 + 15 * grow) * s)
    canvas.paint(block, distance, torso.habitus.muscle_hu, TISSUES["muscle"])


def _paint_bowel(canvas, torso: Torso, fields: dict[str, Field], rng) -> None:
    """Paint one loop: wall, contents, sometimes gas above a level, sometimes bright contrast."""
    level, s = rng.uniform(19.5, 27), torso.size
    z = torso.height(level)
    at = torso.profile(np.float32(z))
    angle, away = rng.uniform(-0.35, np.pi + 0.35), rng.uniform(0.25, 0.85)
    radius = rng.uniform(10, 24) * s
    centre = np.array(
        [
            at["x"] + (at["cavity_w"] - radius) * away * np.cos(angle),
            max(
                at["cavity_y"] + (at["cavity_d"] - radius) * away * np.sin(angle),
                at["spine_y"] + at["body_d"] + 8 + radius,
            ),
            z,
        ]
    )
    half = rng.normal(0, [22, 14, 24]) * s
    block = canvas.block(centre - abs(half) - radius - 8, centre + abs(half) + radius + 8)
    filling, gas = rng.uniform(-20, 45), rng.uniform(-0.6, 1.6)
    if rng.uniform() < 0.12:
        filling = rng.uniform(120, 450)
    if block is None:
        return
    x, y, z = block.around(centre)
    bump = fields["lumps"].on(block)
    distance = capsule(x, y, z, -half, half, radius) + bump * 3
    canvas.paint(block, distance, 42.0, TISSUES["bowel"])
    mixed = filling + 25 * fields["strands"].on(block)
    canvas.paint(block, distance + 3, mixed, TISSUES["bowel"])
    if gas < 1:
        air = np.maximum(distance + 3.5, gas * radius - y)
        canvas.paint(block, air, -950.0, TISSUES["gas"])


def _paint_pelvic_floor(canvas, torso: Torso, lumps: Field, rng) -> None:
    radii = tuple(rng.uniform(26, 46, 3) * torso.size)
    place = (0.0, 16.0, torso.height(28.2))
    _paint_blob(canvas, torso, lumps, place, radii, rng.uniform(0, 15), False)


def paint_pads(canvas: Canvas, torso: Torso, fields: dict[str, Field]) -> None:
    """Paint the fat between muscles: sides of the neck, armpits, buttocks."""
    h, s = torso.habitus, torso.size
    share = min(h.fat_mm / 14, 1.4)
    # levels, to the side, behind the spine's middle, radii
    pads = [
        (1, 8, 40, 4, 11, 17),
        (1, 8, 26, -22, 7, 9),
        (8.5, 13, 122, -10, 14, 34),
        (24, 29, 96, 34, 10, 26),
    ]
    for top, bottom, across, behind, rx, ry in pads:
        block = canvas.slab(torso.height(bottom), torso.height(top))
        if block is None:
            continue
        at = torso.profile(block.z)
        ends = np.minimum(at["level"] - top, bottom - at["level"])
        grow = np.float32(share * s) * np.clip(ends, 0.05, 1)
        x = np.abs(block.x - at["spine_x"]) - np.float32(across * s)
        y = block.y - at["spine_y"] + np.float32(behind * s)
        pad = tube(x, y, rx * grow, ry * grow) + fields["lumps"].on(block) * 4
        canvas.paint(block, pad, h.fat_hu + 12 * fields["strands"].on(block), TISSUES["fat"])


def paint_vessels(canvas: Canvas, torso: Torso, rng) -> None:
    """Paint aorta with its arch, vena cava, airway, gullet and the vessels of the neck."""
    h, s = torso.habitus, torso.size
    wide = rng.uniform(0.8, 1.25) * s
    chalk = h.cortical_hu * 0.8 if rng.uniform() < 0.4 else None
    tubes = [  # from level, to level, x, y before the body's front, radius at both ends, HU
        (11.0, 17.5, -19, -2, 13.0, 12.0, h.blood_hu, True),
        (17.5, 24.0, -8, 9, 12.0, 8.5, h.blood_hu, True),
        (18.0, 24.2, 17, 8, 11.0, 10.0, h.vein_hu, False),
        (24.0, 28.0, -28, 12, 6.0, 5.0, h.blood_hu, True),
        (24.0, 28.0, 28, 12, 6.0, 5.0, h.blood_hu, True),
        (8.0, 18.0, -6, 8, 7.0, 8.0, 35.0, False),
        (10.5, 14.0, 14, 48, 16.0, 16.0, h.blood_hu, False),
        (1.0, 9.0, -30, 12, 3.5, 4.0, h.blood_hu, False),
        (1.0, 9.0, 30, 12, 3.5, 4.0, h.blood_hu, False),
        (1.0, 9.0, -38, 10, 6.0, 6.0, h.vein_hu, False),
        (1.0, 9.0, 38, 10, 5.0, 6.0, h.vein_hu, False),
        (5.5, 8.0, -20, 24, 10.0, 7.0, 90.0, False),
        (5.5, 8.0, 20, 24, 10.0, 7.0, 90.0, False),
    ]
    for tube_ in tubes:
        _paint_vessel(canvas, torso, tube_, wide, chalk)
    _paint_vessel(canvas, torso, (1.0, 11.5, 0, 22, 10.0, 10.0, 60.0, False), s, None)
    _paint_vessel(canvas, torso, (1.0, 11.5, 0, 22, 8.0, 8.0, -990.0, False), s, None)
    arch = torso.profile(np.float32(torso.height(11)))
    place = np.array([arch["spine_x"], arch["spine_y"] + arch["body_d"], torso.height(10.8)])
    block = canvas.block(place - 90 * s, place + 90 * s)
    if block is not None:
        x, y, z = block.around(place)
        distance = capsule(x, y, z, (-19 * s, 0, 0), (10 * s, 50 * s, 0), 13 * wide)
        canvas.paint(block, distance, h.blood_hu, TISSUES["vessel"])


def _paint_vessel(canvas, torso: Torso, spec, wide: float, chalk: float | None) -> None:
    top, bottom, dx, dy, r_top, r_bottom, hu, artery = spec
    z_low, z_high = torso.height(bottom), torso.height(top)
    middle = torso.profile(np.linspace(z_low, z_high, 9))
    x_all = middle["spine_x"] + dx * torso.size
    y_all = middle["spine_y"] + middle["body_d"] + dy * torso.size
    block = canvas.block(
        (x_all.min() - 28, y_all.min() - 28, z_low), (x_all.max() + 28, y_all.max() + 28, z_high)
    )
    if block is None:
        return
    at = torso.profile(block.z)
    radius = np.interp(at["level"], (top, bottom), (r_top, r_bottom)).astype(np.float32) * wide
    x = block.x - at["spine_x"] - dx * torso.size
    y = block.y - at["spine_y"] - at["body_d"] - dy * torso.size
    distance = tube(x, y, radius, radius)
    if artery and chalk:
        plaque = np.sin(block.z / 9 + 2) + np.sin(np.arctan2(y, x) * 2 + block.z / 17) - 1.3
        rim = np.maximum(np.abs(distance) - 1.0, -plaque * 4)
        canvas.paint(block, distance, hu, TISSUES["vessel"])
        canvas.paint(block, rim, chalk, TISSUES["vessel"])
    else:
        canvas.paint(block, distance, hu, TISSUES["gas"] if hu < -500 else TISSUES["vessel"])
