"""Exercises of lesson 7: counts, scores, empty masks, surface distances, chance."""

from __future__ import annotations

import itertools
import math
from numbers import Real

import numpy as np
from scipy import stats

from spine_lib.course.exercise import Exercise, Wrong, describe, variants

# --- 7.1 ------------------------------------------------------------------------------------------


def count_voxels(prediction, truth, ignore):
    scored = ~ignore
    tp = np.count_nonzero(prediction & truth & scored)
    fp = np.count_nonzero(prediction & ~truth & scored)
    fn = np.count_nonzero(~prediction & truth & scored)
    tn = np.count_nonzero(~prediction & ~truth & scored)
    return tp, fp, fn, tn


def a_scored_pair(rng: np.random.Generator, shape: tuple, ignored: float) -> tuple:
    """Make two masks that overlap in part, and an ignore region that holds some of everything."""
    truth = rng.random(shape) < 0.3
    prediction = np.where(rng.random(shape) < 0.75, truth, rng.random(shape) < 0.45)
    return prediction.astype(bool), truth, rng.random(shape) < ignored


def _in_order(*order: int):
    return lambda *masks: tuple(np.array(count_voxels(*masks))[list(order)])


COUNTS = Exercise(
    "7.1",
    reference=count_voxels,
    wrong={
        "you counted ignored voxels, too: nobody knows what is right there": (
            lambda p, t, ignore: count_voxels(p, t, ignore & False),
            lambda p, t, ignore: (*count_voxels(p, t, ignore)[:3], (~p & ~t).sum()),
        ),
        "you counted the ignored voxels alone: turn that mask round (`~ignore`)": (
            lambda p, t, ignore: count_voxels(p, t, ~ignore)
        ),
        "your true negatives include the ignored voxels: set to False they count as background on "
        "both sides, so leave them out instead": (
            lambda p, t, ignore: count_voxels(p & ~ignore, t & ~ignore, ignore & False)
        ),
        "false positives and false negatives are exchanged: positive is what was *predicted*, and "
        "false that it is not true": _in_order(0, 2, 1, 3),
        "the order is tp, fp, fn, tn: yours is another": tuple(
            _in_order(*order) for order in ((3, 1, 2, 0), (3, 2, 1, 0), (0, 3, 1, 2), (0, 1, 3, 2))
        ),
        "these are shares of all voxels: return how many there are": (
            lambda p, t, ignore: tuple(np.array(count_voxels(p, t, ignore)) / (~ignore).sum()),
            lambda p, t, ignore: tuple(np.array(count_voxels(p, t, ignore)) / t.size),
        ),
    },
    inputs=lambda rng: [
        a_scored_pair(rng, shape, share)
        for shape, share in (((9, 11), 0.2), ((9, 7, 5), 0.3), ((40,), 0.2))
    ],
)

# --- 7.3 ------------------------------------------------------------------------------------------


def mean_dice(counts):
    tp, fp, fn = counts.T
    empty = tp + fp + fn == 0
    false_alarm = (tp + fn == 0) & (fp > 0)
    dice = 2 * tp[~empty] / (2 * tp + fp + fn)[~empty]
    return dice.mean(), empty.sum(), false_alarm.sum()


def some_counts(rng: np.random.Generator, empty: int, alarms: int, missed: int) -> np.ndarray:
    """Make counts of slices: some empty, some with false alarms only, some missed."""
    rows = rng.integers(1, 40, (empty + alarms + missed + int(rng.integers(5, 9)), 3))
    rows[:empty] = 0
    rows[-1, 0] = 0  # predicted and true, in different voxels
    rows[empty : empty + alarms, [0, 2]] = 0
    rows[empty + alarms : empty + alarms + missed, [0, 1]] = 0
    return rng.permutation(rows)


@variants
def _slices(counts, mean=lambda dice, *c: np.nanmean(dice), left_out=None, alarms=None):
    tp, fp, fn = counts.T
    _, empty, false = mean_dice(counts)
    first = mean(2 * tp / (2 * tp + fp + fn), tp, fp, fn)
    return first, left_out(*counts.T) if left_out else empty, alarms(*counts.T) if alarms else false


MEAN = Exercise(
    "7.3",
    reference=mean_dice,
    wrong={
        "your mean is NaN: one slice that is 0 / 0 makes it so, so leave such slices out": _slices(
            mean=lambda dice, *c: dice.mean()
        ),
        "slices that are empty on both sides count as 0 in your mean: leave them out": _slices(
            mean=lambda dice, *c: np.nan_to_num(dice).mean()
        ),
        "slices that are empty on both sides count as 1, as if finding nothing there were an "
        "achievement: leave them out": _slices(
            mean=lambda dice, *c: np.nan_to_num(dice, nan=1).mean()
        ),
        "you left out every slice without truth: where something was predicted all the same, the "
        "score is 0": _slices(mean=lambda dice, tp, fp, fn: dice[tp + fn > 0].mean()),
        "this is the Dice of all slices pooled: compute one for each slice, then their "
        "mean": _slices(mean=lambda _, tp, fp, fn: 2 * tp.sum() / (2 * tp + fp + fn).sum()),
        "a slice in which all was missed scores 0 and belongs to the mean": (
            _slices(mean=lambda dice, tp, fp, fn: dice[tp > 0].mean()),
            _slices(mean=lambda dice, tp, fp, fn: dice[tp + fp > 0].mean()),
        ),
        "this is the mean IoU: Dice is 2 tp / (2 tp + fp + fn)": (
            _slices(mean=lambda _, tp, fp, fn: np.nanmean(tp / (tp + fp + fn)))
        ),
        "the two counts are exchanged: first the slices left out, then those with a prediction but "
        "no truth": lambda counts: tuple(np.array(mean_dice(counts))[[0, 2, 1]]),
        "the last number counts slices with a prediction (fp > 0) but no truth (tp + fn == 0)": (
            _slices(alarms=lambda tp, fp, fn: (tp + fn == 0).sum()),
            _slices(alarms=lambda tp, fp, fn: (fp > 0).sum()),
            _slices(alarms=lambda tp, fp, fn: ((tp == 0) & (fp > 0)).sum()),
        ),
        "the second number counts slices that are empty on both sides": (
            _slices(left_out=lambda tp, fp, fn: (tp + fp + fn > 0).sum()),
            _slices(left_out=lambda tp, fp, fn: (tp + fn == 0).sum()),
            _slices(left_out=lambda tp, fp, fn: (tp == 0).sum()),
        ),
    },
    inputs=lambda rng: [
        (some_counts(rng, *kinds),) for kinds in ((2, 1, 2), (3, 2, 1), (1, 4, 3), (4, 0, 1))
    ],
)

# --- 7.5 ------------------------------------------------------------------------------------------


def interval_of_mean(values, resamples, seed):
    generator = np.random.default_rng(seed)
    sets = generator.choice(values, (resamples, len(values)))
    low, high = np.percentile(sets.mean(axis=1), [2.5, 97.5])
    return low, high


def _ends(function, values, resamples, seed):
    """Return both ends in standard errors from the mean, and how they depend on the seed."""
    answers = [function(values, resamples, seed + more) for more in (0, 0, 1, 2)]
    for ends in answers:
        if not isinstance(ends, tuple | list | np.ndarray) or np.shape(ends) != (2,):
            raise Wrong(f"return two numbers, and not {describe(ends)}")
    first, again, *others = (tuple(map(float, ends)) for ends in answers)
    errors = (np.array(first) - values.mean()) / (values.std() / math.sqrt(values.size))
    return {
        "ends": first,
        "errors": errors,
        "repeats": again == first,
        "moves": others != [first] * 2,
    }


def _compare_ends(answer: dict, right: dict) -> str | None:
    # Chance moves an end of 8000 draws by 0.03 standard errors, and more where few draws lie.
    within = np.where(np.abs(right["errors"]) > 2.5, 0.6, 0.2) if right["moves"] else 0.12
    if (np.abs(answer["errors"] - right["errors"]) > within).any():
        width, wanted = np.ptp(answer["errors"]), np.ptp(right["errors"])
        return "your interval is {:.3f} to {:.3f}, and should be {:.3f} to {:.3f}".format(
            *answer["ends"], *right["ends"]
        ) + (": is each set as large as the first?" if abs(width / wanted - 1) > 0.1 else "")
    if right["repeats"] and right["moves"] and not answer["repeats"]:
        return (
            "the same seed gave two different intervals: make a generator from it, "
            "np.random.default_rng(seed), and draw from that"
        )
    if right["repeats"] and right["moves"] and not answer["moves"]:
        return "three seeds gave one and the same interval"
    return None


@variants
def _interval(values, resamples, seed, score=np.mean, ends=(2.5, 97.5), size=1.0, replace=True):
    rng = np.random.default_rng(seed)
    sets = rng.permuted(np.tile(values, (resamples, 1)), axis=1)
    if replace:
        sets = rng.choice(values, (resamples, max(int(size * len(values)), 1)))
    return tuple(np.percentile(score(sets, axis=1), ends))


def _around(spread):
    return lambda values, *draw: values.mean() + spread(values) * np.array([-1, 1])


INTERVAL = Exercise(
    "7.5",
    reference=interval_of_mean,
    wrong={
        "`np.percentile` takes per cent: 2.5 and 97.5, not 0.025 and 0.975": (
            _interval(ends=(0.025, 0.975))
        ),
        "these are medians of the resampled sets: the interval is to be of their means": (
            _interval(score=np.median)
        ),
        "your interval has next to no width: draw with replacement (`replace=True`), and take the "
        "mean of each set (`axis=1`)": _interval(replace=False),
        "this is where single *patients* lie: take the mean of each resampled set, and percentiles "
        "of these means": (
            lambda values, *draw: tuple(np.percentile(values, (2.5, 97.5))),
            _interval(size=0),
        ),
        "these are the 5th and 95th percentile, which leave out 10 %: 95 % lie between the 2.5th "
        "and the 97.5th": _interval(ends=(5, 95)),
        "these are quartiles: half of the means lie between": _interval(ends=(25, 75)),
        "three seeds gave one and the same interval: draw with the seed that is given": (
            lambda values, resamples, seed: interval_of_mean(values, resamples, 0)
        ),
        "this is the mean plus and minus one standard error, which holds about 68 %": _around(
            lambda values: values.std() / math.sqrt(values.size)
        ),
        "this is the mean plus and minus 1.96 standard errors: the percentiles of the means lie "
        "unevenly": _around(lambda values: 1.96 * values.std() / math.sqrt(values.size)),
        "this is the standard deviation of single patients, not of their mean": (
            _around(lambda values: 1.96 * values.std()),
            _around(np.std),
        ),
        "these are the lowest and the highest mean, which move outwards the more you draw": (
            _interval(ends=(0, 100))
        ),
        "the upper end comes first: return the lower one first": _interval(ends=(97.5, 2.5)),
        "each set is to be as large as the first, all patients": _interval(size=0.5),
    },
    inputs=lambda rng: [
        ((0.95 - rng.gamma(1.6, 0.05, n)).round(4), 8000, int(rng.integers(99)))
        for n in (10, 30, 12)
    ],
    observe=_ends,
    compare=_compare_ends,
)

# --- 7.6 ------------------------------------------------------------------------------------------


def sign_flip_p(differences):
    signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums = signs @ differences
    return float(np.mean(np.abs(sums) >= abs(differences.sum())))


def some_differences(rng: np.random.Generator, patients: int, middle: float) -> np.ndarray:
    """Make paired differences; multiples of 1/1024, so that equal sums are equal."""
    return np.rint(1024 * rng.normal(middle, 0.03, patients)) / 1024


def _of_both_orders(function, differences):
    """Return the p-value, which the order of patients does not change."""
    answer, other = function(differences), function(differences[::-1].copy())
    if isinstance(answer, Real) and isinstance(other, Real) and abs(answer - other) > 1e-9:
        raise Wrong(
            f"two calls with the same patients, in another order, gave {answer:.4g} and "
            f"{other:.4g}: do not draw flips at random, go through all 2 ** n of them"
        )
    return answer


def _flips(score):
    """Return a p-value made of the sums of all flips and the observed one."""
    return lambda d: score(np.array(list(itertools.product([1, -1], repeat=len(d)))) @ d, d.sum())


FLIPS = Exercise(
    "7.6",
    reference=sign_flip_p,
    wrong={
        "you counted flips in one direction only: a mean as far on the other side of 0 is as "
        "unusual, and nobody said before which model would win": (
            _flips(lambda sums, seen: (sums >= seen).mean()),
            _flips(lambda sums, seen: (sums <= seen).mean()),
            _flips(lambda sums, seen: (sums >= abs(seen)).mean()),
            _flips(lambda sums, seen: (np.abs(sums) >= seen).mean()),
        ),
        "you counted only flips that are *farther* from 0 (`>`): the observed choice is one of "
        "them, so no p-value can be 0": (
            _flips(lambda sums, seen: (np.abs(sums) > abs(seen)).mean()),
            _flips(lambda sums, seen: (sums > abs(seen)).mean()),
        ),
        "this is a number of flips: divide it by how many there are": (
            lambda d: sign_flip_p(d) * 2 ** len(d)
        ),
        "the observed choice is one of the 2 ** n: neither leave it out nor add it": (
            _flips(lambda sums, seen: ((np.abs(sums) >= abs(seen)).sum() - 1) / (sums.size - 1)),
            _flips(lambda sums, seen: ((np.abs(sums) >= abs(seen)).sum() + 1) / (sums.size + 1)),
        ),
        "this is the p-value of a t-test, which takes the differences to be normally distributed: "
        "flip the signs": lambda d: stats.ttest_1samp(d, 0).pvalue,
        "this only counts who won how often: the *mean* of the flipped differences is to be "
        "compared": (
            lambda d: stats.binomtest(int((d > 0).sum()), len(d)).pvalue,
            lambda d: (d > 0).mean(),
        ),
        "this is the p-value of a test on ranks: compare means of flipped differences": (
            lambda d: stats.wilcoxon(d).pvalue
        ),
        "one sign at a time is flipped: take all choices of signs, 2 ** n": lambda d: np.mean(
            np.abs(d.sum() - 2 * d) >= abs(d.sum())
        ),
    },
    inputs=lambda rng: [
        (some_differences(rng, patients, middle),)
        for patients, middle in ((8, 0.02), (7, -0.02), (9, 0.01), (6, 0.04), (8, -0.01))
    ],
    observe=_of_both_orders,
)
