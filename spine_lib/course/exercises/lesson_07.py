"""Exercises of lesson 7: counts, scores, empty masks, surface distances, chance."""

import itertools
import math
from numbers import Real

import numpy as np
from scipy import stats

from spine_lib.course.exercise import Wrong, describe, exercise, expect
from spine_lib.course.mistakes import Edit, edit, edits


def a_scored_pair(rng: np.random.Generator, shape: tuple, ignored: float) -> tuple:
    """Make two masks that overlap in part, and an ignore region that holds some of everything."""
    truth = rng.random(shape) < 0.3
    prediction = np.where(rng.random(shape) < 0.75, truth, rng.random(shape) < 0.45)
    return prediction.astype(bool), truth, rng.random(shape) < ignored


@exercise(
    "7.1",
    wrong={
        "ignored too": edit("= ~ignore", "= True"),
        "ignored alone": edit("= ~ignore", "= ignore"),
        "ignored as background": edit(
            "np.count_nonzero(~prediction & ~truth & scored)", "truth.size - tp - fp - fn"
        ),
        "exchanged": edit("return tp, fp, fn", "return tp, fn, fp"),
        "another order": edits(
            "tp, fp, fn, tn\n",
            "tn, fp, fn, tp\n",
            "tn, fn, fp, tp\n",
            "tp, tn, fp, fn\n",
            "tp, fp, tn, fn\n",
        ),
        "shares": edit(
            "return tp, fp, fn, tn", "return tuple(np.array([tp, fp, fn, tn]) / scored.sum())"
        ),
        "all predicted": (
            edit("(prediction & ~truth", "(prediction", "(~prediction & truth", "(truth"),
            edit("(prediction & ~truth", "(truth", "(~prediction & truth", "(prediction"),
        ),
    },
    inputs=lambda rng: [
        a_scored_pair(rng, shape, share)
        for shape, share in (((9, 11), 0.2), ((9, 7, 5), 0.3), ((40,), 0.2))
    ],
)
def count_voxels(prediction, truth, ignore):
    scored = ~ignore
    tp = np.count_nonzero(prediction & truth & scored)
    fp = np.count_nonzero(prediction & ~truth & scored)
    fn = np.count_nonzero(~prediction & truth & scored)
    tn = np.count_nonzero(~prediction & ~truth & scored)
    return tp, fp, fn, tn


PANELS = {
    "precision 1": "A",
    "precision far below recall": "B",
    "precision equal to recall": "C",
    "the highest Dice, and the largest distance": "D",
}


def _letters(letters: str):
    return lambda description: dict(zip(PANELS, letters))[description]


def _compare_panels(answer: object, right: str) -> str | None:
    if answer not in [*PANELS.values()]:
        return f'return "A", "B", "C" or "D", a capital letter, and not {describe(answer)}'
    return None if answer == right else f"panel {answer} does not fit this description: count again"


@exercise(
    "7.2",
    wrong={
        "exchanged": (_letters("BACD"), _letters("BADC")),
        "shift": _letters("ABDC"),
        "a few false positives": (_letters("DBCA"), _letters("DACB")),
        "small for large": (_letters("ADCB"), _letters("CBAD")),
    },
    inputs=lambda rng: [(description,) for description in rng.permutation([*PANELS]).tolist()],
    compare=_compare_panels,
)
def panel_with(description):
    return PANELS[description]


def some_counts(rng: np.random.Generator, empty: int, alarms: int, missed: int) -> np.ndarray:
    """Make counts of slices: some empty, some with false alarms only, some missed."""
    rows = rng.integers(1, 40, (empty + alarms + missed + int(rng.integers(5, 9)), 3))
    rows[:empty] = 0
    rows[-1, 0] = 0  # predicted and true, in different voxels
    rows[-2, 1] = rows[-3, 2] = rows[-4, 1:] = 0
    rows[empty, 1] = 1
    rows[empty : empty + alarms, [0, 2]] = 0
    rows[empty + alarms : empty + alarms + missed, [0, 1]] = 0
    return rng.permutation(rows)


@exercise(
    "7.3",
    wrong={
        "NaN": edit("[~empty]", ""),
        "empty as 0": edit("dice.mean()", "dice.sum() / len(tp)"),
        "empty as 1": edit("dice.mean()", "(dice.sum() + empty.sum()) / len(tp)"),
        "no truth left out": (
            edit("dice.mean()", "dice[(tp + fn > 0)[~empty]].mean()"),
            edit("tp + fp + fn == 0", "tp + fn == 0"),
        ),
        "pooled": edit("dice.mean()", "2 * tp.sum() / (2 * tp + fp + fn).sum()"),
        "missed left out": edits(
            "dice.mean()", "dice[dice > 0].mean()", "dice[(tp + fp > 0)[~empty]].mean()"
        ),
        "IoU": edit("2 * tp", "tp"),
        "exchanged": edit("empty.sum(), false_alarm.sum()", "false_alarm.sum(), empty.sum()"),
        "other false alarms": edits(
            "(tp + fn == 0) & (fp > 0)",
            "tp + fn == 0",
            "fp > 0",
            "(tp == 0) & (fp > 0)",
            "(tp == 0) & ~empty",
        ),
        "other empty slices": edits(
            "empty.sum(), f", "(~empty).sum(), f", "(tp + fn == 0).sum(), f", "(tp == 0).sum(), f"
        ),
        "smoothed": edit("dice.mean()", "np.mean((2 * tp + 1) / (2 * tp + fp + fn + 1))"),
        "median": edit("dice.mean()", "np.median(dice)"),
    },
    inputs=lambda rng: [
        (some_counts(rng, *kinds),) for kinds in ((2, 1, 2), (3, 2, 1), (1, 4, 3), (4, 0, 1))
    ],
)
def mean_dice(counts):
    tp, fp, fn = counts.T
    empty = tp + fp + fn == 0
    false_alarm = (tp + fn == 0) & (fp > 0)
    dice = 2 * tp[~empty] / (2 * tp + fp + fn)[~empty]
    return dice.mean(), empty.sum(), false_alarm.sum()


def _ends(function, values, resamples, seed):
    """Return both ends in standard errors from the mean, and how they depend on the seed."""
    answers = [function(values, resamples, seed + more) for more in (0, 0, 1, 2)]
    kinds = tuple | list | np.ndarray
    pairs = [tuple(map(float, expect(ends, kinds, "two numbers"))) for ends in answers]
    first, again, *others = pairs
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
        ) + (": is each set as large as the first?" if abs(width - wanted) > wanted / 10 else "")
    if answer["repeats"] != right["repeats"]:
        return "the same seed gave two different intervals"
    if answer["moves"] != right["moves"]:
        return "three seeds gave one and the same interval"
    return None


def _around(spread: str) -> Edit:
    """Return an interval that reaches to both sides of the mean alike."""
    percentiles = "np.percentile(sets.mean(axis=1), [2.5, 97.5])"
    return edit(percentiles, f"values.mean() + {spread} * np.array([-1, 1])")


@exercise(
    "7.5",
    wrong={
        "fractions": edit("[2.5, 97.5]", "[0.025, 0.975]"),
        "medians": edit("sets.mean(axis=1)", "np.median(sets, axis=1)"),
        "not replaced": edits("sets.mean(axis=1)", "sets.mean(axis=0)", "values.mean()"),
        "single patients": edits("sets.mean(axis=1)", "values", "sets[:, 0]"),
        "90 per cent": edit("[2.5, 97.5]", "[5, 95]"),
        "quartiles": edit("[2.5, 97.5]", "[25, 75]"),
        "no seed": edit("(seed)", "()"),
        "seed left out": edit("(seed)", "(0)"),
        "one standard error": _around("values.std() / math.sqrt(values.size)"),
        "normal": _around("1.96 * values.std() / math.sqrt(values.size)"),
        "standard deviation": (_around("1.96 * values.std()"), _around("values.std()")),
        "extremes": edit("[2.5, 97.5]", "[0, 100]"),
        "exchanged": edit("return low, high", "return high, low"),
        "small sets": edit("len(values)", "len(values) // 2"),
        "two deviations": _around("2 * values.std()"),
    },
    inputs=lambda rng: [
        ((0.95 - rng.gamma(1.6, 0.05, n)).round(4), 8000, int(rng.integers(99)))
        for n in (10, 30, 12)
    ],
    observe=_ends,
    compare=_compare_ends,
)
def interval_of_mean(values, resamples, seed):
    generator = np.random.default_rng(seed)
    sets = generator.choice(values, (resamples, len(values)))
    low, high = np.percentile(sets.mean(axis=1), [2.5, 97.5])
    return low, high


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


@exercise(
    "7.6",
    wrong={
        "one side": (
            edit("np.abs(sums) >= abs(differences.sum())", "sums >= differences.sum()"),
            edit("np.abs(sums)", "sums"),
        ),
        "farther alone": (edit(">=", ">"), edit("np.abs(sums) >=", "sums >")),
        "a number": edit("np.mean", "np.sum"),
        "observed left out": tuple(
            edit("np.mean(", "(np.sum(", ".sum())))", f".sum())) {more}) / (len(sums) {more}))")
            for more in ("- 1", "+ 1")
        ),
        "t-test": lambda d: stats.ttest_1samp(d, 0).pvalue,
        "sign test": (
            lambda d: stats.binomtest(int((d > 0).sum()), len(d)).pvalue,
            lambda d: (d > 0).mean(),
        ),
        "ranks": lambda d: stats.wilcoxon(d).pvalue,
        "one flip at a time": lambda d: np.mean(np.abs(d.sum() - 2 * d) >= abs(d.sum())),
        "the smallest p-value": (lambda d: 0.5 ** len(d), lambda d: 2 * 0.5 ** len(d)),
        "nearer": edit(">=", "<="),
    },
    inputs=lambda rng: [
        (some_differences(rng, patients, middle),)
        for patients, middle in ((8, 0.02), (7, -0.02), (9, 0.01), (6, 0.04), (8, -0.01))
    ],
    observe=_of_both_orders,
)
def sign_flip_p(differences):
    signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums = signs @ differences
    return float(np.mean(np.abs(sums) >= abs(differences.sum())))
