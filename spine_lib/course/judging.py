"""Judge answers: compare them with the reference's, and name what may have gone wrong.

A typical mistake is data: a message and a function that makes the mistake. Where the student's
function gives the same, the message is the student's. Otherwise the smallest input where the answer
is wrong is shown, with what all answers have in common: a factor, a turned axis, a shape.
"""

import contextlib
import copy
import io
import string
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from spine_lib.course.exercise import (
    Exercise,
    Wrong,
    describe,
    is_tensor,
    listed,
    parameter_names,
)
from spine_lib.course.mistakes import derived

SLIPS_S = 3.0
"""Seconds of processor time that the search for a small slip may take."""


class Crashed(Wrong):
    """A function stopped with an error of this `kind`."""

    def __init__(self, text: str, kind: type) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Mismatch:
    """What is wrong with one part of an answer: in words, with the values where both are numbers.

    Attributes:
        text: a sentence.
        name: of the part, for example 'the value of "iou"'.
        answer, right: the values, where they are of one type and shape.
        kind: what differs: "type", "shape", "dtype" (the values are right), "value", or a "fact"
            that has no factor or sign, such as a count.
    """

    text: str
    name: str = "the answer"
    answer: Any = None
    right: Any = None
    kind: str = "type"


@dataclass(frozen=True)
class Case:
    """One input with the answer to it, the right one and what is wrong."""

    arguments: tuple
    asked: tuple
    answer: Any
    right: Any
    mismatch: Mismatch | None

    @property
    def size(self) -> int:
        """How much a reader has to look at: the number of values of the input."""
        return _size(self.arguments)


def judge(exercise: Exercise, function: Callable, inputs: list[tuple]) -> None:
    """Judge a student's function, guarded, on all inputs, each a tuple of arguments.

    Raises:
        Wrong: what is wrong, in the student's terms; `asked` holds the smallest failing input.
    """
    cases = []
    for arguments in inputs:
        right = outcome(exercise, exercise.reference, arguments)
        try:
            answer = _observed(exercise, function, arguments)
        except Crashed as error:
            answer = error
        except Wrong as wrong:
            wrong.asked = getattr(function, "asked", ())
            raise
        except Exception as error:  # what the function returned cannot be observed
            returned = describe(getattr(function, "returned", None))
            answer = Crashed(
                f"your function returned {returned}, with which nothing can be done "
                f"({type(error).__name__}: {error}): see its docstring",
                type(error),
            )
        asked = getattr(function, "asked", arguments)
        cases.append(Case(arguments, asked, answer, right, compared(exercise, answer, right)))
    failing = sorted((case for case in cases if case.mismatch), key=lambda case: case.size)
    if failing:
        wrong = Wrong(_explained(exercise, cases, failing))
        wrong.asked = failing[0].asked
        raise wrong


def outcome(exercise: Exercise, function: Callable, arguments: tuple) -> Any:
    """Return what a function of the course gives, computed once; a `Crashed` where it raises."""
    key = (function, id(arguments))
    if key not in _OUTCOMES:
        try:
            with (
                contextlib.redirect_stdout(io.StringIO()),
                np.errstate(all="ignore"),
                warnings.catch_warnings(action="ignore"),
            ):
                answer = _observed(exercise, function, arguments)
        except Exception as error:
            answer = Crashed(str(error), type(error))
        _OUTCOMES[key] = (arguments, answer)
    return _OUTCOMES[key][1]


# With the arguments, since the id of a tuple that is gone may come again.
_OUTCOMES: dict[tuple[Callable, int], tuple[tuple, Any]] = {}


def _observed(exercise: Exercise, function: Callable, arguments: tuple) -> Any:
    with contextlib.suppress(Exception):  # an open file, a tensor inside a graph
        arguments = copy.deepcopy(arguments)
    if exercise.observe:
        return exercise.observe(function, *arguments)
    return function(*arguments)


def compared(exercise: Exercise, answer: Any, right: Any) -> Mismatch | None:
    """Return what is wrong with an answer, as the exercise compares, or None."""
    if isinstance(answer, Crashed) or isinstance(right, Crashed):
        same = getattr(answer, "kind", None) is getattr(right, "kind", None)
        return None if same else Mismatch(str(answer))
    try:
        if exercise.compare:
            text = exercise.compare(answer, right)
            return Mismatch(text, kind="fact") if text else None
        return mismatch(answer, right, rtol=exercise.rtol, atol=exercise.atol, dtype=exercise.dtype)
    except Wrong:
        raise
    except Exception:  # an object whose parts cannot be compared
        return Mismatch(_should_be("the answer", describe(right), answer))


# --- why an answer is wrong -----------------------------------------------------------------------


def _explained(exercise: Exercise, cases: list[Case], failing: list[Case]) -> str:
    first, text = failing[0].mismatch, failing[0].mismatch.text
    if all(case.mismatch.kind == "dtype" for case in failing):
        return text
    for name, function in exercise.mistakes:
        if all(_agrees(exercise, function, case) for case in (*failing, *cases)):
            return _filled(exercise, name, failing[0])
    common = None
    if first.kind == "value":
        with contextlib.suppress(TypeError, ValueError):  # no numbers
            common = _relation([case.mismatch for case in failing], first)
    if not common and _is_constant(cases):
        common = "your answer is the same for every input"
    if not common and first.kind != "type":
        common = _slip(exercise, cases, failing)
    known = None if common else _nearly_known(exercise, cases, failing)
    common = common or _where(exercise, cases)
    joint = "; " if ": " in text else ": "
    return known or text + (f"{joint}{common}" if common else "")


def _nearly_known(exercise: Exercise, cases: list[Case], failing: list[Case]) -> str | None:
    """Return the message of the mistake that agrees with most of the failing answers."""
    # One of two answers is the same by chance, one of a thousand is not; so is one kind of error.
    if _is_constant(cases) or _is_choice(cases) or _is_crash(failing):
        return None
    counts = [
        sum(_agrees(exercise, function, case) for case in failing)
        for _, function in exercise.mistakes
    ]
    name = exercise.mistakes[counts.index(max(counts))][0]
    return _filled(exercise, name, failing[0]) if max(counts) > 0.7 * len(failing) else None


def _slip(exercise: Exercise, cases: list[Case], failing: list[Case]) -> str | None:
    """Return what small slip in the reference gives every one of the answers."""
    end = time.thread_time() + SLIPS_S
    for text, function in () if _is_crash(failing) else derived(exercise.reference):
        if all(_agrees(exercise, function, case) for case in (*failing, *cases)):
            return f"these are the values of a right answer {text}"
        if time.thread_time() > end:
            break
    return None


def _where(exercise: Exercise, cases: list[Case]) -> str | None:
    """Return at which values of an argument, a number, or how often the answer is wrong."""
    names = parameter_names(exercise.reference, len(cases[0].arguments))
    for name, *values in zip(names, *(case.arguments for case in cases)):
        if not all(isinstance(value, Real) for value in values):
            continue
        wrong = [value for value, case in zip(values, cases) if case.mismatch]
        right = [value for value, case in zip(values, cases) if not case.mismatch]
        low, high = min(wrong), max(wrong)
        if right and not any(low <= value <= high for value in right):
            between = f"is {low:.5g}" if low == high else f"lies from {low:.5g} to {high:.5g}"
            return f"the answer is wrong where `{name}` {between}, and right elsewhere"
    count = sum(case.mismatch is None for case in cases)
    return f"it is right for {count} of {len(cases)} inputs" if count else None


def _agrees(exercise: Exercise, function: Callable, case: Case) -> bool:
    """Return whether a function gives the answer of a case, whatever the dtype."""
    other = outcome(exercise, function, case.arguments)
    difference = compared(exercise, case.answer, other)
    return difference is None or difference.kind == "dtype"


def _is_choice(cases: list[Case]) -> bool:
    """Return whether there are two answers to choose from, True and False or two words."""
    words = all(isinstance(case.right, bool | np.bool_ | str) for case in cases)
    return words and len({case.right for case in cases}) < 3


def _is_crash(cases: list[Case]) -> bool:
    return any(isinstance(case.answer, Crashed) for case in cases)


def _is_constant(cases: list[Case]) -> bool:
    """Return whether every answer is the same, and the right ones are not."""
    first, *others = cases
    if not isinstance(first.answer, Real | str | np.bool_):
        return False
    alike = all(mismatch(case.answer, first.answer) is None for case in others)
    return len(cases) > 2 and alike and any(mismatch(case.right, first.right) for case in others)


def _relation(mismatches: list[Mismatch], smallest: Mismatch) -> str | None:
    """Return what all failing answers have in common, where they have anything in common."""
    pairs = [
        (found.answer, found.right)
        for found in mismatches
        if found.name == smallest.name and found.kind == "value"
    ]
    if all(isinstance(right, str) for _, right in pairs):
        alike = all(a.strip().lower() == b.strip().lower() for a, b in pairs)
        return "the word is right, its spelling is not" if alike else None
    if all(right.shape == () and right.dtype == bool for _, right in pairs):
        return None
    arrays = [(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    if np.isnan(smallest.answer).any() and not np.isnan(smallest.right).any():
        return "NaN comes from 0 / 0 or from the mean of nothing"
    several = len({value for _, right in arrays for value in right.flat}) > 1
    for text, make in _relations(*arrays[0], several):
        with np.errstate(all="ignore"), contextlib.suppress(IndexError):
            made = [(a, make(b)) for a, b in arrays]
            if all(a.shape == b.shape and np.allclose(a, b, 1e-4, 1e-9, True) for a, b in made):
                return text
    return None


def _relations(
    answer: np.ndarray, right: np.ndarray, several: bool
) -> Iterator[tuple[str, Callable]]:
    """Yield sentences, each with what it makes of the right answer; a factor is the first's."""
    yield "the sign is turned round", lambda b: -b
    yield "it is 1 minus the right value", lambda b: 1 - b
    yield "numerator and denominator are swapped", lambda b: 1 / b
    if several and right.any():
        at = np.unravel_index(np.abs(right).argmax(), right.shape)
        factor, step = float(answer[at] / right[at]), float(answer[at] - right[at])
        if factor and np.isfinite(factor):  # which fits any one number
            times = f"{factor:.4g} times the right one"
            yield f"every value is {times}: is a factor or a unit wrong?", lambda b: factor * b
        if step and np.isfinite(step):
            more = f"{abs(step):.4g} too {'large' if step > 0 else 'small'}"
            yield f"every value is {more}", lambda b: b + step
    if answer.any():
        yield "it is rounded", np.rint
        for digits in (1, 2, 3):
            yield f"it is rounded to {digits} decimals", partial(np.round, decimals=digits)
        yield "it is cut off to whole numbers", np.trunc
    if answer.size > 8:
        yield f"it is cut off above {answer.max():.5g}", partial(np.minimum, answer.max())
        yield f"it is cut off below {answer.min():.5g}", partial(np.maximum, answer.min())
    yield "it is squared", np.square
    yield "a square root is too many", np.sqrt
    yield "the signs are lost", np.abs
    if answer.ndim:
        yield "the axes are swapped", lambda b: b.T
        yield "the order of the first axis is turned round", lambda b: b[::-1]
        yield "the order of the last axis is turned round", lambda b: b[..., ::-1]
        yield "it is turned by 180 degrees", np.flip
        for axis, step in np.ndindex(answer.ndim, 2):
            moved = f"it is moved by one along axis {axis}"
            yield moved, partial(np.roll, shift=2 * step - 1, axis=axis)
        rank = np.argsort(np.argsort(answer, axis=None), axis=None).reshape(answer.shape)
        yield "the values are right, in another order", lambda b: np.sort(b, axis=None)[rank]


# --- comparing ------------------------------------------------------------------------------------


def mismatch(answer: Any, right: Any, name: str = "the answer", **how: Any) -> Mismatch | None:
    """Return what is wrong with an answer, or None.

    Args:
        answer: the student's.
        right: the reference's; its type is what the answer's must be. A short row of numbers may
            be a list, a tuple or an array.
        name: what is compared, as the subject of a sentence.
        how: tolerances `rtol` and `atol`, and `dtype`: whether the dtype of an array must be the
            same, not only its kind.
    """
    if isinstance(right, Mapping):
        return _mapping_mismatch(answer, right, how)
    if isinstance(right, tuple | list):
        return _sequence_mismatch(answer, right, name, how)
    short = isinstance(right, np.ndarray) and right.ndim == 1 and right.size < 7
    if short and isinstance(answer, list | tuple):
        with contextlib.suppress(ValueError, TypeError):
            answer = np.asarray(answer)
    elif isinstance(answer, np.ndarray | np.generic) and answer.ndim == 0:
        answer = answer.item()
    choices = (
        (type(right) if is_tensor(right) else (), "a tensor"),
        (np.ndarray, "an array"),
        (bool | np.bool_, "True or False"),
        (str, f"a string such as {describe(right)}"),
        (Real, describe(right) if answer is None else "one number"),
        (object, describe(right)),
    )
    kinds, wanted = next(choice for choice in choices if isinstance(right, choice[0]))
    if not isinstance(answer, kinds) or kinds is Real and isinstance(answer, bool):
        return Mismatch(_should_be(name, wanted, answer), name)
    if kinds in (str, object):
        same = answer == right and type(answer) is type(right)
        text = _two_values(name, answer, right)
        return None if same else Mismatch(text, name, answer, right, "value")
    if is_tensor(right):
        answer, right = answer.detach().cpu().numpy(), right.detach().cpu().numpy()
    return _numbers_mismatch(np.asarray(answer), np.asarray(right), name, **how)


def _should_be(name: str, what: str, answer: Any) -> str:
    return f"{name} should be {what}, and yours is {describe(answer)}"


def _two_values(name: str, answer: Any, right: Any) -> str:
    for digits in range(4, 12):
        mine, best = describe(answer, digits), describe(right, digits)
        if mine != best:
            break
    return f"{name} should be {best}, and yours is {mine}"


def _numbers_mismatch(
    answer: np.ndarray, right: np.ndarray, name: str,
    rtol: float = 1e-4, atol: float = 1e-9, dtype: bool = False,
) -> Mismatch | None:  # fmt: skip
    if answer.shape != right.shape:
        swapped = right.ndim > 1 and answer.shape == right.shape[::-1]
        more = ": are its axes swapped?" if swapped else ""
        text = f"{name} should have shape {right.shape}, and yours has {answer.shape}{more}"
        return Mismatch(text, name, kind="shape")
    kinds = [array.dtype.kind.replace("u", "i") for array in (answer, right)]
    if not set(kinds) <= set("bif"):
        same = kinds[0] == kinds[1] and np.array_equal(answer, right)
        text = _should_be(name, f"{describe(right)} of other values", answer)
        return None if same else Mismatch(text, name, kind="fact")
    if kinds[1] == "b" and kinds[0] != "b" and answer.max(initial=0) > 1:
        return Mismatch(_should_be(name, "True and False", answer) + " of numbers", name)
    differs = ~np.isclose(answer.astype(float), right.astype(float), rtol, atol, equal_nan=True)
    if differs.any():
        at = tuple(int(n) for n in np.argwhere(differs)[0])
        if 1 < right.size < 5:
            both = f"{listed(right)}, and yours is {listed(answer)}"
            return Mismatch(f"{name} should be {both}", name, answer, right, "value")
        where = f" at [{', '.join(map(str, at))}]" if right.size > 1 else ""
        text = _two_values(f"{name}{where}", answer[at], right[at])
        if differs.sum() > 1:
            text += f" ({differs.sum()} of {right.size} values differ)"
        return Mismatch(text, name, answer, right, "value")
    if kinds[0] == kinds[1] and not (dtype and right.ndim and answer.dtype != right.dtype):
        return None
    if right.ndim:
        should = f"{describe(answer)}: it should be {right.dtype} (`.astype(np.{right.dtype})`)"
        return Mismatch(f"the values are right, but {name} is {should}", name, kind="dtype")
    if kinds != ["f", "i"]:
        return None
    text = f"the value is right, but {name} should be a whole number (an int), not a float"
    return Mismatch(text, name, kind="dtype")


def _mapping_mismatch(answer: Any, right: Mapping, how: dict) -> Mismatch | None:
    if not isinstance(answer, Mapping):
        return Mismatch(f"return a dictionary, not {describe(answer)}")
    for key in right:
        found = _part(key, answer[key], right[key], how) if key in answer else None
        if found:
            return found
    if set(right) == set(answer):
        return None
    lacking = sorted(map(repr, set(right) - set(answer)))
    text = f"lacks the key {lacking[0]}" if lacking else "has a key too many"
    return Mismatch(f"your dictionary {text}: its keys should be {', '.join(map(repr, right))}")


def _part(key: Any, answer: Any, right: Any, how: dict) -> Mismatch | None:
    """Compare one value of a mapping; a key that is a phrase is the subject of the sentence."""
    if not str(key).startswith(("the ", "that ", "what ", "whether ", "your ")):
        return mismatch(answer, right, f"the value of {key!r}", **how)
    found = mismatch(answer, right, key, **how)
    if found and key.startswith("whether "):
        words = ("should", "is not") if right else ("should not", "is")
        text = f"it {words[0]} be true that {key.removeprefix('whether ')}, and it {words[1]}"
        return Mismatch(text, key, kind="fact")
    if found and found.kind == "value" and not isinstance(right, float | np.floating):
        return replace(found, kind="fact")
    return found


def _sequence_mismatch(answer: Any, right: tuple | list, name: str, how: dict) -> Mismatch | None:
    numbers = all(isinstance(item, Real) for item in right)
    if not isinstance(answer, tuple | list | (np.ndarray if numbers else tuple)):
        what = f"{len(right)} values" if len(right) < 7 else f"a {type(right).__name__}"
        return Mismatch(_should_be(name, what, answer), name)
    if len(answer) != len(right):
        text = f"{name} should have {len(right)} values, and yours has {len(answer)}"
        return Mismatch(text, name)
    inner = "your {} value" if name == "the answer" else f"the {{}} value of {name}"
    ordinals = ["first", "second", "third", *(f"{n}th" for n in range(4, len(right) + 1))]
    parts = zip(answer, right, ordinals)
    found = (mismatch(mine, best, inner.format(number), **how) for mine, best, number in parts)
    return next((item for item in found if item), None)


# --- words ----------------------------------------------------------------------------------------


class _Words(string.Formatter):
    def format_field(self, value: Any, spec: str) -> str:
        return format(value, spec) if spec else describe(value)


def _filled(exercise: Exercise, name: str, case: Case) -> str:
    """Return a mistake's message with the values of a case, both answers where they are short."""
    message = exercise.texts.wrong[name]
    names = parameter_names(exercise.reference, len(case.arguments))
    values = dict(zip(names, case.arguments)) | {"answer": case.answer, "right": case.right}
    text = _Words().vformat(message, (), values)
    if isinstance(case.answer, Crashed):
        return f"{text} ({case.answer})"
    if "{answer" in message or "{right" in message or not np.isscalar(case.right):
        return text
    right, mine = _two_values("", case.answer, case.right)[11:].split(", and yours is ")
    return text + (f" (yours: {mine}, right: {right})" if len(right + mine) < 45 else "")


def _size(value: Any) -> int:
    if isinstance(value, tuple | list):
        return sum(map(_size, value))
    return int(np.prod(value.shape)) if hasattr(value, "shape") else 1
