"""More public data that need no account, fetched by name: `spine fetch --more NAME`.

`more_sets.yaml` lists addresses, licences and checksums. Pooch downloads, repeats and compares; a
file, or a subject's folder, appears when it is complete, so a fetch that was cut goes on with what
is missing.
"""

import contextlib
import hashlib
import io
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cache
from pathlib import Path

import pooch
import requests
import yaml
from filelock import FileLock
from pydantic.dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.datasets.case import mask_names
from spine_lib.datasets.sample import sample_root

TIMEOUT_S = 30
REPEATS = 2
RANGE_BYTES = 1 << 20

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Archive:
    """A zip file on a server, with "algorithm:checksum" and size."""

    url: str
    checksum: str
    bytes: int


@dataclass(frozen=True)
class MoreSet:
    """Data that can be fetched: an entry of `more_sets.yaml`, whose head explains the fields."""

    about: str
    licence: str
    non_commercial: bool
    cite: str
    dataset: str
    base: str = ""
    files: tuple[tuple[str, str, str], ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    archive: Archive | None = None


@cache
def more_sets() -> dict[str, MoreSet]:
    """Return what can be fetched, by name."""
    text = Path(__file__).with_name("more_sets.yaml").read_text(encoding="utf-8")
    return {name: MoreSet(**row) for name, row in yaml.safe_load(text).items()}


def fetch_more(
    name: str,
    root: str | Path | None = None,
    subjects: Sequence[str] = (),
    accept_licence: bool = False,
    progress: Progress = print,
) -> Path:
    """Fetch a public data set unless it is there already, and return its folder.

    Args:
        name: a key of `more_sets()`.
        root: folder for it; default `more/NAME` beside the built-in sample.
        subjects: of an archive, only these (such as "s0011"); default all.
        accept_licence: needed where the licence forbids commercial use.
        progress: called with the licence first, then a line for each file or subject.

    Raises:
        SpineError: if the name is unknown, the licence was not accepted, or a download fails. What
            was complete before stays, nothing is half-written.
    """
    if name not in more_sets():
        raise SpineError(
            f"There is no data set {name!r} to fetch: choose {', '.join(more_sets())}."
        )
    entry = more_sets()[name]
    if subjects and entry.archive is None:
        raise SpineError(f"{name} has no subjects to choose from: leave --subjects out.")
    progress(f"{name}: {entry.about}. Licence: {entry.licence}. Please cite {entry.cite}.")
    if entry.non_commercial and not accept_licence:
        raise SpineError(
            f"{name} is under {entry.licence}, which forbids commercial use: read it, and accept "
            "it with --accept-licence."
        )
    folder = Path(root) if root is not None else sample_root().parent / "more" / name
    try:
        with FileLock(folder / ".fetch.lock"):
            for path, target, checksum in entry.files:
                _fetch_file(entry.base + path, folder / target, checksum, progress)
            for target, text in entry.texts.items():
                with atomic_file(folder / target) as stream:
                    stream.write(text.encode())
            if entry.archive:
                _fetch_subjects(entry.archive, folder, subjects, progress)
    except OSError as error:  # requests' errors are among them
        reason = f"{error.filename or folder} {error.strerror or error}"
        if isinstance(error, requests.HTTPError):
            reason = f"{error.response.url} answered {error.response.status_code}"
        elif isinstance(error, requests.RequestException):
            reason = "the server broke off; the same command goes on with what is missing"
        raise SpineError(f"{name} could not be fetched into {folder}: {reason}.") from error
    return folder


def _fetch_file(url: str, path: Path, checksum: str, progress: Progress) -> None:
    """Download a file, compare its checksum and put it in its place, unless it is there."""
    if path.is_file():
        return
    algorithm, _, wanted = checksum.partition(":")

    def download(url: str, draft: str, shelf: pooch.Pooch) -> None:
        load = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
        load(url, draft, shelf)
        if algorithm == "git" and git_checksum(Path(draft)) != wanted:
            raise ValueError("another content")

    shelf = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: None if algorithm == "git" else checksum},
        urls={path.name: url},
        retry_if_failed=REPEATS,
    )
    pooch.get_logger().setLevel("ERROR")  # what matters is in the exception
    try:
        shelf.fetch(path.name, downloader=download)
    except ValueError as error:
        raise SpineError(
            f"The checksum of {url} differs from the recorded one: the file was damaged or "
            "replaced, and nothing of it was kept."
        ) from error
    except requests.HTTPError:
        raise
    except requests.RequestException as error:
        reason = "cannot be reached or broke off; the same command goes on with what is missing"
        raise OSError(0, reason, url) from error
    progress(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def git_checksum(path: Path) -> str:
    """Return the SHA-1 by which git names a file's content."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    digest.update(path.read_bytes())
    return digest.hexdigest()


class RangesRefused(Exception):
    """The server sends whole files only."""


class RemoteFile(io.RawIOBase):
    """A file on a server that is read in parts, by HTTP ranges."""

    def __init__(self, url: str, size: int) -> None:
        self.url, self.size, self.position = url, size, 0
        self.session = requests.Session()
        retries = requests.adapters.Retry(REPEATS, backoff_factor=0.5, status_forcelist=(429, 503))
        self.session.mount("http", requests.adapters.HTTPAdapter(max_retries=retries))

    def readable(self) -> bool:
        return True

    seekable = readable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = (0, self.position, self.size)[whence] + offset
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        end = min(self.position + len(buffer), self.size)
        if end <= self.position:
            return 0
        headers = {"Range": f"bytes={self.position}-{end - 1}", "Accept-Encoding": "identity"}
        with self.session.get(self.url, headers=headers, timeout=TIMEOUT_S, stream=True) as answer:
            answer.raise_for_status()
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status_code != 206 or total != str(self.size):
                raise RangesRefused
            content = answer.content
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


def _fetch_subjects(
    archive: Archive, folder: Path, subjects: Sequence[str], progress: Progress
) -> None:
    whole = folder / Path(archive.url).name
    if not whole.is_file():
        remote = io.BufferedReader(RemoteFile(archive.url, archive.bytes), RANGE_BYTES)
        with contextlib.suppress(RangesRefused, zipfile.BadZipFile):
            with zipfile.ZipFile(remote) as opened:
                return _unpack_subjects(opened, folder, subjects, progress)
    _fetch_file(archive.url, whole, archive.checksum, progress)
    with zipfile.ZipFile(whole) as opened:
        _unpack_subjects(opened, folder, subjects, progress)
    whole.unlink()


def _unpack_subjects(
    opened: zipfile.ZipFile, folder: Path, subjects: Sequence[str], progress: Progress
) -> None:
    """Unpack meta.csv, and each subject's scan and masks of the spine, unless they are there."""
    masks = "|".join(mask_names().values())
    wanted = re.compile(rf"(?:.*/)?(s\d+)/(ct\.nii\.gz|segmentations/(?:{masks})\.nii\.gz)")
    members: dict[str, dict[str, str]] = {}
    for member in opened.namelist():
        if match := wanted.fullmatch(member):
            members.setdefault(match[1], {})[match[2]] = member
    if missing := [subject for subject in subjects if subject not in members]:
        raise SpineError(f"The archive has no subject {missing[0]}: it has {len(members)}, such as "
                         f"{', '.join(sorted(members)[:3])}.")  # fmt: skip
    metas = [member for member in opened.namelist() if member.rpartition("/")[2] == "meta.csv"]
    if metas and not (folder / "meta.csv").is_file():
        with atomic_file(folder / "meta.csv") as stream:
            stream.write(opened.read(metas[0]))
    for subject in subjects or sorted(members):
        if (folder / subject).is_dir():
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as work:
            for name, member in members[subject].items():
                path = Path(work, subject, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target)
            Path(work, subject).rename(folder / subject)
        progress(f"{subject}: {len(members[subject])} files")
