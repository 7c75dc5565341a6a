"""Complete the list of modules that the reference describes, room by room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

INTERNAL = {
    "__main__", "arguments", "base", "browser", "charts", "commands", "controls", "counts",
    "cutting", "developing", "layers", "picture", "pointer", "predicting", "report_names",
    "report_plots", "report_regions", "report_slices", "report_tables", "report_words",
    "requirements", "scene", "setup_env",
}  # fmt: skip
"""Modules that nobody calls from outside: the set-up, halves of the report and of the viewers."""

PACKAGES = (".", "models", "datasets", "ablations", "explore")
REST = "Beside all"


def named_modules(text: str) -> list[str]:
    """Return the modules that a page of the reference lists."""
    return re.findall(r"^ +(spine_lib[\w.]*)$", text, re.M)


def public_modules(root: Path) -> dict[str, str]:
    """Return the modules for users, and the first line of their docstrings.

    Args:
        root: of the repository.
    """
    found = {}
    for package in PACKAGES:
        for path in sorted((root / "spine_lib" / package).glob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if path.stem not in {*INTERNAL, "__init__"}:
                words = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                found[name] = words.partition("\n")[0]
    return found


def complete(text: str, modules: dict[str, str]) -> str:
    """Add to a page of the reference the modules that it does not list, each to its room.

    Args:
        text: the page, with a section for each room and in it a list of modules.
        modules: the first line of the docstring by name. "Lesson 6: ..." belongs to that lesson's
            room, what lies in `datasets` to "Data", all else to the last room.
    """
    listed = set(named_modules(text))
    sections = re.split(r"^(?=## )", text, flags=re.M)
    for name, words in modules.items():
        if name not in listed:
            place = next(n for n, one in enumerate(sections) if _is_room(one, name, words))
            last = list(re.finditer(r"^ +spine_lib[\w.]*\n", sections[place], re.M))[-1]
            section = sections[place]
            sections[place] = f"{section[: last.end()]}   {name}\n{section[last.end() :]}"
    return "".join(sections)


def _is_room(section: str, name: str, words: str) -> bool:
    heading = section.partition("\n")[0]
    lesson = re.match(r"Lessons? (\d)", words)
    if lesson:
        return lesson[1] in re.findall(r"\d", heading) and heading.startswith("## Lesson")
    if ".datasets." in name:
        return heading == "## Data"
    return heading == f"## {REST}"
