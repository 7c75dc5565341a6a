"""The patches and whole slices that are read from a store."""

import pickle

import numpy as np
import pytest
import torch

from spine_lib.datasets import phantom_cases
from spine_lib.slices import (
    Augmentation,
    Draw,
    SliceStore,
    TrainingSlices,
    WholeSlices,
    network_input,
    prepare,
)
from spine_lib.training.loading import training_loader
from spine_lib.training.recipe import Recipe

SMALL = {"shape": (40, 40, 20), "spacing_mm": 6.0}
RECIPE = Recipe(
    steps=8, steps_per_epoch=4, batch=3, workers=0, augmentation=Augmentation(size=32), seed=5
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SliceStore:
    return prepare(phantom_cases(3, **SMALL), tmp_path_factory.mktemp("s"), spacing_mm=6.0)


def test_a_case_is_cut_along_every_plane_and_never_mirrored_from_the_side(tmp_path):
    cases = phantom_cases(1, **SMALL)
    both = prepare(cases, tmp_path, ("axial", "sagittal"), 6.0)
    assert [(v.plane, v.shape) for v in both.volumes] == [
        ("axial", (20, 40, 40)),
        ("sagittal", (40, 20, 40)),
    ]
    slices = TrainingSlices(both, RECIPE.augmentation)
    mirrored = []

    def augmenter(pixels, seeds, mirror):
        mirrored.append(mirror)
        return np.zeros((32, 32, 1), np.float32), np.zeros((32, 32), np.uint8)

    slices.augmenter = augmenter
    slices[Draw(0, 3)], slices[Draw(1, 3)]
    assert mirrored == [True, False]


def test_a_patch_depends_on_its_draw_and_the_seed_alone(store):
    slices = TrainingSlices(store, RECIPE.augmentation, seed=1)
    copy = pickle.loads(pickle.dumps(slices))
    first = slices[Draw(0, 9, 0, 3)]
    for part, other in zip(first, copy[Draw(0, 9, 0, 3)]):
        assert torch.equal(part, other)
    for draw in (Draw(0, 9, 0, 4), Draw(0, 9, 1, 3)):
        assert not torch.equal(first[0], slices[draw][0])
    other = TrainingSlices(store, RECIPE.augmentation, seed=2)
    assert not torch.equal(first[0], other[Draw(0, 9, 0, 3)][0])


def test_worker_processes_make_the_same_patches_and_never_the_same_one_twice(store):
    alone = [batch[0] for batch in training_loader(store, RECIPE)]
    helped = [batch[0] for batch in training_loader(store, RECIPE.changed(workers=2))]
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    patches = torch.cat(alone)
    assert len({patch.numpy().tobytes() for patch in patches}) == len(patches) == 12


def test_neighbours_are_channels_before_and_behind(store):
    alone = WholeSlices(store)[9][0]
    before, behind = WholeSlices(store)[7][0], WholeSlices(store)[11][0]
    three = WholeSlices(store, neighbour_mm=12.0)[9][0]
    assert torch.equal(three, torch.cat([before, alone, behind]))
    first = WholeSlices(store, neighbour_mm=12.0)[0][0]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    patch = TrainingSlices(store, RECIPE.augmentation, neighbour_mm=12.0)[Draw(0, 9)]
    assert patch[0].shape == (3, 32, 32) and patch[1].shape == (1, 32, 32)


def test_whole_slices_mark_their_padding_as_unknown(store):
    slices = WholeSlices(store, every=5)
    image, target, weight = slices[1]
    assert image.shape == (1, 64, 64) and len(slices) == 12
    assert weight[0, :40, :40].min() == 1 and weight[0, 40:].max() == 0
    assert torch.equal(target[0, :40, :40] > 0, torch.from_numpy(store.read(0)[5]["label"] > 0))
    assert np.allclose(image[0, :40, :40], network_input(store.read(0)[5]["hu"]))
