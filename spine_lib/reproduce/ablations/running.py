"""Run ablations: train every variant with every seed, score, compare, write down.

What is finished is kept: called again, trainings are loaded, scores remembered, and a run that was
stopped goes on.  Trainings of the recipe as it stands are shared by all ablations of a folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spine_lib.ct.files import file_lock
from spine_lib.ct.geometry import PLANES
from spine_lib.reproduce.ablations import collecting, comparing, folds, page, parts, scoring, words
from spine_lib.reproduce.ablations.folds import Sides
from spine_lib.reproduce.ablations.scoring import Training
from spine_lib.reproduce.ablations.variants import Ablation, Variant, chosen
from spine_lib.reproduce.reproduce import write_json
from spine_lib.reproduce.sources import CaseLike, Say, prepare, prepared_root
from spine_lib.slices.store import SliceStore
from spine_lib.training.devices import choose_device
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import load_or_train, train_side_by_side

DEFAULT_RECIPE = "ablation"
DEFAULT_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Settings:
    """Hold what all ablations of one call share.

    Attributes:
        recipe: the one that variants change.
        model: the network of every variant that names no other.
        seeds: one training of each variant and fold for each.
        sides: who is trained on and scored.
        folder: of all ablations of this run.
        device: "cpu" or "cuda".
        at_once: trainings beside each other on a CPU.
        workers: processes that slice the scans of a public data set.
        say: called with a line per training and stage.
    """

    recipe: Recipe
    model: str
    seeds: tuple[int, ...]
    sides: Sides
    folder: Path
    device: str
    at_once: int
    workers: int
    say: Say


def ablate(
    name: str,
    recipe: Recipe | str | Path = DEFAULT_RECIPE,
    model: str | None = None,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    run: str = "ablations",
    dataset: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
    at_once: int = 2,
    workers: int = 1,
    root: str | Path = "runs",
    say: Say = print,
    cohort: int = folds.COHORT,
) -> list[Path]:
    """Run one ablation, or all of them, and write `ablation.json` and `ablation.html` of each.

    Args:
        name: of `variants.ABLATIONS`, or "all".
        recipe: a recipe, the name of a built-in one, or a YAML file; variants change it.
        model: network to train; default the recipe's first.
        seeds: one training of each variant for each.
        run: name of the folder in `root` that all ablations share.
        dataset: instead of the recipe's; of a public one the validation part is scored.
        data_root: folder of a public data set.
        device: "auto", "cpu" or "cuda".
        at_once: trainings beside each other on a CPU; a script that asks for more than one needs
            `if __name__ == "__main__":`.
        workers: processes that slice the scans of a public data set.
        root: folder of all runs.
        say: called with a line per stage, and with the table.
        cohort: held-out phantoms that are scored on built-in data.

    Returns:
        The folder of each ablation.

    Raises:
        SpineError: if there is no such ablation, the recipe leaves nothing to compare, or the
            folder holds trainings with another recipe.
    """
    asked = chosen(name)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if dataset:
        recipe = recipe.changed(dataset=dataset)
    model = model or recipe.models[0]
    recipe = recipe.changed(models=(model,))
    variants = {one.name: one.variants(recipe, model) for one in asked}  # refuse before training
    with file_lock(prepared_root() / "lock"):
        sides = folds.gather_sides(recipe, data_root, say, cohort)
    settings = Settings(
        recipe=recipe,
        model=model,
        seeds=tuple(dict.fromkeys(seeds)),
        sides=sides,
        folder=Path(root) / run,
        device=choose_device(device),
        at_once=at_once,
        workers=workers,
        say=say,
    )
    return [_one(one, variants[one.name], settings) for one in asked]


def _one(ablation: Ablation, variants: Sequence[Variant], settings: Settings) -> Path:
    """Run one ablation from slices to page."""
    started = time.perf_counter()
    say, folder = settings.say, settings.folder / ablation.name
    say(f"ablation {ablation.name}: {ablation.line}")
    trainings = _trainings(ablation, variants, settings)
    _train(list(dict.fromkeys(one for of in trainings.values() for one in of.values())), settings)
    results = _results(ablation, variants, trainings, settings)
    results["call_seconds"] = round(time.perf_counter() - started, 1)
    write_json(folder / "ablation.json", results)
    page.write_page([results], folder / "ablation.html")
    say(words.text(results))
    say(f"The page is {folder / 'ablation.html'}")
    return folder


# --- what is to be trained ------------------------------------------------------------------------

Key = tuple[str, str, int]
"""Variant, fold, seed."""


def _trainings(
    ablation: Ablation, variants: Sequence[Variant], settings: Settings
) -> dict[str, dict[Key, Training]]:
    """Name the trainings of each variant."""
    split = bool(variants[0].split)
    planes = _planes(variants, settings.recipe)
    whole = _store(_everybody(settings.sides, split), planes, settings)
    validation = _store(settings.sides.validation, planes, settings)
    return {
        variant.name: {
            (variant.name, fold.name, seed): _training(
                ablation, variant, fold, seed, whole, validation, settings
            )
            for seed in settings.seeds
            for fold in settings.sides.folds
        }
        for variant in variants
    }


def _planes(variants: Sequence[Variant], recipe: Recipe) -> tuple[str, ...]:
    wanted = {plane for variant in variants for plane in variant.recipe(recipe).planes}
    return tuple(plane for plane in PLANES if plane in wanted)


def _everybody(sides: Sides, split: bool) -> list[CaseLike]:
    """Return whose slices are needed: each patient once, whatever side he is on."""
    cases = [case for fold in sides.folds for case in fold.train]
    if split:
        cases += [case for fold in sides.folds for case in fold.scored]
        cases += [*sides.cohort, *sides.split_phantoms]
    else:
        cases += sides.phantoms
    return list({case.case_id: case for case in cases}.values())


def _store(cases: Sequence[CaseLike], planes: tuple[str, ...], settings: Settings) -> SliceStore:
    recipe = settings.recipe.changed(planes=planes)
    with file_lock(prepared_root() / "lock"):
        return prepare(cases, recipe, settings.say, settings.workers, progress=False)


def _training(
    ablation: Ablation,
    variant: Variant,
    fold: folds.Fold,
    seed: int,
    whole: SliceStore,
    validation: SliceStore,
    settings: Settings,
) -> Training:
    recipe = variant.recipe(settings.recipe).changed(seed=seed)
    sides, model = settings.sides, variant.model or settings.model
    ids = [case.case_id for case in sides.validation]
    if variant.split:
        stores, scored = folds.split_parts(whole, fold, sides)
        part = stores[variant.split]
    else:
        part = folds.training_part(whole, fold, sides, recipe)
        scored = folds.scored_by(fold, sides)
    return Training(
        model=model,
        recipe=recipe,
        training=part,
        validation=parts.volumes_of(validation, ids, recipe.planes),
        folder=_folder(ablation, variant, settings) / fold.name / f"seed-{seed}",
        scored=scored,
        device=settings.device,
    )


def _folder(ablation: Ablation, variant: Variant, settings: Settings) -> Path:
    if variant.is_base(settings.recipe, settings.model):
        return settings.folder / "recipe"
    return settings.folder / ablation.name / variant.name


# --- training and scores --------------------------------------------------------------------------


def _train(trainings: Sequence[Training], settings: Settings) -> None:
    """Train and score what is not finished, on a CPU several at once."""
    waiting = [one for one in trainings if not one.is_finished()]
    if waiting:
        steps = settings.recipe.steps
        settings.say(f"{len(waiting)} trainings of {steps} steps; {len(trainings)} in all")
    if settings.device == "cpu":
        train_side_by_side(
            trainings,
            settings.at_once,
            progress=False,
            evaluate=scoring.score_training,
            on_end=lambda job, rows: settings.say(_line(job, rows, settings)),
        )
    for one in waiting:
        if not (one.folder / "scores.json").is_file():
            settings.say(_line(one, _finished(one)[1], settings))


def _finished(training: Training) -> tuple[float, dict[str, dict]]:
    """Load or train a network; return its training's seconds and its scores."""
    fitted = load_or_train(
        training.model,
        training.recipe,
        training.training,
        training.validation,
        training.folder,
        training.device,
        progress=False,
    )
    return fitted.trained_seconds, scoring.score_training(training, fitted)


def _line(training: Training, rows: dict[str, dict], settings: Settings) -> str:
    where = training.folder.relative_to(settings.folder).as_posix()
    means = []
    for group in comparing.GROUPS:
        found = [row["dice"] for row in rows.values() if row["group"] == group]
        means += [f"{sum(found) / len(found):.3f} on {group}"] if found else []
    return f"{where}: Dice {', '.join(means)}"


def _results(
    ablation: Ablation,
    variants: Sequence[Variant],
    trainings: dict[str, dict[Key, Training]],
    settings: Settings,
) -> dict:
    runs, seconds = {}, {}
    for name, jobs in trainings.items():
        runs[name] = []
        for (_, fold, seed), training in jobs.items():
            took, rows = _finished(training)
            seconds[training.folder] = took
            row = {"fold": fold, "seed": seed, "train_seconds": round(took, 1), "volumes": rows}
            runs[name].append(row)
    every = [training for jobs in trainings.values() for training in jobs.values()]
    return {
        **collecting.collect(
            ablation, variants, runs, settings.recipe, settings.model, settings.sides
        ),
        **collecting.data_facts(every, runs),
        **collecting.run_facts_of(settings.device, settings.at_once, settings.seeds),
        "train_seconds": round(sum(seconds.values()), 1),
    }
