"""Checking an answer: what a student is told, and that no function breaks the lesson."""

import _thread
import contextlib
import dataclasses
import linecache
import re
import signal
import sys
import threading
import time

import numpy as np
import pytest

from spine_lib import SpineError
from spine_lib.course import check, checking, hint, progress, solution
from spine_lib.course.exercise import (
    NotYet,
    Wrong,
    describe,
    find_exercise,
    hidden_inputs,
    lesson_numbers,
    lesson_texts,
)
from spine_lib.course.judging import mismatch

LESSON = """
import numpy as np

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit


@exercise(
    "99.1",
    wrong={
        "smallest": edit("max", "min"),
        "mean": lambda image: image.mean(),
        "error": edit("image.max()", "image.max() if len(image) > 2 else 1 / 0"),
    },
    inputs=lambda rng: [(rng.random((n, 4)) + rng.integers(9),) for n in (3, 3, 2)],
)
def brightest(image):
    # one look is enough
    return image.max()
"""
TEXTS = """
"99.1":
  title: Brightest voxel
  stub: |
    def brightest(image):
        "Return the largest value of image, a float."
        raise NotImplementedError
  hints: [Look at all., It is one value., Below 1.]
  wrong:
    smallest: this is the smallest value
    mean: "{image} gave {answer}"
    error: the mean of nothing is NaN
"""


@pytest.fixture(autouse=True)
def lesson(tmp_path, monkeypatch):
    """Lesson 99 with one exercise, and a session in which nothing was answered."""
    from spine_lib.course import exercises

    for name, text in (("lesson_99.py", LESSON), ("lesson_99.yaml", TEXTS)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, str(tmp_path)])
    monkeypatch.setattr(checking, "_RECORDS", {})
    monkeypatch.setattr(checking, "TIME_LIMIT_S", 0.3)
    monkeypatch.delenv("SPINE_GRADING", raising=False)
    yield
    sys.modules.pop(f"{exercises.__name__}.lesson_99", None)


@pytest.fixture
def hand_out(monkeypatch):
    """A copy for a class: without the hidden inputs."""
    monkeypatch.setitem(sys.modules, "spine_lib.course.exercises.hidden", None)


@pytest.fixture
def told(capsys):
    """Return what `check` prints of a function."""

    def tell(function) -> str:
        check("99.1", function)
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return tell


def cell(source: str, name: str = "brightest"):
    """Define a function as a notebook does: its source is known to linecache alone."""
    path = f"cells-of-a-kernel/{abs(hash(source))}.py"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    space = {"np": np}
    exec(compile(source, path, "exec"), space)
    return space[name]


def test_a_right_answer_is_told_with_the_number_of_inputs(told):
    assert told(lambda image: image.max()).startswith(
        "Exercise 99.1 (Brightest voxel): right, on 6 inputs"
    )


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (np.min, r"not right yet.\nThis is the smallest value \(yours: [\d.]+, right: "),
        (np.min, r"`a` a float64 array of shape \(2, 4\): \[\[[\d., \[\]]+\]\]"),
        (np.mean, r"A float64 array of shape \(2, 4\) gave \d\.\d"),
        (
            lambda image: 1 / 0 if len(image) == 2 else image.max(),
            r"The mean of nothing is NaN \(your function stopped with an error",
        ),
    ],
)
def test_a_typical_mistake_gets_its_message_both_values_and_its_input(told, function, words):
    assert re.search(words, told(function))


def test_a_notebook_shows_a_card_with_colour_sign_and_the_same_words(monkeypatch):
    import IPython

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: True)
    monkeypatch.setattr(IPython.display, "display", shown.append)
    for function in (np.max, lambda image: image.min(), cell("def brightest(image): ...")):
        check("99.1", function)
    cards = [card._repr_html_() for card in shown]
    assert [sign for card in cards for sign in "✓✗…" if sign in card] == ["✓", "✗", "…"]
    assert len({re.search("color:(#[0-9a-f]{6})", card)[1] for card in cards}) == 3
    assert "<code>image</code> a float64 array" in cards[1] and "`image` a" in repr(shown[1])


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda image: 10 * image.max(), "10 times the right one"),
        (lambda image: image.max() + 1, "every value is 1 too large"),
        (lambda image: -image.max(), "the sign is turned round"),
        (lambda image: float(int(image.max())), "cut off to whole numbers"),
        (lambda image: 3.0, "the same for every input"),
        (lambda image: image.max() if len(image) > 2 else 0.3, "right for 4 of 6 inputs"),
        (lambda image: np.nan, "NaN comes from"),
        (lambda image: image.max(axis=0), "should be one number, and yours is a float64 array"),
        (lambda image: bool(image.max() > 1), "should be one number, and yours is"),
        (lambda image: "high", "should be one number, and yours is 'high'"),
    ],
)
def test_an_unknown_mistake_is_shown_with_what_its_answers_have_in_common(told, function, words):
    assert words in told(function)


TABLE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("answer", "right", "words"),
    [
        (TABLE, TABLE, None),
        ([1, 2, 3], np.array([1, 2, 3]), None),
        (np.float32(2.0), 2.0, None),
        (np.array(2), 2, None),
        ((1, [2.0]), (1, [2.0]), None),
        ({"a": 1}, {"a": 1}, None),
        (None, None, None),
        (TABLE.T, TABLE, "should have shape (2, 3), and yours has (3, 2): are its axes swapped?"),
        (TABLE.astype(int), TABLE, "the values are right"),
        (TABLE + (TABLE == 4), TABLE, "at [1, 1] should be 4, and yours is 5"),
        (np.array([1.5, 3]), np.array([1.5, 2]), "be [1.5, 2. ], and yours is [1.5, 3. ]"),
        (True, 1, "should be one number, and yours is True"),
        (1, True, "should be True or False, and yours is 1"),
        (2.0, 2, "should be a whole number"),
        ((1, 2), (1, 2, 3), "should have 3 values, and yours has 2"),
        ((1, 5), (1, 2), "your second value should be 2, and yours is 5"),
        ({"a": 1}, {"b": 1}, "lacks the key 'b'"),
        ({"a": 1, "b": 2}, {"b": 2}, "has a key too many"),
        ({"a": 1}, {"a": 2}, "the value of 'a' should be 2, and yours is 1"),
        ({"whether it is": 0}, {"whether it is": True}, "should be true that it is, and it is not"),
        (
            {"the size of it": 3},
            {"the size of it": 4},
            "the size of it should be 4, and yours is 3",
        ),
        (1.00001, 1.0002, "should be 1.0002, and yours is 1"),
        (None, 3, "should be 3, and yours is None"),
    ],
)
def test_a_mismatch_is_named_by_type_shape_place_and_value(answer, right, words):
    found = mismatch(answer, right, rtol=1e-5)
    assert found is None if words is None else words in found.text


def test_a_dtype_counts_where_the_exercise_says_so():
    answer = TABLE.astype(np.float32)
    assert mismatch(answer, TABLE) is None
    assert "float32" in mismatch(answer, TABLE, dtype=True).text


@pytest.mark.parametrize(
    "source",
    [
        'def brightest(image):\n    """Any words."""\n    raise NotImplementedError',
        "def brightest(image): ...",
        'def brightest(image):\n    """Return."""\n    pass',
        "def brightest(image):\n    found = 3\n    raise NotImplementedError('later')",
    ],
)
def test_a_stub_is_told_not_yet_and_is_no_try(told, source):
    assert "not yet. Fill in" in told(cell(source))
    assert checking._RECORDS["99.1"].tries == 0


def test_a_stub_of_any_kind_is_known_by_its_code():
    stub = "def f(image):\n    return image  # change this line"
    assert checking.is_stub(cell(stub, "f"), stub)
    assert not checking.is_stub(cell("def f(image):\n    return image + 1", "f"), stub)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("print('x')", "returns nothing (None): does it end with `return`?"),
        ("top = 1 / 0", "in line 5 (`top = 1 / 0`): ZeroDivisionError: division by zero."),
        ("return np.reshape(image, (5, 5))", "in line 5 (`return np.reshape(image, (5, 5))`): Val"),
        ("return helper(image)", "in line 2 of `helper` (`return a.top`): AttributeError"),
        ("return brightest(image)", "calls itself without an end"),
        ("return maximum", "a name spelt differently?"),
        ("raise SystemExit", "SystemExit"),
        ("return image[7, 7]", "outside the array"),
        ("image.sort(); return image.max()", "changes its input `image`"),
        ("image[:] = 0; return image.max()", "changes its input `image`"),
    ],
)
def test_a_crash_is_told_with_the_students_line_and_what_it_means(told, body, words):
    source = f"def helper(a):\n    return a.top\n\ndef brightest(image):\n    {body}"
    assert words in told(cell(source))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("    while True:\n        image + 1", "image + 1"),
        ("    while True:\n        pass", "while True:"),
        (
            "    while True:\n        try:\n            image = image + 1\n        except:\n"
            "            pass",
            "",
        ),
        ("    try:\n        while True:\n            pass\n    except BaseException:\n"
         "        return image.max()", ""),
    ],
)  # fmt: skip
def test_an_endless_loop_is_ended_and_told_with_its_line(told, body, line):
    text = told(cell(f"def brightest(image):\n{body}\n"))
    assert "stopped after 0.3 seconds in line " in text
    assert line in text or "while" in text


def test_an_ended_function_leaves_no_exception_behind():
    for _ in range(20):
        with pytest.raises(checking.TimeUp):
            checking.call_within(0.01, cell("def brightest():\n    while True: pass"))
        time.sleep(0.001)
    assert sum(range(100_000)) == 4999950000


def test_a_function_that_ends_as_its_time_does_is_safe():
    def waits():
        until = time.perf_counter() + 0.01
        while time.perf_counter() < until:
            pass
        return 1

    for _ in range(60):
        with contextlib.suppress(checking.TimeUp):
            assert checking.call_within(0.01, waits) == 1


def test_sleeping_takes_no_processor_time():
    assert checking.call_within(0.01, lambda: time.sleep(0.1) or 1) == 1


def test_the_readers_own_interrupt_gets_through(monkeypatch):
    monkeypatch.setattr(checking, "TIME_LIMIT_S", 20)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    press = threading.Timer(0.2, _thread.interrupt_main)
    press.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            check("99.1", cell("def brightest(image):\n    while True:\n        pass"))
    finally:
        press.join()
        signal.signal(signal.SIGINT, before)


def test_where_changing_is_the_task_inputs_are_handed_over():
    exercise = dataclasses.replace(find_exercise("99.1"), changes_inputs=True)
    image = np.ones((2, 2))
    assert checking.Guarded(lambda given: given is image, exercise)(image)


def test_printing_is_kept_out_of_the_way(told):
    def brightest(image):
        print("noise " * 50)
        print("trouble", file=sys.stderr)
        return image.max()

    text = told(brightest)
    assert "noise" not in text and "left out here" in text


def test_a_call_in_place_of_the_function_is_told(told):
    assert "pass its name without brackets" in told(3.5)


@pytest.mark.parametrize("key", ["99.7", "98.1", "one", "", "99"])
def test_an_unknown_exercise_is_one_sentence(key):
    with pytest.raises(SpineError, match="exercise"):
        check(key, print)


@pytest.mark.parametrize(
    ("name", "value"), [("SPINE_GRADING", "1"), ("NBGRADER_EXECUTION", "validate")]
)
def test_grading_and_validating_raise_what_a_lesson_prints(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(Wrong, match="the smallest"):
        check("99.1", lambda image: image.min())
    with pytest.raises(NotYet):
        check("99.1", cell("def brightest(image): ..."))
    check("99.1", lambda image: image.max())
    assert capsys.readouterr().out.count("Exercise") == 1


def test_a_hand_out_checks_on_the_open_inputs(hand_out, told, capsys):
    assert hidden_inputs("99.1") == []
    assert "right, on 3 inputs" in told(lambda image: image.max())
    solution("99.1")
    assert capsys.readouterr().out.count("\n") == 1


def test_hints_come_one_after_the_other_and_by_level(capsys):
    for expected in ("1 of 3 for 99.1: Look at all.", "2 of 3 for 99.1: It is", "3 of 3", "3 of 3"):
        hint("99.1")
        assert expected in capsys.readouterr().out
    hint("99.1", 1)
    assert "Look at all" in capsys.readouterr().out
    with pytest.raises(SpineError, match="no hint 4"):
        hint("99.1", 4)


def test_the_solution_is_the_references_source(capsys):
    solution("99.1")
    text = capsys.readouterr().out
    assert text.startswith("def brightest(image):") and "# one look is enough" in text


def test_progress_tells_what_was_done_in_this_session(capsys):
    check("99.1", lambda image: image.min())
    hint("99.1")
    progress()
    out = capsys.readouterr().out
    assert "not right yet, 1 hint\n0 of 1 done." in out
    check("99.1", lambda image: image.max())
    progress()
    assert "done, 2 tries, 1 hint\n1 of 1 done." in capsys.readouterr().out


def test_progress_survives_a_restart_of_a_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check("99.1", lambda image: image.max())
    assert not list(tmp_path.glob(".progress*"))  # no notebook of a reader
    monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "lesson.ipynb"))
    check("99.1", lambda image: image.max())
    for text, words in ((None, "done, 2 tries"), ("{", "not yet"), ('{"99.1": 3}', "not yet")):
        if text:
            (tmp_path / ".progress.json").write_text(text, encoding="utf-8")
        monkeypatch.setattr(checking, "_RECORDS", {})
        progress()
        lines = capsys.readouterr().out.splitlines()
        assert [line for line in lines if "99.1" in line][-1].endswith(words)


def test_progress_before_anything_was_done_lists_every_lesson(capsys):
    progress()
    listed = capsys.readouterr().out
    assert 99 in lesson_numbers() and "99.1  Brightest voxel" in listed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((2, 3), np.int16), "an int16 array of shape (2, 3)"),
        (np.zeros(1, np.uint8), "a uint8 array of shape (1,)"),
        (np.float32(2.5), "2.5"),
        ((1, "a"), "(1, 'a')"),
        (list(range(9)), "a list of 9"),
        ("x" * 80, "'" + "x" * 56 + "..."),
    ],
)
def test_values_are_described_in_few_words(value, words):
    assert describe(value) == words


@pytest.mark.parametrize(
    "text",
    ["title: x\n  stub: y", "title: x\n  stub: y\n  hints: [a, b]",
     "title: x\n  stub: y\n  hints: [a, b, c]",
     "title: x\n  stub: y\n  hints: [a, b, c]\n  wrong: {}\n  hnts: z"],
)  # fmt: skip
def test_a_text_that_is_missing_is_named_with_its_file_and_exercise(tmp_path, text):
    path = tmp_path / "lesson_09.yaml"
    path.write_text(f"'9.1':\n  {text}\n", encoding="utf-8")
    with pytest.raises(SpineError, match="lesson_09.yaml: exercise 9.1 is not complete"):
        lesson_texts(path)
