"""Check a student's function: run it safely, judge it, print what is wrong in the student's terms.

The function gets copies of the inputs and a time limit; what it prints is kept out of the way, and
an error is printed with its line. What was answered is kept beside the notebook.
"""

from __future__ import annotations

import contextlib
import copy
import html
import inspect
import io
import linecache
import os
import pickle
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

from spine_lib import SpineError
from spine_lib.course.exercise import (
    Exercise,
    NotYet,
    Wrong,
    describe,
    find_exercise,
    hidden_inputs,
    lesson_exercises,
    lesson_numbers,
    listed,
    parameter_names,
    reference_of,
)
from spine_lib.course.judging import Crashed, judge
from spine_lib.course.mistakes import source_of
from spine_lib.ct.files import read_json, write_json

TIME_LIMIT_S = 5.0
"""Seconds of processor time that one call may take."""

EXPLANATIONS = {
    NameError: "is an import missing, or a name spelt differently?",
    IndexError: "an index lies outside the array: print the shape and the index.",
    KeyError: "the dictionary has no such key: print its keys.",
    AttributeError: "the value is of another kind than expected: print its type.",
    RecursionError: "the function calls itself without an end.",
}


@dataclass
class _Record:
    """What happened with one exercise."""

    tries: int = 0
    right: bool = False
    hints: int = 0
    solution: bool = False


_RECORDS: dict[str, _Record] = {}
KEPT = Path(".progress.json")
"""Beside the notebook: what was answered before its kernel was started."""


def _record(key: str) -> _Record:
    _recall()
    return _RECORDS.setdefault(key, _Record())


def _recall() -> None:
    if not _RECORDS and KEPT.is_file():
        with contextlib.suppress(SpineError, TypeError, AttributeError):
            _RECORDS.update({key: _Record(**kept) for key, kept in read_json(KEPT).items()})


def _keep() -> None:
    """Write what was answered, where a reader's notebook runs and not a build or a test."""
    if os.environ.get("JPY_SESSION_NAME"):
        with contextlib.suppress(OSError, SpineError):
            write_json(KEPT, {key: asdict(record) for key, record in _RECORDS.items()})


# --- what a lesson calls --------------------------------------------------------------------------


def check(key: str, function: Callable) -> None:
    """Check an answer on inputs that the notebook does not show; print what is wrong, or "right".

    Args:
        key: the exercise, for example "1.2".
        function: your function, without brackets.

    Raises:
        Wrong: instead of printing, with `SPINE_GRADING=1` in the environment.
        SpineError: if there is no such exercise.
    """
    exercise = find_exercise(key)
    record = _record(key)
    inputs = [*exercise.examples(), *hidden_inputs(key)]
    name = f"Exercise {key} ({exercise.texts.title})"
    try:
        guarded = judge_answer(exercise, function, inputs)
    except Wrong as mistake:
        if not isinstance(mistake, NotYet):
            record.tries, record.right = record.tries + 1, False
        # nbgrader's "Validate" finds an answer right unless its check raises
        validating = os.environ.get("NBGRADER_EXECUTION") == "validate"
        if validating or os.environ.get("SPINE_GRADING") == "1":
            raise
        state = "not yet" if isinstance(mistake, NotYet) else "wrong"
        _show(Verdict(state, _message(exercise, function, mistake, name)))
        return
    record.tries, record.right = record.tries + 1, True
    text = f"{name}: right, on {len(inputs)} inputs that this notebook does not show."
    if guarded.printed.getvalue():
        text += "\n(What your function prints is left out here.)"
    _show(Verdict("right", text))


@dataclass(frozen=True)
class Verdict:
    """What `check` answers: a card with a colour and a sign, or plain text without HTML."""

    state: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        sign, colour = SIGNS[self.state]
        first, *others = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(self.text)).split(
            "\n"
        )
        lines = [f'<b style="color:{colour}">{sign}</b> <b>{first}</b>', *others]
        style = f"border-left:6px solid {colour};padding:4px 12px;margin:4px 0;max-width:48em"
        return f'<div style="{style}">{"<br>".join(lines)}</div>'


# Colours that people with any colour vision tell apart, on light and on dark.
SIGNS = {"right": ("✓", "#009e73"), "wrong": ("✗", "#d55e00"), "not yet": ("…", "#888888")}


def _show(verdict: Verdict) -> None:
    _keep()
    ipython = sys.modules.get("IPython")
    if ipython and ipython.get_ipython():
        ipython.display.display(verdict)
    else:
        print(verdict)


def _message(exercise: Exercise, function: Callable, mistake: Wrong, name: str) -> str:
    hint_call = f'hint("{exercise.key}")'
    if isinstance(mistake, NotYet):
        return f"{name}: not yet. Fill in the function and run both cells; {hint_call} helps."
    text = str(mistake).strip()
    if text[-1:] not in ".?!":
        text += "."
    if text.split()[0].isalpha() and text.split()[0] not in "xyz":  # no name of the code
        text = text[:1].upper() + text[1:]
    lines = [f"{name}: not right yet.", text]
    if mistake.asked:
        names = parameter_names(function, len(mistake.asked))
        values = [f"`{name}` {_shown(value)}" for name, value in zip(names, mistake.asked)]
        lines.append(f"This was its input: {', '.join(values)}.")
    record = _RECORDS[exercise.key]
    if record.tries >= 2 and record.hints < len(exercise.texts.hints):
        lines.append(f"Stuck? {hint_call} helps.")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    small = isinstance(value, np.ndarray) and value.size <= 12
    return describe(value) + (f": {listed(value)}" if small else "")


def hint(key: str, level: int | None = None) -> None:
    """Print a hint: first a nudge, then a clue to shape or unit, then a figure to expect.

    Args:
        key: the exercise, for example "1.2".
        level: 1, 2 or 3; one further than the last time where left out.

    Raises:
        SpineError: if there is no such exercise or level.
    """
    exercise = find_exercise(key)
    record = _record(key)
    levels = len(exercise.texts.hints)
    level = min(record.hints + 1, levels) if level is None else level
    if level not in range(1, levels + 1):
        raise SpineError(f"There is no hint {level!r} for exercise {key}: give 1 to {levels}.")
    record.hints = max(record.hints, level)
    _keep()
    print(f"Hint {level} of {levels} for {key}: {exercise.texts.hints[level - 1]}")
    if level == levels:
        print(f'That was the last one; solution("{key}") shows a solution.')


def solution(key: str) -> None:
    """Print a solution, or that the solutions were not handed out.

    Args:
        key: the exercise, for example "1.2".

    Raises:
        SpineError: if there is no such exercise.
    """
    reference = reference_of(key)
    if reference is None:
        print(f"The solution of {key} is not part of this copy: ask whoever gave it to you.")
        return
    _record(key).solution = True
    _keep()
    print(source_of(reference).rstrip())


def progress() -> None:
    """Print which exercises are done: those of the lessons worked on in this folder."""
    _recall()
    lessons = sorted({int(key.split(".")[0]) for key in _RECORDS}) or lesson_numbers()
    exercises = [exercise for lesson in lessons for exercise in lesson_exercises(lesson)]
    width = max((len(exercise.texts.title) for exercise in exercises), default=0)
    for exercise in exercises:
        state = _state(_RECORDS.get(exercise.key, _Record()))
        print(f"{exercise.key:>5}  {exercise.texts.title:{width}}  {state}")
    done = sum(_RECORDS.get(exercise.key, _Record()).right for exercise in exercises)
    print(f"{done} of {len(exercises)} done.")


def _state(record: _Record) -> str:
    states = ["done" if record.right else "not right yet" if record.tries else "not yet"]
    if record.tries > 1:
        states.append(f"{record.tries} tries")
    if record.hints:
        states.append(f"{record.hints} hint{'s' if record.hints > 1 else ''}")
    if record.solution:
        states.append("solution read")
    return ", ".join(states)


# --- running a function ---------------------------------------------------------------------------


def judge_answer(exercise: Exercise, function: Callable, inputs: list[tuple]) -> Guarded:
    """Return a student's function as it was run, with what it printed, if it is right everywhere.

    Raises:
        NotYet: if the function is still the stub.
        Wrong: what is wrong, in the student's terms.
    """
    if not callable(function):
        raise Wrong(
            f"you gave {describe(function)}, not a function: pass its name without brackets, "
            f'as in check("{exercise.key}", my_function)'
        )
    if is_stub(function, exercise.texts.stub):
        raise NotYet("the function is not filled in")
    guarded = Guarded(function, exercise)
    judge(exercise, guarded, inputs)
    return guarded


class Guarded:
    """A student's function as a judge may rely on it; `returned` is its last answer."""

    def __init__(self, function: Callable, exercise: Exercise) -> None:
        self.function = function
        self.exercise = exercise
        self.returned: Any = None
        self.asked: tuple = ()
        self.printed = io.StringIO()
        self.__name__ = getattr(function, "__name__", "your function")

    def __call__(self, *arguments: Any) -> Any:
        """Return what the student's function returns, or raise `Wrong`."""
        self.asked, given, before = arguments, arguments, {}
        if not self.exercise.changes_inputs:
            with contextlib.suppress(Exception):  # an open file, a tensor inside a graph
                # at once: what the inputs share (a model and its optimiser) stays shared
                given = copy.deepcopy(given)
                before = self._stored(given)
        with (
            contextlib.redirect_stdout(self.printed),
            contextlib.redirect_stderr(io.StringIO()),
            np.errstate(all="ignore"),
        ):
            self.returned = self._run(given)
        if self.returned is None:
            raise Wrong("your function returns nothing (None): does it end with `return`?")
        after = self._stored(given) if before else {}
        changed = [f"`{name}`" for name in before if before[name] != after[name]]
        if changed:
            raise Wrong(
                f"your function changes its input {' and '.join(changed)}, which its caller still "
                "needs: work on a copy or make a new array"
            )
        return self.returned

    def _stored(self, arguments: tuple) -> dict[str, bytes]:
        """Return the bytes of each input, by its name."""
        names = parameter_names(self.function, len(arguments))
        return {name: pickle.dumps(value) for name, value in zip(names, arguments)}

    def _run(self, arguments: tuple) -> Any:
        try:
            return call_within(TIME_LIMIT_S, self.function, *arguments)
        except NotImplementedError:
            raise NotYet("the function is not filled in") from None
        except TimeUp as stop:
            line = _written_line(self.function, stop.calls)
            raise Wrong(
                f"your function was stopped after {TIME_LIMIT_S:g} seconds{line}: is there a "
                "loop that never ends, or one over every voxel that NumPy could do at once?"
            ) from None
        except Wrong:
            raise
        except (Exception, SystemExit) as error:
            raise Crashed(_crash(self.function, error), type(error)) from error


# --- the time limit -------------------------------------------------------------------------------

ALARM_AGAIN_S = 0.2
"""The alarm repeats: a bare `except:` inside a loop swallows the first."""


class OutOfTime(BaseException):
    """Raised in the running function; no Exception, so that `except Exception` lets it pass."""


class TimeUp(Exception):
    """The function was stopped in one of these `calls`: (code, line number), the innermost last."""

    def __init__(self, calls: list[tuple[CodeType, int]]) -> None:
        super().__init__("out of time")
        self.calls = calls


def call_within(seconds: float, function: Callable, *arguments: Any) -> Any:
    """Return what a function returns, or stop it where it takes too much processor time.

    An alarm does this, which only the main thread of a Unix process has; elsewhere (Windows) a
    function runs until the reader interrupts it. A call inside compiled code ends when that
    returns. Processor time counts, so that a busy machine stops no right answer.

    Raises:
        TimeUp: if it was stopped, or swallowed that and returned too late.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):
        return function(*arguments)
    calls: list[tuple[CodeType, int]] = []
    running, result = True, None
    end = time.thread_time() + seconds  # the alarm counts all threads

    def stop(number: int, frame: FrameType | None) -> None:
        if running and time.thread_time() >= end:
            calls[:] = _calls(traceback.walk_stack(frame))[::-1]
            raise OutOfTime

    # The handler stays, as a late alarm without one would end the process.
    signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, ALARM_AGAIN_S)
        try:
            result = function(*arguments)
        finally:
            running = False
    except (OutOfTime, Exception):
        if not calls:  # the function's own error; otherwise what became of the alarm
            raise
    finally:
        running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if calls:
        raise TimeUp(calls)
    return result


# --- stubs ----------------------------------------------------------------------------------------


def is_stub(function: Callable, stub: str) -> bool:
    """Return whether a function is the untouched stub or has an empty body (`...`, `pass`)."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    is_empty = code.co_consts[-1:] == (None,) and code.co_code in EMPTY
    return is_empty or _parts(code) in map(_parts, _codes(stub))


def _codes(source: str) -> list[CodeType]:
    constants = compile(source, "stub", "exec").co_consts
    return [constant for constant in constants if isinstance(constant, CodeType)]


def _parts(code: CodeType) -> tuple:
    constants = [constant for constant in code.co_consts if not isinstance(constant, CodeType)]
    return code.co_name, code.co_code, code.co_names, constants


EMPTY = {code.co_code for code in _codes('def a(): ...\n\ndef b():\n    "Documented."')}


# --- the line of an error -------------------------------------------------------------------------


def _crash(function: Callable, error: BaseException) -> str:
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
    line = _written_line(function, _calls(traceback.walk_tb(error.__traceback__)))
    more = next((f"; {text}" for kind, text in EXPLANATIONS.items() if isinstance(error, kind)), "")
    return f"your function stopped with an error{line}: {what.rstrip('.')}{more}".rstrip(".")


def _calls(frames: Iterable[tuple[FrameType, int]]) -> list[tuple[CodeType, int]]:
    return [(frame.f_code, line) for frame, line in frames]


def _written_line(function: Callable, calls: list[tuple[CodeType, int]]) -> str:
    """Return " in line 3 (`x = 1 / 0`)": the innermost line that the student wrote."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return ""
    # Helpers count where they are in the same folder: each cell of a notebook is a file in a
    # folder of its kernel's.
    folder = Path(code.co_filename).parent
    for called, line in reversed(calls):
        if called is code or Path(called.co_filename).parent == folder:
            text = linecache.getline(called.co_filename, line).strip()
            helper = "" if called is code else f" of `{called.co_name}`"
            return f" in line {line}{helper}" + (f" (`{text}`)" if text else "")
    return ""
