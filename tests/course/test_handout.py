"""What an instructor hands out tells no answer and works; what is kept answers everything."""

import inspect
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest
from test_packaging import project_files

from spine_lib import SpineError
from spine_lib.course import grading, handout, handout_answers, handout_files
from spine_lib.course.exercise import Exercise, find_exercise, lesson_exercises, lesson_solutions
from spine_lib.course.notebook_source import lesson_sources, read_source

ROOT = Path(__file__).parents[2]
SOURCES = lesson_sources(ROOT / "notebooks")
KEYS = [e.key for path in SOURCES for e in lesson_exercises(int(path.stem[:2]))]


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Path:
    """All three, made once of the whole course."""
    folder = tmp_path_factory.mktemp("releases")
    said = []
    handout.write_releases(ROOT, folder, say=said.append)
    assert len(said) == 3 and f"{len(KEYS)} answers" in said[1]
    return folder


def in_copy(copy: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a students' copy, with its library and without installing anything."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "SPINE_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**kept, "PYTHONPATH": str(copy), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


# --- the students' copy ---------------------------------------------------------------------------


@pytest.mark.slow
def test_no_file_for_students_holds_a_solution_or_a_hidden_input(releases):
    texts = {
        path: path.read_bytes() for path in (releases / "students").rglob("*") if path.is_file()
    }
    assert len(texts) > 100
    for lesson in sorted({key.split(".")[0] for key in KEYS}):
        module = lesson_solutions(f"{lesson}.1")
        hidden = inspect.getsource(module).split("HIDDEN = {")[1].split("\n}")[0]
        secrets = [handout_files.reference_body(key, module) for key in module.REFERENCES]
        secrets = [secret for secret in secrets if "\n" in secret] + hidden.strip().splitlines()
        for secret in (line for line in secrets if len(line.strip()) > 12):
            for form in (secret.encode(), json.dumps(secret)[1:-1].encode()):
                assert not [path.name for path, text in texts.items() if form in text], secret


@pytest.mark.slow
def test_what_is_only_for_instructors_is_not_in_the_students_copy(releases):
    copy = releases / "students"
    for name in ("INSTRUCTORS.md", "spine_lib/course/solutions", "tests/course", ".git", "runs"):
        assert not (copy / name).exists(), name
    for name in ("tests/test_course.py", "tests/test_handout.py", "tests/test_nbgrader.py"):
        assert not (copy / name).exists(), name
    assert "INSTRUCTORS" not in (copy / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_everything_else_is_in_the_students_copy(releases):
    missing = []
    for path in project_files():
        name = path.relative_to(ROOT).as_posix()
        tells = name.startswith("tests/") and handout_files.TELLING.search(path.read_text("utf-8"))
        kept_back = name.startswith(handout_files.KEPT_BACK) or tells
        if not kept_back and not (releases / "students" / name).is_file():
            missing.append(name)
    assert missing == []


def test_every_top_folder_and_file_of_the_project_is_handed_out_or_kept_back():
    top = {path.relative_to(ROOT).parts[0] for path in project_files()}
    known = {Path(name).parts[0] for name in (*handout_files.PARTS, *handout_files.KEPT_BACK)}
    assert top <= known, f"decide whether students get {top - known}"


@pytest.mark.slow
def test_exercise_cells_for_students_are_the_untouched_stubs(releases):
    for path in SOURCES:
        notebook = nbformat.read(
            releases / "students" / "notebooks" / f"{path.stem}.ipynb", as_version=4
        )
        cells = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
        stubs = [exercise.stub.strip() for exercise in lesson_exercises(int(path.stem[:2]))]
        assert [cell.source.strip() for cell in cells] == stubs


COPY_AT_WORK = """
from pathlib import Path

import spine_lib
from spine_lib.course import check, grading, hint, progress, solution
from spine_lib.course.exercise import find_exercise
from spine_lib import SpineError

print("library in", Path(spine_lib.__file__).parent.parent)
space = {}
exec(find_exercise("0.1").stub, space)
check("0.1", space["region_of"])
check("0.1", lambda vertebra: "lumbar")
hint("0.1")
solution("0.1")
progress()
try:
    grading.grade("0.1", space["region_of"])
except SpineError as error:
    print("refused:", error)
"""


@pytest.mark.slow
def test_in_the_students_copy_checks_and_hints_work_and_solutions_are_kept_back(releases):
    done = in_copy(releases / "students", "-c", COPY_AT_WORK)
    assert done.returncode == 0, done.stderr
    assert f"library in {(releases / 'students').resolve()}" in done.stdout
    assert "0.1 (" in done.stdout and "not yet" in done.stdout
    assert "not right yet" in done.stdout
    assert "Hint 1 of 3" in done.stdout
    assert "The solution of 0.1 is not part of this copy: ask whoever gave it" in done.stdout
    assert "0 of " in done.stdout
    assert "refused: Exercise 0.1 cannot be graded" in done.stdout


@pytest.fixture
def shared_data(tmp_path, sample_root) -> Path:
    """The real patients as a class shares them: nobody may write there."""
    folder = tmp_path / "shared"
    shutil.copytree(sample_root, folder / "sample")
    places = [folder, *folder.rglob("*")]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    yield folder
    for place in places:
        place.chmod(0o755)  # so that it can be cleared away


def seen_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.mark.slow
def test_a_lesson_of_the_students_copy_runs_on_shared_data_and_leaves_them_alone(
    releases, shared_data
):
    before = seen_in(shared_data)
    code = """
from pathlib import Path
from spine_lib.course.notebook_series import make_series
raise SystemExit(make_series(Path("notebooks"), ["02"], fast=True) or None)"""
    done = in_copy(releases / "students", "-c", code, SPINE_DATA=str(shared_data))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "02_annotation_inspection: " in done.stdout
    assert seen_in(shared_data) == before


def test_slices_are_prepared_beside_the_runs_where_data_cannot_be_written(monkeypatch, tmp_path):
    from spine_lib.reproduce.sources import prepared_root

    monkeypatch.setenv("SPINE_DATA", str(tmp_path / "not" / "there" / "yet"))
    assert prepared_root() == tmp_path / "not" / "there" / "yet" / "prepared"
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    assert prepared_root() == Path("runs") / ".prepared"
    assert asked == [tmp_path]


@pytest.mark.slow
def test_releases_cannot_be_made_from_a_students_copy(releases, tmp_path):
    code = f"""
from pathlib import Path
from spine_lib.course.handout import write_releases
write_releases(Path("."), Path({str(tmp_path / "new")!r}))"""
    done = in_copy(releases / "students", "-c", code)
    assert done.returncode == 1
    assert "was made for students and holds no solutions" in done.stderr
    assert not (tmp_path / "new").exists()


# --- the search for answers -----------------------------------------------------------------------


def planted_notebook(path: Path, source: str, shown: str) -> None:
    cell = nbformat.v4.new_code_cell(source)
    cell.outputs = [nbformat.v4.new_output("stream", text=shown)]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


@pytest.mark.parametrize("how", ["code", "moved", "cell", "output", "hidden", "folder"])
def test_a_planted_answer_is_found(tmp_path, how):
    module = lesson_solutions("2.1")
    body = handout_files.reference_body("2.4", module)
    if how == "code":
        (tmp_path / "a.py").write_text(inspect.getsource(module.stray_voxels), encoding="utf-8")
    elif how == "moved":
        text = body.replace("\n", "\n\n        # a comment\n    ")
        (tmp_path / "page.md").write_text(text, encoding="utf-8")
    elif how == "cell":
        planted_notebook(tmp_path / "n.ipynb", body, "")
    elif how == "output":
        planted_notebook(tmp_path / "n.ipynb", "", body)
    elif how == "hidden":
        line = next(x for x in inspect.getsource(module).splitlines() if '"2.4": lambda' in x)
        (tmp_path / "a.json").write_text(line, encoding="utf-8")
    else:
        (tmp_path / "spine_lib" / "course" / "solutions").mkdir(parents=True)
    told = " ".join(handout_files.find_leaks(tmp_path))
    words = {"hidden": "the hidden inputs of 2.4", "folder": "spine_lib/course/solutions is in it"}
    assert words.get(how, "the solution of 2.4") in told


def test_a_folder_that_tells_nothing_is_told_clean(tmp_path):
    (tmp_path / "a.py").write_text("sizes = 3\n", encoding="utf-8")
    (tmp_path / "b.bin").write_bytes(b"\0\1")
    planted_notebook(tmp_path / "n.ipynb", find_exercise("2.4").stub, "not yet")
    assert handout_files.find_leaks(tmp_path) == []


def test_a_copy_that_would_tell_an_answer_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(handout_files, "PARTS", ("README.md", "notebooks"))
    project = tmp_path / "project"
    (project / "notebooks").mkdir(parents=True)
    (project / "README.md").write_text("Hello\n", encoding="utf-8")
    leak = inspect.getsource(lesson_solutions("2.1").stray_voxels)
    (project / "notebooks" / "notes.py").write_text(leak, encoding="utf-8")
    with pytest.raises(SpineError, match=r"notebooks/notes\.py holds the solution of 2\.4"):
        handout.write_releases(project, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_somebodys_own_notebooks_and_files_are_not_handed_out(tmp_path):
    project = tmp_path / "project"
    for name in ("README.md", "notebooks/02_x.py", "notebooks/02_x.ipynb", "notebooks/mine.ipynb"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("{}", encoding="utf-8")
    (project / "grades.csv").write_text("x", encoding="utf-8")
    planted_notebook(project / "notebooks" / "02_x.ipynb", "", "")
    handout_files.copy_for_students(project, tmp_path / "copy")
    names = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*.*")}
    assert names == {"README.md", "notebooks/02_x.py", "notebooks/02_x.ipynb"}


def test_a_page_loses_only_what_points_to_the_instructors_page():
    page = (
        "# Title\n\nRead this.\n\nTeaching?\nSee [here](INSTRUCTORS.md).\n\n"
        "| what | where |\n|---|---|\n| a | b |\n| teach | INSTRUCTORS.md |\n\nThe end.\n"
    )
    assert handout_files.without_instructors(page) == (
        "# Title\n\nRead this.\n\n| what | where |\n|---|---|\n| a | b |\n\nThe end.\n"
    )


# --- the solutions --------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_solved_notebook_shows_that_its_answers_are_right(releases):
    for path in SOURCES:
        source = read_source(path)
        solved = nbformat.read(
            releases / "solutions" / "notebooks" / "solved" / f"{path.stem}.ipynb", as_version=4
        )
        nbformat.validate(solved)
        for place in handout_answers.find_exercise_cells(source):
            answer, shown = solved.cells[place.stub], solved.cells[place.check].outputs[0].text
            assert f"def {place.name}(" in answer.source
            assert "NotImplementedError" not in answer.source and "SOLUTION" not in answer.source
            assert f"Exercise {place.exercise.key} (" in shown and "right, on" in shown
            count = len(place.exercise.examples()) + len(grading.hidden_inputs(place.exercise.key))
            assert f"on {count} inputs" in shown


@pytest.mark.slow
def test_solutions_copied_over_the_students_copy_replace_none_of_their_files(releases, tmp_path):
    names = {
        folder: {p.relative_to(releases / folder) for p in (releases / folder).rglob("*.*")}
        for folder in ("students", "solutions")
    }
    assert not names["students"] & names["solutions"]
    copy = shutil.copytree(releases / "students", tmp_path / "copy")
    shutil.copytree(releases / "solutions", copy, dirs_exist_ok=True)
    done = in_copy(copy, "-c", "from spine_lib.course import solution; solution('0.2')")
    assert "return per_slice.argmax()" in done.stdout


def test_an_answer_that_does_not_pass_is_refused(monkeypatch):
    from spine_lib.course.solutions import lesson_02

    (path,) = lesson_sources(ROOT / "notebooks", ("02",))
    place = handout_answers.find_exercise_cells(read_source(path))[0]
    assert "right, on" in handout.check_answer(place)
    wrong = handout_answers._Answer((), (), "    return labels")
    monkeypatch.setattr(handout_answers, "_answer", lambda key: wrong)
    with pytest.raises(SpineError, match=r"solution of 2\.1 does not pass its own check"):
        handout.check_answer(place)
    assert lesson_02.REFERENCES  # untouched


def test_solved_lessons_are_run_where_that_is_asked_for(monkeypatch, tmp_path):
    def run(source):
        assert "raise NotImplementedError" not in "".join(c.source for c in source.notebook.cells)
        source.notebook.metadata.was_run = True
        return types.SimpleNamespace(notebook=source.notebook, problems=[])

    monkeypatch.setattr(handout, "run_lesson", run)
    assert handout.write_solutions(ROOT, tmp_path / "new", ("02",), run=True) == 5
    (path,) = (tmp_path / "new" / "notebooks" / "solved").iterdir()
    assert nbformat.read(path, as_version=4).metadata.was_run


HELPING = '''
"""Solutions of a lesson that is not there."""

import numpy as np
from math import pi, sqrt

FACTOR = 2


def doubled(x):
    """Multiply."""
    return np.multiply(x, FACTOR)


def unused(x):
    return sqrt(x)


def area(radius):
    """Say it."""
    # Why this is so.
    return doubled(pi * radius**2) / 2


REFERENCES = {"99.1": area}
'''


@pytest.fixture
def helping(tmp_path, monkeypatch) -> Exercise:
    """An exercise whose solution uses imports, a constant and a helper of its module."""
    path = tmp_path / "helping.py"
    path.write_text(HELPING, encoding="utf-8")
    module = types.ModuleType("helping")
    module.__file__ = str(path)
    exec(compile(HELPING, str(path), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "helping", module)
    monkeypatch.setattr(handout_answers, "lesson_solutions", lambda key: module)
    handout_answers._answer.cache_clear()
    yield Exercise(
        "99.1",
        "Area",
        'def area(radius):\n    """Return the area of a disc."""\n    raise NotImplementedError\n',
        list,
        print,
        ("", "", ""),
    )
    handout_answers._answer.cache_clear()


@pytest.mark.parametrize("make", [handout_answers.answered_cell, handout_answers.marked_cell])
def test_an_answer_brings_what_it_needs_and_nothing_else(helping, make):
    text = make(helping)
    space: dict = {}
    exec(text, space)
    assert space["area"](2) == pytest.approx(12.566, abs=1e-3)
    assert "Return the area of a disc" in text and "# Why this is so." in text
    assert "from math import pi\n" in text
    assert "sqrt" not in text and "unused" not in text and "REFERENCES" not in text


def test_a_stub_that_does_not_end_where_the_answer_goes_is_refused(helping):
    from dataclasses import replace

    strange = replace(helping, stub='def area(radius):\n    """Say."""\n    return 0\n')
    with pytest.raises(SpineError, match=r"ends with `return 0`: let it end with"):
        handout_answers.answered_cell(strange)


@pytest.mark.parametrize("text", ["# %%\nx = 1\n", "# %%\n{stub}\n# %%\ncheck('0.2', f)\n"])
def test_a_lesson_that_lacks_a_stub_or_its_check_is_refused(tmp_path, text):
    path = tmp_path / "00_broken.py"
    path.write_text(text.replace("{stub}", find_exercise("0.1").stub), encoding="utf-8")
    with pytest.raises(SpineError, match=r"00_broken\.py does not have the stub of exercise 0\.1"):
        handout_answers.find_exercise_cells(read_source(path))


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["students", "solutions", "nbgrader"])
def test_nothing_that_is_there_is_written_over(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(SpineError, match=f"{name} is there already and may hold somebody's work"):
        handout.write_releases(ROOT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_lesson_that_is_not_there_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(SpineError, match="No lesson in"):
        handout.write_releases(ROOT, tmp_path / "new", ("77",))
    assert not (tmp_path / "new").exists()


# --- one grade ------------------------------------------------------------------------------------


def test_a_grade_is_silent_or_one_sentence_and_leaves_no_trace(monkeypatch, capsys):
    monkeypatch.delenv("SPINE_GRADING", raising=False)
    reference = lesson_solutions("0.3").REFERENCES["0.3"]
    grading.grade("0.3", reference)
    with pytest.raises(grading.NoPoint) as told:
        grading.grade("0.3", lambda labels, spacing_mm: 0.0)
    (line,) = told.value._render_traceback_()
    assert line.startswith("Exercise 0.3 (") and "no point: " in line
    assert capsys.readouterr() == ("", "")
    assert "SPINE_GRADING" not in os.environ


def test_a_warning_inside_an_answer_costs_no_point(capsys):
    reference = lesson_solutions("0.3").REFERENCES["0.3"]

    def warns(labels, spacing_mm):
        print("look out", file=sys.stderr)
        return reference(labels, spacing_mm)

    grading.grade("0.3", warns)
    assert capsys.readouterr().err == ""


def test_only_a_copy_with_hidden_inputs_grades(monkeypatch):
    grading.before_grading(assignment="02_annotation_inspection", student="me", notebooks=[])
    monkeypatch.setattr(grading, "hidden_inputs", lambda key: [])
    with pytest.raises(SpineError, match="lacks the hidden inputs"):
        grading.grade("2.1", print)
    with pytest.raises(SystemExit, match="lacks the hidden inputs"):
        grading.before_grading(assignment="02_annotation_inspection")


def test_a_check_raises_while_nbgrader_validates(monkeypatch):
    from spine_lib.course import check
    from spine_lib.course.exercise import Wrong

    monkeypatch.delenv("SPINE_GRADING", raising=False)
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    with pytest.raises(Wrong):
        check("0.1", lambda vertebra: "lumbar")
