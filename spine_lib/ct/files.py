"""Write files whole or not at all, and read JSON with a message that names the file."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from spine_lib import SpineError


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    Args:
        path: the file to write; its folder is made where it is missing.

    Yields:
        A binary stream.

    Raises:
        SpineError: where writing fails, for example on a full disk; nothing is left behind.
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
        reason = error.strerror or error
        raise SpineError(
            f"{path} cannot be written ({reason}): free some space or choose another folder."
        ) from error


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


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SpineError: if it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpineError(f"{path} cannot be read as JSON ({error}): write it anew.") from error
