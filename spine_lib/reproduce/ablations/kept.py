"""Read the ablations on the built-in data that were measured once and came with the project."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.reproduce.ablations import words

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
"""Where they are kept; a library installed without its repository has none."""

FILE, DOCUMENT = BENCHMARKS / "results" / "ablations.json", BENCHMARKS / "ablations.md"


@cache
def kept(file: Path = FILE) -> dict[str, dict]:
    """Return what was kept of each ablation, by name; nothing where there is no file.

    Raises:
        SpineError: if the file cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))["ablations"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpineError(
            f"{file} cannot be read as kept ablations ({type(error).__name__}): restore it"
        ) from error


def remarks() -> dict[str, str]:
    """Return what the kept ablations found, by the setting in the report's table of deviations."""
    where = "The tables: benchmarks/ablations.md."
    return {one["setting"]: f"{words.finding(one)} {where}" for one in kept().values()}


def keep(folders: list[Path], file: Path = FILE, document: Path = DOCUMENT) -> list[Path]:
    """Gather `ablation.json` of several folders into the file of kept ablations.

    Args:
        folders: what `running.ablate` returned.
        file: to write; ablations that are in it already stay unless they were run anew.
        document: page with all kept tables, written anew.

    Returns:
        What was written.
    """
    found = dict(kept.__wrapped__(file))
    for folder in folders:
        results = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
        found[results["name"]] = results
    with atomic_file(file) as stream:
        stream.write((json.dumps({"ablations": found}, indent=1) + "\n").encode())
    with atomic_file(document) as stream:
        stream.write(words.document(found).encode())
    kept.cache_clear()
    return [file, document]
