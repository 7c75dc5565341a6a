"""More public data that need no account, fetched by name: `spine fetch --more NAME`.

`more_sets.yaml` lists addresses, licences and checksums. Pooch downloads, repeats and compares;
fsspec reads single subjects out of an archive on a server. A file, or a subject's folder, appears
when it is complete, so a fetch that was cut goes on with what is missing.
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cache, partial
from pathlib import Path

import pooch
import requests
import yaml
from filelock import FileLock
from pydantic.dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file, os_reason
from spine_lib.ct.geometry import require_choice
from spine_lib.datasets.case import mask_names
from spine_lib.datasets.public import Cohort, find_cases
from spine_lib.datasets.sample import sample_root

TIMEOUT_S, REPEATS, RANGE_BYTES = 30, 2, 1 << 20

Progress = Callable[[str], object]


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
    archive: str = ""
    checksum: str = ""


@cache
def more_sets() -> dict[str, MoreSet]:
    """Return what can be fetched, by name."""
    text = Path(__file__).with_name("more_sets.yaml").read_text(encoding="utf-8")
    return {name: MoreSet(**row) for name, row in yaml.safe_load(text).items()}


def more_folder(name: str) -> Path:
    """Return where a set lies unless another folder was chosen for it: beside the sample."""
    return sample_root().parent / "more" / name


def fetched_cohorts() -> dict[str, Cohort]:
    """Return the cases of all sets of scans that lie in their `more_folder`, by name."""
    return {
        name: find_cases(entry.dataset, more_folder(name))
        for name, entry in more_sets().items()
        if entry.dataset and any(more_folder(name).glob("*/"))
    }


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

    Raises a `SpineError` if the name is unknown, the licence was not accepted, or a download fails;
    what was complete before stays, nothing is half-written.
    """
    from aiohttp import ClientError  # fsspec uses it; here, as it takes half a second

    require_choice("data set", name, tuple(more_sets()))
    entry = more_sets()[name]
    if subjects and not entry.archive:
        raise SpineError(f"{name} has no subjects to choose from: leave --subjects out.")
    progress(f"{name}: {entry.about}. Licence: {entry.licence}. Please cite {entry.cite}.")
    if entry.non_commercial and not accept_licence:
        raise SpineError(
            f"{name} is under {entry.licence}, which forbids commercial use: read it, and accept "
            "it with --accept-licence."
        )
    folder = Path(root or more_folder(name))
    try:
        with FileLock(folder / ".fetch.lock"):
            for path, target, checksum in entry.files:
                _fetch_file(entry.base + path, folder / target, checksum, progress)
            for target, text in entry.texts.items():
                with atomic_file(folder / target) as stream:
                    stream.write(text.encode())
            if entry.archive:
                _fetch_subjects(entry, folder, subjects, progress)
    except (requests.RequestException, ClientError, TimeoutError, FileNotFoundError) as error:
        response = getattr(error, "response", None)
        status = getattr(error, "status", getattr(response, "status_code", ""))
        reason = f"answered {status}" if status else "cannot be reached or broke off"
        raise SpineError(
            f"{entry.archive or entry.base} {reason}, so {name} is not whole in {folder}: the same "
            "command goes on with what is missing."
        ) from error
    except (ValueError, zipfile.BadZipFile) as error:  # in answer to the wish for a part
        raise SpineError(
            f"{entry.archive} cannot be read in parts ({error}): leave --subjects out, which "
            "fetches all of it."
        ) from error
    except OSError as error:
        path = error.filename or folder
        raise SpineError(f"{name}: {path} cannot be written, {os_reason(error)}") from error
    return folder


def _fetch_file(url: str, path: Path, checksum: str, progress: Progress) -> None:
    """Download a file, compare its checksum and put it in its place, unless it is there."""
    if path.is_file():
        return
    algorithm, _, wanted = checksum.partition(":")

    def download(url: str, draft: str, shelf: pooch.Pooch) -> None:
        load = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
        load(url, draft, shelf)
        blob = b"blob %d\0" % os.path.getsize(draft) + Path(draft).read_bytes()
        if algorithm == "git" and hashlib.sha1(blob, usedforsecurity=False).hexdigest() != wanted:
            raise ValueError("another content")

    known = {path.name: None if algorithm == "git" else checksum}
    urls = {path.name: url}
    shelf = pooch.create(path.parent, "", registry=known, urls=urls, retry_if_failed=REPEATS)
    pooch.get_logger().setLevel("ERROR")  # what matters is in the exception
    try:
        shelf.fetch(path.name, downloader=download)
    except ValueError as error:
        raise SpineError(
            f"The checksum of {url} differs from the recorded one: the file was damaged or "
            "replaced, and nothing of it was kept."
        ) from error
    progress(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def _fetch_subjects(
    entry: MoreSet, folder: Path, subjects: Sequence[str], progress: Progress
) -> None:
    """Unpack meta.csv, and each subject's scan and masks of the spine, unless they are there.

    All subjects come out of the whole archive, which is compared and removed; some by ranges.
    """
    import fsspec

    masks = "|".join(mask_names().values())
    wanted = re.compile(rf"(?:.*/)?(s\d+)/(ct\.nii\.gz|segmentations/(?:{masks})\.nii\.gz)")
    members: dict[str, dict[str, str]] = {}
    # the settings of the environment on proxies count
    server = fsspec.filesystem("http", client_kwargs={"trust_env": True})
    whole, complete = folder / ".archive.zip", folder / ".complete"
    if not subjects:
        if complete.is_file():
            return
        _fetch_file(entry.archive, whole, entry.checksum, progress)
    opener = partial(server.open, entry.archive, block_size=RANGE_BYTES) if subjects else whole.open
    with opener(mode="rb") as stream, zipfile.ZipFile(stream) as opened:
        for member in opened.namelist():
            if match := wanted.fullmatch(member):
                members.setdefault(match[1], {})[match[2]] = member
            elif member.rpartition("/")[2] == "meta.csv" and not (folder / "meta.csv").is_file():
                with atomic_file(folder / "meta.csv") as target:
                    target.write(opened.read(member))
        if missing := [subject for subject in subjects if subject not in members]:
            known = f"{len(members)}, such as {', '.join(sorted(members)[:3])}"
            raise SpineError(f"The archive has no subject {missing[0]}: it has {known}.")
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
    if not subjects:
        complete.touch()
        whole.unlink()
