"""The notebooks: made from one source each, small, and told apart from it when they drift."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from spine_lib import SpineError
from spine_lib.course import notebook_build, notebook_series, results
from spine_lib.course.notebook_index import Card, index_text, lesson_card, write_picture
from spine_lib.course.notebook_source import drift, lesson_sources, read_source, source_problems

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
SOURCES = lesson_sources(FOLDER)

TINY = """\
# ---
# jupyter:
#   kernelspec: {name: python3}
# ---

# %% [markdown]
# # Tiny lesson
#
# About 5 to 8 minutes. In this notebook you will
#
# - **look** at a picture,
# - **count** to two
#   and on,
# - **stop**.

# %% tags=["nbval-check-output"]
print("two", 1 + 1)

# %%
import os

from spine_lib.course.profile import pick

print(pick("full", "fast"), os.environ.get("SPINE_GRADING"), object())

# %%
import matplotlib.pyplot as plt

plt.figure(figsize=(1, 1), dpi=50)
plt.plot([1, 2])
plt.show()

# %% [markdown]
# *Figure: a line that rises from 1
# to 2.*

# %%
import ipywidgets

ipywidgets.IntSlider()
"""


@pytest.fixture
def tiny(tmp_path):
    """Return a function that writes a lesson and reads it back."""

    def write(text: str = TINY, name: str = "07_tiny.py"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return read_source(path)

    return write


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tiny lesson, made once: its folder and what was printed."""
    folder = tmp_path_factory.mktemp("lessons")
    (folder / "07_tiny.py").write_text(TINY, encoding="utf-8")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_FAST", "1")
        patch.setenv("SPINE_GRADING", "1")
        assert notebook_series.make_series(folder, say=said.append) == []
    return folder, said


# --- the lessons that there are -------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_what_its_source_gives(path):
    assert notebook_series.check_series(FOLDER, (path.stem[:2],)) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_kept_notebook_is_of_the_full_profile_and_small(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.spine.profile == "full"
    assert sum(map(notebook_build.image_bytes, notebook.cells)) <= 300 * 1024
    assert path.with_suffix(".ipynb").stat().st_size < 1024 * 1024
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_picture_of_a_notebook_is_described(path):
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                own = output.metadata.get("image/png", {}).get("alt")
                after = notebook.cells[index + 1 : index + 2]
                assert own or "*Figure:" in "".join(c.source for c in after), cell.source


def test_the_index_names_every_lesson_with_minutes_goals_and_picture():
    assert notebook_series.check_series(FOLDER) == []
    text = (FOLDER / "README.md").read_text(encoding="utf-8") if SOURCES else ""
    for path in SOURCES:
        assert f"({path.stem}.ipynb)" in text
        section = text.split(f"({path.stem}.ipynb)")[1].split("\n## ")[0]
        assert re.search(r"About \d+( to \d+)? minutes", section)
        assert section.count("\n- ") >= 3
        picture = re.search(r"!\[[^]]{20,}\]\((\S+)\)", section)[1]
        assert (FOLDER / picture).is_file()


# --- reading a source -----------------------------------------------------------------------------


def test_an_id_comes_from_its_cell_and_survives_a_cell_put_in_elsewhere(tiny):
    before = [cell.id for cell in tiny().notebook.cells]
    after = tiny(TINY.replace("# %% tags", '# %%\nprint("new")\n\n# %% tags')).notebook.cells
    ids = [cell.id for cell in after]
    assert len(set(ids)) == len(ids) == len(before) + 1
    assert [one for one in ids if one in before] == before


def test_equal_cells_have_ids_of_their_own(tiny):
    ids = [cell.id for cell in tiny("# %%\nx = 1\n\n# %%\nx = 1\n").notebook.cells]
    assert len(set(ids)) == 2


def test_line_ends_of_another_system_change_nothing(tmp_path):
    path = tmp_path / "07_tiny.py"
    read = []
    for newline in ("\n", "\r\n"):
        path.write_text(TINY, encoding="utf-8", newline=newline)
        read.append(read_source(path).notebook)
    assert read[0] == read[1]


@pytest.mark.parametrize("text", ["", "import os\n\n# %%\nx = 1\n", "x = 1\n"])
def test_code_outside_of_a_cell_is_refused(tiny, text):
    with pytest.raises(SpineError, match="outside of a cell"):
        tiny(text)


def test_a_long_cell_is_told_with_its_line(tiny):
    body = "".join(f"x{n} = {n}\n" for n in range(16))
    (problem,) = source_problems(tiny(f"# %%\nx = 1\n\n# %%\n{body}"))
    assert problem.startswith("07_tiny.py, line 4: the cell has 16 lines, 15 are allowed")
    assert source_problems(tiny(f"# %%\n{body}".replace("x15 = 15\n", ""))) == []


def test_an_empty_cell_is_told(tiny):
    assert "line 4: the cell is empty" in source_problems(tiny("# %%\nx = 1\n\n# %%\n"))[0]


def test_lessons_are_named_by_number(tmp_path):
    for name in ("00_a.py", "03_b.py", "helper.py", "conftest.py"):
        (tmp_path / name).touch()
    assert [path.name for path in lesson_sources(tmp_path)] == ["00_a.py", "03_b.py"]
    assert [path.name for path in lesson_sources(tmp_path, ["3"])] == ["03_b.py"]
    with pytest.raises(SpineError, match="starts with 04: there are 00_a, 03_b"):
        lesson_sources(tmp_path, ["4"])


# --- making a notebook ----------------------------------------------------------------------------


def test_a_lesson_runs_in_the_full_profile_without_grading_whatever_is_set_here(built):
    folder, said = built
    notebook = nbformat.read(folder / "07_tiny.ipynb", as_version=4)
    assert notebook.cells[2].outputs[0].text == "full None <object object at 0x...>\n"
    assert re.fullmatch(r"07_tiny: \d+ s, pictures \d+ KB", said[0])


def test_a_notebook_holds_nothing_volatile_and_no_widget(built):
    text = (built[0] / "07_tiny.ipynb").read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info", "spine"}
    assert notebook["metadata"]["language_info"] == {
        "name": "python",
        "file_extension": ".py",
        "mimetype": "text/x-python",
    }
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert "widget" not in text.replace("ipywidgets", "")
    assert notebook["cells"][-1]["outputs"][0]["data"] == {"text/plain": ["IntSlider(value=0)"]}


def test_what_was_made_has_not_drifted(built):
    assert notebook_series.check_series(built[0]) == []


def test_nothing_half_written_is_left(built):
    assert {path.name for path in built[0].iterdir()} == {
        "07_tiny.py",
        "07_tiny.ipynb",
        "README.md",
        "pictures",
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("1 + 1", "1 + 2", "line 16: the source differs"),
        ("# # Tiny", "# # Small", "line 6: the source differs"),
        ('["nbval-check-output"]', '["other"]', "line 16: the tags differ"),
        ("\n# %%\nimport ipywidgets\n\nipywidgets.IntSlider()\n", "", "has 6 cells, its source 5"),
        ("# %% [markdown]\n# *F", "# %%\n# *F", "line 33: the cell_type differs"),
    ],
)
def test_a_notebook_that_drifted_is_told_with_the_line(built, tmp_path, old, new, words):
    shutil.copy(built[0] / "07_tiny.ipynb", tmp_path)
    assert TINY.count(old) == 1
    (tmp_path / "07_tiny.py").write_text(TINY.replace(old, new), encoding="utf-8")
    (problem,) = drift(read_source(tmp_path / "07_tiny.py"))
    assert words in problem and "run `spine notebooks 07`" in problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda notebook: notebook.cells[1].update(id="other"), "the id differs"),
        (lambda notebook: notebook.cells[1].update(execution_count=9), "not run from top to"),
    ],
)
def test_a_notebook_that_was_changed_by_hand_is_told(built, tmp_path, change, words):
    shutil.copy(built[0] / "07_tiny.py", tmp_path)
    notebook = nbformat.read(built[0] / "07_tiny.ipynb", as_version=4)
    change(notebook)
    nbformat.write(notebook, tmp_path / "07_tiny.ipynb")
    assert words in drift(read_source(tmp_path / "07_tiny.py"))[0]


def test_a_missing_or_broken_notebook_is_told(tiny, tmp_path):
    source = tiny()
    assert "is missing" in drift(source)[0]
    (tmp_path / "07_tiny.ipynb").write_text("{", encoding="utf-8")
    assert "is no notebook" in drift(source)[0]


def test_a_notebook_without_a_source_is_told(tmp_path):
    (tmp_path / "05_lost.ipynb").touch()
    assert "05_lost.ipynb has no source" in notebook_series.check_series(tmp_path)[0]


def test_a_cell_that_fails_is_told_with_its_line_and_writes_nothing(tiny, tmp_path):
    tiny(
        '# %% [markdown]\n# Words\n\n# %%\nx = 1\n\n# %%\ny = 2\n\nraise ValueError("no " + "y")\n'
    )
    with pytest.raises(SpineError) as error:
        notebook_series.make_series(tmp_path)
    assert str(error.value) == "07_tiny.py, line 10: the cell stopped with ValueError: no y"
    assert [path.name for path in tmp_path.iterdir()] == ["07_tiny.py"]


def test_warnings_and_large_pictures_are_refused(tiny, tmp_path):
    tiny(
        "# %%\nimport os\nimport warnings\n\nfrom IPython.display import Image\n\n"
        'warnings.warn("careful")\n\n'
        '# %%\nImage(b"\\x89PNG\\r\\n\\x1a\\n" + os.urandom(400_000), format="png", width=2)\n'
    )
    stderr, large = notebook_series.make_series(tmp_path)
    assert "07_tiny.py, line 1: the cell writes to stderr" in stderr and "careful" in stderr
    assert "take 391 KB together, 300 are allowed" in large and "line 9 (" in large
    assert not (tmp_path / "07_tiny.ipynb").exists()


def test_the_fast_profile_is_a_trial_and_a_crash_in_a_cell_has_its_line_there(tiny, tmp_path):
    """In a real kernel: the student's line is found, although no file holds it."""
    tiny(
        "# %%\nfrom spine_lib.course.checking import Guarded\n"
        "from spine_lib.course.exercise import Exercise, Wrong\n"
        "from spine_lib.course.profile import is_fast\n\n"
        'exercise = Exercise("1.1", "", "", list, print, ("", "", ""))\n\n\n'
        "# %%\ndef halve(image):\n    return image / 0\n\n\n"
        "# %%\nassert is_fast()\ntry:\n    Guarded(halve, exercise)(1)\nexcept Wrong as wrong:\n"
        '    assert "in line 2 (`return image / 0`)" in str(wrong), wrong\n'
    )
    assert notebook_series.make_series(tmp_path, fast=True) == []
    assert [path.name for path in tmp_path.iterdir()] == ["07_tiny.py"]


def test_pictures_inside_html_count(tiny):
    picture = base64.b64encode(bytes(3000)).decode()
    output = {"output_type": "display_data", "data": {"text/html": f'<img src="data:image/png;base64,{picture}">'}}  # fmt: skip  # noqa: E501
    assert notebook_build.image_bytes(nbformat.from_dict({"outputs": [output]})) == 3000


# --- the index ------------------------------------------------------------------------------------


def test_a_card_holds_title_minutes_goals_and_the_pictures_description(tiny):
    card = lesson_card(tiny())
    assert card == Card(
        "07_tiny",
        "Tiny lesson",
        "5 to 8",
        ("**look** at a picture,", "**count** to two and on,", "**stop**."),
        "a line that rises from 1 to 2.",
    )
    text = index_text([card])
    assert "## 07: [Tiny lesson](07_tiny.ipynb)\n\nAbout 5 to 8 minutes." in text
    assert "![a line that rises from 1 to 2.](pictures/07.png)" in text


@pytest.mark.parametrize(
    ("old", "words"),
    [("# # Tiny lesson", "one title"), ("minutes", "its minutes"), ("# - **stop**.", "goals"),
     ("*Figure:", "a described figure")],
)  # fmt: skip
def test_a_lesson_without_a_part_of_its_card_is_told(tiny, old, words):
    with pytest.raises(SpineError, match=re.escape(words)):
        lesson_card(tiny(TINY.replace(old, "")))


def test_the_picture_is_that_of_the_tagged_cell(tiny, tmp_path):
    source = tiny('# %%\nx = 1\n\n# %% tags=["picture"]\nx = 2\n')
    notebook = nbformat.from_dict(source.notebook)
    for cell, data in zip(notebook.cells, (b"one", b"two")):
        png = base64.b64encode(data).decode()
        cell.outputs = [nbformat.from_dict({"data": {"image/png": png}})]
    assert write_picture(source, notebook).read_bytes() == b"two"
    assert (tmp_path / "pictures" / "07.png").is_file()


# --- under nbval ----------------------------------------------------------------------------------


def run_nbval(folder, *arguments) -> subprocess.CompletedProcess:
    shutil.copy(FOLDER / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=150"]
    options.append(f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval.cfg'}")
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "SPINE_FAST"))}
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, "."],
        cwd=folder,
        env={**clean, "PYTHONPATH": paths, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@pytest.mark.slow
def test_nbval_runs_notebooks_in_the_fast_profile_and_compares_marked_cells(
    built, tmp_path, sample_root
):
    for name in ("07_tiny", "08_changed", "mine"):
        shutil.copy(built[0] / "07_tiny.ipynb", tmp_path / f"{name}.ipynb")
    for name in ("07_tiny", "08_changed"):
        shutil.copy(built[0] / "07_tiny.py", tmp_path / f"{name}.py")
    path = tmp_path / "08_changed.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs[0].text = "two 3\n"
    notebook.cells[2].source += '\nassert is_not_there, "only run"'
    notebook.cells[3].source += '\nassert os.environ["SPINE_FAST"] == "1"'
    nbformat.write(notebook, path)
    done = run_nbval(tmp_path, "-n", "2", "--dist", "loadfile", "-v")
    assert "2 failed, 6 passed" in done.stdout, done.stdout + done.stderr
    assert re.search(r"FAILED \S*08_changed\S*Cell 0", done.stdout)
    assert re.search(r"FAILED \S*08_changed\S*Cell 1", done.stdout)
    assert "mine" not in done.stdout


# --- long measurements ----------------------------------------------------------------------------


def experiment(run, **more):
    module = types.ModuleType("spin", "How far it spins.\n\nMore words.")
    module.__file__ = __file__
    vars(module).update(NAME="spin", SEEDS=(0, 1, 2), STEPS=(3, 4), PRINT=print, run=run, **more)
    return module


def test_a_measurement_is_kept_with_what_it_needs_to_be_repeated(tmp_path):
    import numpy as np

    said = []
    made = results.run_experiment(
        experiment(lambda seed, fast: {"turns": np.float32(seed + 0.5), "bad": float("nan")}),
        [0, 1, 2],
        say=said.append,
    )
    results.keep_result(made, tmp_path)
    kept = results.lesson_result("spin", tmp_path)
    assert kept == made
    assert [(row["seed"], row["turns"], row["bad"]) for row in kept["seeds"]] == [
        (0, 0.5, None),
        (1, 1.5, None),
        (2, 2.5, None),
    ]
    assert kept["settings"] == {"steps": [3, 4]} and kept["about"] == "How far it spins."
    assert {"torch", "numpy", "spine_lib"} <= set(kept["versions"])
    assert kept["device"] and kept["seconds"] >= 0 and kept["profile"] == "full"
    assert len(said) == 3 and "seed 1" in said[1] and "turns 1.5" in said[1]
    assert [path.name for path in tmp_path.iterdir()] == ["spin.json"]


@pytest.mark.parametrize("seeds", [[0], [0, 1], [1, 1, 1]])
def test_fewer_than_three_seeds_are_refused(seeds):
    with pytest.raises(SpineError, match="at least 3 different ones"):
        results.run_experiment(experiment(lambda seed, fast: {}), seeds)


def test_a_result_that_was_not_kept_is_one_sentence(tmp_path):
    with pytest.raises(SpineError, match="`spine lesson-results spin`"):
        results.lesson_result("spin", tmp_path)
    with pytest.raises(SpineError, match="no measurement 'spin'"):
        results.load_experiment("spin")


def test_what_is_no_number_is_refused():
    with pytest.raises(SpineError, match="gives a object: give numbers"):
        results.run_experiment(experiment(lambda seed, fast: {"x": object()}), [0, 1, 2])


@pytest.mark.parametrize("name", results.experiment_names())
def test_every_measurement_was_made_in_full_with_the_code_that_is_there(name):
    module = results.load_experiment(name)
    kept = results.lesson_result(name)
    assert module.NAME == kept["name"] == name
    assert len({row["seed"] for row in kept["seeds"]}) >= 3
    assert kept["profile"] == "full"
    assert kept["settings"] == results.settings_of(module)
    assert kept["seconds"] > 0 and kept["versions"]["torch"]
