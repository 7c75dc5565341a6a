"""The phantom's trunk: outline, wall, cavity and lungs, and everything that lies in it.

`trunk.csv` has its lengths (mm) at some vertebral levels (C1 = 1, T1 = 8, L1 = 20, S1 = 25),
`vessels.csv` between which levels a vessel runs, and how far to the right of the spine and before
the bodies: values of adults lying on their backs, chosen by eye against CT.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from spine_lib.datasets.phantom.grid import (
    SUPERELLIPSE,
    Block,
    RandomField,
    VoxelGrid,
    capsule,
    ellipsoid,
    superellipse,
    tube,
    union,
)
from spine_lib.datasets.phantom.spine import Vertebra

_FOLDER = Path(__file__).parent
_LEVELS, _HALF_WIDTH, _BACK, _DEPTH, _CAVITY, _GUTTER, _WALL = np.loadtxt(
    _FOLDER / "trunk.csv", delimiter=",", skiprows=1, unpack=True
)
_VESSELS = np.loadtxt(_FOLDER / "vessels.csv", str, delimiter=",", skiprows=1)


class Trunk:
    """The trunk of one patient: lengths along z, and positions that follow the spine."""

    def __init__(self, column: list[Vertebra], patient: SimpleNamespace) -> None:
        self.column, self.patient = column, patient
        upwards = sorted(column, key=lambda v: v.centre[2])
        self._centres = np.array([v.centre for v in upwards])
        self._levels = np.array([v.level for v in upwards])
        self._sizes = np.array([(v.width, v.depth) for v in upwards])
        self.size = float(np.mean([v.width for v in column[7:24]]) / 36.0)
        fine = np.linspace(self._centres[0, 2] - 150, self._centres[-1, 2] + 200, 800)
        y = np.interp(fine, self._centres[:, 2], self._centres[:, 1])
        kernel = np.hanning(121)
        y = np.convolve(np.pad(y, 60, mode="edge"), kernel / kernel.sum(), mode="valid")
        # Lying flat takes some of the curves out of the back.
        self._fine, self._back_y = fine, y.mean() + 0.75 * (y - y.mean())

    def height(self, level: float) -> float:
        """Return z (mm) of a level, extended evenly beyond both ends."""
        beyond = 20.0 * (min(level - 1, 0) + max(level - 29, 0))
        return float(np.interp(level, self._levels[::-1], self._centres[::-1, 2])) - beyond

    def section(self, z: np.ndarray) -> SimpleNamespace:
        """Return the trunk's lengths at heights z as float32 arrays of z's shape (mm)."""
        h = self.patient
        level = np.interp(z, self._centres[:, 2], self._levels)
        spine_x, spine_y = (np.interp(z, self._centres[:, 2], self._centres[:, i]) for i in (0, 1))
        back = np.interp(z, self._fine, self._back_y) - self.size * np.interp(level, _LEVELS, _BACK)
        # The spinous processes stay under the skin.
        back = np.minimum(back, spine_y - 46 * self.size)
        front = back + np.interp(level, _LEVELS, _DEPTH) * h.depth
        cavity_back = spine_y - np.interp(level, _LEVELS, _GUTTER) * self.size
        cavity_front = front - np.interp(level, _LEVELS, _WALL)
        lengths = {
            "level": level,
            "spine_x": spine_x,
            "spine_y": spine_y,
            "body_w": np.interp(z, self._centres[:, 2], self._sizes[:, 0]) / 2,
            "body_d": np.interp(z, self._centres[:, 2], self._sizes[:, 1]) / 2,
            "x": 0.5 * spine_x,
            "y": (back + front) / 2,
            "half_width": np.interp(level, _LEVELS, _HALF_WIDTH) * h.width + h.fat_mm,
            "half_depth": (front - back) / 2 + h.fat_mm * 0.9,
            "cavity_w": np.interp(level, _LEVELS, _CAVITY) * h.width,
            "cavity_y": (cavity_back + cavity_front) / 2,
            "cavity_d": np.maximum((cavity_front - cavity_back) / 2, 4.0),
        }
        return SimpleNamespace(**{n: np.asarray(v, np.float32) for n, v in lengths.items()})

    def box(self, grid: VoxelGrid, top, bottom, margins) -> tuple[Block, SimpleNamespace]:
        """Return the voxels between two levels, with margins to the left, right, back and front."""
        z = np.linspace(self.height(bottom), self.height(top), 12)
        section = self.section(z)
        left, right, back, front = margins
        low = section.spine_x.min() - left, section.spine_y.min() - back, z[0]
        high = section.spine_x.max() + right, section.spine_y.max() + front, z[-1]
        block = grid.block(low, high)
        return block, self.section(block.z)


def fill_trunk(grid: VoxelGrid, trunk: Trunk, rng: np.random.Generator) -> None:
    """Fill everything round the vertebrae, from the skin inwards; later tissues cover earlier."""
    scales_mm = {"shape": 38.0, "lumps": 13.0, "strands": 4.0, "branches": 10.0}
    fields = {name: RandomField(grid, rng, scale) for name, scale in scales_mm.items()}
    _fill_wall_and_cavity(grid, trunk, fields)
    _fill_pads(grid, trunk, fields)
    _fill_organs(grid, trunk, fields, rng)
    _fill_vessels(grid, trunk, rng)
    _fill_back(grid, trunk, fields)
    _fill_canal(grid, trunk)
    _fill_discs(grid, trunk, rng)
    _add_head(grid, trunk)
    _add_ribs(grid, trunk, rng)
    _add_shoulders(grid, trunk)
    _add_pelvis(grid, trunk, rng)
    patient = trunk.patient
    grid.fill_added_bones(patient.cortex_mm, patient.cortical_hu, 0.8 * patient.trabecular_hu)


def _fill_wall_and_cavity(grid: VoxelGrid, trunk: Trunk, fields) -> None:
    section, table_hu = trunk.section(grid.z), trunk.patient.table_hu
    table_y = float((section.y - section.half_depth).min()) - 7.0
    for first in range(0, grid.shape[0], 8):  # a few planes at a time
        part = slice(first, first + 8)
        block = Block((part, slice(None), slice(None)), grid.x[part], grid.y[part], grid.z)
        noise = {name: field.on(block) for name, field in fields.items()}
        if table_hu > -900:  # else there is no table
            shell = np.abs(block.y - table_y - (block.x / 28) ** 2 * 0.5) - np.float32(1.6)
            shell = np.maximum(shell, np.abs(block.x) - 210)
            grid.fill(block, shell, table_hu, "table")
        _fill_wall(grid, block, trunk, section, noise)
        _fill_cavity(grid, block, trunk, section, noise)


def _fill_wall(grid: VoxelGrid, block: Block, trunk: Trunk, section, noise) -> None:
    h = trunk.patient
    x, y = block.x - section.x, block.y - section.y
    # A furrow runs down the middle of the back.
    furrow = np.exp(-((x / 16) ** 2)) * np.where(y < 0, 5.0, 0.0).astype(np.float32)
    skin = superellipse(x, y, section.half_width, section.half_depth) + furrow
    skin += noise["shape"] * np.float32(2.0)
    grid.fill(block, skin, 10.0, "muscle")
    texture = noise["strands"] * 9 + noise["lumps"] * 5
    grid.fill(block, skin + 2.0, h.fat_hu + texture, "fat")
    sides = np.float32(0.25) * (x / section.half_width) ** 2
    thick = np.float32(h.fat_mm) * (1 - sides + np.float32(0.12) * noise["shape"])
    muscle = skin + np.maximum(thick, 3.0)
    # Fat runs between muscles in sheets: where two fields change sign is a surface.
    sheets = np.clip(1 - np.abs(noise["lumps"]) * 6, 0, 1) * np.clip(noise["branches"], 0, 1)
    lean = h.muscle_hu + noise["strands"] * (4 + 8 * h.wasting) - sheets * (40 + 90 * h.wasting)
    grid.fill(block, muscle, lean, "muscle")


def _cavity(block: Block, section: SimpleNamespace) -> np.ndarray:
    """Return the signed distance to the wall of chest and belly."""
    x, y = block.x - section.x, block.y - section.cavity_y
    return superellipse(x, y, section.cavity_w, section.cavity_d)


def _fill_cavity(grid: VoxelGrid, block: Block, trunk: Trunk, section, noise) -> None:
    h = trunk.patient
    cavity = _cavity(block, section)
    # The spine and what lies beside it bulge into the cavity from behind.
    dx, dy = np.abs(block.x - section.spine_x), block.y - section.spine_y
    bulge = dx - (section.body_w + 5 + np.clip(-dy, 0, 60) * 0.75 - np.clip(dy, 0, 60) * 0.4)
    bulge = np.maximum(bulge, dy - section.body_d - 5)
    cavity = -union(-cavity, bulge, 8.0) + noise["shape"] * np.float32(2.0)
    branching = noise["lumps"] ** 2 + noise["branches"] ** 2
    vessels = np.clip(1 - branching * 16, 0, 1)
    inside = h.fat_hu + noise["strands"] * 8 + vessels * (0.5 * h.vein_hu + 140)
    grid.fill(block, cavity, inside, "fat")
    if block.z.max() < trunk.height(21.5):
        return
    lung = np.maximum(cavity + 2.5, -_mediastinum(trunk, section, block))
    lung = np.maximum(lung, _diaphragm(trunk, section, block) - block.z)
    lung = np.maximum(lung, block.z - trunk.height(7.6)) + noise["lumps"] * np.float32(1.2)
    branch = np.clip(1 - branching * 9, 0, 1)
    air = h.lung_hu - (block.y - section.cavity_y + 40) * 0.6 + noise["branches"] * 14
    air = air + branch * (840 + h.vein_hu * 0.6)
    grid.fill(block, lung, air, "lung")


def _diaphragm(trunk: Trunk, section, block: Block) -> np.ndarray:
    """Return the height of the diaphragm's two domes above each point (mm)."""
    low, top = trunk.height(20.6), trunk.height(16.3)
    x, y = block.x - section.x, block.y - section.cavity_y
    half = np.float32(66 * trunk.size)
    across = np.abs(np.abs(x) - half) / (half * np.float32(1.02))
    dome = 1 - across * across * across - ((y - 14) / (section.cavity_d * 0.98)) ** 2
    root = np.sqrt(np.sqrt(np.maximum(dome, 0)))
    high = np.where(x > 0, np.float32(1.1 * (top - low)), np.float32(0.9 * (top - low)))
    return low + root * np.sqrt(root) * high


def _mediastinum(trunk: Trunk, section, block: Block) -> np.ndarray:
    """Return the signed distance to heart, great vessels and the strip before the spine."""
    x, y, s = block.x - section.x, block.y - section.cavity_y, trunk.size
    z = block.z - trunk.height(15.2)
    heart = ellipsoid(x + 18 * s, y - 22 * s, z, (62 * s, 50 * s, 62 * s))
    upper = tube(x, y - 8, np.float32(30 * s), section.cavity_d * 1.1)
    upper = upper + np.maximum((trunk.height(12.5) - block.z) * 0.6, 0)
    strip = np.maximum(np.abs(x + 6) - 15 * s, y - 20)
    return union(union(heart, upper, 15.0), strip, 10.0)


def _fill_organs(grid: VoxelGrid, trunk: Trunk, fields, rng) -> None:
    h, s, lumps = trunk.patient, trunk.size, fields["lumps"]
    solid = [  # level, x, y from the cavity's middle, radii, HU, whether it lies below the lungs
        (18.4, 72, 10, (98, 100, 88), h.organ_hu, True),  # liver
        (18.2, -88, -38, (44, 54, 58), h.organ_hu + 12, True),  # spleen
        (18.3, -58, 34, (58, 52, 66), 30.0, True),  # stomach
        (15.3, -16, 22, (54, 42, 54), h.blood_hu * rng.uniform(0.5, 1.0), False),  # heart
    ]
    for level, x, y, radii, hu, below in solid:
        radii = tuple(r * s * f for r, f in zip(radii, rng.uniform(0.85, 1.12, 3), strict=True))
        _fill_organ(grid, trunk, lumps, (x * s, y * s, trunk.height(level)), radii, hu, below)
    for sign in (1, -1):
        _fill_kidney(grid, trunk, lumps, sign)
        _fill_psoas(grid, trunk, sign)
    for _ in range(int(rng.integers(24, 44))):
        _fill_bowel(grid, trunk, fields, rng)
    radii = tuple(rng.uniform(26, 46, 3) * s)
    bladder = (0.0, 16.0, trunk.height(28.2))
    _fill_organ(grid, trunk, lumps, bladder, radii, rng.uniform(0, 15), False)


def _fill_organ(grid, trunk: Trunk, lumps: RandomField, position, radii, hu, below_lungs) -> None:
    dx, dy, z = position
    section = trunk.section(np.float32(z))
    centre = np.array([dx + section.x, dy + section.cavity_y, z])
    block, *point = grid.around(centre, np.asarray(radii) * 1.25)
    bump, section = lumps.on(block), trunk.section(block.z)
    distance = np.maximum(ellipsoid(*point, radii) + bump * 4, _cavity(block, section) + 4)
    # Leave the spine, the aorta and the fat around them alone.
    x, y = block.x - section.spine_x, block.y - section.spine_y - 10
    distance = np.maximum(distance, 4 - tube(x, y, section.body_w + 16, section.body_d + 26))
    if below_lungs:
        distance = np.maximum(distance, block.z - _diaphragm(trunk, section, block) + 3)
    grid.fill(block, distance, hu + bump * 4, "organ")


def _fill_kidney(grid: VoxelGrid, trunk: Trunk, lumps: RandomField, sign: int) -> None:
    h, s, z = trunk.patient, trunk.size, trunk.height(21.2 + 0.5 * (sign > 0))
    section = trunk.section(np.float32(z))
    centre = np.array([sign * 62 * s + section.spine_x, -28 * s + section.spine_y + 18, z])
    block, x, y, z = grid.around(centre, 65 * s)
    sign = np.float64(sign)  # makes the distances float64
    distance = ellipsoid(x + 0.15 * z * sign, y, z, (27 * s, 25 * s, 54 * s))
    distance = distance + lumps.on(block) * 2
    grid.fill(block, distance - 9, h.fat_hu, "fat")
    grid.fill(block, distance, h.kidney_hu, "organ")
    sinus = ellipsoid(x + sign * 11 * s, y, z, (15 * s, 9 * s, 28 * s))
    grid.fill(block, sinus, h.fat_hu + 30, "fat")


def _fill_psoas(grid: VoxelGrid, trunk: Trunk, sign: int) -> None:
    left, right = (20, 110) if sign > 0 else (110, 20)
    block, section = trunk.box(grid, 19.6, 29, (left, right, 40, 110))
    s = trunk.size
    grow = np.clip((section.level - 19.6) / 4.5, 0.05, 1.0)
    away = np.clip(section.level - 24.0, 0, 5)
    x = block.x - section.spine_x - sign * (section.body_w + 4 + 12 * grow * s + 7 * away)
    y = block.y - section.spine_y - 9 * away + 4
    distance = tube(x, y, (6 + 15 * grow) * s, (8 + 15 * grow) * s)
    grid.fill(block, distance, trunk.patient.muscle_hu, "muscle")


def _fill_bowel(grid: VoxelGrid, trunk: Trunk, fields, rng) -> None:
    s, z = trunk.size, trunk.height(rng.uniform(19.5, 27))
    section = trunk.section(np.float32(z))
    angle, away = rng.uniform(-0.35, np.pi + 0.35), rng.uniform(0.25, 0.85)
    radius = rng.uniform(10, 24) * s
    x = section.x + (section.cavity_w - radius) * away * np.cos(angle)
    y = section.cavity_y + (section.cavity_d - radius) * away * np.sin(angle)
    y = max(y, section.spine_y + section.body_d + 8 + radius)
    centre, half = np.array([x, y, z]), rng.normal(0, [22, 14, 24]) * s
    block, x, y, z = grid.around(centre, abs(half) + radius + 8)
    filling, gas = rng.uniform(-20, 45), rng.uniform(-0.6, 1.6)
    if rng.uniform() < 0.12:
        filling = rng.uniform(120, 450)
    distance = capsule(x, y, z, -half, half, radius) + fields["lumps"].on(block) * 3
    grid.fill(block, distance, 42.0, "bowel")
    grid.fill(block, distance + 3, filling + 25 * fields["strands"].on(block), "bowel")
    if gas < 1:
        grid.fill(block, np.maximum(distance + 3.5, gas * radius - y), -950.0, "gas")


def _fill_pads(grid: VoxelGrid, trunk: Trunk, fields) -> None:
    """Fill the fat between muscles: sides of the neck, armpits, buttocks."""
    h, s = trunk.patient, trunk.size
    share = min(h.fat_mm / 14, 1.4)
    # levels, to the side, behind the spine's middle, radii
    pads = [
        (1, 8, 40, 4, 11, 17),
        (1, 8, 26, -22, 7, 9),
        (8.5, 13, 122, -10, 14, 34),
        (24, 29, 96, 34, 10, 26),
    ]
    for top, bottom, across, behind, rx, ry in pads:
        wide = (across + 2 * rx + 12) * s
        margins = (wide, wide, (behind + 2 * ry + 12) * s, (2 * ry + 12 - behind) * s)
        block, section = trunk.box(grid, top, bottom, margins)
        ends = np.minimum(section.level - top, bottom - section.level)
        grow = np.float32(share * s) * np.clip(ends, 0.05, 1)
        x = np.abs(block.x - section.spine_x) - np.float32(across * s)
        y = block.y - section.spine_y + np.float32(behind * s)
        pad = tube(x, y, rx * grow, ry * grow) + fields["lumps"].on(block) * 4
        grid.fill(block, pad, h.fat_hu + 12 * fields["strands"].on(block), "fat")


def _fill_vessels(grid: VoxelGrid, trunk: Trunk, rng) -> None:
    h, s = trunk.patient, trunk.size
    wide = rng.uniform(0.8, 1.25) * s
    calcified = rng.uniform() < 0.4
    hu = {"artery": h.blood_hu, "vein": h.vein_hu, "oesophagus": 35.0, "thyroid": 90.0}
    hu |= {"trachea": 60.0, "air": -990.0}
    for _, content, plaque, *lengths in _VESSELS:
        scale = s if content in ("trachea", "air") else wide
        plaque_hu = h.cortical_hu * 0.8 if calcified and plaque == "1" else None
        _fill_vessel(grid, trunk, scale, *map(float, lengths), hu[content], plaque_hu)
    section = trunk.section(np.float32(trunk.height(11)))
    arch = np.array([section.spine_x, section.spine_y + section.body_d, trunk.height(10.8)])
    block, *point = grid.around(arch, 90 * s)
    distance = capsule(*point, (-19 * s, 0, 0), (10 * s, 50 * s, 0), 13 * wide)
    grid.fill(block, distance, h.blood_hu, "vessel")


def _fill_vessel(
    grid, trunk: Trunk, scale, top, bottom, dx, dy, r_top, r_bottom, hu, plaque_hu
) -> None:
    dx, dy = dx * trunk.size, dy * trunk.size
    z_low, z_high = trunk.height(bottom), trunk.height(top)
    course = trunk.section(np.linspace(z_low, z_high, 9))
    x, y = course.spine_x + dx, course.spine_y + course.body_d + dy
    block = grid.block((x.min() - 28, y.min() - 28, z_low), (x.max() + 28, y.max() + 28, z_high))
    section = trunk.section(block.z)
    radius = np.interp(section.level, (top, bottom), (r_top, r_bottom)).astype(np.float32) * scale
    x = block.x - section.spine_x - dx
    y = block.y - section.spine_y - section.body_d - dy
    distance = tube(x, y, radius, radius)
    grid.fill(block, distance, hu, "gas" if hu < -500 else "vessel")
    if plaque_hu:
        plaque = np.sin(block.z / 9 + 2) + np.sin(np.arctan2(y, x) * 2 + block.z / 17) - 1.3
        rim = np.maximum(np.abs(distance) - 1.0, -plaque * 4)
        grid.fill(block, rim, plaque_hu, "vessel")


def _fill_back(grid: VoxelGrid, trunk: Trunk, fields) -> None:
    """Fill the long back muscles as groups parted by fat, and fat between the processes."""
    h, s = trunk.patient, trunk.size
    groups = [(11, 34, 13, 16), (29, 38, 16, 15), (50, 32, 15, 13)]  # x, y behind, radii
    block, section = trunk.box(grid, 1.5, 26, (75 * s, 75 * s, 75 * s, 0))
    grow = np.interp(section.level, (3, 8, 12, 20, 24, 26), (0.9, 0.8, 0.75, 1.15, 1.3, 0.9))
    grow = grow.astype(np.float32)
    rear = section.spine_y - section.body_d - 14 * s
    side = np.abs(block.x - section.spine_x)
    texture, wavy = fields["strands"].on(block), fields["lumps"].on(block)
    septum = h.fat_hu + 60 - 45 * h.wasting + texture * 12
    x, y = block.x - section.x, block.y - section.y
    fascia = superellipse(x, y, section.half_width, section.half_depth) + (h.fat_mm + 3)
    lean = h.muscle_hu - 25 * h.wasting + texture * (4 + 14 * h.wasting)
    for x0, y0, rx, ry in groups:
        x = side - x0 * s * (0.6 + 0.4 * grow)
        y = block.y - rear + (y0 - 14) * s * grow
        group = np.maximum(tube(x, y, rx * s * grow, ry * s * grow) + wavy * 3, fascia)
        grid.fill(block, group, lean, "muscle")
        sheath = np.abs(group) - (np.float32(0.55 + 0.9 * h.wasting) + wavy * 0.7)
        grid.fill(block, sheath, septum, "fat")


def _fill_canal(grid: VoxelGrid, trunk: Trunk) -> None:
    """Fill the canal's fat, the sac of the dura and, down to L1, the cord."""
    column = sorted(trunk.column, key=lambda v: v.centre[2])
    middles = np.array([v.point(0, -(v.depth + v.canal_depth) / 2, 0) for v in column])
    halves = np.array([(v.canal_width, v.canal_depth) for v in column]) / 2
    block = grid.block(middles.min(axis=0) - [20, 20, 0], middles.max(axis=0) + [20, 20, 30])
    x0, y0, half_x, half_y = (
        np.interp(block.z, middles[:, 2], values).astype(np.float32)
        for values in (*middles.T[:2], *halves.T)
    )
    x, y = block.x - x0, block.y - y0
    grid.fill(block, tube(x, y, half_x + 1, half_y + 1), -35.0, "canal")
    sac = tube(x, y - 0.5, np.minimum(half_x, 11) * 0.9, half_y * 0.92)
    grid.fill(block, sac, 22.0, "canal")
    cord = tube(x, y, np.float32(6.0), np.minimum(np.float32(4.6), half_y * 0.7))
    grid.fill(block, np.maximum(cord, trunk.height(20.5) - block.z), 42.0, "canal")


def _fill_discs(grid: VoxelGrid, trunk: Trunk, rng) -> None:
    for above, below in zip(trunk.column[1:], trunk.column[2:], strict=False):
        gas = rng.uniform() < 0.06
        if below.disc < 1:
            continue
        middle = below.point(0, 0, below.height / 2 + below.disc / 2)
        block = grid.around(middle, 0.62 * below.width)[0]
        x, y, z = below.local(block)
        z = z - np.float32((below.height + below.disc) / 2)
        outline = tube(x, y, np.float32(below.width / 2 + 0.5), np.float32(below.depth / 2 + 0.5))
        disc = np.maximum(outline, np.abs(z) - (below.disc / 2 + 0.16 * below.height))
        grid.fill(block, disc, trunk.patient.disc_hu + 18 * (outline > -5), "disc")
        if gas and above.region == "L":
            grid.fill(block, np.maximum(outline + 9, np.abs(z) - 1.2), -250.0)


def _add_rod(grid: VoxelGrid, points, radius: float, flatten=(1.0, 1.0, 1.0)) -> None:
    """Add a thick line through points."""
    reach = radius / min(flatten) + 4
    for start, end in zip(points[:-1], points[1:], strict=True):
        block = grid.block(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
        grid.add_bone(block, capsule(block.x, block.y, block.z, start, end, radius, flatten))


def _add_ribs(grid: VoxelGrid, trunk: Trunk, rng) -> None:
    """Add twelve pairs of ribs from the vertebrae round the chest, and the breastbone."""
    slope, s = rng.uniform(0.75, 1.25), trunk.size
    for vertebra in (v for v in trunk.column if v.region == "T"):
        radius = 4.2 * s * (0.8 if vertebra.name in ("T11", "T12", "T13") else 1.0)
        for sign in (-1, 1):
            _add_rod(grid, _rib(trunk, vertebra, sign, slope), radius, (1.0, 1.0, 0.72))
    z = np.linspace(trunk.height(16.0), trunk.height(10.2), 9)
    section = trunk.section(z)
    sternum = np.stack([section.x, section.cavity_y + section.cavity_d + 4, z], axis=1)
    _add_rod(grid, sternum, 16 * s, (1.0, 3.2, 1.0))
    for sign in (-1, 1):  # collarbones
        start = np.array([section.x[-1] + sign * 18, *(sternum[-1, 1:] + (0, 8))])
        _add_rod(grid, [start, start + np.array([sign * 125, -62, 26]) * s], 6.0 * s)


def _rib(trunk: Trunk, v: Vertebra, sign: int, slope: float) -> np.ndarray:
    """Return points from the head of a rib at its vertebra to where its cartilage begins."""
    number, s = int(v.name[1:]), v.height / 19
    head = v.point(sign * (v.width / 2 + 4.5), -0.36 * v.depth, 0.42 * v.height)
    neck = v.point(sign * (v.span / 2 - 7 * s), v.rear + 6 * s, 0.25 * v.height)
    tubercle = v.point(sign * (v.span / 2 + 1), v.rear - 3 * s, 0.1 * v.height)
    reach = {11: 0.4, 12: 0.24, 13: 0.15}.get(number, 0.86 if number > 7 else 0.98)
    drop = slope * trunk.size * np.interp(number, (1, 3, 7, 10, 12), (24, 48, 95, 110, 75))
    share = np.linspace(0, 1, 12)[1:]
    share = share[share <= reach]
    # Straight on from the tubercle first, then along the wall of the chest.
    angle = np.radians(-66 + 136 * share)
    z = tubercle[2] - drop * share**1.15
    section, p = trunk.section(z), 2 / SUPERELLIPSE
    across, forward = np.cos(angle) ** p, np.sign(angle) * np.abs(np.sin(angle)) ** p
    x = section.x + sign * (section.cavity_w + 4.5) * across
    wall = np.stack([x, section.cavity_y + (section.cavity_d + 4.5) * forward, z], axis=1)
    outside = sign * (wall[:, 0] - tubercle[0]) > 4
    path = np.vstack([neck, tubercle, wall[outside | (share > 0.3)]])
    # Cutting the corners turns the polygon into a curve (Chaikin's algorithm).
    cut = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], 1)
    return np.vstack([head, neck, cut.reshape(-1, 3), path[-1]])


def _add_shoulders(grid: VoxelGrid, trunk: Trunk) -> None:
    """Add the shoulder blades: thin plates behind the chest wall, with a spine of their own."""
    low, high, s = trunk.height(15.2), trunk.height(9.2), trunk.size
    length, z = high - low, (low + high) / 2
    section = trunk.section(np.float32(z))
    y = section.cavity_y - section.cavity_d * 0.85
    for sign in (-1, 1):
        x = section.x + sign * (section.cavity_w * 0.86)
        half = np.array([46.0, 40.0, length / 2 + 6])
        block, across, _, up = grid.around(np.array([x, y, z]), half)
        wall = _cavity(block, trunk.section(block.z))
        width = 34 * s * (0.35 + 0.65 * np.clip(up / length + 0.5, 0, 1))
        edge = np.maximum(np.abs(sign * across + 4) - width, np.abs(up) - length / 2)
        rim = np.clip((np.abs(edge) < 6) * 1.2, 0, 1.2)
        grid.add_bone(block, np.maximum(np.abs(wall - 15) - 1.8 - rim, edge))
        start = np.array([x - sign * 26, y - 14, z + 0.28 * length])
        _add_rod(grid, [start, start + np.array([sign * 75, -6, 22])], 5.0)


def _add_pelvis(grid: VoxelGrid, trunk: Trunk, rng) -> None:
    """Add both iliac wings, from the sacroiliac joint to the crest, and the femoral heads."""
    s1, s2 = (v for v in trunk.column if v.name in ("S1", "S2"))
    flare, s = rng.uniform(0.55, 0.95), trunk.size
    joint = (s1.centre + s2.centre) / 2
    block = grid.block(joint + [-175, -90, -150], joint + [175, 130, 110])
    x, y, z = block.around(joint)
    side = np.abs(x)
    # In an axial slice the wing runs from behind the sacrum forwards and out, slightly bent.
    start_x = 0.5 * s1.span + 5 * s + np.float32(0.4 * flare) * z
    along = (y + 26 * s) * 0.62 + (side - start_x) * 0.78
    away = (side - start_x) * 0.62 - (y + 26 * s) * 0.78
    bend = 8 * s * np.sin(np.clip(along, -40, 130) / np.float32(30))
    thick = 3.6 * s + 6 * s * np.exp(-((along + 6 * s) ** 2) / 700)
    thick += 4.5 * s * np.exp(-((along - 98 * s) ** 2) / 300)
    plate = np.abs(away + bend) - thick
    crest = z - (72 * s - ((along - 45 * s) ** 2) / np.float32(72 * s))
    ends = np.maximum(-along - 30 * s, along - (100 * s + 0.12 * z))
    edge = np.maximum(np.maximum(crest * 0.8, ends), -z - 70 * s)
    grid.add_bone(block, -union(-plate, -edge, 8 * s))
    hip = ellipsoid(side - 88 * s, y - 62 * s, z + 92 * s, (25 * s,) * 3)
    cup = np.maximum(np.abs(hip - 7) - 4, -(z + 100 * s) - 14)
    grid.add_bone(block, np.minimum(hip, cup))


def _add_head(grid: VoxelGrid, trunk: Trunk) -> None:
    """Add the base of the skull and the jaw; both end above and before the atlas."""
    s = trunk.size
    centre = trunk.column[0].point(0, 22 * s, 82 * s)
    block, x, y, z = grid.around(centre, 110 * s)
    skull = ellipsoid(x, y, z, (70 * s, 88 * s, 70 * s))
    grid.fill(block, skull, 36.0, "organ")
    hole = np.hypot(x, y + 24 * s) - 17 * s  # where the cord leaves
    grid.add_bone(block, np.maximum(np.abs(skull + 4) - 3.0 * s, -hole))
    jaw = np.abs(tube(x, y - 28 * s, np.float32(46 * s), np.float32(62 * s))) - 5.5 * s
    jaw = np.maximum(jaw, np.maximum(20 * s - y, np.abs(z + 78 * s) - 14 * s))
    grid.add_bone(block, jaw)
