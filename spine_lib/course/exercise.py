"""An exercise: a function to fill in, a judge, inputs and hints; and how its values are told."""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import yaml

from spine_lib import SpineError
from spine_lib.course.mistakes import Edit


class Wrong(Exception):
    """What is wrong with a student's answer, in the student's terms.

    Attributes:
        asked: the arguments that the function was called with, where they are known.
    """

    asked: tuple = ()


class NotYet(Wrong):
    """The function is still the stub."""


@pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})
class Texts:
    """What a student reads of an exercise; the lesson's YAML file has it, by key.

    Attributes:
        title: a few words.
        stub: source of the cell that the student fills in; its body raises NotImplementedError.
        hints: a nudge; a clue to shape or unit; a figure to expect.
        wrong: the messages of typical mistakes, by the mistake's name. `{answer}`, `{right}` and
            the names of the arguments stand for the values at the smallest input where it is wrong.
    """

    title: str
    stub: str
    hints: tuple[str, str, str]
    wrong: dict[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise of a lesson: what is right, what is typically wrong, and inputs to judge on.

    Attributes:
        key: lesson and number, for example "1.2".
        reference: a right answer, a function.
        wrong: typical mistakes: a name, under which the YAML file has the message in the student's
            terms, and the function (or functions) that a student who is to read it would write:
            in full, or as an `edit` of the reference.
        inputs: returns argument tuples, drawn from the random generator that it is given. Drawn
            once in every copy, and again, from a seed that is left out of hand-outs, for grading.
        observe: called with a function and its arguments in place of the function itself, where
            behaviour counts and not one value: returns what is compared, for example a dictionary
            of named findings; may raise `Wrong`.
        compare: returns what is wrong with an answer, or None, from the answer and the right one;
            where left out, type, shape, values and dtype count.
        rtol, atol: tolerances of that comparison.
        dtype: True where an array must have the reference's very dtype, not only its kind.
        changes_inputs: True where changing the inputs is the task (a training step). Elsewhere
            the function gets copies, and a change is named as a mistake.
    """

    key: str
    reference: Callable
    wrong: Mapping[str, Callable | Edit | tuple[Callable | Edit, ...]]
    inputs: Callable[[np.random.Generator], list[tuple]]
    observe: Callable | None = None
    compare: Callable[[Any, Any], str | None] | None = None
    rtol: float = 1e-4
    atol: float = 1e-9
    dtype: bool = False
    changes_inputs: bool = False

    def examples(self) -> list[tuple]:
        """Return the inputs that every copy of the library judges on."""
        return self.drawn(0)

    @functools.cache  # noqa: B019, as exercises live as long as their module
    def drawn(self, seed: int) -> list[tuple]:
        """Return the inputs of a seed, the same objects at each call."""
        return list(self.inputs(np.random.default_rng([seed, *map(int, self.key.split("."))])))

    @functools.cached_property
    def mistakes(self) -> tuple[tuple[str, Callable], ...]:
        """The wrong functions, each with the name of its mistake."""
        return tuple(
            (name, item.applied(self.reference) if isinstance(item, Edit) else item)
            for name, items in self.wrong.items()
            for item in (items if isinstance(items, tuple) else (items,))
        )

    @functools.cached_property
    def texts(self) -> Texts:
        """What a student reads of it."""
        return lesson_texts(Path(inspect.getfile(self.reference)).with_suffix(".yaml"))[self.key]


def exercise(key: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Return a decorator that declares an `Exercise`; the function below it is the reference."""

    def declare(reference: Callable) -> Callable:
        reference.exercise = Exercise(key, reference=reference, **declared)
        return reference

    return declare


def expect(answer: Any, kinds: Any, what: str) -> Any:
    """Return an answer of one of these kinds; raise `Wrong` where it is of another."""
    if not isinstance(answer, kinds):
        raise Wrong(f"return {what}, and not {describe(answer)}")
    return answer


@functools.cache
def lesson_texts(path: Path) -> dict[str, Texts]:
    """Load the texts of a lesson's exercises, by key.

    Raises:
        SpineError: if a text is missing or of a wrong type; it names the file and the exercise.
    """
    texts = {}
    for key, values in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        try:
            texts[key] = Texts(**values)
        except (TypeError, pydantic.ValidationError) as error:
            raise SpineError(f"{path}: exercise {key} is not complete: {error}") from error
    return texts


def lesson_numbers() -> list[int]:
    """List the lessons that have exercises in this copy of the library."""
    package = importlib.import_module("spine_lib.course.exercises")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"lesson_(\d+)", name)))


def lesson_exercises(lesson: int) -> tuple[Exercise, ...]:
    """Return the exercises of a lesson, in its order.

    Raises:
        SpineError: if the lesson has none.
    """
    if lesson not in lesson_numbers():
        known = ", ".join(map(str, lesson_numbers())) or "none so far"
        raise SpineError(f"Lesson {lesson} has no exercises here: lessons that have are {known}.")
    module = importlib.import_module(f"spine_lib.course.exercises.lesson_{lesson:02d}")
    found = (getattr(value, "exercise", None) for value in vars(module).values())
    exercises = [item for item in found if isinstance(item, Exercise)]
    return tuple(sorted(exercises, key=lambda item: item.key))


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


def hidden_inputs(key: str) -> list[tuple]:
    """Return the inputs that are left out of a hand-out; none where they were."""
    exercise, seed = find_exercise(key), hidden_seed()
    return [] if seed is None else exercise.drawn(seed)


def hidden_seed() -> int | None:
    """Return the seed of the hidden inputs, or None in a copy that was made for students."""
    try:
        return importlib.import_module("spine_lib.course.exercises.hidden").SEED
    except ModuleNotFoundError:
        return None


def reference_of(key: str) -> Callable | None:
    """Return the reference of an exercise, or None in a copy that was made for students."""
    exercise = find_exercise(key)
    return None if hidden_seed() is None else exercise.reference


def describe(value: Any, digits: int = 5) -> str:
    """Return in a few words what a value is: kind, dtype and shape of an array, a number itself.

    Example:
        >>> describe(np.zeros((2, 3), np.int16))
        'an int16 array of shape (2, 3)'
    """
    if isinstance(value, np.ndarray):
        return f"{_article(str(value.dtype))} array of shape {value.shape}"
    if is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{_article(dtype)} tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | complex | np.generic | str):
        value = value.item() if isinstance(value, np.generic) else value
        text = f"{value:.{digits}g}" if isinstance(value, float) else repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, list | tuple) and len(value) <= 4:
        inside = ", ".join(map(describe, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, list | tuple | set | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    return _article(type(value).__name__)


def listed(values: np.ndarray) -> str:
    """Return the values of a small array in one line.

    Example:
        >>> listed(np.array([[1, 2], [3, 4]]))
        '[[1, 2], [3, 4]]'
    """
    return " ".join(np.array2string(values, precision=5, separator=", ").split())


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor."""
    # Where nobody has imported torch, nothing is a tensor, and importing it takes seconds.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def parameter_names(function: Callable, count: int) -> list[str]:
    """Return the names of a function's first parameters, "argument 3" where it has none."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {index + 1}" for index in range(len(names), count)])[:count]


def _article(name: str) -> str:
    vowel = name[:1].lower() in "aeiou" and name[:4].lower() not in ("uint", "unet", "unif")
    return f"{'an' if vowel else 'a'} {name}"
