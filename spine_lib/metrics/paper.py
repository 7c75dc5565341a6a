"""Lesson 8: the paper's table, and what follows from a published table alone.

Scores of one segmentation all follow from four counts, so a table of rounded scores can be checked
without the data (`check_table`). A `Range` holds for every value that is printed as the given one.
Scores are fractions (0.985, not 98.5 %): D is Dice, J is IoU, e = 1 - accuracy is the share of
wrong voxels, and p is the prevalence, the share of voxels that are spine.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple, Self

from spine_lib import SpineError
from spine_lib.ct.files import read_yaml
from spine_lib.metrics.overlap import mean_defined

_FACTS = read_yaml(Path(str(resources.files("spine_lib.metrics"))) / "paper.yaml")
CITATION: str = _FACTS["citation"]
SOURCE_NOTE: str = _FACTS["source_note"]
PAPER: dict[str, dict[str, float | str]] = _FACTS["table"]
KNOWN_SETTINGS: dict[str, str] = _FACTS["known_settings"]
UNKNOWN_SETTINGS: list[str] = _FACTS["unknown_settings"]
# Share of spine voxels in that public data set, measured by others on 218 of the 1089 volumes.
PREVALENCE = 0.0079
DECIMALS = 3
AVERAGED_IOUS = {"iou_mean": "the mean over background and spine", "iou": "the spine's own"}
AVERAGES = {
    "pooled": "voxels pooled",
    "per_volume": "averaged over volumes",
    "per_slice": "averaged over slices",
}


class Range(NamedTuple):
    """The lowest and the highest admissible value of a fraction."""

    low: float
    high: float

    def overlaps(self, other: Self) -> bool:
        return self.low <= other.high and other.low <= self.high

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class TableFinding:
    """A conclusion from a table's own figures, about one model or about all (`model` "")."""

    code: str
    model: str
    message: str


@dataclass(frozen=True)
class Averaging:
    """The relation of IoU and Dice under one averaging of our predictions."""

    iou: str  # key of `AVERAGED_IOUS`
    name: str  # the averaging in words
    gaps: dict[str, float]  # by model, IoU less Dice, the mean over seeds
    distance: float  # mean over all runs of how far the gap lies from `class_mean_excess`


def within_rounding(value: float) -> Range:
    """Return the fractions that are printed as `value`."""
    half = 0.5 * 10.0**-DECIMALS
    return Range(max(value - half, 0.0), min(value + half, 1.0))


def iou_from_dice(dice: float) -> float:
    """Return the IoU of the mask pair with that Dice: J = D / (2 - D), never above D."""
    return dice / (2 - dice)


def mean_iou_range(dice: float) -> Range:
    """Return which mean spine IoU can stand beside a mean Dice, however many masks were averaged.

    J is convex in D and never above it: its mean lies between the J of the mean Dice (all masks
    alike) and the mean Dice itself (each mask perfect or worthless).
    """
    low, high = within_rounding(dice)
    return Range(iou_from_dice(low), high)


def background_iou_range(iou: float, dice: float) -> Range | None:
    """Return the background IoU that would make `iou` a mean over {background, spine}.

    That is, (background + D / (2 - D)) / 2 = iou; None if it would lie above 1 or below 0.
    """
    ious, dices = within_rounding(iou), within_rounding(dice)
    low = 2 * ious.low - iou_from_dice(dices.high)
    high = 2 * ious.high - iou_from_dice(dices.low)
    if low > 1 or high < 0:
        return None
    return Range(max(low, 0.0), min(high, 1.0))


def class_mean_iou(dice: float, prevalence: float) -> float:
    """Return mean IoU over {background, spine}, if FP = FN = (1 - D) p, in shares of all voxels."""
    wrong = (1 - dice) * prevalence
    background = (1 - prevalence - wrong) / (1 - prevalence + wrong)
    return (background + iou_from_dice(dice)) / 2


def accuracy_from_dice(dice: float, prevalence: float) -> float:
    """Return the pooled accuracy, with as many false positives as negatives: 1 - 2 (1 - D) p."""
    return 1 - 2 * (1 - dice) * prevalence


def accuracy_range(dice: float, prevalence: float) -> Range:
    """Return the pooled accuracy that Dice and prevalence allow, whatever FP and FN are.

    e = 2 TP (1 - D) / D, and TP lies between D p / (2 - D) (only misses) ... p (only false alarms).
    """
    dices = within_rounding(dice)
    least = 2 * prevalence * (1 - dices.high) / (2 - dices.high)
    most = 2 * prevalence * (1 - dices.low) / dices.low if dices.low > 0 else 1.0
    return Range(max(1 - most, 0.0), 1 - least)


def prevalence_range(accuracy: float, dice: float) -> Range | None:
    """Return the prevalence that pooled accuracy and Dice imply; None if either may be 1.

    TP = D e / (2 (1 - D)), and p lies between TP (no misses) and TP + e (only misses).
    """
    accuracies, dices = within_rounding(accuracy), within_rounding(dice)
    if dices.high >= 1 or accuracies.high >= 1:
        return None
    least, most = 1 - accuracies.high, 1 - accuracies.low
    low = dices.low * least / (2 * (1 - dices.low))
    high = dices.high * most / (2 * (1 - dices.high)) + most
    return Range(min(low, 1.0), min(high, 1.0))


def check_table(
    rows: Mapping[str, Mapping[str, float | str]] = PAPER,
    prevalence: float | None = PREVALENCE,
) -> list[TableFinding]:
    """Return the contradictions within a table of binary segmentation scores.

    Args:
        rows: of one test set, by model id: fractions "iou", "dice" and, where given, "f1" and
            "accuracy"; "name" is how the sentences call the model.
        prevalence: share of spine voxels in the data, if it is known from elsewhere.

    Returns:
        Findings in plain sentences, the verdict last; none if it could be one pooled evaluation.
    """
    findings, ranges = [], []
    for model, row in rows.items():
        _require_fractions(model, row)
        findings += _check_row(model, row, prevalence)
        if row.get("accuracy") is not None:
            implied = prevalence_range(row["accuracy"], row["dice"])
            ranges.append((row.get("name", model), implied))
    findings += [
        _finding("prevalences_disjoint", first=first, a=a, second=second, b=b)
        for (first, a), (second, b) in combinations(ranges, 2)
        if a and b and not a.overlaps(b)
    ]
    if not findings:
        return []
    fitting = {finding.model for finding in findings if finding.code == "class_mean_fits"}
    consistent = _FACTS["findings"]["consistent"] if fitting == set(rows) else ""
    return [*findings, _finding("verdict", consistent=consistent)]


def _finding(code: str, model: str = "", name: str = "", **values: object) -> TableFinding:
    """Return a finding in its sentence, which begins with the name of its model, if of one."""
    sentence = _FACTS["findings"][code].format(**values)
    return TableFinding(code, model, f"{name}: {sentence}" if model else sentence)


def _require_fractions(model: str, row: Mapping[str, float | str]) -> None:
    scores = {"iou": row.get("iou"), "dice": row.get("dice")}
    scores |= {name: row[name] for name in ("f1", "accuracy") if row.get(name) is not None}
    for score, value in scores.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise SpineError(
                f"the table's {score} of {model} is {value!r}: give a fraction between 0 and 1 "
                "(0.985 for 98.5 %)"
            )


def _check_row(model: str, row: Mapping, prevalence: float | None) -> Iterator[TableFinding]:
    """Yield each contradiction within a row."""
    iou, dice, f1, accuracy = map(row.get, ("iou", "dice", "f1", "accuracy"))
    scores = {"iou": iou, "dice": dice, "f1": f1, "single": iou_from_dice(dice)}
    texts = {key: f"{value or 0:.{DECIMALS}f}" for key, value in scores.items()}
    about = {"model": model, "name": row.get("name", model), "prevalence": prevalence}
    finding = functools.partial(_finding, **about, **texts)

    def is_excluded(value: float, allowed: Range) -> bool:
        return not allowed.overlaps(within_rounding(value))

    if f1 is not None and is_excluded(f1, within_rounding(dice)):
        yield finding("f1_differs_from_dice")
    if is_excluded(iou, mean_iou_range(dice)):
        relation = "above" if iou > dice else "too far below"
        yield finding("iou_and_dice_disagree", relation=relation)
        if background := background_iou_range(iou, dice):
            clause = ""
            if prevalence is not None:
                mean = class_mean_iou(dice, prevalence)
                clause = _FACTS["findings"]["at_prevalence"]
                clause = clause.format(prevalence=prevalence, mean=mean)
            yield finding("class_mean_fits", background=background, at_prevalence=clause)
    if None not in (prevalence, accuracy):
        if is_excluded(accuracy, accuracy_range(dice, prevalence)):
            pooled = accuracy_from_dice(dice, prevalence)
            empty = 1 - prevalence
            yield finding("accuracy_does_not_fit", pooled=pooled, accuracy=accuracy, empty=empty)


def class_mean_excess(dice: float) -> float:
    """Return by how much a mean IoU over background and rare spine exceeds the Dice.

    The background's IoU is 1 then, and (1 + D / (2 - D)) / 2 - D = (1 - D)**2 / (2 - D).
    """
    return (1 - dice) ** 2 / (2 - dice)


def rank_averagings(models: Mapping[str, Mapping]) -> list[Averaging]:
    """Return every averaging of our predictions, the closest to the paper's pattern first.

    If the paper's IoU is a mean over background and spine, the gap between IoU and Dice is
    `class_mean_excess`, however good a model is. `models` holds, by model id, {"runs": [{"test":
    scores}]} or {"test": scores}, as in `results.json`; what is undefined is left out.
    """
    runs = {
        (model, number): run.get("test") or {}
        for model, entry in models.items()
        for number, run in enumerate(entry.get("runs") or [entry])
    }
    averagings = []
    for iou, average in product(AVERAGED_IOUS, AVERAGES):
        gaps, distances = {}, []
        for (model, _), test in runs.items():
            scores = test.get(average) or {}
            value, dice = scores.get(iou), scores.get("dice")
            if None not in (value, dice) and math.isfinite(value) and math.isfinite(dice):
                gaps.setdefault(model, []).append(value - dice)
                distances.append(abs(value - dice - class_mean_excess(dice)))
        if gaps:
            means = {model: mean_defined(values) for model, values in gaps.items()}
            name = f"IoU as {AVERAGED_IOUS[iou]}, {AVERAGES[average]}"
            averagings.append(Averaging(iou, name, means, mean_defined(distances)))
    return sorted(averagings, key=lambda averaging: averaging.distance)


def pattern_sentence(models: Mapping[str, Mapping], names: Mapping[str, str]) -> str:
    """Return a sentence on which averaging of our predictions is closest to the paper's pattern.

    `models` are those of `rank_averagings`; `names` is how the sentence calls each.
    """
    ranked = rank_averagings(models)
    if not ranked:
        return ""
    best = ranked[0]
    published = " and ".join(
        f"{row['iou'] - row['dice']:+.3f} ({row['name']})" for row in PAPER.values()
    )
    ours = " and ".join(f"{gap:+.3f} ({names.get(m, m)})" for m, gap in best.gaps.items())
    own = [gap for averaging in ranked if averaging.iou == "iou" for gap in averaging.gaps.values()]
    return _FACTS["pattern"].format(
        published=published, best=best, ours=ours, low=min(own), high=max(own)
    )
