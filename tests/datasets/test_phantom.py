"""The phantom: same seed same patient, exact labels, intensities like a CT's."""

import pickle

import numpy as np
import pytest
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations import CANONICAL, HEAD_TO_FOOT, check_annotation, to_regions
from spine_lib.datasets import make_phantom, phantom_cases
from spine_lib.datasets.phantom import TISSUES
from spine_lib.datasets.phantom.grid import VoxelGrid, ellipsoid
from spine_lib.datasets.phantom.scan import Phantom, draw_patient, scan_noise
from spine_lib.datasets.phantom.spine import build_column

SMALL = {"shape": (40, 44, 36), "spacing_mm": 4.0}


@pytest.fixture(scope="module")
def lumbar():
    """Mid-lumbar spine at 2 mm with its tissues, no contrast medium, little noise."""
    options = {"levels": ("L1", "L4"), "contrast": False, "noise_hu": 5.0, "kernel": "standard"}
    return make_phantom(
        11, (128, 120, 80), 2.0, tissues=True, scoliosis_deg=0.0, degenerative=0.1, **options
    )


@pytest.fixture(scope="module")
def whole():
    """The whole spine at 4 mm."""
    return make_phantom(5, (64, 64, 176), 4.0)


def test_the_same_seed_gives_the_same_patient_and_another_seed_another():
    first = make_phantom(3, **SMALL)
    np.random.seed(0)  # noqa: NPY002 - the point is that it has no effect
    again, other = make_phantom(3, **SMALL), make_phantom(4, **SMALL)
    for name, dtype in (("ct", np.int16), ("labels", np.uint8), ("ignore", bool)):
        volume, same = getattr(first, name), getattr(again, name)
        assert volume.array.dtype == dtype and np.array_equal(volume.array, same.array)
        assert volume.shape == SMALL["shape"] and volume.spacing_mm == (4.0, 4.0, 4.0)
        assert np.array_equal(volume.affine, first.ct.affine)
        assert np.array_equal(volume.affine, same.affine)
    assert (first.ct.array != other.ct.array).mean() > 0.5 and not first.ignore.array.any()


@pytest.mark.parametrize("seed", range(3))
def test_a_stack_of_480_mm_shows_all_four_regions(seed):
    labels = make_phantom(seed, (32, 32, 96), 5.0).labels.array
    assert np.unique(to_regions(labels)).tolist() == [0, 1, 2, 3, 4]


def test_a_whole_spine_has_its_vertebrae_in_order_and_passes_the_annotation_check(whole):
    labels = whole.labels.array
    expected = {i for i, name in CANONICAL.items() if name not in ("L6", "T13")}
    present = [i for i in HEAD_TO_FOOT if (labels == i).any()]
    assert expected <= set(present)
    heights = [np.argwhere(labels == i)[:, 2].mean() for i in present]
    assert np.all(np.diff(heights) < 0)
    findings = check_annotation(whole.ct, whole.labels)
    assert [f for f in findings if f.severity == "error"] == []


@pytest.mark.parametrize("extra", ["T13", "L6"])
def test_an_extra_vertebra_lies_where_it_belongs(extra):
    patient = draw_patient(Phantom(seed=0, shape=(8, 8, 8), spacing_mm=8, extra=extra))
    column = build_column(patient, 1.0, np.random.default_rng(0))
    names = [v.name for v in column]
    above, below = {"T13": ("T12", "L1"), "L6": ("L5", "S1")}[extra]
    index = names.index(extra)
    assert (names[index - 1], names[index + 1]) == (above, below)
    assert CANONICAL[column[index].label] == extra


def test_every_vertebra_is_in_one_piece(lumbar):
    for label in (20, 21, 22, 23):
        pieces, count = ndimage.label(lumbar.labels.array == label, np.ones((3, 3, 3)))
        largest = np.bincount(pieces.ravel())[1:].max()
        assert largest / np.count_nonzero(pieces) > 0.99, (label, count)


@pytest.mark.parametrize(
    ("tissue", "low", "high"),
    [
        ("fat", -125, -70),
        ("muscle", 25, 80),
        ("organ", 20, 80),
        ("bowel", -30, 90),
        ("vessel", 20, 80),
        ("disc", 55, 130),
        ("canal", 0, 60),
        ("spine", 120, 500),
    ],
)
def test_tissues_have_the_intensities_of_a_plain_ct(lumbar, tissue, low, high):
    inside = lumbar.tissues.array == TISSUES[tissue]
    inside &= lumbar.ct.array > -200  # gas next to a bowel wall
    assert inside.sum() > 50
    assert low < np.median(lumbar.ct.array[inside]) < high


def test_lungs_are_air_with_some_tissue_in_it():
    case = make_phantom(2, (80, 80, 40), 4.0, levels=("T5", "T9"), tissues=True, noise_hu=5.0)
    lung = ndimage.binary_erosion(case.tissues.array == TISSUES["lung"])
    lung &= case.ct.array >= -1000  # not the padding outside a round field of view
    values = case.ct.array[lung]
    assert lung.sum() > 1000
    assert -920 < np.median(values) < -740
    assert np.percentile(values, 99.5) > np.median(values) + 150


def test_contrast_medium_brightens_the_aorta():
    means = {}
    for contrast in (False, True):
        case = make_phantom(
            2, (64, 64, 30), 3.0, levels=("L1", "L3"), tissues=True, contrast=contrast
        )
        vessel = ndimage.binary_erosion(case.tissues.array == TISSUES["vessel"])
        means[contrast] = case.ct.array[vessel].mean()
    assert means[False] < 80
    assert means[True] > means[False] + 40


def test_bone_is_denser_outside_than_inside(lumbar):
    spine = lumbar.labels.array == 21
    core = ndimage.binary_erosion(spine, iterations=4)
    shell = spine & ~ndimage.binary_erosion(spine)
    assert core.sum() > 30
    assert 60 < lumbar.ct.array[core].mean() < 320
    assert np.percentile(lumbar.ct.array[shell], 75) > lumbar.ct.array[core].mean() + 60


def test_labels_do_not_depend_on_density_or_scan_and_less_trabecular_bone_is_darker():
    grid = {"shape": (40, 40, 30), "spacing_mm": 3.0, "levels": ("T7", "T9")}
    clean = {"noise_hu": 0.0, "kernel": "sharp", "contrast": True}
    noisy = {"noise_hu": 80.0, "kernel": "smooth", "contrast": False}
    dense = make_phantom(8, **grid, **clean, trabecular_hu=280)
    porous = make_phantom(8, **grid, **noisy, trabecular_hu=60)
    assert dense.labels.array.any() and np.array_equal(dense.labels.array, porous.labels.array)
    spine = ndimage.binary_erosion(dense.labels.array > 0)
    assert porous.ct.array[spine].mean() < dense.ct.array[spine].mean() - 80


def test_finer_voxels_keep_the_volume_in_ml():
    volumes = []
    for spacing, shape in ((3.0, (34, 40, 40)), (1.5, (68, 80, 80))):
        case = make_phantom(9, shape, spacing, levels=("L1", "L3"), extra="")
        counts = np.bincount(case.labels.array.ravel(), minlength=30)
        volumes.append(counts[[20, 21, 22]] * spacing**3 / 1000)
    assert volumes[0] == pytest.approx(volumes[1], rel=0.04)
    assert 20 < volumes[1][1] < 90  # a lumbar vertebra, in ml


def test_thick_slices_are_sampled_at_their_middle_and_averaged():
    places = {"levels": ("L1", "L3"), "noise_hu": 0.0, "extra": ""}
    thick = make_phantom(9, (60, 60, 24), (2.0, 2.0, 6.0), **places)
    assert thick.ct.spacing_mm == pytest.approx((2.0, 2.0, 6.0))
    assert thick.ct.array.shape == (60, 60, 24)
    fine = make_phantom(9, (60, 60, 72), 2.0, **places)
    assert np.array_equal(thick.labels.array, fine.labels.array[:, :, 1::3])
    mean = fine.ct.array.reshape(60, 60, 24, 3).mean(axis=3)
    assert np.abs(mean - thick.ct.array).mean() < 6
    assert np.allclose(thick.ct.affine[:3, 3], fine.ct.affine[:3, 3] + [0, 0, 2.0])


def test_levels_say_where_the_stack_lies():
    case = make_phantom(1, (48, 48, 90), 3.0, levels=("T10", "L4"), extra="")
    seen = set(np.unique(case.labels.array).tolist()) - {0}
    assert set(range(17, 24)) <= seen
    assert not seen & set(range(1, 14))


def test_a_tight_field_of_view_is_narrow_and_holds_the_vertebral_bodies():
    case = make_phantom(2, (160, 160, 60), 2.0, levels=("L1", "L3"), tight=True)
    nx, ny, nz = case.ct.array.shape
    assert nx < 120 and ny < 120 and nz == 60
    middle = np.argwhere(case.labels.array == 21).mean(axis=0)
    assert (np.abs(middle - np.array([nx, ny, nz]) / 2) < np.array([nx, ny, nz]) / 3).all()


@pytest.mark.parametrize("seed", range(8))
def test_any_seed_gives_values_that_a_scanner_could_give(seed):
    case = make_phantom(seed, (36, 36, 20), 5.0)
    image, labels = case.ct.array, case.labels.array
    assert set(np.unique(labels).tolist()) <= {0, *CANONICAL}
    assert labels.any()
    assert image.min() >= -3024 and image.max() <= 3071
    assert not labels[image < -1024].any()
    assert image[labels > 0].mean() > 100 + image[(labels == 0) & (image > -200)].mean()


def test_noise_is_grainy_not_white():
    noise = scan_noise((64, 64, 20), (1.0, 1.0, 3.0), 0.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.03)
    power = (np.abs(np.fft.fft2(noise, axes=(0, 1))) ** 2).mean(axis=2)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    ring = [power[(radius >= a) & (radius < a + 0.05)].mean() for a in (0.01, 0.2, 0.45)]
    assert ring[1] > 2 * ring[0]
    assert ring[1] > 2 * ring[2]


def test_a_filled_ball_has_the_label_and_the_partial_volume_of_a_ball():
    grid = VoxelGrid((24, 24, 24), (1.0, 1.0, 1.0), np.full(3, -11.5))
    block = grid.block((-10, -10, -10), (10, 10, 10))
    distance = ellipsoid(*block.around((0.3, 0.1, -0.2)), (8.0, 8.0, 8.0))
    grid.fill_vertebra(block, distance, 7, 0.0, 0.0, 0.0)
    x, y, z = np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij")
    inside = np.sqrt((x - 0.3) ** 2 + (y - 0.1) ** 2 + (z + 0.2) ** 2) < 8
    assert np.array_equal(grid.labels == 7, inside)
    assert ((grid.hu + 1000) / 1000).sum() == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.01)


def test_cases_carry_their_options_and_survive_pickling():
    cases = phantom_cases(2, seed=40, shape=[32, 32, 24], spacing_mm=4.0, levels=["L1", "L3"])
    assert [c.case_id for c in cases] == ["phantom-0040", "phantom-0041"]
    assert len({c.patient_id for c in cases}) == 2
    again = pickle.loads(pickle.dumps(cases[1]))
    assert again == cases[1] and hash(again) == hash(cases[1])
    direct = make_phantom(41, (32, 32, 24), 4.0, levels=("L1", "L3"))
    assert np.array_equal(again.load().ct.array, direct.ct.array)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"shape": (10, 10, 0)}, "shape"),
        ({"spacing_mm": 0}, "spacing_mm"),
        ({"spacing_mm": float("nan")}, "spacing_mm"),
        ({"colour": 1}, "colour"),
        ({"kernel": "blurry"}, "kernel"),
        ({"noise_hu": -3}, "noise_hu"),
        ({"extra": "L7"}, "extra"),
        ({"levels": ("T12", "T30")}, "T30"),
        ({"levels": ("L4", "T10")}, "upper one first"),
    ],
)
def test_a_bad_argument_is_named(arguments, named):
    with pytest.raises(SpineError, match=named):
        make_phantom(**{"seed": 0, "shape": (16, 16, 16), "spacing_mm": 4.0, **arguments})


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1.5}, {"count": 1, "hue": 3}])
def test_bad_arguments_of_cases_are_named_before_anything_is_generated(options):
    with pytest.raises(SpineError, match=list(options)[-1]):
        phantom_cases(**options)
