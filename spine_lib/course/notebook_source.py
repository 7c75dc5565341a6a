"""Read the one source of a lesson, and tell where its notebook has drifted from it.

A lesson is a Python file in jupytext's percent format. The notebook made from it has the same cells
with the same ids each time: an id comes from the cell's own text, so that a cell that is put in
elsewhere changes no other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from spine_lib import SpineError

LONGEST_CELL = 15
MARKER = re.compile(r"# %%(?!%)")


@dataclass(frozen=True)
class LessonSource:
    """Hold a lesson's source.

    Attributes:
        path: the percent-format file.
        notebook: its cells without outputs.
        lines: line in the file at which each cell starts (that of its `# %%`), from 1.
    """

    path: Path
    notebook: NotebookNode
    lines: tuple[int, ...]

    @property
    def notebook_path(self) -> Path:
        """The notebook beside the source."""
        return self.path.with_suffix(".ipynb")

    def place(self, cell: int, line: int = 0) -> str:
        """Say where a cell, or a line in it (from 1), stands in the source."""
        return f"{self.path.name}, line {self.lines[cell] + line}"


def lesson_sources(folder: Path, numbers: list[str] | tuple[str, ...] = ()) -> list[Path]:
    """List the sources of the lessons in a folder.

    Args:
        folder: where the lessons are.
        numbers: first characters of the names wanted, for instance "03"; all where left out.

    Raises:
        SpineError: if a number fits no lesson.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.py"))
    if not numbers:
        return found
    wanted = [number.zfill(2) if number.isdecimal() else number for number in numbers]
    for number in wanted:
        if not any(path.name.startswith(number) for path in found):
            known = ", ".join(path.stem for path in found) or "none"
            raise SpineError(f"No lesson in {folder} starts with {number}: there are {known}.")
    return [path for path in found if path.name.startswith(tuple(wanted))]


def read_source(path: Path) -> LessonSource:
    """Read a percent-format file.

    Args:
        path: the file.

    Raises:
        SpineError: if it cannot be read, holds no cell, or text stands before its first cell.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpineError(f"{path} cannot be read ({error}): give a text file in UTF-8.") from error
    every = text.splitlines()
    lines = [number for number, line in enumerate(every, 1) if MARKER.match(line)]
    head = every[: lines[0] - 1] if lines else every
    if not lines or any(line.strip() and not line.startswith("#") for line in head):
        raise SpineError(
            f"{path} has code outside of a cell: start every cell, the first one too, with a line "
            "'# %%' or '# %% [markdown]'."
        )
    # What stands before the first cell is for editors; the notebook's metadata are ours.
    read = jupytext.reads("\n".join(every[lines[0] - 1 :]) + "\n", fmt="py:percent")
    if len(lines) != len(read.cells):
        raise SpineError(
            f"{path} has {len(lines)} cell marks but {len(read.cells)} cells: a line that starts "
            "with '# %%' stands inside a text."
        )
    return LessonSource(path, _clean_notebook(read), tuple(lines))


def _clean_notebook(read: NotebookNode) -> NotebookNode:
    cells, seen = [], {}
    for cell in read.cells:
        make = new_code_cell if cell.cell_type == "code" else new_markdown_cell
        tags = {"tags": cell.metadata.tags} if cell.metadata.get("tags") else {}
        name = f"{cell.cell_type}\0{cell.source}"
        seen[name] = seen.get(name, 0) + 1
        new = make(source=cell.source, metadata=tags)
        new.id = hashlib.sha256(f"{name}\0{seen[name]}".encode()).hexdigest()[:12]
        cells.append(new)
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": language})


def source_problems(source: LessonSource) -> list[str]:
    """List what is wrong with a source before anything runs: empty cells, long code cells."""
    problems = []
    for index, cell in enumerate(source.notebook.cells):
        count = sum(bool(line.strip()) for line in cell.source.splitlines())
        if not count:
            problems.append(f"{source.place(index)}: the cell is empty: remove it.")
        if cell.cell_type == "code" and count > LONGEST_CELL:
            problems.append(
                f"{source.place(index)}: the cell has {count} lines, {LONGEST_CELL} are allowed: "
                "split it or move part of it into the library."
            )
    return problems


def drift(source: LessonSource) -> list[str]:
    """List where the notebook beside a source differs from it; nothing is run.

    Args:
        source: the lesson.

    Returns:
        Sentences; none where the notebook is the one that the source gives.
    """
    path = source.notebook_path
    again = f"run `spine notebooks {source.path.stem[:2]}`."
    if not path.is_file():
        return [f"{path.name} is missing: {again}"]
    try:
        there = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    except (ValueError, AttributeError, nbformat.reader.NotJSONError) as error:
        return [f"{path.name} is no notebook ({error}): {again}"]
    cells, wanted = there.cells, source.notebook.cells
    for index, (new, old) in enumerate(zip(wanted, cells, strict=False)):
        for what in ("cell_type", "source", "id"):
            if new[what] != old.get(what):
                return [f"{source.place(index)}: the {what} differs in {path.name}: {again}"]
        if new.metadata != old.metadata:
            return [f"{source.place(index)}: the tags differ in {path.name}: {again}"]
    if len(cells) != len(wanted):
        return [f"{path.name} has {len(cells)} cells, its source {len(wanted)}: {again}"]
    return _not_executed(there, path.name, again)


def _not_executed(notebook: NotebookNode, name: str, again: str) -> list[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        return [f"{name} was not run from top to bottom: {again}"]
    return []
