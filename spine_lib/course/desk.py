"""What a student asks for in a lesson: check, hint, solution, progress.

What was answered is remembered as long as the notebook's kernel runs.
"""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.course.checking import describe_call, judge_answer
from spine_lib.course.exercise import (
    Exercise,
    NotYet,
    Wrong,
    find_exercise,
    hidden_inputs,
    lesson_exercises,
    lesson_numbers,
    lesson_solutions,
)


@dataclass
class _Record:
    """What happened with one exercise in this session."""

    tries: int = 0
    right: bool = False
    hints: int = 0
    solution: bool = False


_RECORDS: dict[str, _Record] = {}


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
    record = _RECORDS.setdefault(key, _Record())
    inputs = [*exercise.examples(), *hidden_inputs(key)]
    name = f"Exercise {key} ({exercise.title})"
    try:
        guarded = judge_answer(exercise, function, inputs)
    except Wrong as trouble:
        if not isinstance(trouble, NotYet):
            record.tries, record.right = record.tries + 1, False
        if _must_raise():
            raise
        print(_told(exercise, function, trouble, name))
        return
    record.tries, record.right = record.tries + 1, True
    print(f"{name}: right, on {len(inputs)} inputs that this notebook does not show.")
    if guarded.printed.getvalue():
        print("(What your function prints is left out here.)")


def _must_raise() -> bool:
    # nbgrader's "Validate" finds an answer right unless its check raises.
    validating = os.environ.get("NBGRADER_EXECUTION") == "validate"
    return validating or os.environ.get("SPINE_GRADING") == "1"


def _told(exercise: Exercise, function: Callable, trouble: Wrong, name: str) -> str:
    hint_call = f'hint("{exercise.key}")'
    if isinstance(trouble, NotYet):
        return f"{name}: not yet. Fill in the function and run both cells; {hint_call} helps."
    text = str(trouble).strip()
    if text[-1:] not in ".?!":
        text += "."
    lines = [f"{name}: not right yet.", text[:1].upper() + text[1:]]
    if trouble.asked:
        lines.append(f"This was its input: {describe_call(function, trouble.asked)}.")
    record = _RECORDS[exercise.key]
    if record.tries >= 2 and record.hints < len(exercise.hints):
        lines.append(f"Stuck? {hint_call} helps.")
    return "\n".join(lines)


def hint(key: str, level: int | None = None) -> None:
    """Print a hint: first a nudge, then a clue to shape or unit, then a figure to expect.

    Args:
        key: the exercise, for example "1.2".
        level: 1, 2 or 3; one further than the last time where left out.

    Raises:
        SpineError: if there is no such exercise or level.
    """
    exercise = find_exercise(key)
    record = _RECORDS.setdefault(key, _Record())
    levels = len(exercise.hints)
    level = min(record.hints + 1, levels) if level is None else level
    if level not in range(1, levels + 1):
        raise SpineError(f"There is no hint {level!r} for exercise {key}: give 1 to {levels}.")
    record.hints = max(record.hints, level)
    print(f"Hint {level} of {levels} for {key}: {exercise.hints[level - 1]}")
    if level == levels:
        print(f'That was the last one; solution("{key}") shows a solution.')


def solution(key: str) -> None:
    """Print a solution; where the solutions were not handed out, say so.

    Args:
        key: the exercise, for example "1.2".

    Raises:
        SpineError: if there is no such exercise.
    """
    find_exercise(key)
    reference = getattr(lesson_solutions(key), "REFERENCES", {}).get(key)
    if reference is None:
        print(f"The solution of {key} is not part of this copy: ask whoever gave it to you.")
        return
    _RECORDS.setdefault(key, _Record()).solution = True
    print(textwrap.dedent(inspect.getsource(reference)).rstrip())


def progress() -> None:
    """Print which exercises are done: those of the lessons worked on since the kernel started."""
    touched = {int(key.split(".")[0]) for key in _RECORDS}
    lessons = sorted(touched) or lesson_numbers()
    exercises = [exercise for lesson in lessons for exercise in lesson_exercises(lesson)]
    width = max((len(exercise.title) for exercise in exercises), default=0)
    for exercise in exercises:
        state = _state(_RECORDS.get(exercise.key, _Record()))
        print(f"{exercise.key:>5}  {exercise.title:{width}}  {state}")
    done = sum(_RECORDS.get(exercise.key, _Record()).right for exercise in exercises)
    print(f"{done} of {len(exercises)} done.")


def _state(record: _Record) -> str:
    words = ["done" if record.right else "not right yet" if record.tries else "not yet"]
    if record.tries > 1:
        words.append(f"{record.tries} tries")
    if record.hints:
        words.append(f"{record.hints} hint{'s' if record.hints > 1 else ''}")
    if record.solution:
        words.append("solution read")
    return ", ".join(words)
