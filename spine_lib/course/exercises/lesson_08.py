"""Exercises of lesson 8: test a table for consistency, read the results of a run."""

import numpy as np

from spine_lib.course.exercise import Exercise, variants


def iou_from_dice(dice):
    """Return the IoU of the mask pair that has this Dice."""
    return dice / (2 - dice)


def some_dices(rng: np.random.Generator, count: int = 3) -> list[float]:
    """Draw a few Dice scores as papers print them."""
    return rng.uniform(0.3, 0.98, count).round(3).tolist()


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
        "not widened": (_bounds(half=lambda n: 0), _bounds(half=lambda n: 0, high=iou_from_dice)),
        "one end widened": (
            lambda mean, n: (iou_from_dice(mean), mean_iou_bounds(mean, n)[1]),
            lambda mean, n: (mean_iou_bounds(mean, n)[0], mean),
        ),
        "beyond 0 to 1": (_bounds(ends=(-9, 9)), _bounds(ends=(0, 9)), _bounds(ends=(-9, 1))),
        "highest alike": _bounds(high=iou_from_dice),
        "lowest not alike": (
            _bounds(low=lambda dice: 0),
            _bounds(low=lambda dice: dice),
            _bounds(low=lambda dice: dice / 2),
        ),
        "IoU widened": lambda mean, n: (
            max(iou_from_dice(mean) - 0.5 * 10**-n, 0),
            mean_iou_bounds(mean, n)[1],
        ),
        "exchanged": lambda mean, n: mean_iou_bounds(mean, n)[::-1],
        "another unit": (
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
        "spine alone": _classes(mean=lambda b, s, p: s),
        "background alone": _classes(mean=lambda b, s, p: b),
        "sum": _classes(mean=lambda b, s, p: b + s),
        "weighted": _classes(mean=lambda b, s, p: (1 - p) * b + p * s),
        "background perfect": _classes(ground=lambda tn, wrong: 1),
        "accuracy": (
            _classes(ground=lambda tn, wrong: tn + wrong),
            _classes(ground=lambda tn, wrong: 1 - 2 * wrong),
        ),
        "Dice of spine": _classes(spine=lambda dice: dice),
        "Dice of background": (
            _classes(ground=lambda tn, wrong: tn / (tn + wrong)),
            _classes(ground=lambda tn, wrong: tn / (tn + wrong), spine=lambda dice: dice),
        ),
        "false positives kept": _classes(ground=lambda tn, wrong: (tn + wrong) / (tn + 3 * wrong)),
        "another miss": (
            _classes(missed=lambda dice, share: (1 - dice) * share / 2),
            _classes(missed=lambda dice, share: 1 - dice),
        ),
        "Dice and 1": _classes(spine=lambda dice: dice, ground=lambda tn, wrong: 1),
    },
    inputs=lambda rng: [
        (float(dice), float(share))
        for dice, share in zip(rng.uniform(0.6, 0.95, 4), rng.uniform(0.02, 0.3, 4))
    ],
)


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
        "hits doubled": _shares(tp=lambda e, d: d * e / (1 - d)),
        "other ends": (
            _shares(ends=lambda tp, e: (tp - e, tp)),
            _shares(ends=lambda tp, e: (tp, tp)),
            _shares(ends=lambda tp, e: (tp, e)),
            _shares(ends=lambda tp, e: (tp - e, tp + e)),
            _shares(ends=lambda tp, e: (0, tp + e)),
        ),
        "half the errors": (
            _shares(ends=lambda tp, e: (tp, tp + e / 2)),
            _shares(ends=lambda tp, e: (tp - e / 2, tp + e / 2)),
        ),
        "accuracy for errors": _shares(wrong=lambda a: a),
        "exchanged": _shares(ends=lambda tp, e: (tp + e, tp)),
        "IoU": lambda a, dice: implied_prevalence(a, iou_from_dice(dice)),
        "solved wrongly": (
            _shares(tp=lambda e, d: e / (2 * (1 - d))),
            _shares(tp=lambda e, d: e * (1 - d) / (2 * d)),
            _shares(tp=lambda e, d: d * e / (2 - d)),
            _shares(tp=lambda e, d: d * e / 2 * (1 - d)),
        ),
    },
    inputs=lambda rng: [two_scores(rng) for _ in range(4)],
)


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
        "turned round": _four(sign=-1),
        "exchanged": _four(pooled=_each, each=_pooled),
        "volumes for pooled": _four(pooled=_each),
        "pooled for volumes": (_four(each=_pooled), _four(each=lambda score, n: score(*n.T).sum())),
        "no Dice or sign": (
            _four(dice=lambda *c: 0 * c[0]),
            lambda counts: {name: abs(gap) for name, gap in iou_minus_dice(counts).items()},
        ),
        "Dice of both": _four(dice=lambda *c: (_dice(*c) + _dice(*c[::-1])) / 2),
        "background alone": _four(classes=_ground),
        "accuracy": _four(classes=lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn)),
        "sum": _four(classes=lambda *c: 2 * _both(*c)),
        "other formula": (
            _four(dice=lambda tp, fp, fn, tn: 2 * tp / (tp + fp + fn)),
            _four(dice=_iou),
            _four(spine=_dice),
        ),
    },
    inputs=lambda rng: [(some_counts(rng, volumes),) for volumes in (2, 3, 5)],
)
