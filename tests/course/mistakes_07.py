"""Typical mistakes in the exercises of lesson 7, each with words of the message meant for it."""

import itertools
import math

import numpy as np
from scipy import ndimage, stats


def _count(prediction, truth):
    return (
        np.count_nonzero(prediction & truth),
        np.count_nonzero(prediction & ~truth),
        np.count_nonzero(~prediction & truth),
        np.count_nonzero(~prediction & ~truth),
    )


def forgets_the_ignore_region(prediction, truth, ignore):
    """Count everything."""
    return _count(prediction, truth)


def calls_the_ignored_background(prediction, truth, ignore):
    """Empty both masks where they are ignored, and count everything."""
    return _count(prediction & ~ignore, truth & ~ignore)


def swaps_the_errors(prediction, truth, ignore):
    """Confuse the two kinds of errors."""
    tp, fp, fn, tn = _count(prediction[~ignore], truth[~ignore])
    return tp, fn, fp, tn


def orders_them_as_sklearn_does(prediction, truth, ignore):
    """Flatten a confusion matrix: true negatives come first."""
    tp, fp, fn, tn = _count(prediction[~ignore], truth[~ignore])
    return tn, fp, fn, tp


def divides_by_the_voxels(prediction, truth, ignore):
    """Return shares."""
    counts = _count(prediction[~ignore], truth[~ignore])
    return tuple(one / sum(counts) for one in counts)


def takes_the_marginals(prediction, truth, ignore):
    """Count what was predicted and what was not."""
    prediction, truth = prediction[~ignore], truth[~ignore]
    _, fp, fn, _ = _count(prediction, truth)
    return np.count_nonzero(prediction), fp, fn, np.count_nonzero(~prediction)


def _scores(tp, fp, fn, tn, empty=math.nan):
    def ratio(part, whole):
        return part / whole if whole else empty

    return {
        "iou": ratio(tp, tp + fp + fn),
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
    }


def gives_empty_masks_one(tp, fp, fn, tn):
    """Reward an empty mask that was found empty."""
    return _scores(tp, fp, fn, tn, empty=1.0)


def avoids_zero_with_a_small_number(tp, fp, fn, tn):
    """Divide by a little more, as losses do."""
    found = _scores(tp, fp, fn, tn)
    return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}


def swaps_precision_and_recall(tp, fp, fn, tn):
    """Take one for the other."""
    found = _scores(tp, fp, fn, tn)
    return found | {"precision": found["recall"], "recall": found["precision"]}


def takes_dice_for_iou(tp, fp, fn, tn):
    """Count the overlap once in Dice."""
    found = _scores(tp, fp, fn, tn)
    return found | {"dice": found["iou"]}


def forgets_true_negatives(tp, fp, fn, tn):
    """Call only spine that was found right."""
    return _scores(tp, fp, fn, tn) | {"accuracy": tp / (tp + fp + fn + tn)}


def gives_per_cent(tp, fp, fn, tn):
    """Multiply by a hundred."""
    return {name: 100 * value for name, value in _scores(tp, fp, fn, tn).items()}


def _dice(counts, empty):
    tp, fp, fn = counts.T.astype(float)
    with np.errstate(invalid="ignore"):
        dice = 2 * tp / (2 * tp + fp + fn)
    return np.where(np.isnan(dice), empty, dice)


def _of(counts):
    tp, fp, fn = counts.T
    return int((counts.sum(axis=1) == 0).sum()), int(((tp + fn == 0) & (fp > 0)).sum())


def takes_empty_for_perfect(counts):
    """Give empty slices 1."""
    return (_dice(counts, 1).mean(), *_of(counts))


def takes_empty_for_failed(counts):
    """Give empty slices 0."""
    return (_dice(counts, 0).mean(), *_of(counts))


def lets_nan_through(counts):
    """Take the mean of everything."""
    return (_dice(counts, np.nan).mean(), *_of(counts))


def skips_slices_without_truth(counts):
    """Keep only slices that show spine."""
    shown = counts[(counts[:, 0] + counts[:, 2]) > 0]
    return (_dice(shown, np.nan).mean(), *_of(counts))


def pools(counts):
    """Add the counts up first."""
    return (_dice(counts.sum(axis=0)[None], np.nan)[0], *_of(counts))


def swaps_the_two_numbers(counts):
    """Report them the other way round."""
    return (np.nanmean(_dice(counts, np.nan)), *_of(counts)[::-1])


def counts_every_slice_without_truth(counts):
    """Call an empty slice without a prediction a false alarm too."""
    left_out, _ = _of(counts)
    return np.nanmean(_dice(counts, np.nan)), left_out, int((counts[:, [0, 2]].sum(1) == 0).sum())


def _surface(mask, edge=0):
    return mask & ~ndimage.binary_erosion(mask, border_value=edge)


def measures_in_voxels(prediction, truth, spacing_mm):
    """Forget the spacing."""
    return ndimage.distance_transform_edt(~_surface(truth))[_surface(prediction)]


def turns_the_spacing_round(prediction, truth, spacing_mm):
    """Give z, y, x."""
    away = ndimage.distance_transform_edt(~_surface(truth), sampling=spacing_mm[::-1])
    return away[_surface(prediction)]


def measures_to_the_mask(prediction, truth, spacing_mm):
    """Measure to the mask, so that inside everything is 0."""
    return ndimage.distance_transform_edt(~truth, sampling=spacing_mm)[_surface(prediction)]


def does_not_turn_the_surface_round(prediction, truth, spacing_mm):
    """Measure to the nearest voxel that is no surface."""
    away = ndimage.distance_transform_edt(_surface(truth), sampling=spacing_mm)
    return away[_surface(prediction)]


def goes_the_other_way(prediction, truth, spacing_mm):
    """Go from the truth to the prediction."""
    away = ndimage.distance_transform_edt(~_surface(prediction), sampling=spacing_mm)
    return away[_surface(truth)]


def takes_all_voxels(prediction, truth, spacing_mm):
    """Measure from the whole prediction."""
    away = ndimage.distance_transform_edt(~_surface(truth), sampling=spacing_mm)
    return away[prediction]


def takes_edges_and_corners(prediction, truth, spacing_mm):
    """Erode with all 26 neighbours, which makes the surface thicker."""
    cube = np.ones((3, 3, 3))
    surface = prediction & ~ndimage.binary_erosion(prediction, cube)
    away = ndimage.distance_transform_edt(~_surface(truth), sampling=spacing_mm)
    return away[surface]


def _means(values, resamples, seed, size=None):
    generator = np.random.default_rng(seed)
    return generator.choice(values, (resamples, size or len(values))).mean(axis=1)


def shuffles(values, resamples, seed):
    """Draw without replacement."""
    generator = np.random.default_rng(seed)
    means = [generator.permutation(values).mean() for _ in range(resamples)]
    return tuple(np.percentile(means, [2.5, 97.5]))


def takes_the_patients_spread(values, resamples, seed):
    """Take percentiles of the values."""
    return tuple(np.percentile(values, [2.5, 97.5]))


def leaves_out_ten_per_cent(values, resamples, seed):
    """Take the 5th and the 95th percentile."""
    return tuple(np.percentile(_means(values, resamples, seed), [5, 95]))


def takes_one_standard_error(values, resamples, seed):
    """Take one standard error to each side."""
    means = _means(values, resamples, seed)
    return means.mean() - means.std(), means.mean() + means.std()


def draws_too_few(values, resamples, seed):
    """Make sets half as large as the cohort."""
    means = _means(values, resamples, seed, len(values) // 2)
    return tuple(np.percentile(means, [2.5, 97.5]))


def has_no_seed(values, resamples, seed):
    """Draw anew at each call."""
    return tuple(np.percentile(_means(values, resamples, None), [2.5, 97.5]))


def has_a_seed_of_its_own(values, resamples, seed):
    """Ignore the seed that is given."""
    return tuple(np.percentile(_means(values, resamples, 42), [2.5, 97.5]))


def _flipped(differences):
    return np.array(list(itertools.product([1, -1], repeat=len(differences)))) @ differences


def looks_at_one_side(differences):
    """Count flips above the observed one only."""
    return float(np.mean(_flipped(differences) >= differences.sum()))


def leaves_the_observed_out(differences):
    """Count only what is more extreme."""
    return float(np.mean(np.abs(_flipped(differences)) > abs(differences.sum())))


def draws_flips(differences):
    """Draw 5000 flips."""
    signs = np.random.default_rng(3).choice([1, -1], (4999, len(differences)))
    return float(np.mean(np.abs(signs @ differences) >= abs(differences.sum())))


def takes_a_t_test(differences):
    """Ask scipy for another test."""
    return float(stats.ttest_1samp(differences, 0).pvalue)


def counts_winners(differences):
    """Count who won how often."""
    return float(stats.binomtest(int((differences > 0).sum()), len(differences)).pvalue)


def returns_how_many(differences):
    """Forget to divide."""
    return float(np.sum(np.abs(_flipped(differences)) >= abs(differences.sum())))


MISTAKES = {
    "7.1": [
        (forgets_the_ignore_region, "you counted ignored voxels too"),
        (calls_the_ignored_background, "your true negatives include the ignored voxels"),
        (swaps_the_errors, "are exchanged"),
        (orders_them_as_sklearn_does, "the order is tp, fp, fn, tn"),
        (divides_by_the_voxels, "these are shares of all voxels"),
        (takes_the_marginals, "those that are not spine are fp"),
    ],
    "7.2": [
        (gives_empty_masks_one, "decides what an empty mask is worth"),
        (avoids_zero_with_a_small_number, "say NaN"),
        (swaps_precision_and_recall, "how much of what was *predicted* is right"),
        (takes_dice_for_iou, "Dice counts tp twice"),
        (forgets_true_negatives, "background that is right is right"),
        (gives_per_cent, "is in per cent"),
    ],
    "7.3": [
        (takes_empty_for_perfect, "as if finding nothing were an achievement"),
        (takes_empty_for_failed, "empty on both sides as 0"),
        (lets_nan_through, "your mean is NaN"),
        (skips_slices_without_truth, "false alarms would cost nothing"),
        (pools, "Dice of all slices pooled"),
        (swaps_the_two_numbers, "the two counts are exchanged"),
        (counts_every_slice_without_truth, "have only false positives"),
    ],
    "7.4": [
        (measures_in_voxels, "your distances are in voxels"),
        (turns_the_spacing_round, "do not turn it round"),
        (measures_to_the_mask, "inside the truth your distances are 0"),
        (does_not_turn_the_surface_round, "the transform measures to the nearest False"),
        (goes_the_other_way, "go from the prediction to the truth"),
        (takes_all_voxels, "from every voxel of the prediction"),
        (takes_edges_and_corners, "one of its six faces does not"),
    ],
    "7.5": [
        (shuffles, "your interval has no width"),
        (takes_the_patients_spread, "where single *patients* lie"),
        (leaves_out_ten_per_cent, "which leave out 10 %"),
        (takes_one_standard_error, "holds about 68 %"),
        (draws_too_few, "is each set as large as the first"),
        (has_no_seed, "the same seed gave two different intervals"),
        (has_a_seed_of_its_own, "three seeds gave one and the same interval"),
    ],
    "7.6": [
        (looks_at_one_side, "in one direction only"),
        (leaves_the_observed_out, "no p-value can be 0"),
        (draws_flips, "do not draw flips at random"),
        (takes_a_t_test, "the p-value of a t-test"),
        (counts_winners, "who won how often"),
        (returns_how_many, "a number of flips"),
    ],
}
