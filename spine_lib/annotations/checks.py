"""Lesson 2: find what is wrong with a label map.

A map read under the wrong scheme looks plausible and is wrong; so does a map on another grid, with
its numbers out of order or with stray voxels far from the bone, and no score shows it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations import structures as measures
from spine_lib.annotations.alignment import find_peak
from spine_lib.annotations.schemes import (
    CANONICAL,
    HEAD_TO_FOOT,
    SACRUM,
    SCHEMES,
    LabelScheme,
    get_scheme,
)
from spine_lib.annotations.structures import Structure, misfit, sizeable
from spine_lib.ct.files import listed
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume

STRAY_FRACTION, STRAY_MM, ALIGNMENT_GAIN_HU = 0.01, 20.0, 10.0
"""Components with more of a label, or farther off, are a warning and not a note; a mask counts as
shifted or mirrored if moving it raises the mean HU under it by more."""


@dataclass(frozen=True)
class Finding:
    """One result of `check_annotation`."""

    code: str  # short name of the check, for instance "order"
    severity: Literal["error", "warning", "note"]  # do not use the map like this; look; know it
    message: str  # one sentence for a person
    labels: tuple[int, ...] = ()  # ids in the map's own scheme that it is about


def check_annotation(ct: Volume, mask: Volume, scheme: str = "canonical") -> list[Finding]:
    """Return the mistakes that are found in a label map of the spine, worst first.

    No finding does not mean that the annotation is good. Codes: "geometry", "empty", "unknown-ids",
    "scheme", "implausible", "order", "gap", "tiny", "stray", "shifted", "mirrored".

    Args:
        ct: scan in HU, [x, y, z].
        mask: label map of the same patient with the ids of `scheme`, other organs included.
        scheme: key of `SCHEMES` under which the map is to be read.

    Raises a `SpineError` if the scheme does not exist or the map does not hold whole numbers.
    """
    chosen = get_scheme(scheme)
    findings, image = [], ct.array
    try:
        require_same_grid(ct, mask)
    except SpineError as error:
        findings, image = [Finding("geometry", "error", str(error))], None
    structures = measures.measure(mask, image)
    unknown = tuple(s.label for s in structures if s.label not in chosen.names)
    if unknown:
        message = f"The ids {listed(unknown)} mean nothing in the scheme {scheme!r}."
        findings.append(Finding("unknown-ids", "error", message, unknown))
    findings += (about_scheme := list(_check_scheme(structures, chosen)))
    spine = [s for s in structures if s.label in chosen.canonical]
    if not spine:
        labels = tuple(s.label for s in structures)
        message = f"None of its ids ({listed(labels)}) is spine in the scheme {scheme!r}."
        message = message if labels else "The map is empty: every voxel is background."
        findings.append(Finding("empty", "error", message, labels))
    elif all(finding.severity != "error" for finding in about_scheme):
        # otherwise all further findings follow from the wrong names
        if not unknown and (reason := misfit(structures, chosen, plain=True)):
            message = f"The map cannot be vertebrae: {reason}."
            findings.append(Finding("implausible", "error", message))
        findings += _check_distances(structures, chosen)
        findings += _check_order(spine, chosen)
        findings += _check_pieces(spine, mask, chosen)
        if image is not None:
            findings += _check_alignment(ct, mask, chosen)
    return sorted(findings, key=lambda f: ("error", "warning", "note").index(f.severity))


def _check_scheme(structures: Sequence[Structure], scheme: LabelScheme) -> Iterator[Finding]:
    """Report another scheme when the chosen one does not fit and that one does."""
    better = measures.better_scheme(structures, scheme)
    if better is None:
        ids = {s.label for s in structures}
        if scheme.name in ("canonical", "verse") and 25 in ids and SACRUM not in ids:
            message = "The id 25 is L6, which few people have; in the scheme 'pycad1089' it is S1."
            yield Finding("scheme", "note", message, (25,))
        return
    best, reason = better
    vertebrae = {best.canonical.get(s.label) for s in structures}
    names = ", ".join(CANONICAL[i] for i in HEAD_TO_FOOT if i in vertebrae)
    message = (
        f"The scheme looks wrong: read as {scheme.name!r}, {reason}; "
        f"read as {best.name!r} it is {names}."
    )
    yield Finding("scheme", "error", message, tuple(s.label for s in structures))


def _check_distances(structures: Sequence[Structure], scheme: LabelScheme) -> Iterator[Finding]:
    """Report a scheme that fits too, and makes the body an adult's instead of a small one's."""
    own = measures.relative_size(structures, scheme)
    for other in SCHEMES.values():
        size = measures.relative_size(structures, other)
        adult = not 0.75 < own < 1.35 and 0.85 < size < 1.2
        if adult and other.name != "canonical" and misfit(structures, other) is None:
            message = (
                f"The scheme may be wrong: read as {scheme.name!r}, its vertebrae lie {own:.2g} "
                f"times as far apart as an adult's, read as {other.name!r} {size:.2g} times."
            )
            yield Finding("scheme", "warning", message)


def _check_order(spine: Sequence[Structure], scheme: LabelScheme) -> Iterator[Finding]:
    ordered = measures.from_head(sizeable(spine), scheme)
    names = [scheme.names[s.label] for s in ordered]
    wrong = [i for i, (s, below) in enumerate(pairwise(ordered)) if s.height_mm <= below.height_mm]
    if len(wrong) == len(ordered) - 1 > 1:
        message = (
            f"The numbers run the wrong way: {names[0]} lies lowest and {names[-1]} highest; the "
            "map is upside down or its scheme is another."
        )
        yield Finding("order", "error", message, tuple(s.label for s in ordered))
        wrong = []
    for i in wrong:
        upper, lower = ordered[i : i + 2]
        message = (
            f"{names[i]} lies {lower.height_mm - upper.height_mm:.0f} mm below {names[i + 1]}, "
            "though it belongs above it."
        )
        yield Finding("order", "error", message, (upper.label, lower.label))
    if missing := measures.missing_between(spine, scheme):
        names = listed(CANONICAL[v] for v in missing)
        message = f"Missing between labelled neighbours: {names} (unlabelled, or a wrong count)."
        yield Finding("gap", "warning", message)


def _check_pieces(
    spine: Sequence[Structure], mask: Volume, scheme: LabelScheme
) -> Iterator[Finding]:
    """Report vertebrae that are slivers, or fall into several pieces."""
    large = sizeable(spine)
    # The transpose, for files store x fastest and the search is three times as quick that way.
    boxes = ndimage.find_objects(mask.array.T)
    for s in spine:
        name = scheme.names[s.label]
        if s not in large:
            message = (
                f"{name} has only {s.voxels} voxels ({s.volume_ml:.2g} ml): a sliver at the "
                "image's edge, or pieces of a neighbour."
            )
            yield Finding("tiny", "note", message, (s.label,))
        inside = mask.array[boxes[s.label - 1][::-1]] == s.label
        components, count = ndimage.label(inside, np.ones((3, 3, 3)))
        if count == 1:
            continue
        sizes = np.bincount(components.ravel())[1:]
        outside = components != sizes.argmax() + 1
        away_mm = ndimage.distance_transform_edt(outside, sampling=mask.spacing_mm)[inside].max()
        stray = int(sizes.sum() - sizes.max())
        serious = stray > STRAY_FRACTION * s.voxels or away_mm > STRAY_MM
        message = (
            f"{name} falls into {count} pieces: {stray} of {s.voxels} voxels lie outside the "
            f"largest, up to {away_mm:.0f} mm from it."
        )
        yield Finding("stray", "warning" if serious else "note", message, (s.label,))


def _check_alignment(ct: Volume, mask: Volume, scheme: LabelScheme) -> Iterator[Finding]:
    """Report a mask that would lie on brighter bone if it were moved or mirrored."""
    spine = np.isin(mask.array, list(scheme.canonical))
    as_is = find_peak(ct.array, spine, ct.spacing_mm)
    mirrored = find_peak(ct.array, spine[::-1], ct.spacing_mm)
    if mirrored.best_hu > as_is.best_hu + ALIGNMENT_GAIN_HU:
        message = (
            f"The mask looks mirrored left to right: mirrored, it lies on {mirrored.best_hu:.0f} HU"
            f" instead of {as_is.best_hu:.0f}."
        )
        yield Finding("mirrored", "warning", message)
    elif as_is.best_hu > as_is.current_hu + ALIGNMENT_GAIN_HU:
        x, y, z = as_is.move_mm
        message = (
            f"The mask looks shifted: moved by {x:.0f}, {y:.0f}, {z:.0f} mm along x, y, z it lies "
            f"on {as_is.best_hu:.0f} HU instead of {as_is.current_hu:.0f}."
        )
        yield Finding("shifted", "warning", message)
