"""Thirty held-out phantoms, scored for both shipped models: a cohort to learn statistics on.

Two patients allow neither an interval nor a test, and the built-in sample holds no more that the
models have not seen. Phantoms can be made in any number. Each shows the whole spine, on voxels of
2 x 2 x 3 mm, in a box around it, and no model was ever trained, chosen or tuned on any of them.
What is measured on them says how statistics work, not how well a model does on patients.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from spine_lib import metrics
from spine_lib.annotations.schemes import REGIONS, to_regions
from spine_lib.datasets import CaseData, phantom_cases
from spine_lib.metrics.regions import assign_regions
from spine_lib.training.pretrained import PRETRAINED, load_pretrained
from spine_lib.training.recipe import Recipe
from spine_lib.volumes import predict_mask

NAME = "cohort"
SEEDS = (0, 1, 2)

PHANTOMS = 10
"""Phantoms of one seed: a seed of this measurement is a block of them."""

FIRST_PHANTOM = 4000
"""Seed of the first phantom; those for training, validation and testing end far below."""

SHAPE, SPACING_MM = (96, 112, 144), (2.0, 2.0, 3.0)
"""Largest shape; `tight` phantoms are cut to the body parts around the spine."""

FAST_SHAPE, FAST_LEVELS, FAST_PHANTOMS = (48, 56, 24), ("L2", "L4"), 2

TOLERANCE_MM = 2.0
"""Of the surface Dice."""


def cohort_seeds(seed: int) -> range:
    """Return the phantoms' own seeds in one block."""
    start = FIRST_PHANTOM + seed * PHANTOMS
    return range(start, start + PHANTOMS)


def score_regions(
    prediction: np.ndarray, regions: np.ndarray, data: CaseData
) -> dict[str, dict[str, float]]:
    """Return the scores of each region that a case shows, false positives at the nearest bone.

    Args:
        prediction: boolean mask [x, y, z].
        regions: region ids of the truth.
        data: the case, for its spacing and its ignore region.

    Returns:
        By region name, what `score_mask` measures.
    """
    assigned = assign_regions(prediction, regions, data.ct.spacing_mm)
    return {
        name: score_mask(assigned == region, regions == region, data)
        for region, name in enumerate(REGIONS, 1)
        if (regions == region).any()
    }


def score_mask(prediction: np.ndarray, truth: np.ndarray, data: CaseData) -> dict[str, float]:
    """Return the four counts, Dice, IoU, surface Dice and HD95 (mm) of a predicted mask."""
    measured = metrics.evaluate_volume(
        prediction, truth, data.ct.spacing_mm, data.ignore.array, TOLERANCE_MM
    )
    return {name: measured[name] for name in ("tp", "fp", "fn", "tn", "dice", "iou", "nsd", "hd95")}


def spread_over_slices(
    prediction: np.ndarray, truth: np.ndarray, data: CaseData
) -> dict[str, float]:
    """Return how many axial slices have a Dice, its mean over them and its standard deviation."""
    counts = metrics.confusions_by_slice(prediction, truth, data.ignore.array)
    dice = np.array([metrics.dice(one) for one in counts])
    dice = dice[~np.isnan(dice)]
    return {"count": dice.size, "mean": float(dice.mean()), "sd": float(dice.std())}


def score_case(
    data: CaseData, networks: Mapping[str, tuple[nn.Module, Recipe]]
) -> dict[str, dict[str, Any]]:
    """Predict a case with each model and score the predictions.

    Args:
        data: the case.
        networks: by name, a network and the recipe it was trained with.

    Returns:
        For each model what `score_mask` measures of the cleaned mask; as "regions" what
        `score_regions` does, as "slices" what `spread_over_slices` does, and as "raw" the counts
        before the largest piece was kept.
    """
    regions = to_regions(data.labels.array)
    scored = {}
    for name, (network, recipe) in networks.items():
        probability, mask = predict_mask(network, data.ct, recipe, device="cpu")
        raw, mask = probability.array > recipe.threshold, mask.array > 0
        scored[name] = {
            **score_mask(mask, regions > 0, data),
            "slices": spread_over_slices(mask, regions > 0, data),
            "raw": vars(metrics.confusion(raw, regions > 0, data.ignore.array)),
            "regions": score_regions(mask, regions, data),
        }
    return scored


def run(seed: int, fast: bool = False) -> dict:
    """Score one block of phantoms.

    Args:
        seed: number of the block, from 0.
        fast: two small phantoms, to see that it runs.

    Returns:
        As "phantoms" by case id the millilitres of spine and the scores of each model
        (`score_case`); the mean Dice of each model; the CPU "seconds".
    """
    started = time.process_time()
    grid = {"shape": SHAPE, "spacing_mm": SPACING_MM, "tight": True}
    count = PHANTOMS
    if fast:
        grid |= {"shape": FAST_SHAPE, "levels": FAST_LEVELS}
        count = FAST_PHANTOMS
    networks = {name: load_pretrained(name) for name in PRETRAINED}
    phantoms = {}
    for case in phantom_cases(count, cohort_seeds(seed).start, **grid):
        data = case.load()
        spine_ml = np.count_nonzero(data.labels.array) * np.prod(data.ct.spacing_mm) / 1000
        phantoms[case.case_id] = {
            "spine_ml": round(float(spine_ml), 1),
            "models": score_case(data, networks),
        }
    means = {
        f"Dice of {name}": float(
            np.mean([one["models"][name]["dice"] for one in phantoms.values()])
        )
        for name in PRETRAINED
    }
    return {
        "phantoms": phantoms,
        **means,
        "seconds": round(time.process_time() - started, 1),
    }
