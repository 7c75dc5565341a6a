"""The phantom's trunk: its outline, wall, cavity and lungs, and where everything in it lies.

Lengths that change from head to foot are given at a few vertebral levels (C1 = 1, T1 = 8, L1 = 20,
S1 = 25, S5 = 29) and interpolated, so the trunk follows whatever curve the spine has. The values
are typical of adults lying on their backs, chosen by eye against CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spine_lib.datasets.phantom.canvas import (
    Block,
    Canvas,
    Field,
    ellipsoid,
    superellipse,
    tube,
    union,
)
from spine_lib.datasets.phantom.column import Vertebra

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
_BACK = (62, 58, 68, 70, 66, 62, 64, 74, 82, 86, 82, 66, 50)
_DEPTH = (165, 112, 124, 148, 176, 202, 214, 208, 203, 202, 200, 196, 190)
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
    """

    def __init__(self, column: list[Vertebra], habitus: Habitus) -> None:
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

    def box_around(self, top: float, bottom: float, margins: tuple[float, float, float, float]):
        """Return two corners (mm) of a box along the spine between two levels.

        Args:
            top, bottom: levels.
            margins: how far it reaches to the left, right, back and front of the bodies' middles.
        """
        z = np.linspace(self.height(bottom), self.height(top), 12)
        at = self.profile(z)
        left, right, back, front = margins
        low = at["spine_x"].min() - left, at["spine_y"].min() - back, z[0]
        return low, (at["spine_x"].max() + right, at["spine_y"].max() + front, z[-1])


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
    skin = superellipse(x, y, at["half_width"], at["half_depth"]) + furrow
    skin += noise["shape"] * np.float32(2.0)
    canvas.paint(block, skin, 10.0, TISSUES["muscle"])
    texture = noise["strands"] * 9 + noise["lumps"] * 5
    canvas.paint(block, skin + 2.0, h.fat_hu + texture, TISSUES["fat"])
    sides = np.float32(0.25) * (x / at["half_width"]) ** 2
    thick = np.float32(h.fat_mm) * (1 - sides + np.float32(0.12) * noise["shape"])
    muscle = skin + np.maximum(thick, 3.0)
    # Fat runs between muscles in sheets: where two fields change sign is a surface.
    sheets = np.clip(1 - np.abs(noise["lumps"]) * 6, 0, 1) * np.clip(noise["branches"], 0, 1)
    lean = h.muscle_hu + noise["strands"] * (4 + 8 * h.wasting) - sheets * (40 + 90 * h.wasting)
    canvas.paint(block, muscle, lean, TISSUES["muscle"])


def _paint_cavity(canvas, block, torso: Torso, at, noise) -> None:
    h = torso.habitus
    x, y = block.x - at["x"], block.y - at["cavity_y"]
    cavity = superellipse(x, y, at["cavity_w"], at["cavity_d"])
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
    air = h.lung_hu - (y + 40) * 0.6 + noise["branches"] * 14 + branch * (840 + h.vein_hu * 0.6)
    canvas.paint(block, lung, air, TISSUES["lung"])


def diaphragm(torso: Torso, at, block: Block) -> np.ndarray:
    """Return the height of the diaphragm's two domes above each point (mm)."""
    low, top = torso.height(20.6), torso.height(16.3)
    x, y = block.x - at["x"], block.y - at["cavity_y"]
    half = np.float32(66 * torso.size)
    across = np.abs(np.abs(x) - half) / (half * np.float32(1.02))
    dome = 1 - across * across * across - ((y - 14) / (at["cavity_d"] * 0.98)) ** 2
    root = np.sqrt(np.sqrt(np.maximum(dome, 0)))
    high = np.where(x > 0, np.float32(1.1 * (top - low)), np.float32(0.9 * (top - low)))
    return low + root * np.sqrt(root) * high


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
