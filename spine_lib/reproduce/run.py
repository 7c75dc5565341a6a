"""Lesson 8: the whole experiment: prepare and train; then evaluate and report what lies on disk.

A run lives in `runs/<name>`. Whatever of it is finished is kept: called again, it goes on where it
was stopped, and a finished run is evaluated and reported anew within a minute. The two stages share
nothing but that folder: `run.json` says what was trained, the weights what they were trained on.
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from pydantic import Field

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file, read_json, sole_use, write_json
from spine_lib.datasets.case import write_split
from spine_lib.datasets.settings import Settings
from spine_lib.metrics.paper import PAPER
from spine_lib.reproduce import provenance
from spine_lib.reproduce.compare import run_statistics
from spine_lib.reproduce.evaluate import Evaluation, best_threshold, evaluate_all, mean_over_seeds
from spine_lib.reproduce.report import results_table, write_report
from spine_lib.reproduce.sources import BUILT_IN, Sources, gather, prepare, prepared_root
from spine_lib.training.devices import ALONE, Processes, choose_device, is_first
from spine_lib.training.recipe import Recipe, Seed, load_recipe, recipe_from_dict, run_name
from spine_lib.training.train import (
    WEIGHTS,
    Fitted,
    Job,
    load_fitted,
    load_or_train,
    train_side_by_side,
)

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
    data = {"data_root": data_root, "workers": workers, "say": say, "processes": processes}
    train_run(recipe, folder, seeds, device, progress=progress, at_once=at_once, **data)
    if is_first():
        evaluate_run(folder, device, **data)
    return folder


# --- training -------------------------------------------------------------------------------------


class Plan(Settings):
    """What `run.json` keeps of a run: its recipe, its seeds, and scans that nothing reads."""

    recipe: dict[str, Any]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    left_out: tuple[str, ...] = ()


def train_run(
    recipe: Recipe,
    folder: Path,
    seeds: Sequence[int],
    device: str,
    data_root: str | Path | None = None,
    workers: int = 1,
    progress: bool = True,
    say: Say = print,
    at_once: int = 1,
    processes: Processes = ALONE,
) -> None:
    """Prepare the recipe's data and train every model with every seed, on a CPU several at once."""
    lock = FileLock(prepared_root() / "lock")
    with contextlib.ExitStack() as alone:
        if is_first():
            alone.enter_context(sole_use(folder))
            alone.enter_context(provenance.peak_memory(folder))
        with lock:
            sources = gather(recipe, data_root, say)
        settings = (recipe.planes, recipe.spacing_mm, say, workers, "", progress)
        public = recipe.dataset not in BUILT_IN
        with timed(folder, "prepare"), lock:
            data = [prepare(sources.parts[p], *settings, public) for p in ("train", "validation")]
        left_out = [str(scan) for store in data for scan in store.left_out]
        plan = Plan(recipe=recipe.to_dict(), seeds=seeds, left_out=left_out)
        jobs = [
            Job(model, recipe.changed(seed=seed), *data, folder / model / f"seed-{seed}")
            for seed in seeds
            for model in recipe.models
        ]
        waiting = [job for job in jobs if not job.is_finished()]
        for job in waiting:
            about = f"{recipe.steps} steps of {recipe.batch} patches"
            say(f"{job.model}, seed {job.recipe.seed}: {about}")
        with timed(folder, "train", True) if waiting else nullcontext():
            if device == "cpu" and processes.count == 1:
                train_side_by_side(jobs, at_once, progress)
            for job in jobs:
                options = (job.folder, device, progress)
                load_or_train(job.model, job.recipe, *data, *options, processes=processes)
        if is_first():
            write_json(folder / "run.json", plan.model_dump())


# --- evaluation -----------------------------------------------------------------------------------


def evaluate_run(
    folder: str | Path,
    device: str = "auto",
    data_root: str | Path | None = None,
    workers: int = 1,
    say: Say = print,
    processes: Processes = ALONE,
) -> None:
    """Score the models of a trained run on its test cases; write `results.json` and `report.html`.

    Arguments are those of `reproduce`.

    Raises:
        SpineError: if the run was not trained to its end, or a network has seen a test case.
    """
    folder, device = Path(folder), choose_device(device)
    plan = _read_plan(folder / "run.json")
    recipe = recipe_from_dict(plan.recipe, str(folder / "run.json"))
    fitted = {
        model: {s: load_fitted(folder / model / f"seed-{s}" / WEIGHTS, model) for s in plan.seeds}
        for model in recipe.models
    }
    with sole_use(folder):
        with provenance.peak_memory(folder), timed(folder, "evaluate"):
            public = recipe.dataset not in BUILT_IN
            with FileLock(prepared_root() / "lock"):
                sources = gather(recipe, data_root, lambda line: None)
                settings = (recipe.planes, recipe.spacing_mm, say, workers, "", False, public)
                training = prepare(sources.parts["train"], *settings)
            baseline = best_threshold(training, recipe.largest_component)
            keep = folder / "scores" if public else None
            scores = evaluate_all(fitted, sources.parts["test"], device, say, keep, *baseline)
        if public:
            write_split(sources.parts, folder / "split.csv")
        given = (plan.left_out, processes)
        _write_results(recipe, sources, fitted, scores, folder, device, say, *given)
        with atomic_file(folder.parent / "latest") as stream:
            stream.write(f"{folder.name}\n".encode())


def evaluate_on(
    dataset: str,
    weights: Sequence[str | Path],
    folder: str | Path,
    data_root: str | Path | None = None,
    device: str = "auto",
    say: Say = print,
) -> None:
    """Score trained weights on the test part of a data set; write results and report to a folder.

    Args:
        dataset: "sample", "phantom" or a public data set.
        weights: `weights.safetensors` files, one or more; those of one model differ in their seed.
        folder: where `results.json` and `report.html` go.
        data_root, device, say: of `reproduce`.

    Raises:
        SpineError: if a network has seen a test case, or nothing can be read.
    """
    folder, device, fitted = Path(folder), choose_device(device), {}
    for path in map(Path, weights):
        run = load_fitted(path)
        runs = fitted.setdefault(run.model, {})
        if run.recipe.seed in runs:
            raise SpineError(
                f"{path} and {runs[run.recipe.seed].weights} are of the same model and seed: test "
                "one after the other"
            )
        runs[run.recipe.seed] = run
    recipe = run.recipe.changed(dataset=dataset, models=tuple(fitted), name=run_name(folder.name))
    with sole_use(folder):
        with provenance.peak_memory(folder), timed(folder, "evaluate"):
            sources = gather(recipe, data_root, say, needed=("test",))
            keep = folder / "scores" if dataset not in BUILT_IN else None
            scores = evaluate_all(fitted, sources.parts["test"], device, say, keep)
        _write_results(recipe, sources, fitted, scores, folder, device, say)


def _write_results(
    recipe: Recipe,
    sources: Sources,
    fitted: Mapping[str, Mapping[int, Fitted]],
    scores: Evaluation,
    folder: Path,
    device: str,
    say: Say,
    left_out: Sequence[str] = (),
    processes: Processes = ALONE,
) -> None:
    results = collect(recipe, sources, fitted, scores, folder, device)
    results["data"]["left_out"] += [*left_out, *map(str, scores.excluded)]
    results["processes"] = dataclasses.asdict(processes)
    results["peak_memory_mb"] = read_json(folder / "peak_memory_mb.json")
    write_json(folder / "results.json", results)
    curves = {model: next(iter(runs.values())).curve for model, runs in fitted.items()}
    write_report(results, folder / "report.html", curves, scores.overlays)
    say(results["table_note"])
    say(results_table(results))
    say(f"{results['wall_seconds']:.0f} s; the report is {folder / 'report.html'}")


def _read_plan(path: Path) -> Plan:
    if not path.is_file():
        raise SpineError(f"{path.parent} holds no trained run: train it with spine reproduce")
    try:
        return Plan(**read_json(path))
    except (SpineError, TypeError) as error:
        raise SpineError(f"{path} is damaged ({error}): run spine reproduce again") from error


def collect(
    recipe: Recipe,
    sources: Sources,
    fitted: Mapping[str, Mapping[int, Fitted]],
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
                "train_seconds": round(run.trained_seconds, 1) or None,
                "steps": recipe.steps,
                "weights": _within(folder, run.weights),
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
    data = provenance.describe_data(recipe.dataset, sources.parts, fitted, scores.tests)
    data |= {"left_out": [str(scan) for scan in sources.left_out], "split": sources.split_note}
    return {
        "models": models,
        "baseline": scores.baseline,
        "wall_seconds": round(sum(stages.values()), 1),
        "stages": stages,
        "device": provenance.device_name(device),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "data": data | {"known_faults": sources.faults},
        "table_note": f"The table shows {shown}"
        + (f" ({', '.join(seeds)})." if len(seeds) > 1 else "."),
        "test_looks": provenance.test_looks(recipe.dataset),
        "recipe": recipe.to_dict(),
        "created": time.strftime("%Y-%m-%d"),
        "statistics": run_statistics(models),
        "command": provenance.command(sys.argv),
    }


def _within(folder: Path, path: Path) -> str:
    """Return a path within a folder; of one elsewhere the name, without this machine's folders."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


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
