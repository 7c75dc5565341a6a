import itertools
import tracemalloc
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from spine_lib import SpineError
from spine_lib.ct import require_same_grid
from spine_lib.ct.volume import (
    SourceGrid,
    Volume,
    Window,
    apply_window,
    load_ct,
    load_either,
    load_mask,
    save_nifti,
    straighten,
)

ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def as_stored(volume: Volume, orientation: np.ndarray, dtype: str) -> nib.Nifti1Image:
    """Return the scan as a file with other axes would hold it."""
    image = nib.Nifti1Image(volume.array.astype(dtype), volume.affine, dtype=dtype)
    to_stored = nib.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], orientation)
    return image.as_reoriented(to_stored)


@pytest.mark.parametrize("number", range(48))
def test_each_of_the_48_orientations_is_saved_back_to_its_own_grid(number, tmp_path):
    affine = np.eye(4)
    tilt = Rotation.from_euler("xyz", (11, -7, 5), degrees=True).as_matrix()
    affine[:3, :3] = tilt @ np.diag((0.7, 0.8, 2.5))
    affine[:3, 3] = (-90, 35, 700)
    array = np.random.default_rng(number).integers(-1024, 3071, (3, 4, 5), np.int16)
    original = as_stored(Volume(array, affine), ORIENTATIONS[number], "<i2")
    nib.save(original, tmp_path / "ct.nii.gz")
    ct = load_ct(tmp_path / "ct.nii.gz")

    saved = nib.load(save_nifti(ct, tmp_path / "again.nii.gz"))
    bone = nib.load(save_nifti(ct.with_array(ct.array > 300), tmp_path / "bone.nii.gz"))

    np.testing.assert_array_equal(ct.array, array)
    np.testing.assert_array_equal(np.asanyarray(saved.dataobj), np.asanyarray(original.dataobj))
    np.testing.assert_array_equal(bone.get_fdata() > 0, original.get_fdata() > 300)
    assert bone.get_data_dtype() == np.uint8
    for image in (saved, bone):
        np.testing.assert_allclose(image.affine, original.affine, atol=1e-4)
        np.testing.assert_allclose(image.get_qform(), original.affine, atol=1e-4)
        assert nib.aff2axcodes(image.affine) == nib.aff2axcodes(original.affine)


TILTED = np.diag([-0.8, 0.8, 3, 1]) + np.outer([0, 0.9, 0, 0], [0, 0, 1, 0])


@pytest.mark.parametrize("orientation", [None, "PIR"])
def test_a_sheared_grid_can_be_written_straight_for_itk(tmp_path, orientation):
    blob = np.zeros((24, 26, 20), np.float32)
    blob[8:14, 9:18, 5:13] = 1
    image = nib.Nifti1Image(np.where(blob > 0, 400, -90).astype(np.int16), TILTED)
    if orientation:
        order = nib.orientations.axcodes2ornt(orientation)
        transform = nib.orientations.ornt_transform(nib.io_orientation(TILTED), order)
        image = image.as_reoriented(transform)
    nib.save(image, tmp_path / "ct.nii")
    ct = load_ct(tmp_path / "ct.nii")
    with pytest.warns(UserWarning, match="sheared grid .* ITK .* cannot open: .*straight=True"):
        kept = nib.load(save_nifti(ct, tmp_path / "again.nii"))
    np.testing.assert_allclose(kept.affine, image.affine, atol=1e-6)
    assert straighten(ct).array.dtype == np.int16 and straighten(straighten(ct)).source is None
    mask = save_nifti(ct.with_array(ct.array > 0), tmp_path / "mask.nii.gz", straight=True)
    opened = sitk.ReadImage(str(mask))  # refused without `straight`
    assert np.allclose(opened.GetSpacing(), [0.8, 0.766, 3], atol=1e-3)  # no coarser
    labels = load_mask(mask)
    position_mm = nib.affines.apply_affine(labels.affine, np.argwhere(labels.array))
    voxels = np.rint(nib.affines.apply_affine(np.linalg.inv(ct.affine), position_mm)).astype(int)
    assert (ct.array[tuple(voxels.T)] > 0).all()
    bone_ml = np.count_nonzero(ct.array > 0) * abs(np.linalg.det(ct.affine))
    assert labels.array.sum() * np.prod(labels.spacing_mm) == pytest.approx(bone_ml, rel=0.05)


def test_labels_stay_labels_when_a_grid_is_straightened():
    labels = np.random.default_rng(0).choice([0, 5, 20], (9, 9, 9))
    for dtype in (np.uint8, np.uint16, np.int32, np.int64):
        straight = straighten(Volume(labels.astype(dtype), TILTED)).array
        assert straight.dtype == dtype and set(np.unique(straight)) == {0, 5, 20}
    share = straighten(Volume(labels / 20, TILTED)).array
    assert share.dtype == np.float64 and len(np.unique(share)) > 3
    same = Volume(labels, np.diag([1.0, 2, 3, 1]))
    assert straighten(same) is same


def test_a_mask_that_itk_made_of_a_scan_with_two_positions_is_on_its_scan(tmp_path):
    image = nib.Nifti1Image(np.full((6, 5, 4), -50, np.int16), np.diag([0.8, 0.8, 3, 1]))
    image.header.set_qform(np.diag([0.8, 0.8, 3, 1]) + 30 * np.eye(4, k=3), 1)
    image.header.set_sform(image.affine, 2)
    path = tmp_path / "ct.nii"
    nib.save(image, path)
    scan = sitk.ReadImage(str(path))
    sitk.WriteImage(sitk.Cast(scan < 0, sitk.sitkUInt8), str(tmp_path / "mask.nii.gz"))
    with pytest.warns(UserWarning, match="in every voxel|two positions"):
        ct = load_ct(path)
    mask = load_mask(tmp_path / "mask.nii.gz")
    with pytest.warns(UserWarning, match="same voxels by the position that ITK programs read"):
        require_same_grid(ct, mask)
    moved = Volume(mask.array, mask.affine + np.eye(4, k=3))
    with pytest.raises(SpineError, match="apart"):
        require_same_grid(ct, moved)


RAW = np.random.default_rng(0).integers(0, 4096, (20, 18, 6))
BLOCK = np.zeros((20, 18, 6), np.int16)
BLOCK[5:15, 4:12, 1:4] = 1


@pytest.mark.parametrize(
    ("values", "kind", "words", "note"),
    [
        (BLOCK.astype(np.uint8), "mask", "% equal", None),
        (BLOCK.astype(np.float32), "mask", "% equal", None),
        (255 * BLOCK, "mask", "% equal", None),
        (0 * BLOCK, "mask", "in doubt", None),
        (RAW[:10].repeat(2, axis=0).astype(np.uint16), "mask", "in doubt", None),
        (RAW.astype(np.uint16), "ct", "0 % equal", "intercept may be lost"),
        ((RAW + 0.5).astype(np.float32), "ct", "no labels", "intercept may be lost"),
        (RAW.astype(np.int16) - 1024, "ct", "no labels", None),
    ],
)
def test_a_file_is_read_as_what_it_is_with_its_doubt(tmp_path, values, kind, words, note):
    nib.save(nib.Nifti1Image(values, np.diag([-0.8, -0.8, 3, 1])), tmp_path / "a.nii.gz")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume, seen, reason = load_either(tmp_path / "a.nii.gz")
    assert seen == kind and words in reason and volume.shape == values.shape
    assert [note in str(warning.message) for warning in caught] == [True] * (note is not None)


def test_a_scan_given_as_a_label_map_is_reported(tmp_path):
    nib.save(nib.Nifti1Image(RAW.astype(np.int16), np.eye(4)), tmp_path / "mask.nii")
    with pytest.warns(UserWarning, match="mask.nii has neighbours that differ as in a scan"):
        load_mask(tmp_path / "mask.nii")


def test_a_volume_without_source_is_written_as_ras(tmp_path):
    volume = Volume(np.random.default_rng(0).random((3, 4, 5)), np.diag([1.0, 2, 3, 1]))
    path = save_nifti(volume, str(tmp_path / "new folder" / "p.nii.gz"))
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.get_fdata(), volume.array, atol=1e-6)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_volume_that_left_its_grid_is_not_written_onto_it(tmp_path):
    ct = Volume(
        np.zeros((2, 3, 4), np.int16), np.eye(4), SourceGrid((3, 3, 4), np.eye(4)), Path("a.nii")
    )
    with pytest.raises(SpineError, match=r"again.nii.*grid of a\.nii.*\(2, 3, 4\)"):
        save_nifti(ct, tmp_path / "again.nii")
    moved = Volume(ct.array, np.diag([2.0, 1, 1, 1]), SourceGrid((2, 3, 4), np.eye(4)))
    with pytest.raises(SpineError, match="resample it back"):
        save_nifti(moved, tmp_path / "again.nii")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("largest", "expected"), [(255, np.uint8), (65535, np.uint16)])
def test_labels_of_any_stored_type_come_back_in_the_smallest_type(tmp_path, largest, expected):
    labels = np.array([0, 1, 7, 28, 118, largest]).reshape(1, 2, 3)
    for dtype in ("u1", ">u2", "<i4", "<f4", ">f8")[largest > 255 :]:
        image = nib.Nifti1Image(labels.astype(dtype), np.diag([-1.0, 1, 1, 1]), dtype=dtype)
        nib.save(image, tmp_path / "mask.nii.gz")
        mask = load_mask(tmp_path / "mask.nii.gz")
        assert mask.array.dtype == expected
        np.testing.assert_array_equal(mask.array, labels)


def test_a_scan_is_never_in_memory_twice(tmp_path):
    array = np.zeros((256, 256, 160), np.int16)
    array[::7, ::5] = -1000
    affine = np.diag([-1.0, 1, 1, 1])
    scaled = nib.Nifti1Image(array, affine)
    scaled.header.set_slope_inter(1, -24)
    nib.save(scaled, tmp_path / "int16.nii.gz")
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), tmp_path / "float32.nii.gz")
    nib.save(nib.Nifti1Image(array.astype(np.int32), affine), tmp_path / "int32.nii")
    for path in tmp_path.iterdir():
        load_ct(path)  # first use of a library allocates too
        tracemalloc.start()
        ct = load_ct(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= 1.5 * ct.array.nbytes, path.name


def test_a_window_spreads_its_range_over_black_to_white():
    hu = np.array([-2048, -500, 400, 1300, 3071], np.int16)
    grey = apply_window(hu, Window(400, 1800))
    assert grey.dtype == np.float32
    assert grey.tolist() == [0, 0, 0.5, 1, 1]
    assert apply_window(hu, "bone").tolist() == grey.tolist()
    assert hu.tolist() == [-2048, -500, 400, 1300, 3071]
    assert apply_window(np.array([-1024, 3071]), "full").tolist() == [0, 1]


def test_an_unknown_or_empty_window_is_refused():
    with pytest.raises(SpineError, match="Unknown window 'bones': choose one of bone, soft tissue"):
        apply_window(np.zeros(3), "bones")
    with pytest.raises(SpineError, match="width 0 HU"):
        apply_window(np.zeros(3), Window(40, 0))


def test_a_volume_needs_three_axes_and_an_affine_and_keeps_its_shape():
    ct = Volume(np.zeros((2, 3, 4), np.int16), np.eye(4), path=Path("ct.nii.gz"))
    with pytest.raises(SpineError, match=r"\(2, 3\).*\(2, 3, 4\).*ct.nii.gz"):
        ct.with_array(np.zeros((2, 3)))
    with pytest.raises(SpineError, match="not 2-D"):
        Volume(np.zeros((2, 3)), np.eye(4))
    with pytest.raises(SpineError, match=r"\(3, 3\)"):
        Volume(np.zeros((2, 3, 4)), np.eye(3))


def test_a_plain_file_beside_its_compressed_twin_is_reported(tmp_path):
    voxels = np.arange(-50, 10, dtype=np.int16).reshape(3, 4, 5)
    image = nib.Nifti1Image(voxels, np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_ct(tmp_path / "a.nii.gz")
    nib.save(image, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match=r"a\.nii\.gz lies beside a\.nii:"):
        load_ct(tmp_path / "a.nii.gz")
    with pytest.warns(UserWarning, match=r"a\.nii lies beside a\.nii\.gz:") as caught:
        load_ct(tmp_path / "a.nii")
    assert caught[0].filename == __file__  # the line that asked, not a line of the library


@pytest.mark.slow
def test_real_scans_agree_with_nibabel_and_with_their_masks(sample_root):
    from spine_lib.datasets import sample_cases

    files = 0
    for case in sample_cases(sample_root):
        ct, mask = load_ct(case.ct_path), load_mask(case.mask_path)
        require_same_grid(ct, mask)
        for volume in (ct, mask)[case.ct_path.is_dir() :]:
            reference = nib.load(volume.path)
            from_ras = nib.orientations.ornt_transform(ORIENTATIONS[0], volume.source.to_ras)
            stored = nib.apply_orientation(volume.array, from_ras)
            np.testing.assert_allclose(volume.source.affine, reference.affine, atol=1e-4)
            np.testing.assert_array_equal(stored[..., ::9], np.rint(reference.dataobj[..., ::9]))
            files += 1
    assert files == 7
