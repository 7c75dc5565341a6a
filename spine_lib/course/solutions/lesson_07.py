"""Solutions of lesson 7."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage

from spine_lib.course.exercises.lesson_07 import (
    a_scored_pair,
    a_surface_pair,
    some_counts,
    some_differences,
    some_scores,
)


def count_voxels(prediction, truth, ignore):
    """Count true positives, false positives, false negatives and true negatives."""
    scored = ~ignore
    tp = np.count_nonzero(prediction & truth & scored)
    fp = np.count_nonzero(prediction & ~truth & scored)
    fn = np.count_nonzero(~prediction & truth & scored)
    tn = np.count_nonzero(~prediction & ~truth & scored)
    return tp, fp, fn, tn


def overlap_scores(tp, fp, fn, tn):
    """Make the usual scores of the four counts."""

    def ratio(part, whole):
        return part / whole if whole else math.nan

    return {
        "iou": ratio(tp, tp + fp + fn),
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
    }


def mean_dice(counts):
    """Average Dice over slices, leaving out those that are empty on both sides."""
    tp, fp, fn = counts.T
    empty = tp + fp + fn == 0
    false_alarm = (tp + fn == 0) & (fp > 0)
    dice = 2 * tp[~empty] / (2 * tp + fp + fn)[~empty]
    return dice.mean(), empty.sum(), false_alarm.sum()


def surface_distances_mm(prediction, truth, spacing_mm):
    """Measure how far the surface of a prediction lies from the surface of the truth, in mm."""
    surface = prediction & ~ndimage.binary_erosion(prediction)
    true_surface = truth & ~ndimage.binary_erosion(truth)
    away_mm = ndimage.distance_transform_edt(~true_surface, sampling=spacing_mm)
    return away_mm[surface]


def interval_of_mean(values, resamples, seed):
    """Return a 95 % bootstrap interval of a mean over patients."""
    generator = np.random.default_rng(seed)
    sets = generator.choice(values, (resamples, len(values)))
    low, high = np.percentile(sets.mean(axis=1), [2.5, 97.5])
    return low, high


def sign_flip_p(differences):
    """Return the exact two-sided p-value of paired differences, by flipping signs."""
    signs = np.array(list(itertools.product([1, -1], repeat=len(differences))))
    sums = signs @ differences
    return float(np.mean(np.abs(sums) >= abs(differences.sum())))


REFERENCES = {
    "7.1": count_voxels,
    "7.2": overlap_scores,
    "7.3": mean_dice,
    "7.4": surface_distances_mm,
    "7.5": interval_of_mean,
    "7.6": sign_flip_p,
}

HIDDEN = {
    "7.1": lambda: [a_scored_pair(31), a_scored_pair(32)],
    "7.2": lambda: [(412, 31, 77, 9480), (0, 5, 6, 0)],
    "7.3": lambda: [(some_counts(4),)],
    "7.4": lambda: [a_surface_pair(31)],
    "7.5": lambda: [(some_scores(31, 20), 3000, 12)],
    "7.6": lambda: [(some_differences(31, 10),)],
}
