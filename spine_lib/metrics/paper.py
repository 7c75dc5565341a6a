"""Lesson 8: the paper's table, and what follows from a published table alone.

Scores of one segmentation all follow from four counts, so a table of rounded scores can be checked
without the data (`check_table`). A `Range` holds for every value that would have been printed as
the one in the table.

All scores are fractions (0.985, not 98.5 %): D is Dice, J is IoU, e = 1 - accuracy is the share of
wrong voxels, and p is the prevalence, the share of voxels that are spine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

from spine_lib import SpineError
from spine_lib.metrics.overlap import mean_defined

CITATION = (
    "Singh, Prabha, Malik, Lodhi (2025). Leveraging DeepLabv3+ and U-Net Models for Accurate Spine "
    "Segmentation in CT Scans. International Journal of Mathematical, Engineering and Management "
    "Sciences 10(6), 2125-2145. doi:10.33889/IJMEMS.2025.10.6.099"
)
# fmt: off
PAPER: dict[str, dict[str, float | str]] = {
    "deeplabv3plus_resnet34": {
        "name": "DeepLabv3+", "iou": 0.925, "dice": 0.920, "f1": 0.920, "accuracy": 0.985,
    },
    "unet_resnet34": {
        "name": "U-Net, ResNet34 encoder", "iou": 0.953, "dice": 0.951, "f1": 0.951,
        "accuracy": 0.986,
    },
}
UNKNOWN_SETTINGS = (
    "encoder of DeepLabv3+", "image size", "plane", "split", "epochs", "optimiser", "loss",
    "batch size", "augmentation", "how scores were averaged",
)
# fmt: on
SOURCE_NOTE = (
    "Only the paper's abstract was available to us; what it does not give is unknown here."
)
KNOWN_SETTINGS = {
    "data": '1089 "high-resolution CT images"',
    "annotation": "cervical, thoracic, lumbar and sacral areas",
    "models": "DeepLabv3+, and U-Net with a ResNet34 encoder",
}
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

    def overlaps(self, other: Range) -> bool:
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
    """The relation of IoU and Dice under one averaging of our predictions.

    Attributes:
        iou: key of `AVERAGED_IOUS`.
        name: the averaging in words.
        gaps: by model, IoU less Dice, the mean over seeds.
        distance: mean over all runs of how far the gap lies from `class_mean_excess`.
    """

    iou: str
    name: str
    gaps: dict[str, float]
    distance: float


def within_rounding(value: float, decimals: int = DECIMALS) -> Range:
    """Return the fractions that are printed as `value` with that many decimals."""
    half = 0.5 * 10.0**-decimals
    return Range(max(value - half, 0.0), min(value + half, 1.0))


def iou_from_dice(dice: float) -> float:
    """Return the IoU of the mask pair with that Dice: J = D / (2 - D), never above D."""
    return dice / (2 - dice)


def mean_iou_range(dice: float, decimals: int = DECIMALS) -> Range:
    """Return which mean spine IoU can stand beside a mean Dice, however many masks were averaged.

    J is a convex function of D and never above it, so its mean lies between the J of the mean Dice
    (all masks alike) and the mean Dice itself (each mask perfect or worthless).
    """
    low, high = within_rounding(dice, decimals)
    return Range(iou_from_dice(low), high)


def background_iou_range(iou: float, dice: float, decimals: int = DECIMALS) -> Range | None:
    """Return the background IoU that would make `iou` a mean over {background, spine}.

    With the spine's IoU from its Dice: (background + D / (2 - D)) / 2 = iou.  None if it would have
    to be above 1 or below 0.
    """
    ious, dices = within_rounding(iou, decimals), within_rounding(dice, decimals)
    low = 2 * ious.low - iou_from_dice(dices.high)
    high = 2 * ious.high - iou_from_dice(dices.low)
    if low > 1 or high < 0:
        return None
    return Range(max(low, 0.0), min(high, 1.0))


def class_mean_iou(dice: float, prevalence: float) -> float:
    """Return mean IoU over {background, spine}, with as many false positives as negatives.

    Then FP = FN = (1 - D) p, in shares of all voxels.
    """
    wrong = (1 - dice) * prevalence
    background = (1 - prevalence - wrong) / (1 - prevalence + wrong)
    return (background + iou_from_dice(dice)) / 2


def accuracy_from_dice(dice: float, prevalence: float) -> float:
    """Return the pooled accuracy, with as many false positives as negatives: 1 - 2 (1 - D) p."""
    return 1 - 2 * (1 - dice) * prevalence


def accuracy_range(dice: float, prevalence: float, decimals: int = DECIMALS) -> Range:
    """Return the pooled accuracy that Dice and prevalence allow, whatever FP and FN are.

    e = 2 TP (1 - D) / D, and TP lies between D p / (2 - D) (only misses) ... p (only false alarms).
    """
    dices = within_rounding(dice, decimals)
    least = 2 * prevalence * (1 - dices.high) / (2 - dices.high)
    most = 2 * prevalence * (1 - dices.low) / dices.low if dices.low > 0 else 1.0
    return Range(max(1 - most, 0.0), 1 - least)


def prevalence_range(accuracy: float, dice: float, decimals: int = DECIMALS) -> Range | None:
    """Return the prevalence that pooled accuracy and Dice together imply.

    From both, TP = D e / (2 (1 - D)), and p lies between TP (no misses) and TP + e (only misses).
    None where nothing is implied, because accuracy or Dice may be 1.
    """
    accuracies, dices = within_rounding(accuracy, decimals), within_rounding(dice, decimals)
    if dices.high >= 1 or accuracies.high >= 1:
        return None
    least, most = 1 - accuracies.high, 1 - accuracies.low
    low = dices.low * least / (2 * (1 - dices.low))
    high = dices.high * most / (2 * (1 - dices.high)) + most
    return Range(min(low, 1.0), min(high, 1.0))


def check_table(
    rows: Mapping[str, Mapping[str, float | str]] = PAPER,
    prevalence: float | None = PREVALENCE,
    decimals: int = DECIMALS,
) -> list[TableFinding]:
    """Return the contradictions within a table of binary segmentation scores.

    Args:
        rows: by model id, fractions "iou", "dice" and, where given, "f1" and "accuracy"; "name" is
            how the sentences call the model. All rows are taken to be of one test set.
        prevalence: share of spine voxels in the data, if it is known from elsewhere.
        decimals: to how many decimals the fractions were rounded.

    Returns:
        Findings in plain sentences, the verdict last; empty for a table that could be one pooled
        evaluation. A finding says that figures do not go together as defined, never why.
    """
    for model, row in rows.items():
        _require_fractions(model, row)
    findings = [
        TableFinding(code, model, f"{row.get('name', model)}: {message}")
        for model, row in rows.items()
        for code, message in _check_row(row, prevalence, decimals)
    ]
    findings += _check_prevalences(rows, decimals)
    fitting = {finding.model for finding in findings if finding.code == "class_mean_fits"}
    consistent = "; most consistent with class-averaged IoU, beside the spine's own Dice and F1"
    message = (
        f"The table is not reproducible as defined{consistent if fitting == set(rows) else ''}. "
        "How the figures were averaged is not known to us: this is what the printed figures alone "
        "allow to say, and both averagings are reported here."
    )
    return [*findings, TableFinding("verdict", "", message)] if findings else []


def _require_fractions(model: str, row: Mapping[str, float | str]) -> None:
    scores = {"iou": row.get("iou"), "dice": row.get("dice")}
    scores |= {name: row[name] for name in ("f1", "accuracy") if row.get(name) is not None}
    for score, value in scores.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise SpineError(
                f"the table's {score} of {model} is {value!r}: give a fraction between 0 and 1 "
                "(0.985 for 98.5 %)"
            )


def _check_row(row: Mapping, prevalence: float | None, decimals: int) -> Iterator[tuple[str, str]]:
    """Yield code and sentence of each contradiction within a row."""
    iou, dice, f1, accuracy = map(row.get, ("iou", "dice", "f1", "accuracy"))

    def text(value: float) -> str:
        return f"{value:.{decimals}f}"

    def is_excluded(value: float, allowed: Range) -> bool:
        return not allowed.overlaps(within_rounding(value, decimals))

    if f1 is not None and is_excluded(f1, within_rounding(dice, decimals)):
        yield (
            "f1_differs_from_dice",
            f"F1 {text(f1)} and Dice {text(dice)} differ, but for the same voxels they are the "
            "same number; they were averaged differently.",
        )
    if is_excluded(iou, mean_iou_range(dice, decimals)):
        yield (
            "iou_and_dice_disagree",
            f"IoU {text(iou)} is {'above' if iou > dice else 'too far below'} Dice {text(dice)}, "
            "which no averaging of the spine's own scores with equal weights can give: one mask "
            f"pair with that Dice has IoU {text(iou_from_dice(dice))}, and mean IoU never exceeds "
            "mean Dice.",
        )
        if background := background_iou_range(iou, dice, decimals):
            mean = ""
            if prevalence is not None:
                mean = (
                    f"; at a prevalence of {prevalence:.2%} that mean comes out at "
                    f"{class_mean_iou(dice, prevalence):.4f} "
                    "(false positives = false negatives assumed)"
                )
            yield (
                "class_mean_fits",
                "the IoU fits a mean over the two classes background and spine, for a background "
                f"IoU of {background.low:.3f} to {background.high:.3f}{mean}.",
            )
    if None in (prevalence, accuracy):
        return
    if is_excluded(accuracy, accuracy_range(dice, prevalence, decimals)):
        yield (
            "accuracy_does_not_fit",
            f"at a prevalence of {prevalence:.2%}, Dice {text(dice)} means a pooled accuracy of "
            f"{accuracy_from_dice(dice, prevalence):.2%}, not {accuracy:.1%}; predicting "
            f"background everywhere already scores {1 - prevalence:.1%}.",
        )


def _check_prevalences(rows: Mapping[str, Mapping], decimals: int) -> list[TableFinding]:
    ranges = [
        (row.get("name", model), prevalence_range(row["accuracy"], row["dice"], decimals))
        for model, row in rows.items()
        if row.get("accuracy") is not None
    ]
    return [
        TableFinding(
            "prevalences_disjoint",
            "",
            "Read as pooled scores, accuracy and Dice imply that "
            f"{a.low:.3f} to {a.high:.3f} of the voxels are spine ({first}), and "
            f"{b.low:.3f} to {b.high:.3f} ({second}): these do not overlap, though one test set "
            "has one prevalence.",
        )
        for (first, a), (second, b) in combinations(ranges, 2)
        if a and b and not a.overlaps(b)
    ]


def class_mean_excess(dice: float) -> float:
    """Return by how much a mean IoU over background and rare spine exceeds the Dice.

    The background's IoU is 1 then, and (1 + D / (2 - D)) / 2 - D = (1 - D)**2 / (2 - D).
    """
    return (1 - dice) ** 2 / (2 - dice)


def rank_averagings(models: Mapping[str, Mapping]) -> list[Averaging]:
    """Return every averaging of our predictions, the closest to the paper's pattern first.

    If the paper's IoU is a mean over background and spine, the gap between IoU and Dice is
    `class_mean_excess`, however good a model is.

    Args:
        models: by model id, {"runs": [{"test": scores}]} or {"test": scores}, as in `results.json`.

    Returns:
        At most six averagings; those that are undefined are left out.
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
    """Return a sentence: under which averaging our predictions come closest to the paper's pattern.

    Args:
        models: as for `rank_averagings`; without scores the sentence is "".
        names: how the sentence calls each model.
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
    return (
        f"Our own predictions come closest to the paper's pattern of IoU above Dice, {published}, "
        f"with the {best.name}: IoU less Dice is {ours}, on average {best.distance:.3f} from "
        "(1 - D)\N{SUPERSCRIPT TWO} / (2 - D), by which a mean over both classes exceeds a Dice "
        f"of D where spine is rare; with the spine's own IoU it is {min(own):+.3f} to "
        f"{max(own):+.3f}."
    )
