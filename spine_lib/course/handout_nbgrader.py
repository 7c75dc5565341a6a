"""Write the lessons as a course for nbgrader: one assignment a lesson, one point an exercise."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from spine_lib.course.handout_answers import ExerciseCells, find_exercise_cells, marked_cell
from spine_lib.course.notebook_source import LessonSource, lesson_sources, read_source

SCHEMA_VERSION = 3
POINTS = 1

CONFIG = '''\
"""How nbgrader runs this course. It reads this file from the folder that it is started in."""

import os
from pathlib import Path

c = get_config()  # noqa: F821 (nbgrader brings it)

c.CourseDirectory.course_id = "spine"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)

# What students find in place of a solution: the stub of the lesson.
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}

# A whole lesson is run for each student, in the fast profile (SPINE_FAST=0 before the command for
# the full one). A cell may take this many seconds; a student's function is stopped after five.
os.environ.setdefault("SPINE_FAST", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
c.Execute.timeout = 180
c.Execute.startup_timeout = 180

# A check that was deleted comes back; a copy of the library without hidden inputs grades nobody.
c.OverwriteCells.add_missing_cells = True
c.Autograde.pre_convert_hook = "spine_lib.course.grading.before_grading"
'''

CHECK_CELL = """\
from spine_lib.course import check

{checks}
### BEGIN HIDDEN TESTS
from spine_lib.course.grading import grade

grade("{key}", {name})
### END HIDDEN TESTS
"""


def write_nbgrader_course(
    lessons: Path, folder: Path, numbers: list[str] | tuple[str, ...] = ()
) -> list[Path]:
    """Write nbgrader's configuration and the instructor's version of each lesson.

    Args:
        lessons: folder of the lessons' sources.
        folder: of the course; made where it is missing.
        numbers: first characters of the lessons wanted; all where left out.

    Returns:
        The notebooks, `source/NN_name/NN_name.ipynb`.

    Raises:
        SpineError: if the solutions are not here, or a lesson lacks a stub or a check.
    """
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8", newline="\n")
    for path in lesson_sources(lessons, numbers):
        notebook = graded_notebook(read_source(path))
        target = folder / "source" / path.stem / f"{path.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        written.append(target)
    return written


def graded_notebook(source: LessonSource) -> NotebookNode:
    """Return a lesson with nbgrader's cell metadata, solutions and hidden tests in it.

    Cells without an exercise stay the student's to change; what is graded is locked.
    """
    notebook = copy.deepcopy(source.notebook)
    for place in find_exercise_cells(source):
        _mark_solution(notebook.cells[place.stub], place)
        _mark_check(notebook.cells[place.check], place)
    return notebook


def grade_ids(key: str) -> tuple[str, str]:
    """Return nbgrader's names of an exercise cell and of its check: "exercise_1_2", "check_1_2".

    A gradebook knows cells by these, so they depend on nothing but the exercise's number.
    """
    number = key.replace(".", "_")
    return f"exercise_{number}", f"check_{number}"


def _mark_solution(cell: NotebookNode, place: ExerciseCells) -> None:
    cell.source = marked_cell(place.exercise)
    cell.metadata.nbgrader = _metadata(grade_ids(place.exercise.key)[0], solution=True)


def _mark_check(cell: NotebookNode, place: ExerciseCells) -> None:
    cell.source = CHECK_CELL.format(
        checks=cell.source.strip(), key=place.exercise.key, name=place.name
    ).strip()
    cell.metadata.nbgrader = _metadata(
        grade_ids(place.exercise.key)[1], grade=True, locked=True, points=POINTS
    )


def _metadata(
    grade_id: str, grade: bool = False, solution: bool = False, locked: bool = False, **more: int
) -> NotebookNode:
    return nbformat.from_dict(
        {
            "grade": grade,
            "grade_id": grade_id,
            "locked": locked,
            "schema_version": SCHEMA_VERSION,
            "solution": solution,
            "task": False,
            "cell_type": "code",
            **more,
        }
    )
