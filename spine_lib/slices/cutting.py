"""Cut one case into slices and write them: the work of one worker.

A worker process imports this module and nothing of PyTorch, which would take half a gigabyte in
each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.ct.geometry import slice_spacing_mm
from spine_lib.datasets.case import Case
from spine_lib.slices.cut import IGNORE, cut


def store_case(case: Case, folder: Path, planes: Sequence[str], spacing_mm: float) -> list[dict]:
    """Cut one case and write its slices.

    Returns:
        A row of the index for each plane.
    """
    data, organs = case.load(), case.load_organs()
    return [
        _store_slices(
            case,
            plane,
            slice_spacing_mm(data.ct.spacing_mm, plane)[0],
            cut(data, plane, spacing_mm, organs),
            folder,
        )
        for plane in planes
    ]


def _store_slices(
    case: Case, plane: str, distance_mm: float, slices: np.ndarray, folder: Path
) -> dict:
    name = f"{case.case_id}-{plane}.npy"
    with atomic_file(folder / name) as stream:
        np.save(stream, slices, allow_pickle=False)
    spine = [bool(((one > 0) & (one != IGNORE)).any()) for one in slices["label"]]
    return {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "source": case.source,
        "plane": plane,
        "file": name,
        "shape": list(slices.shape),
        "distance_mm": distance_mm,
        "foreground": np.flatnonzero(spine).tolist(),
        "sha256": hashlib.sha256(slices.view(np.uint8)).hexdigest(),
    }


@dataclass(frozen=True)
class Unreadable:
    """Stand for a case whose files cannot be read, with the reason."""

    reason: str


def cut_or_say_why(
    case: Case, folder: Path, planes: tuple[str, ...], spacing_mm: float
) -> list[dict] | Unreadable:
    """Cut one case in a worker.

    Returns:
        Rows of the index, or the reason why the case cannot be read.

    Raises:
        SpineError: if the slices cannot be written: that concerns every case.
    """
    try:
        return store_case(_LoadedOnce(case), folder, planes, spacing_mm)
    except _CannotRead as error:
        return Unreadable(str(error.__cause__))


class _CannotRead(Exception):
    """Part what is wrong with a case from what is wrong with the disk."""


class _LoadedOnce:
    """Stand for a case and tell apart where an error comes from."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def __getattr__(self, name: str):
        return getattr(self._case, name)

    def load(self):
        return self._reading(self._case.load)

    def load_organs(self):
        return self._reading(self._case.load_organs)

    @staticmethod
    def _reading(load: Callable):
        try:
            return load()
        except SpineError as error:
            raise _CannotRead from error
