"""Make the pages with sliders that stand in the lessons' pages.

A viewer is made by the very cell of the lesson that shows it, so its page begins with what the
lesson's picture shows. What the cell takes from cells before it is made there too, but only that:
no lesson is run again for the sake of its viewers.
"""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from spine_lib.book.films import axes_of, save_film
from spine_lib.explore.base import Viewer

SLICES = 64
"""Of each plane in a page: enough to move through, few enough for a page of some megabytes."""


class Lesson(dict):
    """The names of a lesson; each is made when it is asked for, by the statement that binds it.

    Args:
        notebook: the lesson.
        index: cell to stop before.
    """

    def __init__(self, notebook: NotebookNode, index: int) -> None:
        super().__init__(__name__="lesson")
        codes = [c.source for c in notebook.cells[:index] if c.cell_type == "code"]
        self._statements = [one for code in codes for one in ast.parse(code).body]
        self._end = len(self._statements)
        self._made: dict[tuple[str, int], object] = {}

    def __missing__(self, name: str) -> object:
        """Run the last statement that binds a name, and those after it that fill what it binds.

        A name of Python's own is left to Python.
        """
        numbers = range(self._end)
        binding = [n for n in numbers if name in bound_names(self._statements[n])]
        if not binding:
            raise KeyError(name)
        last = binding[-1]
        if (name, last) not in self._made:
            filled = (n for n in numbers[last + 1 :] if name in filled_names(self._statements[n]))
            held = dict(self)
            for number in (last, *filled):
                end, self._end = self._end, number  # what a statement needs was bound before it
                try:
                    self.run([self._statements[number]])
                finally:
                    self._end = end
            self._made[name, last] = self[name]
            # What else was bound on the way, loop variables for one, may be bound anew later.
            self.clear()
            self.update(held)
        self[name] = self._made[name, last]
        return self[name]

    def run(self, statements: list[ast.stmt]) -> None:
        """Run statements on these names."""
        with contextlib.redirect_stdout(io.StringIO()):  # the lesson has shown it already
            exec(compile(ast.Module(statements, []), "<lesson>", "exec"), self)


def bound_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement gives a value to."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def filled_names(statement: ast.stmt) -> Iterator[str]:
    """Yield the names whose items a statement gives a value to: `table[key] = value`."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name):
                yield node.value.id


def viewer_of(notebook: NotebookNode, index: int) -> Viewer:
    """Make the viewer that a cell of a lesson shows.

    Args:
        notebook: the lesson.
        index: of the cell.

    Raises:
        LookupError: if the cell makes no viewer.
        Exception: what the cell or a statement that it needs raises.
    """
    names = Lesson(notebook, index)
    before = set(names)
    names.run([_kept(one) for one in ast.parse(notebook.cells[index].source).body])
    made = [value for name, value in names.items() if name not in before]
    viewer = next((one for one in reversed(made) if isinstance(one, Viewer)), None)
    if viewer is None:
        raise LookupError("the cell makes no viewer")
    return viewer


def _kept(statement: ast.stmt) -> ast.stmt:
    """Turn what a cell ends with into an assignment, so that its value can be found."""
    if not isinstance(statement, ast.Expr):
        return statement
    name = ast.Name("_shown", ast.Store())
    return ast.fix_missing_locations(
        ast.copy_location(ast.Assign([name], statement.value), statement)
    )


def can_move(viewer: Viewer) -> bool:
    """Tell whether a page of a viewer would have anything to move."""
    return hasattr(viewer, "save_html") or bool(axes_of(viewer))


def save_viewer(viewer: Viewer, path: Path) -> Path:
    """Write the page of a viewer: all slices where it can, else a film of its main controls.

    Args:
        viewer: it may be moved.
        path: `.html` file to write.
    """
    if hasattr(viewer, "save_html"):
        return viewer.save_html(path, max_slices=SLICES)
    return save_film(viewer, path)
