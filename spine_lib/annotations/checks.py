"""Lesson 2: read a label map under the right scheme, and find what is wrong with it.

A map read under the wrong scheme looks plausible and is wrong; a map on another grid, with its
numbers out of order or with crumbs far from the bone is wrong too, and no score will say so.
`check_annotation` looks for the mistakes that such maps really have and says them in sentences.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations.alignment import find_peak
from spine_lib.annotations.schemes import (
    CANONICAL,
    HEAD_TO_FOOT,
    REGIONS,
    SCHEMES,
    LabelScheme,
    get_scheme,
    to_canonical,
    to_regions,
)
from spine_lib.annotations.structures import (
    Structure,
    from_head,
    listed,
    measure,
    misfit,
    missing_between,
    order,
    sizeable,
)
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume

__all__ = [
    "CANONICAL",
    "HEAD_TO_FOOT",
    "REGIONS",
    "SCHEMES",
    "Finding",
    "LabelScheme",
    "check_annotation",
    "get_scheme",
    "to_canonical",
    "to_regions",
]

Severity = Literal["error", "warning", "note"]

STRAY_FRACTION, STRAY_MM = 0.01, 20.0
"""Pieces that hold more of a label than this, or lie farther off, are a warning and not a note."""

PLACE_GAIN_HU = 10.0
"""A mask is called shifted or mirrored if moving it raises the mean HU under it by more."""


@dataclass(frozen=True)
class Finding:
    """Say one thing about an annotation.

    Attributes:
        code: short name of the check, for instance "order"; the same mistake has the same code.
        severity: "error" (do not use the map like this), "warning" (look), "note" (know it).
        message: one sentence for a person.
        labels: ids in the map's own scheme that the finding is about.
    """

    code: str
    severity: Severity
    message: str
    labels: tuple[int, ...] = ()


def check_annotation(ct: Volume, mask: Volume, scheme: str = "canonical") -> list[Finding]:
    """Look for the mistakes that label maps of the spine have.

    Args:
        ct: scan in HU, [x, y, z].
        mask: label map of the same patient with the ids of `scheme`, other organs included.
        scheme: key of `SCHEMES` under which the map is to be read.

    Returns:
        Findings, worst first; an empty list means that nothing was found, not that the
        annotation is good.  Codes: "geometry", "empty", "unknown-ids", "scheme", "order", "gap",
        "tiny", "stray", "shifted", "mirrored".

    Raises:
        SpineError: if the scheme does not exist or the map does not hold whole numbers.
    """
    chosen = get_scheme(scheme)
    findings = _check_geometry(ct, mask)
    image = None if findings else ct.array
    structures = measure(mask, image)
    findings += _check_ids(structures, chosen)
    wrong_scheme = _check_scheme(structures, chosen)
    findings += wrong_scheme
    spine = [s for s in structures if s.label in chosen.canonical]
    if not spine:
        findings.append(_empty(structures, chosen))
    elif not wrong_scheme:  # what else it would say follows from the wrong names
        findings += _check_spine(spine, mask, chosen)
        findings += _check_place(ct, mask, chosen) if image is not None else []
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: rank[finding.severity])


def _check_spine(
    spine: Sequence[Structure], mask: Volume, scheme: LabelScheme
) -> Iterable[Finding]:
    yield from _check_order(sizeable(spine), scheme)
    yield from _check_gaps(spine, scheme)
    yield from _check_sizes(spine, mask, scheme)
    yield from _check_pieces(spine, mask, scheme)


def _check_geometry(ct: Volume, mask: Volume) -> list[Finding]:
    try:
        require_same_grid(ct, mask)
    except SpineError as error:
        return [Finding("geometry", "error", str(error))]
    return []


def _check_ids(structures: Sequence[Structure], scheme: LabelScheme) -> list[Finding]:
    unknown = [s.label for s in structures if not scheme.knows(s.label)]
    if not unknown:
        return []
    shown = listed(unknown)
    message = f"The ids {shown} mean nothing in the scheme {scheme.name!r}."
    return [Finding("unknown-ids", "error", message, tuple(unknown))]


def _check_scheme(structures: Sequence[Structure], scheme: LabelScheme) -> list[Finding]:
    """Report another scheme when the chosen one does not fit and that one does."""
    why_not = misfit(structures, scheme)
    if not structures or why_not is None:
        return []
    others = [s for s in SCHEMES.values() if misfit(structures, s) is None]
    if not others:
        return []
    best = max(others, key=lambda s: sum(t.voxels for t in structures if t.label in s.canonical))
    if best.name == "canonical":
        best = SCHEMES["verse"]
    vertebrae = sorted({best.canonical[s.label] for s in structures if s.label in best.canonical})
    names = ", ".join(CANONICAL[i] for i in HEAD_TO_FOOT if i in vertebrae)
    message = (
        f"The scheme looks wrong: read as {scheme.name!r}, {why_not}; "
        f"read as {best.name!r} it is {names}."
    )
    return [Finding("scheme", "error", message, tuple(s.label for s in structures))]


def _empty(structures: Sequence[Structure], scheme: LabelScheme) -> Finding:
    if not structures:
        return Finding("empty", "error", "The map is empty: every voxel is background.")
    labels = tuple(s.label for s in structures)
    message = f"None of its ids ({listed(labels)}) is spine in the scheme {scheme.name!r}."
    return Finding("empty", "error", message, labels)


def _check_sizes(
    spine: Sequence[Structure], mask: Volume, scheme: LabelScheme
) -> Iterable[Finding]:
    large = {s.label for s in sizeable(spine)}
    voxel_ml = float(np.prod(mask.spacing_mm)) / 1000
    for s in spine:
        if s.label not in large:
            message = (
                f"{scheme.names[s.label]} has only {s.voxels} voxels ({s.voxels * voxel_ml:.2g} "
                "ml): a sliver at the image's edge, or crumbs of a neighbour."
            )
            yield Finding("tiny", "note", message, (s.label,))


def _check_order(spine: Sequence[Structure], scheme: LabelScheme) -> list[Finding]:
    ordered = from_head(spine, scheme)
    right, pairs = order(spine, scheme)
    if right == pairs:
        return []
    if right == 0 and pairs > 1:
        message = (
            f"The numbers run the wrong way: {scheme.names[ordered[0].label]} lies lowest and "
            f"{scheme.names[ordered[-1].label]} highest; the map is upside down or its scheme "
            "is another."
        )
        return [Finding("order", "error", message, tuple(s.label for s in ordered))]
    findings = []
    for upper, lower in zip(ordered, ordered[1:], strict=False):
        if upper.height_mm <= lower.height_mm:
            message = (
                f"{scheme.names[upper.label]} lies {lower.height_mm - upper.height_mm:.0f} mm "
                f"below {scheme.names[lower.label]}, though it belongs above it."
            )
            findings.append(Finding("order", "error", message, (upper.label, lower.label)))
    return findings


def _check_gaps(spine: Sequence[Structure], scheme: LabelScheme) -> Iterable[Finding]:
    missing = missing_between(spine, scheme)
    if missing:
        names = listed(CANONICAL[v] for v in missing)
        message = f"Missing between labelled neighbours: {names} (unlabelled, or a wrong count)."
        yield Finding("gap", "warning", message)


def _check_pieces(
    spine: Sequence[Structure], mask: Volume, scheme: LabelScheme
) -> Iterable[Finding]:
    # The transpose, for files store x fastest and the search is three times as quick that way.
    boxes = ndimage.find_objects(mask.array.T)
    for s in spine:
        inside = mask.array[boxes[s.label - 1][::-1]] == s.label
        pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
        if count == 1:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        largest = int(sizes.argmax()) + 1
        away = ndimage.distance_transform_edt(pieces != largest, sampling=mask.spacing_mm)
        farthest = float(away[inside].max())
        lost = int(sizes.sum() - sizes.max())
        serious = lost > STRAY_FRACTION * s.voxels or farthest > STRAY_MM
        message = (
            f"{scheme.names[s.label]} falls into {count} pieces: {lost} of {s.voxels} voxels lie "
            f"outside the largest, up to {farthest:.0f} mm from it."
        )
        yield Finding("stray", "warning" if serious else "note", message, (s.label,))


def _check_place(ct: Volume, mask: Volume, scheme: LabelScheme) -> list[Finding]:
    """Report a mask that would lie on brighter bone if it were moved or mirrored."""
    known = np.array([scheme.canonical.get(i, 0) > 0 for i in range(int(mask.array.max()) + 1)])
    spine = known[mask.array]
    as_is = find_peak(ct.array, spine, ct.spacing_mm)
    mirrored = find_peak(ct.array, spine[::-1], ct.spacing_mm)
    if mirrored.best_hu > as_is.best_hu + PLACE_GAIN_HU:
        message = (
            f"The mask looks mirrored left to right: mirrored, it lies on {mirrored.best_hu:.0f} HU"
            f" instead of {as_is.best_hu:.0f}."
        )
        return [Finding("mirrored", "warning", message)]
    if as_is.best_hu > as_is.here_hu + PLACE_GAIN_HU:
        x, y, z = as_is.move_mm
        message = (
            f"The mask looks shifted: moved by {x:.0f}, {y:.0f}, {z:.0f} mm along x, y, z it lies "
            f"on {as_is.best_hu:.0f} HU instead of {as_is.here_hu:.0f}."
        )
        return [Finding("shifted", "warning", message)]
    return []
