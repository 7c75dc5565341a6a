"""What the shipped models say of the two patients that they have never seen."""

from __future__ import annotations

from dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.course.lesson_data import course_case
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData
from spine_lib.training.pretrained import PRETRAINED, load_pretrained, load_probability
from spine_lib.volumes.masks import predict_volume

HELD_OUT = ("dicom", "crop")
MODEL_NAMES = {"unet_light": "U-Net", "deeplabv3plus_light": "DeepLabv3+"}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Hold a case that no model was trained on.

    Attributes:
        data: scan, labels and ignore region.
        probability: float32 probability of spine on the scan's grid, by the name of the model as
            lessons call it ("U-Net", "DeepLabv3+").
        note: empty for the real patient; else what stands in for it and why.
    """

    data: CaseData
    probability: dict[str, Volume]
    note: str


def held_out_case(name: str) -> HeldOut:
    """Load a held-out patient with what both shipped models predict.

    Predictions are stored with the library; where a phantom stands in for the patient they are
    made, which takes some seconds.

    Args:
        name: "dicom" or "crop".

    Raises:
        SpineError: if the patient is not held out.
    """
    if name not in HELD_OUT:
        raise SpineError(f"{name!r} is no held-out patient: choose {' or '.join(HELD_OUT)}.")
    data, note = course_case(name)
    probability = {}
    for model in PRETRAINED:
        if note:
            network, recipe = load_pretrained(model)
            found = predict_volume(network, data.ct, recipe, device="cpu")
        else:
            found = load_probability(model, name, data.ct)
        probability[MODEL_NAMES[model]] = found
    return HeldOut(data, probability, note)
