"""Exercises of lesson 7: counts, scores, empty masks, surface distances, chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import numpy as np
from scipy import ndimage

from spine_lib import metrics
from spine_lib.course.exercise import Wrong, declare, describe
from spine_lib.course.judging_statistics import (
    judge_flip,
    judge_interval,
    numbers,
    same,
    some_differences,
    some_scores,
)

# --- 7.1 ------------------------------------------------------------------------------------------


def a_scored_pair(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make two masks that overlap in part, and an ignore region that holds some of everything."""
    rng = np.random.default_rng([7, 1, seed])
    shape = (9, 11, 6)[: 2 + seed % 2]
    truth = rng.random(shape) < 0.3
    prediction = np.where(rng.random(shape) < 0.75, truth, rng.random(shape) < 0.45)
    return prediction.astype(bool), truth, rng.random(shape) < 0.2


def _judge_count(function: Callable, arguments: tuple) -> None:
    prediction, truth, ignore = arguments
    c = metrics.confusion(prediction, truth, ignore)
    every = metrics.confusion(prediction, truth)
    answer = numbers(function(prediction, truth, ignore), 4, "tp, fp, fn, tn")
    mistakes = (
        (_four(every), "you counted ignored voxels too: nobody knows what is right there"),
        (
            (c.tp, c.fp, c.fn, c.tn + int(ignore.sum())),
            "your true negatives include the ignored voxels: set to False they count as "
            "background on both sides; leave them out instead",
        ),
        (
            (c.tp, c.fn, c.fp, c.tn),
            "false positives and false negatives are exchanged: positive is what was *predicted*, "
            "and false that it is not true",
        ),
        ((c.tn, c.fp, c.fn, c.tp), "the order is tp, fp, fn, tn: yours begins with the negatives"),
        (
            tuple(item / c.total for item in _four(c)),
            "these are shares of all voxels: return how many there are",
        ),
        (
            (c.tp + c.fp, c.fp, c.fn, c.tn + c.fn),
            "you counted all predicted voxels as tp: those that are not spine are fp",
        ),
    )
    if answer == _four(c):
        return
    for values, message in mistakes:
        if all(same(item, value) for item, value in zip(answer, values)):
            raise Wrong(message)
    wrong = next(n for n, (item, right) in enumerate(zip(answer, _four(c))) if item != right)
    name = ("tp", "fp", "fn", "tn")[wrong]
    raise Wrong(f"your {name} is {answer[wrong]:g}, and there are {_four(c)[wrong]}")


def _four(c: metrics.Confusion) -> tuple[int, int, int, int]:
    return c.tp, c.fp, c.fn, c.tn


# --- 7.2 ------------------------------------------------------------------------------------------

SCORE_NAMES = ("iou", "dice", "precision", "recall", "accuracy")


def _judge_scores(function: Callable, arguments: tuple) -> None:
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


def _judge_mean(function: Callable, arguments: tuple) -> None:
    (counts,) = arguments
    result = metrics.mean_scores([metrics.Confusion(*row, 0) for row in counts.tolist()])
    right = (result["dice"], result["undefined"], result["false_positive_on_empty"])
    answer = numbers(function(counts), 3, "the mean, and two counts")
    tp, fp, fn = counts.T.astype(float)
    empty, alarm = tp + fp + fn == 0, (tp + fn == 0) & (fp > 0)
    dice = np.where(empty, 0, 2 * tp / np.maximum(2 * tp + fp + fn, 1))
    mistakes = (
        (math.nan, "your mean is NaN: one slice that is 0 / 0 makes it so; leave such slices out"),
        (dice.mean(), "your mean counts slices that are empty on both sides as 0: leave them out"),
        (
            (dice + empty).mean(),
            "your mean counts slices that are empty on both sides as 1, as if finding nothing were "
            "an achievement: leave them out",
        ),
        (
            dice[~empty & ~alarm].mean(),
            "you left out every slice without truth: where something was predicted all the same, "
            "the score is 0, or false alarms would cost nothing",
        ),
        (
            2 * tp.sum() / (2 * tp + fp + fn).sum(),
            "this is the Dice of all slices pooled: compute one for each slice, then their mean",
        ),
        (
            dice[tp > 0].mean(),
            "you averaged only slices with a true positive: one in which everything was missed "
            "scores 0 and belongs to the mean",
        ),
    )
    for value, message in mistakes:
        if same(answer[0], value) and not same(answer[0], right[0]):
            raise Wrong(message)
    if not same(answer[0], right[0]):
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


def _judge_distances(function: Callable, arguments: tuple) -> None:
    prediction, truth, spacing = arguments
    right, back = metrics.surface_distances(prediction, truth, spacing)
    answer = np.asarray(function(prediction, truth, spacing), float)
    if answer.ndim != 1 or answer.size == 0:
        raise Wrong(f"return a list of distances, one for each surface voxel, not {answer.shape}")
    for values, message in _distance_mistakes(prediction, truth, spacing, back):
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


def _distance_mistakes(prediction, truth, spacing, back) -> list[tuple[np.ndarray, str]]:
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in (prediction, truth)]
    away = ndimage.distance_transform_edt
    to_surface = away(~surfaces[1], spacing)
    return [
        (
            back,
            "these are the distances from the truth's surface to the prediction's: go from the "
            "prediction to the truth",
        ),
        (
            away(~surfaces[1])[surfaces[0]],
            "your distances are in voxels: a step along each axis has its own length in mm",
        ),
        (
            away(~surfaces[1], spacing[::-1])[surfaces[0]],
            "spacing_mm is in the order x, y, z, as "
            "the axes of the arrays are: do not turn it round",
        ),
        (
            away(~truth, spacing)[surfaces[0]],
            "inside the truth your distances are 0: measure to "
            "its *surface*, so that a prediction that is too small is found as well",
        ),
        (
            away(surfaces[1], spacing)[surfaces[0]],
            "your distance is 0 nearly everywhere: the transform measures to the nearest False, so "
            "turn the truth's surface round (~)",
        ),
        (
            to_surface[prediction],
            "you measured from every voxel of the prediction: take those of its surface only",
        ),
        (
            to_surface[edges[0]],
            "voxels at the edge of the array are missing: there the mask ends, "
            "so they are surface too",
        ),
        (
            _both_ways(surfaces, spacing),
            "these are both directions together: return those from the prediction to the truth",
        ),
    ]


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
