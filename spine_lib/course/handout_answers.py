"""Fill the exercise cells of a lesson with the reference solutions.

A reference lives in a module of its own and uses that module's imports; a cell has to stand alone.
So the imports and helpers that it needs come along.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from nbformat import NotebookNode

from spine_lib import SpineError
from spine_lib.course.exercise import Exercise, lesson_exercises, lesson_solutions
from spine_lib.course.notebook_source import LessonSource

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


@dataclass(frozen=True)
class ExerciseCells:
    """Where an exercise stands in its lesson.

    Attributes:
        exercise: which one.
        name: of the function to write.
        stub: index of the cell to fill in.
        check: index of the cell that checks it.
    """

    exercise: Exercise
    name: str
    stub: int
    check: int


def find_exercise_cells(source: LessonSource) -> list[ExerciseCells]:
    """Find the exercises of a lesson in its notebook.

    Args:
        source: the lesson; its number is that of its file's name.

    Raises:
        SpineError: if a stub or the check after it is missing.
    """
    cells = source.notebook.cells
    found = []
    for exercise in lesson_exercises(int(source.path.stem[:2])):
        name = _function_in(exercise.stub).name
        stubs = [n for n, cell in enumerate(cells) if cell.source.strip() == exercise.stub.strip()]
        check = _next_code_cell(cells, stubs[0]) if len(stubs) == 1 else None
        if check is None or f'check("{exercise.key}", {name})' not in cells[check].source:
            raise SpineError(
                f"{source.path.name} does not have the stub of exercise {exercise.key} in one cell "
                "and its check in the next: put both there."
            )
        found.append(ExerciseCells(exercise, name, stubs[0], check))
    return found


def _next_code_cell(cells: list[NotebookNode], index: int) -> int | None:
    return next((n for n in range(index + 1, len(cells)) if cells[n].cell_type == "code"), None)


def answered_cell(exercise: Exercise) -> str:
    """Return the exercise cell with the reference in it, and with what it needs above it."""
    answer = _answer(exercise.key)
    head, tail = _around_placeholder(exercise)
    parts = ["\n".join(answer.imports), *answer.helpers, f"{head}{answer.body}{tail}".strip("\n")]
    return "\n\n\n".join(part for part in parts if part)


def marked_cell(exercise: Exercise) -> str:
    """Return the stub with the reference between nbgrader's marks.

    What the reference needs stands inside the marks too, so that taking it out leaves the stub.
    """
    answer = _answer(exercise.key)
    head, tail = _around_placeholder(exercise)
    above = ["\n".join(answer.imports), *answer.helpers]
    parts = [*(textwrap.indent(part, "    ") for part in above if part), answer.body]
    lines = [f"    {BEGIN}", "\n\n".join(parts), f"    {END}"]
    return (head + "\n".join(lines) + tail).strip("\n")


def answered_notebook(source: LessonSource) -> NotebookNode:
    """Return a lesson, not run, with all exercises answered."""
    notebook = copy.deepcopy(source.notebook)
    for place in find_exercise_cells(source):
        notebook.cells[place.stub].source = answered_cell(place.exercise)
    return notebook


# --- the reference --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    imports: tuple[str, ...]
    helpers: tuple[str, ...]
    body: str


@cache
def _answer(key: str) -> _Answer:
    module = lesson_solutions(key)
    if module is None:
        raise SpineError(
            f"The solution of {key} is not part of this copy: releases are made from the whole "
            "project."
        )
    text = inspect.getsource(module)
    defined = _definitions(ast.parse(text))
    name = module.REFERENCES[key].__name__
    needed = [defined[one] for one in _needs(name, defined) if one != name]
    imports = tuple(_merged(node for node in needed if _is_import(node)))
    others = dict.fromkeys(node for node in needed if not _is_import(node))
    helpers = tuple(_lines(text, node) for node in others)
    return _Answer(imports, helpers, _body(text, defined[name]))


def reference_body(key: str, module: ModuleType) -> str:
    """Return the source of a reference without its first line and docstring."""
    text = inspect.getsource(module)
    return _body(text, _definitions(ast.parse(text))[module.REFERENCES[key].__name__])


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return what a module defines at its top, each import as a statement of one name."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if _is_import(node):
            for alias in node.names:
                found[alias.asname or alias.name.split(".")[0]] = _one_import(node, alias)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, ast.Name):
                        found[part.id] = node
    return found


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _one_import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import([alias])
    return ast.ImportFrom(node.module, [alias], node.level)


def _merged(imports: Iterable[ast.Import | ast.ImportFrom]) -> list[str]:
    """Write imports as statements, names from one module in one of them."""
    names: dict[str, list[str]] = {}
    for node in imports:
        words = f"from {node.module} import" if isinstance(node, ast.ImportFrom) else "import"
        names.setdefault(words, []).append(ast.unparse(node).removeprefix(f"{words} "))
    plain = [f"import {name}" for name in names.pop("import", [])]
    return plain + [f"{words} {', '.join(found)}" for words, found in names.items()]


def _needs(name: str, defined: dict[str, ast.stmt]) -> list[str]:
    """List what a definition uses, directly or not, in the order of the module."""
    wanted, todo = set(), [name]
    while todo:
        one = todo.pop()
        if one in defined and one not in wanted:
            wanted.add(one)
            todo += [part.id for part in ast.walk(defined[one]) if isinstance(part, ast.Name)]
    return [one for one in defined if one in wanted]


def _lines(text: str, node: ast.stmt) -> str:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


def _body(text: str, node: ast.stmt) -> str:
    start = node.body[0].lineno
    if ast.get_docstring(node, clean=False) is not None:
        start = node.body[0].end_lineno + 1
    return "\n".join(text.splitlines()[start - 1 : node.end_lineno])


# --- the stub -------------------------------------------------------------------------------------


def _function_in(stub: str) -> ast.FunctionDef:
    return [node for node in ast.parse(stub).body if isinstance(node, ast.FunctionDef)][-1]


def _around_placeholder(exercise: Exercise) -> tuple[str, str]:
    """Return a stub's text before and after the statement that is to be replaced."""
    last = _function_in(exercise.stub).body[-1]
    lines = exercise.stub.splitlines()
    placeholder = "\n".join(lines[last.lineno - 1 : last.end_lineno]).strip()
    if placeholder not in ("raise NotImplementedError", "raise NotImplementedError()", "..."):
        raise SpineError(
            f"The stub of exercise {exercise.key} ends with `{placeholder}`: let it end with "
            "`raise NotImplementedError`."
        )
    head, tail = lines[: last.lineno - 1], lines[last.end_lineno :]
    return "".join(f"{line}\n" for line in head), "".join(f"\n{line}" for line in tail)
