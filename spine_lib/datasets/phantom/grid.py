"""The phantom's voxel grid: implicit shapes in, Hounsfield units and labels out.

Every structure is a *signed distance*: an array of millimetres, negative inside. One number per
voxel then gives the label (centre inside or not), the partial volume (how much of the voxel lies
inside) and the thickness of a cortical shell, so intensities and labels cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

FAR_MM = 1e3

SUPERELLIPSE = 2.25
"""Exponent of the rounded rectangles: 2 is an ellipse. This one needs only square roots."""

TISSUES = {
    name: number
    for number, name in enumerate(
        "fat,muscle,lung,organ,bowel,vessel,disc,canal,other bone,spine,table,gas".split(","), 1
    )
}
"""Ids of the map that `make_phantom(..., tissues=True)` returns; 0 is air."""


@dataclass(frozen=True)
class Block:
    """A box of voxels, perhaps empty: its slices of the grid and its coordinates (mm)."""

    index: tuple[slice, slice, slice]
    x: np.ndarray  # [bx, by, 1]
    y: np.ndarray  # [bx, by, 1]
    z: np.ndarray  # [1, 1, bz]

    def around(self, point: Iterable[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the coordinates relative to a point, still broadcastable float32."""
        px, py, pz = (np.float32(p) for p in point)
        return self.x - px, self.y - py, self.z - pz


@dataclass
class VoxelGrid:
    """Arrays of intensity, label and tissue that shapes are filled into.

    Coordinates are the patient's, who lies rolled about the scanner's z axis.

    Args:
        shape: voxels along x, y, z.
        spacing_mm: voxel size along x, y, z.
        origin_mm: scanner position of the first voxel's centre.
        roll_rad: rotation of the patient about the scanner's z axis.
        keep_tissues: also record which tissue each voxel's centre lies in.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: np.ndarray
    roll_rad: float = 0.0
    keep_tissues: bool = False
    hu: np.ndarray = field(init=False, repr=False)
    labels: np.ndarray = field(init=False, repr=False)
    tissues: np.ndarray | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.hu = np.full(self.shape, -1000.0, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)
        self.tissues = np.zeros(self.shape, np.uint8) if self.keep_tissues else None
        self._bones_mm = np.full(self.shape, FAR_MM, np.float32)
        self._labelled_mm = np.full(self.shape, FAR_MM, np.float32)
        x, y, z = (
            self.origin_mm[i] + self.spacing_mm[i] * np.arange(n) for i, n in enumerate(self.shape)
        )
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        x, y = x[:, None, None], y[None, :, None]
        self.x = (cos * x + sin * y).astype(np.float32)
        self.y = (cos * y - sin * x).astype(np.float32)
        self.z = z.astype(np.float32)[None, None, :]
        self.edge_mm = float(np.sqrt(self.spacing_mm[0] * self.spacing_mm[1]))

    def block(self, low: Iterable[float], high: Iterable[float]) -> Block:
        """Return the voxels of a box given by two corners (mm)."""
        low, high = np.asarray(tuple(low), float), np.asarray(tuple(high), float)
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        centre, half = turn @ ((low + high) / 2), np.abs(turn) @ ((high - low) / 2)
        spacing = np.asarray(self.spacing_mm)
        first = np.floor((centre - half - self.origin_mm) / spacing).astype(int)
        last = np.ceil((centre + half - self.origin_mm) / spacing).astype(int) + 1
        first, last = (np.clip(n, 0, self.shape) for n in (first, last))
        i, j, k = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        return Block((i, j, k), self.x[i, j], self.y[i, j], self.z[:, :, k])

    def fill(self, block: Block, distance: np.ndarray, hu, tissue: str = "") -> None:
        """Fill a shape with one intensity, or an array of them, mixed at its edge."""
        view = self.hu[block.index]
        share = self._coverage(np.broadcast_to(distance, view.shape))
        share *= hu - view
        view += share
        self._record(block, distance, tissue)

    def fill_bone(self, block: Block, distance, cortex_mm, cortical_hu, inner_hu) -> None:
        """Fill a vertebra with trabecular bone under a cortical shell of the given thickness."""
        view = self.hu[block.index]
        outer, inner = self._coverage(distance), self._coverage(distance + cortex_mm)
        view *= 1.0 - outer
        outer -= inner
        outer *= cortical_hu
        view += outer
        inner *= inner_hu
        view += inner
        self._record(block, distance, "spine")

    def set_label(self, block: Block, distance: np.ndarray, label: int) -> None:
        """Label the voxels whose centres lie inside; where bones touch, the deeper one wins."""
        labelled = self._labelled_mm[block.index]
        inside = (distance < 0) & (distance < labelled)
        self.labels[block.index][inside] = label
        labelled[inside] = distance[inside]

    def add_bone(self, block: Block, distance: np.ndarray) -> None:
        """Add a piece of unlabelled skeleton, to be filled together with the others."""
        view = self._bones_mm[block.index]
        np.minimum(view, distance, out=view)

    def fill_added_bones(self, cortex_mm, cortical_hu, inner_hu) -> None:
        """Fill all added bones at once, so that their pieces leave no walls inside each other."""
        near = np.flatnonzero(self._bones_mm < self.edge_mm)
        distance, hu = self._bones_mm.reshape(-1)[near], self.hu.reshape(-1)
        outer, inner = self._coverage(distance), self._coverage(distance + cortex_mm)
        hu[near] = hu[near] * (1 - outer) + cortical_hu * (outer - inner) + inner_hu * inner
        if self.tissues is not None:
            self.tissues.reshape(-1)[near[distance < 0]] = TISSUES["other bone"]

    def _coverage(self, distance: np.ndarray) -> np.ndarray:
        """Return the fraction of each voxel that lies inside a shape (partial volume)."""
        share = distance * np.float32(-1.0 / self.edge_mm)
        share += np.float32(0.5)
        return np.clip(share, 0.0, 1.0, out=share)

    def _record(self, block: Block, distance: np.ndarray, tissue: str) -> None:
        if self.tissues is not None and tissue:
            view = self.tissues[block.index]
            view[np.broadcast_to(distance < 0, view.shape)] = TISSUES[tissue]


class RandomField:
    """A smooth random field (mean 0, standard deviation 1) that any block can be cut from.

    Random numbers on a coarse grid, joined by cubic B-splines: cheap at any size, and the same
    bump lies at the same place for every shape that asks.

    Args:
        grid: the voxels.
        rng: source of the coarse numbers.
        scale_mm: distance of the coarse numbers; features are about twice as large.
    """

    def __init__(self, grid: VoxelGrid, rng: np.random.Generator, scale_mm: float) -> None:
        self._weights = []
        for count, spacing in zip(grid.shape, grid.spacing_mm, strict=True):
            # The same extent has the same bumps, however finely it is sampled.
            step = max(scale_mm, spacing)
            cells = int(np.ceil(count * spacing / step - 1e-6))
            self._weights.append(_bspline_weights((np.arange(count) + 0.5) * spacing / step, cells))
        size = tuple(w.shape[1] for w in self._weights)
        # 0.48 is the root of the summed squares of the weights, averaged over a cell.
        self._coarse = rng.standard_normal(size, dtype=np.float32) / np.float32(0.48**1.5)

    def on(self, block: Block) -> np.ndarray:
        """Return the field on a block as float32 [bx, by, bz]."""
        rows, columns = [], []
        for weights, part in zip(self._weights, block.index, strict=True):
            used = np.flatnonzero(weights[part].any(axis=0))
            columns.append(slice(used[0], used[-1] + 1) if len(used) else slice(0))
            rows.append(weights[part, columns[-1]])
        values = np.tensordot(rows[0], self._coarse[tuple(columns)], axes=(1, 0))
        return np.matmul(np.matmul(rows[1], values), rows[2].T)


def _bspline_weights(position: np.ndarray, cells: int) -> np.ndarray:
    cell = np.floor(position).astype(int)
    t = position - cell
    taps = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    )
    weights = np.zeros((len(position), cells + 3), np.float32)
    np.put_along_axis(weights, cell[:, None] + np.arange(4), (taps / 6).astype(np.float32), axis=1)
    return weights


# --- signed distances -----------------------------------------------------------------------------


def union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Join two shapes, the crease between them filled like a fillet weld."""
    joined = np.minimum(a, b)
    near = np.abs(a - b)
    np.subtract(np.float32(blend_mm), near, out=near)
    np.maximum(near, 0, out=near)
    near *= near
    near *= np.float32(1 / (4 * blend_mm))
    joined -= near
    return joined


def ellipsoid(x, y, z, radii: tuple[float, float, float]) -> np.ndarray:
    """Return the (first order) signed distance to an ellipsoid about the origin."""
    a, b, c = radii
    stretched = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    return (stretched - 1) * np.float32(min(radii))


def capsule(x, y, z, start, end, radius, flatten=(1.0, 1.0, 1.0)) -> np.ndarray:
    """Return the signed distance to a thick line; `flatten` > 1 thins it along that axis."""
    scale = np.asarray(flatten, np.float32)
    a, b = np.asarray(start, np.float32) * scale, np.asarray(end, np.float32) * scale
    x, y, z = x * scale[0] - a[0], y * scale[1] - a[1], z * scale[2] - a[2]
    d = b - a
    t = (x * d[0] + y * d[1] + z * d[2]) / max(float(d @ d), 1e-6)
    np.clip(t, 0, 1, out=t)
    squared = (x - t * d[0]) ** 2
    squared = squared + (y - t * d[1]) ** 2
    squared += (z - t * d[2]) ** 2
    return (np.sqrt(squared) - radius) / scale.max()


def box(x, y, z, half: tuple[float, float, float], rounding: float) -> np.ndarray:
    """Return the signed distance to a box about the origin with rounded edges."""
    x, y, z = (np.abs(v) - (h - rounding) for v, h in zip((x, y, z), half, strict=True))
    outside = np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2
    inside = np.minimum(np.maximum(np.maximum(x, y), z), 0)
    return np.sqrt(outside) + inside - np.float32(rounding)


def tube(x, y, half_x, half_y) -> np.ndarray:
    """Return the signed distance, in the axial plane, to an ellipse whose size may vary with z."""
    stretched = np.sqrt((x / half_x) ** 2 + (y / half_y) ** 2)
    return (stretched - 1) * np.minimum(half_x, half_y)


def superellipse_ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far out in a rounded square of half-width 1 a point lies: 1 on its outline."""
    x, y = np.abs(x), np.abs(y)
    ratio = x * x * np.sqrt(np.sqrt(x)) + y * y * np.sqrt(np.sqrt(y))
    return ratio ** np.float32(1 / SUPERELLIPSE)


def superellipse(x, y, half_x, half_y) -> np.ndarray:
    """Return the signed distance, along the ray from the middle, to a rounded rectangle."""
    rho = np.maximum(superellipse_ratio(x / half_x, y / half_y), np.float32(1e-3))
    return (1 - 1 / rho) * np.sqrt(x * x + y * y)
