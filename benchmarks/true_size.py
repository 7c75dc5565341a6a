"""Time the paper's experiment at its true size, on phantoms, and extrapolate to the whole.

What cannot be downloaded can still be timed: phantoms as large as the public set's scans, in the
layout of `pycad1089`, go through its reader, the slicing, both trainings, prediction and scoring.
Each stage is timed; its speed times the numbers of the whole experiment (1089 scans, 10 epochs, one
seed) is what the whole would take on this machine. What networks score on phantoms says nothing
about patients.

    python benchmarks/true_size.py --scans 11 --steps 20 --workers 2
    python benchmarks/true_size.py --scans 3 --steps 4 --batch 4 --miniature

Called again with the same --folder, it keeps what is finished: phantoms, slices, trained networks
(whose training is not timed again then). One JSON file holds the figures, hardware and versions.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import psutil
from lightning.pytorch.callbacks import Timer
from training import StepTimes, bare_steps

from spine_lib.annotations.schemes import SACRUM
from spine_lib.ct.files import write_json
from spine_lib.ct.geometry import slice_spacing_mm
from spine_lib.ct.nifti import write_nifti
from spine_lib.datasets import Case, find_cases, make_phantom, split_of
from spine_lib.metrics.overlap import evaluate_volume
from spine_lib.reproduce import provenance
from spine_lib.slices import SliceStore, prepare
from spine_lib.training.devices import choose_device, choose_precision
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import load_or_train
from spine_lib.volumes import predict_mask

RESULTS = Path(__file__).parent / "results" / "true_size.json"
SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""How `split_of` shares out the public set."""

WHOLE = {"scans": 1089, "epochs": 10}
GOAL_MINUTES = 30.0
"""For the whole experiment on one datacentre GPU, without making the phantoms."""

SHAPE = (229, 237, 243)
"""Voxels of the middle one of the 1089 scans, along x, y and z; 1.5 mm each."""

TINY_SHAPE = (40, 40, 30)
"""With voxels of 6 mm, for `--miniature`."""

SPREAD = 0.12
"""Shapes vary by up to this share around it."""

FIRST_SEED = 5000
"""Of the phantoms, apart from those that the recipes train and test on."""

S1_MM = 30.0
"""Height of S1 below the sacrum's upper end; the public set labels no more of it."""

VALIDATED = 1 / 12
"""Share of the validation part's slices that each validation predicts."""

BARE_STEPS = {"cpu": 4, "cuda": 60}
"""Timed steps on one batch in memory."""


def main(arguments: Sequence[str] | None = None) -> dict:
    """Run all stages, print and write the figures, and return them."""
    options = parser().parse_args(arguments)
    options.shape, options.spacing = (TINY_SHAPE, 6.0) if options.miniature else (SHAPE, 1.5)
    if options.scans < len(SHARES):
        raise SystemExit(f"{options.scans} scans cannot be split in 3 parts: ask for 3 or more")
    device, load = choose_device(options.device), psutil.getloadavg()
    recipe = recipe_of(options)
    measured: dict[str, Any] = {"phantoms": write_scans(options)}
    parts: dict[str, list[Case]] = {part: [] for part in SHARES}
    for case in find_cases("pycad1089", options.folder / "scans").cases:
        parts[case.split].append(case)
    stores, measured["prepare"] = cut(parts, recipe, options)
    measured["train"], measured["evaluate"] = {}, {}
    for model in recipe.models:
        network, row = train(model, recipe, stores, options.folder, device)
        measured["train"][model] = row
        measured["evaluate"][model] = evaluate(model, network, recipe, parts["test"], device)
    result = {
        "measured": measured,
        "computed": extrapolate(measured, recipe),
        "goal": {"minutes": GOAL_MINUTES, "on": "one datacentre GPU, without the phantoms"},
        "scans": {part: len(cases) for part, cases in parts.items()},
        "hardware": {
            "device": provenance.device_name(device),
            "precision": choose_precision(recipe.precision, device),
            "machine": f"{platform.system()} {platform.machine()}",
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "workers": options.workers,
            "load_before": load,
            "load_after": psutil.getloadavg(),
        },
        "recipe": recipe.to_dict(),
        "versions": provenance.versions(),
        "created": time.strftime("%Y-%m-%d"),
    }
    print(table(result))
    write_json(options.output, result)
    return result


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=11, help="phantoms, 3 or more (11)")
    parser.add_argument("--steps", type=int, default=20, help="of each training (20)")
    parser.add_argument("--batch", type=int, help="patches a step (the recipe's)")
    parser.add_argument("--recipe", default="paper", help="name or file (paper)")
    parser.add_argument("--imagenet", action="store_true", help="fetch the encoder weights")
    parser.add_argument("--workers", type=int, default=1, help="processes for scans, patches (1)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--miniature", action="store_true", help="tiny scans and patches, to try")
    parser.add_argument("--folder", type=Path, default=Path("runs") / "true-size")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Return the recipe with the asked number of steps, on the public set's layout alone."""
    recipe = load_recipe(options.recipe)
    if options.miniature:
        tiny = recipe.augmentation.changed(size=32)
        recipe = recipe.changed(spacing_mm=6.0, atrous_rates=(1, 2, 3), augmentation=tiny)
    return recipe.changed(
        dataset="pycad1089",
        phantoms=0,
        phantom_share=0.0,
        validation_phantoms=0,
        batch=options.batch or recipe.batch,
        encoder_weights=recipe.encoder_weights if options.imagenet else None,
        steps=options.steps,
        steps_per_epoch=options.steps,
        workers=options.workers if choose_device(options.device) == "cuda" else 0,
    )


def row(unit: str, units: int, seconds: float) -> dict[str, float]:
    """Return how much was done in which time, and how long each took."""
    return {unit: units, "seconds": round(seconds, 2), "seconds_each": round(seconds / units, 4)}


# --- phantoms in the layout of the public set -----------------------------------------------------


def shares_of(scans: int) -> dict[str, int]:
    """Return how many scans each part gets, one at least."""
    counts = {part: max(1, round(share * scans)) for part, share in SHARES.items()}
    counts["train"] += scans - sum(counts.values())
    return counts


def numbers_of(scans: int) -> list[int]:
    """Choose the scans' numbers, with gaps, so that their names fall into the parts as asked."""
    wanted, chosen = shares_of(scans), []
    for number in itertools.count():
        part = split_of(f"case_{number:04d}")
        if wanted[part]:
            wanted[part] -= 1
            chosen.append(number)
        if not any(wanted.values()):
            return chosen


def write_scans(options: argparse.Namespace) -> dict[str, float] | None:
    """Write the phantoms that are missing; return the time, or None where none is."""
    folder = options.folder / "scans"
    names = {number: f"case_{number:04d}.nii" for number in numbers_of(options.scans)}
    missing = [n for n, name in names.items() if not (folder / "segmentations" / name).is_file()]
    if not missing:
        return None
    print(f"{len(missing)} phantoms of about {options.shape} voxels in {folder}")
    write = functools.partial(write_case, folder, shape=options.shape, spacing_mm=options.spacing)
    started = time.perf_counter()
    if options.workers == 1:
        list(map(write, missing))
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(options.workers, len(missing)), spawn) as pool:
            list(pool.map(write, missing))
    return row("scans", len(missing), time.perf_counter() - started)


def write_case(folder: Path, number: int, shape: Sequence[int], spacing_mm: float) -> None:
    """Write one phantom and its mask; the mask comes last, so that a pair is whole.

    Its shape follows from its number and varies around `shape`.
    """
    factors = np.random.default_rng((FIRST_SEED, number)).uniform(1 - SPREAD, 1 + SPREAD, 3)
    varied = tuple(int(round(n * factor)) for n, factor in zip(shape, factors, strict=True))
    # The public set's ids have no place for a thirteenth thoracic or a sixth lumbar vertebra.
    data = make_phantom(FIRST_SEED + number, varied, spacing_mm, extra="")
    name = f"case_{number:04d}.nii"
    write_nifti(data.ct.array, data.ct.affine, folder / "volumes" / name)
    labels = public_ids(data.labels.array, spacing_mm)
    write_nifti(labels, data.ct.affine, folder / "segmentations" / name)


def public_ids(labels: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Return the public set's ids for canonical ones: of the sacrum S1 alone, as 25.

    Args:
        labels: uint8 canonical ids [x, y, z], without L6 and T13.
        spacing_mm: size of a voxel along z.
    """
    labels, sacrum = labels.copy(), labels == SACRUM
    heights = np.flatnonzero(sacrum.any(axis=(0, 1)))
    if len(heights):
        below = max(0, heights[-1] + 1 - round(S1_MM / spacing_mm))
        labels[sacrum] = 25
        labels[:, :, :below][sacrum[:, :, :below]] = 0
    return labels


# --- the stages -----------------------------------------------------------------------------------


def cut(
    parts: dict[str, list[Case]], recipe: Recipe, options: argparse.Namespace
) -> tuple[dict[str, SliceStore], dict[str, float]]:
    """Cut the scans of training and validation into slices."""
    started, stores = time.perf_counter(), {}
    for part in ("train", "validation"):
        folder = options.folder / "slices" / part
        settings = (folder, recipe.planes, recipe.spacing_mm, options.workers)
        stores[part] = prepare(parts[part], *settings)
    scans = len(parts["train"]) + len(parts["validation"])
    return stores, row("scans", scans, time.perf_counter() - started)


def train(
    model: str, recipe: Recipe, stores: dict[str, SliceStore], folder: Path, device: str
) -> tuple[Any, dict[str, Any]]:
    """Train with the library; return the network, and images a second beside the bare step's."""
    times, timer = StepTimes(), Timer()
    callbacks = (times, timer)
    data, run = (stores["train"], stores["validation"]), folder / model
    print(f"{model}: {recipe.steps} steps of {recipe.batch} patches")
    network = load_or_train(
        model, recipe, *data, run, device, progress=False, callbacks=callbacks
    ).network
    seconds = np.diff(times.ends)  # without the first step, which starts the kernels
    if not len(seconds):
        return network, {}  # an earlier call trained it
    steps = bare_steps(model, recipe, stores["train"], device)
    bare = list(itertools.islice(steps, 2 + BARE_STEPS[device]))[2:]
    speeds = {"images_per_second": recipe.batch / np.median(seconds)}
    speeds["bare_step_images_per_second"] = recipe.batch / statistics.median(bare)
    slices = sum(volume.shape[0] for volume in stores["validation"].volumes)
    validated = max(1, round(VALIDATED * slices))
    return network, {
        "steps": row("images", recipe.batch * len(seconds), float(seconds.sum())),
        **{name: round(float(value), 3) for name, value in speeds.items()},
        "share_of_bare_step": round(float(np.median(bare) / np.median(seconds)), 3),
        "validation": row("slices", validated, timer.time_elapsed("validate")),
    }


def evaluate(
    model: str, network: Any, recipe: Recipe, cases: Sequence[Case], device: str
) -> dict[str, dict[str, float]]:
    """Predict and score the test scans."""
    seconds = {"read": 0.0, "predict": 0.0, "score": 0.0}
    for case in cases:
        print(f"testing {model} on {case.case_id}")
        marks = [time.perf_counter()]
        data = case.load()
        marks.append(time.perf_counter())
        mask = predict_mask(network, data.ct, recipe, device)[1].array > 0
        marks.append(time.perf_counter())
        truth = data.labels.array > 0
        evaluate_volume(mask, truth, data.ct.spacing_mm, data.ignore.array)
        marks.append(time.perf_counter())
        for stage, spent in zip(seconds, np.diff(marks), strict=True):
            seconds[stage] += float(spent)
    return {stage: row("scans", len(cases), spent) for stage, spent in seconds.items()}


def extrapolate(measured: dict, recipe: Recipe) -> dict:
    """Compute from measured speeds how long the whole experiment would take on this machine.

    Returns:
        Seconds a stage and minutes in all; a stage that was not measured is None and adds nothing.
    """
    scans = shares_of(WHOLE["scans"])
    slices = sum(slice_spacing_mm(SHAPE, plane)[0] for plane in recipe.planes)
    images = round(scans["train"] * slices) * WHOLE["epochs"]
    validated = scans["validation"] * slices * VALIDATED * WHOLE["epochs"]
    seconds = {
        "prepare": measured["prepare"]["seconds_each"] * (scans["train"] + scans["validation"])
    }
    for model, stages in measured["train"].items():
        seconds[f"train {model}"] = (
            stages["steps"]["seconds_each"] * images
            + stages["validation"]["seconds_each"] * validated
            if stages
            else None
        )
    for model, stages in measured["evaluate"].items():
        each = sum(stage["seconds_each"] for stage in stages.values())
        seconds[f"evaluate {model}"] = each * scans["test"]
    return {
        "for": f"{WHOLE['scans']} scans, {len(recipe.models)} models, {WHOLE['epochs']} epochs at "
        f"{recipe.augmentation.size}x{recipe.augmentation.size}, one seed",
        "training_images_of_each_model": images,
        "seconds": {stage: value and round(value) for stage, value in seconds.items()},
        "minutes": round(sum(value or 0 for value in seconds.values()) / 60, 1),
    }


def table(result: dict) -> str:
    """Return the figures as text."""
    measured, computed = result["measured"], result["computed"]
    lines = [f"measured: slicing {measured['prepare']['seconds_each']:.2f} s a scan"]
    for model, stages in measured["train"].items():
        if stages:
            lines.append(
                f"  {model}: {stages['images_per_second']:.1f} images/s, "
                f"{stages['share_of_bare_step']:.0%} of the bare step"
            )
        evaluated = measured["evaluate"][model]
        lines.append(
            f"  {model}: {evaluated['predict']['seconds_each']:.1f} s a scan to predict, "
            f"{evaluated['score']['seconds_each']:.1f} s to score"
        )
    lines.append(f"computed for {computed['for']}: {computed['minutes']:.0f} min on this machine")
    lines += [f"  {s}: {v / 60:.1f} min" for s, v in computed["seconds"].items() if v is not None]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
