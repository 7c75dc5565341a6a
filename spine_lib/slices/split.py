"""Lesson 3: split cases by patient, before anything is cut.

Neighbouring slices look alike, and a split by slice lets a network score on what it has seen.
"""

import math
from collections.abc import Sequence

import numpy as np

from spine_lib import SpineError
from spine_lib.datasets.case import Case


def split_by_patient(
    cases: Sequence[Case], fractions: dict[str, float], seed: int = 0
) -> dict[str, list]:
    """Split cases so that no patient lies on both sides; return the cases of each name, in order.

    Args:
        cases: what to split.
        fractions: share of the patients for each name, for instance {"train": 0.8, "test": 0.2};
            a `SpineError` if they do not add up to 1, or there are fewer patients than names.
        seed: decides who goes where.
    """
    if not math.isclose(sum(fractions.values()), 1.0, abs_tol=1e-6):
        raise SpineError(f"the shares {fractions} add up to {sum(fractions.values()):g}, not to 1")
    patients = sorted({case.patient_id for case in cases})
    if len(patients) < len(fractions):
        raise SpineError(
            f"{len(patients)} patients cannot be split in {len(fractions)} parts: name more cases"
        )
    np.random.default_rng(seed).shuffle(patients)
    edges = np.rint(np.cumsum([0.0, *fractions.values()]) * len(patients)).astype(int)
    part_of_patient = {
        patient: name
        for name, start, stop in zip(fractions, edges, edges[1:])
        for patient in patients[start:stop]
    }
    return {name: [c for c in cases if part_of_patient[c.patient_id] == name] for name in fractions}


def require_separate(parts: dict[str, Sequence[Case]]) -> None:
    """Raise a SpineError that names a patient who is in two parts of a split."""
    part_of_patient: dict[str, str] = {}
    for name, cases in parts.items():
        for case in cases:
            other = part_of_patient.setdefault(case.patient_id, name)
            if other != name:
                raise SpineError(
                    f"patient {case.patient_id} is in both {other!r} and {name!r}: "
                    "split by patient, not by scan or slice"
                )
