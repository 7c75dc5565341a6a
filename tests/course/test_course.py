"""The exercises of all lessons: right answers pass, each mistake gets the message meant for it."""

import ast
import copy
import inspect
import re
from functools import partial

import numpy as np
import pytest

from spine_lib.course import check, checking, hint, judging
from spine_lib.course.exercise import (
    find_exercise,
    hidden_inputs,
    lesson_exercises,
    lesson_numbers,
    reference_of,
)
from spine_lib.course.judging import Crashed, compared, outcome

LESSONS = lesson_numbers()
KEYS = [exercise.key for lesson in LESSONS for exercise in lesson_exercises(lesson)]

TRAINING = {"4.1", "4.4", "4.6", "5.3", "6.1", "6.2", "6.5"}
each_exercise = pytest.mark.parametrize(
    "key", [pytest.param(k, marks=pytest.mark.slow) if k in TRAINING else k for k in KEYS]
)
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    """No grading, nothing answered before."""
    monkeypatch.setattr(checking, "_RECORDS", {})
    monkeypatch.setattr(judging, "SLIPS_S", 0.1)
    monkeypatch.delenv("SPINE_GRADING", raising=False)


def mistakes_of(key: str) -> list[tuple]:
    """Return wrong functions, each with a pattern of the message that is meant for it."""
    exercise = find_exercise(key)
    return [
        (function, ".*".join(map(re.escape, re.split(r"\{.*?\}", exercise.texts.wrong[name]))))
        for name, function in exercise.mistakes
    ]


def stub_of(key: str):
    """Run a stub as its cell does, and return the function that it defines last."""
    space: dict = {}
    exec(find_exercise(key).texts.stub, space)
    return space[function_of(find_exercise(key).texts.stub).name]


def function_of(stub: str) -> ast.FunctionDef:
    return [node for node in ast.parse(stub).body if isinstance(node, ast.FunctionDef)][-1]


@each_lesson
def test_a_lesson_has_four_to_six_exercises_in_order(lesson):
    keys = [exercise.key for exercise in lesson_exercises(lesson)]
    assert 4 <= len(keys) <= 6 and keys == sorted(set(keys))
    assert all(key.startswith(f"{lesson}.") for key in keys)


@each_exercise
def test_each_mistake_has_a_message_of_its_own_and_each_message_a_mistake(key):
    exercise = find_exercise(key)
    assert list(exercise.texts.wrong) == list(exercise.wrong)
    assert len(set(exercise.texts.wrong.values())) == len(exercise.wrong) >= 3


@each_exercise
def test_hints_are_three_different_sentences(key, capsys):
    hints = find_exercise(key).texts.hints
    assert len(set(hints)) == 3
    for level, text in enumerate(hints, 1):
        assert len(text.split()) >= 3 and text.rstrip()[-1] in ".?!:`)", text
        hint(key)
        assert f"Hint {level} of 3 for {key}: {text}" in capsys.readouterr().out


@each_exercise
def test_a_stub_is_a_documented_function_with_the_references_arguments(key):
    stub = stub_of(key)
    assert inspect.getdoc(stub), "the stub has no docstring"
    assert len(find_exercise(key).texts.stub.strip().splitlines()) <= 25
    assert list(inspect.signature(stub).parameters) == list(
        inspect.signature(reference_of(key)).parameters
    )


@each_exercise
def test_the_untouched_stub_is_told_not_yet(key, capsys):
    check(key, stub_of(key))
    assert "not yet" in capsys.readouterr().out


@each_exercise
def test_the_reference_passes_and_on_the_hidden_inputs_too(key, capsys):
    count = len(find_exercise(key).examples()) + len(hidden_inputs(key))
    assert hidden_inputs(key) and find_exercise(key).examples()
    check(key, reference_of(key))
    assert f"right, on {count} inputs" in capsys.readouterr().out


@each_exercise
def test_inputs_are_drawn_from_their_seed_alone(key):
    exercise = find_exercise(key)
    again = type(exercise).drawn.__wrapped__(exercise, 0)
    for inputs in zip(again, exercise.examples(), strict=True):
        answers = [outcome(exercise, exercise.reference, given) for given in inputs]
        assert compared(exercise, *answers) is None


@each_exercise
def test_each_mistake_gets_the_message_meant_for_it(key, capsys):
    for number, (mistake, words) in enumerate(mistakes_of(key)):
        check(key, mistake)
        printed = " ".join(capsys.readouterr().out.split())
        assert "not right yet" in printed, f"mistake {number} passes: {words}"
        assert re.search(words, printed, re.IGNORECASE), f"mistake {number} ({words}): {printed}"


@each_exercise
def test_the_open_and_the_hidden_inputs_each_tell_every_mistake_from_the_right_answer(key):
    exercise = find_exercise(key)
    for inputs in (exercise.examples(), hidden_inputs(key)):
        right = [outcome(exercise, exercise.reference, given) for given in inputs]
        for mistake, words in mistakes_of(key):
            answers = [outcome(exercise, mistake, given) for given in inputs]
            assert any(map(partial(compared, exercise), answers, right)), words
            assert not all(isinstance(answer, Crashed) for answer in answers), (words, answers[0])


@each_exercise
def test_an_answer_of_a_strange_kind_or_from_memory_is_told_kindly(key, capsys):
    class Incomparable:
        __eq__ = __array__ = None

    known = reference_of(key)(*copy.deepcopy(find_exercise(key).examples()[0]))
    ragged = np.array([1, None, "x"], object), [[1], [2, 3]], (Incomparable(),), 1j, {1: 2}
    for strange in (known, "words", object(), [], float("nan"), Incomparable(), *ragged):
        check(key, lambda *arguments, strange=strange: copy.deepcopy(strange))
        assert "not right yet" in capsys.readouterr().out, strange
