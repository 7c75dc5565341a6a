"""The phantom's voxel grid: implicit shapes in, Hounsfield units and labels out.

Every structure is a *signed distance* in mm, negative inside, which gives a voxel's label, its
partial volume and the cortical shell alike, so intensities and labels cannot disagree.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

FAR_MM = 1e3

SUPERELLIPSE = 2.25
"""Exponent of the rounded rectangles: 2 is an ellipse. This one needs only square roots."""

_NAMES = "fat,muscle,lung,organ,bowel,vessel,disc,canal,other bone,spine,table,gas".split(",")
TISSUES = {name: number for number, name in enumerate(_NAMES, 1)}
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


class VoxelGrid:
    """Arrays of intensity, label and, if wanted, tissue that shapes are filled into.

    Coordinates are the patient's, who lies rolled about z; `origin_mm` is the scanner's.
    """

    def __init__(self, shape, spacing_mm, origin_mm, roll_rad=0.0, keep_tissues=False) -> None:
        self.shape, self.spacing_mm, self.origin_mm = shape, spacing_mm, origin_mm
        self.edge_mm = float(np.sqrt(spacing_mm[0] * spacing_mm[1]))
        self.hu = np.full(shape, -1000.0, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.tissues = np.zeros(shape, np.uint8) if keep_tissues else None
        self._bones_mm = np.full(shape, FAR_MM, np.float32)
        self._labelled_mm = self._bones_mm.copy()
        x, y, z = (origin_mm[i] + spacing_mm[i] * np.arange(n) for i, n in enumerate(shape))
        cos, sin = np.cos(roll_rad), np.sin(roll_rad)
        self._turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        x, y = x[:, None, None], y[None, :, None]
        self.x = (cos * x + sin * y).astype(np.float32)
        self.y = (cos * y - sin * x).astype(np.float32)
        self.z = z.astype(np.float32)[None, None, :]

    def block(self, low: Iterable[float], high: Iterable[float]) -> Block:
        """Return the voxels of a box given by two corners (mm)."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        centre, half = self._turn @ ((low + high) / 2), np.abs(self._turn) @ ((high - low) / 2)
        first = np.floor((centre - half - self.origin_mm) / self.spacing_mm).astype(int)
        last = np.ceil((centre + half - self.origin_mm) / self.spacing_mm).astype(int) + 1
        corners = np.clip([first, last], 0, self.shape)
        i, j, k = (slice(*ends) for ends in corners.T.tolist())
        return Block((i, j, k), self.x[i, j], self.y[i, j], self.z[:, :, k])

    def around(self, centre: np.ndarray, half: np.ndarray | float) -> tuple:
        """Return the voxels of a box about a point (mm), and their coordinates relative to it."""
        block = self.block(centre - half, centre + half)
        return block, *block.around(centre)

    def fill(self, block: Block, distance: np.ndarray, hu, tissue: str = "") -> None:
        """Fill a shape with one intensity, or an array of them, mixed at its edge."""
        view = self.hu[block.index]
        share = self._coverage(np.broadcast_to(distance, view.shape))
        share *= hu - view
        view += share
        self._record(block, distance, tissue)

    def fill_vertebra(self, block: Block, distance, label: int, cortex_mm, cortical, inner) -> None:
        """Fill and label a vertebra; where bones touch, the deeper one wins."""
        self.hu[block.index] = self._bone(
            self.hu[block.index], distance, cortex_mm, cortical, inner
        )
        self._record(block, distance, "spine")
        labelled = self._labelled_mm[block.index]
        inside = (distance < 0) & (distance < labelled)
        self.labels[block.index][inside] = label
        labelled[inside] = distance[inside]

    def add_bone(self, block: Block, distance: np.ndarray) -> None:
        """Add a piece of unlabelled skeleton, to be filled together with the others."""
        view = self._bones_mm[block.index]
        np.minimum(view, distance, out=view)

    def fill_added_bones(self, cortex_mm, cortical, inner) -> None:
        """Fill all added bones at once, so that their pieces leave no walls inside each other."""
        near = self._bones_mm < self.edge_mm
        distance = self._bones_mm[near]
        self.hu[near] = self._bone(self.hu[near], distance, cortex_mm, cortical, inner)
        if self.tissues is not None:
            self.tissues[self._bones_mm < 0] = TISSUES["other bone"]

    def _bone(self, hu, distance, cortex_mm, cortical, inner) -> np.ndarray:
        """Return HU with trabecular bone under a cortical shell mixed in."""
        outer, core = self._coverage(distance), self._coverage(distance + cortex_mm)
        return hu * (1 - outer) + cortical * (outer - core) + inner * core

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

    It is random numbers on a coarse grid, `scale_mm` apart, joined by cubic B-splines.
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


def union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Join two shapes, the crease between them filled like a fillet weld."""
    near = np.maximum(np.float32(blend_mm) - np.abs(a - b), 0)
    return np.minimum(a, b) - near * near * np.float32(1 / (4 * blend_mm))


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
    t = np.clip((x * d[0] + y * d[1] + z * d[2]) / max(float(d @ d), 1e-6), 0, 1)
    squared = (x - t * d[0]) ** 2 + (y - t * d[1]) ** 2 + (z - t * d[2]) ** 2
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
