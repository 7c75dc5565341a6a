"""Readers of the public data sets, on trees of phantoms with each set's layout and quirks."""

import re
import shutil

import cv2
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from spine_lib import SpineError
from spine_lib.annotations.schemes import SACRUM
from spine_lib.datasets import (
    PUBLIC_SETS,
    catalogue_text,
    find_cases,
    known_faults,
    make_phantom,
    split_of,
)
from spine_lib.datasets.case import mask_names
from spine_lib.slices import prepare


def write(array, affine, path, codes="RAS"):
    """Write an array in RAS+ as a NIfTI whose axes point to `codes`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.ascontiguousarray(array), affine)
    ras, target = map(nib.orientations.axcodes2ornt, ("RAS", codes))
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(ras, target)), path)


def s1_only(labels):
    """Cut a whole sacrum down to its upper 24 mm, as a mask with S1 only has it."""
    labels = labels.copy()
    top = np.flatnonzero((labels == SACRUM).any(axis=(0, 1))).max()
    below = labels[:, :, : top - 6]
    below[below == SACRUM] = 0
    return labels


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(3, shape=(56, 56, 110), spacing_mm=4.0)


@pytest.fixture(scope="module")
def pycad(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("pycad")
    labels = s1_only(phantom.labels.array)
    labels[labels == SACRUM] = 25
    for number in (0, 1, 7, 12):  # gaps, as in the real numbering
        name = f"case_{number:04d}.nii"
        write(phantom.ct.array, phantom.ct.affine, root / "volumes" / name)
        if number != 12:
            write(labels, phantom.ct.affine, root / "segmentations" / name)
    write(labels, phantom.ct.affine, root / "segmentations" / "case_0030.nii")
    (root / "volumes" / "._case_0000.nii").touch()  # macOS leaves such files
    return root


def test_pycad1089_pairs_what_both_sides_have(pycad):
    cohort = find_cases("pycad1089", pycad)
    assert [case.case_id for case in cohort.cases] == ["case_0000", "case_0001", "case_0007"]
    assert [str(item) for item in cohort.excluded] == [
        "case_0012: a scan without a mask",
        "case_0030: a mask without a scan",
    ]
    assert "by scan" in cohort.split_note


def test_one_scan_in_two_files_is_refused(tmp_path):
    for name in ("volumes/a.nii", "volumes/a.nii.gz", "segmentations/a.nii"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(SpineError, match=r"a\.nii and a\.nii\.gz: remove one"):
        find_cases("pycad1089", tmp_path)


def test_id_25_of_pycad1089_is_s1_and_the_rest_of_the_sacrum_is_ignored(pycad, phantom):
    data = find_cases("pycad1089", pycad).cases[0].load()
    assert SACRUM in data.labels.array and 25 not in data.labels.array
    hidden = (phantom.labels.array == SACRUM) & (data.labels.array == 0)
    bone = hidden & (phantom.ct.array > 150)
    assert bone.sum() > 20
    assert data.ignore.array[bone].mean() > 0.8
    assert not data.ignore.array[data.labels.array > 0].any()
    above = np.flatnonzero((data.labels.array == SACRUM).any(axis=(0, 1))).max() + 2
    assert not data.ignore.array[:, :, above:].any()


def test_a_scan_has_its_part_whichever_others_there_are():
    parts = [split_of(f"case_{number:04d}") for number in range(2000)]
    assert split_of("case_0007") == parts[7]
    shares = {part: parts.count(part) / len(parts) for part in ("train", "validation", "test")}
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.03)


@pytest.fixture(scope="module")
def total(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("total")
    rows = ["image_id;age;gender;institute;study_type;split;manufacturer"]
    names = mask_names()
    canonical = {51 - i: i for i in range(1, 25)} | {25: SACRUM}
    skew = phantom.ct.affine.copy()
    skew[0, 1] = 0.3
    for subject, split in (("s0000", "train"), ("s0005", "val"), ("s0011", "test")):
        rows.append(f"{subject};50;f;A;ct;{split};siemens")
        affine = skew if subject == "s0000" else phantom.ct.affine
        write(phantom.ct.array, affine, root / subject / "ct.nii.gz")
        for number, name in names.items():
            mask = phantom.labels.array == canonical.get(number, 99)
            path = root / subject / "segmentations" / f"{name}.nii.gz"
            write(mask.astype(np.uint8), affine, path)
    rows.append("s0020;60;m;B;ct;train;ge")  # in the list, not on the disk
    (root / "s0011" / "segmentations" / "vertebrae_L3.nii.gz").unlink()
    (root / "meta.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def test_totalsegmentator_puts_the_masks_of_a_subject_together(total, phantom):
    cohort = find_cases("totalsegmentator", total)
    assert [(c.case_id, c.split) for c in cohort.cases] == [
        ("s0000", "train"),
        ("s0005", "validation"),
    ]
    assert np.array_equal(cohort.cases[1].load().labels.array, phantom.labels.array)
    assert [str(item) for item in cohort.excluded] == [
        "s0011: s0011/segmentations/vertebrae_L3.nii.gz is missing: half a download?",
        "s0020: s0020/ct.nii.gz is missing: half a download?",
    ]


def test_a_multilabel_map_in_place_of_a_mask_is_refused(total, phantom, tmp_path):
    case = find_cases("totalsegmentator", shutil.copytree(total, tmp_path / "total")).cases[1]
    write(phantom.labels.array, phantom.ct.affine, case.mask_path / "vertebrae_C1.nii.gz")
    with pytest.raises(SpineError, match="vertebrae_C1.*holds 0 and 1, this one"):
        case.load_structures()


def test_the_rebuilt_1089_are_read_with_the_official_split_and_the_public_masks(total, phantom):
    cohort = find_cases("rebuilt1089", total)
    assert [(case.case_id, case.split) for case in cohort.cases] == [("s0005", "validation")]
    assert str(cohort.excluded[0]) == "s0000: its affine is one that ITK refuses"
    assert [item.case_id for item in cohort.excluded] == ["s0000", "s0011", "s0020"]
    assert cohort.split_note == (
        "the official one of meta.csv, by subject; 3 subjects less 1 whose affine ITK refuses "
        "leave 2; 1 of the refused are among the 136 that others listed; 1 are not there"
    )
    data = cohort.cases[0].load()
    # the phantom's sacrum is written as the structure below S1
    assert np.array_equal(data.ignore.array, phantom.labels.array == SACRUM)
    assert data.ignore.array.any()
    assert np.array_equal(data.labels.array, phantom.labels.array)


def test_a_broken_header_is_listed_and_does_not_stop_the_rebuilding(total, tmp_path):
    root = shutil.copytree(total, tmp_path / "total")
    (root / "s0000" / "ct.nii.gz").write_bytes(b"no NIfTI")
    cohort = find_cases("rebuilt1089", root)
    assert [case.case_id for case in cohort.cases] == ["s0005"]
    assert "2 subjects less 0" in cohort.split_note and "1 cannot be read" in cohort.split_note
    assert cohort.excluded[0].case_id == "s0000" and "fetch it again" in cohort.excluded[0].reason


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("meta.csv", "image_id,split\na,train\n", "no columns image_id and split"),
        ("meta.csv", "image_id;split\na;left\n", "line 2: the part of 'a' is 'left'"),
        ("meta.csv", "image_id;split\na\n", "line 2: the part of 'a' is None"),
        ("meta.csv", "image_id;split\n../a;train\n", "name of a scan is '../a'"),
        ("meta.csv", "image_id;split\na;test\na;train\n", "in two parts"),
        ("meta.csv", "image_id;split\n\xe9;test\n", "is not UTF-8"),
        ("data_split.txt", "a.nii.gz\n", "line 1: the part of 'a' is None; expected one"),
        ("data_split.txt", "trainset:\na\ntest_public:\na\n", "a is in two parts"),
        ("data_split.txt", "trainset:\n\xe9\n", "is not UTF-8"),
    ],
)
def test_another_split_file_is_refused(tmp_path, file, text, words):
    name = "totalsegmentator" if file == "meta.csv" else "ctspine1k"
    for folder in ("volumes", "labels"):
        (tmp_path / folder).mkdir()
    (tmp_path / file).write_text(text, encoding="latin-1")
    with pytest.raises(SpineError, match=words) as caught:
        find_cases(name, tmp_path)
    assert file in str(caught.value) and "\n" not in str(caught.value)


def test_a_tree_of_version_1_is_named(total, tmp_path):
    root = shutil.copytree(total, tmp_path / "v1")
    for path in root.rglob("vertebrae_S1.nii.gz"):
        path.unlink()
    with pytest.raises(SpineError, match="version 1 of the data: take version 2, doi"):
        find_cases("totalsegmentator", root)


def test_known_faults_are_named_with_their_source(total):
    for name in ("totalsegmentator", "rebuilt1089"):
        (whole_set,) = find_cases(name, total).faults
        assert "sacrum" in whole_set and "issues/249" in whole_set
        faults = known_faults(name)
        assert sum("issues/394" in fault for fault in faults) == 7 and len(faults) == 12
        assert known_faults(name, ["s0941"])[0].startswith("s0941: neighbouring vertebrae")
    assert "presumably" in known_faults("pycad1089")[0]
    assert len(known_faults("ctspine1k")) == 5 and not known_faults("verse")
    assert "s0941: neighbouring vertebrae are mixed" in catalogue_text()


VERSE_FILES = ("rawdata/{}/{}_ct.nii.gz", "derivatives/{}/{}_seg-vert_msk.nii.gz")


@pytest.fixture(scope="module")
def verse(phantom, tmp_path_factory):
    """Two parts; one subject with two series, one stored P-I-R, one without its mask."""
    root = tmp_path_factory.mktemp("verse")
    labels = phantom.labels.array.copy()
    labels[labels == SACRUM] = 0
    labels[labels == labels[labels > 0].min()] = 0  # the uppermost is cut, so not labelled
    affine = phantom.ct.affine
    series = [
        ("dataset-01training", "sub-verse004", "sub-verse004", "RAS"),
        ("dataset-01training", "sub-verse400", "sub-verse400_split-verse155", "LPS"),
        ("dataset-01training", "sub-verse400", "sub-verse400_split-verse253", "RAS"),
        ("dataset-02validation", "sub-gl016", "sub-gl016_dir-ax", "PIR"),
    ]
    for part, subject, name, codes in series:
        for kind, array in zip(VERSE_FILES, (phantom.ct.array, labels)):
            write(array, affine, root / part / kind.format(subject, name), codes)
    alone = VERSE_FILES[0].format("sub-verse500", "sub-verse500")
    write(phantom.ct.array, affine, root / "dataset-03test" / alone)
    return root


def test_verse_reads_series_parts_and_orientations(verse, phantom):
    cohort = find_cases("verse", verse)
    assert [(c.case_id, c.patient_id, c.split) for c in cohort.cases] == [
        ("sub-verse004", "verse-verse004", "train"),
        ("sub-verse400_split-verse155", "verse-verse400", "train"),
        ("sub-verse400_split-verse253", "verse-verse400", "train"),
        ("sub-gl016_dir-ax", "verse-gl016", "validation"),
    ]
    assert [item.case_id for item in cohort.excluded] == ["sub-verse500"]
    turned_back = cohort.cases[3].load()
    assert np.array_equal(turned_back.ct.array, phantom.ct.array)


def test_what_verse_does_not_label_is_ignored(verse, phantom):
    data = find_cases("verse", verse).cases[0].load()
    left_out = (phantom.labels.array > 0) & (data.labels.array == 0)
    assert left_out.sum() > 100
    assert data.ignore.array[left_out].mean() > 0.9
    assert not data.ignore.array[data.labels.array > 0].any()


def test_one_subject_in_two_years_is_refused(verse, tmp_path, phantom):
    for folder in ("2019/dataset-01training", "2020/dataset-01training"):
        for kind in VERSE_FILES:
            path = tmp_path / folder / kind.format("sub-verse004", "sub-verse004")
            write(phantom.labels.array, phantom.ct.affine, path)
    with pytest.raises(SpineError, match="occur twice .*sub-verse004"):
        find_cases("verse", tmp_path)


@pytest.fixture(scope="module")
def ctspine(phantom, tmp_path_factory):
    root = tmp_path_factory.mktemp("ctspine")
    labels = phantom.labels.array.copy()
    labels[labels == SACRUM] = 0
    for subset, name in (("liver", "liver_0"), ("liver", "liver_1"), ("COLONOG", "1.3.6.1.4.0001")):
        write(phantom.ct.array, phantom.ct.affine, root / "volumes" / subset / f"{name}.nii.gz")
        write(labels, phantom.ct.affine, root / "labels" / subset / f"{name}_seg.nii.gz")
    (root / "data_split.txt").write_text(
        "trainset:\n1.3.6.1.4.0001.nii.gz\n\ntest_public:\nliver_0.nii.gz\ntest_private:\n",
        encoding="utf-8",
    )
    return root


def test_ctspine1k_follows_its_split_file(ctspine, phantom):
    cohort = find_cases("ctspine1k", ctspine)
    assert [(c.case_id, c.split) for c in cohort.cases] == [
        ("1.3.6.1.4.0001", "train"),
        ("liver_0", "validation"),
    ]
    (excluded,) = cohort.excluded
    assert excluded.case_id == "liver_1" and "data_split.txt" in excluded.reason
    labels = cohort.cases[0].load().labels.array
    assert np.array_equal(labels > 0, (phantom.labels.array > 0) & (phantom.labels.array != SACRUM))


@pytest.fixture
def own(phantom, tmp_path):
    write(phantom.ct.array, phantom.ct.affine, tmp_path / "images" / "a.nii.gz")
    write(phantom.labels.array, phantom.ct.affine, tmp_path / "masks" / "a.nii.gz")
    (tmp_path / "dataset.yaml").write_text(
        "scheme: canonical\ncovers: all\nlicence: own\nsplits: {a: train, b: test}\n"
        "spacing_mm: [4, 4, 4]\nwindow_hu: [-1024, 1026]\npatients: {a: p1}\n",
        encoding="utf-8",
    )
    return tmp_path


def add_png_case(root, phantom, name="{:03d}.png", mask_name=None, top=255):
    """Add case "b" as PNG slices: axial, first slice lowest, rows from front to back."""
    grey = np.clip((phantom.ct.array + 1024.0) * top / 2050, 0, top).round()
    grey = grey.astype(np.uint8 if top == 255 else np.uint16)
    for kind, array in (("images", grey), ("masks", phantom.labels.array)):
        folder = root / kind / "b"
        folder.mkdir(parents=True)
        for index in range(array.shape[2]):
            pixels = cv2.imencode(".png", array[::-1, ::-1, index].T)[1].tobytes()
            pattern = name if kind == "images" else mask_name or name
            (folder / pattern.format(index)).write_bytes(pixels)


@pytest.mark.parametrize(("top", "tolerance_hu"), [(255, 5), (65535, 1)])
def test_a_folder_of_own_pairs_and_png_slices_of_8_or_16_bits(own, phantom, top, tolerance_hu):
    add_png_case(own, phantom, top=top)
    a, b = find_cases("folder", own).cases
    patients = [(case.split, case.patient_id) for case in (a, b)]
    assert patients == [("train", "folder-p1"), ("test", "folder-b")]
    data = b.load()
    assert np.array_equal(data.labels.array, phantom.labels.array)
    assert data.ct.spacing_mm == (4.0, 4.0, 4.0)
    inside = np.abs(phantom.ct.array) < 1000
    difference = data.ct.array[inside].astype(int) - phantom.ct.array[inside]
    assert np.abs(difference).max() <= tolerance_hu


@pytest.mark.parametrize(
    ("name", "mask_name"),
    [
        ("{}.png", None),
        ("slice_{}.PNG", "{:04d}_mask.png"),
        ("ct1_{:03d}.png", "seg2-{}-v3.Png"),
    ],
)
def test_png_slices_are_ordered_by_number_and_paired_by_name_or_number(
    own, phantom, name, mask_name
):
    add_png_case(own, phantom, name, mask_name)
    for kind in ("images", "masks"):
        for clutter in ("._1.png", ".DS_Store", "Thumbs.db"):
            (own / kind / "b" / clutter).write_bytes(b"\0")
    assert np.array_equal(
        find_cases("folder", own).cases[1].load().labels.array, phantom.labels.array
    )


def remove(*names):
    return lambda root: [(root / name).unlink() for name in names]


def replace(name, content=b""):
    return lambda root: (root / name).write_bytes(content)


def of_mode(name, mode):
    return lambda root: Image.new(mode, (56, 56)).save(root / name)


def make_a_folder(root):
    (root / "images/b/005.png").unlink()
    (root / "images/b/005.png").mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("images/b/004.png", "masks/b/005.png"), "images/b/005.png has no partner"),
        (remove("images/b/004.png"), "masks/b/004.png has no partner"),
        (remove("images/b/004.png", "masks/b/004.png"), r"skips slices, .* go up by \[1, 2\]"),
        (replace("images/b/005.png"), "005.png cannot be read as a grey PNG"),
        (replace("images/b/005.png", b"\x89PNG\r\n\x1a\n"), "005.png cannot be read"),
        (of_mode("images/b/005.png", "P"), "005.png cannot be read .*bits of colour type 3"),
        (of_mode("masks/b/005.png", "1"), "005.png cannot be read .*1 bits of colour"),
        (of_mode("images/b/005.png", "I;16"), "005.png has .* of uint16, the slice before"),
        (make_a_folder, "005.png cannot be read as a grey PNG .Is a directory"),
    ],
)
def test_a_png_slice_that_is_odd_is_named_and_the_others_are_prepared(
    own, phantom, tmp_path_factory, damage, words
):
    add_png_case(own, phantom)
    damage(own)
    cases = find_cases("folder", own).cases
    store = prepare(cases, tmp_path_factory.mktemp("store"), ("axial",), 4)
    assert [volume.case_id for volume in store.volumes] == ["a"]
    (left_out,) = store.left_out
    assert re.search(words, left_out.reason) and "\n" not in left_out.reason


def test_suffixes_count_in_any_case_clutter_is_no_case_and_what_is_none_is_named(own):
    for kind in ("images", "masks"):
        (own / kind / "a.nii.gz").rename(own / kind / "a.Nii.GZ")
        (own / kind / "._a.nii.gz").write_bytes(b"\0\5\26\7")
    (own / "images" / "c.nrrd").touch()
    (own / "masks" / "d").mkdir()
    cohort = find_cases("folder", own)
    assert [case.case_id for case in cohort.cases] == ["a"]
    reasons = {scan.case_id: scan.reason for scan in cohort.excluded}
    assert reasons.pop("b") == "dataset.yaml names it, but it is not there"
    assert sorted(reasons) == ["c.nrrd", "d"]
    assert all("neither a NIfTI file nor a folder of PNG" in reason for reason in reasons.values())


def test_case_names_that_yaml_takes_for_numbers_stay_names(own):
    for kind in ("images", "masks"):
        for name in ("001", "1e3", "no"):
            shutil.copy(own / kind / "a.nii.gz", own / kind / f"{name}.nii.gz")
    text = "scheme: canonical\nsplits: {a: train, 001: train, 1e3: validation, no: test}\n"
    (own / "dataset.yaml").write_text(text + "patients: {001: 7}\n", encoding="utf-8")
    cases = {case.case_id: case for case in find_cases("folder", own).cases}
    parts = {name: case.split for name, case in cases.items()}
    assert parts == {"001": "train", "1e3": "validation", "a": "train", "no": "test"}
    assert cases["001"].patient_id == "folder-7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scheme: canonical\n", "states no spacing_mm"),
        ("covers: all\n", "scheme is missing"),
        ("scheme: mine\n", "scheme is 'mine'; it must be .canonical"),
        ("scheme: verse\nspacing_mm: 4\n", "spacing_mm is '4'"),
        ("scheme: verse\nsize: 4\n", "no setting 'size'"),
        ("scheme: verse\nsplits: [a, b]\n", "splits is .'a', 'b'.; it must"),
        ("scheme: verse\nsplits: {a: left}\n", "splits is .*left"),
        ("scheme: verse\nspacing_mm: [1, 1, .inf]\n", "spacing_mm is .*inf"),
        ("scheme: verse\nwindow_hu: [5, 5]\n", "window_hu is .*below the second"),
        ("scheme: verse\nwindow_hu: [0, 1e9]\n", "window_hu is"),
        ("scheme: &a verse\ncovers: *a\n", "refers to another part"),
        ("scheme: " + "[" * 500 + "]" * 500, "cannot be read as YAML"),
        ("a: [\n", "cannot be read as YAML"),
    ],
)
def test_a_statement_that_says_too_little_is_refused(own, phantom, text, words):
    add_png_case(own, phantom)
    (own / "dataset.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(SpineError, match=words) as caught:
        find_cases("folder", own)
    assert "\n" not in str(caught.value)


def test_a_folder_without_rights_is_one_sentence(own, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(SpineError, match="images cannot be read, you have no permission"):
        find_cases("folder", own)


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_another_folder_is_refused_with_what_it_holds(name, tmp_path):
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(SpineError, match=r"expected .*, found holiday\.jpg"):
        find_cases(name, tmp_path)
    with pytest.raises(SpineError, match="is not there"):
        find_cases(name, tmp_path / "nowhere")


def test_an_unknown_data_set_is_refused_and_the_catalogue_has_the_known_ones():
    for entry in PUBLIC_SETS.values():
        assert f"{entry.name}: {entry.scans} scans" in catalogue_text()
    with pytest.raises(SpineError, match="Unknown data set 'imagenet': choose one of pycad1089"):
        find_cases("imagenet", ".")
