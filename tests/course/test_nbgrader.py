"""nbgrader takes the course as it is: releases it, grades right and wrong answers, explains."""

import copy
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

from spine_lib.course.authoring import (
    graded_notebook,
    lesson_sources,
    marked_solution,
    read_source,
    write_handout,
)
from spine_lib.course.exercise import (
    find_exercise,
    lesson_exercises,
    lesson_numbers,
    reference_of,
)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
SOURCES = lesson_sources(FOLDER)
LESSON = "02_annotation_inspection"
KEYS = [exercise.key for exercise in lesson_exercises(2)]

each_lesson = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


def grade_ids(key: str) -> tuple[str, str]:
    number = key.replace(".", "_")
    return f"exercise_{number}", f"check_{number}"


def graded_id(cell) -> str | None:
    return cell.metadata.get("nbgrader", {}).get("grade_id")


# --- the instructor's notebooks, all lessons ------------------------------------------------------


@each_lesson
def test_nbgrader_finds_the_cells_of_every_lesson_valid(path):
    notebook = graded_notebook(path)
    MetadataValidator().validate_nb(notebook)
    nbformat.validate(notebook)
    marked = {graded_id(cell): cell.metadata.nbgrader for cell in notebook.cells if graded_id(cell)}
    lesson = int(path.stem[:2])
    for exercise in lesson_exercises(lesson) if lesson in lesson_numbers() else ():
        answer, check = (marked.pop(name) for name in grade_ids(exercise.key))
        assert answer.solution and not answer.grade and not answer.locked
        assert check.grade and check.locked and not check.solution and check.points == 1
    assert not marked


@each_lesson
def test_what_students_are_given_is_the_lesson_with_its_stubs_and_visible_checks(path):
    source = read_source(path)
    notebook = graded_notebook(path)
    resources: dict = {}
    ClearSolutions(code_stub={"python": "raise NotImplementedError"}).preprocess(
        notebook, resources
    )
    ClearHiddenTests().preprocess(notebook, resources)
    for cell, own in zip(notebook.cells, source.cells, strict=True):
        given = cell.source.removeprefix("from spine_lib.course import check\n\n").strip()
        assert given == own.source.strip()
        assert cell.id == own.id


# --- one course from release to feedback ----------------------------------------------------------


def wrong(key: str) -> str:
    """Return answers that go wrong, differently in each exercise; only harmlessly in 2.3."""
    return {
        "2.1": "def to_verse_ids(labels):\n    return 51 - labels",
        "2.2": "def centroid_mm(labels, label, affine)\n    return 0",
        "2.3": f'{marked_solution(find_exercise("2.3"))}\n\nraise RuntimeError("too late")',
        "2.4": find_exercise("2.4").texts.stub,
    }[key]


def sly(key: str) -> str:
    """Return answers that are right on students' inputs; in 2.4 a wrong one, with another judge."""
    name = reference_of(key).__name__
    if key == "2.4":
        patch = "from spine_lib.course import checking, grading\n\n"
        patch += "checking.check = grading.grade = lambda *arguments: None"
        return f"def {name}(mask):\n    return 1 / 0\n\n\n{patch}"
    return (
        f"{marked_solution(find_exercise(key))}\n\n"
        f"asked, honest = [], {name}\n\n\n"
        f"def {name}(*arguments):\n"
        "    asked.append(arguments)\n"
        f"    return honest(*arguments) if len(asked) <= {len(find_exercise(key).examples())} "
        "else honest\n\n\n"
        "check = print"
    )


STUDENTS = {
    "killing": lambda key: "import os\n\nos._exit(1)",
    "right": lambda key: marked_solution(find_exercise(key)),
    "sly": sly,
    "wrong": wrong,
}


def hand_in(course: Path, student: str) -> None:
    """Fill in what was released, and hand in the graded cells alone."""
    released = course / "release" / LESSON / f"{LESSON}.ipynb"
    notebook = copy.deepcopy(nbformat.read(released, as_version=4))
    answers = {grade_ids(key)[0]: STUDENTS[student](key) for key in KEYS}
    for cell in notebook.cells:
        cell.source = answers.get(graded_id(cell), cell.source)
    notebook.cells = [c for c in notebook.cells if graded_id(c) or c.cell_type != "code"]
    if student == "sly":  # a check that is deleted cannot fail
        notebook.cells = [c for c in notebook.cells if graded_id(c) != "check_2_2"]
    target = course / "submitted" / student / LESSON / f"{LESSON}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


def nbgrader(course: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "SPINE_"))}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    commands = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]  # alembic is there
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join(paths),
            "PATH": os.pathsep.join(commands),
            **environment,
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory, sample_root) -> Path:
    """A course of one lesson in which everybody has handed in and was graded."""
    folder = tmp_path_factory.mktemp("handout") / "nbgrader"
    write_handout(ROOT, folder.parent, ("02",))
    data = {"SPINE_DATA": str(sample_root.parent)}
    done = nbgrader(folder, "generate_assignment", LESSON)
    assert done.returncode == 0, done.stderr
    for student in STUDENTS:
        hand_in(folder, student)
    done = nbgrader(folder, "autograde", LESSON, **data)
    (folder / "autograde.log").write_text(done.stderr, encoding="utf-8")
    assert (folder / "autograded" / "right").is_dir(), done.stderr
    done = nbgrader(folder, "generate_feedback", LESSON)
    assert done.returncode == 0, done.stderr
    return folder


def scores(course: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        found = gradebook.assignment_submissions(LESSON)
        assert all(one.max_score == len(KEYS) for one in found)
        return {one.student.id: one.score for one in found}


def feedback(course: Path, student: str) -> dict[str, str]:
    """Return what a student reads below each check."""
    page = (course / "feedback" / student / LESSON / f"{LESSON}.html").read_text(encoding="utf-8")
    text = html.unescape(re.sub(r"<[^>]+>", "", page[page.index("<body") :]))
    parts = re.split(r"Grade cell: check_(\d+_\d+)", text)
    return {key.replace("_", "."): part for key, part in zip(parts[1::2], parts[2::2])}


@pytest.mark.slow
def test_the_release_tells_no_solution_and_no_hidden_test(course):
    text = (course / "release" / LESSON / f"{LESSON}.ipynb").read_text(encoding="utf-8")
    for word in ("SOLUTION", "HIDDEN", "grading", "is_mirrored(image_hu, mask):\\n    here"):
        assert word not in text


@pytest.mark.slow
def test_points_go_to_right_answers_only(course):
    assert scores(course) == {"killing": 0, "right": len(KEYS), "sly": 0, "wrong": 1}


@pytest.mark.slow
def test_a_right_answer_is_told_so(course):
    for told in feedback(course, "right").values():
        assert "right, on" in told and "no point" not in told and "Score: 1.0 / 1.0" in told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("2.1", ", no point: what is no spine was counted down too"),
        ("2.2", "name 'centroid_mm' is not defined"),
        ("2.3", "Score: 1.0 / 1.0"),
        ("2.4", "not yet. Fill in the function"),
        ("2.4", "no point: the function is not filled in"),
    ],
)
def test_a_wrong_answer_costs_its_own_point_and_is_told_in_the_students_terms(course, key, words):
    told = " ".join(feedback(course, "wrong")[key].split())
    assert words in told, told[:500]
    assert "Traceback (most recent" not in told or key in ("2.2", "2.3")


@pytest.mark.slow
def test_hidden_inputs_locked_checks_and_another_judge_count_at_grading(course):
    told = feedback(course, "sly")
    assert all("no point: " in text for text in told.values())
    assert "in line 2 (`return 1 / 0`): ZeroDivisionError" in told["2.4"]
    assert "the notebook has replaced spine_lib.course." in told["2.4"]
    path = course / "autograded" / "sly" / LESSON / f"{LESSON}.ipynb"
    assert "check_2_2" in map(graded_id, nbformat.read(path, as_version=4).cells)


@pytest.mark.slow
def test_a_submission_that_kills_its_kernel_holds_nobody_else_up(course):
    log = (course / "autograde.log").read_text(encoding="utf-8")
    assert f"error processing assignment '{LESSON}' for student 'killing'" in log
    assert not (course / "feedback" / "killing").exists()
    assert (course / "feedback" / "wrong").exists()


@pytest.mark.slow
def test_nobody_is_graded_with_a_students_copy(course, tmp_path):
    copy_of_students = tmp_path / "students"
    shutil.copytree(
        ROOT / "spine_lib",
        copy_of_students / "spine_lib",
        ignore=shutil.ignore_patterns("hidden.py", "__pycache__"),
    )
    again = ("autograde", LESSON, "--student=right", "--force")
    done = nbgrader(course, *again, PYTHONPATH=str(copy_of_students))
    assert done.returncode != 0
    assert "lacks the hidden inputs" in done.stderr
