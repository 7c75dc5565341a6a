"""Judge answers that are numbers: scores, bootstrap intervals, p-values of paired tests.

A p-value or an interval that is wrong looks like any other. So the judges work out what the usual
mistakes would give on the same numbers, and tell which of them it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
from scipy import stats

from spine_lib.course.exercise import Wrong, describe
from spine_lib.metrics import statistics

JUDGED_RESAMPLES = 20_000


def some_scores(seed: int, patients: int = 12) -> np.ndarray:
    """Make scores of patients, some of whom did badly."""
    rng = np.random.default_rng([7, 5, seed])
    return (0.95 - rng.gamma(1.6, 0.05, patients)).round(4)


def judge_interval(function: Callable, arguments: tuple) -> None:
    """Judge a percentile interval of a mean; `arguments` are values, resamples and seed.

    Raises:
        Wrong: in the student's terms.
    """
    values, resamples, seed = arguments
    low, high = numbers(function(values, resamples, seed), 2, "two numbers")
    if low > high:
        raise Wrong("the upper end comes first: return the lower one first")
    draws = np.random.default_rng(1).choice(values, (JUDGED_RESAMPLES, values.size))
    means = draws.mean(axis=1)
    error = means.std()

    def near(ends: tuple[float, float], within: float = 0.22) -> bool:
        return max(abs(low - ends[0]), abs(high - ends[1])) < within * error

    if near(tuple(np.percentile(means, (2.5, 97.5)))):
        _judge_draws(function, arguments, (low, high))
        return
    if high - low < 1e-9:
        raise Wrong(
            "your interval has no width: drawn without replacement, every new set holds the same "
            "patients; `replace=True`"
        )
    for ends, message in _interval_mistakes(values, means):
        if near(tuple(ends), 0.3):
            raise Wrong(message)
    shorter = "narrower" if high - low < np.ptp(np.percentile(means, (2.5, 97.5))) else "wider"
    raise Wrong(
        f"your interval is {low:.3f} to {high:.3f}, {shorter} than it should be: is each set as "
        f"large as the first, {values.size} patients, and did you draw {resamples} sets?"
    )


def _interval_mistakes(values: np.ndarray, means: np.ndarray) -> tuple:
    error = means.std()
    return (
        (
            np.percentile(values, (2.5, 97.5)),
            "this is where single *patients* lie: take the mean "
            "of each resampled set, and percentiles of these means",
        ),
        (
            np.percentile(means, (5, 95)),
            "these are the 5th and 95th percentile, which leave out "
            "10 %: 95 % lie between the 2.5th and the 97.5th",
        ),
        (np.percentile(means, (25, 75)), "these are quartiles: half of the means lie between"),
        (
            means.mean() + error * np.array([-1, 1]),
            "this is the mean plus and minus one standard error, which holds about 68 %",
        ),
        (
            values.mean() + values.std() * np.array([-1.96, 1.96]),
            "this is the spread of single patients, not of their mean",
        ),
        (
            (means.min(), means.max()),
            "these are the lowest and the highest mean, which move outwards the more you draw",
        ),
    )


def _judge_draws(function: Callable, arguments: tuple, ends: tuple[float, float]) -> None:
    values, resamples, seed = arguments
    if tuple(numbers(function(*arguments), 2, "two numbers")) != ends:
        raise Wrong(
            "the same seed gave two different intervals: make a generator from it, "
            "np.random.default_rng(seed), and draw from that"
        )
    others = [function(values, resamples, seed + more) for more in (1, 2)]
    if all(tuple(float(item) for item in other) == ends for other in others):
        raise Wrong("three seeds gave one and the same interval: draw with the seed that is given")


def some_differences(seed: int, patients: int = 8) -> np.ndarray:
    """Make paired differences; multiples of 1/1024, so that equal sums are equal."""
    rng = np.random.default_rng([7, 6, seed])
    values = np.rint(1024 * rng.normal(0.02, 0.03, patients)) / 1024
    return values if seed else np.abs(values[:6]) + 1 / 1024


def judge_flip(function: Callable, arguments: tuple) -> None:
    """Judge an exact sign-flip p-value; `arguments` are the differences.

    Raises:
        Wrong: in the student's terms.
    """
    (differences,) = arguments
    right = statistics.sign_flip_test(differences, minimum=1).p_value
    answer = function(differences)
    if not isinstance(answer, Real) or isinstance(answer, bool):
        raise Wrong(f"return one number, not {describe(answer)}")
    if same(answer, right):
        return
    for value, message in _flip_mistakes(differences, right):
        if same(answer, value):
            raise Wrong(message)
    n = differences.size
    if abs(answer - right) < 0.06 and (answer * 2**n) % 1 > 1e-6:
        raise Wrong(
            f"your p-value, {answer:.4f}, is near the exact one but no multiple of 1 / {2**n}: do "
            "not draw flips at random, go through all of them"
        )
    raise Wrong(
        f"your p-value is {answer:.4g} instead of {right:.4g}, which is {right * 2**n:.0f} of "
        f"{2**n} flips"
    )


def _flip_mistakes(differences: np.ndarray, right: float) -> tuple:
    n = differences.size
    sums = np.array([differences @ signs for signs in _all_signs(n)])
    observed, tied = differences.sum(), 1e-12
    ups = np.count_nonzero(differences > 0)
    return (
        (
            np.mean(sums >= observed - tied),
            "you counted flips in one direction only: a mean as far "
            "below 0 is as strange, and nobody said before which model would win",
        ),
        (
            np.mean(np.abs(sums) > abs(observed) + tied),
            "you counted only flips that are *more* "
            "extreme: the observed choice is one of them, so no p-value can be 0",
        ),
        (right * len(sums), "this is a number of flips: divide it by how many there are"),
        (1 - right, "this is the share of flips that are less extreme"),
        (
            stats.ttest_1samp(differences, 0).pvalue,
            "this is the p-value of a t-test, which takes "
            "the differences to be normally distributed: flip the signs",
        ),
        (
            stats.binomtest(ups, n).pvalue,
            "this only counts who won how often: the *mean* of the "
            "flipped differences is to be compared",
        ),
        (
            stats.wilcoxon(differences).pvalue,
            "this is the p-value of a test on ranks: compare means of flipped differences",
        ),
    )


def _all_signs(n: int) -> np.ndarray:
    return 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)


def same(answer: float, right: float) -> bool:
    """Tell whether two numbers agree, NaN with NaN."""
    if math.isnan(answer) or math.isnan(right):
        return math.isnan(answer) and math.isnan(right)
    return math.isclose(answer, right, rel_tol=1e-6, abs_tol=1e-9)


def numbers(answer: object, count: int, what: str) -> tuple:
    """Return an answer as so many plain numbers, or say that it is none.

    Raises:
        Wrong: in the student's terms.
    """
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    if not isinstance(answer, tuple | list) or len(answer) != count:
        raise Wrong(f"return {what}, and not {describe(answer)}")
    for item in answer:
        if not isinstance(item, Real) or isinstance(item, bool):
            raise Wrong(f"return {what}: one of yours is {describe(item)}")
    return tuple(item.item() if isinstance(item, np.generic) else item for item in answer)
