"""The ids that a mask's file really holds, which `Case.load` has already turned into canonical."""

from __future__ import annotations

import numpy as np

from spine_lib.annotations.schemes import SCHEMES
from spine_lib.ct.volume import Volume, load_mask
from spine_lib.datasets.case import CaseData


def file_labels(data: CaseData, scheme: str = "totalsegmentator") -> Volume:
    """Load a case's label map with the ids of its file, other organs included.

    Args:
        data: a loaded case.
        scheme: of the file; a phantom, which has no file, gets this scheme's ids.

    Returns:
        Label map [x, y, z] on the grid of the case.
    """
    if data.labels.path is not None:
        return load_mask(data.labels.path)
    ids = np.zeros(256, np.uint8)
    for label, vertebra in SCHEMES[scheme].canonical.items():
        if not ids[vertebra]:  # of two ids for one bone, such as sacrum and S1, the first
            ids[vertebra] = label
    return data.labels.with_array(ids[data.labels.array])
