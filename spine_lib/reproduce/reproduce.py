"""Lesson 8: the whole experiment as one call: prepare, train both models, evaluate, report.

A run lives in `runs/<name>`.  Whatever of it is finished is kept: called again, it goes on where it
was stopped, and a finished run is evaluated and reported anew within a minute.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from spine_lib.ct.files import atomic_file, file_lock
from spine_lib.datasets.case import write_split
from spine_lib.datasets.public import PUBLIC_SETS
from spine_lib.metrics.paper import PAPER, check_table
from spine_lib.reproduce import patient_statistics
from spine_lib.reproduce import provenance as run_facts
from spine_lib.reproduce.evaluate import evaluate_all, mean_over_seeds
from spine_lib.reproduce.report import SAMPLE_MASK_NOTES, Overlay, write_report
from spine_lib.reproduce.sources import CaseLike, gather, prepare, prepared_root
from spine_lib.slices.store import SliceStore
from spine_lib.training.devices import ALONE, Processes, choose_device, is_first
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import Fitted, Job, load_or_train, train_side_by_side

Say = Callable[[str], object]


def reproduce(
    recipe: Recipe | str | Path = "sample",
    name: str | None = None,
    seeds: Sequence[int] = (0,),
    dataset: str | None = None,
    device: str = "auto",
    root: str | Path = "runs",
    progress: bool = True,
    say: Say = print,
    at_once: int = 1,
    processes: Processes = ALONE,
    data_root: str | Path | None = None,
    workers: int = 1,
) -> Path:
    """Train and evaluate the recipe's models and write `results.json` and `report.html`.

    Args:
        recipe: a recipe, the name of a built-in one, or a YAML file.
        name: of the run's folder in `root`; default the recipe's name.
        seeds: one training of each model for each.
        dataset: "sample", "phantom" or a public data set, instead of the recipe's.
        device: "auto", "cpu" or "cuda".
        root: folder of all runs.
        progress: show progress bars.
        say: called with a line per stage.
        at_once: trainings beside each other on a CPU, each in a process of its own; a script that
            asks for more than one needs `if __name__ == "__main__":`.
        processes: how many share each training; every one of them calls this, and the first alone
            writes, prints and evaluates.
        data_root: folder of a public data set.
        workers: processes that slice its scans.

    Returns:
        The folder of the run.

    Raises:
        SpineError: if data cannot be fetched, the recipe is not valid, the processes cannot share
            its batch, or the folder holds a run with another recipe.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if dataset:
        recipe = recipe.changed(dataset=dataset)
    folder = Path(root) / (name or recipe.name)
    device = choose_device(device)
    processes.require_fit(recipe.batch, device)
    if not is_first():
        progress, say = False, _silent
    with file_lock(prepared_root() / "lock"):
        sources = gather(recipe, data_root, say)
    parts = sources.parts
    if is_first() and recipe.dataset in PUBLIC_SETS:
        write_split(parts, folder / "split.csv")
    with run_facts.peak_memory() as memory:
        with timed(folder, "prepare"), file_lock(prepared_root() / "lock"):
            stores = {
                part: prepare(parts[part], recipe, say, workers, progress=progress)
                for part in ("train", "validation")
            }
        options = {"at_once": at_once, "processes": processes}
        fitted = train_all(recipe, stores, folder, seeds, device, progress, say, **options)
        if not is_first():
            return folder
        with timed(folder, "evaluate"):
            keep = folder / "scores" if recipe.dataset in PUBLIC_SETS else None
            tests, overlays, unread = evaluate_all(fitted, parts["test"], device, say, keep)
    results = collect(recipe, parts, stores, fitted, tests, folder, device)
    left_out = [*sources.left_out, *(i for store in stores.values() for i in store.left_out)]
    results["data"]["left_out"] = [str(item) for item in [*left_out, *unread]]
    results["data"]["split"] = sources.split_note
    results["processes"] = dataclasses.asdict(processes)
    results["peak_memory_mb"] = run_facts.remember_peak(folder, memory.megabytes)
    finish(results, fitted, overlays, parts, folder, say)
    return folder


def _silent(line: str) -> None:
    """Say nothing: the first process does."""


def train_all(
    recipe: Recipe,
    stores: dict[str, SliceStore],
    folder: Path,
    seeds: Sequence[int],
    device: str,
    progress: bool,
    say: Say,
    at_once: int = 1,
    processes: Processes = ALONE,
) -> dict[str, dict[int, Fitted]]:
    """Load or train every model with every seed, on a CPU several at once."""
    data = (stores["train"], stores["validation"])
    jobs = {
        (model, seed): Job(model, recipe.changed(seed=seed), *data, folder / model / f"seed-{seed}")
        for seed in seeds
        for model in recipe.models
    }
    for (model, seed), job in jobs.items():
        if not job.is_finished():
            say(f"{model}, seed {seed}: {recipe.steps} steps of {recipe.batch} patches")
    trains = not all(job.is_finished() for job in jobs.values())
    fitted: dict[str, dict[int, Fitted]] = {model: {} for model in recipe.models}
    with timed(folder, "train", add=True) if trains else nullcontext():
        if device == "cpu" and processes.count == 1:
            train_side_by_side(list(jobs.values()), at_once, progress)
        for (model, seed), job in jobs.items():
            fitted[model][seed] = load_or_train(
                model, job.recipe, *data, job.folder, device, progress, processes=processes
            )
    return fitted


def collect(
    recipe: Recipe,
    parts: dict[str, list[CaseLike]],
    stores: dict[str, SliceStore],
    fitted: dict[str, dict[int, Fitted]],
    tests: dict[str, dict[int, dict]],
    folder: Path,
    device: str,
) -> dict:
    """Put together what `results.json` holds."""
    models = {}
    for model, runs in fitted.items():
        rows = [
            {
                "seed": seed,
                "test": tests[model][seed],
                "train_seconds": round(run.trained_seconds, 1),
                "steps": recipe.steps,
                "weights": run.weights.relative_to(folder).as_posix(),
            }
            for seed, run in runs.items()
        ]
        network = next(iter(runs.values())).network
        count = sum(p.numel() for p in network.parameters())
        test = mean_over_seeds([row["test"] for row in rows])
        models[model] = {"name": PAPER.get(model, {}).get("name", model), "parameters": count}
        models[model] |= {"test": test, "runs": rows}
    stages = read_stages(folder)
    return {
        "models": models,
        "wall_seconds": round(sum(stages.values()), 1),
        "stages": stages,
        "device": run_facts.device_name(device),
        "versions": run_facts.versions(),
        "data": run_facts.describe_data(recipe, parts, stores, tests),
        "target": run_facts.counted_as_spine(recipe),
        "table_note": _table_note(list(fitted[recipe.models[0]])),
        "test_looks": run_facts.test_looks(recipe),
        "recipe": recipe.to_dict(),
        "created": time.strftime("%Y-%m-%d"),
        "statistics": patient_statistics.of_models(models),
        "command": run_facts.command(sys.argv),
    }


def _table_note(seeds: Sequence[int]) -> str:
    listed = ", ".join(map(str, seeds))
    if len(seeds) == 1:
        return f"The table shows seed {listed}."
    return f"The table shows the mean of {len(seeds)} seeds ({listed})."


def finish(
    results: dict,
    fitted: dict[str, dict[int, Fitted]],
    overlays: dict[str, list[Overlay]],
    parts: dict[str, list[CaseLike]],
    folder: Path,
    say: Say,
) -> None:
    """Write results, report and `latest`, and print the table."""
    write_json(folder / "results.json", results)
    write_report(
        results,
        folder / "report.html",
        curves={model: next(iter(runs.values())).curve for model, runs in fitted.items()},
        overlays=overlays,
        command=results["command"],
        deviations=run_facts.deviations(results["recipe"], **_split_of(results)),
        data_sources=run_facts.data_sources(parts),
        findings=check_table(),
        mask_notes=SAMPLE_MASK_NOTES if results["recipe"]["dataset"] == "sample" else (),
    )
    with atomic_file(folder.parent / "latest") as stream:
        stream.write(f"{folder.name}\n".encode())
    say(results["table_note"])
    say(run_facts.table(results))
    say(f"{results['wall_seconds']:.0f} s; the report is {folder / 'report.html'}")


def _split_of(results: dict) -> dict[str, str]:
    """Say of a public data set how it was split; the built-in patients are known."""
    split = results["data"].get("split")
    return {"split": split} if split and results["recipe"]["dataset"] in PUBLIC_SETS else {}


@contextmanager
def timed(folder: Path, stage: str, add: bool = False):
    """Remember how long a stage took.

    What is done anew by every call counts with its longest time, what goes on where it was stopped
    (`add`) with all its times together. What was stopped before it was done counts too.
    """
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        if folder.is_dir():
            _add_stage(folder, stage, time.perf_counter() - started, add, done=False)
        raise
    _add_stage(folder, stage, time.perf_counter() - started, add)


def _add_stage(folder: Path, stage: str, seconds: float, add: bool, done: bool = True) -> None:
    if not is_first():  # the others take the same time, and it counts once
        return
    stages, stopped = read_stages(folder), read_stages(folder, "stopped.json")
    if not add:
        seconds += stopped.pop(stage, 0.0)
        if not done:
            write_json(folder / "stopped.json", {**stopped, stage: seconds})
            return
    before = stages.get(stage, 0.0)
    stages[stage] = round(before + seconds if add else max(before, seconds), 1)
    write_json(folder / "stages.json", stages)
    if (folder / "stopped.json").is_file():
        write_json(folder / "stopped.json", stopped)


def read_stages(folder: Path, name: str = "stages.json") -> dict[str, float]:
    """Return the seconds of each stage so far."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_json(path: Path, value: dict) -> None:
    """Write JSON that any reader takes: what is not a finite number becomes null."""
    with atomic_file(path) as stream:
        stream.write(json.dumps(_finite(value), indent=1, allow_nan=False).encode())


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
