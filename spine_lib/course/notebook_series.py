"""Make or check all notebooks of the course: what `spine notebooks` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from spine_lib.course.notebook_build import run_lesson, write_notebook
from spine_lib.course.notebook_index import index_text, lesson_card, write_picture
from spine_lib.course.notebook_source import (
    drift,
    lesson_sources,
    read_source,
    source_problems,
)

INDEX = "README.md"


def make_series(
    folder: Path,
    numbers: list[str] | tuple[str, ...] = (),
    fast: bool = False,
    say: Callable[[str], object] = print,
) -> list[str]:
    """Run lessons and write their notebooks, their pictures and the index.

    Args:
        folder: of the lessons.
        numbers: which; all where left out.
        fast: run them in the fast profile and write nothing.
        say: called with a line for each lesson.

    Returns:
        Sentences on what is wrong; a lesson that has any is not written.

    Raises:
        SpineError: if a cell raises.
    """
    problems = []
    for path in lesson_sources(folder, numbers):
        source = read_source(path)
        found = source_problems(source)
        if not found:
            built = run_lesson(source, fast)
            say(f"{path.stem}: {built.seconds:.0f} s, pictures {built.image_kb:.0f} KB")
            found = built.problems
            if not found and not fast:
                write_notebook(source, built.notebook)
                write_picture(source, built.notebook)
        problems += found
    if not fast and not problems:
        _write_index(folder)
    return problems


def check_series(folder: Path, numbers: list[str] | tuple[str, ...] = ()) -> list[str]:
    """List where notebooks, pictures and index differ from the sources; nothing is run.

    Args:
        folder: of the lessons.
        numbers: which; all, and the index too, where left out.
    """
    problems = []
    for path in lesson_sources(folder, numbers):
        source = read_source(path)
        problems += source_problems(source) + drift(source)
        if not (picture := folder / "pictures" / f"{path.stem[:2]}.png").is_file():
            problems.append(f"pictures/{picture.name} is missing: run `spine notebooks`.")
    if not numbers:
        problems += _strays(folder)
        index = folder / INDEX
        if not index.is_file() or index.read_text(encoding="utf-8") != _index(folder):
            problems.append(f"{INDEX} differs from what the lessons say: run `spine notebooks`.")
    return problems


def _strays(folder: Path) -> list[str]:
    return [
        f"{path.name} has no source {path.with_suffix('.py').name}: remove it or add that."
        for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))
        if not path.with_suffix(".py").is_file()
    ]


def _index(folder: Path) -> str:
    return index_text([lesson_card(read_source(path)) for path in lesson_sources(folder)])


def _write_index(folder: Path) -> None:
    partial = folder / f"{INDEX}.tmp"
    partial.write_text(_index(folder), encoding="utf-8", newline="\n")
    os.replace(partial, folder / INDEX)
