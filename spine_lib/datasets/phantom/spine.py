"""The phantom's spine: sizes, curves, and the shape of each vertebra as one signed distance.

`vertebrae.csv` has an adult's sizes (mm, degrees), rounded, of the order of the means of cadaver
series (Panjabi et al., Spine 16:861-869 and 16:888-901, 1991, and 17:299-306, 1992). Disc heights,
sagittal angles and the sacrum were chosen by eye against CT. Each part of a vertebra is written in
its own axes (right, front, up; mm) and scales with its sizes.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from spine_lib.annotations.schemes import CANONICAL, SACRUM
from spine_lib.datasets.phantom.grid import (
    Block,
    RandomField,
    VoxelGrid,
    box,
    capsule,
    superellipse_ratio,
    union,
)

_LABELS = {name: label for label, name in CANONICAL.items()}
_SIZES = np.loadtxt(Path(__file__).with_name("vertebrae.csv"), str, delimiter=",")


class Vertebra(SimpleNamespace):
    """Size and position of one vertebra or sacral segment (mm; local axes right, front, up).

    Its sizes are the columns of `vertebrae.csv`. `name` is "C1" to "L6", or "S1" to "S5", `label`
    the canonical id, `centre` the body's middle, and the columns of `axes` are the local axes. The
    rims of the body bulge by `osteophyte_mm` to the right, front, left and back.
    """

    @property
    def region(self) -> str:
        """The letter of the region: C, T, L or S."""
        return self.name[0]

    @property
    def level(self) -> float:
        """Position from C1 = 1 to S5 = 29; the extra T13 and L6 come in between."""
        if self.region == "S":
            return 24.0 + int(self.name[1])
        return {"T13": 19.5, "L6": 24.5}.get(self.name, float(self.label))

    @property
    def rear(self) -> float:
        """Local y of the canal's rear wall."""
        return -(self.depth / 2 + self.canal_depth)

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        """Return a local position in the patient's coordinates."""
        return self.centre + self.axes @ np.array([x, y, z])

    def local(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a block's coordinates along the local axes, float32 [bx, by, bz] each."""
        x, y, z = block.around(self.centre)
        turn = self.axes.astype(np.float32)
        return tuple((x * turn[0, i] + y * turn[1, i]) + z * turn[2, i] for i in range(3))


def build_column(patient, size: float, rng: np.random.Generator) -> list[Vertebra]:
    """Return C1 to S5, stacked from the sacrum up along the patient's curves, S1 at the origin.

    `size` is the scale of all lengths, where 1 is a mean adult.
    """
    rows = []
    for name, *numbers in _SIZES[1:]:
        rows.append((str(name), np.array(numbers, float)))
        if (name, patient.extra) in (("T12", "T13"), ("L5", "L6")):
            rows.append((patient.extra, rows[-1][1]))
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.6)
    lean_all, side_all = np.radians(rng.normal(0, [2.5, 1.5]))
    scoliosis = np.radians(patient.scoliosis_deg)
    column, top = [], np.zeros(3)
    for i, (name, numbers) in enumerate(reversed(rows)):
        vertebra, lean = _draw_vertebra(name, numbers, patient, size, rng)
        # The column bends in the coronal plane and twists with it; the pelvis stays.
        turn = phase + 2 * np.pi * waves * i / len(rows)
        jitter = rng.normal(0, 0.6, 2) * (vertebra.region != "S")
        lean = lean + lean_all + np.radians(jitter[0])
        side = scoliosis * np.cos(turn) + side_all
        side = (side + np.radians(jitter[1])) * (vertebra.region != "S")
        vertebra.axes = _rotation(lean, side, 0.6 * scoliosis * np.sin(turn))
        vertebra.centre = top + vertebra.axes[:, 2] * vertebra.height / 2
        top = vertebra.centre + vertebra.axes[:, 2] * (vertebra.height / 2 + vertebra.disc)
        column.append(vertebra)
    sacrum_top = next(v for v in column if v.name == "S1").centre
    for vertebra in column:
        vertebra.centre = vertebra.centre - sacrum_top
    return column[::-1]


def _rotation(lean: float, side: float, twist: float) -> np.ndarray:
    """Return the rotation by a lean to the front, a lean to the left and a twist (radians); 3x3."""
    c, s = np.cos([lean, side, twist]), np.sin([lean, side, twist])
    about_x = np.array([[1, 0, 0], [0, c[0], s[0]], [0, -s[0], c[0]]])
    about_y = np.array([[c[1], 0, -s[1]], [0, 1, 0], [s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _draw_vertebra(name: str, numbers: np.ndarray, patient, scale: float, rng):
    """Return a vertebra without its place, and its lean (radians)."""
    size = numbers[:10] * scale
    size = size * rng.normal(1, 0.025, 10).clip(0.93, 1.07)
    curve = patient.kyphosis if name[0] == "T" else patient.lordosis
    worn = patient.degenerative * rng.uniform(0, 1, 4) * (name[0] != "S")
    size[3] *= 1 - 0.45 * patient.degenerative * rng.uniform(0, 1) * (name not in ("C1", "C2"))
    breakable = name[0] in "TL" and rng.uniform() < patient.fracture
    vertebra = Vertebra(
        name=name,
        label=_LABELS.get(name, SACRUM),
        **dict(zip(_SIZES[0, 1:11], size.tolist(), strict=True)),
        slope_rad=float(np.radians(numbers[10] + rng.normal(0, 3))),
        osteophyte_mm=tuple((6.0 * worn**2 * scale * (name not in ("C1", "C2"))).tolist()),
        wedge_mm=float(size[2]) * rng.uniform(0.15, 0.45) * breakable,
    )
    return vertebra, float(np.radians(numbers[11] * curve))


def fill_spine(grid: VoxelGrid, column: list[Vertebra], patient, rng) -> None:
    """Fill and label the vertebrae: spongy inside, cortex outside, denser in the arch."""
    visible = min(1.0, 0.9 / grid.edge_mm)  # what coarse voxels leave of the trabeculae
    worn, spongy = patient.degenerative, patient.trabecular_hu
    bumps, grain = RandomField(grid, rng, 7.0), RandomField(grid, rng, 1.2)
    for v in column:
        front, back = v.depth / 2 + 8, v.depth / 2 + v.canal_depth + v.spinous + 16
        half = np.array([v.span / 2 + 6, (front + back) / 2, v.height + 14 + 0.3 * v.spinous])
        centre = v.point(0, (front - back) / 2, -4 if v.name != "C2" else 4)
        block = grid.around(centre, np.abs(v.axes) @ half)[0]
        dense = rng.normal(1, 0.06)
        rough = bumps.on(block) * np.float32(0.45 + 0.35 * worn)
        x, y, z = v.local(block)
        arch = np.clip((-y - v.depth / 2 + 3) / 8, 0, 1)
        plate = np.clip((np.abs(z) * (2 / v.height) - 0.72) * 4, 0, 1) * (1 - arch)
        inner = spongy * dense * (1 + (0.2 + 0.6 * worn) * plate) + (40 + 110 * worn) * arch
        inner += grain.on(block) * np.float32(visible * (28 + 0.22 * spongy))
        inner += rough * 40
        thickness = np.maximum(0.42 + 0.65 * arch + 0.2 * plate + 0.35 * rough, 0.2)
        cortex_mm = patient.cortex_mm * thickness
        # Left and right differ a little, or the network could learn the mirror.
        side = np.abs(x + np.float32(0.02) * z)
        distance = np.maximum(_vertebra(v, x, side, y, z) + rough, -_canal(v, side, y))
        grid.fill_vertebra(block, distance, v.label, cortex_mm, patient.cortical_hu, inner)


def _vertebra(v: Vertebra, x, side, y, z) -> np.ndarray:
    """Return the signed distance to a vertebra or sacral segment without its canal."""
    if v.name == "C1":
        return _atlas(v, side, y, z)
    if v.region == "S":
        return _sacral_segment(v, side, y, z)
    distance = union(_body(v, v.height, x, y, z), _arch(v, side, y, z), 3.0 * v.width / 40 + 0.5)
    if v.name == "C2":
        dens = ((0, 1.5, 0), (0, 0.5, v.height / 2 + 19 * v.width / 17), 4.8 * v.width / 17)
        distance = union(distance, capsule(side, y, z, *dens), 2.0)
    return distance


def _body(v: Vertebra, full_height: float, x, y, z) -> np.ndarray:
    # Thoracic bodies are heart-shaped: they narrow to the front.
    taper = {"C": 0.04, "T": 0.14, "L": 0.03, "S": -0.03}[v.region]
    along = y * np.float32(2 / v.depth)
    across = x * (np.float32(2 / v.width) * (1 + np.float32(taper) * along))
    rho = np.maximum(superellipse_ratio(across, along), np.float32(1e-3))  # 1 on the outline
    reach = np.sqrt(x * x + y * y) / rho  # from the centre to the outline along this ray
    flare = (z * np.float32(2 / full_height)) ** 2
    rim = np.float32(0.075) * (flare - 1) * reach
    right, front, left, back = v.osteophyte_mm
    if max(v.osteophyte_mm) > 0.2:
        share = np.clip(flare, 0, 1) ** 3 / np.maximum(reach, 1e-3)
        bulge_x, bulge_y = np.where(x > 0, right, left), np.where(y > 0, front, 0.3 * back)
        rim += share * (bulge_x * np.abs(x) + bulge_y * np.abs(y)) / np.maximum(rho, 1e-3)
    wall = (rho - 1) * reach - rim
    # Endplates are hollow in the middle; a wedge lowers the front of the upper one.
    hollow = np.float32(0.04 * full_height) * np.clip(1 - rho * rho, 0, 1)
    lowered = np.float32(v.wedge_mm) * np.clip(y / v.depth + 0.5, 0, 1) * (z > 0)
    plate = np.abs(z) - np.float32(full_height / 2) + hollow + lowered
    return -union(-wall, -plate, 0.1 * full_height)


def _canal(v: Vertebra, side, y) -> np.ndarray:
    middle = np.float32(-(v.depth + v.canal_depth) / 2)
    half_x, half_y = np.float32(v.canal_width / 2), np.float32(v.canal_depth / 2)
    if v.name == "C1":
        middle = -half_y * 0.9
    else:
        half_x = half_x * (1 - np.float32(0.25) * np.clip((middle - y) / half_y, 0, 1))
    return (np.sqrt((side / half_x) ** 2 + ((y - middle) / half_y) ** 2) - 1) * half_y


def _arch(v: Vertebra, side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Join pedicles, joint processes, laminae, transverse and spinous processes."""
    s = v.height / {"C": 12.0, "T": 19.0, "L": 27.0}[v.region]  # scale of the small parts
    if v.name in ("T11", "T12", "T13"):
        s *= 0.82
    pillar_x, pillar_y = v.canal_width / 2 + 0.55 * v.pedicle_width, v.rear + 0.3 * v.canal_depth
    high = v.height / 2 - 0.55 * v.pedicle_height
    pedicle = box(
        side - (v.canal_width + v.pedicle_width) / 2,
        y - (pillar_y - v.depth / 2 + 5) / 2,
        z - high,
        (v.pedicle_width / 2, (5 - v.depth / 2 - pillar_y) / 2 + 1, v.pedicle_height / 2),
        0.45 * v.pedicle_width,
    )
    arch = union(pedicle, _joints(v, side, y, z, pillar_x, pillar_y, s), 2.0)
    roof = _plate(side, y, (pillar_x, pillar_y), (0.0, v.rear - 2.5 * s)) - np.float32(3.3 * s**0.5)
    low, up = (0.62, 0.3) if v.region != "C" else (0.5, 0.4)
    sheet = np.abs(z + (low - up) / 2 * v.height) - np.float32((low + up) / 2 * v.height)
    arch = union(arch, np.maximum(roof, sheet + 1.5), 1.5)
    arch = union(arch, _transverse(v, side, y, z, pillar_x, pillar_y, high, s), 3.0 * s)
    return union(arch, _spinous(v, side, y, z, s), 3.0 * s)


def _plate(x, y, start, end) -> np.ndarray:
    """Return the distance to an upright plate between two points of the axial plane."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((x * dx + y * dy) / np.float32(dx * dx + dy * dy), 0, 1)
    return np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2)


def _joints(v: Vertebra, side, y, z, pillar_x, pillar_y, s) -> np.ndarray:
    """Return both articular processes; they face backwards, or inwards when lumbar."""
    top, bottom = v.height / 2, -v.height / 2
    if v.region == "C":
        # Stacked pillars cut at 45 degrees: the joint space slopes down to the back.
        tilt = z + 0.8 * (y - pillar_y)
        half = (v.height + v.disc) / 2 - 0.7
        pillar = np.maximum(np.abs(side - pillar_x - 2) - 5.5 * s, np.abs(y - pillar_y) - 6 * s)
        if v.name == "C2":  # its upper joints lie under the atlas, beside the dens
            pillar = np.maximum(pillar, z - top + 3)
        return -union(-pillar, -(np.abs(tilt) - half), np.float32(1.5))
    if v.region == "T" and v.name not in ("T12", "T13"):
        flat, x_up, x_down = (0.9, 2.0, 0.8), pillar_x - 0.5, pillar_x - 3.0
        y_up, y_down = v.rear + 1.5 * s, v.rear - 4.6 * s
        radius, up, down = 4.6 * s, top + 3 * s, bottom - 8 * s
    else:
        flat, x_up, x_down = (1.5, 0.8, 0.8), v.canal_width / 2 + 10.5 * s, v.canal_width / 2 + 0.5
        y_up, y_down = pillar_y - 1.5 * s, pillar_y - 5.5 * s
        radius, up, down = 5.6 * s, top + 4.5 * s, bottom - 9 * s
    middle, below = (pillar_x, pillar_y, 0.0), (pillar_x - 1, pillar_y - 2 * s, -2)
    upper = capsule(side, y, z, middle, (x_up, y_up, up), radius, flat)
    lower = capsule(side, y, z, below, (x_down, y_down, down), radius, flat)
    return union(upper, lower, 2.0)


def _transverse(v: Vertebra, side, y, z, pillar_x, pillar_y, high, s) -> np.ndarray:
    tip = v.span / 2
    if v.region == "C":
        end = (tip, -7.0 * s, -2.0)
        front = capsule(side, y, z, (v.width / 2, -2.0, 0.0), end, 2.6 * s)
        back = capsule(side, y, z, (pillar_x, pillar_y + 2, 0.0), end, 2.8 * s)
        hole = np.hypot(side - (v.canal_width / 2 + 5.5 * s), y + 6 * s) - np.float32(2.9 * s)
        return np.maximum(union(front, back, 2.0), -hole)
    if v.region == "T":
        end = (tip - 5 * s, pillar_y - 13 * s, high + 1)
        bar = capsule(side, y, z, (pillar_x, pillar_y - 1, high - 2), end, 4.6 * s, (1, 1, 0.9))
        knob = np.sqrt((side - end[0]) ** 2 + (y - end[1]) ** 2 + (z - end[2]) ** 2) - 5.4 * s
        return union(bar, knob, 2.0)
    thick = 4.6 * s if v.name != "L5" else 6.0 * s
    start, end = (pillar_x, pillar_y + 3, high - 2), (tip - 3, pillar_y - 3 * s, high + 1)
    return capsule(side, y, z, start, end, thick, (1.0, 1.6, 1.0))


def _spinous(v: Vertebra, side, y, z, s: float) -> np.ndarray:
    """Return a plate that leaves the roof of the canal backwards and down, with a thick tip."""
    cos, sin = np.float32(np.cos(v.slope_rad)), np.float32(np.sin(v.slope_rad))
    base = {"C": 0.5, "T": 2.5, "L": 5.0}[v.region] * s
    back, up = -(y - np.float32(v.rear + 1)), z + np.float32(base)
    along, across = back * cos - up * sin, back * sin + up * cos
    share = np.clip(along / np.float32(v.spinous), 0, 1)
    tall = {"C": 4.0, "T": 6.0 - 1.5 * share, "L": 9.0 + 2.0 * share}[v.region] * np.float32(s)
    thick = np.float32({"C": 2.2, "T": 2.4, "L": 2.9}[v.region] * s)
    thick = thick * (1 + np.float32(0.5) * share**3)
    # Cervical tips fork.
    fork = (5.0 * share**3 * s) if v.region == "C" and v.name != "C7" else 0.0
    flat = np.maximum(np.abs(side - fork) - thick, np.abs(across) - tall)
    ends = np.abs(along - np.float32(v.spinous / 2 - 1)) - np.float32(v.spinous / 2 + 1)
    return -union(-flat, -ends, np.float32(2.0))


def _atlas(v: Vertebra, side, y, z) -> np.ndarray:
    """Return the ring of C1: two arches, lateral masses and long transverse processes."""
    s = v.width / 20
    half_x, half_y = v.canal_width / 2 + 3.5, v.canal_depth / 2 + 3.0
    middle = -0.9 * v.canal_depth / 2
    stretched = np.sqrt((side / half_x) ** 2 + ((y - middle) / half_y) ** 2)
    ring = np.hypot((stretched - 1) * half_y, 0.7 * z) - np.float32(3.3 * s)
    mass = box(side - 18 * s, y + 6 * s, z, (6.5 * s, 8.5 * s, 7.5 * s), 4 * s)
    wing = capsule(side, y, z, (20 * s, -6 * s, 0), (v.span / 2 - 4, -9 * s, -1), 4 * s)
    return union(union(ring, mass, 2.0), wing, 3.0)


def _sacral_segment(v: Vertebra, side, y, z) -> np.ndarray:
    """Return one of five: a body, two wings and a roof; holes stay open between the wings."""
    s = v.width / 50
    body = _body(v, v.height + 1.5, side, y, z)
    thick = 13.5 * s**0.7
    drop = 3.0 if v.name == "S1" else 0.0
    inner = (0.3 * v.width, -3 * s, -drop)
    outer = (v.span / 2 - thick, -0.32 * v.depth - 8 * s, -drop)
    ala = capsule(side, y, z, inner, outer, thick, (1.0, 1.05, thick / (0.36 * v.height)))
    # Lateral to the holes the wings of all segments are fused.
    band = np.hypot((side - outer[0]) * 0.9, y - outer[1]) - 0.85 * thick
    band = np.maximum(band, np.abs(z) - v.height / 2)
    roof = _plate(side, y, (outer[0], outer[1] - 0.4 * thick), (0.0, v.rear - 2)) - np.float32(3.2)
    roof = np.maximum(roof, np.abs(z) - (v.height / 2 - 2.0 * s))
    half = (2.5, v.spinous / 2 + 2, 0.32 * v.height)
    crest = box(side, y - (v.rear - v.spinous / 2), z, half, 2.0)
    whole = union(union(body, ala, 4.0 * s), band, 3.0)
    return union(whole, union(roof, crest, 3.0), 3.0)
