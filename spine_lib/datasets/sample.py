"""The built-in real data: CT of five patients that public Python packages carry.

`sample.json` lists packages, files and cases; `data/README.md` says where each scan comes from.
Files that have not been fetched into `root` (default: `sample_root()`) are a `SpineError`.
"""

import os
from collections.abc import Callable
from pathlib import Path

from spine_lib import SpineError
from spine_lib.ct.files import read_json
from spine_lib.datasets.case import Case
from spine_lib.datasets.fetch import Package, fetch_package
from spine_lib.datasets.ignore import UnlabelledBoneAtEnds

LISTING = Path(__file__).with_name("sample.json")


def sample_root() -> Path:
    """Return `$SPINE_DATA/sample`, else `data/sample` in the repository or the current folder."""
    data = os.environ.get("SPINE_DATA")
    if data:
        return Path(data).expanduser() / "sample"
    repository = Path(__file__).resolve().parents[2]
    home = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    return home / "data" / "sample"


def sample_packages() -> list[Package]:
    """Return the pinned packages and the files that are taken from each."""
    return [Package(**package) for package in read_json(LISTING)["packages"]]


def fetch_sample(root: str | Path | None = None, progress: Callable[[str], object] = print) -> Path:
    """Fetch the real patients unless they are there already, and return their folder.

    `progress` is called with a line per package that had to be downloaded. Raises a `SpineError` if
    a download fails; what was complete before stays.
    """
    root = Path(root or sample_root())
    for package in sample_packages():
        fetch_package(package, root, progress)
    return root


def sample_cases(root: str | Path | None = None) -> list[Case]:
    """Return "chest" and "abdomen" (split "train"), "dicom" and "crop" ("test") as cases."""
    cases = []
    for row in read_json(LISTING)["cases"]:
        row |= {name: _fetched(root, row[name]) for name in ("ct_path", "mask_path")}
        rules = tuple(map(UnlabelledBoneAtEnds, row.pop("unlabelled_bone_at")))
        patient = f"sample-{row['case_id']}"
        cases.append(Case(**row, patient_id=patient, source="sample", ignore_rules=rules))
    return cases


def unseen_patient(root: str | Path | None = None) -> tuple[Path, Path]:
    """Return the files of the fifth patient: a chest CT (C7 to L1), and a mask of its T12 alone.

    The mask has a smaller grid than the scan. No model of this project was trained on the patient.
    """
    return _fetched(root, "unseen/ct.nii.gz"), _fetched(root, "unseen/t12.nii.gz")


def abdomen_label_maps(root: str | Path | None = None) -> dict[str, Path]:
    """Return three more label maps of the abdomen patient, on the grid of its scan, by content.

    "vertebrae": T11 to S1 by another run of the same tool, with its ids; "bodies by name": the
    vertebral bodies of T12 to L5 (VerSe ids); "bodies and discs": 1 and 2.
    """
    names = ("vertebrae", "bodies by name", "bodies and discs")
    return {name: _fetched(root, f"abdomen/{name.replace(' ', '_')}.nii.gz") for name in names}


def _fetched(root: str | Path | None, name: str) -> Path:
    path = Path(root or sample_root()) / name
    if not path.exists():
        raise SpineError(f"{path} is missing: run 'spine fetch' or fetch_sample().")
    return path
