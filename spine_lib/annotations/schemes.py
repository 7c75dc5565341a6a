"""Lesson 2: which number means which vertebra in which data set.

Every data set numbers the vertebrae in its own way: id 20 is L1 in one, the colon in another. So
a map is translated into one canonical numbering (VerSe's, with 26 for the sacrum) when it is
loaded, and the four regions of the spine follow from that. `schemes.csv` names every id.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.ct.files import listed
from spine_lib.ct.geometry import require_choice

REGIONS = ("cervical", "thoracic", "lumbar", "sacral")
L6, SACRUM, T13 = 25, 26, 28

# T13 has the last number but sits between T12 and L1.
HEAD_TO_FOOT: tuple[int, ...] = (*range(1, 20), T13, *range(20, 27))

_UNKNOWN = 255


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of each id of a label map."""

    name: str  # key in `SCHEMES`
    names: Mapping[int, str]  # every id that means something, but 0, which is background
    canonical: Mapping[int, int]  # vertebra of each id that is spine; others become background


def _read_schemes() -> dict[str, LabelScheme]:
    with Path(__file__).with_name("schemes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    ids = {row["canonical"]: int(row["id"]) for row in rows} | {"S1": SACRUM}
    schemes = {}
    for scheme in list(rows[0])[1:]:
        names = {int(row["id"]): row[scheme] for row in rows if row[scheme]}
        canonical = {label: ids[name] for label, name in names.items() if name in ids}
        schemes[scheme] = LabelScheme(scheme, names, canonical)
    return schemes


SCHEMES = _read_schemes()
CANONICAL = SCHEMES["canonical"].names


def get_scheme(name: str) -> LabelScheme:
    """Return a label scheme by name; raise a `SpineError` if there is none."""
    require_choice("label scheme", name, tuple(SCHEMES))
    return SCHEMES[name]


def require_labels(labels: np.ndarray) -> None:
    """Raise a `SpineError` unless an array holds whole numbers from 0 to 65535."""
    low, high = labels.min(initial=0), labels.max(initial=0)
    if labels.dtype.kind not in "iu" or low < 0 or high >= 1 << 16:
        raise SpineError(
            f"A label map holds whole numbers from 0 to 65535, this one {labels.dtype} from {low} "
            f"to {high}: load it with load_mask."
        )


def to_canonical(labels: np.ndarray, scheme: str) -> np.ndarray:
    """Return labels of any shape, ids of a key of `SCHEMES`, as canonical vertebra ids, uint8.

    Background and structures that are not spine become 0. Raises a `SpineError` if an id means
    nothing in the scheme.

    Example:
        >>> to_canonical(np.array([0, 5, 27, 50]), "totalsegmentator").tolist()
        [0, 0, 24, 1]
    """
    chosen, labels = get_scheme(scheme), np.asarray(labels)
    require_labels(labels)
    table = np.full(1 << 16, _UNKNOWN, np.uint8)
    table[[0, *chosen.names]] = 0
    table[list(chosen.canonical)] = list(chosen.canonical.values())
    canonical = table[labels]
    unknown = canonical == _UNKNOWN
    if unknown.any():
        raise SpineError(
            f"The label ids {listed(np.unique(labels[unknown]))} mean nothing in the scheme "
            f"{scheme!r}: read the map under another of {', '.join(SCHEMES)}."
        )
    return canonical


def to_regions(canonical: np.ndarray) -> np.ndarray:
    """Return the regions of canonical vertebra ids, as `to_canonical` returns them.

    They are uint8: 0 background, 1 cervical, 2 thoracic, 3 lumbar, 4 sacral. Raises a `SpineError`
    if an id is not canonical.
    """
    table = np.zeros(256, np.uint8)
    table[1:8], table[8:20], table[20:26] = 1, 2, 3
    table[[SACRUM, T13]] = 4, 2
    return table[to_canonical(canonical, "canonical")]
