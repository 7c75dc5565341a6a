"""Make what an instructor hands out and keeps: what `spine handout` does."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from spine_lib import SpineError
from spine_lib.course.exercise import lesson_numbers, lesson_solutions
from spine_lib.course.grading import grade
from spine_lib.course.handout_answers import (
    ExerciseCells,
    answered_cell,
    answered_notebook,
    find_exercise_cells,
)
from spine_lib.course.handout_files import copy_for_students
from spine_lib.course.handout_nbgrader import write_nbgrader_course
from spine_lib.course.notebook_build import run_lesson
from spine_lib.course.notebook_source import LessonSource, drift, lesson_sources, read_source

STUDENTS, SOLUTIONS, NBGRADER = "students", "solutions", "nbgrader"


def write_releases(
    project: Path,
    folder: Path,
    numbers: list[str] | tuple[str, ...] = (),
    run: bool = False,
    say: Callable[[str], object] = print,
) -> None:
    """Write the students' copy, the solutions and the nbgrader course into one folder.

    Each of the three appears at its place when it is complete, or not at all.

    Args:
        project: folder of the whole project.
        folder: for `students`, `solutions` and `nbgrader`; none of them may be there.
        numbers: lessons for solutions and nbgrader; all where left out. The students' copy always
            has every lesson.
        run: run the answered lessons in full, instead of only checking their answers.
        say: called with a line for each of the three.

    Raises:
        SpineError: if one of the three is there already, this is a students' copy itself, an
            answer does not pass, or the students' copy would tell one.
    """
    _require_solutions()
    lessons = project / "notebooks"
    lesson_sources(lessons, numbers)  # refuses an unknown number before anything is written
    for name in (STUDENTS, SOLUTIONS, NBGRADER):
        if (folder / name).exists():
            raise SpineError(
                f"{folder / name} is there already and may hold somebody's work: name another "
                "folder, or move that one away."
            )
    with _complete(folder, STUDENTS) as place:
        copy_for_students(project, place)
    say(f"for students: {folder / STUDENTS}")
    with _complete(folder, SOLUTIONS) as place:
        count = write_solutions(project, place, numbers, run)
    say(f"solutions:    {folder / SOLUTIONS} ({count} answers, each one checked)")
    with _complete(folder, NBGRADER) as place:
        count = len(write_nbgrader_course(lessons, place, numbers))
    say(f"nbgrader:     {folder / NBGRADER} ({count} assignments)")


def _require_solutions() -> None:
    if not lesson_numbers() or lesson_solutions(f"{lesson_numbers()[0]}.1") is None:
        raise SpineError(
            "This copy of the project was made for students and holds no solutions: releases are "
            "made from the whole project."
        )


@contextlib.contextmanager
def _complete(folder: Path, name: str) -> Iterator[Path]:
    """Yield a place to write at, and move it to `folder / name` once everything is there."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as work:
        place = Path(work) / name
        yield place
        os.replace(place, folder / name)


# --- solutions ------------------------------------------------------------------------------------


def write_solutions(
    project: Path, folder: Path, numbers: list[str] | tuple[str, ...] = (), run: bool = False
) -> int:
    """Write answered notebooks, and the package that makes `solution(...)` work.

    The folder is laid out like the project: copied over a students' copy, it replaces none of
    their notebooks.

    Args:
        project: folder of the whole project.
        folder: to write; must not exist.
        numbers: lessons; all where left out.
        run: run the notebooks in full.

    Returns:
        How many answers were checked.

    Raises:
        SpineError: if an answer does not pass, or a cell of a notebook that is run raises.
    """
    solved = folder / "notebooks" / "solved"
    solved.mkdir(parents=True)
    count = 0
    for path in lesson_sources(project / "notebooks", numbers):
        source = read_source(path)
        printed = {place.check: check_answer(place) for place in find_exercise_cells(source)}
        notebook = _run_in_full(source) if run else _with_kept_outputs(source, printed)
        text = nbformat.writes(notebook) + "\n"
        (solved / f"{path.stem}.ipynb").write_text(text, encoding="utf-8", newline="\n")
        count += len(printed)
    package = Path("spine_lib", "course", "solutions")
    shutil.copytree(project / package, folder / package, ignore=shutil.ignore_patterns("__py*"))
    return count


def check_answer(place: ExerciseCells) -> str:
    """Run an answered cell on its own and grade it on the open and the hidden inputs.

    Returns:
        What the check prints.

    Raises:
        SpineError: if the answer is not right.
    """
    from spine_lib.course import check

    space: dict = {}
    key = place.exercise.key
    try:
        exec(compile(answered_cell(place.exercise), f"answer {key}", "exec"), space)
        grade(key, space[place.name])
    except Exception as error:
        raise SpineError(f"The solution of {key} does not pass its own check: {error}") from error
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        check(key, space[place.name])
    return printed.getvalue()


def _run_in_full(source: LessonSource) -> NotebookNode:
    built = run_lesson(replace(source, notebook=answered_notebook(source)))
    if built.problems:
        raise SpineError(" ".join(built.problems))
    return built.notebook


def _with_kept_outputs(source: LessonSource, printed: dict[int, str]) -> NotebookNode:
    """Return an answered notebook that shows what the lesson's own shows, and the new checks.

    Where that one does not fit its source, the checks alone are shown. A table of progress is left
    empty: it counts what a session has answered.
    """
    notebook = answered_notebook(source)
    if not drift(source):
        kept = nbformat.read(source.notebook_path, as_version=4)
        for cell, old in zip(notebook.cells, kept.cells):
            if cell.cell_type == "code" and "progress()" not in cell.source:
                cell.outputs, cell.execution_count = old.outputs, old.execution_count
    for index, text in printed.items():
        notebook.cells[index].outputs = [new_output("stream", name="stdout", text=text)]
    return notebook
