"""Lesson 8: which cases a recipe trains, validates and tests on, and their slices.

The built-in sources need no more than a recipe; a public data set also needs the folder that it was
unpacked into.  No patient is ever in two parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spine_lib import SpineError, __version__
from spine_lib.datasets.case import Case, ExcludedScan, require_cases
from spine_lib.datasets.phantom import phantom_cases
from spine_lib.datasets.public import PUBLIC_SETS, find_cases
from spine_lib.datasets.sample import fetch_sample, sample_cases, sample_root
from spine_lib.slices.cut import require_separate
from spine_lib.slices.preparing import Prepared, prepare_cases
from spine_lib.slices.store import prepare_store
from spine_lib.training.recipe import Recipe

TRAINING_PHANTOMS_FROM = 1000
VALIDATION_PHANTOMS_FROM = 2000
TEST_PHANTOMS_FROM = 3000
"""First seeds of the phantoms of each part, far enough apart never to meet."""

PHANTOM_GRID = {"shape": (160, 160, 160), "spacing_mm": (2.0, 2.0, 3.0)}

CaseLike = Case
Say = Callable[[str], object]


@dataclass(frozen=True)
class Sources:
    """Hold the cases of a run.

    Attributes:
        parts: cases for "train", "validation" and "test".
        split_note: how they came to their parts.
        left_out: scans that lack a part, with the reason.
    """

    parts: dict[str, list[CaseLike]]
    split_note: str
    left_out: list[ExcludedScan] = field(default_factory=list)


def gather(recipe: Recipe, root: str | Path | None = None, say: Say = print) -> Sources:
    """Find the cases that a recipe names.

    Args:
        recipe: its data set and its numbers of phantoms are used.
        root: folder of a public data set; the built-in sources need none.
        say: called with a line where something is fetched or left out.

    Raises:
        SpineError: if the data set is unknown or lies elsewhere, a part is empty, or a patient
            is in two parts.
    """
    if recipe.dataset in PUBLIC_SETS:
        sources = _public(recipe, root, say)
    elif recipe.dataset in ("sample", "phantom"):
        sources = _built_in(recipe, say)
    else:
        known = ", ".join(("sample", "phantom", *PUBLIC_SETS))
        raise SpineError(f"unknown dataset {recipe.dataset!r}: use one of {known}")
    parts = sources.parts
    parts["train"] += _phantoms(recipe.phantoms, TRAINING_PHANTOMS_FROM)
    parts["validation"] += _phantoms(recipe.validation_phantoms, VALIDATION_PHANTOMS_FROM)
    for part, cases in parts.items():
        require_cases(cases, f"the {part} part of {recipe.dataset}")
    require_separate(parts)
    return sources


def cases_of(
    recipe: Recipe, say: Say = print, root: str | Path | None = None
) -> dict[str, list[CaseLike]]:
    """Return the cases for "train", "validation" and "test"; see `gather`."""
    return gather(recipe, root, say).parts


def _phantoms(count: int, first: int) -> list[CaseLike]:
    return list(phantom_cases(count, first, **PHANTOM_GRID)) if count else []


def _built_in(recipe: Recipe, say: Say) -> Sources:
    parts: dict[str, list[CaseLike]] = {"train": [], "validation": [], "test": []}
    if recipe.dataset == "phantom":
        parts["test"] = _phantoms(2, TEST_PHANTOMS_FROM)
        return Sources(parts, "by seed; each phantom is a patient of its own")
    fetch_sample(progress=say)
    for case in sample_cases():
        parts[case.split].append(case)
    return Sources(parts, "by patient, fixed before anything was trained")


def _public(recipe: Recipe, root: str | Path | None, say: Say) -> Sources:
    if root is None:
        raise SpineError(
            f"--dataset {recipe.dataset} needs --root, the folder that it was unpacked into: "
            "'spine datasets' says where to get it and what that folder looks like"
        )
    cohort = find_cases(recipe.dataset, root)
    parts: dict[str, list[CaseLike]] = {"train": [], "validation": [], "test": []}
    for case in cohort.cases:
        parts.setdefault(case.split, []).append(case)
    strange = sorted(set(parts) - {"train", "validation", "test"})
    if strange:
        case = parts[strange[0]][0]
        raise SpineError(
            f"{case.case_id} is in no part ({strange[0]!r}): name train, validation or test"
        )
    counts = ", ".join(f"{len(cases)} {part}" for part, cases in parts.items())
    say(f"{recipe.dataset}: {len(cohort.cases)} scans ({counts}), split {cohort.split_note}")
    if cohort.excluded:
        say(f"left out {len(cohort.excluded)}, the first {cohort.excluded[0]}")
    return Sources(parts, cohort.split_note, cohort.excluded)


def prepare(
    cases: Sequence[CaseLike],
    recipe: Recipe,
    say: Say = print,
    workers: int = 1,
    scheduler: str = "",
    progress: bool = True,
) -> Prepared:
    """Slice cases into a store that all runs with the same cases and pixel size share.

    Args:
        cases: what to slice.
        recipe: its planes and spacing are used.
        say: called with a line where something is to be told.
        workers, scheduler, progress: as for `preparing.prepare_cases`; few cases are sliced
            one after the other.

    Returns:
        The store, and the scans that cannot be read.
    """
    made_by = [__version__, recipe.planes, recipe.spacing_mm]
    key = json.dumps([[str(case) for case in cases], made_by])
    folder = prepared_root() / hashlib.sha256(key.encode()).hexdigest()[:12]
    if recipe.dataset not in PUBLIC_SETS:
        return Prepared(prepare_store(cases, folder, recipe.planes, recipe.spacing_mm, say), [])
    settings = (folder, recipe.planes, recipe.spacing_mm)
    return prepare_cases(cases, *settings, workers, scheduler, progress, say)


def prepared_root() -> Path:
    """Return where prepared slices are kept: beside the data, unless a class shares those."""
    data = sample_root().parent
    there = next(folder for folder in (data, *data.parents) if folder.is_dir())
    # No run can have a name that starts with a dot.
    return data / "prepared" if os.access(there, os.W_OK) else Path("runs") / ".prepared"
