"""What an exercise is: a function to fill in, a judge, inputs and hints; and where to find it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from spine_lib import SpineError


class Wrong(Exception):
    """What is wrong with a student's answer, in the student's terms.

    Attributes:
        asked: the arguments that the function was called with, where they are known.
    """

    asked: tuple = ()


class NotYet(Wrong):
    """The function is still the stub."""


@dataclass(frozen=True)
class Exercise:
    """Describe one exercise of a lesson.

    Attributes:
        key: lesson and number, for example "1.2".
        title: a few words.
        stub: source of the cell that the student fills in; its body raises NotImplementedError.
        examples: returns the inputs to judge on, a list of argument tuples; made from seeds and
            not shown in the notebook.
        judge: called with the student's function and one argument tuple; calls the function and
            raises `Wrong` where the answer is not right. What is right is computed by the library.
        hints: a nudge; a clue to shape or unit; a figure to expect.
        changes_inputs: True where changing the inputs is the task (a training step). Elsewhere
            the function gets copies, and a change is told as a mistake.
        may_return_none: True where None is an answer.
    """

    key: str
    title: str
    stub: str
    examples: Callable[[], list[tuple]]
    judge: Callable[[Callable, tuple], None]
    hints: tuple[str, str, str]
    changes_inputs: bool = False
    may_return_none: bool = False


def lesson_numbers() -> list[int]:
    """List the lessons that have exercises in this copy of the library."""
    package = importlib.import_module("spine_lib.course.exercises")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"lesson_(\d+)", name)))


def lesson_exercises(lesson: int) -> tuple[Exercise, ...]:
    """Return the exercises of a lesson, in its order.

    Args:
        lesson: number of the lesson, from 0.

    Raises:
        SpineError: if the lesson has none.
    """
    if lesson not in lesson_numbers():
        known = ", ".join(map(str, lesson_numbers())) or "none so far"
        raise SpineError(f"Lesson {lesson} has no exercises here: lessons that have are {known}.")
    return importlib.import_module(f"spine_lib.course.exercises.lesson_{lesson:02d}").EXERCISES


def find_exercise(key: str) -> Exercise:
    """Return the exercise of a key such as "1.2".

    Raises:
        SpineError: if there is no such exercise.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)", str(key))
    if not match:
        raise SpineError(f'{key!r} names no exercise: write lesson and number, such as "1.2".')
    exercises = {exercise.key: exercise for exercise in lesson_exercises(int(match[1]))}
    if key not in exercises:
        raise SpineError(
            f"There is no exercise {key}: lesson {match[1]} has {', '.join(exercises)}."
        )
    return exercises[key]


def lesson_solutions(key: str) -> ModuleType | None:
    """Return the solutions of an exercise's lesson, or None where they were not handed out."""
    name = f"spine_lib.course.solutions.lesson_{int(key.split('.')[0]):02d}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            return None
        raise  # something that a solution imports


def hidden_inputs(key: str) -> list[tuple]:
    """Return the inputs that are left out of a hand-out; none where they were."""
    solutions = lesson_solutions(key)
    make = getattr(solutions, "HIDDEN", {}).get(key)
    return list(make()) if make else []
