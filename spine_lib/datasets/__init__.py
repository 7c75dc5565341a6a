"""Where cases come from: the four real patients of the sample, and phantoms.

Every source yields cases, and every case loads to a scan, canonical labels and an ignore region.
"""

from spine_lib.datasets.case import (
    Case,
    CaseData,
    IgnoreRule,
    UnlabelledBoneAtEnds,
    require_cases,
)
from spine_lib.datasets.phantom import PhantomCase, make_phantom, phantom_cases
from spine_lib.datasets.sample import fetch_sample, sample_cases, sample_root

__all__ = [
    "Case",
    "CaseData",
    "IgnoreRule",
    "PhantomCase",
    "UnlabelledBoneAtEnds",
    "fetch_sample",
    "make_phantom",
    "phantom_cases",
    "require_cases",
    "sample_cases",
    "sample_root",
]
