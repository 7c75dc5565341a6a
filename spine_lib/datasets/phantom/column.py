"""The phantom's column: how large each vertebra is and where it lies on the spine's curves.

Sizes are rounded and approximate, of the order of the means of cadaver series; for measured values
see Panjabi et al., *Cervical*, *Thoracic* and *Human lumbar vertebrae: quantitative
three-dimensional anatomy*, Spine 16:861-869 (1991), 16:888-901 (1991) and 17:299-306 (1992). Disc
heights, sagittal angles and the sacrum are typical adult values, chosen by eye against CT.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spine_lib.annotations.checks import CANONICAL
from spine_lib.datasets.phantom.canvas import Block

SACRUM = 26
_NAMES = {name: label for label, name in CANONICAL.items()}

# width, depth and height of the body, disc above, canal width and depth, pedicle width and height,
# span of the transverse processes, length of the spinous process (all mm), its slope and the
# lean of the body to the front (degrees)
_TABLE = """
C1  20.0 14.0 12.0  0.5 28.0 25.0  9.0  8.0 76  4  0   0
C2  17.0 15.0 20.0  2.0 24.0 19.0  8.0  9.0 52 20 20  -3
C3  17.0 15.5 12.0  4.5 23.0 15.0  5.5  7.0 50 15 22   0
C4  17.5 15.5 12.0  4.7 23.5 15.0  5.5  7.0 51 15 22   4
C5  18.5 16.0 11.5  5.0 24.0 15.0  5.5  7.0 52 17 24  10
C6  20.5 16.5 11.5  5.2 24.5 15.0  6.0  7.0 54 22 26  18
C7  23.0 17.5 13.0  5.2 24.0 15.0  6.5  7.5 66 33 25  24
T1  26.0 18.0 15.0  4.8 21.5 15.5  8.0  9.5 74 37 32  27
T2  26.0 19.0 16.5  4.0 19.0 15.5  7.5 11.0 69 38 42  25
T3  26.0 21.0 17.0  3.6 18.0 16.0  6.5 11.5 64 38 48  21
T4  26.0 22.5 17.5  3.6 17.5 16.0  6.0 11.5 62 38 52  16
T5  26.5 24.0 18.0  3.8 17.5 16.0  6.0 11.8 61 40 55  10
T6  27.5 25.5 18.7  4.0 17.5 16.0  6.0 12.0 60 40 56   4
T7  29.0 27.0 19.5  4.3 17.5 16.0  6.2 12.2 60 40 54  -1
T8  30.5 28.0 20.0  4.7 18.0 16.0  6.5 12.8 58 38 50  -6
T9  32.0 29.5 20.5  5.0 18.0 16.0  7.3 14.0 57 35 42 -10
T10 33.5 30.5 21.5  5.5 18.5 16.0  8.2 15.0 55 31 32 -13
T11 36.0 32.0 22.5  6.0 19.5 16.5  9.0 17.0 51 28 22 -14
T12 40.0 33.0 24.0  6.8 22.0 17.5  8.5 17.0 48 28 15 -13
L1  42.0 34.0 25.5  8.0 23.5 18.0  8.5 16.0 70 30  8 -10
L2  43.5 34.5 26.5  9.3 24.0 17.5  9.0 15.5 78 31  6  -5
L3  45.5 35.0 27.0 10.3 24.5 17.5 10.0 15.0 88 32  6   3
L4  48.0 35.5 27.0 11.0 25.5 18.0 13.0 15.5 84 29  8  14
L5  50.0 35.5 26.5 10.5 27.0 18.5 17.0 17.0 90 23 12  27
S1  50.0 33.0 29.0  9.0 30.0 15.0  0.0 12.0 112 10 25  40
S2  36.0 23.0 26.0  0.0 22.0 11.0  0.0 10.0 92  9 20  38
S3  28.0 18.0 22.0  0.0 18.0  8.0  0.0  9.0 74  8 15  26
S4  22.0 14.0 19.0  0.0 14.0  6.0  0.0  8.0 56  6 10   4
S5  17.0 10.0 16.0  0.0 11.0  4.0  0.0  7.0 38  3 10 -22
"""


@dataclass(frozen=True)
class Build:
    """One patient's spine in numbers; `phantom` draws them at random within these meanings.

    Attributes:
        size: scale of all lengths, 1 is a mean adult.
        lordosis, kyphosis: scale of the lean of the lumbar and cervical, and of the thoracic, part.
        scoliosis_deg: largest lateral lean.
        degenerative: 0 (young) to 1 (osteophytes, thin discs, dense facets).
        fracture: chance that a thoracolumbar body is a wedge.
        extra: "", "T13" or "L6".
    """

    size: float = 1.0
    lordosis: float = 1.0
    kyphosis: float = 1.0
    scoliosis_deg: float = 0.0
    degenerative: float = 0.2
    fracture: float = 0.0
    extra: str = ""


@dataclass(frozen=True, eq=False)
class Vertebra:
    """Size and place of one vertebra or sacral segment (mm; local axes right, front, up).

    Attributes:
        name: "C1" to "L6", "S1" to "S5".
        label: canonical id; all sacral segments have 26.
        centre: of the body, in the patient's frame.
        axes: 3x3, columns are the local axes.
        osteophyte_mm: how far the rims of the body bulge, per quarter-turn of its circumference.
        wedge_mm: loss of anterior height.
    """

    name: str
    label: int
    width: float
    depth: float
    height: float
    disc: float
    canal_width: float
    canal_depth: float
    pedicle_width: float
    pedicle_height: float
    span: float
    spinous: float
    slope_rad: float
    lean_rad: float
    centre: np.ndarray
    axes: np.ndarray
    osteophyte_mm: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    wedge_mm: float = 0.0

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
    def canal_centre(self) -> np.ndarray:
        """Middle of the canal behind the body, in the patient's frame."""
        return self.centre - self.axes[:, 1] * (self.depth + self.canal_depth) / 2

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        """Carry a local position to the patient's frame."""
        return self.centre + self.axes @ np.array([x, y, z])

    def local(self, block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a block's coordinates along the local axes, float32 [bx, by, bz] each."""
        x, y, z = block.around(self.centre)
        turn = self.axes.astype(np.float32)
        return tuple((x * turn[0, i] + y * turn[1, i]) + z * turn[2, i] for i in range(3))


def rotation(lean: float, side: float, twist: float) -> np.ndarray:
    """Turn by a lean to the front, a lean to the left and a twist (radians); 3x3."""
    c, s = np.cos([lean, side, twist]), np.sin([lean, side, twist])
    about_x = np.array([[1, 0, 0], [0, c[0], s[0]], [0, -s[0], c[0]]])
    about_y = np.array([[c[1], 0, -s[1]], [0, 1, 0], [s[1], 0, c[1]]])
    about_z = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def build_column(build: Build, rng: np.random.Generator) -> list[Vertebra]:
    """Stack the vertebrae from the sacrum up along the patient's curves.

    Args:
        build: the patient.
        rng: draws the small differences from level to level.

    Returns:
        C1 to S5 from head to foot. The front of the endplate of S1 lies near the origin.
    """
    rows = _rows(build)
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.6)
    lean_all, side_all = np.radians(rng.normal(0, [2.5, 1.5]))
    column, top = [], np.zeros(3)
    for i, (name, numbers) in enumerate(reversed(rows)):
        vertebra = _vertebra(name, numbers, build, rng)
        # The column bends in the coronal plane and twists with it; the pelvis stays.
        turn = phase + 2 * np.pi * waves * i / len(rows)
        side = np.radians(build.scoliosis_deg) * np.cos(turn) + side_all
        twist = 0.6 * np.radians(build.scoliosis_deg) * np.sin(turn)
        jitter = rng.normal(0, 0.6, 2) * (vertebra.region != "S")
        lean = vertebra.lean_rad + lean_all + np.radians(jitter[0])
        axes = rotation(lean, (side + np.radians(jitter[1])) * (vertebra.region != "S"), twist)
        centre = top + axes[:, 2] * vertebra.height / 2
        column.append(replace(vertebra, centre=centre, axes=axes, lean_rad=lean))
        top = centre + axes[:, 2] * (vertebra.height / 2 + vertebra.disc)
    sacrum_top = next(v for v in column if v.name == "S1").centre
    return [replace(v, centre=v.centre - sacrum_top) for v in reversed(column)]


def _rows(build: Build) -> list[tuple[str, np.ndarray]]:
    rows = []
    for line in _TABLE.strip().splitlines():
        name, *numbers = line.split()
        rows.append((name, np.array(numbers, float)))
        if (name, build.extra) in (("T12", "T13"), ("L5", "L6")):
            rows.append((build.extra, rows[-1][1].copy()))
    return rows


def _vertebra(name: str, numbers: np.ndarray, build: Build, rng: np.random.Generator) -> Vertebra:
    size, lean = numbers[:10] * build.size, numbers[11]
    size = size * rng.normal(1, 0.025, 10).clip(0.93, 1.07)
    curve = build.kyphosis if name[0] == "T" else build.lordosis
    worn = build.degenerative * rng.uniform(0, 1, 4) * (name[0] != "S")
    size[3] *= 1 - 0.45 * build.degenerative * rng.uniform(0, 1) * (name not in ("C1", "C2"))
    breakable = name[0] in "TL" and rng.uniform() < build.fracture
    return Vertebra(
        name,
        _NAMES.get(name, SACRUM),
        *size.tolist(),
        slope_rad=float(np.radians(numbers[10] + rng.normal(0, 3))),
        lean_rad=float(np.radians(lean * curve)),
        centre=np.zeros(3),
        axes=np.eye(3),
        osteophyte_mm=tuple((6.0 * worn**2 * build.size * (name not in ("C1", "C2"))).tolist()),
        wedge_mm=float(size[2]) * rng.uniform(0.15, 0.45) * breakable,
    )
