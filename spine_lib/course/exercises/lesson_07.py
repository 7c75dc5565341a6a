"""Exercises of lesson 7: counts, scores, empty masks, surface distances, chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
from scipy import ndimage, stats

from spine_lib import metrics
from spine_lib.course.exercise import Wrong, declare, describe, raise_known
from spine_lib.metrics import statistics

JUDGED_RESAMPLES = 20_000


def some_scores(seed: int, patients: int = 12) -> np.ndarray:
    """Make scores of patients, some of whom did badly."""
    rng = np.random.default_rng([7, 5, seed])
    return (0.95 - rng.gamma(1.6, 0.05, patients)).round(4)


def judge_interval(function: Callable, *arguments) -> None:
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
    for message, ends in _interval_mistakes(values, means).items():
        if near(tuple(ends), 0.3):
            raise Wrong(message)
    shorter = "narrower" if high - low < np.ptp(np.percentile(means, (2.5, 97.5))) else "wider"
    raise Wrong(
        f"your interval is {low:.3f} to {high:.3f}, {shorter} than it should be: is each set as "
        f"large as the first, {values.size} patients, and did you draw {resamples} sets?"
    )


def _interval_mistakes(values: np.ndarray, means: np.ndarray) -> dict:
    error = means.std()
    return {
        "this is where single *patients* lie: take the mean "
        "of each resampled set, and percentiles of these means": np.percentile(values, (2.5, 97.5)),
        "these are the 5th and 95th percentile, which leave out "
        "10 %: 95 % lie between the 2.5th and the 97.5th": np.percentile(means, (5, 95)),
        "these are quartiles: half of the means lie between": np.percentile(means, (25, 75)),
        "this is the mean plus and minus one standard error, which holds about 68 %": (
            means.mean() + error * np.array([-1, 1])
        ),
        "this is the spread of single patients, not of their mean": (
            values.mean() + values.std() * np.array([-1.96, 1.96])
        ),
        "these are the lowest and the highest mean, which move outwards the more you draw": (
            means.min(),
            means.max(),
        ),
    }


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


def judge_flip(function: Callable, differences) -> None:
    """Judge an exact sign-flip p-value; `arguments` are the differences.

    Raises:
        Wrong: in the student's terms.
    """
    right = statistics.sign_flip_test(differences, minimum=1).p_value
    answer = function(differences)
    if not isinstance(answer, Real) or isinstance(answer, bool):
        raise Wrong(f"return one number, not {describe(answer)}")
    if same(answer, right):
        return
    raise_known(answer, _flip_mistakes(differences, right), rtol=1e-6, atol=1e-9)
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


def _flip_mistakes(differences: np.ndarray, right: float) -> dict:
    n = differences.size
    sums = np.array([differences @ signs for signs in _all_signs(n)])
    observed, tied = differences.sum(), 1e-12
    ups = np.count_nonzero(differences > 0)
    return {
        "you counted flips in one direction only: a mean as far below 0 is as strange, and "
        "nobody said before which model would win": np.mean(sums >= observed - tied),
        "you counted only flips that are *more* extreme: the observed choice is one of them, so "
        "no p-value can be 0": np.mean(np.abs(sums) > abs(observed) + tied),
        "this is a number of flips: divide it by how many there are": right * len(sums),
        "this is the share of flips that are less extreme": 1 - right,
        "this is the p-value of a t-test, which takes the differences to be normally "
        "distributed: flip the signs": stats.ttest_1samp(differences, 0).pvalue,
        "this only counts who won how often: the *mean* of the "
        "flipped differences is to be compared": stats.binomtest(ups, n).pvalue,
        "this is the p-value of a test on ranks: compare means of flipped "
        "differences": stats.wilcoxon(differences).pvalue,
    }


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


# --- 7.1 ------------------------------------------------------------------------------------------


def a_scored_pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make two masks that overlap in part, and an ignore region that holds some of everything."""
    rng = np.random.default_rng([7, 1, seed])
    shape = (9, 11, 6)[: 2 + seed % 2]
    truth = rng.random(shape) < 0.3
    prediction = np.where(rng.random(shape) < 0.75, truth, rng.random(shape) < 0.45)
    return prediction.astype(bool), truth, rng.random(shape) < 0.2


def _judge_count(function: Callable, prediction, truth, ignore) -> None:
    c = metrics.confusion(prediction, truth, ignore)
    every = metrics.confusion(prediction, truth)
    answer = numbers(function(prediction, truth, ignore), 4, "tp, fp, fn, tn")
    mistakes = {
        "you counted ignored voxels too: nobody knows what is right there": _four(every),
        "your true negatives include the ignored voxels: set to False they count as background "
        "on both sides; leave them out instead": (c.tp, c.fp, c.fn, c.tn + int(ignore.sum())),
        "false positives and false negatives are exchanged: positive is what was *predicted*, "
        "and false that it is not true": (c.tp, c.fn, c.fp, c.tn),
        "the order is tp, fp, fn, tn: yours begins with the negatives": (c.tn, c.fp, c.fn, c.tp),
        "these are shares of all voxels: return how many there are": tuple(
            item / c.total for item in _four(c)
        ),
        "you counted all predicted voxels as tp: those that are not spine are fp": (
            c.tp + c.fp,
            c.fp,
            c.fn,
            c.tn + c.fn,
        ),
    }
    if answer == _four(c):
        return
    raise_known(answer, mistakes, rtol=1e-6, atol=1e-9)
    wrong = next(n for n, (item, right) in enumerate(zip(answer, _four(c))) if item != right)
    name = ("tp", "fp", "fn", "tn")[wrong]
    raise Wrong(f"your {name} is {answer[wrong]:g}, and there are {_four(c)[wrong]}")


def _four(c: metrics.Confusion) -> tuple[int, int, int, int]:
    return c.tp, c.fp, c.fn, c.tn


# --- 7.2 ------------------------------------------------------------------------------------------

SCORE_NAMES = ("iou", "dice", "precision", "recall", "accuracy")


def _judge_scores(function: Callable, *arguments) -> None:
    c = metrics.Confusion(*arguments)
    scores = metrics.scores(c)
    right = {name: scores[name] for name in SCORE_NAMES}
    answer = function(*arguments)
    if not isinstance(answer, dict) or set(answer) != set(SCORE_NAMES):
        raise Wrong(
            f"return a dictionary with the keys {', '.join(SCORE_NAMES)}, and not "
            + (
                f"one with {', '.join(map(str, answer))}"
                if answer and isinstance(answer, dict)
                else describe(answer)
            )
        )
    for name in SCORE_NAMES:
        value = answer[name]
        if not isinstance(value, Real) or isinstance(value, bool):
            raise Wrong(f"your {name} is {describe(value)}: give a number")
        if not same(value, right[name]):
            raise Wrong(_score_message(name, float(value), right, c))


def _score_message(name: str, value: float, right: dict, c: metrics.Confusion) -> str:
    if math.isnan(right[name]):
        return (
            f"your {name} is {value:g} for counts of {_four(c)}: it would be 0 / 0, and whoever "
            "gives it a value decides what an empty mask is worth; say NaN"
        )
    counts = f"of {_four(c)}"
    if same(value, 100 * right[name]):
        return f"your {name} is in per cent: leave it a fraction"
    other = {"iou": "dice", "dice": "iou", "precision": "recall", "recall": "precision"}.get(name)
    if other and same(value, right[other]):
        more = {
            "iou": "IoU counts tp once, on both sides of the fraction",
            "dice": "Dice counts tp twice, on both sides of the fraction",
            "precision": "precision asks how much of what was *predicted* is right",
            "recall": "recall asks how much of the *truth* was found",
        }[name]
        return f"your {name} {counts} is the {other}: {more}"
    if name == "accuracy" and same(value, c.tp / c.total):
        return "your accuracy forgets the true negatives: background that is right is right"
    if name == "dice" and c.tp and same(value, 2 * c.tp / (c.tp + c.fp + c.fn)):
        return f"your dice {counts} is {value:.3f}: tp counts twice below the line too"
    return f"your {name} {counts} is {value:.4g} instead of {right[name]:.4g}"


# --- 7.3 ------------------------------------------------------------------------------------------


def some_counts(seed: int) -> np.ndarray:
    """Make counts of slices: some empty, some with false alarms only, some missed."""
    rng = np.random.default_rng([7, 3, seed])
    rows = rng.integers(1, 40, (int(rng.integers(8, 14)), 3))
    rows[: 2 + seed] = 0
    rows[2 + seed : 4 + seed, [0, 2]] = 0
    rows[4 + seed, [0, 1]] = 0
    return rng.permutation(rows)


def _judge_mean(function: Callable, counts) -> None:
    result = metrics.mean_scores([metrics.Confusion(*row, 0) for row in counts.tolist()])
    right = (result["dice"], result["undefined"], result["false_positive_on_empty"])
    answer = numbers(function(counts), 3, "the mean, and two counts")
    tp, fp, fn = counts.T.astype(float)
    empty, alarm = tp + fp + fn == 0, (tp + fn == 0) & (fp > 0)
    dice = np.where(empty, 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1))
    mistakes = {
        "your mean is NaN: one slice that is 0 / 0 makes it so; leave such slices out": math.nan,
        "your mean counts slices that are empty on both sides as 0: leave them out": dice.mean(),
        "your mean counts slices that are empty on both sides as 1, as if finding nothing were "
        "an achievement: leave them out": (dice + empty).mean(),
        "you left out every slice without truth: where something was predicted all the same, "
        "the score is 0, or false alarms would cost nothing": dice[~empty & ~alarm].mean(),
        "this is the Dice of all slices pooled: compute one for each slice, then their mean": (
            2 * tp.sum() / (2 * tp + fp + fn).sum()
        ),
        "you averaged only slices with a true positive: one in which everything was missed "
        "scores 0 and belongs to the mean": dice[tp > 0].mean(),
    }
    if not same(answer[0], right[0]):
        raise_known(answer[0], mistakes, rtol=1e-6, atol=1e-9)
        raise Wrong(f"your mean is {answer[0]:.4g} instead of {right[0]:.4g}")
    if answer[1:] == right[:0:-1] and answer[1] != answer[2]:
        raise Wrong("the two counts are exchanged: first the slices left out, then false alarms")
    for position, what in ((1, "slices are empty on both sides"), (2, "have only false positives")):
        if answer[position] != right[position]:
            raise Wrong(f"you report {answer[position]:g}, and {right[position]} {what}")


# --- 7.4 ------------------------------------------------------------------------------------------


def a_surface_pair(seed: int) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Make two solids that differ, with a hole, on voxels that are no cubes."""
    rng = np.random.default_rng([7, 4, seed])
    x, y, z = np.indices((15, 17, 12))
    middle = rng.uniform(6, 8, 3) - (0, 0, 2)
    truth = ((x - middle[0]) / 5) ** 2 + ((y - middle[1]) / 4.2) ** 2 + (
        (z - middle[2]) / 3.2
    ) ** 2 < 1
    prediction = np.roll(truth, (1, 2), (0, 2)) & ~((np.abs(x - 7) < 2) & (np.abs(y - 6) < 2))
    prediction[12:15, 9:12, 3:6] = True
    spacing = rng.permutation([0.7, 1.0, 3.0]) * rng.uniform(0.9, 1.1)
    return prediction, truth, tuple(float(item) for item in spacing.round(2))


def _judge_distances(function: Callable, prediction, truth, spacing) -> None:
    right, back = metrics.surface_distances(prediction, truth, spacing)
    answer = np.asarray(function(prediction, truth, spacing), float)
    if answer.ndim != 1 or answer.size == 0:
        raise Wrong(f"return a list of distances, one for each surface voxel, not {answer.shape}")
    for message, values in _distance_mistakes(prediction, truth, spacing, back).items():
        if _same_values(answer, values) and not _same_values(answer, right):
            raise Wrong(message)
    if answer.size != right.size:
        raise Wrong(
            f"the prediction has {right.size} surface voxels, and you return {answer.size} "
            "distances: a surface voxel belongs to the mask, and one of its six faces does not"
        )
    if not _same_values(answer, right):
        raise Wrong(
            f"your largest distance is {answer.max():.3f} mm and the mean {answer.mean():.3f}; "
            f"they should be {right.max():.3f} and {right.mean():.3f}"
        )


def _distance_mistakes(prediction, truth, spacing, back) -> dict[str, np.ndarray]:
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (prediction, truth)]
    away = ndimage.distance_transform_edt
    to_surface = away(~surfaces[1], spacing)
    return {
        "these are the distances from the truth's surface to the prediction's: go from the "
        "prediction to the truth": back,
        "your distances are in voxels: a step along each axis has its own length in mm": away(
            ~surfaces[1]
        )[surfaces[0]],
        "spacing_mm is in the order x, y, z, as the axes of the arrays are: do not turn it "
        "round": away(~surfaces[1], spacing[::-1])[surfaces[0]],
        "inside the truth your distances are 0: measure to its *surface*, so that a prediction "
        "that is too small is found as well": away(~truth, spacing)[surfaces[0]],
        "your distance is 0 nearly everywhere: the transform measures to the nearest False, so "
        "turn the truth's surface round (~)": away(surfaces[1], spacing)[surfaces[0]],
        "you measured from every voxel of the prediction: take those of its surface "
        "only": to_surface[prediction],
        "voxels at the edge of the array are missing: there the mask ends, "
        "so they are surface too": to_surface[edges[0]],
        "these are both directions together: return those from the prediction to the "
        "truth": _both_ways(surfaces, spacing),
    }


def _both_ways(surfaces: list[np.ndarray], spacing: tuple[float, ...]) -> np.ndarray:
    item, other = surfaces
    away = ndimage.distance_transform_edt
    return np.concatenate([away(~other, spacing)[item], away(~item, spacing)[other]])


# --- 7.5 and 7.6 ------------------------------------------------------------------------------


# --- what several judges need ---------------------------------------------------------------------


def _same_values(answer: np.ndarray, right: np.ndarray) -> bool:
    return answer.size == right.size and np.allclose(np.sort(answer), np.sort(right), atol=1e-6)


EXERCISES = declare(
    __file__,
    {
        "7.1": (lambda: [a_scored_pair(seed) for seed in range(3)], _judge_count),
        "7.2": (
            lambda: [(30, 10, 20, 940), (0, 0, 0, 500), (0, 7, 0, 93), (0, 0, 9, 91), (8, 0, 2, 0)],
            _judge_scores,
        ),
        "7.3": (lambda: [(some_counts(seed),) for seed in range(3)], _judge_mean),
        "7.4": (lambda: [a_surface_pair(seed) for seed in range(3)], _judge_distances),
        "7.5": (
            lambda: [
                (some_scores(0), 4000, 0),
                (some_scores(1, 30), 4000, 5),
                (some_scores(2, 8), 5000, 1),
            ],
            judge_interval,
        ),
        "7.6": (
            lambda: [(some_differences(0),), (some_differences(1, 7),), (some_differences(2, 9),)],
            judge_flip,
        ),
    },
)
