"""What makes the shipped models fail: generated patients scanned well, and once more badly.

Each patient is scanned under every provocation of `spine_lib.course.provocations`, all else being
equal, and segmented by both shipped models. Neither was trained on any of these patients. Beside
the scores against the truth stands how far the two models agree, which needs no truth.
"""

import time

import numpy as np

from spine_lib import metrics
from spine_lib.course.provocations import PROVOCATIONS, provoke
from spine_lib.training.pretrained import PRETRAINED, load_pretrained
from spine_lib.volumes import predict_mask

NAME = "stress"
SEEDS = (0, 1, 2, 3)

FIRST_PATIENT = 6000
"""Seed of the first phantom; the models were trained on 1000 to 1007."""

FAST = {"shape": (72, 72, 8)}
FAST_PROVOCATIONS = 3


def run(seed: int, fast: bool = False) -> dict:
    """Scan one patient under all provocations and segment each scan with both models.

    Args:
        seed: which patient.
        fast: few provocations on a small grid, to see that it runs.

    Returns:
        "scans": by provocation, Dice, precision and recall of each model and their "agreement",
        the Dice between the two models' masks; and the CPU "seconds".
    """
    started = time.process_time()
    models = {name: load_pretrained(name) for name in PRETRAINED}
    chosen = list(PROVOCATIONS)[: FAST_PROVOCATIONS if fast else None]
    scans = {}
    for provocation in chosen:
        data = provoke(provocation, FIRST_PATIENT + seed, **(FAST if fast else {}))
        truth = data.labels.array > 0
        masks, scores = [], {}
        for name, (network, recipe) in models.items():
            mask = predict_mask(network, data.ct, recipe, "cpu")[1].array > 0
            scores[name] = _scores(mask, truth)
            masks.append(mask)
        scores["agreement"] = metrics.dice(metrics.confusion(*masks))
        scans[provocation] = scores
    return {"scans": scans, "seconds": round(time.process_time() - started, 1)}


def _scores(mask: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    counts = metrics.confusion(mask, truth)
    return {
        "dice": metrics.dice(counts),
        "precision": metrics.precision(counts),
        "recall": metrics.recall(counts),
    }
