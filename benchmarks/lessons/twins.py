"""How close the written-out networks come to their twins in segmentation_models_pytorch.

Each network is trained with the same recipe on the same phantoms and scored on phantoms that none
has seen. What a pair differs by is told by seed. Trainings are kept beside the sample and loaded
when the measurement is repeated, so that a run that was stopped goes on.
"""

import time
from pathlib import Path

import numpy as np
from torch import nn

from spine_lib import __version__
from spine_lib.datasets import phantom_cases
from spine_lib.datasets.sample import sample_root
from spine_lib.metrics.overlap import aggregate, evaluate_volume
from spine_lib.slices.augment import Augmentation
from spine_lib.slices.split import require_separate
from spine_lib.slices.store import SliceStore, prepare
from spine_lib.training.recipe import Recipe
from spine_lib.training.train import Fitted, load_or_train
from spine_lib.volumes.masks import to_mask
from spine_lib.volumes.predict import predict_volume

NAME = "twins"
SEEDS = (0, 1, 2)

TWINS = {
    "unet_own": "unet_resnet34",
    "deeplabv3plus_own": "deeplabv3plus_resnet34",
}
"""The written-out networks, each with the library's."""

GRID = {"shape": (96, 96, 64), "spacing_mm": 2.0, "tight": True}
"""Of the phantoms: stacks of 128 mm, of a field of view close to the spine."""

TRAINING_FROM, VALIDATION_FROM, HELD_OUT_FROM = 4000, 5000, 6000
"""First seeds of the phantoms of each part."""

TRAINING, VALIDATION, HELD_OUT = 12, 1, 8

STEPS, BATCH, PATCH, LEARNING_RATE = 400, 8, 64, 1.5e-3


def recipe_for(seed: int, fast: bool) -> Recipe:
    """Return how all four networks are trained; rates fit the 4 x 4 maps of 64-pixel patches."""
    steps = 6 if fast else STEPS
    return Recipe(
        name=NAME,
        dataset="phantom",
        models=tuple(name for pair in TWINS.items() for name in pair),
        atrous_rates=(1, 2, 3),
        aspp_dropout=0.1,
        phantoms=TRAINING,
        phantom_share=1.0,
        validation_phantoms=VALIDATION,
        spacing_mm=2.0,
        steps=steps,
        steps_per_epoch=steps // 2,
        batch=2 if fast else BATCH,
        learning_rate=LEARNING_RATE,
        averaging=0.5 if fast else 0.98,
        workers=0,
        seed=seed,
        flip=False,
        augmentation=Augmentation(
            size=32 if fast else PATCH, centred=0.9, redraw=0.35, noise=0.5, coarse=0.1
        ),
    )


def train(model: str, recipe: Recipe, stores: tuple[SliceStore, SliceStore], root: Path) -> Fitted:
    """Train a network, or load it where it was trained before with the same code.

    Checkpoints go once the weights are there: those of twelve trainings would take 9 GB.
    """
    folder = root / f"{model}-seed-{recipe.seed}-{recipe.steps}-steps"
    fitted = load_or_train(model, recipe, *stores, folder, "cpu", progress=False)
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()
    return fitted


def score(network: nn.Module, recipe: Recipe, cases: list) -> dict:
    """Score a network on phantoms: the pooled Dice, that of each, and their mean."""
    volumes = {}
    for case in cases:
        data = case.load()
        mask = to_mask(predict_volume(network, data.ct, recipe, "cpu"), recipe)
        volumes[case.case_id] = evaluate_volume(
            mask.array > 0, data.labels.array > 0, data.ct.spacing_mm, data.ignore.array
        )
    found = aggregate(volumes)
    return {
        "dice": found["pooled"]["dice"],
        "mean dice": found["per_volume"]["dice"],
        "nsd at 2 mm": found["per_volume"]["nsd"],
        "by phantom": {name: row["dice"] for name, row in volumes.items()},
    }


def run(seed: int, fast: bool = False, root: Path | None = None) -> dict:
    """Train both networks and their twins, and score all four on held-out phantoms.

    Args:
        seed: decides the first weights and the order of the patches.
        fast: six steps and two phantoms, to see that it runs.
        root: where trainings are kept; a folder beside the sample where left out.

    Returns:
        For each of "unet" and "deeplabv3plus" the "... gap": pooled Dice of the written-out network
        less that of its twin; and by name in "networks" what `score` gives, parameters and the
        seconds of the training (of when it was trained).
    """
    root = root or sample_root().parent / "experiments" / f"{NAME}-{__version__}"
    parts = {
        "train": phantom_cases(2 if fast else TRAINING, TRAINING_FROM, **GRID),
        "validation": phantom_cases(VALIDATION, VALIDATION_FROM, **GRID),
        "test": phantom_cases(2 if fast else HELD_OUT, HELD_OUT_FROM, **GRID),
    }
    require_separate(parts)
    recipe = recipe_for(seed, fast)
    stores = tuple(
        prepare(parts[part], root / f"{part}-{len(parts[part])}", spacing_mm=recipe.spacing_mm)
        for part in ("train", "validation")
    )
    networks = {}
    for model in recipe.models:
        started = time.process_time()
        fitted = train(model, recipe, stores, root)
        networks[model] = {
            **score(fitted.network, recipe, parts["test"]),
            "parameters": sum(p.numel() for p in fitted.network.parameters()),
            "training seconds": round(fitted.trained_seconds, 1),
            "cpu seconds now": round(time.process_time() - started, 1),
        }
    gaps = {
        f"{own.split('_')[0]} gap": networks[own]["dice"] - networks[twin]["dice"]
        for own, twin in TWINS.items()
    }
    return {**gaps, "networks": networks}


def largest_gap(rows: list[dict]) -> float:
    """Return the largest difference, either way, of a pair's pooled Dice averaged over seeds.

    Args:
        rows: one for each seed, as `run` returns them.
    """
    names = [name for name in rows[0] if name.endswith(" gap")]
    return max(abs(float(np.mean([row[name] for row in rows]))) for name in names)
