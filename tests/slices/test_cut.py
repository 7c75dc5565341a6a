"""Cutting volumes into slices, and splitting by patient."""

import numpy as np

from spine_lib.ct.volume import Volume
from spine_lib.datasets import CaseData
from spine_lib.slices.cut import (
    AIR_HU,
    IGNORE,
    UNLABELLED_TISSUE,
    cut_slices,
)


def test_cutting_keeps_hu_labels_ignore_and_tissue_of_each_voxel():
    array = np.full((6, 4, 3), 40, np.int16)
    array[0] = -3024
    labels = np.zeros(array.shape, np.uint8)
    labels[2, 1, 1] = 21
    ignore = np.zeros(array.shape, bool)
    ignore[3, 1, 1] = True
    organs = np.zeros(array.shape, np.uint8)
    organs[5, 3, 2] = 7
    volume = Volume(array, np.eye(4))
    data = CaseData(volume, volume.with_array(labels), volume.with_array(ignore))
    slices = cut_slices(data, "axial", 1.0, volume.with_array(organs))
    stored = slices[:, ::-1, ::-1].transpose(2, 1, 0)
    assert stored["hu"][0].max() == AIR_HU and stored["hu"][1:].min() == 40
    assert stored["label"][2, 1, 1] == 21 and stored["label"][3, 1, 1] == IGNORE
    assert np.count_nonzero(stored["label"]) == 2
    assert stored["tissue"][5, 3, 2] == 7
    assert stored["tissue"][0, 0, 0] == UNLABELLED_TISSUE
    assert stored["tissue"][1, 0, 0] > UNLABELLED_TISSUE
