"""Bones and soft parts that touch the phantom's spine but carry no label.

Ribs, breastbone, shoulder blades, pelvis, skull and jaw are what a network mistakes for spine;
discs, canal and back muscles are what it sees around it.
"""

from __future__ import annotations

import numpy as np

from spine_lib.datasets.phantom.canvas import (
    SUPERELLIPSE,
    Canvas,
    Field,
    capsule,
    ellipsoid,
    superellipse,
    tube,
    union,
)
from spine_lib.datasets.phantom.column import Vertebra
from spine_lib.datasets.phantom.torso import TISSUES, Torso


def gather_ribs(canvas: Canvas, torso: Torso, rng: np.random.Generator) -> None:
    """Add twelve pairs of ribs from the vertebrae round the chest, and the breastbone."""
    slope = rng.uniform(0.75, 1.25)
    for vertebra in torso.column:
        if vertebra.region == "T":
            for sign in (-1, 1):
                points = _rib_path(torso, vertebra, sign, slope)
                radius = 4.2 * torso.size * (0.8 if vertebra.name in ("T11", "T12", "T13") else 1.0)
                for start, end in zip(points[:-1], points[1:], strict=True):
                    _gather_rod(canvas, start, end, radius, (1.0, 1.0, 0.72))
    _gather_sternum(canvas, torso)


def _gather_rod(canvas: Canvas, start, end, radius: float, flatten=(1.0, 1.0, 1.0)) -> None:
    reach = radius / min(flatten) + 4
    block = canvas.block(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
    if block is not None:
        rod = capsule(block.x, block.y, block.z, start, end, radius, flatten)
        canvas.gather_bone(block, rod)


def _rib_path(torso: Torso, v: Vertebra, sign: int, slope: float) -> np.ndarray:
    """Return points from the head of a rib at its vertebra to where its cartilage begins."""
    number = int(v.name[1:])
    rear = -(v.depth / 2 + v.canal_depth)
    s = v.height / 19
    head = v.point(sign * (v.width / 2 + 4.5), -0.36 * v.depth, 0.42 * v.height)
    neck = v.point(sign * (v.span / 2 - 7 * s), rear + 6 * s, 0.25 * v.height)
    tubercle = v.point(sign * (v.span / 2 + 1), rear - 3 * s, 0.1 * v.height)
    reach = {11: 0.4, 12: 0.24, 13: 0.15}.get(number, 0.86 if number > 7 else 0.98)
    drop = slope * torso.size * np.interp(number, (1, 3, 7, 10, 12), (24, 48, 95, 110, 75))
    share = np.linspace(0, 1, 12)[1:]
    share = share[share <= reach]
    # Straight on from the tubercle first, then along the wall of the chest.
    angle = np.radians(-66 + 136 * share)
    z = tubercle[2] - drop * share**1.15
    at = torso.profile(z)
    p = 2 / SUPERELLIPSE
    wall_x = at["x"] + sign * (at["cavity_w"] + 4.5) * np.cos(angle) ** p
    wall_y = at["cavity_y"] + (at["cavity_d"] + 4.5) * np.sign(angle) * np.abs(np.sin(angle)) ** p
    wall = np.stack([wall_x, wall_y, z], axis=1)
    outside = sign * (wall[:, 0] - tubercle[0]) > 4
    path = np.vstack([neck, tubercle, wall[outside | (share > 0.3)]])
    # Cutting the corners turns the polygon into a curve (Chaikin's algorithm).
    cut = np.stack([0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], 1)
    return np.vstack([head, neck, cut.reshape(-1, 3), path[-1]])


def _gather_sternum(canvas: Canvas, torso: Torso) -> None:
    z = np.linspace(torso.height(16.0), torso.height(10.2), 9)
    at = torso.profile(z)
    y = at["cavity_y"] + at["cavity_d"] + 4
    for i in range(len(z) - 1):
        start, end = (at["x"][i], y[i], z[i]), (at["x"][i + 1], y[i + 1], z[i + 1])
        _gather_rod(canvas, np.array(start), np.array(end), 16 * torso.size, (1.0, 3.2, 1.0))
    for sign in (-1, 1):
        start = np.array([at["x"][-1] + sign * 18, y[-1], z[-1] + 8])
        end = start + np.array([sign * 125, -62, 26]) * torso.size
        _gather_rod(canvas, start, end, 6.0 * torso.size)


def gather_shoulders(canvas: Canvas, torso: Torso) -> None:
    """Add the shoulder blades: thin plates behind the chest wall, with a spine of their own."""
    low, high = torso.height(15.2), torso.height(9.2)
    for sign in (-1, 1):
        z = (low + high) / 2
        at = torso.profile(np.float32(z))
        x = at["x"] + sign * (at["cavity_w"] * 0.86)
        y = at["cavity_y"] - at["cavity_d"] * 0.85
        half = np.array([46.0, 40.0, (high - low) / 2 + 6])
        block = canvas.block(np.array([x, y, z]) - half, np.array([x, y, z]) + half)
        if block is None:
            continue
        at = torso.profile(block.z)
        wall = superellipse(
            block.x - at["x"], block.y - at["cavity_y"], at["cavity_w"], at["cavity_d"]
        )
        across, _, up = block.around((x, y, z))
        across = sign * across
        edge = np.maximum(
            np.abs(across + 4) - 34 * torso.size * (0.35 + 0.65 * _share(up, low, high)),
            np.abs(up) - (high - low) / 2,
        )
        rim = np.clip((np.abs(edge) < 6) * 1.2, 0, 1.2)
        canvas.gather_bone(block, np.maximum(np.abs(wall - 15) - 1.8 - rim, edge))
        start = np.array([x - sign * 26, y - 14, z + 0.28 * (high - low)])
        _gather_rod(canvas, start, start + np.array([sign * 75, -6, 22]), 5.0, (1, 1, 1))


def _share(up: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(up / (high - low) + 0.5, 0, 1)


def gather_pelvis(canvas: Canvas, torso: Torso, rng: np.random.Generator) -> None:
    """Add both iliac wings, from the sacroiliac joint to the crest, and the femoral heads."""
    s1, s2, s = torso.by_name["S1"], torso.by_name["S2"], torso.size
    flare = rng.uniform(0.55, 0.95)
    joint = (s1.centre + s2.centre) / 2
    block = canvas.block(joint + [-175, -90, -150], joint + [175, 130, 110])
    if block is None:
        return
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
    wing = -union(-plate, -edge, 8 * s)
    canvas.gather_bone(block, wing)
    hip = ellipsoid(side - 88 * s, y - 62 * s, z + 92 * s, (25 * s,) * 3)
    cup = np.maximum(np.abs(hip - 7) - 4, -(z + 100 * s) - 14)
    canvas.gather_bone(block, np.minimum(hip, cup))


def gather_head(canvas: Canvas, torso: Torso) -> None:
    """Add the base of the skull and the jaw; both end above and before the atlas."""
    c1, s = torso.column[0], torso.size
    centre = c1.point(0, 22 * s, 82 * s)
    block = canvas.block(centre - 110 * s, centre + 110 * s)
    if block is None:
        return
    x, y, z = block.around(centre)
    skull = ellipsoid(x, y, z, (70 * s, 88 * s, 70 * s))
    canvas.paint(block, skull, 36.0, TISSUES["organ"])
    shell = np.abs(skull + 4) - 3.0 * s
    hole = np.hypot(x, y + 24 * s) - 17 * s  # where the cord leaves
    canvas.gather_bone(block, np.maximum(shell, -hole))
    jaw = np.abs(tube(x, y - 28 * s, np.float32(46 * s), np.float32(62 * s))) - 5.5 * s
    jaw = np.maximum(jaw, np.maximum(20 * s - y, np.abs(z + 78 * s) - 14 * s))
    canvas.gather_bone(block, jaw)


def paint_discs(canvas: Canvas, torso: Torso, disc_hu: float, rng: np.random.Generator) -> None:
    """Paint the discs, under the bones that are painted later."""
    for above, below in zip(torso.column[1:], torso.column[2:], strict=False):
        gas = rng.uniform() < 0.06
        if below.disc < 1:
            continue
        middle = below.point(0, 0, below.height / 2 + below.disc / 2)
        half = np.full(3, 0.62 * below.width)
        block = canvas.block(middle - half, middle + half)
        if block is None:
            continue
        x, y, z = below.local(block)
        z = z - np.float32((below.height + below.disc) / 2)
        outline = tube(x, y, np.float32(below.width / 2 + 0.5), np.float32(below.depth / 2 + 0.5))
        disc = np.maximum(outline, np.abs(z) - (below.disc / 2 + 0.16 * below.height))
        canvas.paint(block, disc, disc_hu + 18 * (outline > -5), TISSUES["disc"])
        if gas and above.region == "L":
            canvas.paint(block, np.maximum(outline + 9, np.abs(z) - 1.2), -250.0)


def paint_canal(canvas: Canvas, torso: Torso) -> None:
    """Paint the canal's fat, the sac of the dura and, down to L1, the cord."""
    column = sorted(torso.column, key=lambda v: v.centre[2])
    middles = np.array([v.canal_centre for v in column])
    size = np.array([(v.canal_width, v.canal_depth) for v in column])
    low, high = middles.min(axis=0), middles.max(axis=0)
    block = canvas.block(low - [20, 20, 0], high + [20, 20, 30])
    if block is None:
        return
    z = block.z
    x0, y0 = (np.interp(z, middles[:, 2], middles[:, i]).astype(np.float32) for i in (0, 1))
    half_x, half_y = (
        np.interp(z, middles[:, 2], size[:, i] / 2).astype(np.float32) for i in (0, 1)
    )
    x, y = block.x - x0, block.y - y0
    canvas.paint(block, tube(x, y, half_x + 1, half_y + 1), -35.0, TISSUES["canal"])
    sac = tube(x, y - 0.5, np.minimum(half_x, 11) * 0.9, half_y * 0.92)
    canvas.paint(block, sac, 22.0, TISSUES["canal"])
    cord = tube(x, y, np.float32(6.0), np.minimum(np.float32(4.6), half_y * 0.7))
    canvas.paint(block, np.maximum(cord, torso.height(20.5) - z), 42.0, TISSUES["canal"])


def paint_back(canvas: Canvas, torso: Torso, fields: dict[str, Field]) -> None:
    """Paint the long back muscles as groups parted by fat, and fat between the processes."""
    h, s = torso.habitus, torso.size
    rows = [(11, 34, 13, 16), (29, 38, 16, 15), (50, 32, 15, 13)]  # x, y behind, radii
    block = canvas.block(*torso.box_around(1.5, 26, (75 * s, 75 * s, 75 * s, 0)))
    if block is None:
        return
    at = torso.profile(block.z)
    grow = np.interp(at["level"], (3, 8, 12, 20, 24, 26), (0.9, 0.8, 0.75, 1.15, 1.3, 0.9)).astype(
        np.float32
    )
    rear = at["spine_y"] - at["body_d"] - 14 * s
    side = np.abs(block.x - at["spine_x"])
    texture, wavy = fields["strands"].on(block), fields["lumps"].on(block)
    septum = h.fat_hu + 60 - 45 * h.wasting + texture * 12
    skin = superellipse(block.x - at["x"], block.y - at["y"], at["half_width"], at["half_depth"])
    fascia = skin + (h.fat_mm + 3)
    lean = h.muscle_hu - 25 * h.wasting + texture * (4 + 14 * h.wasting)
    for x0, y0, rx, ry in rows:
        x = side - x0 * s * (0.6 + 0.4 * grow)
        y = block.y - rear + (y0 - 14) * s * grow
        group = np.maximum(tube(x, y, rx * s * grow, ry * s * grow) + wavy * 3, fascia)
        canvas.paint(block, group, lean, TISSUES["muscle"])
        sheath = np.abs(group) - (np.float32(0.55 + 0.9 * h.wasting) + wavy * 0.7)
        canvas.paint(block, sheath, septum, TISSUES["fat"])
