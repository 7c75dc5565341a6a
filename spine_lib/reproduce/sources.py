"""Lesson 8: which cases a recipe trains, validates and tests on, and their slices.

The built-in sources need no more than a recipe; a public data set also needs the folder that it was
unpacked into. No patient is ever in two parts.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spine_lib import SpineError, __version__
from spine_lib.datasets.case import Case, ExcludedScan, require_cases
from spine_lib.datasets.more import fetched_cohorts, more_sets
from spine_lib.datasets.phantom import phantom_cases
from spine_lib.datasets.public import PUBLIC_SETS, find_cases
from spine_lib.datasets.sample import fetch_sample, sample_cases, sample_root
from spine_lib.slices import store
from spine_lib.slices.split import require_separate
from spine_lib.training.recipe import Recipe

FIRST_PHANTOM = {"train": 1000, "validation": 2000, "test": 3000}
"""First seeds of the phantoms of each part, far enough apart never to meet."""

BUILT_IN = ("sample", "phantom")
"""Data sets that every case can be read of; of others, those that cannot are left out."""

PHANTOM_GRID = {"shape": (160, 160, 160), "spacing_mm": (2.0, 2.0, 3.0)}

Say = Callable[[str], object]


@dataclass(frozen=True)
class Sources:
    """The cases of a run.

    Attributes:
        parts: cases for "train", "validation" and "test".
        split_note: how they came to their parts.
        left_out: scans that lack a part, with the reason.
        faults: what others reported of these cases' masks.
    """

    parts: dict[str, list[Case]]
    split_note: str
    left_out: list[ExcludedScan] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def gather(
    recipe: Recipe,
    root: str | Path | None = None,
    say: Say = print,
    needed: Sequence[str] = tuple(FIRST_PHANTOM),
) -> Sources:
    """Return the cases that a recipe names.

    Args:
        recipe: its data set and its numbers of phantoms are used.
        root: folder of a public data set; the built-in sources need none.
        say: called with a line where something is fetched or left out.
        needed: parts that must not be empty; to prepare, "train" and "validation" suffice.

    Raises:
        SpineError: if the data set is unknown or lies elsewhere, a needed part is empty, or a
            patient is in two parts.
    """
    parts: dict[str, list[Case]] = {part: [] for part in FIRST_PHANTOM}
    sources = Sources(parts, "by patient, fixed before anything was trained")
    if recipe.dataset in PUBLIC_SETS:
        sources = _find_public(recipe.dataset, root, parts, say)
    elif recipe.dataset in ("sample", "more"):
        fetch_sample(progress=say)
        for case in sample_cases():
            parts[case.split].append(case)
        if recipe.dataset == "more":
            sources = _add_fetched(parts, say)
    else:
        parts["test"] += phantom_cases(2, FIRST_PHANTOM["test"], **PHANTOM_GRID)
        sources = Sources(parts, "by seed; each phantom is a patient of its own")
    counts = {"train": recipe.phantoms, "validation": recipe.validation_phantoms}
    for part, count in counts.items():
        if count:
            parts[part] += phantom_cases(count, FIRST_PHANTOM[part], **PHANTOM_GRID)
    for part in needed:
        require_cases(parts[part], f"the {part} part of {recipe.dataset}")
    require_separate(parts)
    return sources


def _add_fetched(parts: dict, say: Say) -> Sources:
    """Add the training and validation parts of what was fetched; tests stay the sample's pair."""
    cohorts = fetched_cohorts()
    if not cohorts:
        raise SpineError(
            "dataset 'more' needs more than the sample: bring some with "
            f"'spine fetch --more NAME', one of {', '.join(more_sets())}"
        )
    for name, cohort in cohorts.items():
        cases = [case for case in cohort.cases if case.split in ("train", "validation")]
        for case in cases:
            parts[case.split].append(case)
        say(f"{name}: {len(cases)} of {len(cohort.cases)} scans, without its test part")
    notes = "; ".join(f"{name}: {cohort.split_note}" for name, cohort in cohorts.items())
    left_out = [scan for cohort in cohorts.values() for scan in cohort.excluded]
    faults = [fault for cohort in cohorts.values() for fault in cohort.faults]
    return Sources(parts, f"by patient; the sample's test pair; {notes}", left_out, faults)


def _find_public(name: str, root: str | Path | None, parts: dict, say: Say) -> Sources:
    if root is None:
        raise SpineError(
            f"--dataset {name} needs --root, the folder that it was unpacked into: "
            "'spine datasets' says where to get it and what that folder looks like"
        )
    cohort = find_cases(name, root)
    for case in cohort.cases:
        if case.split not in parts:
            raise SpineError(
                f"{case.case_id} is in no part ({case.split!r}): name train, validation or test"
            )
        parts[case.split].append(case)
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in parts.items())
    say(f"{name}: {len(cohort.cases)} scans ({counts}), split {cohort.split_note}")
    if cohort.excluded:
        say(f"left out {len(cohort.excluded)}, the first {cohort.excluded[0]}")
    for fault in cohort.faults:
        say(f"known fault: {fault}")
    return Sources(parts, cohort.split_note, cohort.excluded, cohort.faults)


def prepare(
    cases: Sequence[Case],
    planes: Sequence[str],
    spacing_mm: float,
    say: Say = print,
    workers: int = 1,
    scheduler: str = "",
    progress: bool = True,
    skip_broken: bool = False,
) -> store.SliceStore:
    """Slice cases into a store that all runs with the same cases and pixel size share.

    Arguments are those of `slices.prepare`; scans that cannot be read are left out (the store's
    `left_out`) where `skip_broken` says so, else the first is a `SpineError`.
    """
    settings = [planes, spacing_mm]
    key = json.dumps([[str(case) for case in cases], [__version__, *settings]])
    folder = prepared_root() / hashlib.sha256(key.encode()).hexdigest()[:12]
    prepared = store.prepare(cases, folder, *settings, workers, scheduler, progress, say)
    if prepared.left_out and not skip_broken:
        raise SpineError(prepared.left_out[0].reason)
    return prepared


def prepared_root() -> Path:
    """Return where prepared slices are kept: beside the data, unless a class shares those."""
    data = sample_root().parent
    existing = next(folder for folder in (data, *data.parents) if folder.is_dir())
    # No run can have a name that starts with a dot.
    return data / "prepared" if os.access(existing, os.W_OK) else Path("runs") / ".prepared"
