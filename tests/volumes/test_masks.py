"""Predicting whole scans on their own grid."""

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from spine_lib.ct.volume import Volume, load_ct, load_mask
from spine_lib.models import build_model
from spine_lib.slices.augment import Augmentation
from spine_lib.training.checkpoints import save_weights
from spine_lib.training.recipe import Recipe
from spine_lib.volumes import (
    fill_holes,
    keep_pieces,
    largest_component,
    predict_file,
    predict_mask,
    predict_volume,
)

RECIPE = Recipe(
    planes=("axial",), spacing_mm=2.0, precision="32-true", augmentation=Augmentation(size=32)
)


class BrightIsSpine(nn.Module):
    """A network that calls everything above 375 HU spine: its answer is known."""

    def forward(self, image):
        return 50 * (image - 0.5)


def scan(spacing=(1.5, 1.1, 3.0), shape=(50, 61, 9)) -> Volume:
    array = np.full(shape, -50, np.int16)
    array[18:33, 20:44, 2:7] = 900
    return Volume(array, np.diag([*spacing, 1.0]))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_probabilities_lie_on_the_scans_own_grid(plane):
    ct = scan()
    found, mask = predict_mask(BrightIsSpine(), ct, RECIPE.changed(planes=(plane,)), "cpu")
    assert found.shape == ct.shape and np.array_equal(found.affine, ct.affine)
    truth = ct.array > 375
    mask = mask.array > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_neighbours_are_seen_as_channels():
    class LastChannel(BrightIsSpine):
        def forward(self, image):
            return super().forward(image[:, 2:])

    ct = scan()
    found = predict_volume(LastChannel(), ct, RECIPE.changed(neighbour_mm=6.0), "cpu").array > 0.5
    plain = predict_volume(BrightIsSpine(), ct, RECIPE, "cpu").array > 0.5
    assert np.array_equal(found[..., :-2], plain[..., 2:])


def test_a_prediction_is_the_mean_over_its_planes():
    ct, planes = scan(), ("axial", "sagittal")
    one, other = (
        predict_volume(BrightIsSpine(), ct, RECIPE.changed(planes=(plane,)), "cpu").array
        for plane in planes
    )
    both = predict_volume(BrightIsSpine(), ct, RECIPE.changed(planes=planes), "cpu").array
    assert np.allclose(both, (one + other) / 2, atol=1e-6) and not np.allclose(one, other)


def test_mirroring_averages_two_answers():
    class LeftIsSpine(nn.Module):
        def forward(self, image):
            ramp = torch.linspace(4, -4, image.shape[-1]).expand_as(image)
            return ramp

    ct = scan()
    plain = predict_volume(LeftIsSpine(), ct, RECIPE.changed(flip=False), "cpu").array
    both = predict_volume(LeftIsSpine(), ct, RECIPE, "cpu").array
    assert np.ptp(plain) > 0.5 and np.allclose(both, 0.5, atol=1e-5)


def test_pieces_are_kept_by_their_millilitres():
    mask = np.zeros((20, 20, 20), bool)
    mask[1:9, 1:9, 1:9] = True  # 512 voxels
    mask[9:11, 9:11, 9:11] = True  # 8 more, touching by a corner
    mask[14:18, 14:18, 14:18] = True  # 64 voxels
    mask[1, 1, 18] = True
    spacing = (1.0, 2.0, 2.5)  # 5 cubic millimetres
    assert np.count_nonzero(keep_pieces(mask, spacing, 0.3)) == 512 + 8 + 64
    assert np.count_nonzero(keep_pieces(mask, spacing, 0.33)) == 520
    assert np.array_equal(keep_pieces(mask, spacing, 0.0), mask)
    assert np.count_nonzero(largest_component(mask)) == 512  # its voxels touch by a face
    assert not largest_component(np.zeros_like(mask)).any()
    assert not keep_pieces(mask, spacing, 5.0).any()
    assert not keep_pieces(np.zeros_like(mask), spacing, 0.0).any()


def test_holes_up_to_a_limit_are_filled_and_the_canal_stays_open():
    mask = np.zeros((20, 20, 12), bool)
    mask[2:18, 2:18, 2:10] = True
    mask[8:12, 8:12, :] = False  # a canal, open at both ends
    mask[4:6, 4:6, 5:7] = False  # a hole of 8 voxels
    filled = fill_holes(mask, (1.0, 1.0, 1.0))
    assert np.count_nonzero(filled & ~mask) == 8 and filled[4, 4, 5]
    assert not filled[9, 9, 5]
    assert np.array_equal(fill_holes(filled, (1.0, 1.0, 1.0)), filled)
    assert np.array_equal(fill_holes(mask, (1.0, 1.0, 1.0), largest_ml=0.007), mask)


def test_a_predicted_mask_lies_on_the_file_it_was_made_from(tmp_path):
    ras = scan(shape=(40, 44, 8))
    stored = np.ascontiguousarray(ras.array[::-1].transpose(2, 0, 1))
    affine = np.zeros((4, 4))
    affine[[2, 0, 1], [0, 1, 2]] = [3.0, -1.5, 1.1]
    affine[:, 3] = [1.5 * 39, 0, 0, 1]
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "ct.nii.gz")
    model = "unet_tu-mobilenetv3_small_050"
    save_weights(build_model(model), model, RECIPE, tmp_path / "w.safetensors")
    out = predict_file(tmp_path / "ct.nii.gz", tmp_path / "m.nii.gz", tmp_path / "w.safetensors")
    image = nib.load(out)
    assert image.shape == stored.shape and np.allclose(image.affine, affine)
    assert set(np.unique(np.asanyarray(image.dataobj))) <= {0, 1}
    assert np.allclose(load_mask(out).affine, load_ct(tmp_path / "ct.nii.gz").affine)
