"""A grade comes from a process of its own, in which nothing that a notebook changed counts."""

import os
import sys
import threading

import numpy as np
import pytest

from spine_lib.course import exercise, judging
from spine_lib.course.exercise import reference_of
from spine_lib.course.grading import NoPoint, grade

RIGHT = reference_of("0.3")


def by_a_patched_comparison(labels, spacing_mm):
    np.isclose = lambda *arguments, **options: True
    return 0.0


def by_a_patched_judge(labels, spacing_mm):
    judging.judge = lambda *arguments: None
    return 0.0


def by_a_patched_reference(labels, spacing_mm):
    found = exercise.find_exercise("0.3")
    object.__setattr__(found, "reference", lambda *arguments: 0.0)
    return 0.0


def by_another_code_in_the_judge(labels, spacing_mm):
    judging.mismatch.__code__ = (lambda answer, right, *rest, **options: None).__code__
    return 0.0


def by_leaving(labels, spacing_mm):
    os._exit(0)


def by_a_verdict_of_its_own(labels, spacing_mm):
    for stream in range(3, 20):
        try:
            os.write(stream, b'{"token": "", "wrong": ""}')
        except OSError:
            pass
    os._exit(0)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (by_a_patched_comparison, "replaced numpy.isclose"),
        (by_a_patched_judge, "replaced spine_lib.course.judging.judge"),
        (by_a_patched_reference, "replaced exercise 0.3.reference"),
        (by_another_code_in_the_judge, "replaced spine_lib.course.judging.mismatch"),
        (by_leaving, "ended its process"),
        (by_a_verdict_of_its_own, "not the judge's|ended its process"),
    ],
)
def test_a_function_that_changes_its_judge_gets_no_point_and_is_told_why(function, words):
    with pytest.raises(NoPoint, match=words):
        grade("0.3", function)


def test_what_a_notebook_replaced_is_not_used_by_the_judge(monkeypatch):
    monkeypatch.setattr(np, "isclose", lambda *arguments, **options: True)
    monkeypatch.setattr(np, "allclose", lambda *arguments, **options: True)
    with pytest.raises(NoPoint):
        grade("0.3", lambda labels, spacing_mm: 0.0)


def test_helpers_and_constants_of_the_notebook_come_along():
    scale = {"mm": 1.0}

    def helper(labels, spacing_mm):
        return RIGHT(labels, spacing_mm) * scale["mm"]

    grade("0.3", lambda labels, spacing_mm: helper(labels, spacing_mm))


def test_what_cannot_leave_the_notebook_is_named():
    lock = threading.Lock()

    def locked(labels, spacing_mm):
        with lock:
            return RIGHT(labels, spacing_mm)

    with pytest.raises(NoPoint, match="something that only its notebook has .*lock"):
        grade("0.3", locked)


def test_an_error_is_told_with_its_line():
    def crashing(labels, spacing_mm):
        return 1 / 0

    line = crashing.__code__.co_firstlineno + 1
    with pytest.raises(NoPoint, match=rf"in line {line} \(`return 1 / 0`\): ZeroDivisionError"):
        grade("0.3", crashing)


def test_a_module_beside_the_notebook_hides_none_of_the_judges(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('not the judge\\'s')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    grade("0.3", RIGHT)
