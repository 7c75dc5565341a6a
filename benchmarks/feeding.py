"""Time how many training patches a core makes, and compute how many cores keep a GPU fed.

Patches of the recipe `paper` (256x256), made as its loader makes them. CPU time is measured, so
that another program beside it does not count; what a loader with one worker delivers is timed too,
on the clock.

Prints a table and writes `benchmarks/results/feeding.json`.

    python benchmarks/feeding.py
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import psutil
import torch
from torch.utils.data import default_collate

from spine_lib.ct.files import write_json
from spine_lib.datasets import phantom_cases
from spine_lib.reproduce import provenance
from spine_lib.slices.augment import LABEL_OF_CLASS, TrainingAugmenter, from_unit, to_unit
from spine_lib.slices.patches import as_tensors
from spine_lib.slices.store import SliceStore, prepare
from spine_lib.training.loading import training_loader
from spine_lib.training.recipe import Recipe, load_recipe

RESULTS = Path(__file__).parent / "results" / "feeding.json"
GPU_SPEEDS = (500, 1000, 2000, 4000)
"""Images a second that a GPU may train on."""

ROUNDS = 3


def main() -> None:
    """Measure, compute the cores, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=2, help="of 64 patches, in each round")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = psutil.getloadavg()
    recipe = load_recipe("paper").changed(workers=0)
    with tempfile.TemporaryDirectory() as folder:
        cases = phantom_cases(2, 0, shape=(229, 237, 120), spacing_mm=1.5)
        store = prepare(cases, Path(folder) / "store", ("axial",), 1.5)
        measured = measure(store, recipe, options.batches)
        measured["stages_ms"] = stages(store, recipe)
    core = measured["images_per_core_second"]
    result = {
        "patch": recipe.augmentation.size,
        "batch": recipe.batch,
        "measured": measured,
        # one core more for the trainer itself
        "computed": {
            "cores_for_gpu_images_per_second": {
                str(speed): math.ceil(speed / core) + 1 for speed in GPU_SPEEDS
            }
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load_average": {"before": load, "after": psutil.getloadavg()},
        "versions": provenance.versions(),
        "created": time.strftime("%Y-%m-%d"),
    }
    print(table(result))
    write_json(options.output, result)


def measure(store: SliceStore, recipe: Recipe, batches: int) -> dict[str, float]:
    """Return patches a second of one core, and of a loader's worker; medians over the rounds."""
    loader = training_loader(store, recipe)
    with_worker = iter(training_loader(store, recipe.changed(workers=1, steps_per_epoch=10**6)))
    next(with_worker)  # the worker starts
    rows = []
    for number in range(ROUNDS):
        row = core_speed(loader, batches, number)
        row["loader_with_one_worker_images_per_second"] = loader_speed(with_worker, batches)
        rows.append(row)
    return {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}


def core_speed(loader, batches: int, number: int) -> dict[str, float]:
    """Make and collate batches in this process; return patches a CPU second and their size."""
    count = loader.batch_size * batches
    draws = list(itertools.islice(loader.sampler, count * number, count * (number + 1)))
    started = time.process_time()
    for start in range(0, len(draws), loader.batch_size):
        batch = default_collate([loader.dataset[d] for d in draws[start:][: loader.batch_size]])
    seconds = time.process_time() - started
    size = sum(tensor.nbytes for tensor in batch) / loader.batch_size
    return {"images_per_core_second": count / seconds, "bytes_a_patch": size}


def loader_speed(loader, batches: int) -> float:
    """Return patches a second that a worker delivers, its queue of four batches emptied first."""
    for _ in range(4):
        next(loader)
    started = time.perf_counter()
    count = sum(len(next(loader)[0]) for _ in range(2 * batches))
    return count / (time.perf_counter() - started)


def stages(store: SliceStore, recipe: Recipe, count: int = 300) -> dict[str, float]:
    """Return what each stage of a patch costs a core, in CPU ms."""
    augmenter = TrainingAugmenter(recipe.augmentation)
    draws = list(itertools.islice(training_loader(store, recipe).sampler, count))
    spent = dict.fromkeys(("read", "crop", "geometry", "photometry", "tensors"), 0.0)
    for draw in draws:
        marks = [time.process_time()]
        pixels = store.stack(draw, recipe.neighbour_mm)
        marks.append(time.process_time())
        image, classes = augmenter._patch(
            pixels, np.random.default_rng((0, draw.epoch, draw.place))
        )
        marks.append(time.process_time())
        moved = augmenter._geometry(image=image, mask=classes)
        marks.append(time.process_time())
        shape = (recipe.augmentation.size, recipe.augmentation.size, pixels.shape[2])
        unit = augmenter._photometry(image=to_unit(moved["image"].reshape(shape)))["image"]
        marks.append(time.process_time())
        as_tensors(
            from_unit(unit.reshape(shape)), LABEL_OF_CLASS[moved["mask"].reshape(shape)[..., 0]]
        )
        marks.append(time.process_time())
        for name, before, after in zip(spent, marks, marks[1:], strict=False):
            spent[name] += after - before
    return {name: round(1e3 * seconds / count, 3) for name, seconds in spent.items()}


def table(result: dict) -> str:
    """Return the figures as text."""
    cores = result["computed"]["cores_for_gpu_images_per_second"]
    wanted = ", ".join(f"{count} for {speed}" for speed, count in cores.items())
    core = result["measured"]["images_per_core_second"]
    return (
        f"patches of {result['patch']} x {result['patch']}, a core of {result['machine']}\n"
        f"{core:.0f} a core and CPU second; computed cores: {wanted} images/s"
    )


if __name__ == "__main__":
    main()
