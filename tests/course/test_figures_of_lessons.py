"""The names and arrows of lesson 0 hit what they name."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from spine_lib.course import course_case
from spine_lib.course.figures import PARTS_OF_L3, picture_place, show_parts, show_regions
from spine_lib.ct.volume import load_mask
from spine_lib.datasets import sample_cases
from spine_lib.explore import render

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


def test_every_arrow_on_the_real_vertebra_hits_the_subregion_of_its_name(sample_root):
    (crop,) = (case for case in sample_cases(sample_root) if case.case_id == "crop")
    subregions = load_mask(crop.mask_path.with_name("subregions.nii.gz")).array
    axial, sagittal = PARTS_OF_L3["axial"], PARTS_OF_L3["sagittal"]
    assert len({voxel[2] for voxel in axial.values()}) == 1
    assert len({voxel[0] for voxel in sagittal.values()}) == 1
    assert set(axial) | set(sagittal) == set(SUBREGIONS)
    for name, voxel in (*axial.items(), *sagittal.items()):
        assert int(subregions[voxel]) in SUBREGIONS[name], name


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


def test_every_part_gets_its_name(sample_root):
    _, axes = plt.subplots()
    show_parts(axes, course_case("crop").ct, PARTS_OF_L3["axial"], "axial")
    assert set(PARTS_OF_L3["axial"]) <= {text.get_text() for text in axes.texts}
    plt.close()
