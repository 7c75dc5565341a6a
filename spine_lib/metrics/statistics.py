"""Lesson 7: how sure can one be of a score?

The unit is the *patient*: slices of one patient resemble each other, so a thousand slices of three
patients say about as much as three patients do. Average within each patient first
(`mean_per_patient`), then ask what another draw of patients would have given
(`bootstrap_interval`), and whether a difference between two models on the same patients could be
chance (`sign_flip_test`, then `holm` where several are asked at once).

With fewer than six patients neither is given, and the result says why: with n patients the smallest
p-value that flipping signs can reach is 2 / 2**n, which first falls below 0.05 at n = 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import stdtrit

from spine_lib import SpineError

MINIMUM_PATIENTS = 6
EXACT_UP_TO = 16
SAMPLED_FLIPS = 100_000
BLOCK = 10_000


@dataclass(frozen=True)
class Interval:
    """Hold a mean over patients with its interval.

    `low` and `high` are None, and `reason` is a sentence, where no interval can be given.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class TestResult:
    """Hold a two-sided p-value; None with a `reason` where no test can be made."""

    __test__ = False  # the name would otherwise make pytest collect it

    p_value: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class Spread:
    """Hold how a score varies over training seeds; `sd` is None for a single seed."""

    mean: float
    sd: float | None
    low: float
    high: float
    n: int


def _defined(values: Iterable[float]) -> np.ndarray:
    """Return the values that are numbers; NaN marks a patient on whom the score is undefined."""
    array = np.asarray(list(values), dtype=np.float64)
    if array.ndim != 1 or np.isinf(array).any():
        raise SpineError(
            "the values must be one finite number (or NaN) per patient, not infinite and not "
            "nested: average within each patient first, and count infinite distances instead"
        )
    return array[~np.isnan(array)]


def _too_few(n: int, minimum: int, what: str) -> str | None:
    if n >= minimum:
        return None
    patients = "1 patient" if n == 1 else f"{n} patients"
    smallest = f" (with {n} no sign-flip p-value is below {2 / 2**n:.2g})" if n > 1 else ""
    return f"{what} is not given for {patients}: at least {minimum} are needed{smallest}."


def mean_per_patient(
    values: Mapping[str, float], patient_of: Mapping[str, str]
) -> dict[str, float]:
    """Average the scores of each patient's scans, so that the patient becomes the unit.

    Args:
        values: score by case id; NaN where undefined.
        patient_of: patient id by case id.

    Returns:
        Mean score by patient id; NaN for a patient on whom no scan has a defined score.

    Raises:
        SpineError: a case has no patient.
    """
    grouped: dict[str, list[float]] = {}
    for case, value in values.items():
        if case not in patient_of:
            raise SpineError(f"case {case!r} has a score but no patient: add it to patient_of")
        grouped.setdefault(patient_of[case], []).append(value)
    means = {}
    for patient, scores in grouped.items():
        kept = _defined(scores)
        means[patient] = float(kept.mean()) if kept.size else math.nan
    return means


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Subtract the second model's scores from the first's, patient by patient.

    Raises:
        SpineError: the two models were not scored on the same patients.
    """
    odd = sorted(first.keys() ^ second.keys())
    if odd:
        raise SpineError(
            f"only one of the two models has a score for {', '.join(map(str, odd))}: "
            "a paired test needs both models on the same patients"
        )
    return {patient: first[patient] - second[patient] for patient in first}


def spread(values: Iterable[float]) -> Spread:
    """Summarise a score over training seeds: mean, standard deviation, lowest, highest.

    This is how much training varies by itself. It is no interval for other patients.

    Raises:
        SpineError: there is no value.
    """
    kept = _defined(values)
    if kept.size == 0:
        raise SpineError("there is no score to summarise: train at least one seed")
    sd = float(kept.std(ddof=1)) if kept.size > 1 else None
    return Spread(float(kept.mean()), sd, float(kept.min()), float(kept.max()), kept.size)


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    means = [
        values[rng.integers(values.size, size=(min(BLOCK, resamples - start), values.size))].mean(1)
        for start in range(0, resamples, BLOCK)
    ]
    return np.concatenate(means)


def _bca_levels(values: np.ndarray, means: np.ndarray, confidence: float) -> list[float]:
    """Choose which percentiles of the resampled means bound the interval.

    Corrected for bias and skewness (Efron 1987), and widened for few values (Hesterberg 2015): the
    bootstrap's own standard error is too small by the square root of (n - 1) / n, and Student's t
    takes the normal's place.
    """
    normal = NormalDist()
    below = np.mean(means < values.mean()) + np.mean(means == values.mean()) / 2
    bias = normal.inv_cdf(float(np.clip(below, 1 / means.size, 1 - 1 / means.size)))
    # For a mean, leaving one value out shifts it in proportion to that value's own deviation.
    deviations = (values - values.mean()) / np.ptp(values)
    acceleration = float(np.sum(deviations**3) / (6 * np.sum(deviations**2) ** 1.5))
    n = values.size
    width = float(stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(n / (n - 1))
    return [normal.cdf(bias + z / (1 - acceleration * z)) for z in (bias - width, bias + width)]


def bootstrap_interval(
    values_per_patient: Iterable[float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    minimum: int = MINIMUM_PATIENTS,
) -> Interval:
    """Return the mean over patients with a bootstrap interval for other patients like these.

    Args:
        values_per_patient: one score per patient; NaN (undefined) is left out.
        confidence: share of such intervals that should hold the true mean.
        resamples: how often patients are drawn anew, with replacement.
        seed: seed of the draws.
        minimum: below this many patients no interval is given.

    Raises:
        SpineError: a value is infinite, or the confidence is not between 0 and 1.

    Source: Efron (1987), doi:10.2307/2289144, widened for few patients after Hesterberg (2015),
    doi:10.1080/00031305.2015.1089789. In simulations, 95 % intervals held the true mean in about
    9 of 10 cases for 6 patients and in 92 to 95 % from 10 on; without the widening in 80 to 87 %
    and 87 to 94 %.
    """
    if not (0 < confidence < 1 and resamples > 0):
        raise SpineError(
            f"confidence is {confidence!r} and resamples {resamples!r}: confidence lies between "
            "0 and 1 (such as 0.95), and resamples is at least 1"
        )
    values = _defined(values_per_patient)
    estimate = float(values.mean()) if values.size else math.nan
    reason = _too_few(values.size, max(minimum, 2), "The interval")
    if reason:
        return Interval(estimate, None, None, values.size, reason)
    if np.ptp(values) == 0:
        return Interval(estimate, estimate, estimate, values.size)
    means = _resampled_means(values, resamples, seed)
    low, high = np.quantile(means, _bca_levels(values, means, confidence))
    return Interval(estimate, float(low), float(high), values.size)


def _exact_sums(values: np.ndarray) -> np.ndarray:
    """Sum the values under every choice of signs that leaves the first one as it is."""
    sums = values[:1]
    for value in values[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _sampled_sums(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    flips = [
        rng.integers(0, 2, size=(BLOCK, values.size)) @ (2 * values) - values.sum()
        for _ in range(SAMPLED_FLIPS // BLOCK)
    ]
    return np.concatenate(flips)


def sign_flip_test(
    differences: Iterable[float], seed: int = 0, minimum: int = MINIMUM_PATIENTS
) -> TestResult:
    """Test whether paired differences could be chance: if they were, each sign could be flipped.

    Two-sided, on the mean. All 2**n flips are counted up to 16 patients; beyond that 100 000 are
    drawn, and the p-value counts the observed one among them, so that it is never 0.

    Args:
        differences: score of one model minus that of the other, one per patient; NaN is left out.
        seed: seed of the draws; without effect up to 16 patients.
        minimum: below this many patients no p-value is given.

    Raises:
        SpineError: a difference is infinite.

    Source: Fisher (1935), The Design of Experiments, section 21.
    """
    values = _defined(differences)
    reason = _too_few(values.size, max(minimum, 1), "The p-value")
    if reason:
        return TestResult(None, values.size, reason)
    # Sums that are equal on paper differ in the last bit; they must count as equal.
    limit = abs(values.sum()) - 1e-12 * np.abs(values).sum()
    if values.size <= EXACT_UP_TO:
        # The other half of the flips has the same sums with the opposite sign.
        return TestResult(float(np.mean(np.abs(_exact_sums(values)) >= limit)), values.size)
    sums = _sampled_sums(values, seed)
    as_extreme = int(np.count_nonzero(np.abs(sums) >= limit))
    return TestResult((as_extreme + 1) / (sums.size + 1), values.size)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust p-values for having asked several questions at once.

    Args:
        p_values: one per question; None where no test was made, which stays None and does not
            count as a question.

    Returns:
        The adjusted p-values in the same order. Those below 0.05 keep the chance of even one
        false alarm below 5 %.

    Raises:
        SpineError: a p-value does not lie between 0 and 1.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    asked = [position for position, p in enumerate(p_values) if p is not None]
    for position in asked:
        if not 0 <= p_values[position] <= 1:
            raise SpineError(
                f"p-value number {position + 1} is {p_values[position]!r}: "
                "a p-value lies between 0 and 1"
            )
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(asked, key=lambda position: p_values[position])):
        largest = max(largest, min(1.0, (len(asked) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted
