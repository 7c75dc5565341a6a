"""Lesson 2: which number means which vertebra in which data set.

Every data set numbers the vertebrae in its own way: id 20 is L1 in one, the colon in another. So
a map is translated into one canonical numbering (VerSe's, with 26 for the sacrum) when it is
loaded, and the four regions of the spine follow from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from spine_lib import SpineError

REGIONS = ("cervical", "thoracic", "lumbar", "sacral")
SACRUM, T13 = 26, 28

CANONICAL: dict[int, str] = {
    **{i: f"C{i}" for i in range(1, 8)},
    **{i + 7: f"T{i}" for i in range(1, 13)},
    **{i + 19: f"L{i}" for i in range(1, 7)},
    SACRUM: "sacrum",
    T13: "T13",
}

# T13 has the last number but sits between T12 and L1.
HEAD_TO_FOOT: tuple[int, ...] = (*range(1, 20), T13, *range(20, 27))

_UNKNOWN = 255


@dataclass(frozen=True)
class LabelScheme:
    """The meaning of each id of a label map.

    Attributes:
        name: key in `SCHEMES`.
        names: every id that the scheme knows, with its name; 0 is always background.
        canonical: canonical vertebra id of each id that is spine; other ids become background.
    """

    name: str
    names: Mapping[int, str]
    canonical: Mapping[int, int]
    table: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = np.full(1 << 16, _UNKNOWN, dtype=np.uint8)
        table[0] = 0
        table[list(self.names)] = 0
        for label, vertebra in self.canonical.items():
            table[label] = vertebra
        table.setflags(write=False)
        object.__setattr__(self, "table", table)

    def knows(self, label: int) -> bool:
        """Return whether an id means something in this scheme; background always does."""
        return label == 0 or label in self.names


def _sided(names: str) -> list[str]:
    return [f"{name}_{side}" for name in names.split() for side in ("left", "right")]


def _totalsegmentator_names() -> dict[int, str]:
    """Return the classes of TotalSegmentator version 2 (task "total"), spelled as the tool does."""
    upper = """
        spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right
        adrenal_gland_left lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right
        lung_middle_lobe_right lung_lower_lobe_right esophagus trachea thyroid_gland small_bowel
        duodenum colon urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum S1"""
    lower = """
        heart aorta pulmonary_vein brachiocephalic_trunk subclavian_artery_right
        subclavian_artery_left common_carotid_artery_right common_carotid_artery_left
        brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left
        superior_vena_cava inferior_vena_cava portal_vein_and_splenic_vein"""
    order = [
        *upper.split(),
        *(CANONICAL[i] for i in range(24, 0, -1)),
        *lower.split(),
        *_sided("iliac_artery iliac_vena humerus scapula clavicula femur hip"),
        "spinal_cord",
        *_sided("gluteus_maximus gluteus_medius gluteus_minimus autochthon iliopsoas"),
        *("brain", "skull"),
        *(f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13)),
        *("sternum", "costal_cartilages"),
    ]
    # Maps made with the first version-2 models have one class more before the cartilages.
    return {**dict(enumerate(order, start=1)), 118: "costal_cartilages_118"}


def _totalsegmentator_v1_names() -> dict[int, str]:
    """Return the classes of TotalSegmentator version 1, whose ids mean other structures in 2."""
    upper = """
        spleen kidney_right kidney_left gallbladder liver stomach aorta inferior_vena_cava
        portal_vein_and_splenic_vein pancreas adrenal_gland_right adrenal_gland_left
        lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right
        lung_lower_lobe_right"""
    lower = """
        esophagus trachea heart_myocardium heart_atrium_left heart_ventricle_left
        heart_atrium_right heart_ventricle_right pulmonary_artery brain iliac_artery_left
        iliac_artery_right iliac_vena_left iliac_vena_right small_bowel duodenum colon"""
    order = [
        *upper.split(),
        *(CANONICAL[i] for i in range(24, 0, -1)),
        *lower.split(),
        *(f"rib_{side}_{i}" for side in ("left", "right") for i in range(1, 13)),
        *_sided("humerus scapula clavicula femur hip"),
        *("sacrum", "face"),
        *_sided("gluteus_maximus gluteus_medius gluteus_minimus autochthon iliopsoas"),
        "urinary_bladder",
    ]
    return dict(enumerate(order, start=1))


_VERTEBRAE = {i: i for i in range(1, 25)}
SCHEMES: dict[str, LabelScheme] = {
    name: LabelScheme(name, MappingProxyType(names), MappingProxyType(canonical))
    for name, names, canonical in (
        ("canonical", CANONICAL, {i: i for i in CANONICAL}),
        ("verse", {**CANONICAL, 27: "coccyx"}, {i: i for i in CANONICAL}),
        (
            "totalsegmentator",
            _totalsegmentator_names(),
            {25: SACRUM, 26: SACRUM, **{51 - i: i for i in _VERTEBRAE}},
        ),
        (
            "totalsegmentator_v1",
            _totalsegmentator_v1_names(),
            {92: SACRUM, **{42 - i: i for i in _VERTEBRAE}},
        ),
        (
            "pycad1089",
            {**{i: CANONICAL[i] for i in _VERTEBRAE}, 25: "S1"},
            {**_VERTEBRAE, 25: SACRUM},
        ),
    )
}


def get_scheme(name: str) -> LabelScheme:
    """Return a label scheme by name; raise a `SpineError` if there is none."""
    if name not in SCHEMES:
        raise SpineError(
            f"The label scheme {name!r} is not known: use one of {', '.join(SCHEMES)}."
        )
    return SCHEMES[name]


def require_labels(labels: np.ndarray) -> None:
    """Raise a `SpineError` unless an array holds whole numbers from 0 to 65535."""
    if labels.dtype.kind not in "iu":
        raise SpineError(
            f"A label map holds whole numbers, this one {labels.dtype}: load it with load_mask."
        )
    if labels.size and (labels.min() < 0 or labels.max() >= 1 << 16):
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise SpineError(f"Label id {worst} is outside 0..65535: this is no label map.")


def to_canonical(labels: np.ndarray, scheme: str) -> np.ndarray:
    """Return a label map in canonical vertebra ids.

    Args:
        labels: whole numbers of any shape, ids of `scheme`.
        scheme: key of `SCHEMES`.

    Returns:
        uint8 of the same shape; 0 for background and for structures that are not spine.

    Raises:
        SpineError: if an id means nothing in the scheme.

    Example:
        >>> to_canonical(np.array([0, 5, 27, 50]), "totalsegmentator").tolist()
        [0, 0, 24, 1]
    """
    table = get_scheme(scheme).table
    labels = np.asarray(labels)
    require_labels(labels)
    canonical = table[labels]
    unknown = canonical == _UNKNOWN
    if unknown.any():
        ids = np.unique(labels[unknown]).tolist()
        shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
        raise SpineError(
            f"The label ids {shown} mean nothing in the scheme {scheme!r}: "
            f"read the map under another of {', '.join(SCHEMES)}."
        )
    return canonical


_REGION_TABLE = np.zeros(256, dtype=np.uint8)
_REGION_TABLE[1:8], _REGION_TABLE[8:20], _REGION_TABLE[20:26] = 1, 2, 3
_REGION_TABLE[SACRUM], _REGION_TABLE[T13] = 4, 2


def to_regions(canonical: np.ndarray) -> np.ndarray:
    """Return the regions of canonical vertebra ids, as `to_canonical` returns them.

    Returns:
        uint8 of the same shape: 0 background, 1 cervical, 2 thoracic, 3 lumbar, 4 sacral.

    Raises:
        SpineError: if an id is not canonical.
    """
    return _REGION_TABLE[to_canonical(canonical, "canonical")]
