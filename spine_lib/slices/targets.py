"""Lesson 6: what a network is taught to tell apart: spine from background, or the four regions.

With the target "spine" a network has one output, the logit of spine. With "regions" it has one for
the background and one for each region, and the largest wins. Whatever it is taught, a network can
be asked for the spine alone: that is every class but the background.
"""

from __future__ import annotations

import numpy as np
import torch

from spine_lib.annotations.schemes import REGIONS, to_regions
from spine_lib.slices.cut import IGNORE

TARGETS: dict[str, int] = {"spine": 1, "regions": 1 + len(REGIONS)}
"""What a network may be taught, and how many outputs it then has."""


def to_target(label: np.ndarray, target: str = "spine") -> np.ndarray:
    """Turn stored labels into the classes that a network is taught.

    Args:
        label: canonical vertebra ids, `slices.IGNORE` where nothing is known; any shape.
        target: key of `TARGETS`.

    Returns:
        uint8 of the same shape: 1 for spine, or the region's id from 1 to 4; 0 for background and
        for what is not known.
    """
    known = np.where(label == IGNORE, 0, label)
    return to_regions(known) if target == "regions" else (known > 0).astype(np.uint8)


def spine_logit(logits: torch.Tensor) -> torch.Tensor:
    """Return the logit of spine, whatever a network was taught.

    Args:
        logits: [batch, class, row, column].

    Returns:
        [batch, 1, row, column]; above 0 where spine is likelier than background, since its
        probability is one less that of the background.
    """
    if logits.shape[1] == 1:
        return logits
    return torch.logsumexp(logits[:, 1:], 1, keepdim=True) - logits[:, :1]


def class_map(logits: torch.Tensor) -> torch.Tensor:
    """Return which class each pixel is given: background unless spine is likelier than it.

    Of the classes that are spine the likeliest is taken, as `volumes.predict_regions` does.

    Args:
        logits: [batch, class, row, column].

    Returns:
        int64 [batch, 1, row, column]: 0 for background, 1 for spine or the region's id.
    """
    spine = spine_logit(logits) > 0
    if logits.shape[1] == 1:
        return spine.long()
    return torch.where(spine, logits[:, 1:].argmax(1, keepdim=True) + 1, 0)
