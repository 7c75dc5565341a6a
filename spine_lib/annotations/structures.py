"""Lesson 2: the size, height and brightness of each id of a label map.

From these measures alone, `misfit` decides whether a map can be meant in a scheme, and
`better_scheme` which other one it is meant in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spine_lib.annotations import schemes
from spine_lib.annotations.schemes import HEAD_TO_FOOT, SACRUM, SCHEMES, LabelScheme
from spine_lib.ct.files import listed
from spine_lib.ct.volume import Volume

TINY_FRACTION = 0.05
"""A label smaller than this part of the median label is reported, and not checked for order."""

BONE_HU, LUNG_HU = 80.0, -300.0
"""Whole vertebrae, marrow and shell together, average more than the first even in weak bone; lungs
average less than the second, most other structures more."""

SPREAD_MM, ENOUGH_ML = 25.0, 5.0
"""Standard deviation of height within one vertebra, of which real ones have at most about 12 mm; a
mask of less bone than the second is not judged by its brightness."""

ADULT_MM = {**dict.fromkeys(range(1, 8), 15), **{i: i + 8 for i in range(8, 20)}}
ADULT_MM |= dict.fromkeys(range(20, 26), 32)
"""Distance of the middles of a vertebra and the one below, by canonical id, to a few mm."""


@dataclass(frozen=True)
class Structure:
    """One id of a label map: size, height in the body (mean and deviation), mean HU or NaN."""

    label: int
    voxels: int
    volume_ml: float
    height_mm: float
    spread_mm: float
    mean_hu: float


def measure(mask: Volume, image: np.ndarray | None) -> list[Structure]:
    """Return every id of a label map with its measures; `image` is HU on the same grid, or None."""
    array = mask.array
    schemes.require_labels(array)
    size = int(array.max()) + 1
    count, height, square, hu = np.zeros((4, size))
    # slice by slice, so that memory stays small
    for index, z_mm in enumerate(np.arange(array.shape[2]) * mask.spacing_mm[2]):
        marked = array[:, :, index] > 0
        labels = array[:, :, index][marked]
        voxels = np.bincount(labels, minlength=size)
        count += voxels
        height += voxels * z_mm
        square += voxels * z_mm**2
        if image is not None:
            brightness = np.clip(image[:, :, index][marked], -1000, 2000)
            hu += np.bincount(labels, weights=brightness, minlength=size)
    labels = np.flatnonzero(count)
    count, height, square, hu = (row[labels] for row in (count, height, square, hu))
    hu = hu / count if image is not None else np.full(len(labels), np.nan)
    height = height / count
    spread = np.sqrt(np.maximum(square / count - height**2, 0))
    volume = count * float(np.prod(mask.spacing_mm)) / 1000
    columns = (labels, count.astype(int), volume, height, spread, hu)
    return [Structure(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def misfit(structures: Sequence[Structure], scheme: LabelScheme, plain: bool = False) -> str | None:
    """Return why a map cannot be meant in a scheme; `plain`: by what no patient explains."""
    if unknown := [s.label for s in structures if s.label not in scheme.names]:
        return f"ids {listed(unknown)} mean nothing"
    spine = [s for s in structures if s.label in scheme.canonical]
    if not spine:
        return None if plain else "nothing in it is spine"
    vertebrae = [s for s in spine if scheme.canonical[s.label] != SACRUM]
    long = [s for s in vertebrae if s.spread_mm > SPREAD_MM]
    if sum(s.volume_ml for s in long) > sum(s.volume_ml for s in spine) / 2:
        names = listed(scheme.names[s.label] for s in long)
        return f"{names} is spread along the body as no vertebra is (a binary mask or regions?)"
    right, pairs = order(sizeable(spine), scheme)
    if pairs > plain and right / pairs < (0.5 if plain else 0.8):
        return f"only {right} of {pairs} neighbouring vertebrae lie in the right order"
    bones = vertebrae if plain else spine  # an old sacrum is mostly fat
    volume_ml = sum(s.volume_ml for s in bones)
    hu = sum(s.mean_hu * s.volume_ml for s in bones) / (volume_ml or 1)
    if volume_ml > ENOUGH_ML and hu < BONE_HU:
        return f"its vertebrae average {hu:.0f} HU, which is no bone"
    lobes = [s for s in structures if scheme.names[s.label].startswith("lung_")]
    dense = [s for s in lobes if s.volume_ml > ENOUGH_ML and s.mean_hu > LUNG_HU]
    if dense and not plain:
        name, hu = scheme.names[dense[0].label], dense[0].mean_hu
        return f"its {name} averages {hu:.0f} HU, which is no air"
    gaps = missing_between(spine, scheme)
    if len(gaps) > len(spine) and not plain:
        return f"{len(gaps)} vertebrae are missing between the {len(spine)} that it has"
    return None


def better_scheme(
    structures: Sequence[Structure], scheme: LabelScheme
) -> tuple[LabelScheme, str] | None:
    """Return the scheme in which a map is meant, and why not in the given one; None if it may be.

    Another is better where the given one does not fit, takes for organs what are bones in a row
    with its vertebrae, or makes a giant of a human.
    """
    fitting = [s for s in SCHEMES.values() if misfit(structures, s) is None]
    if not fitting:
        return None
    best = max(fitting, key=lambda s: sum(t.voxels for t in structures if t.label in s.canonical))
    best = SCHEMES["verse"] if best.name == "canonical" else best
    reason = misfit(structures, scheme)
    spine = [s for s in sizeable(structures) if s.label in best.canonical]
    lost = [s for s in spine if s.label not in scheme.canonical]
    right, pairs = order(spine, best)
    if reason is None and lost and right == pairs and all(s.mean_hu > BONE_HU for s in lost):
        names = listed(scheme.names[s.label] for s in lost)
        reason = f"{names} are bones in a row with its vertebrae"
    size = relative_size(structures, scheme)
    human = [s for s in fitting if 0.5 < relative_size(structures, s) < 1.25]
    if reason is None and size > 1.4 and human:
        best, reason = human[0], f"its vertebrae lie {size:.1f} times as far apart as an adult's"
    return reason and (best, reason)


def sizeable(spine: Sequence[Structure]) -> list[Structure]:
    """Return the vertebrae without slivers, whose height says nothing about their order."""
    limit = TINY_FRACTION * float(np.median([s.voxels for s in spine]))
    return [s for s in spine if s.voxels >= limit]


def from_head(spine: Sequence[Structure], scheme: LabelScheme) -> list[Structure]:
    """Return vertebrae in the order of their names, from the head down."""
    # Within the sacrum, S1 (a higher id than the rest where both exist) comes first.
    return sorted(spine, key=lambda s: (HEAD_TO_FOOT.index(scheme.canonical[s.label]), -s.label))


def order(spine: Sequence[Structure], scheme: LabelScheme) -> tuple[int, int]:
    """Return how many neighbouring vertebrae descend from head to foot, and of how many."""
    steps_mm = np.diff([s.height_mm for s in from_head(spine, scheme)])
    return int((steps_mm < 0).sum()), len(steps_mm)


def missing_between(spine: Sequence[Structure], scheme: LabelScheme) -> list[int]:
    """Return the canonical ids missing between those of a map; T13 and L6 are the exception."""
    present = {scheme.canonical[s.label] for s in spine}
    ranks = [HEAD_TO_FOOT.index(vertebra) for vertebra in present]
    between = HEAD_TO_FOOT[min(ranks) : max(ranks)]
    return [v for v in between if v not in present and v not in (schemes.T13, schemes.L6)]


def relative_size(structures: Sequence[Structure], scheme: LabelScheme) -> float:
    """Return how far apart neighbouring vertebrae lie, over an adult's; NaN of fewer than three."""
    spine = [s for s in structures if s.label in scheme.canonical]
    ordered = from_head(sizeable(spine), scheme) if spine else []
    ratios = []
    for upper, lower in pairwise(ordered):
        above, below = (scheme.canonical[s.label] for s in (upper, lower))
        if below == above + 1 and below < SACRUM:
            ratios.append((upper.height_mm - lower.height_mm) / ADULT_MM[above])
    return float(np.median(ratios)) if len(ratios) > 2 else math.nan
