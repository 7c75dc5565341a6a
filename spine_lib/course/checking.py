"""Run a student's function safely: copies of the inputs, a time limit, a crash told with its line.

What goes wrong inside the function becomes a `Wrong` in the student's terms, and what the function
prints is kept out of the way.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import inspect
import io
import linecache
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any

from spine_lib.course.comparing import describe, is_same
from spine_lib.course.exercise import Exercise, NotYet, Wrong
from spine_lib.course.timelimit import TimeUp, call_within

TIME_LIMIT_S = 5.0
EXPLAINED = {
    NameError: "is an import missing, or a name spelt differently?",
    IndexError: "an index lies outside the array: print the shape and the index.",
    KeyError: "the dictionary has no such key: print its keys.",
    AttributeError: "the value is of another kind than expected: print its type.",
    RecursionError: "the function calls itself without an end.",
}


def judge_answer(exercise: Exercise, function: Callable, inputs: list[tuple]) -> Guarded:
    """Judge a student's function on every input.

    Args:
        exercise: which one.
        function: the student's.
        inputs: argument tuples.

    Returns:
        The function as it was run, which knows what was printed.

    Raises:
        NotYet: if the function is still the stub.
        Wrong: what is wrong, in the student's terms.
    """
    if not callable(function):
        raise Wrong(
            f"you gave {describe(function)}, not a function: pass its name without brackets, "
            f'as in check("{exercise.key}", my_function)'
        )
    if is_stub(function, exercise.stub):
        raise NotYet("the function is not filled in")
    guarded = Guarded(function, exercise)
    for arguments in inputs:
        try:
            exercise.judge(guarded, arguments)
        except Wrong as wrong:
            wrong.asked = guarded.asked
            raise
        except Exception as error:  # the judge could not work with what it was given
            raise Wrong(
                f"your function returned {describe(guarded.returned)}, with which nothing can be "
                f"done ({type(error).__name__}: {error}): see what it should return in its "
                "docstring"
            ) from error
    return guarded


class Guarded:
    """Call a student's function as a judge may rely on; `returned` is its last answer."""

    def __init__(self, function: Callable, exercise: Exercise) -> None:
        self.function = function
        self.exercise = exercise
        self.returned: Any = None
        self.asked: tuple = ()
        self.printed = io.StringIO()
        self.__name__ = getattr(function, "__name__", "your function")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Return what the student's function returns, or raise `Wrong`."""
        self.asked = arguments
        given, kept = self._copies(arguments, named)
        with contextlib.redirect_stdout(self.printed), contextlib.redirect_stderr(io.StringIO()):
            self.returned = self._run(*given)
        if self.returned is None and not self.exercise.may_return_none:
            raise Wrong("your function returns nothing (None): does it end with `return`?")
        if kept is not None and not is_same(given, kept):
            raise Wrong(self._changed(given, kept))
        return self.returned

    def _run(self, arguments: tuple, named: dict) -> Any:
        try:
            return call_within(TIME_LIMIT_S, self.function, arguments, named)
        except NotImplementedError:
            raise NotYet("the function is not filled in") from None
        except TimeUp as over:
            place = place_of(self.function, over.places)
            raise Wrong(
                f"your function was stopped after {TIME_LIMIT_S:g} seconds{place}: is there a "
                "loop that never ends, or one over every voxel that NumPy could do at once?"
            ) from None
        except Wrong:
            raise
        except (Exception, SystemExit) as error:
            raise Wrong(_crash(self.function, error)) from error

    def _copies(self, arguments: tuple, named: dict) -> tuple[tuple, tuple | None]:
        if self.exercise.changes_inputs:
            return (arguments, named), None
        try:  # at once: what the inputs share (a model and its optimiser) stays shared
            return copy.deepcopy((arguments, named)), (arguments, named)
        except Exception:  # an open file, a tensor inside a graph
            return (arguments, named), None

    def _changed(self, given: tuple, kept: tuple) -> str:
        names = _parameter_names(self.function, len(given[0]))
        pairs = zip(names, given[0], kept[0])
        changed = [f"`{name}`" for name, new, old in pairs if not is_same(new, old)]
        changed += [f"`{name}`" for name in kept[1] if not is_same(given[1][name], kept[1][name])]
        return (
            f"your function changes its input {' and '.join(changed)}, which its caller still "
            "needs: work on a copy or make a new array"
        )


def describe_call(function: Callable, arguments: tuple) -> str:
    """Say what a function was called with: "`image` an int16 array of shape (4, 4)"."""
    names = _parameter_names(function, len(arguments))
    return ", ".join(f"`{name}` {describe(value)}" for name, value in zip(names, arguments))


def _parameter_names(function: Callable, count: int) -> list[str]:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {index + 1}" for index in range(len(names), count)])[:count]


# --- stubs ----------------------------------------------------------------------------------------


def is_stub(function: Callable, stub: str) -> bool:
    """Tell whether a function is the untouched stub or has an empty body (`...`, `pass`)."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    return _is_empty(code) or any(_same_code(code, one) for one in _functions_in(stub))


def _functions_in(stub: str) -> list[CodeType]:
    return [part for part in compile(stub, "stub", "exec").co_consts if isinstance(part, CodeType)]


def _same_code(a: CodeType, b: CodeType) -> bool:
    return (a.co_name, a.co_code, a.co_names) == (b.co_name, b.co_code, b.co_names) and [
        constant for constant in a.co_consts if not isinstance(constant, CodeType)
    ] == [constant for constant in b.co_consts if not isinstance(constant, CodeType)]


def _is_empty(code: CodeType) -> bool:
    idle = {"RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST"}
    steps = list(dis.get_instructions(code))
    constants = [step.argval for step in steps if "CONST" in step.opname]
    return constants == [None] and {step.opname for step in steps} <= idle


# --- where it went wrong --------------------------------------------------------------------------


def _crash(function: Callable, error: BaseException) -> str:
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    place = place_of(function, _traceback_places(error.__traceback__))
    more = next((f"; {words}" for kind, words in EXPLAINED.items() if isinstance(error, kind)), "")
    return f"your function stopped with an error{place}: {what.rstrip('.')}{more}".rstrip(".")


def _traceback_places(traceback: TracebackType | None) -> list[tuple[CodeType, int]]:
    places = []
    while traceback is not None:
        places.append((traceback.tb_frame.f_code, traceback.tb_lineno))
        traceback = traceback.tb_next
    return places


def place_of(function: Callable, places: list[tuple[CodeType, int]]) -> str:
    """Return " in line 3 (`x = 1 / 0`)": the innermost line that the student wrote.

    Args:
        function: the student's. Helpers count where they are in the same folder, for each cell of
            a notebook is a file in a folder of its kernel's.
        places: code and line of every call, the innermost one last.
    """
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    folder = Path(code.co_filename).parent
    for where, line in reversed(places):
        if where is code or Path(where.co_filename).parent == folder:
            text = linecache.getline(where.co_filename, line).strip()
            helper = "" if where is code else f" of `{where.co_name}`"
            return f" in line {line}{helper}" + (f" (`{text}`)" if text else "")
    return ""
