"""The findings of `check_annotation`."""

import functools

import numpy as np
import pytest

from spine_lib.annotations import check_annotation, to_canonical
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


@pytest.mark.parametrize(
    "labels",
    [[18, 19, 20, 21, 22], [19, 20, 21, 22, 23, 24, 26], [19, 28, 20]],
    ids=["plain", "without T13 and L6", "T13 between T12 and L1"],
)
def test_a_correct_annotation_has_no_finding(labels):
    assert check_annotation(*column(labels)) == []


@pytest.mark.parametrize(
    ("voxel", "severity"), [((35, 30, 2), "warning"), ((21, 10, 20), "note")], ids=["far", "near"]
)
def test_stray_voxels_are_a_warning_if_they_lie_far_from_their_vertebra(voxel, severity):
    ct, mask = column([20, 21, 22])
    mask.array[voxel] = 21
    finding = one(check_annotation(ct, mask), "stray")
    assert finding.severity == severity and finding.labels == (21,)
    assert "1 of" in finding.message and "2 pieces" in finding.message


def test_a_mask_on_another_grid_is_reported_and_the_rest_still_checked():
    ct, mask = column([18, 20, 19])
    moved = Volume(mask.array, mask.affine + 5 * np.eye(4, k=3))
    findings = check_annotation(ct, moved)
    assert one(findings, "geometry").severity == "error"
    assert "order" in codes(findings)


def test_an_empty_map_is_reported():
    ct, mask = column([20, 21])
    findings = check_annotation(ct, mask.with_array(np.zeros_like(mask.array)))
    assert codes(findings) == {"empty"} and "empty" in findings[0].message


@pytest.mark.parametrize(
    ("labels", "code", "severity", "about", "words"),
    [
        ([20, 21, 99], "unknown-ids", "error", {99}, ["99"]),
        ([16, 17, 19, 18, 20, 21, 22], "order", "error", {18, 19}, ["T11", "T12"]),
        ([17, 16, 15, 14], "order", "error", {14, 15, 16, 17}, ["wrong way"]),
        ([17, 18, 20, 21], "gap", "warning", set(), ["T12"]),
    ],
)
def test_wrong_ids_wrong_order_and_gaps_are_found_by_name(labels, code, severity, about, words):
    finding = one(check_annotation(*column(labels)), code)
    assert finding.severity == severity and set(finding.labels) == about
    assert all(word in finding.message for word in words)


def test_a_sliver_of_a_vertebra_is_noted_and_does_not_upset_the_order():
    ct, mask = column([20, 21, 22])
    mask.array[12:14, 9, 1] = 19  # T12 under L3: too small to say anything about order
    findings = check_annotation(ct, mask)
    assert one(findings, "tiny").labels == (19,) and "order" not in codes(findings)


@pytest.mark.parametrize(
    ("labels", "read_as", "all_codes", "words"),
    [
        ([33, 32, 31, 30, 29], "verse", None, "'totalsegmentator' it is T11, T12, L1, L2, L3"),
        # L4, L5, S1; in VerSe T13, coccyx, sacrum
        ([28, 27, 26], "verse", None, "'totalsegmentator'"),
        ([19, 20, 21], "totalsegmentator", {"scheme", "empty"}, "'verse'"),
        # TotalSegmentator's version 1: T11 to L5 with the sacrum, T12 to L3, T9 to T12
        ([24, 23, 22, 21, 20, 19, 18, 92], "totalsegmentator", None, "_v1' it is T11, T12"),
        ([23, 22, 21, 20], "verse", {"scheme"}, "'totalsegmentator_v1' it is T12, L1, L2, L3"),
        ([26, 25, 24, 23], "totalsegmentator", {"scheme"}, "'totalsegmentator_v1' it is T9, T10"),
        # T12 to L4 of version 2, T2 to T7 in version 1
        ([32, 31, 30, 29, 28], "totalsegmentator_v1", {"scheme"}, "an adult's; read as 'total"),
        # T12, L1, L2 and the sacrum of VerSe, of which version 2 would keep S1
        ([19, 20, 21, 26], "totalsegmentator", {"scheme"}, "'verse' it is T12, L1, L2, sacrum"),
    ],
)
def test_a_map_read_under_the_wrong_scheme_is_recognised(labels, read_as, all_codes, words):
    findings = check_annotation(*column(labels, spacing_mm=2.5), read_as)
    assert words in one(findings, "scheme").message
    assert all_codes is None or codes(findings) == all_codes


@pytest.mark.parametrize(
    ("spacing_mm", "read_as", "words"),
    [(2.0, "totalsegmentator", None), (1.7, "totalsegmentator", "'totalsegmentator_v1' 1.1")],
)
def test_a_small_body_that_another_scheme_makes_an_adult_is_a_warning(spacing_mm, read_as, words):
    """T11 to L3 of version 2 are T2 to T6 in version 1."""
    findings = check_annotation(*column([33, 32, 31, 30, 29, 28], spacing_mm), read_as)
    assert codes(findings) == ({"scheme"} if words else set())
    if words:
        assert words in findings[0].message and findings[0].severity == "warning"


def test_lungs_that_are_no_air_tell_the_version_of_a_map():
    """T8 to T5 of version 1 with its lungs; version 2 has other lobes at two of their numbers."""
    ct, mask = column([30, 29, 28, 27])
    for label, y, hu in ((15, 30, -850), (13, 24, -850), (12, 18, 30)):  # two lobes and a gland
        mask.array[30:38, y : y + 5] = label
        ct.array[mask.array == label] = hu
    message = one(check_annotation(ct, mask, "totalsegmentator"), "scheme").message
    assert "read as 'totalsegmentator_v1' it is T5, T6, T7, T8" in message


def test_l6_without_a_sacrum_is_noted_as_the_s1_of_another_scheme():
    assert one(check_annotation(*column([23, 24, 25]), "verse"), "scheme").severity == "note"
    assert check_annotation(*column([23, 24, 25]), "pycad1089") == []


def test_what_cannot_be_vertebrae_is_an_error_whatever_the_scheme():
    for labels in ([18, 19, 20, 21, 22, 23, 24], [20, 21, 22, 23, 24, 25, 26]):
        ct, mask = column(labels)
        finding = one(
            check_annotation(ct, mask.with_array((mask.array > 0).astype(np.uint8))), "implausible"
        )
        assert finding.severity == "error" and "C1 is spread" in finding.message


def test_vertebrae_that_are_soft_tissue_are_not_read_as_such():
    """Liver, aorta and ribs under VerSe's ids: some run downwards, none of the first is bone."""
    ct, mask = column([20, 21, 31, 30, 29])
    ct.array[np.isin(mask.array, [20, 21])] = 60
    findings = check_annotation(ct, mask, "canonical")
    assert "'totalsegmentator'" in one(findings, "scheme").message


@pytest.mark.parametrize("hu", [-1000, -90, 0, 40])
def test_a_mask_over_no_bone_is_found_in_any_scheme(hu):
    for labels, scheme in (
        ([20, 21, 22], "verse"),
        ([29, 28, 27], "totalsegmentator"),
        ([1], "verse"),
    ):
        ct, mask = column(labels)
        ct.array[mask.array > 0] = hu
        finding = one(check_annotation(ct, mask, scheme), "implausible")
        assert f"average {hu} HU, which is no bone" in finding.message


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


# --- the real patients -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def load_patient(sample_root):
    from spine_lib.datasets import sample_cases

    cases = {case.case_id: case for case in sample_cases(sample_root)}
    return functools.cache(
        lambda i: (load_ct(cases[i].ct_path), load_mask(cases[i].mask_path), cases[i].scheme)
    )


@pytest.mark.parametrize(
    "case_id", [pytest.param("chest", marks=pytest.mark.slow), "abdomen", "dicom", "crop"]
)
def test_a_real_mask_lies_where_it_belongs_and_is_in_order(load_patient, case_id):
    assert codes(check_annotation(*load_patient(case_id))) <= {"tiny", "stray"}


def test_parts_of_the_dicom_patients_t11_lie_below_t12(load_patient):
    canonical = to_canonical(load_patient("dicom")[1].array, "totalsegmentator")
    t12_above = np.flip(np.cumsum(np.flip(canonical == 19, 2), 2), 2) > 0
    assert np.count_nonzero((canonical == 18) & t12_above) == 1662


@pytest.mark.parametrize(
    ("case_id", "read_as", "meant"),
    [("abdomen", "verse", "totalsegmentator"), ("crop", "totalsegmentator", "verse")],
)
def test_a_real_map_read_under_the_wrong_scheme_is_recognised(
    load_patient, case_id, read_as, meant
):
    ct, mask, _ = load_patient(case_id)
    assert f"read as '{meant}'" in one(check_annotation(ct, mask, read_as), "scheme").message


@pytest.mark.parametrize("case_id", ["abdomen", "dicom", "crop"])
def test_a_real_mask_that_is_mirrored_or_moved_is_found(load_patient, case_id):
    ct, mask, scheme = load_patient(case_id)
    mirrored = mask.with_array(np.ascontiguousarray(mask.array[::-1]))
    assert "mirrored" in codes(check_annotation(ct, mirrored, scheme))
    voxels = round(6 / ct.spacing_mm[0])
    moved = mask.with_array(np.roll(mask.array, voxels, axis=0))
    assert "shifted" in codes(check_annotation(ct, moved, scheme))
