"""Lesson 3: from volumes to the slices that a 2-D network sees.

A volume is resampled in the plane of its slices: the image linearly, labels by nearest neighbour,
since a label between 3 and 5 is not 4.
"""

import numpy as np

from spine_lib.ct.geometry import (
    resample_image,
    resample_labels,
    resampled_shape,
    slice_spacing_mm,
    to_slices,
)
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData

IGNORE = 255  # label of voxels that leave both loss and scores
AIR_HU = -1024  # outside an image
# A stored pixel: HU, canonical vertebra id (255 = ignore), and class for redrawing tissues.
SLICE_DTYPE = np.dtype([("hu", "<i2"), ("label", "u1"), ("tissue", "u1")])
UNLABELLED_TISSUE = 200  # first tissue class of voxels without label, which these edges split
HU_EDGES = (-900, -400, -150, -20, 20, 120, 300)
AT_A_TIME = 32  # slices that are resampled at once


def cut_slices(data: CaseData, plane: str, spacing_mm: float, structures: Volume | None = None):
    """Return a case as slices of square pixels: `SLICE_DTYPE` [slice, row, column].

    Slices along a plane ("axial", "coronal" or "sagittal") keep their own distance. `structures` is
    a label map with other organs, for redrawing tissues.
    """
    image = to_slices(data.ct.array, plane)
    labels, ignore = (to_slices(v.array, plane) for v in (data.labels, data.ignore))
    organs = None if structures is None else to_slices(structures.array, plane)
    spacing_hw = slice_spacing_mm(data.ct.spacing_mm, plane)[1:]
    shape_hw = resampled_shape(image.shape[1:], spacing_hw, spacing_mm)
    stored = np.empty((len(image), *shape_hw), SLICE_DTYPE)
    for start in range(0, len(image), AT_A_TIME):  # little memory, however long the scan
        part = slice(start, start + AT_A_TIME)
        hu = np.clip(np.rint(resample_image(image[part], shape_hw)), AIR_HU, 32767)
        stored["hu"][part] = hu
        known = np.where(ignore[part], np.uint8(IGNORE), labels[part])
        stored["label"][part] = resample_labels(known, shape_hw)
        tissue = UNLABELLED_TISSUE + np.digitize(hu, HU_EDGES)
        if organs is not None:
            organ = resample_labels(organs[part], shape_hw)
            tissue = np.where((organ > 0) & (organ < UNLABELLED_TISSUE), organ, tissue)
        stored["tissue"][part] = tissue
    return stored


def with_neighbours(index: int, count: int, distance_mm: float, neighbour_mm: float) -> list[int]:
    """Return the indices of a slice's channels: it between its neighbours, or it alone for 0 mm.

    Of `count` slices the last one at an end stands for its missing neighbour.
    """
    if not neighbour_mm:
        return [index]
    step = max(1, round(neighbour_mm / distance_mm))
    return [min(max(i, 0), count - 1) for i in (index - step, index, index + step)]
