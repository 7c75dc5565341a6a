"""What the lessons compute on: their patients, the stored predictions, and how much is computed."""

import os
from dataclasses import dataclass
from typing import TypeVar

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.sample import fetch_sample, sample_cases
from spine_lib.training.pretrained import PRETRAINED, load_probability

PATIENTS = ("chest", "abdomen", "dicom", "crop")
HELD_OUT = ("dicom", "crop")
T = TypeVar("T")
MODEL_NAMES = {"unet_light": "U-Net", "deeplabv3plus_light": "DeepLabv3+"}


def pick(full: T, fast: T) -> T:
    """Return `full`, or `fast` where `SPINE_FAST=1`; for sizes and numbers of steps."""
    return fast if os.environ.get("SPINE_FAST") == "1" else full


def course_case(name: str) -> CaseData:
    """Load a patient of the built-in sample, which is fetched where it is missing.

    Args:
        name: "chest", "abdomen", "dicom" or "crop".

    Raises:
        SpineError: if there is no such patient, or the sample can be neither found nor fetched.
    """
    if name not in PATIENTS:
        raise SpineError(f"There is no patient {name!r}: choose one of {', '.join(PATIENTS)}.")
    try:
        root = fetch_sample()
    except SpineError as error:
        raise SpineError(
            f"The {name} patient is not on this machine and could not be fetched "
            f"({str(error).rstrip('.')}): run `spine fetch` where there is a network."
        ) from error
    (case,) = (case for case in sample_cases(root) if case.case_id == name)
    return case.load()


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A patient that no shipped model was trained on, with the models' predictions.

    Attributes:
        data: scan, labels and ignore region.
        probability: float32 probability of spine on the scan's grid, by the model's name in the
            lessons ("U-Net", "DeepLabv3+").
    """

    data: CaseData
    probability: dict[str, Volume]


def held_out_case(name: str) -> HeldOut:
    """Load a held-out patient with the stored predictions of both shipped models.

    Args:
        name: "dicom" or "crop".

    Raises:
        SpineError: if the patient is not held out.
    """
    if name not in HELD_OUT:
        raise SpineError(f"{name!r} is not held out: choose {' or '.join(HELD_OUT)}.")
    data = course_case(name)
    probability = {
        MODEL_NAMES[model]: load_probability(model, name, data.ct) for model in PRETRAINED
    }
    return HeldOut(data, probability)
