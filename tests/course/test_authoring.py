"""Notebooks are built from one source each; hand-outs hold no answer; nbgrader grades them."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from spine_lib import SpineError
from spine_lib.course import authoring, grading
from spine_lib.course.authoring import (
    build_lesson,
    lesson_sources,
    read_source,
    write_notebook,
    write_working_copies,
)
from spine_lib.course.checking import judge_answer
from spine_lib.course.exercise import lesson_exercises, lesson_numbers, reference_of
from spine_lib.course.mistakes import source_of

ROOT = Path(__file__).parents[2]
SOURCES = lesson_sources(ROOT / "notebooks")
EXERCISES = [exercise for number in lesson_numbers() for exercise in lesson_exercises(number)]
each_lesson = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)

TINY = """\
# %% [markdown]
# # Tiny lesson

# %% tags=["nbval-check-output"]
print("two", 1 + 1)

# %%
import os

from spine_lib.course import pick

print(pick("full", "fast"), os.environ.get("SPINE_GRADING"), object())

# %%
import ipywidgets

ipywidgets.IntSlider()
"""


@pytest.fixture
def tiny(tmp_path):
    """Return a function that writes a lesson."""

    def write(text: str = TINY, name: str = "07_tiny.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The notebook of a tiny lesson."""
    path = tmp_path_factory.mktemp("lessons") / "07_tiny.py"
    path.write_text(TINY, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_FAST", "1")
        patch.setenv("SPINE_GRADING", "1")
        write_notebook(build_lesson(path), path.with_suffix(".ipynb"))
    return path.with_suffix(".ipynb")


# --- the lessons ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [*SOURCES, ROOT / "notebooks" / "kaggle_1089.py"], ids=lambda path: path.stem
)
def test_the_cells_of_source_and_notebook_are_equal(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    cells = [
        [(cell.cell_type, cell.source, cell.metadata.get("tags")) for cell in cells]
        for cells in (notebook.cells, read_source(path).cells)
    ]
    assert cells[0] == cells[1]


@each_lesson
def test_a_notebook_was_run_from_top_to_bottom_in_the_full_profile_and_is_small(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.spine.profile == "full"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.with_suffix(".ipynb").stat().st_size < authoring.LIMIT_KB * 1024
    assert all(cell.source.count("\n") < 25 for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@each_lesson
def test_every_picture_of_a_notebook_is_described(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                own = output.metadata.get("image/png", {}).get("alt")
                after = notebook.cells[index + 1 : index + 2]
                assert own or "*Figure:" in "".join(c.source for c in after), cell.source


def test_the_index_names_every_lesson_with_minutes_goals_and_pictures():
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    for path in SOURCES:
        section = text.split(f"({path.stem}.ipynb)")[1].split("\n## ")[0]
        assert re.search(r"About \d+( to \d+)? minutes", section)
        assert section.count("\n- ") >= 3
        for picture in re.findall(r"!\[[^]]{20,}\]\((\S+)\)", section):
            assert (ROOT / "notebooks" / picture).is_file()


# --- building -------------------------------------------------------------------------------------


def test_a_cell_keeps_its_id_when_another_is_put_in_before_it(tiny):
    before = [cell.id for cell in read_source(tiny()).cells]
    text = TINY.replace("# %% tags", '# %%\nprint("new")\n\n# %%\nprint("new")\n\n# %% tags')
    after = [cell.id for cell in read_source(tiny(text)).cells]
    assert len(set(after)) == len(after) == len(before) + 2
    assert [cell_id for cell_id in after if cell_id in before] == before


def test_a_working_copy_has_no_outputs_and_is_never_written_over(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "07_tiny.py").write_text(TINY, encoding="utf-8")
    work = tmp_path / "work"
    write_working_copies(tmp_path, work)
    copy = work / "07_tiny.ipynb"
    notebook = nbformat.read(copy, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert notebook.metadata.language_info.version == platform.python_version()
    copy.write_text("my own work", encoding="utf-8")
    write_working_copies(tmp_path, work)
    assert copy.read_text(encoding="utf-8") == "my own work"


def test_lessons_are_chosen_by_number(tmp_path):
    for name in ("00_a.py", "03_b.py", "helper.py", "conftest.py"):
        (tmp_path / name).touch()
    assert [path.name for path in lesson_sources(tmp_path)] == ["00_a.py", "03_b.py"]
    assert [path.name for path in lesson_sources(tmp_path, ["03"])] == ["03_b.py"]
    with pytest.raises(SpineError, match="starts with 04: there are 00_a, 03_b"):
        lesson_sources(tmp_path, ["04"])


@pytest.mark.slow
def test_a_lesson_runs_in_the_full_profile_without_grading_and_keeps_nothing_volatile(built):
    notebook = json.loads(built.read_text(encoding="utf-8"))
    cells = notebook["cells"]
    assert cells[2]["outputs"][0]["text"] == ["full None <object object at 0x...>\n"]
    assert set(notebook["metadata"]) == {"kernelspec", "language_info", "spine"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in cells)
    assert cells[-1]["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=0)"]}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('raise ValueError("no " + "y")', "ValueError: no y"),
        ('import warnings\n\nwarnings.warn("careful")', "writes to stderr: .*careful"),
        (
            "import os\n\nfrom IPython.display import Image\n\n"
            'Image(b"\\x89PNG\\r\\n\\x1a\\n" + os.urandom(700_000), format="png", width=2)',
            "takes 9.. KB, 900 are allowed",
        ),
    ],
)
def test_a_lesson_that_fails_warns_or_is_too_large_is_not_built(tiny, cell, message):
    with pytest.raises(SpineError, match=f"(?s)07_tiny.py: .*{message}"):
        build_lesson(tiny(f"# %%\n{cell}\n"))


def test_a_picture_gets_the_alt_text_of_the_comment_after_it(tiny):
    image = """Image(b"\\x89PNG\\r\\n\\x1a\\n", format="png")"""
    path = tiny(
        f"# %%\nfrom IPython.display import Image\n\n{image}\n\n"
        "# %% [markdown]\n# *Figure: bones.* <!-- alt: two\n# bones -->\n"
    )
    (output,) = build_lesson(path).cells[0].outputs
    assert output.metadata["image/png"]["alt"] == "two bones"


@pytest.mark.slow
def test_the_fast_profile_is_a_trial_and_a_crash_in_a_cell_has_its_line_there(tiny):
    """In a real kernel: the student's line is found, although no file holds it."""
    path = tiny(
        "# %%\nfrom spine_lib.course import check, pick\n\n\n"
        "# %%\ndef region_of(vertebra):\n    return vertebra / 0\n\n\n"
        '# %%\nassert pick(False, True)\ncheck("0.1", region_of)\n'
    )
    (output,) = build_lesson(path, fast=True).cells[-1].outputs
    assert "in line 2 (`return vertebra / 0`)" in output.data["text/plain"]


@pytest.mark.slow
def test_nbval_runs_notebooks_in_the_fast_profile_and_compares_marked_cells(
    built, tmp_path, sample_root
):
    for name in ("07_tiny", "08_changed", "mine"):
        shutil.copy(built, tmp_path / f"{name}.ipynb")
    for name in ("07_tiny", "08_changed"):
        shutil.copy(built.with_suffix(".py"), tmp_path / f"{name}.py")
    path = tmp_path / "08_changed.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs[0].text = "two 3\n"
    notebook.cells[2].source += '\nassert os.environ["SPINE_FAST"] == "1"'
    nbformat.write(notebook, path)
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "SPINE_FAST"))}
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        f"--nbval-sanitize-with={ROOT}/tests/nbval.cfg",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-v", "."],
        cwd=tmp_path,
        env={**clean, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    assert re.search(r"FAILED \S*08_changed\S*Cell 0", done.stdout)
    assert "mine" not in done.stdout


# --- hand-outs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def handout(tmp_path_factory) -> Path:
    """The hand-out of the whole course."""
    folder = tmp_path_factory.mktemp("handout")
    authoring.write_handout(ROOT, folder)
    return folder


def squeezed(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def test_no_file_for_students_holds_a_solution_or_a_hidden_input(handout):
    texts = {
        path: path.read_text(encoding="utf-8", errors="ignore").replace("\\n", "\n")
        for path in (handout / "students").rglob("*")
        if path.parent.name != "exercises"
        and path.suffix in (".py", ".ipynb", ".md", ".txt", ".json")
    }
    assert len(texts) > 100
    library = "".join(squeezed(text) for path, text in texts.items() if "course" not in path.parts)
    texts = {path: squeezed(text) for path, text in texts.items()}
    for exercise in EXERCISES:
        reference = reference_of(exercise.key)
        lines = squeezed(source_of(reference))
        if lines.count("\n") >= 2 and lines not in library:
            holders = [path for path, text in texts.items() if lines in text]
            assert not holders, exercise.key
    for name in ("exercises/hidden.py", "docs/instructors.md", "tests"):
        assert not list((handout / "students").rglob(name))


@pytest.mark.slow
def test_the_students_copy_checks_answers_and_keeps_solutions_back(handout, tmp_path):
    code = """
from spine_lib.course import check, hint, solution
from spine_lib.course.exercise import find_exercise
space = {}
exec(find_exercise("0.1").texts.stub, space)
check("0.1", space["region_of"])
check("0.1", lambda vertebra: "lumbar")
hint("0.1")
solution("0.1")
from spine_lib.course import authoring
authoring.main(["handout", "new"])
"""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "SPINE_"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(handout / "students")},
        capture_output=True,
        text=True,
        check=False,
    )
    for text in ("not yet", "not right yet", "Hint 1 of 3", "is not part of this copy"):
        assert text in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1 and "holds no solutions" in done.stderr


def test_solved_notebooks_have_the_answers_and_replace_no_file_of_the_students(handout):
    names = {
        folder: {p.relative_to(handout / folder) for p in (handout / folder).rglob("*.*")}
        for folder in ("students", "solutions")
    }
    assert not names["students"] & names["solutions"]
    for path in SOURCES:
        solved = handout / "solutions" / "notebooks" / "solved" / f"{path.stem}.ipynb"
        text = solved.read_text(encoding="utf-8")
        assert "NotImplementedError" not in text and "SOLUTION" not in text


def test_every_copy_of_a_lesson_has_the_figures_that_its_text_shows(handout):
    for path in handout.rglob("*.ipynb"):
        for figure in re.findall(r"\]\((figures/[^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / figure).is_file(), f"{path}: {figure}"


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.key)
def test_every_answer_stands_alone_and_is_right(exercise):
    space: dict = {}
    exec(authoring.marked_solution(exercise), space)
    name = reference_of(exercise.key).__name__
    judge_answer(exercise, space[name], exercise.examples()[:1])


def test_a_lesson_that_lacks_a_stub_is_an_error(tiny):
    path = tiny("# %%\nx = 1\n", name="00_broken.py")
    with pytest.raises(SpineError, match=r"00_broken\.py does not have the stub of exercise 0\.1"):
        authoring.graded_notebook(path)


def test_an_existing_hand_out_is_not_written_over(tmp_path):
    (tmp_path / "students").mkdir()
    with pytest.raises(SpineError, match="students exists and may hold work"):
        authoring.write_handout(ROOT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["students"]


# --- one grade ------------------------------------------------------------------------------------


def test_a_grade_is_silent_or_one_sentence_and_leaves_no_trace(monkeypatch, capsys):
    monkeypatch.delenv("SPINE_GRADING", raising=False)
    reference = reference_of("0.3")

    def warning(labels, spacing_mm):
        print("look out", file=sys.stderr)
        return reference(labels, spacing_mm)

    grading.grade("0.3", warning)
    with pytest.raises(grading.NoPoint) as error:
        grading.grade("0.3", lambda labels, spacing_mm: 0.0)
    (line,) = error.value._render_traceback_()
    assert line.startswith("Exercise 0.3 (") and "no point: " in line
    assert capsys.readouterr() == ("", "")
    assert "SPINE_GRADING" not in os.environ


def test_only_a_copy_with_hidden_inputs_grades(monkeypatch):
    grading.before_grading(assignment="02_annotation_inspection", student="me", notebooks=[])
    monkeypatch.setattr(grading, "hidden_inputs", lambda key: [])
    with pytest.raises(SpineError, match="lacks the hidden inputs"):
        grading.grade("2.1", print)
    with pytest.raises(SystemExit, match="lacks the hidden inputs"):
        grading.before_grading(assignment="02_annotation_inspection")
