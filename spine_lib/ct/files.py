"""Write files whole or not at all and onto no input, lock them, list folders, read text."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml
from filelock import FileLock, Timeout
from pydantic_core import to_jsonable_python

from spine_lib import SpineError

REASONS = {
    errno.ENOSPC: "the disk is full: free some space or choose another disk",
    errno.EDQUOT: "your share of the disk is full: free some space or choose another disk",
    errno.EACCES: "you have no permission: change the rights of the file or its folder",
    errno.EPERM: "you have no permission: change the rights of the file or its folder",
    errno.EROFS: "its disk is read-only: choose another folder",
    errno.ENOENT: "it does not exist: check the path",
    errno.ENOTDIR: "what should be its folder is a file: check the path",
    errno.EEXIST: "what should be its folder is a file: check the path",
    errno.EISDIR: "it is a folder: name a file",
    errno.ENAMETOOLONG: "its name is too long: shorten it",
    errno.ELOOP: "it is a link to itself: name the file that is meant",
}
"""What the errors of the system mean for a file, and what to do."""


def os_reason(error: OSError | ValueError) -> str:
    """Return why a file cannot be read or written and what to do, as the end of a sentence."""
    if isinstance(error, ValueError):  # a null character in it
        return "no file can have this name: check the path."
    # not `gettempdir`, which writes into it and fails where it is full
    temporary = tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")
    inside = Path(os.fsdecode(error.filename or "")).is_relative_to(temporary)
    if (error.errno == errno.ENOSPC and inside) or "usable temporary directory" in str(error):
        return f"the temporary folder {temporary} is full: free some space in it or set TMPDIR."
    default = f"the system reports {error.strerror or error}: check the disk"
    return REASONS.get(error.errno, default) + "."


def require_file(path: Path) -> None:
    """Raise a `SpineError` unless a path is a file; a pipe or a device would wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise SpineError(f"{path} cannot be read, {os_reason(error)}") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise SpineError(f"{path} is {what}: name a file.")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a binary stream to a file that appears under its name only when it is complete.

    Its folder is made where it is missing. Raises a `SpineError` if writing fails, for example on a
    full disk; nothing is left behind.
    """
    if "\0" in str(path):
        raise SpineError(f"{path} cannot be written, {os_reason(ValueError())}")
    # tempfile would make a file that only its owner may read
    draft = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "xb") as stream:
                yield stream
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise SpineError(f"{path} cannot be written, {os_reason(error)}") from error


@contextlib.contextmanager
def sole_use(folder: Path, seconds: float = 10) -> Iterator[None]:
    """Hold a folder that one process at a time may write, and remove the drafts of a killed one.

    Raises a `SpineError` if another process holds it for longer than these seconds.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / ".lock").acquire(timeout=seconds))
        except Timeout as error:
            advice = "wait until that has ended, or choose another --name."
            raise SpineError(f"{folder} is in use by another process: {advice}") from error
        for draft in folder.glob(".*.part"):
            draft.unlink(missing_ok=True)
        yield


def check_output(
    path: str | Path,
    inputs: Iterable[str | Path | None] = (),
    overwrite: bool = False,
    suffixes: tuple[str, ...] = (),
    size: int = 0,
) -> Path:
    """Return the path of a file to write, or raise an error before anything is computed.

    Raises a `SpineError` if its name has none of the suffixes, it is one of the inputs or lies in
    one (by whatever path or link), it exists and may not be replaced, its folder cannot be written
    to, or the disk has less than `size` bytes.
    """
    path = Path(path)
    if suffixes and not path.name.endswith(suffixes):
        raise SpineError(f"{path} must end in {' or '.join(suffixes)}: choose such a name.")
    try:
        if path.exists() or path.is_symlink():
            _require_replaceable(path, inputs, overwrite)
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except (OSError, ValueError) as error:
        raise SpineError(f"{path} cannot be written, {os_reason(error)}") from error
    if size > free:
        space = f"needs {size / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB free"
        raise SpineError(f"{path} {space}: free some space, or choose another folder.")
    return path


def _require_replaceable(path: Path, inputs: Iterable, overwrite: bool) -> None:
    """Raise an error where a path that exists is an input, no plain file, or not to be replaced."""
    for item in map(Path, filter(None, inputs)):
        for file in item.rglob("*") if item.is_dir() else [item]:
            if file.is_file() and path.exists() and path.samefile(file):
                raise SpineError(f"{path} is an input of this command ({file}): write elsewhere.")
    if path.exists() and not path.is_file():
        raise SpineError(f"{path} is no file that can be replaced: choose another output.")
    if not overwrite:
        raise SpineError(f"{path} exists already: choose another output, or add --overwrite.")


def plain(value: Any) -> Any:
    """Return a value as built-in types that JSON has; a number that is not finite becomes None."""
    # the fallback is for NumPy's and torch's arrays and numbers
    return to_jsonable_python(value, inf_nan_mode="null", fallback=lambda other: other.tolist())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all; see `plain` for what becomes of its types."""
    text = json.dumps(plain(value), indent=1, allow_nan=False) + "\n"
    with atomic_file(path) as stream:
        stream.write(text.encode("utf-8"))


def read_text(path: Path, most_bytes: int = 4 << 20) -> str:
    """Return the text of a small UTF-8 file; raise a `SpineError` if it is no such file."""
    require_file(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise SpineError(f"{path} is larger than {most_bytes:,} bytes: is it another file?")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is {content[error.start]:#04x}"
        raise SpineError(f"{path} is not UTF-8 ({what}): save it as UTF-8 text.") from error
    except OSError as error:
        raise SpineError(f"{path} cannot be read, {os_reason(error)}") from error


def listed(items: Iterable[object], separator: str = ", ", most: int = 8) -> str:
    """Return the first few of many items in one line."""
    items = [str(item) for item in items]
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def natural_order(path: Path) -> list:
    """Return a key that sorts paths by the numbers in their names: 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (0, part.lower()) for part in parts] + [path]


def list_folder(folder: Path) -> list[Path]:
    """Return a folder's entries in natural order, without what operating systems leave in it."""
    try:
        return sorted(filter(is_content, folder.iterdir()), key=natural_order)
    except OSError as error:
        raise SpineError(f"{folder} cannot be read, {os_reason(error)}") from error


def is_content(path: Path) -> bool:
    """Return False for `.DS_Store`, macOS's `._NAME`, `Thumbs.db` and `desktop.ini`."""
    return not path.name.startswith(".") and path.name.lower() not in ("thumbs.db", "desktop.ini")


def read_json(path: Path) -> Any:
    """Read a JSON file; raise a `SpineError` if it cannot be read or is not JSON."""
    try:
        return json.loads(read_text(path, 1 << 30))
    except (ValueError, RecursionError) as error:
        raise SpineError(f"{path} cannot be read as JSON ({error}): write it anew.") from error


class _Strict:
    """YAML without aliases, which can unfold a few lines to gigabytes, and with each key once."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to another part with *")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if keys and max(keys.values()) > 1:
            raise yaml.YAMLError(f"it sets {keys.most_common(1)[0][0]!r:.60} twice")
        return super().construct_mapping(node, deep)


class _SettingsLoader(_Strict, yaml.SafeLoader):
    """Reads numbers, dates and booleans as such."""


class _TextLoader(_Strict, yaml.BaseLoader):
    """Reads every value and key as text: 001 stays 001."""


def read_yaml(path: Path, text: bool = False, most_bytes: int = 100_000) -> dict[str, Any]:
    """Read a YAML file of settings; with `text`, every value and key stays the text that it is.

    Raises a `SpineError` if the file cannot be read, is too large, is not YAML or not made of
    settings, or has aliases or a key twice.
    """
    try:
        loader = _TextLoader if text else _SettingsLoader  # both make plain values only
        values = yaml.load(read_text(path, most_bytes), loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise SpineError(f"{path} cannot be read as YAML ({reason}{line}): correct it.") from error
    values = {} if values is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SpineError(f"{path} holds no settings: write lines such as 'steps: 500'.")
    return values


def array_sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of a volume's values, by kind, shape and order [x, y, z] alone."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for plane in range(array.shape[-1]):  # one at a time: a turned view would be copied whole
        digest.update(np.ascontiguousarray(array[..., plane]))
    return digest.hexdigest()


ENDS_BYTES = 65536
"""Bytes at the start and at the end of a file that its identity rests on."""


def file_identity(path: Path) -> str:
    """Return a checksum that changes where a file is replaced by another one; "" if none exists.

    It covers size, modification time and both ends of the content; of a folder, every file counts.
    """
    if not os.path.exists(path):
        return ""
    digest = hashlib.sha256()
    for file in filter(Path.is_file, [path, *sorted(path.rglob("*"))]):
        try:
            entry = file.stat()
            name = file.relative_to(path).as_posix()
            digest.update(f"{name} {entry.st_size} {entry.st_mtime_ns}\n".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(ENDS_BYTES))
                stream.seek(max(ENDS_BYTES, entry.st_size - ENDS_BYTES))
                digest.update(stream.read(ENDS_BYTES))
        except OSError as error:
            raise SpineError(f"{file} cannot be read, {os_reason(error)}") from error
    return digest.hexdigest()[:32]
