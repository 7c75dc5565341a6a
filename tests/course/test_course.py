"""The exercises of all lessons: right answers pass, each mistake gets the message meant for it."""

import ast
import copy
import importlib
import importlib.util
import inspect
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from spine_lib.course import check, checking, hint
from spine_lib.course.exercise import (
    Wrong,
    find_exercise,
    hidden_inputs,
    lesson_exercises,
    lesson_numbers,
    lesson_solutions,
)

LESSONS = lesson_numbers()
KEYS = [exercise.key for lesson in LESSONS for exercise in lesson_exercises(lesson)]

each_exercise = pytest.mark.parametrize("key", KEYS)
each_lesson = pytest.mark.parametrize("lesson", LESSONS)


@pytest.fixture(autouse=True)
def fresh_session(monkeypatch):
    """No grading, nothing answered before."""
    monkeypatch.setattr(checking, "_RECORDS", {})
    monkeypatch.delenv("SPINE_GRADING", raising=False)


@cache
def load_mistakes(lesson: int) -> ModuleType:
    path = Path(__file__).parent / f"mistakes_{lesson:02d}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mistakes_of(key: str) -> list[tuple]:
    return load_mistakes(int(key.split(".")[0])).MISTAKES[key]


def reference_of(key: str):
    return lesson_solutions(key).REFERENCES[key]


def stub_of(key: str):
    """Run a stub as its cell does, and return the function that it defines last."""
    space: dict = {}
    exec(find_exercise(key).stub, space)
    return space[function_of(find_exercise(key).stub).name]


def function_of(stub: str) -> ast.FunctionDef:
    return [node for node in ast.parse(stub).body if isinstance(node, ast.FunctionDef)][-1]


@each_lesson
def test_a_lesson_has_four_to_six_exercises_numbered_in_order(lesson):
    keys = [exercise.key for exercise in lesson_exercises(lesson)]
    assert 4 <= len(keys) <= 6
    assert keys == [f"{lesson}.{number}" for number in range(1, len(keys) + 1)]


@each_lesson
def test_every_exercise_has_a_solution_hidden_inputs_and_mistakes(lesson):
    keys = {exercise.key for exercise in lesson_exercises(lesson)}
    solutions = lesson_solutions(f"{lesson}.1")
    assert set(solutions.REFERENCES) == set(solutions.HIDDEN) == keys
    assert set(load_mistakes(lesson).MISTAKES) == keys


@each_lesson
def test_a_lesson_needs_nothing_that_is_not_handed_out(lesson):
    module = importlib.import_module(f"spine_lib.course.exercises.lesson_{lesson:02d}")
    assert "solutions" not in inspect.getsource(module)


@each_exercise
def test_hints_are_three_different_sentences(key, capsys):
    hints = find_exercise(key).hints
    assert len(set(hints)) == 3
    for level, text in enumerate(hints, 1):
        assert len(text.split()) >= 3 and text.rstrip()[-1] in ".?!:`)", text
        hint(key)
        assert f"Hint {level} of 3 for {key}: {text}" in capsys.readouterr().out


@each_exercise
def test_a_stub_is_a_documented_function_with_the_references_arguments(key):
    stub = stub_of(key)
    assert inspect.getdoc(stub), "the stub has no docstring"
    assert len(find_exercise(key).stub.strip().splitlines()) <= 25
    assert list(inspect.signature(stub).parameters) == list(
        inspect.signature(reference_of(key)).parameters
    )


@each_exercise
def test_the_untouched_stub_is_told_not_yet(key, capsys):
    check(key, stub_of(key))
    assert "not yet" in capsys.readouterr().out


@each_exercise
def test_an_empty_body_is_told_not_yet(key, capsys):
    function = function_of(find_exercise(key).stub)
    names = ", ".join(argument.arg for argument in function.args.args)
    space: dict = {}
    exec(f"def {function.name}({names}): ...", space)
    check(key, space[function.name])
    assert "not yet" in capsys.readouterr().out


@each_exercise
def test_the_reference_passes_and_on_the_hidden_inputs_too(key, capsys):
    count = len(find_exercise(key).examples()) + len(hidden_inputs(key))
    assert hidden_inputs(key) and find_exercise(key).examples()
    check(key, reference_of(key))
    assert f"right, on {count} inputs" in capsys.readouterr().out


@each_exercise
def test_examples_are_the_same_at_each_call(key):
    from spine_lib.course.exercise import is_same

    exercise = find_exercise(key)
    assert is_same(exercise.examples(), exercise.examples())


@each_exercise
def test_each_mistake_gets_the_message_meant_for_it(key, capsys):
    assert len(mistakes_of(key)) >= 3
    for mistake, words in mistakes_of(key):
        check(key, mistake)
        told = capsys.readouterr().out
        assert "not right yet" in told, f"{mistake.__name__} passes"
        assert words.lower() in told.lower(), f"{mistake.__name__}: {told}"
        assert "stopped with an error" not in told, f"{mistake.__name__} does not run: {told}"


@each_exercise
def test_mistakes_are_told_apart(key):
    assert len({words for _, words in mistakes_of(key)}) >= 2


@each_exercise
def test_an_answer_from_memory_fails(key, capsys):
    inputs = [*find_exercise(key).examples(), *hidden_inputs(key)]
    known = reference_of(key)(*copy.deepcopy(inputs[0]))
    check(key, lambda *arguments: copy.deepcopy(known))
    assert "not right yet" in capsys.readouterr().out


@each_exercise
def test_grading_raises(key, monkeypatch):
    monkeypatch.setenv("SPINE_GRADING", "1")
    with pytest.raises(Wrong):
        check(key, mistakes_of(key)[0][0])
    with pytest.raises(Wrong, match="not filled in"):
        check(key, stub_of(key))


@each_exercise
def test_a_crash_is_told_with_its_line(key, capsys):
    def divides_by_nothing(*arguments):
        return 1 / 0

    check(key, divides_by_nothing)
    assert "(`return 1 / 0`): ZeroDivisionError" in capsys.readouterr().out


@each_exercise
def test_an_answer_of_a_strange_kind_is_told_kindly(key, capsys):
    for strange in ("words", object(), [], float("nan")):
        check(key, lambda *arguments, strange=strange: strange)
        assert "not right yet" in capsys.readouterr().out, strange


# --- in the notebook ------------------------------------------------------------------------------


@each_lesson
def test_the_notebook_shows_each_stub_and_checks_it_at_once(lesson):
    from spine_lib.course.authoring import lesson_sources, read_source

    (path,) = lesson_sources(Path(__file__).parents[2] / "notebooks", (f"{lesson:02d}",))
    cells = read_source(path).cells
    tagged = [n for n, cell in enumerate(cells) if "exercise" in cell.metadata.get("tags", [])]
    stubs = {exercise.key: exercise.stub.strip() for exercise in lesson_exercises(lesson)}
    assert [cells[n].source.strip() for n in tagged] == list(stubs.values())
    for n, (key, stub) in zip(tagged, stubs.items(), strict=True):
        after = [cell.source for cell in cells[n + 1 : n + 3] if cell.cell_type == "code"]
        assert f'check("{key}", {function_of(stub).name})' in after[0], key


@each_lesson
def test_an_untouched_notebook_goes_on_after_its_exercises(lesson, capsys):
    for exercise in lesson_exercises(lesson):
        space = {"check": check}
        name = function_of(exercise.stub).name
        exec(f'{exercise.stub}\n\ncheck("{exercise.key}", {name})\n', space)
        assert f"Exercise {exercise.key}" in capsys.readouterr().out
