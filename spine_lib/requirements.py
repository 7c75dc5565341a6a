"""Read what the project needs from `pyproject.toml`, and tell whether this Python has it.

Only the standard library is imported: this runs before anything is installed.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path

from spine_lib import SpineError

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;]*)")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")


def requirements(root: Path, extras: tuple[str, ...] = ("test", "site", "instructor")) -> list[str]:
    """List the requirements of `pyproject.toml`, those of the extras included.

    Args:
        root: folder of `pyproject.toml`.
        extras: names of optional dependency groups.

    Returns:
        Requirement lines such as `"numpy>=2.0,<3"`.
    """
    import tomllib  # new in Python 3.11, and an older one must get as far as being told so

    with open(root / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def split_requirement(line: str) -> tuple[str, str]:
    """Split `"numpy>=2.0,<3"` into its name and its range (`"numpy"`, `">=2.0,<3"`)."""
    match = _REQUIREMENT.match(line)
    if not match:
        raise SpineError(f"'{line}' is not a requirement: write a package name and a range.")
    return match[1], match[2].strip()


def missing_requirements(lines: list[str], installed: Mapping[str, str] | None = None) -> list[str]:
    """List the requirements that this Python does not meet.

    Args:
        lines: requirement lines.
        installed: version of each package by name; asks the running Python where left out.

    Returns:
        The lines whose package is missing or whose version is out of range.
    """
    return [line for line in lines if not _is_met(line, installed)]


def _is_met(line: str, installed: Mapping[str, str] | None) -> bool:
    name, bounds = split_requirement(line)
    version = _version(name) if installed is None else installed.get(name)
    return version is not None and in_range(version, bounds)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_range(version: str, bounds: str) -> bool:
    """Tell whether a version meets every bound; numbers count, suffixes such as `+cpu` do not.

    Args:
        version: for example `"2.13.0+cpu"`.
        bounds: for example `">=2.6,<3"`.
    """
    have = _release(version)
    return all(_meets(have, operator, _release(edge)) for operator, edge in _BOUND.findall(bounds))


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _meets(have: tuple[int, ...], operator: str, edge: tuple[int, ...]) -> bool:
    return {
        ">=": have >= edge,
        "<=": have <= edge,
        ">": have > edge,
        "<": have < edge,
        "==": have == edge,
        "!=": have != edge,
    }[operator]
