"""Read VerSe 2019 and 2020: subject folders under `rawdata` and `derivatives`.

OSF nqjyw and t98fz: `dataset-01training/rawdata/sub-verse004/sub-verse004_ct.nii.gz` with
`dataset-01training/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz`; some subjects have
several series (`_split-verse155_`, `_dir-ax_`).  Scans lie in their native orientation.
"""

from __future__ import annotations

import re
from pathlib import Path

from spine_lib import SpineError
from spine_lib.datasets.case import Case
from spine_lib.datasets.found import Found, not_this, pair_up, require_folder, require_found
from spine_lib.datasets.ignoring import BeyondLabelledVertebrae

LAYOUT = "dataset-01training/rawdata/sub-verse004 with its twin below derivatives"
_PART = re.compile(r"(train|validation|test)")
_IMAGE, _MASK = "_ct", "_seg-vert_msk"


def read_verse(root: str | Path) -> Found:
    """Find the series of VerSe 2019, 2020, or both below one folder.

    Args:
        root: folder above, or of, `dataset-01training` and its like.

    Returns:
        Cases with the official split.

    Raises:
        SpineError: if the folder is another, a series occurs twice (2020 holds most of 2019 again),
            or no series is complete.
    """
    root = require_folder(root)
    places = sorted(p.parent for p in root.rglob("rawdata") if p.is_dir())
    if root.name == "rawdata":
        places = [root.parent]
    if not places:
        raise not_this(root, "verse", LAYOUT)
    cases, left_out = [], []
    for place in places:
        images = _files(place / "rawdata", _IMAGE)
        masks = _files(place / "derivatives", _MASK)
        names, alone = pair_up(images, masks)
        left_out += alone
        split = _split(place)
        cases += [_case(name, images[name], masks[name], split) for name in names]
    return require_found(cases, left_out, "the official one of the folders", root)


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """List series by name, for instance "sub-verse004" or "sub-verse400_split-verse155"."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("sub-*/*.nii*")):
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        if not name.endswith(suffix):
            continue
        name = name.removesuffix(suffix)
        if name in found:
            raise SpineError(f"{found[name]} and {path} are one series: remove one of the two.")
        found[name] = path
    return found


def _split(place: Path) -> str:
    """Read the part from the nearest folder that names one."""
    for folder in (place, *place.parents):
        match = _PART.search(folder.name)
        if match:
            return match.group(1)
    raise SpineError(
        f"{place}: no folder above names its part: expected dataset-01training, "
        "dataset-02validation or dataset-03test."
    )


def _case(name: str, image: Path, mask: Path, split: str) -> Case:
    return Case(
        case_id=name,
        patient_id=f"verse-{image.parent.name.removeprefix('sub-')}",
        source="verse",
        ct_path=image,
        mask_path=mask,
        scheme="verse",
        covers=(
            "whole vertebrae only; the sacrum and vertebrae that the image cuts are not labelled; "
            "beyond the middle of the outermost labelled vertebrae all else is ignored"
        ),
        licence="CC BY-SA 4.0 (OSF nqjyw, t98fz)",
        split=split,
        ignore_rules=(BeyondLabelledVertebrae(),),
    )
