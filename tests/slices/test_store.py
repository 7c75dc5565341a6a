"""A data set cut into slices: the same store, by any number of workers, after every stop."""

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import nibabel as nib
import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.datasets import find_cases, make_phantom, phantom_cases
from spine_lib.slices import SliceStore, prepare
from spine_lib.slices import store as module
from spine_lib.slices.store import estimate_bytes

SMALL = {"shape": (40, 40, 20), "spacing_mm": 6.0}
SETTINGS = {"planes": ("axial", "sagittal"), "spacing_mm": 6.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SliceStore:
    return prepare(phantom_cases(3, **SMALL), tmp_path_factory.mktemp("s"), spacing_mm=6.0)


def test_preparing_again_does_no_work(store):
    lines = []
    again = prepare(phantom_cases(3, **SMALL), store.folder, ("axial",), 6.0, report=lines.append)
    assert lines == [] and again.volumes == store.volumes
    spine = [z for z, label in enumerate(store.read(1)["label"]) if (label > 0).any()]
    assert list(again.volumes[1].foreground) == spine


def test_a_stopped_preparation_goes_on_to_the_same_store(tmp_path, store, monkeypatch):
    cases = phantom_cases(3, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        prepare([cases[0], Ending(signal.raise_signal, signal.SIGINT)], tmp_path, spacing_mm=6.0)
    lines = []
    resumed = prepare(cases, tmp_path, ("axial",), 6.0, report=lines.append)
    assert lines == ["slicing phantom-0001", "slicing phantom-0002"]
    assert resumed.volumes == store.volumes
    for number in range(3):
        assert np.array_equal(resumed.read(number), store.read(number))


def test_other_settings_make_the_store_anew_after_saying_so(tmp_path):
    cases = phantom_cases(1, **SMALL)
    prepare(cases, tmp_path, spacing_mm=6.0)
    lines = []
    coarse = prepare(cases, tmp_path, ("axial",), 12.0, report=lines.append)
    assert "making it anew" in lines[0]
    assert coarse.read(0).shape == (20, 20, 20)


def test_a_damaged_store_is_one_sentence(tmp_path, store):
    with pytest.raises(SpineError, match="holds no slices: prepare it first"):
        SliceStore(tmp_path)
    (tmp_path / "index.json").write_bytes((store.folder / "index.json").read_bytes())
    (tmp_path / "phantom-0000-axial.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(SpineError, match="cannot be read .*to prepare it anew"):
        SliceStore(tmp_path).read(0)
    np.save(tmp_path / "phantom-0000-axial.npy", np.zeros((2, 3)))
    with pytest.raises(SpineError, match="cannot be read .it holds float64 of shape"):
        SliceStore(tmp_path).read(0)


@pytest.mark.parametrize(
    "edit",
    [
        lambda index: [index],
        lambda index: {**index, "version": 4},
        lambda index: {"version": index["version"]},
        lambda index: {**index, "volumes": [{}]},
        lambda index: {**index, "volumes": [{**index["volumes"][0], "shape": "large"}]},
        lambda index: {**index, "left_out": 5},
    ],
)
def test_an_edited_index_is_made_anew(tmp_path, edit):
    cases = phantom_cases(1, **SMALL)
    whole = prepare(cases, tmp_path, spacing_mm=6.0)
    path = tmp_path / "index.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text("utf-8")))), encoding="utf-8")
    with pytest.raises(SpineError, match="holds no slices: prepare it first"):
        SliceStore(tmp_path)
    assert prepare(cases, tmp_path, spacing_mm=6.0).volumes == whole.volumes


@pytest.mark.parametrize("keeps_time", [False, True])
@pytest.mark.parametrize("kind", ["volumes", "segmentations"])
def test_a_replaced_scan_or_mask_is_cut_anew(tmp_path, kind, keeps_time):
    root = tmp_path / "tree"
    write_scans(root, numbers=(0, 1))
    before = prepare(find_cases("pycad1089", root).cases, tmp_path / "store", **SETTINGS)
    path = root / kind / "case_0001.nii"
    stat = path.stat()
    image = nib.load(path)
    moved = np.roll(np.asanyarray(image.dataobj), 4, axis=2)
    nib.save(nib.Nifti1Image(moved, image.affine), path)
    time_ns = stat.st_mtime_ns + (0 if keeps_time else 1)
    os.utime(path, ns=(stat.st_atime_ns, time_ns))
    assert path.stat().st_size == stat.st_size
    lines = []
    cases = find_cases("pycad1089", root).cases
    after = prepare(cases, tmp_path / "store", **SETTINGS, report=lines.append)
    assert lines == ["slicing case_0001"]
    assert checksums(after)[:2] == checksums(before)[:2]
    assert all(a != b for a, b in zip(checksums(after)[2:], checksums(before)[2:], strict=True))
    assert checksums(after) == checksums(prepare(cases, tmp_path / "anew", **SETTINGS))


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("segmentations", lambda mask: mask * 0, "case_0001.nii labels no spine"),
        ("segmentations", lambda mask: mask * 0 + (mask > 0), "C1 is spread along the body"),
        ("segmentations", lambda mask: np.where(mask > 0, 26 - mask, 0), "in the right order"),
        ("volumes", lambda hu: hu * 0 - 900, "case_0001.nii is -900 HU everywhere"),
        ("volumes", lambda hu: np.roll(hu, 20, axis=0), "HU, which is no bone"),
    ],
    ids=["no label", "binary", "upside down", "constant", "another scan"],
)
def test_a_case_that_was_emptied_or_broken_keeps_no_old_slices(tmp_path, kind, content, words):
    root = tmp_path / "tree"
    write_scans(root, numbers=(0, 1))
    cases = find_cases("pycad1089", root).cases
    before = prepare(cases, tmp_path / "store", **SETTINGS)
    path = root / kind / "case_0001.nii"
    image = nib.load(path)
    array = content(np.asanyarray(image.dataobj)).astype(image.get_data_dtype())
    nib.save(nib.Nifti1Image(array, image.affine), path)
    after = prepare(cases, tmp_path / "store", **SETTINGS)
    assert checksums(after) == checksums(before)[:2]
    (left_out,) = after.left_out
    assert left_out.case_id == "case_0001" and words in left_out.reason
    assert sorted(path.name for path in (tmp_path / "store").glob("*.npy")) == [
        "case_0000-axial.npy",
        "case_0000-sagittal.npy",
    ]


def test_what_is_odd_about_a_scan_is_reported_while_it_is_cut(tmp_path):
    write_scans(tmp_path / "tree", numbers=(0,))
    path = tmp_path / "tree" / "volumes" / "case_0000.nii"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj) + 1024, image.affine), path)
    lines = []
    cases = find_cases("pycad1089", tmp_path / "tree").cases
    prepare(cases, tmp_path / "store", **SETTINGS, report=lines.append)
    assert any(line.startswith("note: ") and "air and fat" in line for line in lines)


def test_a_long_name_does_not_stop_a_preparation(tmp_path):
    write_scans(tmp_path, numbers=(0,), name="n" * 240)
    store = prepare(find_cases("pycad1089", tmp_path).cases, tmp_path / "store", **SETTINGS)
    assert store.volumes[0].case_id == "n" * 240 and store.read(0).size


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Five scans in the layout of pycad1089, one of them cut short."""
    root = tmp_path_factory.mktemp("tree")
    write_scans(root, range(5))
    broken = root / "volumes" / "case_0003.nii"
    broken.write_bytes(broken.read_bytes()[:5000])
    return root


@functools.cache
def scan(number):
    return make_phantom(number, shape=(40, 40, 30), spacing_mm=5.0, levels=("T12", "L4"))


def write_scans(root, numbers, name="case_{:04d}"):
    """Write phantoms in the layout of pycad1089."""
    for number in numbers:
        data = scan(number)
        for kind, array in (("volumes", data.ct.array), ("segmentations", data.labels.array)):
            path = root / kind / f"{name.format(number)}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), data.ct.affine), path)


@pytest.fixture(scope="module")
def cases(tree):
    return find_cases("pycad1089", tree).cases


@pytest.fixture(scope="module")
def good(cases):
    return [case for case in cases if case.case_id != "case_0003"]


@pytest.fixture(scope="module")
def alone(good, tmp_path_factory):
    """The good scans, cut one after the other."""
    return prepare(good, tmp_path_factory.mktemp("alone"), **SETTINGS)


def checksums(store: SliceStore) -> list[tuple[str, str, str]]:
    """Return the checksum of every volume, in the order of the index."""
    return [(volume.case_id, volume.plane, volume.sha256) for volume in store.volumes]


@pytest.mark.slow
def test_two_workers_make_the_store_of_one_and_name_the_broken_scan(cases, alone, tmp_path):
    lines = []
    made = prepare(cases, tmp_path, **SETTINGS, workers=2, progress=True, report=lines.append)
    assert checksums(made) == checksums(alone)
    assert [item.case_id for item in made.left_out] == ["case_0003"]
    assert "case_0003.nii" in made.left_out[0].reason
    assert SliceStore(tmp_path).left_out == made.left_out
    assert lines[0].startswith("5 scans to slice: ") and "GB free" in lines[0]


def test_the_estimate_of_the_disk_is_close_and_refuses_one_that_is_too_small(
    cases, good, alone, tmp_path, monkeypatch
):
    size = sum((alone.folder / volume.file).stat().st_size for volume in alone.volumes)
    assert estimate_bytes(good, **SETTINGS) == pytest.approx(size, rel=0.03)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9e9, 9e9, 1000))
    with pytest.raises(SpineError, match=r"0\.0 GB free, the slices need about"):
        prepare(cases, tmp_path, **SETTINGS)


def prepare_and_note_each_case(tree, folder):
    module.WRITE_EVERY_S = 0
    prepare(find_cases("pycad1089", tree).cases, folder, **SETTINGS)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_store(tree, cases, alone, tmp_path):
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=prepare_and_note_each_case, args=(tree, tmp_path))
    process.start()
    while not (tmp_path / "index.json").is_file() and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert json.loads((tmp_path / "index.json").read_text(encoding="utf-8"))["volumes"]
    assert checksums(prepare(cases, tmp_path, **SETTINGS)) == checksums(alone)
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_and_loses_nothing(good, alone, tmp_path):
    with pytest.raises(SpineError, match="A worker was killed.*fewer --workers"):
        prepare([*good, Ending(os._exit, 9)], tmp_path, **SETTINGS, workers=2)
    made = prepare(good, tmp_path, **SETTINGS)
    assert checksums(made) == checksums(alone)


class Ending:
    """A case that ends when it is loaded, and perhaps its process, as when memory runs out."""

    case_id, scheme, ct_path, mask_path = "x", "canonical", None, None

    def __init__(self, end, *arguments):
        self.end, self.arguments = end, arguments

    def load(self):
        self.end(*self.arguments)


def test_a_full_disk_stops_everything_and_so_does_no_readable_scan(cases, tmp_path):
    (tmp_path / "case_0000-axial.npy").mkdir()  # writing there fails, as on a full disk
    with pytest.raises(SpineError, match="case_0000-axial.npy cannot be written"):
        prepare(cases[:1], tmp_path, **SETTINGS)
    with pytest.raises(SpineError, match="No case can be read; the first: .*case_0003"):
        prepare([cases[3]], tmp_path, **SETTINGS)


@pytest.mark.slow
def test_dask_workers_make_the_same_store_and_a_silent_scheduler_is_named(cases, alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    with pytest.raises(SpineError, match="No Dask scheduler answers at"):
        prepare(cases, tmp_path, **SETTINGS, scheduler="nonsense://x")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, processes=True) as cluster:
        address = cluster.scheduler_address
        made = prepare(cases, tmp_path, **SETTINGS, scheduler=address)
    assert checksums(made) == checksums(alone)
    assert [item.case_id for item in made.left_out] == ["case_0003"]


@pytest.mark.slow
def test_a_worker_imports_neither_pytorch_nor_albumentations():
    code = "import sys, spine_lib.slices.store; print(*sys.modules)"
    modules = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert not {"torch", "albumentations"} & set(modules)
