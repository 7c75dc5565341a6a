"""Read the 1089 public scans that the paper very probably used.

Kaggle's `pycadmk/spine-segmentation-from-ct-scans`: `volumes/case_XXXX.nii` with
`segmentations/case_XXXX.nii`, gaps in the numbering, 1.5 mm.  There is neither an official split
nor a patient's id, so scans are split by a number made from their name: the same scan always has
the same place, whichever others are there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from spine_lib.datasets.case import Case
from spine_lib.datasets.found import (
    Found,
    nifti_files,
    not_this,
    pair_up,
    require_folder,
    require_found,
)
from spine_lib.datasets.ignoring import SacrumBelowS1

SPLIT_SEED = 2025
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
LAYOUT = "volumes/case_0000.nii with segmentations/case_0000.nii"


def read_pycad1089(root: str | Path) -> Found:
    """Find the cases of the public 1089 scans.

    Args:
        root: folder with `volumes` and `segmentations`.

    Returns:
        The cases, split by scan; scans or masks without the other are left out.

    Raises:
        SpineError: if the folder is another, or holds no complete case.
    """
    root = require_folder(root)
    if not ((root / "volumes").is_dir() and (root / "segmentations").is_dir()):
        raise not_this(root, "pycad1089", LAYOUT)
    images, masks = nifti_files(root / "volumes"), nifti_files(root / "segmentations")
    names, left_out = pair_up(images, masks)
    cases = (
        Case(
            case_id=name,
            patient_id=f"pycad1089-{name}",
            source="pycad1089",
            ct_path=images[name],
            mask_path=masks[name],
            scheme="pycad1089",
            covers="C1 to L5 and S1; the sacrum below S1 is not labelled and ignored",
            licence="CC BY 4.0 (TotalSegmentator's data, redistributed on Kaggle)",
            split=split_of(name),
            note="no patient ids: two scans of one patient cannot be told",
            ignore_rules=(SacrumBelowS1(),),
        )
        for name in names
    )
    shares = ", ".join(f"{part} {share:.0%}" for part, share in SHARES.items())
    note = f"by scan (there are no patient ids), seed {SPLIT_SEED}: {shares}"
    return require_found(cases, left_out, note, root)


def split_of(name: str, seed: int = SPLIT_SEED) -> str:
    """Return "train", "validation" or "test" for a scan's name.

    Args:
        name: of the scan, without ending.
        seed: another seed is another split.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    place, end = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for part, share in SHARES.items():
        end += share
        if place < end:
            return part
    return "test"
