"""The shape of one vertebra: body, arch, joints and processes as one signed distance.

Each part is written in the vertebra's own axes (right, front, up; mm) and scales with its sizes.
Parts are joined with fillets, the canal is cut out last.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spine_lib.datasets.phantom.canvas import Block, box, capsule, superellipse_ratio, union
from spine_lib.datasets.phantom.column import Vertebra


def vertebra_distance(v: Vertebra, block: Block, bumps: np.ndarray) -> np.ndarray:
    """Return the signed distance to a vertebra.

    Args:
        v: the vertebra or sacral segment.
        block: where.
        bumps: smooth irregularity of the surface in mm, [bx, by, bz].

    Returns:
        float32 [bx, by, bz] in mm, negative inside the bone.
    """
    x, y, z = v.local(block)
    # Left and right differ a little, or the network could learn the mirror.
    side = np.abs(x + np.float32(0.02) * z)
    if v.name == "C1":
        distance = _atlas(v, side, y, z)
    elif v.region == "S":
        distance = _sacral_segment(v, side, y, z)
    else:
        distance = union(_body(v, x, y, z), _arch(v, side, y, z), 3.0 * v.width / 40 + 0.5)
    if v.name == "C2":
        dens = ((0, 1.5, 0), (0, 0.5, v.height / 2 + 19 * v.width / 17), 4.8 * v.width / 17)
        distance = union(distance, capsule(side, y, z, *dens), 2.0)
    distance += bumps
    return np.maximum(distance, -_canal(v, side, y))


def _radius(v: Vertebra, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far out in the body's outline a point lies: 1 on the outline."""
    along = y * np.float32(2 / v.depth)
    # Thoracic bodies are heart-shaped: they narrow to the front.
    taper = {"C": 0.04, "T": 0.14, "L": 0.03, "S": -0.03}[v.region]
    across = x * (np.float32(2 / v.width) * (1 + np.float32(taper) * along))
    return superellipse_ratio(across, along)


def _body(v: Vertebra, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    rho = np.maximum(_radius(v, x, y), np.float32(1e-3))
    reach = np.sqrt(x * x + y * y) / rho  # from the centre to the outline along this ray
    height = z * np.float32(2 / v.height)
    flare = height * height
    rim = np.float32(0.075) * (flare - 1) * reach
    right, front, left, back = v.osteophyte_mm
    if max(v.osteophyte_mm) > 0.2:
        share = np.clip(flare, 0, 1) ** 3 / np.maximum(reach, 1e-3)
        grow = np.where(x > 0, right, left) * np.abs(x) + np.where(
            y > 0, front, 0.3 * back
        ) * np.abs(y)
        rim += share * grow / np.maximum(rho, 1e-3)
    wall = (rho - 1) * reach - rim
    # Endplates are hollow in the middle; a wedge lowers the front of the upper one.
    hollow = np.float32(0.04 * v.height) * np.clip(1 - rho * rho, 0, 1)
    lowered = np.float32(v.wedge_mm) * np.clip(y / v.depth + 0.5, 0, 1) * (z > 0)
    plate = np.abs(z) - np.float32(v.height / 2) + hollow + lowered
    return -union(-wall, -plate, 0.1 * v.height)


def _canal(v: Vertebra, side: np.ndarray, y: np.ndarray) -> np.ndarray:
    middle = np.float32(-(v.depth + v.canal_depth) / 2)
    half_x, half_y = np.float32(v.canal_width / 2), np.float32(v.canal_depth / 2)
    if v.name == "C1":
        return (np.sqrt((side / half_x) ** 2 + ((y + half_y * 0.9) / half_y) ** 2) - 1) * half_y
    behind = np.clip((middle - y) / half_y, 0, 1)
    narrow = half_x * (1 - np.float32(0.25) * behind)
    return (np.sqrt((side / narrow) ** 2 + ((y - middle) / half_y) ** 2) - 1) * half_y


def _arch(v: Vertebra, side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Join pedicles, joint processes, laminae, transverse and spinous processes."""
    s = v.height / {"C": 12.0, "T": 19.0, "L": 27.0}[v.region]  # scale of the small parts
    if v.name in ("T11", "T12", "T13"):
        s *= 0.82
    rear = -(v.depth / 2 + v.canal_depth)
    pillar_x, pillar_y = v.canal_width / 2 + 0.55 * v.pedicle_width, rear + 0.3 * v.canal_depth
    high = v.height / 2 - 0.55 * v.pedicle_height
    pedicle = box(
        side - (v.canal_width + v.pedicle_width) / 2,
        y - (pillar_y - v.depth / 2 + 5) / 2,
        z - high,
        (v.pedicle_width / 2, (5 - v.depth / 2 - pillar_y) / 2 + 1, v.pedicle_height / 2),
        0.45 * v.pedicle_width,
    )
    arch = union(pedicle, _joints(v, side, y, z, (pillar_x, pillar_y, rear, s)), 2.0)
    roof = _segment(side, y, (pillar_x, pillar_y), (0.0, rear - 2.5 * s)) - np.float32(3.3 * s**0.5)
    low, up = (0.62, 0.3) if v.region != "C" else (0.5, 0.4)
    sheet = np.abs(z + (low - up) / 2 * v.height) - np.float32((low + up) / 2 * v.height)
    arch = union(arch, np.maximum(roof, sheet + 1.5), 1.5)
    arch = union(arch, _transverse(v, side, y, z, (pillar_x, pillar_y, high, s)), 3.0 * s)
    return union(arch, _spinous(v, side, y, z, rear, s), 3.0 * s)


def _segment(x: np.ndarray, y: np.ndarray, start, end) -> np.ndarray:
    dx, dy = end[0] - start[0], end[1] - start[1]
    x, y = x - np.float32(start[0]), y - np.float32(start[1])
    t = np.clip((x * dx + y * dy) / np.float32(dx * dx + dy * dy), 0, 1)
    return np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2)


def _joints(v: Vertebra, side, y, z, place) -> np.ndarray:
    """Superior and inferior articular processes; they face backwards, or inwards when lumbar."""
    pillar_x, pillar_y, rear, s = place
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
        y_up, y_down = rear + 1.5 * s, rear - 4.6 * s
        radius, up, down = 4.6 * s, top + 3 * s, bottom - 8 * s
    else:
        flat, x_up, x_down = (1.5, 0.8, 0.8), v.canal_width / 2 + 10.5 * s, v.canal_width / 2 + 0.5
        y_up, y_down = pillar_y - 1.5 * s, pillar_y - 5.5 * s
        radius, up, down = 5.6 * s, top + 4.5 * s, bottom - 9 * s
    middle = (pillar_x, pillar_y, 0.0)
    upper = capsule(side, y, z, middle, (x_up, y_up, up), radius, flat)
    lower = capsule(
        side, y, z, (pillar_x - 1, pillar_y - 2 * s, -2), (x_down, y_down, down), radius, flat
    )
    return union(upper, lower, 2.0)


def _transverse(v: Vertebra, side, y, z, place) -> np.ndarray:
    pillar_x, pillar_y, high, s = place
    tip = v.span / 2
    if v.region == "C":
        start, end = (v.width / 2, -2.0, 0.0), (tip, -7.0 * s, -2.0)
        bar = union(
            capsule(side, y, z, start, end, 2.6 * s),
            capsule(side, y, z, (pillar_x, pillar_y + 2, 0.0), end, 2.8 * s),
            2.0,
        )
        hole = np.hypot(side - (v.canal_width / 2 + 5.5 * s), y + 6 * s) - np.float32(2.9 * s)
        return np.maximum(bar, -hole)
    if v.region == "T":
        end = (tip - 5 * s, pillar_y - 13 * s, high + 1)
        return union(
            capsule(side, y, z, (pillar_x, pillar_y - 1, high - 2), end, 4.6 * s, (1, 1, 0.9)),
            np.sqrt((side - end[0]) ** 2 + (y - end[1]) ** 2 + (z - end[2]) ** 2) - 5.4 * s,
            2.0,
        )
    thick = 4.6 * s if v.name != "L5" else 6.0 * s
    start, end = (pillar_x, pillar_y + 3, high - 2), (tip - 3, pillar_y - 3 * s, high + 1)
    return capsule(side, y, z, start, end, thick, (1.0, 1.6, 1.0))


def _spinous(v: Vertebra, side, y, z, rear: float, s: float) -> np.ndarray:
    """Return a plate that leaves the roof of the canal backwards and down, with a thick tip."""
    cos, sin = np.float32(np.cos(v.slope_rad)), np.float32(np.sin(v.slope_rad))
    base = {"C": 0.5, "T": 2.5, "L": 5.0}[v.region] * s
    back, up = -(y - np.float32(rear + 1)), z + np.float32(base)
    along, across = back * cos - up * sin, back * sin + up * cos
    share = np.clip(along / np.float32(v.spinous), 0, 1)
    tall = {"C": 4.0, "T": 6.0 - 1.5 * share, "L": 9.0 + 2.0 * share}[v.region] * np.float32(s)
    thick = np.float32({"C": 2.2, "T": 2.4, "L": 2.9}[v.region] * s) * (
        1 + np.float32(0.5) * share**3
    )
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
    body = _body(replace(v, height=v.height + 1.5), side, y, z)
    wing = v.span / 2
    thick = 13.5 * s**0.7
    drop = 3.0 if v.name == "S1" else 0.0
    inner, outer = (0.3 * v.width, -3 * s, -drop), (wing - thick, -0.32 * v.depth - 8 * s, -drop)
    ala = capsule(side, y, z, inner, outer, thick, (1.0, 1.05, thick / (0.36 * v.height)))
    # Lateral to the holes the wings of all segments are fused.
    band = np.maximum(
        np.hypot((side - outer[0]) * 0.9, y - outer[1]) - 0.85 * thick, np.abs(z) - v.height / 2
    )
    rear = -(v.depth / 2 + v.canal_depth)
    roof = _segment(side, y, (outer[0], outer[1] - 0.4 * thick), (0.0, rear - 2)) - np.float32(3.2)
    roof = np.maximum(roof, np.abs(z) - (v.height / 2 - 2.0 * s))
    crest = box(side, y - (rear - v.spinous / 2), z, (2.5, v.spinous / 2 + 2, 0.32 * v.height), 2.0)
    whole = union(union(body, ala, 4.0 * s), band, 3.0)
    return union(whole, union(roof, crest, 3.0), 3.0)
