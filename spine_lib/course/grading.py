"""Grade one answer: what a graded notebook calls where the student does not see it.

`check` prints; nbgrader takes a cell for right unless it raises or writes to stderr. So `check` is
made to raise here, the hidden inputs must be there, and what is raised reads like a sentence.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import spine_lib
from spine_lib import SpineError
from spine_lib.course import checking
from spine_lib.course.exercise import Wrong, find_exercise, hidden_inputs


class NoPoint(Wrong):
    """An answer that gets no point, and why."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows in place of a traceback through the library's code."""
        return [str(self)]


def grade(key: str, function: Callable, loaded: Mapping[str, ModuleType] | None = None) -> None:
    """Check an answer on the open and the hidden inputs; raise where it is not right.

    Args:
        key: the exercise, for example "1.2".
        function: the student's.
        loaded: the library's modules as the notebook has used them, by name, where this one was
            loaded afresh: no function of theirs may have been replaced.

    Raises:
        NoPoint: what is wrong, in the student's terms.
        SpineError: if there is no such exercise, or this copy has no hidden inputs.
    """
    require_hidden_inputs(key)
    try:
        with _grading(), contextlib.redirect_stdout(io.StringIO()):
            checking.check(key, function)
        _require_unchanged(loaded or {})
    except Wrong as wrong:
        text = str(wrong).strip()
        title = find_exercise(key).title
        raise NoPoint(f"Exercise {key} ({title}), no point: {text}") from None


def _require_unchanged(loaded: Mapping[str, ModuleType]) -> None:
    for name in loaded.keys() & sys.modules.keys():
        for function, value in vars(sys.modules[name]).items():
            code = getattr(value, "__code__", None)
            if code and code != getattr(getattr(loaded[name], function, None), "__code__", None):
                raise Wrong(f"the notebook has replaced {name}.{function}, a part of the library")


def require_hidden_inputs(key: str) -> None:
    """Raise an error if this copy of the library was made for students.

    Raises:
        SpineError: if there is no such exercise, or no hidden inputs for it.
    """
    find_exercise(key)
    if not hidden_inputs(key):
        home = Path(spine_lib.__file__).parent
        raise SpineError(
            f"Exercise {key} cannot be graded: this copy of spine_lib, in {home}, was made for "
            "students and lacks the hidden inputs; grade with the whole project, for instance by "
            "naming its folder in PYTHONPATH."
        )


def before_grading(assignment: str = "", **others: Any) -> None:
    """End nbgrader where it would grade with a students' copy; it calls this before each one.

    Args:
        assignment: name of a lesson, which starts with its number.
        others: what else nbgrader says; not needed.

    Raises:
        SystemExit: if there are no hidden inputs for the lesson. nbgrader passes over every
            `Exception` from here, and would then give points for answers that nobody tested.
    """
    try:
        require_hidden_inputs(f"{int(assignment[:2])}.1")
    except SpineError as error:
        raise SystemExit(str(error)) from error


@contextlib.contextmanager
def _grading() -> Iterator[None]:
    """Set what makes `check` raise; keep stderr clean, which nbgrader takes for a failure."""
    before = os.environ.get("SPINE_GRADING")
    os.environ["SPINE_GRADING"] = "1"
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["SPINE_GRADING"]
        else:
            os.environ["SPINE_GRADING"] = before
