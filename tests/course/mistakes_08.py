"""Typical mistakes in the exercises of lesson 8, each with words of the message meant for it."""

import math

import numpy as np


def solves_for_dice(dice):
    """Turn an IoU into a Dice."""
    return 2 * dice / (1 + dice)


def takes_them_for_the_same(dice):
    """Return the Dice."""
    return dice


def halves_it(dice):
    """Divide by 2 alone."""
    return dice / 2


def forgets_the_double_count(dice):
    """Divide by 1 - D."""
    return dice / (1 - dice) if dice < 1 else math.inf


def squares_it(dice):
    """Square the Dice."""
    return dice**2


def takes_the_print_as_exact(mean_dice, decimals):
    """Leave the rounding out."""
    return mean_dice / (2 - mean_dice), mean_dice


def lets_all_scans_be_alike(mean_dice, decimals):
    """Turn both ends into IoU."""
    half = 0.5 * 10**-decimals
    low, high = max(mean_dice - half, 0), min(mean_dice + half, 1)
    return low / (2 - low), high / (2 - high)


def begins_at_zero(mean_dice, decimals):
    """Take 0 for the lowest."""
    return 0.0, min(mean_dice + 0.5 * 10**-decimals, 1)


def returns_the_highest_first(mean_dice, decimals):
    """Exchange the two."""
    half = 0.5 * 10**-decimals
    low, high = max(mean_dice - half, 0), min(mean_dice + half, 1)
    return high, low / (2 - low)


def takes_a_whole_unit(mean_dice, decimals):
    """Round by a whole unit."""
    low, high = max(mean_dice - 10**-decimals, 0), min(mean_dice + 10**-decimals, 1)
    return low / (2 - low), high


def leaves_the_scale(mean_dice, decimals):
    """Do not cut at 0 and 1."""
    half = 0.5 * 10**-decimals
    low, high = mean_dice - half, mean_dice + half
    return low / (2 - low), high


def takes_the_spine_alone(dice, prevalence):
    """Forget the background."""
    return dice / (2 - dice)


def weights_by_voxels(dice, prevalence):
    """Weight each class by its share."""
    wrong = (1 - dice) * prevalence
    background = (1 - prevalence - wrong) / (1 - prevalence + wrong)
    return prevalence * dice / (2 - dice) + (1 - prevalence) * background


def takes_background_for_perfect(dice, prevalence):
    """Set the background's IoU to 1."""
    return (1 + dice / (2 - dice)) / 2


def mixes_dice_with_iou(dice, prevalence):
    """Average the background's IoU with the Dice."""
    wrong = (1 - dice) * prevalence
    return ((1 - prevalence - wrong) / (1 - prevalence + wrong) + dice) / 2


def leaves_out_the_misses(dice, prevalence):
    """Divide by the true background alone."""
    wrong = (1 - dice) * prevalence
    return ((1 - prevalence - wrong) / (1 - prevalence) + dice / (2 - dice)) / 2


def forgets_to_halve(dice, prevalence):
    """Add the two IoUs."""
    wrong = (1 - dice) * prevalence
    return (1 - prevalence - wrong) / (1 - prevalence + wrong) + dice / (2 - dice)


def counts_hits_once(accuracy, dice):
    """Forget that Dice counts true positives twice."""
    wrong = 1 - accuracy
    hits = dice * wrong / (1 - dice)
    return hits, hits + wrong


def splits_the_errors(accuracy, dice):
    """Let half of the errors be misses."""
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits, hits + wrong / 2


def takes_the_accuracy(accuracy, dice):
    """Forget the 1 -."""
    hits = dice * accuracy / (2 * (1 - dice))
    return hits, hits + accuracy


def subtracts_the_errors(accuracy, dice):
    """Go down instead of up."""
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits - wrong, hits


def returns_the_larger_first(accuracy, dice):
    """Exchange the two."""
    wrong = 1 - accuracy
    hits = dice * wrong / (2 * (1 - dice))
    return hits + wrong, hits


def turns_dice_into_iou_first(accuracy, dice):
    """Work with the IoU."""
    wrong, iou = 1 - accuracy, dice / (2 - dice)
    hits = iou * wrong / (2 * (1 - iou))
    return hits, hits + wrong


def _collect(results, key, value, undefined=float("nan")):
    found = {}
    for model, entry in results["models"].items():
        found[model] = {}
        for run in entry["runs"]:
            for case, volume in run["test"]["volumes"].items():
                score = value(run, volume)
                score = undefined if score is None else score
                found[model].setdefault(key(case, volume), []).append(score)
    return found


def reads_the_first_run_alone(results):
    """Take the model's own test, which is that of the first seed."""
    return {
        model: {
            volume["patient_id"]: [volume["dice"]] for volume in entry["test"]["volumes"].values()
        }
        for model, entry in results["models"].items()
    }


def sorts_by_case(results):
    """Use the case ids."""
    return _collect(results, lambda case, volume: case, lambda run, volume: volume["dice"])


def reads_the_iou(results):
    """Take the wrong score."""
    return _collect(
        results, lambda case, volume: volume["patient_id"], lambda run, volume: volume["iou"]
    )


def reads_the_mean(results):
    """Take each run's mean over volumes."""
    return _collect(
        results,
        lambda case, volume: volume["patient_id"],
        lambda run, volume: run["test"]["per_volume"]["dice"],
    )


def averages_the_runs(results):
    """Return a mean where a list was asked for."""
    lists = _collect(
        results, lambda case, volume: volume["patient_id"], lambda run, volume: volume["dice"]
    )
    return {m: {p: float(np.mean(v)) for p, v in rows.items()} for m, rows in lists.items()}


def leaves_none_there(results):
    """Pass None on."""
    return _collect(
        results, lambda case, volume: volume["patient_id"], lambda run, volume: volume["dice"], None
    )


def leaves_undefined_out(results):
    """List only what is defined."""
    found = {}
    for model, entry in results["models"].items():
        found[model] = {}
        for run in entry["runs"]:
            for volume in run["test"]["volumes"].values():
                dices = found[model].setdefault(volume["patient_id"], [])
                dices += [] if volume["dice"] is None else [volume["dice"]]
    return found


def takes_undefined_for_zero(results):
    """Score an undefined Dice 0."""
    return _collect(
        results, lambda case, volume: volume["patient_id"], lambda run, volume: volume["dice"], 0.0
    )


def uses_the_names(results):
    """Use the models' names instead of their ids."""
    found = _collect(
        results, lambda case, volume: volume["patient_id"], lambda run, volume: volume["dice"]
    )
    return {results["models"][model]["name"]: rows for model, rows in found.items()}


def _scores(tp, fp, fn, tn):
    dice = 2 * tp / (2 * tp + fp + fn)
    return dice, tp / (tp + fp + fn), tn / (tn + fp + fn)


def _four(counts, classes, own_dice=lambda dice, background: dice):
    answer = {}
    for way, columns in (("pooled", counts.sum(axis=0)), ("per volume", counts.T)):
        dice, spine, background = _scores(*columns)
        dice = own_dice(dice, 2 * background / (1 + background))
        answer[f"spine, {way}"] = float(np.mean(spine - dice))
        answer[f"classes, {way}"] = float(np.mean(classes(spine, background) - dice))
    return answer


def _mean(spine, background):
    return (spine + background) / 2


def subtracts_the_iou(counts):
    """Turn the signs around."""
    return {name: -value for name, value in _four(counts, _mean).items()}


def pools_twice(counts):
    """Pool for all four."""
    four = _four(counts, _mean)
    return {name: four[f"{name.split(',')[0]}, pooled"] for name in four}


def never_pools(counts):
    """Average for all four."""
    four = _four(counts, _mean)
    return {name: four[f"{name.split(',')[0]}, per volume"] for name in four}


def averages_the_dice_over_classes(counts):
    """Take the mean Dice of both classes."""
    return _four(counts, _mean, own_dice=lambda dice, background: (dice + background) / 2)


def takes_the_background(counts):
    """Take the background's IoU for the mean."""
    return _four(counts, lambda spine, background: background)


def takes_the_accuracy_for_it(counts):
    """Take the accuracy for the class mean."""
    tp, fp, fn, tn = counts.T
    accuracy = (tp + tn) / counts.sum(axis=1)
    four = _four(counts, _mean)
    dice, _, _ = _scores(tp, fp, fn, tn)
    four["classes, per volume"] = float(np.mean(accuracy - dice))
    tp, fp, fn, tn = counts.sum(axis=0)
    dice, _, _ = _scores(tp, fp, fn, tn)
    four["classes, pooled"] = float((tp + tn) / counts.sum() - dice)
    return four


MISTAKES = {
    "8.1": [
        (solves_for_dice, "you solved for the other one"),
        (takes_them_for_the_same, "the same only at 0 and at 1"),
        (halves_it, "the IoU of a perfect pair is 1"),
        (forgets_the_double_count, "the overlap was counted twice"),
        (squares_it, "squaring comes close"),
    ],
    "8.2": [
        (takes_the_print_as_exact, "you took the printed value as exact"),
        (lets_all_scans_be_alike, "scans that are all alike"),
        (begins_at_zero, "your lowest is 0"),
        (returns_the_highest_first, "the two are exchanged"),
        (takes_a_whole_unit, "half a unit at most"),
        (leaves_the_scale, "no IoU leaves 0 to 1"),
    ],
    "8.3": [
        (takes_the_spine_alone, "the spine's IoU alone"),
        (weights_by_voxels, "both count alike"),
        (takes_background_for_perfect, "you took the background's IoU for 1"),
        (mixes_dice_with_iou, "turn the Dice into an IoU"),
        (leaves_out_the_misses, "you left those out"),
        (forgets_to_halve, "halve it"),
    ],
    "8.4": [
        (counts_hits_once, "Dice counts them twice"),
        (splits_the_errors, "all errors are misses, not half of them"),
        (takes_the_accuracy, "you took the accuracy itself"),
        (subtracts_the_errors, "what was found and what was missed"),
        (returns_the_larger_first, "the two are exchanged"),
        (turns_dice_into_iou_first, "no need to turn it into an IoU"),
    ],
    "8.5": [
        (reads_the_first_run_alone, "that of its first run"),
        (sorts_by_case, "the unit is the patient"),
        (reads_the_iou, "these are the IoUs"),
        (reads_the_mean, "the means over all volumes"),
        (averages_the_runs, "a list with one Dice for each run"),
        (leaves_none_there, "None cannot be averaged"),
        (leaves_undefined_out, "an undefined Dice has its place too"),
        (takes_undefined_for_zero, "an undefined Dice is not 0"),
        (uses_the_names, "use the model ids"),
    ],
    "8.6": [
        (subtracts_the_iou, "your signs are turned"),
        (pools_twice, "a large volume counts no more"),
        (never_pools, "add up the counts of all volumes"),
        (averages_the_dice_over_classes, "over both classes too"),
        (takes_the_background, "the background's IoU alone"),
        (takes_the_accuracy_for_it, "you took the accuracy"),
    ],
}
