"""Predicting a file: what is checked before, and what an empty or spoilt prediction says."""

import numpy as np
import pytest
import torch

from spine_lib import SpineError
from spine_lib.ct import Volume, load_ct, load_mask, save_nifti
from spine_lib.ct.files import array_sha256
from spine_lib.models import build_model
from spine_lib.slices.augment import network_input
from spine_lib.training.checkpoints import DataRecord, save_weights
from spine_lib.training.recipe import Recipe
from spine_lib.volumes import predict
from spine_lib.volumes.predict import predict_file, predict_volume

MODEL = "unet_tu-mobilenetv3_small_050"
RECIPE = Recipe(models=(MODEL,), flip=False, precision="32-true", augmentation={"size": 32})


@pytest.fixture
def scan(tmp_path):
    random = np.random.default_rng(0)
    hu = random.integers(-1000, 400, (20, 18, 3)).astype(np.int16)
    return save_nifti(Volume(hu, np.diag([2.0, 2, 3, 1])), tmp_path / "scan.nii.gz")


@pytest.fixture
def weights(tmp_path):
    return save_weights(build_model(MODEL), MODEL, RECIPE, tmp_path / "w.safetensors")


@pytest.mark.parametrize("out", ["scan.nii.gz", "mask", "mask.NII.GZ", "mask.nrrd", "old.nii.gz"])
def test_an_output_is_refused_before_anything_is_predicted(
    scan, weights, tmp_path, monkeypatch, out
):
    monkeypatch.setattr(predict, "predict_volume", None)
    monkeypatch.setattr(predict, "load_ct", None)
    (tmp_path / "old.nii.gz").touch()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(SpineError, match=out):
        predict_file(scan, tmp_path / out, weights, "cpu")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_are_not_written_over_either(scan, weights):
    copy = weights.rename(weights.with_suffix(".nii"))
    with pytest.raises(SpineError, match="is an input of this command"):
        predict_file(scan, copy, copy, "cpu", overwrite=True)


def test_an_empty_prediction_says_that_no_spine_was_found(scan, weights, tmp_path, monkeypatch):
    empty = lambda network, ct, *rest, **_: ct.with_array(np.zeros(ct.shape, np.float32))  # noqa: E731
    monkeypatch.setattr(predict, "predict_volume", empty)
    lines = []
    out = predict_file(scan, tmp_path / "mask.nii.gz", weights, "cpu", lines.append)
    assert not load_mask(out).array.any()
    assert lines[-1] == "No spine was found: the mask is empty."


def test_a_network_that_predicts_nan_is_refused(scan):
    class Broken(torch.nn.Module):
        def forward(self, image):
            return image * float("nan")

    ct = Volume(np.zeros((20, 18, 3), np.int16), np.eye(4))
    with pytest.raises(SpineError, match="predicts NaN"):
        predict_volume(Broken(), ct, RECIPE, "cpu")


def test_a_scan_that_the_network_was_trained_on_is_said_to_be_one(scan, tmp_path):
    data = DataRecord([], [], {"patient": array_sha256(load_ct(scan).array)})
    network = build_model(MODEL)
    for record, said in ((data, True), (None, False)):
        weights = save_weights(network, MODEL, RECIPE, tmp_path / "w.safetensors", data=record)
        lines = []
        out = tmp_path / "copied" / "under another name.nii.gz"
        predict_file(scan, out, weights, "cpu", lines.append, overwrite=True)
        assert ("was trained on this scan" in lines[0]) is said


class _Bright(torch.nn.Module):
    """Finds what is brighter than 300 HU; counts the pixels that it is shown."""

    def __init__(self, classes):
        super().__init__()
        self.classes, self.pixels = classes, 0

    def forward(self, image):
        self.pixels += image.numel()
        spine = 20 * (image - network_input(np.array(300)).item())
        rest = [torch.full_like(spine, -20.0)] * max(0, self.classes - 2)
        return torch.cat([spine] if self.classes == 1 else [-spine, spine, *rest], 1)


@pytest.mark.parametrize("target", ["spine", "regions"])
@pytest.mark.parametrize("bright", [True, False])
def test_near_the_spine_the_same_is_predicted_from_fewer_pixels(target, bright):
    recipe = RECIPE.changed(target=target, spacing_mm=2.0)
    hu = np.full((200, 180, 30), -1000, np.int16)
    hu[10:190, 10:170] = 0
    hu[90:110, 120:140] = 900 if bright else 0  # the spine
    hu[20:25, 20:25, 7] = 900 if bright else 0  # no spine: small and far away
    ct = Volume(hu, np.diag([2.0, 2, 3, 1]))
    networks = [_Bright(recipe.classes) for _ in range(2)]
    whole, near = (
        predict_volume(network, ct, recipe, "cpu", near_spine=near).array
        for network, near in zip(networks, (False, True))
    )
    spine = np.s_[80:120, 110:150]
    np.testing.assert_allclose(near[spine], whole[spine], atol=1e-6)
    assert (near > 0.5)[spine].any() == (near > 0.5).any() == bright
    assert (whole > 0.5)[20:25, 20:25].any() == bright
    assert bright == (networks[1].pixels < networks[0].pixels / 2)
