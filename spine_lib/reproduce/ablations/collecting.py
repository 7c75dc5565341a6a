"""Put together what `ablation.json` holds: scores, comparisons, and how they came about."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

from spine_lib.reproduce import provenance as run_facts
from spine_lib.reproduce.ablations import comparing, scoring
from spine_lib.reproduce.ablations.folds import SPLIT_NOTE, Scored, Sides
from spine_lib.reproduce.ablations.scoring import Training
from spine_lib.reproduce.ablations.variants import Ablation, Variant
from spine_lib.training.recipe import Recipe

Runs = Mapping[str, Sequence[dict]]
"""By variant its trainings: each with "fold", "seed", "train_seconds" and "volumes"."""


def collect(
    ablation: Ablation,
    variants: Sequence[Variant],
    runs: Runs,
    recipe: Recipe,
    model: str,
    sides: Sides,
) -> dict:
    """Return the scores of an ablation, their comparisons, and who was on which side.

    Args:
        ablation: what was asked.
        variants: the reference first.
        runs: what was trained and scored.
        recipe, model: what variants change.
        sides: who was trained on and scored.
    """
    found = {one.name: entry(one, runs[one.name], recipe, model) for one in variants}
    return {
        "name": ablation.name,
        "line": ablation.line,
        "setting": ablation.setting,
        "reference": variants[0].name,
        "variants": found,
        "comparisons": comparing.compare_all(found, variants[0].name),
        "recipe": recipe.to_dict(),
        "model": model,
        "folds": {fold.name: fold.label for fold in sides.folds},
        "note": f"{SPLIT_NOTE} The test part was not read." if variants[0].split else sides.note,
        "margin_mm": scoring.MARGIN_MM,
    }


def entry(variant: Variant, runs: Sequence[dict], recipe: Recipe, model: str) -> dict:
    """Return what is kept of one variant."""
    values = variant.recipe(recipe).to_dict()
    changes = {name: values[name] for name in variant.changes}
    return {
        "label": variant.label,
        "changes": changes | ({"split": variant.split} if variant.split else {}),
        "model": variant.model or model,
        "caution": variant.caution,
        "unfair_on": variant.unfair_on,
        "dice": {
            group: scores
            for group in comparing.GROUPS
            if (scores := comparing.mean_scores(runs, group))
        },
        "runs": list(runs),
    }


def data_facts(trainings: Sequence[Training], runs: Runs) -> dict:
    """Return what is known of the data: checksums, what could not be read, and how hard it is.

    Args:
        trainings: all of an ablation.
        runs: their scores.
    """
    sums = {
        f"train/{volume.case_id}-{volume.plane}": volume.sha256
        for training in trainings
        for volume in training.training.volumes
    }
    for of in runs.values():
        for run in of:
            sums |= {f"scored/{case}": row["sha256"] for case, row in run["volumes"].items()}
    scored: dict[str, Scored] = {
        one.case.case_id: one for training in trainings for one in training.scored
    }
    left_out = sorted(case for case in scored if f"scored/{case}" not in sums)
    return {
        "trivial": {
            case: scoring.trivial(one)
            for case, one in scored.items()
            if one.group == "patients" and case not in left_out
        },
        "left_out": left_out,
        "checksums": dict(sorted(sums.items())),
    }


def run_facts_of(device: str, at_once: int, seeds: Sequence[int]) -> dict:
    """Return where and with what an ablation was run."""
    return {
        "seeds": list(seeds),
        "device": run_facts.device_name(device),
        "at_once": at_once,
        "versions": run_facts.versions(),
        "command": run_facts.command(sys.argv),
        "created": time.strftime("%Y-%m-%d"),
    }
