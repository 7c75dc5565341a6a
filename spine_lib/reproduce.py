"""Lesson 8: the whole experiment as one call: prepare, train both models, evaluate, report.

A run lives in `runs/<name>`.  Whatever of it is finished is kept: called again, it goes on where it
was stopped, and a finished run is evaluated and reported anew within a minute.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spine_lib import __version__, run_facts
from spine_lib.datasets.cases import Case, CaseData, PhantomCase, require_cases
from spine_lib.datasets.phantom import phantom_cases
from spine_lib.datasets.sample import fetch_sample, sample_cases, sample_root
from spine_lib.errors import SpineError
from spine_lib.metrics import aggregate, evaluate_volume
from spine_lib.nifti import atomic_file
from spine_lib.paper import PAPER, check_table
from spine_lib.recipe import Recipe, load_recipe
from spine_lib.report import SAMPLE_MASK_NOTES, Overlay, draw_overlay, pick_slices, write_report
from spine_lib.slices import require_separate
from spine_lib.store import SliceStore, prepare_store
from spine_lib.training import Fitted, choose_device, load_or_train
from spine_lib.volumes import predict_volume, to_mask

TRAINING_PHANTOMS_FROM = 1000
VALIDATION_PHANTOMS_FROM = 2000
TEST_PHANTOMS_FROM = 3000
"""First seeds of the phantoms of each part, far enough apart never to meet."""

PHANTOM_GRID = {"shape": (160, 160, 160), "spacing_mm": (2.0, 2.0, 3.0)}

CaseLike = Case | PhantomCase
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
) -> Path:
    """Train and evaluate the recipe's models and write `results.json` and `report.html`.

    Args:
        recipe: a recipe, the name of a built-in one, or a YAML file.
        name: of the run's folder in `root`; default the recipe's name.
        seeds: one training of each model for each.
        dataset: "sample" or "phantom" instead of the recipe's.
        device: "auto", "cpu" or "gpu".
        root: folder of all runs.
        progress: show progress bars.
        say: called with a line per stage.

    Returns:
        The folder of the run.

    Raises:
        SpineError: if data cannot be fetched, the recipe is not valid, or the folder holds a run
            with another recipe.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if dataset:
        recipe = recipe.changed(dataset=dataset)
    folder = Path(root) / (name or recipe.name)
    device = "gpu" if choose_device(device) == "cuda" else "cpu"
    parts = cases_of(recipe, say)
    with run_facts.peak_memory() as memory:
        with timed(folder, "prepare"):
            stores = {part: prepare(parts[part], recipe, say) for part in ("train", "validation")}
        fitted = train_all(recipe, stores, folder, seeds, device, progress, say)
        with timed(folder, "evaluate"):
            tests, overlays = evaluate_all(fitted, parts["test"], device, say)
    results = collect(recipe, parts, stores, fitted, tests, folder, device)
    results["peak_memory_mb"] = run_facts.remember_peak(folder, memory.megabytes)
    finish(results, fitted, overlays, parts, folder, say)
    return folder


def cases_of(recipe: Recipe, say: Say = print) -> dict[str, list[CaseLike]]:
    """Return the cases for "train", "validation" and "test"; no patient is in two of them.

    Raises:
        SpineError: if the data set is unknown or a part is empty.
    """
    if recipe.dataset not in ("sample", "phantom"):
        raise SpineError(f"unknown dataset {recipe.dataset!r}: use sample or phantom")
    parts: dict[str, list[CaseLike]] = {"train": [], "test": []}
    if recipe.dataset == "sample":
        fetch_sample(progress=say)
        for case in sample_cases():
            parts[case.split].append(case)
    else:
        parts["test"] = phantom_cases(2, TEST_PHANTOMS_FROM, **PHANTOM_GRID)
    if recipe.phantoms:
        parts["train"] += phantom_cases(recipe.phantoms, TRAINING_PHANTOMS_FROM, **PHANTOM_GRID)
    parts["validation"] = phantom_cases(
        recipe.validation_phantoms, VALIDATION_PHANTOMS_FROM, **PHANTOM_GRID
    )
    for part, cases in parts.items():
        require_cases(cases, f"the {part} part of {recipe.dataset}")
    require_separate(parts)
    return parts


def prepare(cases: Sequence[CaseLike], recipe: Recipe, say: Say = print) -> SliceStore:
    """Slice cases into a store that all runs with the same cases and pixel size share."""
    made_by = [__version__, recipe.planes, recipe.spacing_mm]
    key = json.dumps([[str(case) for case in cases], made_by])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    folder = sample_root().parent / "prepared" / digest
    return prepare_store(cases, folder, recipe.planes, recipe.spacing_mm, say)


def train_all(
    recipe: Recipe,
    stores: dict[str, SliceStore],
    folder: Path,
    seeds: Sequence[int],
    device: str,
    progress: bool,
    say: Say,
) -> dict[str, dict[int, Fitted]]:
    """Load or train every model with every seed, one after the other."""
    fitted: dict[str, dict[int, Fitted]] = {model: {} for model in recipe.models}
    for seed in seeds:
        for model in recipe.models:
            say(f"{model}, seed {seed}: {recipe.steps} steps of {recipe.batch} patches")
            fitted[model][seed] = load_or_train(
                model,
                recipe.changed(seed=seed),
                stores["train"],
                stores["validation"],
                folder / model / f"seed-{seed}",
                device,
                progress,
            )
    return fitted


def evaluate_all(
    fitted: dict[str, dict[int, Fitted]], cases: Sequence[CaseLike], device: str, say: Say
) -> tuple[dict[str, dict[int, dict]], dict[str, list[Overlay]]]:
    """Score every network on every test case, on the case's own grid.

    Returns:
        By model and seed what `metrics.aggregate` gives; by model the overlays of its first seed.
    """
    scores: dict[str, dict[int, dict]] = {m: {s: {} for s in runs} for m, runs in fitted.items()}
    masks: dict[str, dict[str, object]] = {model: {} for model in fitted}
    for case in cases:
        data = case.load()
        truth, ignore = data.labels.array > 0, data.ignore.array
        for model, runs in fitted.items():
            for seed, run in runs.items():
                say(f"testing {model}, seed {seed}, on {case.case_id}")
                mask = to_mask(predict_volume(run.network, data.ct, run.recipe, device), run.recipe)
                row = evaluate_volume(mask.array > 0, truth, data.ct.spacing_mm, ignore)
                scores[model][seed][case.case_id] = row
                masks[model].setdefault(case.case_id, mask)
    tests = {m: {s: aggregate(rows) for s, rows in runs.items()} for m, runs in scores.items()}
    first = {model: next(iter(runs.values())) for model, runs in scores.items()}
    by_id = {case.case_id: case for case in cases}
    load = functools.cache(lambda case_id: by_id[case_id].load())
    overlays = {model: draw_overlays(load, first[model], masks[model]) for model in fitted}
    for runs in tests.values():
        for test in runs.values():
            for case in cases:
                test["volumes"][case.case_id]["patient_id"] = case.patient_id
    return tests, overlays


def draw_overlays(load: Callable[[str], CaseData], scores: dict, masks: dict) -> list[Overlay]:
    """Draw the best, the median and the worst slice that shows spine; `load` takes a case id."""
    dice = {}
    for case_id, row in scores.items():
        for index, (tp, fp, fn, _) in enumerate(row["slices"]):
            dice[case_id, index] = 2 * tp / (2 * tp + fp + fn) if tp + fn else np.nan
    drawn = []
    for kind, (case_id, index) in pick_slices(dice).items():
        data = load(case_id)
        drawn.append(
            draw_overlay(
                data.ct,
                data.labels,
                masks[case_id],
                index,
                case_id,
                kind,
                dice[case_id, index],
                ignore=data.ignore,
            )
        )
    return drawn


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
        test = rows[0]["test"]
        models[model] = {"name": PAPER.get(model, {}).get("name", model), "parameters": count}
        models[model] |= {"test": test, "runs": rows}
    stages = read_stages(folder)
    training = sum(row["train_seconds"] for entry in models.values() for row in entry["runs"])
    return {
        "models": models,
        "wall_seconds": round(stages["prepare"] + training + stages["evaluate"], 1),
        "stages": {**stages, "train": round(training, 1)},
        "device": run_facts.device_name(device),
        "versions": run_facts.versions(),
        "data": run_facts.describe_data(recipe, parts, stores),
        "target": "Spine: every labelled vertebra and, where the mask has it, the sacrum.",
        "table_note": f"The table shows seed {next(iter(fitted[recipe.models[0]]))}.",
        "test_looks": run_facts.test_looks(recipe),
        "recipe": recipe.to_dict(),
        "created": time.strftime("%Y-%m-%d"),
    }


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
        command=run_facts.command(sys.argv),
        deviations=run_facts.deviations(results["recipe"]),
        data_sources=run_facts.data_sources(parts),
        findings=check_table(),
        mask_notes=SAMPLE_MASK_NOTES if results["recipe"]["dataset"] == "sample" else (),
    )
    with atomic_file(folder.parent / "latest") as stream:
        stream.write(f"{folder.name}\n".encode())
    say(run_facts.table(results))
    say(f"{results['wall_seconds']:.0f} s; the report is {folder / 'report.html'}")


@contextmanager
def timed(folder: Path, stage: str):
    """Remember how long a stage took; the longest counts, as later calls find it half done."""
    started = time.perf_counter()
    yield
    stages = read_stages(folder)
    stages[stage] = round(max(stages.get(stage, 0.0), time.perf_counter() - started), 1)
    write_json(folder / "stages.json", stages)


def read_stages(folder: Path) -> dict[str, float]:
    """Return the seconds of each stage so far."""
    try:
        return json.loads((folder / "stages.json").read_text(encoding="utf-8"))
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
