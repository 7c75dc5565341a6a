"""How much a split by slice flatters a network, measured.

The same small network is trained twice on equally many slices and scored on the same slices. Once
the training slices come from other patients only (split by patient), once from all patients, those
of the scored slices included (split by slice); neither ever trains on a slice that is scored. What
the second scores more is what leaked.
"""

import time

import numpy as np

from spine_lib.course import demonstrations

NAME = "leakage"
SEEDS = (0, 1, 2, 3, 4)

PATIENTS = demonstrations.PATIENTS
"""The patients held out in turn."""

PHANTOMS = 4
"""Generated patients that are only ever trained on, so that a split leaves enough to learn from."""

PIXEL_MM, BOX = 4.0, 32
"""Crops of this many pixels around the spine, so that a step takes little time."""

SCORED_SHARE = 0.25
"""Share of each patient's slices that are scored and never trained on."""

STEPS, BATCH, LEARNING_RATE = 200, 16, demonstrations.LEARNING_RATE


def run(seed: int, fast: bool = False) -> dict:
    """Hold out each real patient in turn and measure the Dice that a split by slice adds.

    Args:
        seed: decides everything random.
        fast: few steps and one phantom, to see that it runs.

    Returns:
        Numbers of each patient (see `compare_splits`), their means "by slice" and "by patient",
        the "gap" between these, and the CPU "seconds".
    """
    started = time.process_time()
    patients = demonstrations.leakage_patients(1 if fast else PHANTOMS, PIXEL_MM, BOX)
    steps = 6 if fast else STEPS
    results = demonstrations.compare_splits(patients, PATIENTS, seed, steps, BATCH)
    means = {
        split: float(np.mean([result[split] for result in results.values()]))
        for split in ("by slice", "by patient")
    }
    return {
        "patients": results,
        **means,
        "gap": means["by slice"] - means["by patient"],
        "seconds": round(time.process_time() - started, 1),
    }
