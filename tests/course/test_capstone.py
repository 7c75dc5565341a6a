"""The capstone certifies a mask made with the field's tools alone, and names typical faults."""

import nibabel as nib
import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from safetensors.torch import load_file
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.course import certify
from spine_lib.datasets import unseen_patient
from spine_lib.training.pretrained import weights_path


def segment(ct_path, weights, mask_path) -> None:
    """Load, segment, clean and export, as a reader may in the empty notebook."""
    scan = nib.load(ct_path)
    canonical = nib.as_closest_canonical(scan)
    slices = np.flip(canonical.get_fdata(dtype=np.float32).transpose(2, 1, 0), axis=(1, 2))
    network = smp.Unet("timm-tf_efficientnet_lite0", encoder_weights=None, in_channels=1)
    network.load_state_dict(load_file(weights))
    network.eval()
    image = torch.from_numpy((np.clip(slices, -250, 1000) + 250) / 1250 * 4 - 1.5)[:, None]
    rows, columns = image.shape[2:]
    image = torch.nn.functional.pad(image, (0, -columns % 32, 0, -rows % 32), value=-1.5)
    with torch.inference_mode():
        probability = torch.cat([network(batch).sigmoid() for batch in image.split(16)])
    upright = probability[:, 0, :rows, :columns].numpy() >= 0.5
    pieces, _ = ndimage.label(np.flip(upright, axis=(1, 2)).transpose(2, 1, 0))
    mask = np.isin(pieces, np.flatnonzero(np.bincount(pieces.ravel())[1:] > 3000) + 1)
    turn = ornt_transform(io_orientation(canonical.affine), io_orientation(scan.affine))
    header = scan.header.copy()
    header.set_data_dtype(np.uint8)
    stored = apply_orientation(mask.astype(np.uint8), turn)
    nib.save(nib.Nifti1Image(stored, scan.affine, header), mask_path)


@pytest.fixture(scope="module")
def solution(sample_root, tmp_path_factory):
    """The unseen scan and a reader's mask of it."""
    ct_path, _ = unseen_patient(sample_root)
    mask_path = tmp_path_factory.mktemp("capstone") / "my_mask.nii.gz"
    segment(ct_path, weights_path("unet_light"), mask_path)
    return nib.load(ct_path), mask_path


@pytest.mark.slow
def test_a_mask_made_with_the_fields_tools_is_certified(solution, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    certify(solution[1], name="Ada <Lovelace>")
    text = capsys.readouterr().out
    assert text.count("✓") == 3 and "Dice within 3 mm of what is labelled: 0.9" in text
    page = (tmp_path / "certificate.html").read_text(encoding="utf-8")
    assert "Ada &lt;Lovelace&gt;" in page and "data:image/png" in page and "done." in page


SHIFT_MM = np.array([[0, 0, 0, 5]] * 3 + [[0] * 4])


def faults(scan, mask):
    """Yield a fault's words with the array and the affine that make it."""
    yield "Reversed along x and y", mask[::-1, ::-1], scan.affine
    yield "is empty", 0 * mask, scan.affine
    yield "Too much is marked", ndimage.binary_dilation(mask, iterations=3), scan.affine
    yield "Of the labelled bone", scan.get_fdata() > 200, scan.affine
    yield "differ in shape", mask[:, :, 1:], scan.affine
    yield "Reversed along x and y", mask, nib.as_closest_canonical(scan).affine
    yield "mm apart in the patient", mask, scan.affine + SHIFT_MM
    t12_alone = mask * 1
    t12_alone[:, :, 40:] = 0
    yield "at least 80% of them", t12_alone, scan.affine


@pytest.mark.slow
def test_typical_faults_are_named_and_get_no_certificate(solution, tmp_path, monkeypatch, capsys):
    scan, mask_path = solution
    monkeypatch.chdir(tmp_path)
    for words, array, affine in faults(scan, np.asarray(nib.load(mask_path).dataobj)):
        nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), "wrong.nii.gz")
        certify("wrong.nii.gz")
        text = capsys.readouterr().out
        assert "✗" in text and words in text, words
    assert not (tmp_path / "certificate.html").exists()


def test_nothing_handed_in_is_not_yet(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    certify("my_mask.nii.gz")
    assert "Not yet: there is no my_mask.nii.gz" in capsys.readouterr().out


def test_a_certificate_is_a_web_page_and_a_scan_needs_its_truth():
    with pytest.raises(SpineError, match="give a name in .html"):
        certify("mask.nii.gz", page="mask.nii.gz")
    with pytest.raises(SpineError, match="Give both"):
        certify("mask.nii.gz", ct_path="ct.nii.gz")
