"""The project as students get it: copied without what must not be handed out, then searched."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from pathlib import Path

import nbformat

from spine_lib import SpineError
from spine_lib.course.exercise import lesson_numbers, lesson_solutions
from spine_lib.course.handout_answers import reference_body

# What there is at the top of the project and belongs to it; what else lies there (runs, grades, an
# environment) is nobody's to hand out.
PARTS = (
    ".ci",
    ".github",
    ".gitignore",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "constraints.txt",
    "data/README.md",
    "data/sample-requirements.txt",
    "docs",
    "environment.yml",
    "notebooks",
    "pyproject.toml",
    "spine_lib",
    "tests",
)
KEPT_BACK = ("INSTRUCTORS.md", "spine_lib/course/solutions", "tests/course")
# Tests that need what is kept back.
TELLING = re.compile(r"\bsolutions\b|\bmistakes_|\bHIDDEN\b|INSTRUCTORS\.md")
JUNK = shutil.ignore_patterns(
    "__pycache__", ".ipynb_checkpoints", "*.py[co]", "*.tmp", "*.part", "_build", ".DS_Store"
)


def copy_for_students(project: Path, folder: Path) -> None:
    """Copy the project without solutions, hidden inputs, typical mistakes and instructors' pages.

    Args:
        project: folder of the whole project.
        folder: to write; must not exist.

    Raises:
        SpineError: if something that tells an answer is still in the copy.
    """
    folder.mkdir(parents=True)
    for part in PARTS:
        source, target = project / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=_ignore_in(project))
        elif source.is_file():
            shutil.copyfile(source, target)
    readme = folder / "README.md"
    text = without_instructors(readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")
    if told := find_leaks(folder):
        raise SpineError(f"The copy for students would tell answers: {' '.join(told)}")


def _ignore_in(project: Path):
    def ignore(folder: str, names: list[str]) -> set[str]:
        here = Path(folder).relative_to(project)
        return set(JUNK(folder, names)) | {
            name for name in names if _is_kept_back(project, here / name)
        }

    return ignore


def _is_kept_back(project: Path, path: Path) -> bool:
    if path.as_posix() in KEPT_BACK:
        return True
    if path.parts[0] == "notebooks" and path.suffix == ".ipynb":
        return not (project / path).with_suffix(".py").is_file()  # somebody's own
    if path.parts[0] == "tests" and path.suffix == ".py":
        return bool(TELLING.search((project / path).read_text(encoding="utf-8")))
    return False


def without_instructors(text: str) -> str:
    """Take out of a page what points to `INSTRUCTORS.md`: a table's row, else its paragraph."""
    blocks = []
    for block in re.split(r"\n{2,}", text):
        if "INSTRUCTORS.md" in block:
            lines = block.splitlines()
            rows = [line for line in lines if "INSTRUCTORS.md" not in line]
            block = "\n".join(rows) if lines[0].startswith("|") else ""
        if block:
            blocks.append(block)
    return "\n\n".join(blocks)


# --- does it tell an answer? ----------------------------------------------------------------------


def find_leaks(folder: Path) -> list[str]:
    """List what in a folder tells an answer: files kept back, text of references, hidden inputs.

    Args:
        folder: a copy for students.

    Returns:
        Sentences; none where nothing was found.
    """
    found = [f"{name} is in it." for name in KEPT_BACK if (folder / name).exists()]
    secrets = secret_texts()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (text := _readable(path)):
            squeezed = _squeezed(text)
            found += [
                f"{path.relative_to(folder).as_posix()} holds {what}."
                for what, secret in secrets.items()
                if secret in squeezed
            ]
    return found


def secret_texts() -> dict[str, str]:
    """Return what must not be handed out, squeezed: what it is -> its text.

    A body is left out where a room of the library has it: the lessons point there.
    """
    secrets = {}
    library = _library_text()
    for lesson in lesson_numbers():
        if (module := lesson_solutions(f"{lesson}.1")) is None:
            raise SpineError("The solutions are not part of this copy, so nothing can be compared.")
        for key in module.REFERENCES:
            body = _squeezed(reference_body(key, module))
            if body not in library:
                secrets[f"the solution of {key}"] = body
        for key, text in _hidden_sources(inspect.getsource(module)).items():
            secrets[f"the hidden inputs of {key}"] = _squeezed(text)
    return secrets


def _hidden_sources(text: str) -> dict[str, str]:
    """Return the source of each entry of HIDDEN, or of the function that it names."""
    tree = ast.parse(text)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(one, ast.Name) and one.id == "HIDDEN" for one in targets):
            entries = zip(node.value.keys, node.value.values)
            return {
                key.value: ast.get_source_segment(text, functions.get(ast.unparse(value), value))
                for key, value in entries
            }
    return {}


def _library_text() -> str:
    package = Path(__file__).resolve().parents[1]
    paths = [path for path in package.rglob("*.py") if "course" not in path.parts]
    return "\n".join(_squeezed(path.read_text(encoding="utf-8")) for path in paths)


def _readable(path: Path) -> str:
    """Return a file's text, a notebook's cells with what they show, "" for a binary file."""
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        parts = [cell.source for cell in notebook.cells]
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        parts += [output.get("text", "") for output in outputs]
        parts += [output.get("data", {}).get("text/plain", "") for output in outputs]
        return "\n".join(parts)
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def _squeezed(text: str) -> str:
    """Drop indents, comments of whole lines and blank lines, so that a moved text is found."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))
