"""Write files whole or not at all, lock them, list folders, and read text and JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from spine_lib import SpineError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream to a file that appears under its name only when it is complete.

    Its folder is made where it is missing.

    Raises:
        SpineError: if writing fails, for example on a full disk; nothing is left behind.
    """
    # tempfile would make a file that only its owner may read
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "xb") as stream:
                yield stream
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SpineError(
            f"{path} cannot be written ({error.strerror or error}): free some space or choose "
            "another folder."
        ) from error


def file_lock(path: Path) -> FileLock:
    """Return a lock on a file for a `with` block that one process at a time enters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def plain(value: Any) -> Any:
    """Return a value as built-in types that JSON has; a number that is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy's and torch's arrays and numbers
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all; see `plain` for what becomes of its types."""
    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def read_text(path: Path, most_bytes: int = 4 << 20) -> str:
    """Return the text of a small UTF-8 file; raise a `SpineError` if it is no such file."""
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise SpineError(f"{path} is larger than {most_bytes >> 20} MB: is it another file?")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpineError(
            f"{path} is not UTF-8 (byte {error.start} is {content[error.start]:#04x}): "
            "save it as UTF-8 text."
        ) from error
    except OSError as error:
        raise SpineError(
            f"{path} cannot be read ({error.strerror or error}): check the path and your rights."
        ) from error


def natural_order(path: Path) -> list:
    """Return a key that sorts paths by the numbers in their names: 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in parts] + [path]


def list_folder(folder: Path) -> list[Path]:
    """Return a folder's entries in natural order, without what operating systems leave in it.

    Hidden files (`.DS_Store`, macOS's `._NAME`), `Thumbs.db` and `desktop.ini` are left out. Raises
    a `SpineError` if the folder cannot be read.
    """
    try:
        names = [path for path in folder.iterdir() if is_content(path)]
    except OSError as error:
        raise SpineError(
            f"{folder} cannot be listed ({error.strerror or error}): check path and your rights."
        ) from error
    return sorted(names, key=natural_order)


def is_content(path: Path) -> bool:
    """Return whether a path's name is not one that operating systems leave in folders."""
    return not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def read_json(path: Path) -> Any:
    """Read a JSON file; raise a `SpineError` if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpineError(f"{path} cannot be read as JSON ({error}): write it anew.") from error


ENDS_BYTES = 65536
"""Bytes at the start and at the end of a file that its identity rests on."""


def file_identity(path: Path) -> str:
    """Return a checksum that changes where a file is replaced by another one.

    It covers size, modification time and both ends of the content: one has the header, the other
    the checksum of a gzip file. Of a folder, such as a DICOM series, every file counts.

    Returns:
        Hexadecimal digits, or an empty text where nothing exists.
    """
    if not path.exists():
        return ""
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            stat = file.stat()
            name = file.relative_to(path).as_posix()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(ENDS_BYTES))
                stream.seek(max(ENDS_BYTES, stat.st_size - ENDS_BYTES))
                digest.update(stream.read(ENDS_BYTES))
    return digest.hexdigest()[:32]
