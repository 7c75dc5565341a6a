"""A whole data set cut by several workers: the same store, however often it was stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import spine_lib
from spine_lib import SpineError
from spine_lib.datasets.public import find_cases
from spine_lib.slices.preparing import estimate_bytes, prepare_cases
from spine_lib.slices.store import SliceStore, prepare_store

pytestmark = pytest.mark.slow

SETTINGS = {"planes": ("axial", "sagittal"), "spacing_mm": 6.0}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Five scans in the layout of pycad1089, one of them cut short."""
    from spine_lib.datasets.phantom import make_phantom

    root = tmp_path_factory.mktemp("tree")
    for number in range(5):
        data = make_phantom(number, shape=(40, 40, 30), spacing_mm=5.0, levels=("T12", "L4"))
        for kind, array in (("volumes", data.ct.array), ("segmentations", data.labels.array)):
            path = root / kind / f"case_{number:04d}.nii"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), data.ct.affine), path)
    broken = root / "volumes" / "case_0003.nii"
    broken.write_bytes(broken.read_bytes()[:5000])
    return root


@pytest.fixture(scope="module")
def cases(tree):
    return find_cases("pycad1089", tree).cases


@pytest.fixture(scope="module")
def alone(cases, tmp_path_factory):
    """The good scans, cut one after the other."""
    good = [case for case in cases if case.case_id != "case_0003"]
    return prepare_store(good, tmp_path_factory.mktemp("alone"), **SETTINGS)


def checksums(store: SliceStore) -> list[tuple[str, str, str]]:
    """Return the checksum of every volume, in the order of the index."""
    return [(volume.case_id, volume.plane, volume.sha256) for volume in store.volumes]


def test_two_workers_make_the_store_of_one_and_name_the_broken_scan(cases, alone, tmp_path):
    lines = []
    made = prepare_cases(cases, tmp_path, **SETTINGS, workers=2, progress=False, say=lines.append)
    assert checksums(made.store) == checksums(alone)
    assert [item.case_id for item in made.left_out] == ["case_0003"]
    assert "case_0003.nii" in made.left_out[0].reason
    kept = json.loads((tmp_path / "left_out.json").read_text(encoding="utf-8"))
    assert kept[0]["case_id"] == "case_0003"
    assert "5 scans to slice: about" in lines[0] and "GB free" in lines[0]


def test_the_estimate_of_the_disk_is_close(cases, alone):
    good = [case for case in cases if case.case_id != "case_0003"]
    size = sum((alone.folder / volume.file).stat().st_size for volume in alone.volumes)
    assert estimate_bytes(good, **SETTINGS) == pytest.approx(size, rel=0.02)


def test_a_disk_that_is_too_small_is_told_beforehand(cases, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(9e9, 9e9, 1000))
    with pytest.raises(SpineError, match=r"0\.0 GB free, the slices need about"):
        prepare_cases(cases, tmp_path, **SETTINGS, progress=False, say=str)


def test_killed_at_any_moment_it_ends_with_the_same_store(tree, alone, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, time\n"
        "import spine_lib.slices.preparing as p\n"
        "from spine_lib.datasets.public import find_cases\n"
        "p.WRITE_EVERY_S = 0\n"
        "if __name__ == '__main__':\n"
        "    cases = find_cases('pycad1089', sys.argv[1]).cases\n"
        "    p.prepare_cases(cases, sys.argv[2], ('axial', 'sagittal'), 6.0, 1, progress=False)\n",
        encoding="utf-8",
    )
    project = str(Path(spine_lib.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": project}
    store = tmp_path / "store"
    command = [sys.executable, str(script), str(tree), str(store)]
    program = subprocess.Popen(command, env=environment, start_new_session=True)
    end = time.monotonic() + 60
    while not (store / "index.json").is_file() and program.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    if sys.platform == "win32":
        program.kill()
    else:
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    before = json.loads((store / "index.json").read_text(encoding="utf-8"))["volumes"]
    assert before
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert checksums(SliceStore(store)) == checksums(alone)
    assert not list(store.glob(".*.part"))


def test_a_worker_that_is_killed_is_told_and_loses_nothing(cases, alone, tmp_path, monkeypatch):
    good = [case for case in cases if case.case_id != "case_0003"]
    with pytest.raises(SpineError, match="A worker was killed.*fewer --workers"):
        prepare_cases([*good, Deadly("x")], tmp_path, **SETTINGS, progress=False, say=str)
    made = prepare_cases(good, tmp_path, **SETTINGS, progress=False, say=str)
    assert checksums(made.store) == checksums(alone)


class Deadly:
    """A case that ends the process that loads it, as running out of memory does."""

    scheme, ct_path = "canonical", None

    def __init__(self, case_id):
        self.case_id = case_id

    def load(self):
        os._exit(9)


def test_a_full_disk_stops_everything(cases, tmp_path):
    (tmp_path / "case_0000-axial.npy").mkdir()  # writing there fails, as on a full disk
    with pytest.raises(SpineError, match="case_0000-axial.npy cannot be written"):
        prepare_cases(cases[:1], tmp_path, **SETTINGS, progress=False, say=str)


def test_no_readable_scan_at_all_is_refused(cases, tmp_path):
    with pytest.raises(SpineError, match="No case can be read; the first: .*case_0003"):
        prepare_cases([cases[3]], tmp_path, **SETTINGS, progress=False, say=str)


def test_dask_workers_make_the_same_store(cases, alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options, processes=True) as cluster:
        address = cluster.scheduler_address
        made = prepare_cases(
            cases, tmp_path, **SETTINGS, scheduler=address, progress=False, say=str
        )
    assert checksums(made.store) == checksums(alone)
    assert [item.case_id for item in made.left_out] == ["case_0003"]


def test_a_scheduler_that_does_not_answer_is_told(cases, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    with pytest.raises(SpineError, match="No Dask scheduler answers at"):
        prepare_cases(cases, tmp_path, **SETTINGS, scheduler="nonsense://x", progress=False)


def test_a_worker_does_without_pytorch_which_would_take_half_a_gigabyte():
    code = "import sys, spine_lib.slices.cutting; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
