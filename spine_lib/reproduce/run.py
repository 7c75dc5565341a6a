"""Lesson 8: the whole experiment as one call: prepare, train both models, evaluate, report.

A run lives in `runs/<name>`. Whatever of it is finished is kept: called again, it goes on where it
was stopped, and a finished run is evaluated and reported anew within a minute.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file, read_json, sole_use, write_json
from spine_lib.datasets.case import Case, write_split
from spine_lib.datasets.public import PUBLIC_SETS
from spine_lib.metrics.paper import PAPER
from spine_lib.reproduce import provenance
from spine_lib.reproduce.compare import run_statistics
from spine_lib.reproduce.evaluate import Evaluation, best_threshold, evaluate_all, mean_over_seeds
from spine_lib.reproduce.report import results_table, write_report
from spine_lib.reproduce.sources import gather, prepare, prepared_root
from spine_lib.slices.store import SliceStore
from spine_lib.training.devices import (
    ALONE,
    Processes,
    choose_device,
    is_first,
)
from spine_lib.training.recipe import Recipe, load_recipe, run_name
from spine_lib.training.train import Fitted, Job, load_or_train, train_side_by_side

Say = Callable[[str], object]


def reproduce(
    recipe: Recipe | str | Path = "sample",
    name: str | None = None,
    seeds: Sequence[int] | None = None,
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
        seeds: one training of each model for each; default the recipe's seed.
        dataset: "sample", "phantom" or a public data set, instead of the recipe's.
        device: "auto", "cpu" or "cuda".
        root: folder of all runs.
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
            its batch, the folder is in use or holds a run with another recipe, or of other data.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if dataset:
        recipe = recipe.changed(dataset=dataset)
    seeds = [recipe.changed(seed=seed).seed for seed in dict.fromkeys(seeds or (recipe.seed,))]
    folder = Path(root) / run_name(recipe.name if name is None else name)
    if data_root is not None and Path(data_root).resolve().is_relative_to(folder.resolve()):
        raise SpineError(f"{data_root} is data, and the run would write there: name another --name")
    device = choose_device(device)
    processes.require_fit(recipe.batch, device)
    if not is_first():
        progress, say = False, lambda line: None
    with sole_use(folder) if is_first() else nullcontext():
        with FileLock(prepared_root() / "lock"):
            sources = gather(recipe, data_root, say)
        parts, public = sources.parts, recipe.dataset in PUBLIC_SETS
        settings = (recipe.planes, recipe.spacing_mm)
        with provenance.peak_memory(folder) if is_first() else nullcontext():
            with timed(folder, "prepare"), FileLock(prepared_root() / "lock"):
                stores = {
                    part: prepare(parts[part], *settings, say, workers, "", progress, public)
                    for part in ("train", "validation")
                }
            options = {"at_once": at_once, "processes": processes}
            fitted = train_all(recipe, stores, folder, seeds, device, progress, say, **options)
            if not is_first():
                return folder
            with timed(folder, "evaluate"):
                threshold_hu, chosen_on = best_threshold(stores["train"], recipe.largest_component)
                keep = folder / "scores" if public else None
                scores = evaluate_all(fitted, parts["test"], device, say, keep, threshold_hu)
        if public:
            write_split(parts, folder / "split.csv")
        results = collect(recipe, parts, fitted, scores, folder, device)
        results["baseline"]["chosen_on"] = chosen_on
        excluded = [scan for store in stores.values() for scan in store.left_out]
        excluded = [*sources.left_out, *excluded, *scores.excluded]
        results["data"] |= {"left_out": list(map(str, excluded)), "split": sources.split_note}
        results["data"]["known_faults"] = sources.faults
        results["processes"] = dataclasses.asdict(processes)
        results["peak_memory_mb"] = read_json(folder / "peak_memory_mb.json")
        write_json(folder / "results.json", results)
        curves = {model: next(iter(runs.values())).curve for model, runs in fitted.items()}
        write_report(results, folder / "report.html", curves, scores.overlays)
        with atomic_file(folder.parent / "latest") as stream:
            stream.write(f"{folder.name}\n".encode())
        say(results["table_note"])
        say(results_table(results))
        say(f"{results['wall_seconds']:.0f} s; the report is {folder / 'report.html'}")
        return folder


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
    with timed(folder, "train", trains) if trains else nullcontext():
        if device == "cpu" and processes.count == 1:
            train_side_by_side(list(jobs.values()), at_once, progress)
        for (model, seed), job in jobs.items():
            fitted[model][seed] = load_or_train(
                model, job.recipe, *data, job.folder, device, progress, processes=processes
            )
    return fitted


def collect(
    recipe: Recipe,
    parts: dict[str, list[Case]],
    fitted: dict[str, dict[int, Fitted]],
    scores: Evaluation,
    folder: Path,
    device: str,
) -> dict:
    """Return what `results.json` holds; `spine_lib.reproduce.report` lists the keys."""
    models = {}
    for model, runs in fitted.items():
        rows = [
            {
                "seed": seed,
                "test": scores.tests[model][seed],
                "train_seconds": round(run.trained_seconds, 1),
                "steps": recipe.steps,
                "weights": run.weights.relative_to(folder).as_posix(),
            }
            for seed, run in runs.items()
        ]
        network = next(iter(runs.values())).network
        models[model] = {
            "name": PAPER.get(model, {}).get("name", model),
            "parameters": sum(p.numel() for p in network.parameters()),
            "test": mean_over_seeds([row["test"] for row in rows]),
            "runs": rows,
        }
    stages, seeds = read_stages(folder), [str(seed) for seed in fitted[recipe.models[0]]]
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"the mean of {len(seeds)} seeds"
    return {
        "models": models,
        "baseline": scores.baseline,
        "wall_seconds": round(sum(stages.values()), 1),
        "stages": stages,
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "data": provenance.describe_data(recipe.dataset, parts, fitted, scores.tests),
        "table_note": f"The table shows {shown}"
        + (f" ({', '.join(seeds)})." if len(seeds) > 1 else "."),
        "test_looks": provenance.test_looks(recipe.dataset),
        "recipe": recipe.to_dict(),
        "created": time.strftime("%Y-%m-%d"),
        "statistics": run_statistics(models),
        "command": provenance.command(sys.argv),
    }


@contextmanager
def timed(folder: Path, stage: str, trains: bool = False):
    """Record how long a stage took, in all calls together until the run is finished.

    Later calls load what is there: the longest of them counts, unless the call trains other seeds.
    """
    started = time.perf_counter()
    try:
        yield
    finally:
        if is_first() and folder.is_dir():  # the other processes take the same time
            stages, seconds = read_stages(folder), time.perf_counter() - started
            if trains or not (folder / "results.json").is_file():
                seconds += stages.get(stage, 0.0)
            stages[stage] = round(max(seconds, stages.get(stage, 0.0)), 1)
            write_json(folder / "stages.json", stages)


def read_stages(folder: Path) -> dict[str, float]:
    """Return the seconds of each stage so far."""
    path = folder / "stages.json"
    stages = read_json(path) if path.is_file() else {}
    if not isinstance(stages, dict) or not all(
        isinstance(seconds, int | float) for seconds in stages.values()
    ):
        raise SpineError(f"{path} holds no seconds by stage: delete it")
    return stages
