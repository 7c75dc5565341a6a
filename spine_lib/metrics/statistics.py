"""Lesson 7: how sure can one be of a score?

The unit is the *patient*: a thousand slices of three patients say about as much as three patients
do. With fewer than six of them neither an interval nor a p-value is given, and the result has the
reason: the smallest p-value that flipping the signs of n patients can reach is 2 / 2**n, which is
below 0.05 from n = 6 on.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from spine_lib import SpineError

MINIMUM_PATIENTS = 6
SAMPLED_FLIPS = 100_000
BATCH = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over patients; `low` and `high` are None where a `reason` forbids an interval."""

    estimate: float
    low: float | None
    high: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class TestResult:
    """A two-sided p-value; None with a `reason` where no test can be made."""

    __test__ = False  # the name would otherwise make pytest collect it

    p_value: float | None
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class Spread:
    """How a score varies over training seeds; `sd` is None for a single seed."""

    mean: float
    sd: float | None
    low: float
    high: float
    n: int


def _defined(values: Iterable[float]) -> np.ndarray:
    """Return the values without NaN, which marks a patient whose score is undefined."""
    array = np.asarray(list(values), dtype=np.float64)
    if array.ndim != 1 or np.isinf(array).any():
        raise SpineError(
            "the values must be one finite number (or NaN) per patient: average within each "
            "patient first, and count infinite distances instead"
        )
    return array[~np.isnan(array)]


def _too_few(n: int, what: str) -> str | None:
    if n >= MINIMUM_PATIENTS:
        return None
    smallest = f" (with {n} no sign-flip p-value is below {2 / 2**n:.2g})" if n > 1 else ""
    patients = "patient" if n == 1 else "patients"
    return (
        f"{what} is not given for {n} {patients}: at least {MINIMUM_PATIENTS} are needed{smallest}."
    )


def paired_differences(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Return the first model's scores less the second's, of the same patients."""
    unpaired = sorted(first.keys() ^ second.keys())
    if unpaired:
        raise SpineError(
            f"only one of the two models has a score for {', '.join(map(str, unpaired))}: "
            "a paired test needs both models on the same patients"
        )
    return {patient: first[patient] - second[patient] for patient in first}


def spread(values: Iterable[float]) -> Spread:
    """Return how much a score varies over seeds; this is no interval for other patients."""
    scores = _defined(values)
    if scores.size == 0:
        raise SpineError("there is no score to summarise: train at least one seed")
    sd = float(scores.std(ddof=1)) if scores.size > 1 else None
    return Spread(float(scores.mean()), sd, float(scores.min()), float(scores.max()), scores.size)


def bootstrap_interval(
    values_per_patient: Iterable[float],
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Return the mean over patients with a BCa bootstrap interval for other patients like these.

    Args:
        values_per_patient: one score per patient; NaN (undefined) is left out.
        confidence: share of such intervals that should contain the true mean.
        resamples: how often patients are drawn anew.

    Source: Efron (1987), doi:10.2307/2289144 (`scipy.stats.bootstrap`), widened for few patients
    after Hesterberg (2015), doi:10.1080/00031305.2015.1089789. In simulations, 95 % intervals
    contained the true mean in about 9 of 10 cases for 6 patients and in 92 to 95 % from 10 on;
    without the widening in 80 to 87 % and 87 to 94 %.
    """
    values = _defined(values_per_patient)
    n = values.size
    estimate = float(values.mean()) if n else math.nan
    if reason := _too_few(n, "The interval"):
        return Interval(estimate, None, None, n, reason)
    if np.ptp(values) < 1e-12:  # SciPy gives NaN for values that hardly differ
        return Interval(estimate, estimate, estimate, n)
    # The bootstrap's own standard error is too small by sqrt((n - 1) / n), and Student's t takes
    # the normal's place: both are had by asking for a higher confidence.
    width = stats.t.ppf((1 + confidence) / 2, n - 1) * math.sqrt(n / (n - 1))
    low, high = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa",
        confidence_level=2 * stats.norm.cdf(width) - 1,
        n_resamples=resamples,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(estimate, float(low), float(high), n)


def sign_flip_test(differences: Iterable[float], seed: int = 0) -> TestResult:
    """Return the two-sided p-value of the mean of paired differences, by flipping their signs.

    All 2**n flips are counted up to 16 patients; beyond that 100 000 are drawn, and the p-value
    counts the observed one among them, so that it is never 0.

    Args:
        differences: score of one model minus that of the other, one per patient; NaN is left out.
        seed: of the draws; without effect up to 16 patients.

    Source: Fisher (1935), The Design of Experiments, section 21 (`scipy.stats.permutation_test`).
    """
    values = _defined(differences)
    if reason := _too_few(values.size, "The p-value"):
        return TestResult(None, values.size, reason)

    def mean(samples: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(samples, axis).round(12)  # means equal on paper differ in the last bit

    result = stats.permutation_test(
        (values,),
        mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=SAMPLED_FLIPS,
        batch=BATCH,
        rng=np.random.default_rng(seed),
    )
    return TestResult(float(result.pvalue), values.size)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for having asked several questions at once, in the same order.

    Args:
        p_values: one per question; None where no test was made stays None and does not count.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    for number, p in enumerate(p_values, start=1):
        if p is not None and not 0 <= p <= 1:
            raise SpineError(f"p-value number {number} is {p!r}: a p-value lies between 0 and 1")
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = adjusted[index] = max(largest, min(1.0, (len(tested) - rank) * p))
    return adjusted
