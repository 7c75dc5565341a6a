"""Cases: what they promise of every source."""

import pickle
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.datasets import Case, UnlabelledBoneAtEnds, phantom_cases, require_cases, write_split
from spine_lib.datasets.ignore import OtherStructures

SHAPE = (12, 10, 8)


def save(path, array, affine=None):
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def case(tmp_path):
    """A case of two vertebrae and a liver, in a left-posterior-superior file."""
    ct = np.full(SHAPE, 40, np.int16)
    ct[0] = -1000  # air
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 3:6, 1:4], mask[2:5, 3:6, 5:7], mask[9, 9, :] = 28, 27, 5
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    return Case(
        case_id="toy",
        patient_id="toy-patient",
        source="test",
        ct_path=save(tmp_path / "ct.nii.gz", ct, affine),
        mask_path=save(tmp_path / "mask.nii.gz", mask, affine),
        scheme="totalsegmentator",
        covers="L4 and L5",
        licence="none",
    )


def test_a_case_loads_to_canonical_labels_in_ras_without_the_organs(case):
    data = case.load()
    assert np.unique(data.labels.array).tolist() == [0, 23, 24]
    assert data.labels.array.dtype == np.uint8 and data.ignore.array.dtype == bool
    assert not data.ignore.array.any()
    assert np.unique(case.load_structures().array).tolist() == [0, 5, 27, 28]
    assert nib.aff2axcodes(data.ct.affine) == ("R", "A", "S")
    assert np.array_equal(np.argwhere(data.labels.array == 24).min(axis=0), [12 - 5, 10 - 6, 5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scheme": "pycad1089"}, r"mask\.nii\.gz.*27, 28.*'pycad1089'"),
        ({"scheme": "vers"}, "'vers'"),
        ({"mask_path": "other.nii.gz"}, r"shape.*\(12, 10, 8\).*\(12, 10, 9\)"),
        ({"ct_path": "gone.nii.gz"}, r"gone\.nii\.gz"),
    ],
)
def test_a_case_that_does_not_fit_its_files_is_refused(case, tmp_path, changes, message):
    save(tmp_path / "other.nii.gz", np.zeros((12, 10, 9), np.uint8))
    changes = {name: tmp_path / v if name.endswith("path") else v for name, v in changes.items()}
    with pytest.raises(SpineError, match=message):
        replace(case, **changes).load()


def test_rules_of_a_case_make_its_ignore_region(case):
    data = replace(case, ignore_rules=(OtherStructures((5,)),)).load()
    assert np.count_nonzero(data.ignore.array) == SHAPE[2]
    assert not (data.labels.array[data.ignore.array]).any()


def test_cases_pickle_and_hash_so_that_workers_can_have_them(case):
    (phantom,) = phantom_cases(1, 3, spacing_mm=4.0, shape=(9, 9, 9))
    assert phantom.patient_id == phantom_cases(1, 3)[0].patient_id  # one seed, one patient
    ruled = replace(case, ignore_rules=(UnlabelledBoneAtEnds("superior"),))
    for original in (case, ruled, phantom):
        copy = pickle.loads(pickle.dumps(original))
        assert copy == original and hash(copy) == hash(original)


def test_no_cases_and_two_of_one_name_are_refused(case):
    with pytest.raises(SpineError, match="no case in the folder x"):
        require_cases([], "the folder x")
    with pytest.raises(SpineError, match="toy"):
        require_cases([case, case], "the list")


def test_the_split_is_written_as_csv(case, tmp_path):
    path = write_split({"train": [case], "test": []}, tmp_path / "split.csv")
    assert path.read_bytes() == b"case_id,patient_id,split\ntoy,toy-patient,train\n"


def scene():
    """A vertebra that the upper end cuts, and bright spots around it; 2 mm voxels."""
    ct = np.full((30, 30, 20), 40, np.int16)
    labels = np.zeros(ct.shape, np.uint8)
    labels[10:16, 10:16, 12:] = 20
    ct[labels > 0] = 300
    return ct, labels


def ignored_at(spots, **options):
    ct, labels = scene()
    structures = labels.copy()
    for spot in spots:
        ct[spot] = 400
    structures[18, 12, 19] = 92  # a rib that the file names
    rule = UnlabelledBoneAtEnds("superior", **options)
    ignore = rule(Volume(ct, np.diag([2.0, 2.0, 2.0, 1.0])), structures, labels)
    return [spot for spot in spots if ignore[spot]]


def test_unlabelled_bone_near_a_cut_vertebra_is_ignored_and_nothing_else():
    near, rim, far = (12, 18, 19), (12, 16, 19), (12, 24, 19)
    deep, named = (12, 18, 14), (18, 12, 19)
    assert ignored_at([near, rim, far, deep, named]) == [near]


def test_the_limits_of_the_ignore_rule_are_in_millimetres():
    spot = (12, 18, 19)  # 3 voxels, 6 mm, behind the vertebra
    assert ignored_at([spot], reach_mm=6.5) == [spot] and ignored_at([spot], reach_mm=5.5) == []
    lower = (12, 18, 15)  # the fifth slice from above
    assert ignored_at([lower], depth_mm=8) == [] and ignored_at([lower], depth_mm=10) == [lower]
    assert ignored_at([spot], above_hu=401) == []


def test_an_image_has_two_ends_and_without_a_vertebra_there_nothing_is_ignored():
    with pytest.raises(SpineError, match="'left'"):
        UnlabelledBoneAtEnds("left")
    ct, labels = scene()
    ct[12, 18, 0] = ct[12, 18, 19] = 400
    volume = Volume(ct[:, :, ::-1], np.diag([2.0, 2.0, 2.0, 1.0]))
    flipped = labels[:, :, ::-1]
    ignore = UnlabelledBoneAtEnds("inferior")(volume, flipped, flipped)
    assert np.argwhere(ignore).tolist() == [[12, 18, 0]]
    flipped = np.zeros_like(labels)
    assert not UnlabelledBoneAtEnds("inferior")(volume, flipped, flipped).any()
