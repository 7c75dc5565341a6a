"""Read CTSpine1K: scans and masks by subset, the split in one text file.

`volumes/<subset>/NAME.nii.gz` with `labels/<subset>/NAME_seg.nii.gz`; `data_split.txt` lists file
names under `trainset:`, `test_public:` and `test_private:`.  Ids are VerSe's.
"""

from __future__ import annotations

from pathlib import Path

from spine_lib import SpineError
from spine_lib.datasets.case import Case
from spine_lib.datasets.found import (
    Found,
    LeftOut,
    nifti_files,
    not_this,
    pair_up,
    require_folder,
    require_found,
    stem,
)
from spine_lib.datasets.ignoring import BeyondLabelledVertebrae

LAYOUT = "data_split.txt, volumes/liver/liver_0.nii.gz and labels/liver/liver_0_seg.nii.gz"
PARTS = {"trainset": "train", "test_public": "validation", "test_private": "test"}
"""Headings of the split file; its authors call the second part public test or validation."""


def read_ctspine1k(root: str | Path) -> Found:
    """Find the cases of CTSpine1K.

    Args:
        root: folder with `volumes`, `labels` and `data_split.txt`.

    Returns:
        Cases with the official split; what the split does not name is left out.

    Raises:
        SpineError: if the folder is another, or holds no complete case.
    """
    root = require_folder(root)
    if not ((root / "volumes").is_dir() and (root / "labels").is_dir()):
        raise not_this(root, "ctspine1k", LAYOUT)
    splits = read_split(root)
    cases, left_out = [], []
    for folder in sorted(p for p in (root / "volumes").iterdir() if p.is_dir()):
        labels = root / "labels" / folder.name
        images = nifti_files(folder)
        masks = nifti_files(labels, "_seg") if labels.is_dir() else {}
        names, alone = pair_up(images, masks)
        left_out += alone
        for name in names:
            if name in splits:
                cases.append(_case(name, images[name], masks[name], folder.name, splits[name]))
            else:
                left_out.append(LeftOut(name, "not in data_split.txt"))
    return require_found(cases, left_out, "the official one of data_split.txt", root)


def read_split(root: Path) -> dict[str, str]:
    """Read `data_split.txt`.

    Returns:
        "train", "validation" or "test" by file name without ending.

    Raises:
        SpineError: if the file is missing, or a name stands before the first heading.
    """
    path = root / "data_split.txt"
    if not path.is_file():
        raise not_this(root, "ctspine1k", LAYOUT)
    part, splits = "", {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.strip()
        heading = line.removesuffix(":")
        if heading in PARTS:
            part = PARTS[heading]
        elif line and not part:
            raise SpineError(
                f"{path}, line {number}: {line!r} stands before any of the headings "
                f"{', '.join(PARTS)}: take the file of the data set's repository."
            )
        elif line:
            splits[stem(Path(line)).removesuffix("_seg")] = part
    return splits


def _case(name: str, image: Path, mask: Path, subset: str, split: str) -> Case:
    return Case(
        case_id=name,
        patient_id=f"ctspine1k-{subset}-{name}",
        source="ctspine1k",
        ct_path=image,
        mask_path=mask,
        scheme="verse",
        covers=(
            "vertebrae C1 to L6, no sacrum; beyond the middle of the outermost labelled vertebrae "
            "all else is ignored"
        ),
        licence="CC BY-NC-SA 4.0",
        split=split,
        note="labels started from a model's output and were corrected by hand",
        ignore_rules=(BeyondLabelledVertebrae(),),
    )
