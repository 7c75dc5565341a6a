"""Lesson 8: rehearse the paper's experiment at its true size, on phantoms, and time every stage.

What cannot be downloaded can still be tried out: phantoms as large as the public set's scans, in
its layout, go through its reader, the slicing, both trainings, the evaluation and the report, by
the very functions of `spine reproduce`.  What was measured on a part is then computed for the
whole.  Stopped, or out of its minutes, a rehearsal goes on when it is called again.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path

from spine_lib import SpineError, rehearsal_facts
from spine_lib.bare_step import bare_steps, wait_for
from spine_lib.phantom_tree import MEDIAN_SHAPE, SPACING_MM, shares_of, write_tree
from spine_lib.reproduce.laps import Laps
from spine_lib.reproduce.reproduce import Say, reproduce, write_json
from spine_lib.reproduce.sources import gather, prepare
from spine_lib.slices.cut import slice_spacing_mm
from spine_lib.slices.preparing import grid_of
from spine_lib.training.devices import choose_device, require_compiler
from spine_lib.training.processes import ALONE, Processes, is_first, one_at_a_time
from spine_lib.training.recipe import Recipe, load_recipe

EPOCHS = 10
BARE_STEPS = {"cpu": 6, "cuda": 60}
"""Timed steps on one batch in memory, after two that are not."""


@dataclass(frozen=True)
class Rehearsal:
    """Say what is rehearsed.

    Attributes:
        scans: phantoms, 3 or more.
        epochs: each as many patches as the training part has slices.
        steps: of each training, instead of whole epochs; 0 for these.
        batch: patches a step; 0 for the recipe's.
        encoder_weights: "none", or "imagenet" where the model hub can be reached.
        recipe: name or file; its other settings are kept.
        middle, spacing_mm: around which shapes of the scans vary, and size of a voxel.
    """

    scans: int = 11
    epochs: int = EPOCHS
    steps: int = 0
    batch: int = 0
    encoder_weights: str = "none"
    recipe: str = "paper"
    middle: tuple[int, int, int] = MEDIAN_SHAPE
    spacing_mm: float = SPACING_MM

    def base(self) -> Recipe:
        """Return the recipe without its number of steps, on the public set's layout alone."""
        alone = {"phantoms": 0, "phantom_share": 0.0, "validation_phantoms": 0}
        recipe = load_recipe(self.recipe).changed(dataset="pycad1089", **alone)
        weights = None if self.encoder_weights == "none" else recipe.encoder_weights
        return recipe.changed(batch=self.batch or recipe.batch, encoder_weights=weights)

    def recipe_for(self, scans: Path, workers: int) -> Recipe:
        """Return the recipe for the scans in a folder, with so many processes for patches."""
        recipe = self.base().changed(workers=workers)
        epoch = math.ceil(_training_slices(recipe, scans) / recipe.batch)
        steps = self.steps or self.epochs * epoch
        return recipe.changed(steps=steps, steps_per_epoch=min(steps, epoch))


def _training_slices(recipe: Recipe, scans: Path) -> int:
    cases = gather(recipe, scans, _silent).parts["train"]
    grids = {case.case_id: grid_of(case) for case in cases}
    broken = [case_id for case_id, grid in grids.items() if grid is None]
    if broken:
        raise SpineError(
            f"{scans}: the scan {broken[0]} cannot be read: delete it, it is made anew"
        )
    shapes = [grid[0] for grid in grids.values()]
    pairs = itertools.product(shapes, recipe.planes)
    return sum(int(slice_spacing_mm(shape, plane)[0]) for shape, plane in pairs)


def _silent(line: str) -> None:
    """Say nothing."""


def rehearse(
    what: Rehearsal,
    name: str = "rehearsal",
    minutes: float = math.inf,
    workers: int = 1,
    device: str = "auto",
    processes: Processes = ALONE,
    keep: Path | None = None,
    root: str | Path = "runs",
    progress: bool = True,
    say: Say = print,
) -> Path:
    """Run the experiment on phantoms of the true size and write what each stage took.

    Args:
        what: how much, and with which recipe.
        name: of the run's folder in `root`.
        minutes: after which this call stops; the next one goes on.
        workers: processes that make and slice scans; on a GPU also those that make patches.
        device: "auto", "cpu" or "gpu".
        processes: how many share each training.
        keep: another file for the result.
        root: folder of all runs.
        progress: show progress bars.
        say: called with a line per stage.

    Returns:
        The file `rehearsal.json`.

    Raises:
        OutOfTime: if the minutes are over before the rehearsal is.
        SpineError: if the folder holds another rehearsal, or a stage fails.
    """
    folder, kind = Path(root) / name, choose_device(device)
    scans, result = folder / "scans", folder / "rehearsal.json"
    _require_possible(what, kind, processes)
    _require_same(folder, what)
    if not is_first():
        progress, say = False, _silent
    laps = Laps(folder / "laps.json" if is_first() else None, minutes)
    with rehearsal_facts.piece(folder / "pieces.json", laps):
        say(f"{what.scans} phantoms of about {' x '.join(map(str, what.middle))} voxels in {scans}")
        with one_at_a_time(folder / "scans.lock"):
            write_tree(scans, what.scans, workers, what.middle, what.spacing_mm, laps)
        recipe = what.recipe_for(scans, workers if kind == "cuda" else 1)
        if not (folder / "results.json").is_file():
            options = {"root": root, "data_root": scans, "workers": workers, "laps": laps}
            options |= {"processes": processes, "progress": progress, "say": say}
            reproduce(recipe, name, device=device, **options)
        if not is_first():
            return result
        if processes.count == 1:
            _time_bare_steps(recipe, scans, kind, laps, say)
    facts = rehearsal_facts.summarise(what, recipe, folder, kind, workers, processes)
    for path in (result, keep):
        if path is not None:
            write_json(path, facts)
    say(rehearsal_facts.text(facts))
    say(f"kept in {keep or result}")
    return result


def _require_possible(what: Rehearsal, kind: str, processes: Processes) -> None:
    """Refuse what cannot work before hours go into the phantoms."""
    recipe = what.base()
    processes.require_fit(recipe.batch, kind)
    shares_of(what.scans)
    if recipe.compile:
        require_compiler(kind)


def _require_same(folder: Path, what: Rehearsal) -> None:
    """Refuse to go on with another rehearsal; remember what this one is."""
    file, asked = folder / "asked.json", dataclasses.asdict(what)
    asked = json.loads(json.dumps(asked))
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if is_first():
            write_json(file, asked)
        return
    different = [f"{key} {found.get(key)}" for key in asked if found.get(key) != asked[key]]
    if different:
        raise SpineError(
            f"{folder} holds another rehearsal ({', '.join(different)}): choose another --name"
        )


def _time_bare_steps(recipe: Recipe, scans: Path, kind: str, laps: Laps, say: Say) -> None:
    """Time a step on one batch in memory, which training is compared with."""
    parts = gather(recipe, scans, _silent).parts
    store = prepare(parts["train"], recipe, _silent, progress=False).store
    for model in recipe.models:
        stage = f"bare step {model}"
        count = BARE_STEPS[kind]
        if laps.units(stage) >= count:
            continue
        say(f"{model}: {count} bare steps of {recipe.batch} patches")
        steps = bare_steps(model, recipe, store, kind, wait=False)
        for number in range(2 + count):
            if number == 2:
                wait_for(kind)
                laps(None)
            next(steps)
        wait_for(kind)  # once: a training does not wait for the GPU at every step either
        laps(stage, count)
