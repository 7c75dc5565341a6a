"""Augmentation moves image and mask together and keeps labels labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib.slices.augment import (
    FIRST_SPINE_CLASS,
    INPUT_RANGE_HU,
    LABEL_OF_CLASS,
    Augmentation,
    TrainingAugmenter,
    classes_of,
    narrow_view,
    network_input,
    redraw_tissues,
)
from spine_lib.slices.cut import AIR_HU, IGNORE, SLICE_DTYPE, UNLABELLED_TISSUE

STEPS = ("elastic", "redraw", "narrow_view", "contrast", "sharpness", "coarse", "noise")
NOTHING = Augmentation(size=64, centred=1.0, **dict.fromkeys(STEPS, 0))


@pytest.fixture
def pixels() -> np.ndarray:
    """A bright square vertebra in soft tissue, an ignored corner of it, and an organ."""
    array = np.zeros((120, 100, 1), SLICE_DTYPE)
    array["hu"], array["tissue"] = 40, UNLABELLED_TISSUE + 4
    array["hu"][40:70, 30:60] = 700
    array["label"][40:70, 30:60] = 21
    array["label"][40:50, 30:40] = IGNORE
    array["hu"][80:100, 20:50], array["tissue"][80:100, 20:50] = 120, 5
    return array


@given(st.integers(0, 2**32))
def test_image_and_mask_move_together(seed):
    array = np.zeros((120, 100, 1), SLICE_DTYPE)
    array["hu"][40:70, 30:60], array["label"][40:70, 30:60] = 700, 21
    wish = NOTHING.changed(elastic=1.0)
    image, label = TrainingAugmenter(wish)(array, np.random.SeedSequence(seed))
    bright, bone = image[..., 0] > 350, label == 21
    assert set(np.unique(label)) <= {0, 21}
    if bone.sum() > 100:
        assert 2 * (bright & bone).sum() / (bright.sum() + bone.sum()) > 0.93


def test_mirroring_happens_half_the_time_or_never(pixels):
    still = NOTHING.changed(zoom=(1.0, 1.0), rotation_degrees=0, size=96)
    augmenter = TrainingAugmenter(still)

    def organ_is_left(seed, mirror):
        image, label = augmenter(pixels, np.random.SeedSequence(seed), mirror)
        return np.nonzero(label == IGNORE)[1].mean() < np.nonzero(label == 21)[1].mean()

    assert all(organ_is_left(seed, mirror=False) for seed in range(20))
    assert 5 < sum(organ_is_left(seed, mirror=True) for seed in range(20)) < 15


def test_every_step_at_once_leaves_labels_and_range_valid(pixels):
    augmenter = TrainingAugmenter(
        Augmentation(size=64, redraw=1, elastic=1, noise=1, coarse=1, contrast=1, sharpness=1)
    )
    for seed in range(30):
        image, label = augmenter(pixels.repeat(3, axis=2), np.random.SeedSequence(seed))
        assert image.shape == (64, 64, 3) and label.shape == (64, 64)
        assert image.dtype == np.float32 and label.dtype == np.uint8
        assert np.isfinite(image).all()
        assert set(np.unique(label)) <= {0, 21, IGNORE}


def test_classes_keep_labels_ignore_and_tissue(pixels):
    classes = classes_of(pixels)
    assert np.array_equal(LABEL_OF_CLASS[classes], pixels["label"])
    assert classes[90, 30, 0] == 5 and classes[60, 50, 0] == FIRST_SPINE_CLASS + 21


@pytest.mark.parametrize("fully", [False, True])
def test_redrawing_changes_tissues_but_not_their_outlines(pixels, fully):
    classes = classes_of(pixels)
    image = pixels["hu"].astype(np.float32)
    drawn = [redraw_tissues(image, classes, np.random.default_rng(s), fully) for s in range(8)]
    bone = [d[55:65, 45:55].mean() for d in drawn]
    organ = [d[85:95, 30:40].mean() for d in drawn]
    assert np.std(bone) > 20 and np.std(organ) > 10
    assert abs(np.corrcoef(bone, organ)[0, 1]) < 0.98


def test_a_narrow_view_blanks_image_and_label_outside_a_rectangle():
    image, label = np.full((64, 64, 1), 100, np.float32), np.ones((64, 64), np.uint8)
    narrow_view(image, label, np.random.default_rng(0))
    assert np.array_equal(image[..., 0] == AIR_HU, label == 0)
    rows, columns = np.nonzero(label)
    assert 0 < len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) < 64 * 64


def test_the_networks_see_fat_to_bone():
    low, high = INPUT_RANGE_HU
    assert network_input(np.array([-3000, low, high, 3000])).tolist() == [-1.5, -1.5, 2.5, 2.5]
