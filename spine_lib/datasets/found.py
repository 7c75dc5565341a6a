"""What a reader of a public data set finds in a folder: cases, and what it had to leave out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.datasets.case import Case, require_cases


@dataclass(frozen=True)
class LeftOut:
    """Name a scan that is not used, and why."""

    case_id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case_id}: {self.reason}"


@dataclass(frozen=True)
class Found:
    """Hold what lies in the folder of a data set.

    Attributes:
        cases: in the order of their ids; nothing is read yet.
        left_out: scans that lack a part, with the reason.
        split_note: how the cases came to their parts, for the report.
    """

    cases: list[Case]
    left_out: list[LeftOut]
    split_note: str


def write_split(parts: Mapping[str, Iterable[Case]], path: Path) -> Path:
    """Write which case is in which part, as a CSV file with case_id, patient_id and split."""
    with atomic_file(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("case_id", "patient_id", "split"))
        for part, cases in parts.items():
            rows.writerows((case.case_id, case.patient_id, part) for case in cases)
        text.flush()
        text.detach()
    return path


def require_folder(root: str | Path) -> Path:
    """Return the folder, or say that there is none.

    Raises:
        SpineError: if it does not exist or is a file.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "a file" if root.is_file() else "not there"
        raise SpineError(f"{root} is {what}: give the folder that the data set was unpacked into.")
    return root


def not_this(root: Path, name: str, expected: str) -> SpineError:
    """Say what was expected in a folder and what lies there.

    Args:
        root: the folder.
        name: of the data set.
        expected: the layout, in words.
    """
    names = sorted(p.name + ("/" if p.is_dir() else "") for p in root.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    found = (", ".join(names[:5]) or "nothing") + more
    return SpineError(
        f"{root} does not look like {name}: expected {expected}, found {found}; give another root."
    )


def stem(path: Path) -> str:
    """Return a file's name without .nii or .nii.gz."""
    return path.name.removesuffix(".gz").removesuffix(".nii")


def nifti_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """List the NIfTI files of a folder by their name without ending.

    Args:
        folder: where; its subfolders are not searched.
        suffix: end of the name that all have, "_seg" for instance; it is left off.

    Raises:
        SpineError: if one scan is there twice, as .nii and as .nii.gz.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not path.name.endswith((f"{suffix}.nii", f"{suffix}.nii.gz")) or path.name[0] == ".":
            continue
        name = stem(path).removesuffix(suffix)
        if name in found:
            raise SpineError(
                f"{folder} has {found[name].name} and {path.name}: remove one of the two."
            )
        found[name] = path
    return found


def pair_up(images: dict[str, Path], masks: dict[str, Path]) -> tuple[list[str], list[LeftOut]]:
    """Return the names that have both, and those that only one side has."""
    alone = [LeftOut(name, "a scan without a mask") for name in images if name not in masks]
    alone += [LeftOut(name, "a mask without a scan") for name in masks if name not in images]
    return sorted(images.keys() & masks.keys()), sorted(alone, key=lambda item: item.case_id)


def require_found(cases: Iterable[Case], left_out: list[LeftOut], note: str, root: Path) -> Found:
    """Put together what was found; an empty folder is refused.

    Raises:
        SpineError: if there is no case, or an id occurs twice.
    """
    cases = list(cases)
    if not cases and left_out:
        raise SpineError(
            f"No case in {root} is complete ({len(left_out)} are left out, the first is "
            f"{left_out[0]}): is the download whole?"
        )
    return Found(require_cases(cases, str(root)), left_out, note)
