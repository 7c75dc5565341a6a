"""Build the notebooks from their sources, and what an instructor hands out.

A lesson is a Python file in jupytext's percent format; its notebook has the same cells, run from
top to bottom:

    python -m spine_lib.course.authoring notebooks 03
    python -m spine_lib.course.authoring work
    python -m spine_lib.course.authoring handout ../autumn-course
"""

import argparse
import ast
import hashlib
import inspect
import os
import platform
import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from spine_lib import SpineError
from spine_lib.course.exercise import Exercise, lesson_exercises, lesson_numbers, reference_of
from spine_lib.course.mistakes import source_of
from spine_lib.ct.files import atomic_file, write_json

LIMIT_KB = 900
CELL_LIMIT_S = 600
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ALT = re.compile(r"<!--\s*alt:\s*(.+?)\s*-->", re.DOTALL)


def lesson_sources(folder: Path, numbers: Sequence[str] = ()) -> list[Path]:
    """Return the sources of the lessons in a folder: all, or the notebooks whose names start so.

    Raises:
        SpineError: if a number fits no lesson.
    """
    sources = sorted(folder.glob("[0-9k]*_*.py" if numbers else "[0-9][0-9]_*.py"))
    for number in numbers:
        if not any(path.name.startswith(number) for path in sources):
            known = ", ".join(path.stem for path in sources) or "none"
            raise SpineError(f"No lesson in {folder} starts with {number}: there are {known}.")
    return [path for path in sources if not numbers or path.name.startswith(tuple(numbers))]


def read_source(path: Path) -> NotebookNode:
    """Return a source's notebook without outputs.

    The id of a cell comes from its text, so that an edit elsewhere does not change it.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    repeated: Counter[str] = Counter()
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        name = f"{cell.cell_type}\0{cell.source}"
        repeated[name] += 1
        cell.id = hashlib.sha256(f"{name}\0{repeated[name]}".encode()).hexdigest()[:12]
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


def kernel_environment(fast: bool) -> dict[str, str]:
    """Return the environment of a lesson's kernel: this library, one profile, no grading."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    dropped = ("SPINE_FAST", "SPINE_GRADING", "MPLBACKEND", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    kept |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "NO_ALBUMENTATIONS_UPDATE": "1"}
    return kept | ({"SPINE_FAST": "1"} if fast else {})


def build_lesson(path: Path, fast: bool = False) -> NotebookNode:
    """Return the notebook of a source, run in its folder by a kernel of the running Python.

    Raises:
        SpineError: if a cell raises or writes to stderr, or the notebook is too large.
    """
    notebook = read_source(path)
    client = NotebookClient(
        notebook, timeout=CELL_LIMIT_S, startup_timeout=300, kernel_name="python3",
        store_widget_state=False, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": path.parent}},
    )  # fmt: skip
    # A kernel of that name that was installed for another Python must not be taken.
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    try:
        client.execute(env=kernel_environment(fast))
    except CellExecutionError as error:
        raise SpineError(f"{path.name}: {COLOURS.sub('', str(error))}") from error
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None]):
        _clean(cell, path.name)
        _describe(cell, after)
    size_kb = len(nbformat.writes(notebook)) / 1024
    if size_kb > LIMIT_KB:
        raise SpineError(
            f"{path.name}: its notebook takes {size_kb:.0f} KB, {LIMIT_KB} are allowed: make some "
            "images smaller."
        )
    notebook.metadata.spine = nbformat.from_dict({"profile": "fast" if fast else "full"})
    return notebook


def _clean(cell: NotebookNode, name: str) -> None:
    """Remove what changes from run to run; raise for stderr (a warning, a progress bar)."""
    cell.metadata.pop("execution", None)
    for output in cell.get("outputs", []):
        if output.get("name") == "stderr":
            text = " ".join(COLOURS.sub("", output.text).split())
            raise SpineError(f"{name}: the cell {cell.source!r} writes to stderr: {text[:300]}")
        data = output.get("data", {})
        data.pop("application/vnd.jupyter.widget-view+json", None)
        for holder, key in ((output, "text"), (data, "text/plain")):
            if key in holder:
                holder[key] = ADDRESS.sub("0x...", holder[key])
    if "outputs" in cell:
        cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def _describe(cell: NotebookNode, after: NotebookNode | None) -> None:
    """Give the pictures of a cell the `<!-- alt: ... -->` of the text that follows it."""
    comment = ALT.search(after.source) if after and after.cell_type == "markdown" else None
    for output in cell.get("outputs", []) if comment else []:
        if "image/png" in output.get("data", {}):
            output.metadata.setdefault("image/png", {})["alt"] = " ".join(comment[1].split())


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a valid notebook, all of it or nothing."""
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as stream:
        stream.write(f"{nbformat.writes(notebook)}\n".encode())


# What JupyterLab shows to a student: no question about news, no menus for instructors.
LAB_CONFIG = {
    "default_setting_overrides": {
        "@jupyterlab/apputils-extension:notification": {
            "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
        }
    },
    "page_config": {"disabledExtensions": {"@jupyter/nbgrader": True, "jupyterlab-jupytext": True}},
}  # fmt: skip


def write_working_copies(project: Path, folder: Path) -> None:
    """Write a copy without outputs of every lesson into a folder, and settings of JupyterLab.

    A lesson that is there already is a student's work and stays as it is.
    """
    for source in lesson_sources(project / "notebooks"):
        path = folder / f"{source.stem}.ipynb"
        if not path.exists():
            notebook = read_source(source)
            # As the kernel will write it: JupyterLab would show "unsaved" for less.
            notebook.metadata.language_info |= {
                "codemirror_mode": {"name": "ipython", "version": 3},
                "nbconvert_exporter": "python",
                "pygments_lexer": "ipython3",
                "version": platform.python_version(),
            }
            write_notebook(notebook, path)
    figures = project / "notebooks" / "figures"
    if figures.is_dir():
        shutil.copytree(figures, folder / "figures", dirs_exist_ok=True)
    for name, settings in LAB_CONFIG.items():
        write_json(folder / ".jupyter" / "labconfig" / f"{name}.json", settings)


STUDENTS_FILES = (
    "CITATION.cff LICENSE Makefile README.md constraints.txt environment.yml pyproject.toml "
    "data/README.md data/sample-requirements.txt docs notebooks spine_lib"
).split()
NOT_FOR_STUDENTS = shutil.ignore_patterns(
    "hidden.py", "instructors.md", "__pycache__", ".ipynb_checkpoints", "_build", "*.tmp"
)
CHECK_CELL = """\
from spine_lib.course import check

{check}
### BEGIN HIDDEN TESTS
import sys

loaded = {{n: sys.modules.pop(n) for n in [*sys.modules] if n.split(".")[0] == "spine_lib"}}
try:
    from spine_lib.course.grading import grade  # afresh, whatever the notebook did to the library

    grade("{key}", {name}, loaded)
finally:
    sys.modules.update(loaded)
### END HIDDEN TESTS"""


def write_handout(project: Path, folder: Path, numbers: Sequence[str] = ()) -> None:
    """Write `students`, `solutions` and `nbgrader` (of the lessons named, or all) into a folder.

    Raises:
        SpineError: if one of the three exists, or the project holds no solutions.
    """
    sources = lesson_sources(project / "notebooks", numbers)
    if reference_of("0.1") is None:
        raise SpineError(
            "This copy of the project was made for students and holds no solutions: make hand-outs "
            "from the whole project."
        )
    for name in ("students", "solutions", "nbgrader"):
        if (folder / name).exists():
            raise SpineError(f"{folder / name} exists and may hold work: name another folder.")
    for name in STUDENTS_FILES:
        target = folder / "students" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (project / name).is_dir():
            shutil.copytree(project / name, target, ignore=NOT_FOR_STUDENTS)
        else:
            shutil.copyfile(project / name, target)
    for path in (folder / "students" / "notebooks").glob("*.ipynb"):
        if not path.with_suffix(".py").exists():  # not a lesson
            path.unlink()
    kept_back = Path("spine_lib", "course", "exercises", "hidden.py")
    (folder / "solutions" / kept_back).parent.mkdir(parents=True)
    shutil.copyfile(project / kept_back, folder / "solutions" / kept_back)
    figures = project / "notebooks" / "figures"
    shutil.copytree(figures, folder / "solutions" / "notebooks" / "solved" / "figures")
    for path in sources:
        graded = graded_notebook(path)
        name = f"{path.stem}.ipynb"
        write_notebook(graded, folder / "nbgrader" / "source" / path.stem / name)
        shutil.copytree(figures, folder / "nbgrader" / "source" / path.stem / "figures")
        solved = read_source(path)
        for cell, answer in zip(solved.cells, graded.cells):
            if answer.metadata.get("nbgrader", {}).get("solution"):
                cell.source = re.sub(r"\n *### (BEGIN|END) SOLUTION", "", answer.source)
        write_notebook(solved, folder / "solutions" / "notebooks" / "solved" / name)
    config = Path(__file__).with_name("nbgrader_config.txt")
    shutil.copyfile(config, folder / "nbgrader" / "nbgrader_config.py")


def graded_notebook(path: Path) -> NotebookNode:
    """Return a lesson with nbgrader's metadata, the solutions and the hidden tests in it.

    Raises:
        SpineError: if the stub of an exercise, or the check after it, is missing.
    """
    notebook = read_source(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    lesson = int(path.stem[:2])
    for exercise in lesson_exercises(lesson) if lesson in lesson_numbers() else ():
        key, number = exercise.key, exercise.key.replace(".", "_")
        stubs = [
            n for n, cell in enumerate(code) if cell.source.strip() == exercise.texts.stub.strip()
        ]
        check = code[stubs[0] + 1] if len(stubs) == 1 else None
        if check is None or f'check("{key}", ' not in check.source:
            raise SpineError(
                f"{path.name} does not have the stub of exercise {key} in one cell and its check "
                "in the next: put both there."
            )
        name = _function_in(exercise.texts.stub).name
        code[stubs[0]].source = marked_solution(exercise)
        check.source = CHECK_CELL.format(check=check.source.strip(), key=key, name=name)
        for cell, kind in ((code[stubs[0]], "exercise"), (check, "check")):
            graded = kind == "check"
            flags = {"grade": graded, "locked": graded, "solution": not graded, "task": False}
            flags |= {"points": 1} if graded else {}
            cell.metadata.nbgrader = nbformat.from_dict(
                {"grade_id": f"{kind}_{number}", "schema_version": 3, "cell_type": "code", **flags}
            )
    return notebook


def marked_solution(exercise: Exercise) -> str:
    """Return the stub with the reference, and all that it needs, between nbgrader's marks."""
    reference = reference_of(exercise.key)
    module = sys.modules[reference.__module__]
    lines = exercise.texts.stub.strip("\n").splitlines()
    last = _function_in(exercise.texts.stub.strip("\n")).body[-1]
    text = source_of(reference)
    function = _function_in(text)
    documented = ast.get_docstring(function) is not None
    first = function.body[0].end_lineno if documented else function.body[0].lineno - 1
    body = "\n".join(text.splitlines()[first:])
    above = textwrap.indent("\n".join(_needs(reference, module)), "    ")
    solution = ["    ### BEGIN SOLUTION", *filter(None, [above]), body, "    ### END SOLUTION"]
    return "\n".join([*lines[: last.lineno - 1], *solution, *lines[last.end_lineno :]])


def _needs(function: Callable, module: ModuleType) -> dict[str, None]:
    """Return, in order, the imports and definitions of a module that a function uses."""
    needs: dict[str, None] = {}
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        for name in code.co_names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                needs[f"import {value.__name__} as {name}"] = None
            elif getattr(value, "__module__", None) == module.__name__:
                needs |= _needs(value, module) | {inspect.getsource(value): None}
            elif hasattr(value, "__module__"):
                needs[f"from {value.__module__} import {name}"] = None
            elif name in vars(module):
                needs[f"{name} = {value!r}"] = None
    return needs


def _function_in(text: str) -> ast.FunctionDef:
    return [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)][-1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Build notebooks, working copies or hand-outs; the options are those of `--help`."""
    parser = argparse.ArgumentParser(prog="python -m spine_lib.course.authoring")
    jobs = parser.add_subparsers(dest="job", required=True)
    notebooks = jobs.add_parser("notebooks", help="run lessons and write their notebooks")
    notebooks.add_argument("--fast", action="store_true", help="small, to try; writes nothing")
    handout = jobs.add_parser("handout", help="write students' copy, solutions, nbgrader course")
    handout.add_argument("folder", type=Path)
    jobs.add_parser("work", help="write copies of the lessons to work in, into work/")
    for job in (notebooks, handout):
        job.add_argument("numbers", nargs="*", help="first characters of lessons, such as 03")
    options = parser.parse_args(arguments)
    project = Path(__file__).resolve().parents[2]
    try:
        if options.job == "work":
            return write_working_copies(project, project / "work")
        if options.job == "handout":
            return write_handout(project, options.folder, options.numbers)
        for path in lesson_sources(project / "notebooks", options.numbers):
            notebook = build_lesson(path, options.fast)
            if not options.fast:
                write_notebook(notebook, path.with_suffix(".ipynb"))
            print(f"{path.stem}: done", flush=True)
    except SpineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
