"""The patients of the lessons, or phantoms in their place where the sample cannot be fetched."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from spine_lib import SpineError
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.phantom import make_phantom
from spine_lib.datasets.sample import fetch_sample, sample_cases

# Seed, vertebrae, shape and spacing of the phantom that stands in for each patient: the same part
# of the spine, on a coarser grid so that none takes longer than some seconds.
STAND_INS = {
    "chest": (11, ("C6", "L3"), (176, 176, 133), (2.0, 2.0, 2.5)),
    "abdomen": (12, ("T11", "sacrum"), (122, 101, 112), (3.0, 3.0, 3.0)),
    "dicom": (13, ("T11", "T12"), (256, 256, 20), (1.96, 1.96, 2.0)),
    "crop": (14, ("L2", "L4"), (73, 47, 73), (1.5, 1.5, 1.5)),
}


def course_case(name: str) -> tuple[CaseData, str]:
    """Load a patient of the built-in sample, or a phantom that shows the same vertebrae.

    Args:
        name: "chest", "abdomen", "dicom" or "crop".

    Returns:
        The case, and a note that is empty for the real patient and says otherwise what stands in
        for it and why.

    Raises:
        SpineError: if there is no such patient.
    """
    if name not in STAND_INS:
        raise SpineError(f"There is no patient {name!r}: choose one of {', '.join(STAND_INS)}.")
    root, trouble = _sample()
    if root is not None:
        (case,) = (case for case in sample_cases(root) if case.case_id == name)
        return case.load(), ""
    note = (
        f"A phantom stands in for the {name} patient, because the real scans could not be "
        f"fetched ({trouble}). The lesson runs as it is; what the text says of this patient "
        "does not fit the phantom."
    )
    return stand_in(name), note


def stand_in(name: str) -> CaseData:
    """Generate the phantom that stands in for a patient of the sample."""
    seed, levels, shape, spacing_mm = STAND_INS[name]
    return make_phantom(seed, shape=shape, spacing_mm=spacing_mm, levels=levels)


@cache
def _sample() -> tuple[Path | None, str]:
    """Fetch the sample unless it is there; a failure is remembered, since each costs a wait."""
    try:
        return fetch_sample(), ""
    except SpineError as error:
        return None, str(error).rstrip(".")
