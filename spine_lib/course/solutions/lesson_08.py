"""Solutions of lesson 8."""

from __future__ import annotations

from spine_lib.course.exercises.lesson_08 import (
    some_counts,
    some_dices,
    some_pairs,
    some_results,
    some_scores,
)


def iou_from_dice(dice):
    """Return the IoU of the mask pair that has this Dice."""
    return dice / (2 - dice)


def mean_iou_bounds(mean_dice, decimals):
    """Return the lowest and the highest mean IoU that can stand beside a printed mean Dice."""
    half_a_unit = 0.5 * 10**-decimals
    least = max(mean_dice - half_a_unit, 0)
    most = min(mean_dice + half_a_unit, 1)
    return least / (2 - least), most


def class_mean_iou(dice, prevalence):
    """Return the mean IoU over the two classes of one mask pair with as many FP as FN."""
    missed = (1 - dice) * prevalence  # and as many false alarms
    right_background = 1 - prevalence - missed
    background_iou = right_background / (right_background + 2 * missed)
    return (background_iou + dice / (2 - dice)) / 2


def implied_prevalence(accuracy, dice):
    """Return between which shares of spine a segmentation with these two scores must lie."""
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits, hits + wrong


def dice_by_patient(results):
    """List the test Dice of every training run, by model and patient."""
    found = {}
    for model, entry in results["models"].items():
        found[model] = {}
        for run in entry["runs"]:
            for volume in run["test"]["volumes"].values():
                dice = float("nan") if volume["dice"] is None else volume["dice"]
                found[model].setdefault(volume["patient_id"], []).append(dice)
    return found


def iou_minus_dice(counts):
    """Return by how much the IoU exceeds the Dice, under four averagings."""

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


REFERENCES = {
    "8.1": iou_from_dice,
    "8.2": mean_iou_bounds,
    "8.3": class_mean_iou,
    "8.4": implied_prevalence,
    "8.5": dice_by_patient,
    "8.6": iou_minus_dice,
}

HIDDEN = {
    "8.1": lambda: [(dice,) for dice in some_dices(31)],
    "8.2": lambda: [(dice, 3) for dice in some_dices(32)],
    "8.3": lambda: some_pairs(31),
    "8.4": lambda: some_scores(31),
    "8.5": lambda: [(some_results(31, seeds=4, undefined=True),)],
    "8.6": lambda: [(some_counts(31, 4),)],
}
