"""Lesson 8: how good is a binary prediction in the neck, the chest, the loin and the sacrum?

The networks tell spine from background, the truth also knows which vertebra is which. So what a
prediction found and missed has a region by itself. What it invented has none: **a false positive is
counted to the region of the nearest true voxel**, in mm between voxel centres, however far away
that is (of several equally near ones, to one of them). Every voxel that is counted then belongs to
exactly one region, and the counts of the regions add up to those of the whole volume. Ignored
voxels take part in nothing, and a region is only scored where some of its bone is to be found.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics.surfaces import MANY_POINTS, check_masks

RegionScores = dict[str, dict[str, float]]
"""By region name: "dice", "recall" and the counts "tp", "fp" and "fn"."""


class NearestRegion:
    """Say which region of the spine is nearest to a voxel; made once for a case.

    Args:
        regions: integer region ids [x, y, z], 0 is background.
        spacing_mm: distance between voxel centres along x, y, z, in mm.
    """

    def __init__(self, regions: np.ndarray, spacing_mm: Sequence[float]) -> None:
        self._spacing_mm = np.asarray(spacing_mm, float)
        # From outside, the nearest voxel of a solid lies on its surface: a few per cent of it.
        spine = regions > 0
        surface = np.argwhere(spine & ~ndimage.binary_erosion(spine))
        self._regions = regions[tuple(surface.T)]
        self._tree = KDTree(surface * self._spacing_mm) if len(surface) else None
        self._spine = spine
        self._everywhere = regions

    def of(self, voxels: np.ndarray) -> np.ndarray:
        """Return the region id of each voxel that lies outside the spine.

        Args:
            voxels: int [voxel, 3], indices x, y, z.

        Returns:
            Region ids [voxel]; 0 where there is no spine at all.
        """
        if self._tree is None or not len(voxels):
            return np.zeros(len(voxels), self._regions.dtype)
        if len(voxels) > MANY_POINTS:  # a network that has hardly been trained
            return self._map[tuple(voxels.T)]
        return self._regions[self._tree.query(voxels * self._spacing_mm)[1]]

    @functools.cached_property
    def _map(self) -> np.ndarray:
        """Return for every voxel the region that is nearest."""
        nearest = ndimage.distance_transform_edt(
            ~self._spine, self._spacing_mm, return_distances=False, return_indices=True
        )
        return self._everywhere[tuple(nearest)]


def score_regions(
    prediction: np.ndarray,
    regions: np.ndarray,
    spacing_mm: Sequence[float],
    ignore: np.ndarray | None = None,
    nearest: NearestRegion | None = None,
) -> RegionScores:
    """Score each region of the spine that a volume shows.

    Args:
        prediction: boolean mask [x, y, z].
        regions: true region ids of the same shape, as `annotations.schemes.to_regions` gives them.
        spacing_mm: distance between voxel centres along x, y, z, in mm.
        ignore: boolean mask, True where nothing is to be scored.
        nearest: of the truth without its ignored voxels, where it is there already.

    Returns:
        By name, the scores of each region of which something is to be found, from the head down.

    Raises:
        SpineError: if shapes differ or an array is not a mask.
    """
    recalls = metrics.by_region(prediction, regions, ignore, range(1, len(REGIONS) + 1))
    found, spine, _ = check_masks(prediction, regions > 0, ignore)
    regions = np.where(spine, regions, 0)
    nearest = nearest or NearestRegion(regions, spacing_mm)
    invented = np.argwhere(found & ~spine)
    size = len(REGIONS) + 1
    true = np.bincount(regions[spine], minlength=size)
    hits = np.bincount(regions[spine & found], minlength=size)
    false = np.bincount(nearest.of(invented), minlength=size)
    scored = {}
    for region, name in enumerate(REGIONS, start=1):
        if true[region]:
            tp, fp = int(hits[region]), int(false[region])
            counts = metrics.Confusion(tp, fp, int(true[region]) - tp, 0)
            scored[name] = {"dice": metrics.dice(counts), "recall": recalls[region]}
            scored[name] |= {"tp": tp, "fp": fp, "fn": counts.fn}
    return scored


def mean_regions(volumes: Iterable[Mapping]) -> RegionScores:
    """Average the regions over the volumes that show them.

    Args:
        volumes: each with its "regions" as `score_regions` gives them.

    Returns:
        By name, means "dice" and "recall", "pooled_dice" of the voxels of all volumes counted
        together, and "volumes": how many show the region. Regions that none shows are left out.
    """
    volumes = list(volumes)
    means = {}
    for name in REGIONS:
        rows = [volume["regions"][name] for volume in volumes if name in volume["regions"]]
        if not rows:
            continue
        tp, fp, fn = (sum(row[key] for row in rows) for key in ("tp", "fp", "fn"))
        means[name] = {key: float(np.mean([row[key] for row in rows])) for key in _AVERAGED}
        pooled = metrics.dice(metrics.Confusion(tp, fp, fn, 0))
        means[name] |= {"pooled_dice": pooled, "volumes": len(rows)}
    return means


_AVERAGED = ("dice", "recall")
