"""The names and arrows of lesson 0 hit what they name."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.course.anatomy import parts_of_vertebra, picture_place, show_parts, show_regions
from spine_lib.ct.volume import load_mask
from spine_lib.datasets import make_phantom, sample_cases
from spine_lib.explore import render

L3 = 22
# Ids of the sample's map of subregions: 41 arch, 42 spinous process, 43 and 44 transverse
# processes, 45 to 48 articular processes, 49 and 50 body; canal and discs are in none.
SUBREGIONS = {
    "vertebral body": {49, 50},
    "spinal canal": {0},
    "disc": {0},
    "pedicle": {41, 49},
    "lamina": {41},
    "transverse process": {43, 44},
    "spinous process": {42},
}


@pytest.fixture(scope="module")
def lumbar():
    return make_phantom(14, shape=(73, 73, 47), spacing_mm=1.5, levels=("L2", "L4"), tissues=True)


def test_every_arrow_on_the_real_vertebra_hits_the_subregion_of_its_name(sample_root):
    (crop,) = (case for case in sample_cases(sample_root) if case.case_id == "crop")
    subregions = load_mask(crop.mask_path.with_name("subregions.nii.gz")).array
    axial, sagittal = parts_of_vertebra(crop.load().labels, L3)
    assert set(axial) | set(sagittal) == set(SUBREGIONS)
    for name, voxel in (*axial.items(), *sagittal.items()):
        assert int(subregions[voxel]) in SUBREGIONS[name], name


@pytest.mark.parametrize("vertebra", [21, 22])
def test_parts_of_a_phantom_lie_in_the_tissue_of_their_name(lumbar, vertebra):
    from spine_lib.datasets.phantom import TISSUES

    axial, sagittal = parts_of_vertebra(lumbar.labels, vertebra)
    for name, voxel in (*axial.items(), *sagittal.items()):
        if name in ("spinal canal", "disc"):
            assert lumbar.tissues.array[voxel] == TISSUES[name.split()[-1]], name
        else:
            assert lumbar.labels.array[voxel] == vertebra, name


def test_parts_of_one_picture_lie_in_one_slice(lumbar):
    axial, sagittal = parts_of_vertebra(lumbar.labels, L3)
    assert len({voxel[2] for voxel in axial.values()}) == 1
    assert len({voxel[0] for voxel in sagittal.values()}) == 1


def test_a_vertebra_that_is_not_there_is_refused(lumbar):
    with pytest.raises(SpineError, match="C3 closes its ring in no axial slice"):
        parts_of_vertebra(lumbar.labels, 3)


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_a_place_in_the_picture_is_that_of_its_voxel(small_phantom, plane):
    spot = (40, 20, 30)
    array = np.full(small_phantom.ct.shape, -1000, np.int16)
    array[spot] = 3000
    volume = small_phantom.ct.with_array(array)
    index = spot[{"sagittal": 0, "coronal": 1, "axial": 2}[plane]]
    picture = render.render_slice(volume, index, plane, (400, 1800))[..., 0]
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    found = picture_place(volume, spot, plane, render.pixel_size_mm(volume, plane))
    assert found == pytest.approx((column, row), abs=0.5)


def test_each_region_in_a_slice_is_named_once(small_phantom):
    _, axes = plt.subplots()
    show_regions(axes, small_phantom.ct, small_phantom.labels)
    named = [text.get_text() for text in axes.texts]
    index = int((small_phantom.labels.array > 0).sum(axis=(1, 2)).argmax())
    ids = small_phantom.labels.array[index]
    assert named.count("lumbar") == int(((ids >= 20) & (ids <= 25)).any())
    assert named.count("thoracic") == int(((ids >= 8) & (ids <= 19)).any())
    plt.close()


def test_every_part_gets_its_name(lumbar):
    _, axes = plt.subplots()
    axial, _ = parts_of_vertebra(lumbar.labels, L3)
    show_parts(axes, lumbar.ct, axial, "axial")
    assert set(axial) <= {text.get_text() for text in axes.texts}
    plt.close()
