"""Look at what the two models that come with the library say of a patient they never saw."""

from __future__ import annotations

from typing import Any

from spine_lib import SpineError
from spine_lib.datasets.sample import sample_cases
from spine_lib.explore.compare import CompareViewer
from spine_lib.training.pretrained import load_probability


def compare_shipped(case_id: str = "crop", **options: Any) -> CompareViewer:
    """Compare the shipped U-Net and DeepLabv3+ with the truth on a held-out patient.

    Their stored probabilities are shown, so nothing has to be predicted.

    Args:
        case_id: "crop" or "dicom".
        options: as for `CompareViewer`: plane, index, window, size_px.

    Raises:
        SpineError: if the sample was not fetched, or the case is none of the two.

    Example:
        >>> compare_shipped("crop", plane="sagittal")  # doctest: +SKIP
    """
    held_out = {case.case_id: case for case in sample_cases() if case.split == "test"}
    if case_id not in held_out:
        raise SpineError(
            f"there are no stored predictions for {case_id!r}: use {' or '.join(held_out)}"
        )
    data = held_out[case_id].load()
    first, second = (
        load_probability(name, case_id, data.ct) for name in ("unet_light", "deeplabv3plus_light")
    )
    return CompareViewer(
        data.ct,
        data.labels,
        first,
        second,
        ("U-Net", "DeepLabv3+"),
        ignore=data.ignore,
        case_id=case_id,
        **options,
    )
