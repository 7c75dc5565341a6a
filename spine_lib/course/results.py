"""Measurements that take too long for a lesson: run them once, keep them, draw them in the lesson.

Each is a module in `spine_lib.course.experiments` with NAME, SEEDS and
`run(seed, fast) -> dict of numbers`. What is kept says with which settings (the module's constants
in capitals), versions and device.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
import pkgutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from spine_lib import SpineError

FEWEST_SEEDS = 3


def results_folder() -> Path:
    """Return the folder of kept results: `notebooks/results` of the project, or `results` here."""
    notebooks = Path(__file__).resolve().parents[2] / "notebooks"
    return (notebooks if notebooks.is_dir() else Path.cwd()) / "results"


def experiment_names() -> list[str]:
    """List the measurements that there are."""
    package = importlib.import_module("spine_lib.course.experiments")
    return sorted(
        module.name
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_")
    )


def load_experiment(name: str) -> ModuleType:
    """Import a measurement.

    Args:
        name: of its module.

    Raises:
        SpineError: if there is none of that name, or it lacks a part.
    """
    if name not in experiment_names():
        known = ", ".join(experiment_names()) or "none so far"
        raise SpineError(f"There is no measurement {name!r}: known are {known}.")
    module = importlib.import_module(f"spine_lib.course.experiments.{name}")
    for part in ("NAME", "SEEDS", "run"):
        if not hasattr(module, part):
            raise SpineError(f"The measurement {name} has no {part}: add it to its module.")
    return module


def run_experiment(
    experiment: ModuleType,
    seeds: Sequence[int],
    fast: bool = False,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Run a measurement with several seeds.

    Args:
        experiment: its module.
        seeds: at least three, each once, for one says nothing about the spread.
        fast: the small version, to try it.
        say: called with a line for each seed.

    Returns:
        What is kept: settings, a row of numbers for each seed, versions, device, seconds.

    Raises:
        SpineError: if there are too few seeds, or a seed gives something else than numbers.
    """
    if len(set(seeds)) < FEWEST_SEEDS:
        raise SpineError(
            f"{experiment.NAME} was asked for with seeds {list(seeds)}: give at least "
            f"{FEWEST_SEEDS} different ones, so that the spread is seen."
        )
    rows = []
    for seed in seeds:
        started = time.perf_counter()
        numbers = _plain(experiment.run(seed, fast), experiment.NAME)
        rows.append({"seed": seed, "seconds": round(time.perf_counter() - started, 1), **numbers})
        shown = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if isinstance(v, int | float))
        say(f"{experiment.NAME}, seed {seed}: {rows[-1]['seconds']:.0f} s; {shown}")
    return {
        "name": experiment.NAME,
        "about": (experiment.__doc__ or "").strip().split("\n")[0],
        "settings": settings_of(experiment),
        "profile": "fast" if fast else "full",
        "seeds": rows,
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "made": datetime.date.today().isoformat(),
        **_circumstances(),
    }


def settings_of(experiment: ModuleType) -> dict[str, Any]:
    """Return the constants of a measurement: names in capitals that hold numbers and words."""
    found = {}
    for name, value in vars(experiment).items():
        if name.isupper() and not name.startswith("_") and name not in ("NAME", "SEEDS"):
            with contextlib.suppress(SpineError):  # a colour map, a compiled pattern
                found[name.lower()] = _plain(value, experiment.NAME)
    return found


def keep_result(result: dict[str, Any], folder: Path | None = None) -> Path:
    """Write a result as `NAME.json`, all of it or nothing; return the file."""
    folder = folder or results_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def lesson_result(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Load a kept measurement.

    Args:
        name: of the measurement.
        folder: where it lies; default `results_folder()`.

    Returns:
        A dict with "settings", "seeds" (a list with one dict for each), "versions", "device",
        "seconds" and more.

    Raises:
        SpineError: if it was not kept or cannot be read.
    """
    path = (folder or results_folder()) / f"{name}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpineError(
            f"The measurement {name} cannot be read from {path}: make it with "
            f"`spine lesson-results {name}`."
        ) from error


def _circumstances() -> dict[str, Any]:
    import torch

    from spine_lib.reproduce.provenance import device_name, versions

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"versions": versions(), "device": device_name(device), "cores": os.cpu_count()}


def _plain(value: Any, name: str) -> Any:
    """Return built-in types for what NumPy and torch give; NaN becomes None, which JSON has."""
    if hasattr(value, "tolist"):  # arrays, tensors and their numbers
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(part, name) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, name) for part in value]
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise SpineError(f"The measurement {name} gives a {type(value).__name__}: give numbers.")
