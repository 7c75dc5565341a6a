"""Augmentation of batches on the device: the same patches from the same seeds, exact masks."""

import lightning as L
import numpy as np
import pytest
import torch

from spine_lib import SpineError
from spine_lib.datasets import phantom_cases
from spine_lib.slices.augment import Augmentation
from spine_lib.slices.cut import AIR_HU, IGNORE
from spine_lib.slices.store import prepare_store
from spine_lib.training.device_augment import (
    PLAN,
    RawPatches,
    RawSlices,
    augment_batch,
    draw_plan,
    hashed_normal,
)
from spine_lib.training.loading import training_loader
from spine_lib.training.logs import read_log
from spine_lib.training.module import Segmenter
from spine_lib.training.recipe import Recipe
from spine_lib.training.train import fit

WISH = Augmentation(size=32, redraw=0.0, elastic=0.5, narrow_view=0.5)
RECIPE = Recipe(
    models=("unet_resnet18",), steps=4, steps_per_epoch=2, batch=4, workers=0, averaging=0.0,
    precision="32-true", augmentation=WISH, augment_on="device",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    grid = {"shape": (40, 40, 20), "spacing_mm": 6.0}
    return prepare_store(phantom_cases(2, 0, **grid), tmp_path_factory.mktemp("s"), spacing_mm=6.0)


def plan_of(**values):
    """Return a plan that leaves a patch as it is, but for what is named."""
    still = {"a": 1, "b": 0, "c": 0, "d": 1, "coarse": 1, "bottom": 32, "right": 32, **values}
    return torch.tensor([[float(still.get(name, 0)) for name in PLAN]])


def raw_of(image, label, **values):
    """Return one raw patch of a picture [row, column] in a square of 48."""
    return RawPatches(
        torch.from_numpy(image.astype(np.int16))[None, None],
        torch.from_numpy(label.astype(np.uint8))[None],
        plan_of(**values),
        torch.tensor([5]),
    )


@pytest.fixture
def picture():
    random = np.random.default_rng(0)
    image = random.integers(-250, 1000, (48, 48))
    label = np.zeros((48, 48), np.uint8)
    label[20:30, 14:24], label[30:36, 14:24] = 1, IGNORE
    return image, label


def test_a_plan_that_changes_nothing_cuts_the_middle(picture):
    image, label = picture
    out, target, weight = augment_batch(raw_of(image, label), 32)
    middle = image[8:40, 8:40]
    assert np.allclose(out[0, 0], (middle + 250) / 1250 * 4 - 1.5, atol=1e-4)
    assert np.array_equal(target[0, 0], label[8:40, 8:40] == 1)
    assert np.array_equal(weight[0, 0], label[8:40, 8:40] != IGNORE)


def test_image_and_mask_move_together_and_outside_is_air_without_label(picture):
    _, label = picture
    label = np.where(label == IGNORE, 0, label)
    turn = np.radians(20)
    cos, sin = np.cos(turn), np.sin(turn)
    image = np.where(label > 0, 1000, 0)
    raw = raw_of(image, label, a=cos, b=-sin, c=sin, d=cos)
    out, target, _ = augment_batch(raw, 32)
    bright = out[0, 0] > 0.1  # half way between the two intensities
    assert (bright == (target[0, 0] > 0)).float().mean() > 0.97
    assert 80 < target.sum() < 120
    wide = raw_of(image, np.full_like(label, 1), a=4, d=4)
    out, target, weight = augment_batch(wide, 32)
    assert out[0, 0, 0, 0] == -1.5 and target[0, 0, 0, 0] == 0 and weight.min() == 1


def test_a_flip_swaps_columns(picture):
    image, label = picture
    straight = augment_batch(raw_of(image, label), 32)
    flipped = augment_batch(raw_of(image, label, a=-1), 32)
    for one, other in zip(straight, flipped, strict=True):
        assert torch.allclose(one, other.flip(-1), atol=1e-4)


@pytest.mark.parametrize(
    "change", [{"blur": 1.0}, {"sharpen": 0.3}, {"noise": 0.05}, {"coarse": 0.5}, {"contrast": 0.2}]
)
def test_photometry_changes_the_image_and_never_the_mask(picture, change):
    still, *masks = augment_batch(raw_of(*picture), 32)
    out, *other = augment_batch(raw_of(*picture, **change), 32)
    assert (still - out).abs().mean() > 0.01
    assert -1.5 <= out.min() and out.max() <= 2.5
    for one, two in zip(masks, other, strict=True):
        assert torch.equal(one, two)


def test_blur_is_that_of_scipy_and_differs_by_patch():
    from scipy import ndimage

    image = np.random.default_rng(1).integers(-250, 1000, (48, 48))
    label = np.zeros((48, 48))
    one, two = raw_of(image, label, blur=1.2), raw_of(image, label)
    both = RawPatches(*(torch.cat(pair) for pair in zip(one, two, strict=True)))
    out = augment_batch(both, 32)[0][:, 0].numpy()
    expected = ndimage.gaussian_filter(out[1], 1.2, mode="nearest", radius=4)
    assert np.allclose(out[0], expected, atol=1e-3)


def test_a_coarser_image_repeats_pixels(picture):
    out = augment_batch(raw_of(*picture, coarse=0.5), 32)[0][0, 0].numpy()
    assert np.array_equal(out[::2], out[1::2]) and np.array_equal(out[:, ::2], out[:, 1::2])


def test_a_narrow_view_blanks_what_lies_outside_and_knows_that_no_spine_is_there(picture):
    image, label = picture
    raw = raw_of(image, label, top=10, bottom=20, left=4.5, right=20)
    out, target, weight = augment_batch(raw, 32)
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[10:20, 4:20] = True
    assert (out[0, 0][~inside] == -1.5).all() and (target[0, 0][~inside] == 0).all()
    assert (weight[0, 0][~inside] == 1).all() and (out[0, 0][inside] > -1.5).any()


def test_masks_stay_binary_and_ignored_pixels_keep_no_weight(store):
    batch = next(iter(training_loader(store, RECIPE.changed(batch=16))))
    squares = batch.label.clone()
    squares[:, ::7] = IGNORE
    image, target, weight = augment_batch(batch._replace(label=squares), 32)
    assert image.shape == target.shape == weight.shape == (16, 1, 32, 32)
    for mask in (target, weight):
        assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert not (target * (1 - weight)).any()
    assert torch.isfinite(image).all()


def test_regions_reach_the_target_as_their_ids(store):
    recipe = RECIPE.changed(batch=16, target="regions")
    raw = next(iter(training_loader(store, recipe)))
    regions = set(raw.label.unique().tolist()) - {0, IGNORE}
    assert regions and regions <= {1, 2, 3, 4}
    _, target, weight = augment_batch(raw, 32)
    assert set(target.unique().tolist()) <= {0.0, *map(float, regions)}
    spine = next(iter(training_loader(store, RECIPE.changed(batch=16))))
    assert torch.equal(augment_batch(spine, 32)[1] > 0, target > 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_makes_the_same_patches(store, workers):
    alone = training_loader(store, RECIPE)
    together = training_loader(store, RECIPE.changed(workers=workers))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(augment_batch(one, 32), augment_batch(other, 32), strict=True):
            assert torch.equal(a, b)


def test_a_patch_does_not_depend_on_the_others_of_its_batch(store):
    batch = next(iter(training_loader(store, RECIPE)))
    image, *_ = augment_batch(batch, 32)
    alone, *_ = augment_batch(RawPatches(*(part[2:3] for part in batch)), 32)
    assert torch.allclose(image[2:3], alone, atol=1e-5)


def test_another_epoch_seed_or_place_makes_another_patch(store):
    slices, other = RawSlices(store, WISH, 0), RawSlices(store, WISH, 1)
    sampler = training_loader(store, RECIPE).sampler
    draw = sampler._draw(0)
    first = slices[draw]
    for changed in (slices[draw._replace(epoch=1)], slices[draw._replace(place=1)], other[draw]):
        assert not torch.equal(first.plan, changed.plan) and first.seed != changed.seed
    assert all(torch.equal(a, b) for a, b in zip(first, slices[draw], strict=True))


def test_hashed_noise_is_normal_and_follows_from_its_seed():
    noise = hashed_normal(torch.tensor([1, 2, 1]), (3, 2, 101, 99))
    assert torch.equal(noise[0], noise[2])
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    for one, other in ((noise[0], noise[1]), (noise[0, 0], noise[0, 1])):
        assert abs(torch.corrcoef(torch.stack([one.ravel(), other.ravel()]))[0, 1]) < 0.03
    near = torch.stack([noise[0, 0, :, 1:].ravel(), noise[0, 0, :, :-1].ravel()])
    assert abs(torch.corrcoef(near)[0, 1]) < 0.03
    assert noise.abs().max() < 6


def test_shares_are_those_of_the_recipe():
    random = np.random.default_rng(0)
    plans = np.array([draw_plan(WISH, random, True) for _ in range(3000)])
    rows = dict(zip(PLAN, plans.T, strict=True))
    assert abs((rows["elastic"] > 0).mean() - WISH.elastic) < 0.04
    assert abs((rows["noise"] > 0).mean() - WISH.noise) < 0.04
    assert abs((rows["coarse"] < 1).mean() - WISH.coarse) < 0.04
    assert abs((rows["blur"] > 0).mean() - WISH.sharpness / 2) < 0.04
    assert abs((rows["bottom"] - rows["top"] < 32).mean() - WISH.narrow_view) < 0.04
    determinant = rows["a"] * rows["d"] - rows["b"] * rows["c"]
    assert abs((determinant < 0).mean() - 0.5) < 0.04
    low, high = WISH.zoom
    sizes = 1 / np.sqrt(np.abs(determinant))
    assert low * 0.98 < sizes.min() < 0.8 and 1.2 < sizes.max() < high * 1.02


class SaveAndStop(L.Callback):
    """Stop after the third step, as a killed process would that saved just before."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == 3:
            trainer.save_checkpoint(self.folder / "last.ckpt")
            raise RuntimeError("killed")


def test_training_with_it_resumes_to_the_same_numbers(store, tmp_path):
    stores, options = (store, store), ("cpu", False)
    unbroken = fit("unet_resnet18", RECIPE, *stores, tmp_path / "a", *options)
    folder = tmp_path / "b"
    with pytest.raises(RuntimeError, match="killed"):
        fit("unet_resnet18", RECIPE, *stores, folder, *options, (SaveAndStop(folder),))
    resumed = fit("unet_resnet18", RECIPE, *stores, folder, *options)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_redrawn_tissues_and_unknown_places_are_refused():
    with pytest.raises(SpineError, match="redraw is 0.5; it must be 0 where augment_on"):
        RECIPE.changed(augmentation=Augmentation(redraw=0.5))
    with pytest.raises(SpineError, match="augment_on is 'moon'; it must be one of worker, device"):
        RECIPE.changed(augment_on="moon")


def test_squares_are_air_where_the_slice_ends(store):
    patch = RawSlices(store, Augmentation(size=64, redraw=0.0))[
        training_loader(store, RECIPE).sampler._draw(1)
    ]
    assert patch.image_hu.shape == (1, 96, 96) and patch.image_hu.dtype == torch.int16
    assert (patch.image_hu[0] == AIR_HU).float().mean() > 0.5
    assert patch.label.dtype == torch.uint8 and patch.label.shape == (96, 96)


def test_regions_and_neighbouring_slices_are_learned_from_patches_made_on_the_device(
    store, tmp_path
):
    recipe = RECIPE.changed(target="regions", neighbour_mm=12.0, steps=2)
    before = Segmenter("unet_resnet18", recipe.to_dict()).network.encoder.conv1.weight
    module = fit("unet_resnet18", recipe, store, store, tmp_path, "cpu", progress=False)
    assert before.shape[1] == 3
    logged = read_log(tmp_path / "metrics.csv")
    assert any(0 <= row.get("val_region_dice", -1) <= 1 for row in logged)
    with torch.inference_mode():
        assert module.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 5, 32, 32)
