"""Exercises of lesson 8: test a table for consistency, read the results of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from numbers import Real

import numpy as np

from spine_lib.course.exercise import Wrong, as_number, declare, describe, raise_known
from spine_lib.course.measurements import scores_by_patient
from spine_lib.metrics import overlap as metrics
from spine_lib.metrics import paper
from spine_lib.metrics.overlap import Confusion

NEAR = 1e-6

# --- 8.1 ------------------------------------------------------------------------------------------


def some_dices(seed: int, count: int = 3) -> list[float]:
    """Draw a few Dice scores as papers print them."""
    rng = np.random.default_rng([8, 1, seed])
    return [float(dice) for dice in rng.uniform(0.3, 0.98, count).round(3)]


def _judge_iou(function: Callable, dice) -> None:
    answer = as_number(function(dice), "an IoU")
    right = paper.iou_from_dice(dice)
    if _near(answer, right):
        return
    mistakes = {
        "this is the Dice of a pair whose IoU is given: you solved for the other "
        "one": paper.dice_from_iou(dice),
        "IoU and Dice are the same only at 0 and at 1; in between the IoU is lower": dice,
        "the IoU of a perfect pair is 1, so halving the Dice cannot be right": dice / 2,
        "squaring comes close, and is not it: write both scores with TP and errors": dice**2,
        "the numerator is right; in the denominator the overlap was counted twice, so that it "
        "is 2 - Dice": dice / (1 - dice) if dice < 1 else math.inf,
    }
    raise_known(
        answer, mistakes, f"; a Dice of {dice:g} means an IoU of {right:.4f}", rtol=0, atol=NEAR
    )
    raise Wrong(f"a Dice of {dice:g} means an IoU of {right:.4f}, and your answer is {answer:.4g}")


# --- 8.2 ------------------------------------------------------------------------------------------


def _bounds_inputs() -> list[tuple]:
    dices = [round(dice, 2) for dice in some_dices(10, 2)]
    return [(0.8, 2), (dices[0], 2), (dices[1], 3), (1.0, 2), (0.0, 1)]


def _judge_bounds(function: Callable, mean_dice, decimals) -> None:
    low, high = _pair(function(mean_dice, decimals), "the lowest and the highest mean IoU")
    right = paper.mean_iou_range(mean_dice, decimals)
    if _near(low, right.low) and _near(high, right.high):
        return
    least, most = paper.within_rounding(mean_dice, decimals)
    alone = paper.iou_from_dice(mean_dice)
    half = 0.5 * 10.0**-decimals
    if _near(low, right.high) and _near(high, right.low):
        raise Wrong("the two are exchanged: return the lowest first")
    if _near(low, alone) and (_near(high, mean_dice) or _near(high, alone)):
        raise Wrong(
            f"you took the printed value as exact; {mean_dice:.{decimals}f} is what any mean from "
            f"{least:g} to {most:g} is printed as, so widen the bounds by the rounding"
        )
    if high > 1 or low < 0:
        raise Wrong(f"no IoU leaves 0 to 1, and you return {low:.4g} to {high:.4g}: cut it there")
    if _near(high, paper.iou_from_dice(most)):
        raise Wrong(
            "your highest is the IoU of scans that are all alike; scans that are perfect (1) or "
            "worthless (0) have IoU = Dice each, and so their means are equal too"
        )
    if _near(low, 0) and right.low > NEAR:
        raise Wrong(
            "your lowest is 0; but the curve D / (2 - D) bends upwards, so the mean IoU is lowest "
            "where all scans have the same Dice, and that is above 0"
        )
    if _near(low, paper.iou_from_dice(max(mean_dice - 2 * half, 0))):
        raise Wrong(
            f"you went a whole unit of the last decimal down; rounding moves a value by half a "
            f"unit at most, {half:g}"
        )
    raise Wrong(
        f"beside {mean_dice:.{decimals}f} a mean IoU from {right.low:.4f} to {right.high:.4f} is "
        f"possible, and your answer is {low:.4f} to {high:.4f}"
    )


# --- 8.3 ------------------------------------------------------------------------------------------


def some_pairs(seed: int, count: int = 3) -> list[tuple[float, float]]:
    """Draw pairs of Dice and prevalence, the latter large enough to matter."""
    rng = np.random.default_rng([8, 3, seed])
    return [
        (float(dice), float(share))
        for dice, share in zip(rng.uniform(0.6, 0.95, count), rng.uniform(0.02, 0.3, count))
    ]


def _judge_class(function: Callable, dice, share) -> None:
    answer = as_number(function(dice, share), "a mean IoU")
    right = paper.class_mean_iou(dice, share)
    if _near(answer, right):
        return
    spine, wrong = paper.iou_from_dice(dice), (1 - dice) * share
    background = 2 * right - spine
    one_sided = (1 - share - wrong) / (1 - share)
    mistakes = {
        "this is the spine's IoU alone: the background's enters the mean too": spine,
        "this is the background's IoU alone: the mean is over both classes": background,
        "this is the sum of the two: halve it": background + spine,
        "you weighted each class by its share of the voxels; in a class mean both count alike, "
        "however rare one is": share * spine + (1 - share) * background,
        "you took the background's IoU for 1, which is close where spine is rare and not "
        f"equal: here it is {background:.4f}": (1 + spine) / 2,
        "you averaged the background's IoU with the spine's Dice: turn the Dice into an IoU": (
            (background + dice) / 2
        ),
        "the background's union is its truth plus the voxels that it was given wrongly (the "
        "false negatives): you left those out": (one_sided + spine) / 2,
    }
    raise_known(answer, mistakes, f" (you: {answer:.4f}, right: {right:.4f})", rtol=0, atol=NEAR)
    raise Wrong(
        f"with Dice {dice:.3f} and {share:.2%} of spine the spine's IoU is {spine:.4f}, the "
        f"background's {background:.4f} and their mean {right:.4f}; your answer is {answer:.4g}"
    )


# --- 8.4 ------------------------------------------------------------------------------------------


def some_scores(seed: int, count: int = 3) -> list[tuple[float, float]]:
    """Draw pairs of accuracy and Dice that one segmentation can have."""
    rng = np.random.default_rng([8, 4, seed])
    pairs = []
    for _ in range(count):
        tp, fp, fn = rng.integers(300, 2000), rng.integers(20, 300), rng.integers(20, 300)
        counts = Confusion(int(tp), int(fp), int(fn), int(rng.integers(6000, 90_000)))
        pairs.append((metrics.accuracy(counts), metrics.dice(counts)))
    return pairs


def _judge_prevalence(function: Callable, accuracy, dice) -> None:
    low, high = _pair(function(accuracy, dice), "the lowest and the highest share of spine")
    # Rounding to a dozen decimals leaves the library's range as good as exact.
    right = paper.prevalence_range(accuracy, dice, decimals=12)
    if _near(low, right.low) and _near(high, right.high):
        return
    error, hits = 1 - accuracy, right.low
    if _near(low, right.high) and _near(high, right.low):
        raise Wrong("the two are exchanged: without misses the truth is smallest, so it is first")
    if _near(low, 2 * hits):
        raise Wrong(
            "your true positives are twice what they are: Dice counts them twice, "
            "Dice = 2 TP / (2 TP + errors)"
        )
    if _near(low, hits - error) or _near(high, hits):
        raise Wrong(
            "spine in the truth is what was found and what was missed, TP + FN: without misses it "
            "is TP, and without false alarms all errors are misses, which come on top"
        )
    if _near(low, hits) and _near(high, hits + error / 2):
        raise Wrong("without any false alarms all errors are misses, not half of them")
    if _near(low, dice * accuracy / (2 * (1 - dice))):
        raise Wrong("the share of wrong voxels is 1 - accuracy, and you took the accuracy itself")
    j = paper.iou_from_dice(dice)
    if _near(low, j * error / (2 * (1 - j))):
        raise Wrong("the Dice is given as Dice: there is no need to turn it into an IoU")
    raise Wrong(
        f"accuracy {accuracy:.4f} means that {error:.4f} of the voxels are wrong; with Dice "
        f"{dice:.4f} then {hits:.4f} of them are true positives, and the share of spine lies "
        f"between {right.low:.4f} and {right.high:.4f}, not {low:.4g} and {high:.4g}"
    )


# --- 8.5 ------------------------------------------------------------------------------------------


def some_results(seed: int, seeds: int = 3, undefined: bool = False) -> dict:
    """Make the part of a results.json that scores are read from."""
    rng = np.random.default_rng([8, 5, seed])
    cases = [f"case-{number:03d}" for number in rng.permutation(50)[: 2 + seed % 2]]
    models = {}
    for model in ("unet_resnet34", "deeplabv3plus_resnet34"):
        runs = []
        for number in range(seeds):
            dices = [float(dice) for dice in rng.uniform(0.5, 0.95, len(cases)).round(4)]
            if undefined and number == seeds - 1:
                dices[0] = None
            runs.append({"seed": number, "test": _a_test(cases, dices)})
        models[model] = {"name": model.upper(), "test": runs[0]["test"], "runs": runs}
    return {"models": models}


def _a_test(cases: list[str], dices: list[float | None]) -> dict:
    volumes = {
        case: {
            "dice": dice,
            "iou": None if dice is None else paper.iou_from_dice(dice),
            "patient_id": case.replace("case", "patient"),
        }
        for case, dice in zip(cases, dices)
    }
    defined = [dice for dice in dices if dice is not None]
    return {"per_volume": {"dice": float(np.mean(defined))}, "volumes": volumes}


def _judge_runs(function: Callable, results) -> None:
    answer = function(results)
    right = scores_by_patient(results)
    _require_keys(answer, right, "model ids")
    for model, rows in right.items():
        cases = results["models"][model]["test"]["volumes"]
        if isinstance(answer[model], dict) and set(answer[model]) == set(cases):
            raise Wrong(
                'you sorted by case; the unit is the patient, whose id is in "patient_id" of each '
                "volume"
            )
        _require_keys(answer[model], rows, f"patient ids for {model}")
        for patient, values in rows.items():
            _judge_run_values(answer[model][patient], values, results, model, patient)


def _judge_run_values(
    answer: object, right: list[float], results: dict, model: str, patient: str
) -> None:
    where = f"in {model}, {patient}"
    if isinstance(answer, Real) or np.ndim(answer) == 0:
        raise Wrong(f"{where}: return a list with one Dice for each run, not {describe(answer)}")
    answer = list(answer)
    if None in answer:
        raise Wrong(f'{where}: None cannot be averaged; put float("nan") for an undefined Dice')
    values = [as_number(value, "a Dice") for value in answer]
    if len(values) != len(right):
        first = ' (the model\'s own "test" is that of its first run)' if len(values) == 1 else ""
        if np.isnan(right).any():
            first += '; an undefined Dice has its place too, as float("nan")'
        raise Wrong(f"{where}: there are {len(right)} runs, and you list {len(values)}{first}")
    if np.allclose(values, right, atol=NEAR, equal_nan=True):
        return
    if np.allclose(values, scores_by_patient(results, "iou")[model][patient], equal_nan=True):
        raise Wrong(f"{where}: these are the IoUs")
    runs = results["models"][model]["runs"]
    if np.allclose(values, [run["test"]["per_volume"]["dice"] for run in runs], atol=NEAR):
        raise Wrong(f"{where}: these are the means over all volumes of a run, not this patient's")
    if len(set(values)) == 1 and len(set(right)) > 1:
        raise Wrong(f"{where}: you list the same Dice for every run: take each run's own test")
    if np.allclose(np.nan_to_num(values), np.nan_to_num(right), atol=NEAR):
        raise Wrong(f'{where}: an undefined Dice is not 0; put float("nan") in its place')
    raise Wrong(f"{where}: the runs have {_listed(right)}, and you list {_listed(values)}")


def _require_keys(answer: object, right: Iterable[str], what: str) -> None:
    if not isinstance(answer, dict):
        raise Wrong(f"return a dict with {what} as its keys, not {describe(answer)}")
    if set(answer) != set(right):
        raise Wrong(f"your dict has the keys {sorted(map(str, answer))}: use the {what}")


# --- 8.6 ------------------------------------------------------------------------------------------


def some_counts(seed: int, volumes: int = 3) -> np.ndarray:
    """Make the counts of volumes of very different size and prevalence: int [volume, 4]."""
    rng = np.random.default_rng([8, 6, seed])
    rows = []
    for volume in range(volumes):
        spine = int(rng.integers(2000, 9000)) * (1 + 5 * volume)
        fp, fn = (int(rng.uniform(0.05, 0.4) * spine) for _ in range(2))
        rows.append([spine - fn, fp, fn, int(spine * rng.uniform(4, 120))])
    return np.array(rows)


def _judge_gaps(function: Callable, counts) -> None:
    answer = function(counts)
    volumes = [Confusion(*map(int, row)) for row in counts]
    right = _gaps(volumes, metrics.iou, metrics.iou_mean, metrics.dice)
    _require_keys(answer, right, f"names {_listed_words(right)}")
    answer = {name: as_number(answer[name], "a difference") for name in right}
    if _same(answer, right):
        return
    swapped = {
        name: right[
            name.replace("pooled", "x").replace("per volume", "pooled").replace("x", "per volume")
        ]
        for name in right
    }
    mistakes = {
        "your signs are turned: subtract the Dice from the IoU": {
            name: -value for name, value in right.items()
        },
        "pooled and per volume are exchanged: to pool is to add up the counts first": swapped,
        "the Dice is always the spine's own: you averaged it over both classes too": _gaps(
            volumes, metrics.iou, metrics.iou_mean, _mean_dice
        ),
        '"classes" is the mean of background and spine: you took the background\'s IoU '
        "alone": _gaps(volumes, metrics.iou, metrics.iou_background, metrics.dice),
        '"classes" is a mean of two IoUs, and you took the accuracy': _gaps(
            volumes, metrics.iou, metrics.accuracy, metrics.dice
        ),
        '"pooled" is not the mean over volumes: add up the counts of all volumes, then score': {
            name: right[f"{name.split(',')[0]}, per volume"] for name in right
        },
        '"per volume" is the mean of each volume\'s score: a large volume counts no more than '
        "a small one": {name: right[f"{name.split(',')[0]}, pooled"] for name in right},
    }
    for message, value in mistakes.items():
        if _same(answer, value):
            raise Wrong(message)
    name = next(name for name in right if not _near(answer[name], right[name]))
    raise Wrong(f'"{name}" should be {right[name]:+.4f}, and yours is {answer[name]:+.4f}')


def _gaps(
    volumes: list[Confusion], spine: Callable, classes: Callable, dice: Callable
) -> dict[str, float]:
    total = sum(volumes, Confusion(0, 0, 0, 0))
    result = {}
    for name, iou in (("spine", spine), ("classes", classes)):
        result[f"{name}, pooled"] = iou(total) - dice(total)
        each = [iou(volume) - dice(volume) for volume in volumes]
        result[f"{name}, per volume"] = math.fsum(each) / len(each)
    return result


def _mean_dice(c: Confusion) -> float:
    background = Confusion(c.tn, c.fn, c.fp, c.tp)
    return (metrics.dice(c) + metrics.dice(background)) / 2


def _same(a: dict[str, float], b: dict[str, float]) -> bool:
    return all(_near(a[name], b[name]) for name in a)


# --- what several judges need ---------------------------------------------------------------------


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0, abs_tol=NEAR)


def _pair(answer: object, what: str) -> tuple[float, float]:
    if not isinstance(answer, tuple | list | np.ndarray) or len(answer) != 2:
        raise Wrong(f"return two numbers, {what}, and not {describe(answer)}")
    low, high = (as_number(item, "each of the two") for item in answer)
    return low, high


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _listed_words(message: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in message)


EXERCISES = declare(
    __file__,
    {
        "8.1": (lambda: [(dice,) for dice in (0.8, *some_dices(0), 1.0, 0.0)], _judge_iou),
        "8.2": (_bounds_inputs, _judge_bounds),
        "8.3": (lambda: some_pairs(0), _judge_class),
        "8.4": (lambda: some_scores(0), _judge_prevalence),
        "8.5": (
            lambda: [
                (some_results(0),),
                (some_results(1, seeds=2, undefined=True),),
                (some_results(2, 1),),
            ],
            _judge_runs,
        ),
        "8.6": (
            lambda: [(some_counts(seed, volumes),) for seed, volumes in enumerate((2, 3, 5))],
            _judge_gaps,
        ),
    },
)
