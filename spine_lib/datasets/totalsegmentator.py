"""Read the public TotalSegmentator data, version 2: one folder a subject, one mask a structure.

Zenodo 10.5281/zenodo.6802613: `sXXXX/ct.nii.gz`, `sXXXX/segmentations/vertebrae_C1.nii.gz` and so
on, and `meta.csv`, which has the official split.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import SCHEMES
from spine_lib.ct.volume import Volume, load_mask, require_same_grid
from spine_lib.datasets.case import Case
from spine_lib.datasets.found import Found, LeftOut, not_this, require_folder, require_found

LAYOUT = "meta.csv and folders s0000 with ct.nii.gz and segmentations/vertebrae_C1.nii.gz"
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def mask_names() -> dict[int, str]:
    """Return the mask file of each structure of the spine, by its id in a multilabel map."""
    names = SCHEMES["totalsegmentator"].names
    ids = sorted(SCHEMES["totalsegmentator"].canonical)
    return {i: "sacrum" if names[i] == "sacrum" else f"vertebrae_{names[i]}" for i in ids}


@dataclass(frozen=True)
class StructuresCase(Case):
    """Describe a subject whose label map is a folder of binary masks, one a structure."""

    def load_structures(self) -> Volume:
        """Put the binary masks together: ids as in TotalSegmentator's multilabel maps.

        Returns:
            uint8 [x, y, z] in RAS+; where two masks overlap, the one with the higher id counts.

        Raises:
            SpineError: if a mask is missing, lies on another grid, or is not binary.
        """
        together = None
        for number, name in mask_names().items():
            path = self.mask_path / f"{name}.nii.gz"
            mask = load_mask(path)
            if together is None:
                together = mask.with_array(np.zeros(mask.shape, np.uint8))
            require_same_grid(together, mask, f"{self.case_id}: the masks of two structures")
            top = int(mask.array.max(initial=0))
            if top > 1:
                raise SpineError(
                    f"{path}: a mask of one structure holds 0 and 1, this one {top}: is it a "
                    "multilabel map?"
                )
            together.array[mask.array > 0] = number
        return together

    def load_organs(self) -> None:
        """Return None: only the masks of the spine are read, and `load` has them."""


def read_totalsegmentator(root: str | Path, only: Iterable[str] | None = None) -> Found:
    """Find the subjects whose scan and spine masks are there.

    Args:
        root: folder with `meta.csv` and the subjects' folders.
        only: names of subjects, where not all are wanted.

    Returns:
        Cases with the official split.

    Raises:
        SpineError: if the folder is another, or holds no complete subject.
    """
    root = require_folder(root)
    splits = read_meta(root)
    wanted = set(splits) if only is None else set(only)
    cases, left_out = [], []
    for name in sorted(wanted | {p.name for p in root.glob("s[0-9]*") if only is None}):
        lacking = _lacking(root / name)
        if name not in splits:
            left_out.append(LeftOut(name, "not in meta.csv, so it has no place in the split"))
        elif lacking:
            left_out.append(LeftOut(name, f"{lacking} is missing: half a download?"))
        else:
            cases.append(_case(root / name, splits[name]))
    return require_found(cases, left_out, "the official one of meta.csv, by subject", root)


def _lacking(folder: Path) -> str:
    """Return the first file that a subject lacks, or an empty text."""
    files = [folder / "ct.nii.gz"]
    files += [folder / "segmentations" / f"{name}.nii.gz" for name in mask_names().values()]
    return next((str(f.relative_to(folder.parent)) for f in files if not f.is_file()), "")


def _case(folder: Path, split: str) -> StructuresCase:
    return StructuresCase(
        case_id=folder.name,
        patient_id=f"totalsegmentator-{folder.name}",
        source="totalsegmentator",
        ct_path=folder / "ct.nii.gz",
        mask_path=folder / "segmentations",
        scheme="totalsegmentator",
        covers="every vertebra in the image and the whole sacrum",
        licence="CC BY 4.0 (Zenodo 10.5281/zenodo.6802613)",
        split=split,
    )


def read_meta(root: Path) -> dict[str, str]:
    """Read the official split from `meta.csv`.

    Returns:
        "train", "validation" or "test" of each subject.

    Raises:
        SpineError: if there is no such file, it lacks a column, or names an unknown part.
    """
    path = root / "meta.csv"
    if not path.is_file():
        raise not_this(root, "totalsegmentator", LAYOUT)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=";"))
    if not rows or not {"image_id", "split"} <= set(rows[0]):
        raise SpineError(
            f"{path} has no columns image_id and split, parted by semicolons: this is not the "
            "meta.csv of version 2."
        )
    odd = sorted({row["split"] for row in rows} - set(SPLITS))
    if odd:
        raise SpineError(f"{path}: split is {odd[0]!r}; expected {', '.join(SPLITS)}.")
    return {row["image_id"]: SPLITS[row["split"]] for row in rows}
