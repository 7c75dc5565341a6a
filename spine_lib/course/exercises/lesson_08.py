"""Exercises of lesson 8: test a table for consistency, read the results of a run."""

from __future__ import annotations

import numpy as np

from spine_lib.course.exercise import Exercise, variants


def iou_from_dice(dice):
    """Return the IoU of the mask pair that has this Dice."""
    return dice / (2 - dice)


def some_dices(rng: np.random.Generator, count: int = 3) -> list[float]:
    """Draw a few Dice scores as papers print them."""
    return rng.uniform(0.3, 0.98, count).round(3).tolist()


# --- 8.2 ------------------------------------------------------------------------------------------


def mean_iou_bounds(mean_dice, decimals):
    half_a_unit = 0.5 * 10**-decimals
    least = max(mean_dice - half_a_unit, 0.0)
    most = min(mean_dice + half_a_unit, 1.0)
    return least / (2 - least), most


@variants
def _bounds(
    mean, n, low=iou_from_dice, high=lambda d: d, half=lambda n: 0.5 * 10**-n, ends=(0.0, 1.0)
):
    return low(max(mean - half(n), ends[0])), high(min(mean + half(n), ends[1]))


BOUNDS = Exercise(
    "8.2",
    reference=mean_iou_bounds,
    wrong={
        "you took the printed value for exact: any mean within half a unit of the last decimal is "
        "printed as {mean_dice}, so widen both ends": (
            _bounds(half=lambda n: 0),
            _bounds(half=lambda n: 0, high=iou_from_dice),
        ),
        "only one end is widened: the mean may lie above and below what is printed": (
            lambda mean, n: (iou_from_dice(mean), mean_iou_bounds(mean, n)[1]),
            lambda mean, n: (mean_iou_bounds(mean, n)[0], mean),
        ),
        "no score leaves 0 to 1: cut the range of the mean there": (
            _bounds(ends=(-9, 9)),
            _bounds(ends=(0, 9)),
            _bounds(ends=(-9, 1)),
        ),
        "your highest is the IoU of scans that are all alike; scans of 1 or 0 have IoU = Dice "
        "each, and so their means are equal, too": _bounds(high=iou_from_dice),
        "your lowest is not that of scans that are all alike: D / (2 - D) bends upwards, so the "
        "mean IoU is lowest, and above 0, where all have the same Dice": (
            _bounds(low=lambda dice: 0),
            _bounds(low=lambda dice: dice),
            _bounds(low=lambda dice: dice / 2),
        ),
        "widen the mean Dice, then turn its lower end into an IoU: rounding is not the IoU's": (
            lambda mean, n: (
                max(iou_from_dice(mean) - 0.5 * 10**-n, 0),
                mean_iou_bounds(mean, n)[1],
            )
        ),
        "the two are exchanged: return the lowest first": (
            lambda mean, n: mean_iou_bounds(mean, n)[::-1]
        ),
        "rounding moves a value by half a unit of the last decimal at most: 0.5 * 10**-decimals": (
            _bounds(half=lambda n: 10**-n),
            _bounds(half=lambda n: 0.1**n / 20),
            _bounds(half=lambda n: 0.5 / max(n, 1)),
            _bounds(half=lambda n: 0.5),
            _bounds(half=lambda n: 0.05),
        ),
    },
    inputs=lambda rng: [
        *((round(dice, n), n) for dice, n in zip(some_dices(rng), (2, 1, 3))),
        (1.0, 2),
        (0.0, 1),
    ],
)

# --- 8.3 ------------------------------------------------------------------------------------------


def class_mean_iou(dice, prevalence):
    missed = (1 - dice) * prevalence  # and as many false positives
    right_background = 1 - prevalence - missed
    background_iou = right_background / (right_background + 2 * missed)
    return (background_iou + dice / (2 - dice)) / 2


@variants
def _classes(d, p, spine=iou_from_dice, ground=None, mean=None, missed=lambda d, p: (1 - d) * p):
    wrong = missed(d, p)
    tn = 1 - p - wrong
    background = ground(tn, wrong) if ground else tn / (tn + 2 * wrong)
    return mean(background, spine(d), p) if mean else (background + spine(d)) / 2


CLASSES = Exercise(
    "8.3",
    reference=class_mean_iou,
    wrong={
        "this is the spine's IoU alone, not the mean of both": _classes(mean=lambda b, s, p: s),
        "this is the background's IoU alone, not the mean of both": _classes(
            mean=lambda b, s, p: b
        ),
        "this is the sum of the two: halve it": _classes(mean=lambda b, s, p: b + s),
        "you weighted each class by its share of the voxels; in a class mean both count alike, "
        "however rare one is": _classes(mean=lambda b, s, p: (1 - p) * b + p * s),
        "you took the background's IoU for 1, which is close where spine is rare, but not equal": (
            _classes(ground=lambda tn, wrong: 1)
        ),
        "this is the background's share of the voxels, or the accuracy, in place of its IoU": (
            _classes(ground=lambda tn, wrong: tn + wrong),
            _classes(ground=lambda tn, wrong: 1 - 2 * wrong),
        ),
        "turn the spine's Dice into an IoU before you average": _classes(spine=lambda dice: dice),
        "this averages the background's Dice: turn it into an IoU, too": (
            _classes(ground=lambda tn, wrong: tn / (tn + wrong)),
            _classes(ground=lambda tn, wrong: tn / (tn + wrong), spine=lambda dice: dice),
        ),
        "true negatives are 1 - prevalence - FP: background that is predicted as spine is not "
        "among them": _classes(ground=lambda tn, wrong: (tn + wrong) / (tn + 3 * wrong)),
        "(1 - dice) is the share of the *spine* that is missed: multiply it by the prevalence, and "
        "do not halve it": (
            _classes(missed=lambda dice, share: (1 - dice) * share / 2),
            _classes(missed=lambda dice, share: 1 - dice),
        ),
    },
    inputs=lambda rng: [
        (float(dice), float(share))
        for dice, share in zip(rng.uniform(0.6, 0.95, 4), rng.uniform(0.02, 0.3, 4))
    ],
)

# --- 8.4 ------------------------------------------------------------------------------------------


def implied_prevalence(accuracy, dice):
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits, hits + wrong


def two_scores(rng: np.random.Generator) -> tuple[float, float]:
    """Draw accuracy and Dice that one segmentation can have."""
    tp, wrong, tn = (int(rng.integers(*ends)) for ends in ((300, 2000), (40, 600), (5000, 9000)))
    return (tp + tn) / (tp + wrong + tn), 2 * tp / (2 * tp + wrong)


@variants
def _shares(accuracy, dice, tp=None, ends=lambda tp, e: (tp, tp + e), wrong=lambda a: 1 - a):
    e = wrong(accuracy)
    return ends(tp(e, dice) if tp else dice * e / (2 * (1 - dice)), e)


PREVALENCE = Exercise(
    "8.4",
    reference=implied_prevalence,
    wrong={
        "your true positives are twice what they are: Dice counts them twice, Dice = 2 TP / (2 TP "
        "+ errors)": _shares(tp=lambda e, d: d * e / (1 - d)),
        "spine in the truth is TP + FN: without misses it is TP, and without false positives all "
        "errors are misses, which are added": (
            _shares(ends=lambda tp, e: (tp - e, tp)),
            _shares(ends=lambda tp, e: (tp, tp)),
            _shares(ends=lambda tp, e: (tp, e)),
            _shares(ends=lambda tp, e: (tp - e, tp + e)),
            _shares(ends=lambda tp, e: (0, tp + e)),
        ),
        "without any false positives all errors are misses, not half of them": (
            _shares(ends=lambda tp, e: (tp, tp + e / 2)),
            _shares(ends=lambda tp, e: (tp - e / 2, tp + e / 2)),
        ),
        "the share of wrong voxels is 1 - accuracy, and you took the accuracy itself": (
            _shares(wrong=lambda a: a)
        ),
        "the two are exchanged: without misses the truth is smallest, so it is first": (
            _shares(ends=lambda tp, e: (tp + e, tp))
        ),
        "the Dice enters as it is: do not turn it into an IoU": (
            lambda a, dice: implied_prevalence(a, iou_from_dice(dice))
        ),
        "Dice = 2 TP / (2 TP + e) solved for TP gives Dice · e / (2 (1 - Dice))": (
            _shares(tp=lambda e, d: e / (2 * (1 - d))),
            _shares(tp=lambda e, d: e * (1 - d) / (2 * d)),
            _shares(tp=lambda e, d: d * e / (2 - d)),
            _shares(tp=lambda e, d: d * e / 2 * (1 - d)),
        ),
    },
    inputs=lambda rng: [two_scores(rng) for _ in range(4)],
)

# --- 8.6 ------------------------------------------------------------------------------------------


def iou_minus_dice(counts):
    def differences(tp, fp, fn, tn):
        dice = 2 * tp / (2 * tp + fp + fn)
        spine, background = tp / (tp + fp + fn), tn / (tn + fp + fn)
        return spine - dice, (spine + background) / 2 - dice

    spine, classes = differences(*counts.sum(axis=0))
    spine_each, classes_each = differences(*counts.T)
    return {
        "spine, pooled": spine,
        "spine, per volume": spine_each.mean(),
        "classes, pooled": classes,
        "classes, per volume": classes_each.mean(),
    }


def some_counts(rng: np.random.Generator, volumes: int) -> np.ndarray:
    """Make the counts of volumes of very different size and prevalence: int [volume, 4]."""
    spine = rng.integers(2000, 9000, volumes) * (1 + 5 * np.arange(volumes))
    fp, fn = (rng.uniform(0.05, 0.4, (2, volumes)) * spine).astype(int)
    return np.stack([spine - fn, fp, fn, (spine * rng.uniform(4, 120, volumes)).astype(int)], 1)


def _dice(tp, fp, fn, tn):
    return 2 * tp / (2 * tp + fp + fn)


def _iou(tp, fp, fn, tn):
    return tp / (tp + fp + fn)


def _ground(tp, fp, fn, tn):
    return tn / (tn + fp + fn)


def _both(tp, fp, fn, tn):
    return (_iou(tp, fp, fn, tn) + _ground(tp, fp, fn, tn)) / 2


def _pooled(score, counts):
    return score(*counts.sum(axis=0))


def _each(score, counts):
    return score(*counts.T).mean()


@variants
def _four(counts, spine=_iou, classes=_both, dice=_dice, pooled=_pooled, each=_each, sign=1):
    return {
        f"{name}, {way}": sign * (mean(score, counts) - mean(dice, counts))
        for name, score in (("spine", spine), ("classes", classes))
        for way, mean in (("pooled", pooled), ("per volume", each))
    }


GAPS = Exercise(
    "8.6",
    reference=iou_minus_dice,
    wrong={
        "your signs are turned: subtract the Dice from the IoU": _four(sign=-1),
        "pooled and per volume are exchanged: to pool is to add up the counts first": (
            _four(pooled=_each, each=_pooled)
        ),
        '"pooled" is not the mean over volumes: add up the counts of all volumes, then score': (
            _four(pooled=_each)
        ),
        '"per volume" is the mean of each volume\'s score: a large volume counts no more than a '
        "small one": (_four(each=_pooled), _four(each=lambda score, n: score(*n.T).sum())),
        "subtract the Dice, and keep the sign": (
            _four(dice=lambda *c: 0 * c[0]),
            lambda counts: {name: abs(gap) for name, gap in iou_minus_dice(counts).items()},
        ),
        "the Dice is always the spine's own: you averaged it over both classes, too": (
            _four(dice=lambda *c: (_dice(*c) + _dice(*c[::-1])) / 2)
        ),
        '"classes" is the mean of background and spine: this is the background\'s IoU alone': (
            _four(classes=_ground)
        ),
        '"classes" is a mean of two IoUs, not the accuracy': (
            _four(classes=lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn))
        ),
        '"classes" is the mean of two IoUs: halve their sum': _four(
            classes=lambda *c: 2 * _both(*c)
        ),
        "the overlap counts twice in the Dice, above and below, and once in the IoU": (
            _four(dice=lambda tp, fp, fn, tn: 2 * tp / (tp + fp + fn)),
            _four(dice=_iou),
            _four(spine=_dice),
        ),
    },
    inputs=lambda rng: [(some_counts(rng, volumes),) for volumes in (2, 3, 5)],
)
