"""Rebuild the public 1089 scans from TotalSegmentator's data, with the official split.

The 1089 were made from 1225 subjects less the 136 whose affines ITK refuses.  Unlike the 1089
themselves, what is rebuilt has an official split by subject.  Both label C1 to L5 and S1; here the
rest of the sacrum is known and ignored, where the 1089 do not label it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import nibabel as nib
import numpy as np

from spine_lib import SpineError
from spine_lib.datasets.found import Found, LeftOut, require_folder
from spine_lib.datasets.ignoring import OtherStructures
from spine_lib.datasets.totalsegmentator import read_meta, read_totalsegmentator

SACRUM_BELOW_S1 = 25
"""Id of the sacrum without S1 in TotalSegmentator's label maps."""

ORTHONORMAL_WITHIN = 1e-4
"""How far the product of a rotation with its transpose may be from the identity."""


@dataclass(frozen=True)
class Rebuilt:
    """Say which subjects the public 1089 scans very probably are.

    Attributes:
        kept: subjects that ITK reads.
        refused: subjects whose affine is not orthonormal to ITK's tolerance.
        listed: how many of the refused are in the list of subjects that others found refused.
        broken: subjects whose header cannot be read, with the reason.
        missing: subjects of `meta.csv` whose scan is not there.
    """

    kept: tuple[str, ...]
    refused: tuple[str, ...]
    listed: int
    broken: tuple[LeftOut, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = len(self.kept) + len(self.refused)
        text = (
            f"{count} subjects less {len(self.refused)} whose affine ITK refuses leave "
            f"{len(self.kept)}; {self.listed} of the refused are among the "
            f"{len(known_refused())} that others listed"
        )
        text += f"; {len(self.broken)} cannot be read" if self.broken else ""
        return text + (f"; {len(self.missing)} are not there" if self.missing else "")


def read_rebuilt1089(root: str | Path) -> Found:
    """Find the subjects that the public 1089 scans were very probably made from.

    Args:
        root: folder of TotalSegmentator's data.

    Returns:
        Cases with the official split; what ITK refuses is left out with the reason.

    Raises:
        SpineError: if the folder is another, or holds no complete subject.
    """
    rebuilt = rebuild_1089(root)
    found = read_totalsegmentator(root, only=(*rebuilt.kept, *rebuilt.missing))
    cases = [
        dataclasses.replace(
            case,
            covers="C1 to L5 and S1; the sacrum below S1 is ignored",
            ignore_rules=(OtherStructures((SACRUM_BELOW_S1,)),),
        )
        for case in found.cases
    ]
    refused = [LeftOut(name, "its affine is one that ITK refuses") for name in rebuilt.refused]
    left_out = sorted([*found.left_out, *refused, *rebuilt.broken], key=lambda item: item.case_id)
    return Found(cases, left_out, f"{found.split_note}; {rebuilt}")


def rebuild_1089(root: str | Path) -> Rebuilt:
    """Select the subjects that the public 1089 scans were very probably made from.

    Only headers are read.

    Args:
        root: folder of TotalSegmentator's data.

    Raises:
        SpineError: if the folder is another.
    """
    root = require_folder(root)
    kept, refused, broken, missing = [], [], [], []
    for name in sorted(read_meta(root)):
        path = root / name / "ct.nii.gz"
        if not path.is_file():
            missing.append(name)
            continue
        try:
            (kept if itk_reads(path) else refused).append(name)
        except SpineError as error:
            broken.append(LeftOut(name, str(error)))
    listed = len(known_refused() & set(refused))
    return Rebuilt(tuple(kept), tuple(refused), listed, tuple(broken), tuple(missing))


@cache
def known_refused() -> frozenset[str]:
    """Return the 136 subjects that 3D Slicer could not open.

    Source: https://github.com/wasserth/TotalSegmentator/issues/461
    """
    text = resources.files("spine_lib.datasets").joinpath("itk_refuses.json").read_text("utf-8")
    return frozenset(json.loads(text)["subjects"])


def itk_reads(path: Path) -> bool:
    """Tell whether ITK would take a NIfTI's affine: its rotation must be orthonormal.

    ITK takes the sform if its code is set and it is orthonormal, else the qform if its code is
    set; a qform is orthonormal by its making. Where neither code is set, it goes by the spacing.

    Args:
        path: NIfTI file; only its header is read.

    Raises:
        SpineError: if the header cannot be read.
    """
    try:
        header = nib.load(path).header
    except Exception as error:  # nibabel raises many kinds for a broken file
        raise SpineError(f"{path} cannot be read ({error}): fetch it again.") from error
    sform, code = header.get_sform(coded=True)
    if code and is_orthonormal(sform):
        return True
    return int(header["qform_code"]) > 0 or not code


def is_orthonormal(affine: np.ndarray) -> bool:
    """Tell whether an affine's axes stand at right angles, to ITK's tolerance."""
    axes = np.asarray(affine, float)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.all(lengths > 0):
        return False
    rotation = axes / lengths
    return bool(np.allclose(rotation @ rotation.T, np.eye(3), rtol=0, atol=ORTHONORMAL_WITHIN))
