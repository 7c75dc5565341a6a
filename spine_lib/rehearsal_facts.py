"""Lesson 8: what a rehearsal says: what was measured, and what follows for the whole experiment."""

from __future__ import annotations

import copy
import dataclasses
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from spine_lib.phantom_tree import shares_of
from spine_lib.reproduce import provenance as run_facts
from spine_lib.reproduce.laps import Laps
from spine_lib.reproduce.reproduce import write_json
from spine_lib.slices.cut import slice_spacing_mm
from spine_lib.training.devices import choose_precision
from spine_lib.training.processes import Processes
from spine_lib.training.recipe import Recipe

if TYPE_CHECKING:
    from spine_lib.rehearsal import Rehearsal

WHOLE = {"scans": 1089, "epochs": 10, "seeds": 1}
"""The experiment that the figures are computed for."""

GOAL = {
    "minutes": 30.0,
    "share_of_bare_step": 0.95,
    "on": "one datacentre GPU, making the phantoms excluded",
}

TRAINING = ("steps", "start", "validation", "between_epochs", "end")
"""Stages of a training that 'computed' is made of."""

VALIDATED = 1 / 12
"""Share of the validation part's slices that each validation looks at."""


@contextmanager
def piece(file: Path, laps: Laps) -> Iterator[None]:
    """Note when a call ran and how busy the machine was, however the call ends."""
    started, before = time.time(), psutil.getloadavg()
    known = copy.deepcopy(laps.stages)
    try:
        yield
    finally:
        laps.write()
        if laps.file is not None and laps.stages != known:  # something was done
            row = {
                "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
                "seconds": round(time.time() - started, 1),
                "load_before": [round(value, 2) for value in before],
                "load_after": [round(value, 2) for value in psutil.getloadavg()],
            }
            write_json(file, [*_read(file, []), row])


def _read(file: Path, otherwise):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise


def summarise(
    what: Rehearsal, recipe: Recipe, folder: Path, kind: str, workers: int, processes: Processes
) -> dict:
    """Put together what `rehearsal.json` holds.

    Args:
        what: was rehearsed.
        recipe: it was rehearsed with.
        folder: of the run, finished.
        kind: "cuda" or "cpu".
        workers: processes that made and sliced scans.
        processes: that shared each training.
    """
    stages = _read(folder / "laps.json", {})
    pieces = _read(folder / "pieces.json", [])
    measured = measure(stages, recipe, what.scans)
    slices = sum(slice_spacing_mm(what.middle, plane)[0] for plane in recipe.planes)
    computed = extrapolate(measured, recipe, slices)
    return {
        "goal": {**GOAL, "reached": reached(measured, computed, kind, processes.count)},
        "measured": measured,
        "computed": computed,
        "rehearsed": {**dataclasses.asdict(what), "steps": recipe.steps},
        "notes": [*notes(what, recipe, pieces), *not_measured(measured)],
        "hardware": hardware(kind, workers, recipe, processes),
        "pieces": pieces,
        "recipe": recipe.to_dict(),
        "versions": run_facts.versions(),
        "created": time.strftime("%Y-%m-%d"),
    }


def measure(stages: dict[str, dict], recipe: Recipe, scans: int) -> dict:
    """Turn the stop watch's sums into speeds.

    Args:
        stages: seconds and units by stage, as `Laps` keeps them.
        recipe: that was rehearsed.
        scans: phantoms.

    Returns:
        For each stage its seconds, what was done in them and the speed; None for what did not
        happen.
    """
    evaluated = {
        model: {
            "predict": _row(stages, f"predict {model}", "scans"),
            "score": _row(stages, f"score {model}", "scans"),
        }
        for model in recipe.models
    }
    return {
        "scans": shares_of(scans),
        "phantoms": _row(stages, "phantoms", "scans"),
        "prepare": _row(stages, "prepare", "scans"),
        "train": {model: _training(stages, model, recipe.batch) for model in recipe.models},
        "evaluate": {"read": _row(stages, "read test scans", "scans"), **evaluated},
        "report": _row(stages, "report", "reports"),
    }


def _row(stages: dict[str, dict], stage: str, unit: str, each: int = 1) -> dict | None:
    found = stages.get(stage)
    if not found or not found["units"] or found["seconds"] <= 0:
        return None
    units, seconds = each * found["units"], found["seconds"]
    return {
        unit: units,
        "seconds": round(seconds, 2),
        "seconds_each": round(seconds / units, 4),
        f"{unit}_per_second": round(units / seconds, 3),
    }


def _training(stages: dict[str, dict], model: str, batch: int) -> dict:
    steps = _row(stages, f"train {model}", "images", batch)
    bare = _row(stages, f"bare step {model}", "images", batch)
    share = None
    if steps and bare:
        share = round(steps["images_per_second"] / bare["images_per_second"], 3)
    return {
        "steps": steps,
        "start": _row(stages, f"start {model}", "calls"),
        "validation": _row(stages, f"validate {model}", "slices"),
        "between_epochs": _row(stages, f"between epochs {model}", "epochs"),
        "end": _row(stages, f"end {model}", "calls"),
        "bare_step": bare,
        "share_of_bare_step": share,
    }


def extrapolate(measured: dict, recipe: Recipe, slices: float) -> dict:
    """Compute from measured speeds how long the whole experiment would take on this machine.

    Args:
        measured: what `measure` returned.
        recipe: names the models.
        slices: of the public set's median scan, in all planes of the recipe.

    Returns:
        Seconds a stage and minutes in all; what was not measured counts nothing.
    """
    parts = shares_of(WHOLE["scans"])
    images = round(parts["train"] * slices) * WHOLE["epochs"]
    validated = parts["validation"] * slices * VALIDATED * WHOLE["epochs"]
    train = {
        model: _each(row["steps"]) * images
        + _each(row["start"])
        + _each(row["validation"]) * validated
        + _each(row["between_epochs"]) * (WHOLE["epochs"] - 1)
        + _each(row["end"])
        for model, row in measured["train"].items()
    }
    scoring = measured["evaluate"]
    scan = _each(scoring["read"]) + sum(
        _each(row) for model in recipe.models for row in scoring[model].values()
    )
    seconds = {
        "prepare": _each(measured["prepare"]) * (parts["train"] + parts["validation"]),
        **{f"train {model}": value for model, value in train.items()},
        "evaluate": scan * parts["test"],
        "report": _each(measured["report"]),
    }
    return {
        "for": f"{WHOLE['scans']} scans, {len(recipe.models)} models, {WHOLE['epochs']} epochs at "
        f"{recipe.augmentation.size}x{recipe.augmentation.size}, {WHOLE['seeds']} seed",
        "scans": parts,
        "slices_of_a_scan": round(slices, 1),
        "training_images_of_each_model": images,
        "seconds": {stage: round(value) for stage, value in seconds.items()},
        "minutes": round(sum(seconds.values()) / 60, 1),
    }


def _each(row: dict | None) -> float:
    return row["seconds"] / next(iter(row.values())) if row else 0.0


def reached(measured: dict, computed: dict, kind: str, devices: int = 1) -> dict | str:
    """Set what was reached beside the goal, which is stated for one GPU."""
    if kind != "cuda":
        return "not measured: no GPU"
    if devices > 1:
        return f"not measured: {devices} devices share each training"
    shares = [row["share_of_bare_step"] for row in measured["train"].values()]
    known = [share for share in shares if share is not None]
    minutes, share = computed["minutes"], min(known, default=None)
    met = minutes <= GOAL["minutes"] and bool(known) and share >= GOAL["share_of_bare_step"]
    return {"minutes": minutes, "computed": True, "share_of_bare_step": share, "met": met}


def notes(what: Rehearsal, recipe: Recipe, pieces: list[dict]) -> list[str]:
    """Say what a reader of the figures must know."""
    lines = [
        "'measured' was timed in the stated pieces, on phantoms; 'computed' is those speeds times "
        "the numbers of the whole experiment, on the same machine.",
        "What networks score on phantoms says nothing about patients.",
    ]
    if recipe.encoder_weights is None:
        lines.append("Encoders start at random: the recipe's ImageNet weights were not fetched.")
    busiest = max((row["load_before"][0] for row in pieces), default=0.0)
    if busiest > psutil.cpu_count():
        lines.append(
            f"The machine was busy with other programs (load {busiest:g} on {psutil.cpu_count()} "
            "cores when a call began): alone it is faster."
        )
    if what.steps:
        lines.append(
            f"Each training was cut short after {recipe.steps} steps of {recipe.batch} patches; "
            "epochs are computed."
        )
    return lines


def not_measured(measured: dict) -> list[str]:
    """Name the stages that took no time here, which 'computed' lacks therefore."""
    rows = {stage: measured[stage] for stage in ("prepare", "report")}
    for model, row in measured["train"].items():
        rows |= {f"{stage.replace('_', ' ')} of {model}": row[stage] for stage in TRAINING}
    missing = [stage for stage, row in rows.items() if row is None]
    return [f"Not measured, and so not in 'computed': {', '.join(missing)}."] if missing else []


def hardware(kind: str, workers: int, recipe: Recipe, processes: Processes) -> dict:
    """Describe the machine and how it was used."""
    return {
        "device": run_facts.device_name("gpu" if kind == "cuda" else "cpu"),
        "gpu": kind == "cuda",
        "precision": choose_precision(recipe.precision, kind),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "processes_that_slice": workers,
        "processes_that_make_patches": recipe.workers,
        "processes_that_train": processes.count,
    }


def text(facts: dict) -> str:
    """Return the figures as lines to print."""
    measured, computed = facts["measured"], facts["computed"]
    lines = ["measured:"]
    for stage in ("phantoms", "prepare"):
        if row := measured[stage]:
            lines.append(f"  {stage:9} {row['seconds_each']:.2f} s a scan")
    for model, row in measured["train"].items():
        if steps := row["steps"]:
            share = row["share_of_bare_step"]
            beside = f", {share:.0%} of the bare step" if share else ""
            lines.append(f"  training  {model}: {steps['images_per_second']:.1f} images/s{beside}")
    for model in measured["train"]:
        if row := measured["evaluate"][model]["predict"]:
            scored = measured["evaluate"][model]["score"]
            lines.append(
                f"  testing   {model}: {row['seconds_each']:.1f} s a scan to predict, "
                f"{_each(scored):.1f} s to score"
            )
    lines.append(f"computed for {computed['for']}, on this machine: {computed['minutes']:.0f} min")
    lines += [f"  {stage}: {s / 60:.1f} min" for stage, s in computed["seconds"].items()]
    goal = facts["goal"]
    lines.append(f"goal: {goal['minutes']:.0f} min on {goal['on']}; reached: {goal['reached']}")
    return "\n".join(lines)
