"""Organs, muscles, fat pads and vessels of the phantom's trunk."""

from __future__ import annotations

import numpy as np

from spine_lib.datasets.phantom.canvas import (
    Canvas,
    Field,
    capsule,
    ellipsoid,
    superellipse,
    tube,
)
from spine_lib.datasets.phantom.torso import TISSUES, Torso, diaphragm


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
    wall = superellipse(block.x - at["x"], block.y - at["cavity_y"], at["cavity_w"], at["cavity_d"])
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
    left, right = (20, 110) if sign > 0 else (110, 20)
    block = canvas.block(*torso.box_around(19.6, 29, (left, right, 40, 110)))
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
        wide = (across + 2 * rx + 12) * s
        margins = (wide, wide, (behind + 2 * ry + 12) * s, (2 * ry + 12 - behind) * s)
        block = canvas.block(*torso.box_around(top, bottom, margins))
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
