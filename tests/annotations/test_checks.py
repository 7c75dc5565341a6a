"""Label schemes, regions, and the findings of `check_annotation`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from spine_lib import SpineError
from spine_lib.annotations import (
    CANONICAL,
    HEAD_TO_FOOT,
    REGIONS,
    SCHEMES,
    check_annotation,
    to_canonical,
    to_regions,
)
from spine_lib.ct.volume import Volume, load_ct, load_mask


def column(labels, spacing_mm=2.0):
    """A column of bony blocks, the first label on top, in a body of soft tissue.

    The blocks grow towards the foot and lean to one side, so that no move or mirror image of
    the mask fits as well as the mask itself.
    """
    shape = (40, 36, 12 * len(labels) + 8)
    mask = np.zeros(shape, np.uint8)
    for i, label in enumerate(labels):
        top = shape[2] - 4 - 12 * i
        mask[10 : 18 + i % 3, 8:20, top - 9 : top] = label
        mask[10:12, 4:8, top - 6 : top - 3] = label  # a process at the back, on one side
    ct = np.where(mask > 0, 250, 40).astype(np.int16)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    return Volume(ct, affine), Volume(mask, affine)


def codes(findings):
    return {finding.code for finding in findings}


def one(findings, code):
    (finding,) = [f for f in findings if f.code == code]
    return finding


# --- schemes -------------------------------------------------------------------------------


def test_one_vertebra_has_one_canonical_id_whatever_the_scheme():
    by_name = {name: i for i, name in CANONICAL.items()}
    expected = {"L1": (20, 31, 20), "C1": (1, 50, 1), "T12": (19, 32, 19), "C7": (7, 44, 7)}
    for name, ids in expected.items():
        for scheme, label in zip(("verse", "totalsegmentator", "pycad1089"), ids, strict=True):
            assert to_canonical(np.array([label]), scheme)[0] == by_name[name], (scheme, name)


def test_each_scheme_counts_its_own_part_of_the_sacrum_to_the_sacrum():
    assert to_canonical(np.array([25, 26]), "totalsegmentator").tolist() == [26, 26]
    assert to_canonical(np.array([25]), "pycad1089").tolist() == [26]
    assert to_canonical(np.array([25, 26, 28]), "verse").tolist() == [25, 26, 28]


def test_the_names_of_a_scheme_agree_with_the_vertebra_that_its_ids_become():
    for scheme in SCHEMES.values():
        for label, vertebra in scheme.canonical.items():
            name = scheme.names[label]
            assert name == CANONICAL[vertebra] or (vertebra == 26 and name == "S1")


def test_organs_of_a_totalsegmentator_map_become_background():
    names = SCHEMES["totalsegmentator"].names
    assert (names[1], names[5], names[52], names[79], names[92], names[117]) == (
        *("spleen", "liver", "aorta", "spinal_cord", "rib_left_1", "costal_cartilages"),
    )
    organs = [i for i in range(1, 119) if not 25 <= i <= 50]
    assert not to_canonical(np.array(organs, np.uint8), "totalsegmentator").any()


def test_a_verse_coccyx_is_known_and_not_one_of_the_four_regions():
    assert to_canonical(np.array([27]), "verse").tolist() == [0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_labels_of_every_integer_type_are_read(dtype):
    labels = np.array([[0, 27], [50, 5]], dtype)
    assert to_canonical(labels, "totalsegmentator").tolist() == [[0, 24], [1, 0]]


@pytest.mark.parametrize("scheme", list(SCHEMES))
@given(data=st.data())
def test_translation_looks_at_each_voxel_alone(scheme, data):
    known = [0, *SCHEMES[scheme].names]
    shape = arrays.array_shapes(min_dims=1, max_dims=3, max_side=6)
    labels = data.draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from(known)))
    canonical = to_canonical(labels, scheme)
    assert canonical.shape == labels.shape and canonical.dtype == np.uint8
    expected = [SCHEMES[scheme].canonical.get(int(i), 0) for i in labels.flat]
    assert canonical.ravel().tolist() == expected
    assert np.array_equal(to_canonical(canonical, "canonical"), canonical)


@pytest.mark.parametrize("scheme", list(SCHEMES))
@given(label=st.integers(1, 70000))
def test_an_unknown_id_is_refused_by_its_number(scheme, label):
    if label in SCHEMES[scheme].names:
        return
    with pytest.raises(SpineError, match=str(label)):
        to_canonical(np.array([0, label]), scheme)


def test_a_map_with_many_unknown_ids_names_the_first_and_the_scheme():
    with pytest.raises(SpineError, match=r"29, 30, .*'verse'.*totalsegmentator"):
        to_canonical(np.arange(20, 60), "verse")


@pytest.mark.parametrize("labels", [np.array([-1, 3]), np.array([1.0, 2.0]), np.array([True])])
def test_what_is_no_label_map_is_refused(labels):
    with pytest.raises(SpineError):
        to_canonical(labels, "verse")


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(SpineError, match=r"'versse'.*verse.*pycad1089"):
        to_canonical(np.array([1]), "versse")


def test_every_vertebra_lies_in_its_region():
    for label, name in CANONICAL.items():
        region = to_regions(np.array([label], np.uint8))[0]
        first = {"C": "cervical", "T": "thoracic", "L": "lumbar", "s": "sacral"}[name[0]]
        assert REGIONS[region - 1] == first, name
    assert to_regions(np.array([0], np.uint8))[0] == 0


def test_regions_follow_each_other_from_head_to_foot():
    regions = to_regions(np.array(HEAD_TO_FOOT, np.uint8)).astype(int)
    assert sorted(HEAD_TO_FOOT) == sorted(CANONICAL)
    assert (np.diff(regions) >= 0).all() and regions[0] == 1 and regions[-1] == 4


def test_regions_refuse_what_is_not_canonical():
    with pytest.raises(SpineError, match="27"):
        to_regions(np.array([27], np.uint8))


# --- findings ------------------------------------------------------------------------------


def test_a_correct_annotation_has_no_finding():
    ct, mask = column([18, 19, 20, 21, 22])
    assert check_annotation(ct, mask) == []


def test_a_mask_on_another_grid_is_reported_and_the_rest_still_checked():
    ct, mask = column([18, 20, 19])
    moved = Volume(mask.array, mask.affine + _shift(5))
    findings = check_annotation(ct, moved)
    assert one(findings, "geometry").severity == "error"
    assert "order" in codes(findings)


def _shift(mm):
    shift = np.zeros((4, 4))
    shift[0, 3] = mm
    return shift


def test_an_empty_map_is_reported():
    ct, mask = column([20, 21])
    findings = check_annotation(ct, mask.with_array(np.zeros_like(mask.array)))
    assert codes(findings) == {"empty"} and "empty" in findings[0].message


def test_unknown_ids_are_reported_with_their_numbers():
    ct, mask = column([20, 21, 99])
    finding = one(check_annotation(ct, mask), "unknown-ids")
    assert finding.labels == (99,) and "99" in finding.message


def test_two_swapped_vertebrae_are_found():
    ct, mask = column([16, 17, 19, 18, 20, 21, 22])
    finding = one(check_annotation(ct, mask), "order")
    assert set(finding.labels) == {18, 19} and "T11" in finding.message and "T12" in finding.message


def test_a_map_numbered_from_foot_to_head_is_found():
    ct, mask = column([22, 21, 20, 19])
    assert "wrong way" in one(check_annotation(ct, mask), "order").message


def test_a_missing_vertebra_is_found_by_name():
    ct, mask = column([17, 18, 20, 21])
    finding = one(check_annotation(ct, mask), "gap")
    assert "T12" in finding.message and finding.severity == "warning"


def test_nobody_is_missed_for_having_no_t13_and_no_l6():
    ct, mask = column([19, 20, 21, 22, 23, 24, 26])
    assert check_annotation(ct, mask) == []


def test_t13_belongs_between_t12_and_l1():
    ct, mask = column([19, 28, 20])
    assert check_annotation(ct, mask) == []


def test_crumbs_far_from_their_vertebra_are_a_warning():
    ct, mask = column([20, 21, 22])
    mask.array[35, 30, 2] = 20
    finding = one(check_annotation(ct, mask), "stray")
    assert finding.severity == "warning" and finding.labels == (20,)
    assert "1 of" in finding.message and "2 pieces" in finding.message


def test_crumbs_beside_their_vertebra_are_only_a_note():
    ct, mask = column([20, 21, 22])
    z = int(np.nonzero(mask.array == 21)[2].max())
    mask.array[21, 10, z] = 21
    assert one(check_annotation(ct, mask), "stray").severity == "note"


def test_a_sliver_of_a_vertebra_is_noted_and_does_not_upset_the_order():
    ct, mask = column([20, 21, 22])
    mask.array[12:14, 9, 1] = 19  # T12 under L3: too small to say anything about order
    findings = check_annotation(ct, mask)
    assert one(findings, "tiny").labels == (19,) and "order" not in codes(findings)


def test_a_totalsegmentator_map_read_as_verse_is_recognised():
    ct, mask = column([33, 32, 31, 30, 29])
    findings = check_annotation(ct, mask, "verse")
    message = one(findings, "scheme").message
    assert "'totalsegmentator'" in message and "T11, T12, L1, L2, L3" in message
    assert check_annotation(ct, mask, "totalsegmentator") == []


def test_ids_that_all_mean_something_in_the_wrong_scheme_are_recognised_too():
    ct, mask = column([28, 27, 26])  # L4, L5, S1; in VerSe T13, coccyx, sacrum
    assert "'totalsegmentator'" in one(check_annotation(ct, mask, "verse"), "scheme").message


def test_a_verse_map_read_as_totalsegmentator_is_organs_and_recognised():
    ct, mask = column([19, 20, 21])
    findings = check_annotation(ct, mask, "totalsegmentator")
    assert codes(findings) == {"scheme", "empty"}
    assert "'verse'" in one(findings, "scheme").message


def test_vertebrae_that_are_soft_tissue_are_not_read_as_such():
    """Liver, aorta and ribs under VerSe's ids: some run downwards, none of the first is bone."""
    ct, mask = column([20, 21, 31, 30, 29])
    ct.array[np.isin(mask.array, [20, 21])] = 60
    findings = check_annotation(ct, mask, "canonical")
    assert "'totalsegmentator'" in one(findings, "scheme").message


def test_without_a_scheme_that_fits_none_is_proposed():
    ct, mask = column([20, 21, 200])
    assert codes(check_annotation(ct, mask)) == {"unknown-ids"}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shifted_mask_is_found_with_the_way_back(axis):
    ct, mask = column([18, 19, 20, 21])
    finding = one(check_annotation(ct, mask.with_array(np.roll(mask.array, 3, axis))), "shifted")
    way_back = ["0", "0", "0"]
    way_back[axis] = "-6"
    assert f"moved by {', '.join(way_back)} mm" in finding.message


def test_a_mirrored_mask_is_found():
    ct, mask = column([18, 19, 20, 21])
    assert "mirrored" in codes(check_annotation(ct, mask.with_array(mask.array[::-1])))


def test_errors_come_before_warnings_and_notes():
    ct, mask = column([16, 17, 19, 18, 21, 22])
    mask.array[35, 30, 2] = 16
    ranks = [f.severity for f in check_annotation(ct, mask)]
    assert ranks == sorted(ranks, key=["error", "warning", "note"].index) and len(set(ranks)) > 1


def test_a_map_of_fractions_is_refused():
    ct, mask = column([20, 21])
    with pytest.raises(SpineError, match="whole numbers"):
        check_annotation(ct, mask.with_array(mask.array.astype(np.float32)))


# --- the real patients -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def patients(sample_root):
    from spine_lib.datasets import sample_cases

    cases = {case.case_id: case for case in sample_cases(sample_root)}
    return {i: (load_ct(c.ct_path), load_mask(c.mask_path), c.scheme) for i, c in cases.items()}


def test_real_masks_lie_where_they_belong_and_are_in_order(patients):
    for case_id, (ct, mask, scheme) in patients.items():
        found = codes(check_annotation(ct, mask, scheme))
        assert found <= {"tiny", "stray"}, (case_id, found)


def test_the_dicom_patients_spinous_process_is_reported_as_a_piece_of_its_own(patients):
    findings = [f for f in check_annotation(*patients["dicom"]) if f.labels == (33,)]
    assert one(findings, "stray").severity == "warning"


def test_parts_of_the_dicom_patients_t11_lie_below_t12(patients):
    canonical = to_canonical(patients["dicom"][1].array, "totalsegmentator")
    t12_above = np.flip(np.cumsum(np.flip(canonical == 19, 2), 2), 2) > 0
    assert np.count_nonzero((canonical == 18) & t12_above) == 1662


def test_the_chest_patients_few_voxels_of_c5_are_noted(patients):
    assert "C5 has only 99 voxels" in one(check_annotation(*patients["chest"]), "tiny").message


@pytest.mark.parametrize(
    ("case_id", "read_as", "meant"),
    [("abdomen", "verse", "totalsegmentator"), ("crop", "totalsegmentator", "verse")],
)
def test_a_real_map_read_under_the_wrong_scheme_is_recognised(patients, case_id, read_as, meant):
    ct, mask, _ = patients[case_id]
    assert f"read as '{meant}'" in one(check_annotation(ct, mask, read_as), "scheme").message


@pytest.mark.parametrize("case_id", ["abdomen", "dicom", "crop"])
def test_a_real_mask_that_is_mirrored_or_moved_is_found(patients, case_id):
    ct, mask, scheme = patients[case_id]
    mirrored = mask.with_array(np.ascontiguousarray(mask.array[::-1]))
    assert "mirrored" in codes(check_annotation(ct, mirrored, scheme))
    voxels = round(6 / ct.spacing_mm[0])
    moved = mask.with_array(np.roll(mask.array, voxels, axis=0))
    assert "shifted" in codes(check_annotation(ct, moved, scheme))
