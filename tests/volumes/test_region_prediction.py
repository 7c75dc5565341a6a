"""Region ids of a whole scan: the network's own answer, over flips and planes, in little memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.cli import main
from spine_lib.ct.volume import Volume, load_mask, save_nifti
from spine_lib.slices.augment import Augmentation
from spine_lib.training.recipe import Recipe
from spine_lib.volumes import predict
from spine_lib.volumes.masks import largest_component
from spine_lib.volumes.predict import predict_mask, predict_regions, predict_volume

RECIPE = Recipe(
    target="regions",
    spacing_mm=1.5,
    augmentation=Augmentation(size=32),
    precision="32-true",
    largest_component=False,
)
STEPS_HU = (-50, 200, 400, 600, 800)
"""HU of background and of the four regions in the scans below."""


class ByBrightness(nn.Module):
    """Give each pixel the class whose HU are nearest, the less sure the softer."""

    def __init__(self, sharp: float = 60.0):
        super().__init__()
        centres = [(hu + 250) * 4 / 1250 - 1.5 for hu in STEPS_HU]
        self.register_buffer("centres", torch.tensor(centres).view(1, -1, 1, 1))
        self.sharp = sharp

    def forward(self, image):
        return -self.sharp * (image - self.centres) ** 2


def scan(shape=(32, 40, 12), spacing=(1.5, 1.5, 1.5)) -> Volume:
    random = np.random.default_rng(0)
    array = np.full(shape, -50, np.int16)
    x, y, z = (n // 4 for n in shape)
    for number, hu in enumerate(STEPS_HU[1:]):
        array[x : 3 * x, y + number * y // 2 : y + (number + 1) * y // 2, z : 3 * z] = hu
    return Volume(array + random.integers(-40, 40, shape, np.int16), np.diag([*spacing, 1.0]))


def classes_of(ct: Volume) -> np.ndarray:
    return np.abs(ct.array[..., None] - np.array(STEPS_HU)).argmin(-1)


def test_the_probability_is_that_of_any_region_and_the_same_as_without_names():
    ct, soft = scan(), ByBrightness(3.0)
    probability, likeliest = predict_regions(soft, ct, RECIPE, "cpu")
    plain = predict_volume(soft, ct, RECIPE, "cpu")
    assert plain.array.dtype == np.float32 and np.array_equal(probability.array, plain.array)
    hu = torch.from_numpy(ct.array.astype(np.float32)).view(1, 1, -1, 1)
    by_hand = soft((hu + 250) * 4 / 1250 - 1.5).softmax(1).reshape(5, *ct.shape).numpy()
    assert np.allclose(probability.array, 1 - by_hand[0], atol=1e-5)
    assert np.array_equal(likeliest.array, by_hand[1:].argmax(0) + 1)


def test_a_voxel_that_is_surely_spine_and_doubtfully_named_is_spine():
    class Doubtful(nn.Module):
        def forward(self, image):
            logits = torch.tensor([1.0, 0.0, 0.6, 0.9, 0.0]).view(1, 5, 1, 1)
            return logits.expand(len(image), 5, *image.shape[2:])

    ct = scan(shape=(8, 8, 3))
    found = predict_mask(Doubtful(), ct, RECIPE, "cpu")[1]
    assert (found.array == 3).all()  # the background has the highest single probability


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_regions_lie_on_the_scans_own_grid_in_every_plane(plane):
    ct = scan(shape=(50, 61, 18), spacing=(1.2, 1.0, 3.0))
    recipe = RECIPE.changed(planes=(plane,))
    named = predict_mask(ByBrightness(), ct, recipe, "cpu")[1]
    assert named.shape == ct.shape
    spine = classes_of(ct) > 0
    assert (named.array == classes_of(ct))[spine].mean() > 0.8


def test_over_several_planes_the_mean_probability_decides():
    """By hand, of a network that is asked for one class after another."""
    ct, planes = scan(shape=(24, 28, 16), spacing=(1.2, 1.0, 3.0)), ("axial", "coronal", "sagittal")
    recipe = RECIPE.changed(planes=planes)
    probability, likeliest = predict_regions(ByBrightness(3.0), ct, recipe, "cpu")
    sums = []
    for place in range(5):

        class One(ByBrightness):
            def forward(self, image, place=place):
                return torch.logit(super().forward(image).softmax(1)[:, [place]], eps=1e-6)

        sums.append(predict_volume(One(3.0), ct, recipe, "cpu").array)
    assert np.allclose(probability.array, 1 - sums[0], atol=1e-4)
    first, second = np.sort(np.array(sums[1:]), axis=0)[[-1, -2]]
    clear = first - second > 2e-4  # sums are kept in 16 bits
    assert clear.mean() > 0.95
    assert np.array_equal(likeliest.array[clear], (np.argmax(sums[1:], axis=0) + 1)[clear])
    single = predict_regions(ByBrightness(3.0), ct, RECIPE, "cpu")[1].array
    assert not np.array_equal(single, likeliest.array)


def test_the_mirror_image_has_its_say_in_the_name():
    class LeftRight(nn.Module):
        """Call what is on one side cervical, surely, and the other side thoracic, less surely."""

        def forward(self, image):
            ramp = torch.linspace(-1, 1, image.shape[-1]).expand_as(image)
            zero = torch.zeros_like(ramp)
            cervical, thoracic = torch.where(ramp < 0, 4.0, 0.0), torch.where(ramp > 0, 3.0, 0.0)
            return torch.cat([zero - 5, cervical, thoracic, zero, zero], 1)

    ct = scan(shape=(32, 32, 3))
    alone = predict_regions(LeftRight(), ct, RECIPE.changed(flip=False), "cpu")[1].array
    both = predict_regions(LeftRight(), ct, RECIPE, "cpu")[1].array
    assert set(np.unique(alone)) == {1, 2} and set(np.unique(both)) == {1}


def test_cleaning_takes_regions_away_with_the_mask_and_renames_nothing():
    ct = scan()
    ct.array[1:3, 1:3, 1:3] = 800  # a piece of its own
    recipes = RECIPE, RECIPE.changed(largest_component=True)
    whole, clean = (predict_mask(ByBrightness(), ct, r, "cpu")[1].array for r in recipes)
    assert (whole[1:3, 1:3, 1:3] == 4).all() and not clean[1:3, 1:3, 1:3].any()
    kept = largest_component(whole > 0)
    assert np.array_equal(clean, np.where(kept, whole, 0)) and kept.sum() < (whole > 0).sum()


def test_a_network_for_the_spine_names_no_regions():
    with pytest.raises(SpineError, match="names no regions: use predict_volume"):
        predict_regions(ByBrightness(), scan(), RECIPE.changed(target="spine"), "cpu")


def peak_bytes(ask, ct, recipe) -> float:
    """Return the most that was asked of NumPy beyond what was there, per voxel."""
    ask(ByBrightness(), scan(shape=(8, 8, 8)), recipe, "cpu")  # what is loaded once
    tracemalloc.start()
    ask(ByBrightness(), ct, recipe, "cpu", batch=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / ct.array.size


@pytest.mark.parametrize(("planes", "most"), [(("axial",), 1.5), (("axial", "coronal"), 9.5)])
def test_names_cost_a_byte_a_voxel_and_with_several_planes_two_more_a_region(planes, most):
    """Four more volumes of float32 would be 16."""
    ct = scan(shape=(96, 96, 96))
    recipe = RECIPE.changed(planes=planes)
    more = peak_bytes(predict_regions, ct, recipe) - peak_bytes(predict_volume, ct, recipe)
    assert 0.5 < more < most


def test_the_command_writes_ids_and_says_what_they_mean(tmp_path, capsys, monkeypatch):
    stored = SimpleNamespace(network=ByBrightness(), recipe=RECIPE, data=None)
    monkeypatch.setattr(predict, "read_checkpoint", lambda path: stored)
    save_nifti(scan(), tmp_path / "ct.nii.gz")
    out = tmp_path / "mask.nii.gz"
    arguments = [str(tmp_path / "ct.nii.gz"), "--checkpoint", "w.safetensors", "--out", str(out)]
    with pytest.raises(SystemExit) as leaving:
        main(["predict", *arguments, "--device", "cpu"])
    assert leaving.value.code == 0
    said = capsys.readouterr().out
    assert "0 background, 1 cervical, 2 thoracic, 3 lumbar, 4 sacral" in said and str(out) in said
    assert np.array_equal(load_mask(out).array, classes_of(scan()))
