"""Lesson 8: under which averaging do our own predictions behave as the paper's table does?

In the paper IoU lies above Dice, by 0.005 and by 0.002. The gap depends on how good a model is, so
ours need not be of that size. But if the paper's IoU is a mean over background and spine, and spine
is rare, then it is 1 / (2 - D) at a Dice of D, and lies above it by (1 - D)**2 / (2 - D). Each
averaging of our predictions is asked how far its gap is from that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from spine_lib.metrics.paper import PAPER

KINDS = {"iou_mean": "the mean over background and spine", "iou": "the spine's own"}
WAYS = {
    "pooled": "voxels pooled",
    "per_volume": "averaged over volumes",
    "per_slice": "averaged over slices",
}


@dataclass(frozen=True)
class Averaging:
    """Hold how IoU and Dice stand to each other under one averaging of our predictions.

    Attributes:
        iou: "iou" for the spine's own, "iou_mean" for the mean over background and spine.
        way: "pooled", "per_volume" or "per_slice".
        gaps: by model, IoU less Dice, the mean over seeds.
        distance: mean over all runs of how far the gap lies from `class_mean_excess`.
    """

    iou: str
    way: str
    gaps: dict[str, float]
    distance: float

    @property
    def name(self) -> str:
        """Say it in words."""
        return f"IoU as {KINDS[self.iou]}, {WAYS[self.way]}"


def class_mean_excess(dice: float) -> float:
    """Return by how much a mean IoU over background and rare spine exceeds the Dice.

    The background's IoU is 1 then, and (1 + D / (2 - D)) / 2 - D = (1 - D)**2 / (2 - D).
    """
    return (1 - dice) ** 2 / (2 - dice)


def rank_averagings(models: Mapping[str, Mapping]) -> list[Averaging]:
    """Compare every averaging of our predictions with the paper's pattern.

    Args:
        models: by model id, {"runs": [{"test": scores}]} or {"test": scores}, as `results.json`
            holds them.

    Returns:
        Six averagings, the closest first; those that are undefined are left out.
    """
    tests = {
        model: [run.get("test") or {} for run in entry.get("runs") or [entry]]
        for model, entry in models.items()
    }
    found = [_averaging(tests, iou, way) for iou in KINDS for way in WAYS]
    return sorted((one for one in found if one is not None), key=lambda one: one.distance)


def _averaging(tests: Mapping[str, list[Mapping]], iou: str, way: str) -> Averaging | None:
    gaps, distances = {}, []
    for model, runs in tests.items():
        scores = [run.get(way) or {} for run in runs]
        pairs = [(row[iou], row["dice"]) for row in scores if _defined(row, iou)]
        if pairs:
            gaps[model] = _mean(value - dice for value, dice in pairs)
            distances += [abs(value - dice - class_mean_excess(dice)) for value, dice in pairs]
    return Averaging(iou, way, gaps, _mean(distances)) if gaps else None


def _defined(row: Mapping, iou: str) -> bool:
    values = [row.get(iou), row.get("dice")]
    return all(value is not None and math.isfinite(value) for value in values)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def pattern_sentence(
    models: Mapping[str, Mapping], names: Mapping[str, str], paper: Mapping[str, Mapping] = PAPER
) -> str:
    """Say under which averaging our own predictions come closest to the paper's pattern.

    Args:
        models: as for `rank_averagings`.
        names: how the sentence calls each model.
        paper: the table, by model id.

    Returns:
        One sentence with figures; "" where there are no scores.
    """
    ranked = rank_averagings(models)
    if not ranked:
        return ""
    best = ranked[0]
    theirs = _listed(f"{row['iou'] - row['dice']:+.3f} ({row['name']})" for row in paper.values())
    ours = _listed(f"{gap:+.3f} ({names.get(m, m)})" for m, gap in best.gaps.items())
    own = [gap for one in ranked if one.iou == "iou" for gap in one.gaps.values()]
    return (
        f"Our own predictions come closest to the paper's pattern of IoU above Dice, {theirs}, "
        f"with the {best.name}: IoU less Dice is {ours}, on average {best.distance:.3f} from "
        "(1 - D)\N{SUPERSCRIPT TWO} / (2 - D), by which a mean over both classes exceeds a Dice "
        f"of D where spine is rare; with the spine's own IoU it is {min(own):+.3f} to "
        f"{max(own):+.3f}."
    )


def _listed(items: Iterable[str]) -> str:
    return " and ".join(items)
