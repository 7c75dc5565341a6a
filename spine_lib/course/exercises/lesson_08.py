"""Exercises of lesson 8: test a table for consistency, read the results of a run."""

import numpy as np

from spine_lib.course.exercise import exercise
from spine_lib.course.mistakes import edit, edits


def some_dices(rng: np.random.Generator, count: int = 3) -> list[float]:
    """Draw a few Dice scores as papers print them."""
    return rng.uniform(0.3, 0.98, count).round(3).tolist()


@exercise(
    "8.2",
    wrong={
        "not widened": (edit("0.5", "0"), edit("0.5", "0", ", most\n", ", most / (2 - most)\n")),
        "one end widened": (edit("- half_a_unit", ""), edit("+ half_a_unit", "")),
        "beyond 0 to 1": edit("0.0)", "-9.0)", "1.0)", "9.0)"),
        "highest alike": edit(", most\n", ", most / (2 - most)\n"),
        "lowest not alike": edits("least / (2 - least)", "0", "least", "least / 2"),
        "IoU widened": edit(
            "least / (2 - least)", "max(mean_dice / (2 - mean_dice) - half_a_unit, 0)"
        ),
        "rounded": edit(
            "least / (2 - least), most",
            "round(least / (2 - least), decimals), round(most, decimals)",
        ),
        "exchanged": edit("least / (2 - least), most", "most, least / (2 - least)"),
        "another unit": edits(
            "0.5 * 10**-decimals", "10**-decimals", "0.1**decimals / 20", "0.5", "0.05"
        ),
    },
    inputs=lambda rng: [
        *((round(dice, n), n) for dice, n in zip(some_dices(rng), (2, 1, 3))),
        (1.0, 2),
        (0.0, 1),
    ],
)
def mean_iou_bounds(mean_dice, decimals):
    half_a_unit = 0.5 * 10**-decimals
    least = max(mean_dice - half_a_unit, 0.0)
    most = min(mean_dice + half_a_unit, 1.0)
    return least / (2 - least), most


@exercise(
    "8.3",
    wrong={
        "spine alone": edit("(background_iou + dice / (2 - dice)) / 2", "dice / (2 - dice)"),
        "background alone": edit("(background_iou + dice / (2 - dice)) / 2", "background_iou"),
        "weighted": edit(
            "(background_iou + dice / (2 - dice)) / 2",
            "(1 - prevalence) * background_iou + prevalence * dice / (2 - dice)",
        ),
        "background perfect": edit("(background_iou", "(1"),
        "accuracy": edit("/ (right_background + 2 * missed)", "+ missed"),
        "Dice of spine": edit("dice / (2 - dice)", "dice"),
        "Dice of background": (
            edit("2 * missed", "missed"),
            edit("2 * missed", "missed", "dice / (2 - dice)", "dice"),
        ),
        "false positives kept": edit("prevalence - missed", "prevalence"),
        "another miss": edits(
            "(1 - dice) * prevalence", "(1 - dice) * prevalence / 2", "(1 - dice)"
        ),
        "Dice and 1": edit("background_iou + dice / (2 - dice)", "1 + dice"),
    },
    inputs=lambda rng: [
        (float(dice), float(share))
        for dice, share in zip(rng.uniform(0.6, 0.95, 4), rng.uniform(0.02, 0.3, 4))
    ],
)
def class_mean_iou(dice, prevalence):
    missed = (1 - dice) * prevalence  # and as many false positives
    right_background = 1 - prevalence - missed
    background_iou = right_background / (right_background + 2 * missed)
    return (background_iou + dice / (2 - dice)) / 2


def two_scores(rng: np.random.Generator) -> tuple[float, float]:
    """Draw accuracy and Dice that one segmentation can have."""
    tp, wrong, tn = (int(rng.integers(*ends)) for ends in ((300, 2000), (40, 600), (5000, 9000)))
    return (tp + tn) / (tp + wrong + tn), 2 * tp / (2 * tp + wrong)


@exercise(
    "8.4",
    wrong={
        "hits doubled": edit("2 * (1", "1 * (1"),
        "other ends": edits(
            "hits, hits + wrong",
            "hits - wrong, hits",
            "hits, hits",
            "hits, wrong",
            "0, hits + wrong",
        ),
        "exchanged": edit("hits, hits + wrong", "hits + wrong, hits"),
        "half the errors": edits(
            "hits, hits + wrong", "hits, hits + wrong / 2", "hits + wrong / 2, hits + wrong / 2"
        ),
        "accuracy for errors": edit("1 - accuracy", "accuracy"),
        "IoU": edit("    hits =", "    dice = dice / (2 - dice)\n    hits ="),
        "solved wrongly": edits("(2 * (1 - dice))", "(2 - dice)", "2 * (1 - dice)"),
    },
    inputs=lambda rng: [two_scores(rng) for _ in range(4)],
)
def implied_prevalence(accuracy, dice):
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits, hits + wrong


def some_counts(rng: np.random.Generator, volumes: int) -> np.ndarray:
    """Make the counts of volumes of very different size and prevalence: int [volume, 4]."""
    spine = rng.integers(2000, 9000, volumes) * (1 + 5 * np.arange(volumes))
    fp, fn = (rng.uniform(0.05, 0.4, (2, volumes)) * spine).astype(int)
    return np.stack([spine - fn, fp, fn, (spine * rng.uniform(4, 120, volumes)).astype(int)], 1)


@exercise(
    "8.6",
    wrong={
        "exchanged": edit("pooled", "each", "per volume", "pooled", 'each"', 'per volume"'),
        "volumes for pooled": edit(
            "differences(*counts.sum(axis=0))", "(gap.mean() for gap in differences(*counts.T))"
        ),
        "pooled for volumes": (edit("*counts.T", "*counts.sum(axis=0)"), edit("mean()", "sum()")),
        "no Dice or sign": (
            edit("2 * tp / (2 * tp + fp + fn)", "0"),
            lambda counts: {name: abs(gap) for name, gap in iou_minus_dice(counts).items()},
        ),
        "Dice of both": (
            edit(
                "2 * tp / (2 * tp + fp + fn)", "tp / (2 * tp + fp + fn) + tn / (2 * tn + fp + fn)"
            ),
            edit("/ 2 - dice", "/ 2 - dice / 2 - tn / (2 * tn + fp + fn)"),
        ),
        "background alone": edit("(spine + background) / 2", "background"),
        "accuracy": edit("(spine + background) / 2", "(tp + tn) / (tp + fp + fn + tn)"),
        "other formula": (
            *edits("2 * tp / (2 * tp + fp + fn)", "2 * tp / (tp + fp + fn)", "tp / (tp + fp + fn)"),
            edit("= tp / (tp + fp + fn)", "= dice"),
        ),
        "background's union": edits("(tn + fp + fn)", "(tn + fp)", "(tn + fn)"),
        "mean Dice": edit("spine - dice", "(spine := (dice := dice.mean()) / (2 - dice)) - dice"),
    },
    inputs=lambda rng: [(some_counts(rng, volumes),) for volumes in (2, 3, 5)],
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
