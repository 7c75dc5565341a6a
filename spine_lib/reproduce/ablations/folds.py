"""Who is trained on and who is scored in an ablation; the test pair is neither.

On the built-in data each of the training patients is left out in turn and scored by the networks
that never saw it.  Two patients allow no interval, so every network also scores a cohort of
held-out phantoms.  On a public data set the validation part is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.datasets.case import Case
from spine_lib.datasets.phantom import phantom_cases
from spine_lib.datasets.public import PUBLIC_SETS
from spine_lib.reproduce.ablations.parts import PartOfStore, halves, some_of, volumes_of
from spine_lib.reproduce.sources import CaseLike, Say, gather
from spine_lib.slices.split import require_separate
from spine_lib.slices.store import SliceStore
from spine_lib.training.recipe import Recipe

COHORT = 12
"""Held-out phantoms: enough for an interval, few and small enough to be scored in seconds."""

COHORT_FROM = 20_000
"""First seed of the scored phantoms; those of runs and lessons end far below."""

SPLIT_FROM = 21_000
"""First seed of as many phantoms of the same kind, which a split by patient trains on."""

COHORT_GRID = {"shape": (96, 96, 40), "spacing_mm": (2.0, 2.0, 3.0), "tight": True}
"""Stacks of 120 mm in a narrow field of view around the spine."""

COHORT_LEVELS = (("C4", "C6"), ("T3", "T6"), ("T9", "T12"), ("L3", "L5"))
"""What the stacks of the cohort show, in turn; the last one reaches into the sacrum."""


SPLIT_NOTE = (
    "Of everybody half of the slices, drawn at random, were kept back, and these are scored. Split "
    "by slice, networks were trained on the other halves of everybody; split by patient, on "
    "patients and phantoms that are not scored; both on equally many slices, and neither on a "
    "slice that is scored."
)


@dataclass(frozen=True)
class Fold:
    """Name who is trained on and who is scored.

    Attributes:
        name: of its folder.
        label: as tables call it.
        train: patients to train on; phantoms are the recipe's affair.
        scored: patients that these networks have not seen.
    """

    name: str
    label: str
    train: tuple[CaseLike, ...]
    scored: tuple[CaseLike, ...]


@dataclass(frozen=True)
class Scored:
    """Name a case to score, and the slices of it if not all.

    Attributes:
        case: the case.
        group: "patients" or "phantoms".
        plane: that slices are counted along.
        slices: which of them; None for all.
    """

    case: CaseLike
    group: str
    plane: str = "axial"
    slices: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Sides:
    """Hold everything that is trained on or scored.

    Attributes:
        folds: each is trained on its own.
        phantoms: the recipe's, which every fold may train on.
        validation: held-out phantoms, or the validation part of a public set where the recipe asks
            for none: they give the learning curve and decide nothing.
        cohort: phantoms that every network scores.
        split_phantoms: others of their kind, for a split by patient.
        note: how the cases came to their sides.
    """

    folds: tuple[Fold, ...]
    phantoms: tuple[CaseLike, ...]
    validation: tuple[CaseLike, ...]
    cohort: tuple[CaseLike, ...]
    split_phantoms: tuple[CaseLike, ...]
    note: str


def gather_sides(recipe: Recipe, root=None, say: Say = print, cohort: int = COHORT) -> Sides:
    """Find the cases of an ablation; those of the test part are named here and never read.

    Args:
        recipe: its data set and phantoms.
        root: folder of a public data set.
        say: called with a line where something is fetched.
        cohort: how many phantoms are scored on built-in data.

    Raises:
        SpineError: as `sources.gather` does, or if a public set has no validation part to score.
    """
    parts = gather(recipe, root, say).parts
    patients = [case for case in parts["train"] if case.source != "phantom"]
    phantoms = [case for case in parts["train"] if case.source == "phantom"]
    made = [case for case in parts["validation"] if case.source == "phantom"]
    if recipe.dataset in PUBLIC_SETS:
        scored = [case for case in parts["validation"] if case.source != "phantom"]
        if not scored:
            raise SpineError(
                f"ablate: the validation part of {recipe.dataset} is empty, and the test part is "
                "not for this; name a data set with a validation part"
            )
        folds = [Fold("all", "validation part", tuple(patients), tuple(scored))]
        cohort = 0
    else:
        folds = [_left_out(case, patients) for case in patients]
        folds = folds or [Fold("phantoms", "phantoms alone", (), ())]
    sides = Sides(
        tuple(folds),
        tuple(phantoms),
        tuple(made or parts["validation"]),
        cohort_cases(cohort, COHORT_FROM),
        cohort_cases(cohort, SPLIT_FROM),
        _note(recipe, folds, cohort),
    )
    _require_apart(sides)
    return sides


def _left_out(case: CaseLike, patients: Sequence[CaseLike]) -> Fold:
    others = tuple(other for other in patients if other.patient_id != case.patient_id)
    return Fold(f"without-{case.case_id}", f"{case.case_id} left out", others, (case,))


def cohort_cases(count: int, first: int) -> tuple[Case, ...]:
    """Return small phantoms of all parts of the spine in turn, each a patient of its own."""
    return tuple(
        phantom_cases(
            1, first + number, **COHORT_GRID, levels=COHORT_LEVELS[number % len(COHORT_LEVELS)]
        )[0]
        for number in range(count)
    )


def _note(recipe: Recipe, folds: Sequence[Fold], cohort: int) -> str:
    if recipe.dataset in PUBLIC_SETS:
        return (
            f"Trained on the training part of {recipe.dataset}, scored on its validation part; the "
            "test part was not read."
        )
    phantoms = f"{cohort} held-out phantoms that no network was trained on"
    if recipe.dataset == "phantom":
        return f"Trained on phantoms, scored on {phantoms}."
    names = " and ".join(case.case_id for fold in folds for case in fold.scored)
    return (
        f"The training patients {names} are left out in turn and scored by the networks that were "
        f"not trained on them; every network also scores {phantoms}. The test pair was not read."
    )


def _require_apart(sides: Sides) -> None:
    for fold in sides.folds:
        trained = [*fold.train, *sides.phantoms, *sides.split_phantoms]
        require_separate(
            {
                "training": trained,
                "scored": [*fold.scored, *sides.cohort],
                "validation": [case for case in sides.validation if case not in fold.scored],
            }
        )


def scored_by(fold: Fold, sides: Sides) -> tuple[Scored, ...]:
    """Name what the networks of a fold are scored on, whole scans."""
    patients = [Scored(case, "patients") for case in fold.scored]
    return (*patients, *(Scored(case, "phantoms") for case in sides.cohort))


def training_part(store: SliceStore, fold: Fold, sides: Sides, recipe: Recipe) -> PartOfStore:
    """Return what the networks of a fold are trained on, out of the slices of everybody."""
    cases = [*fold.train, *(sides.phantoms if recipe.phantoms else ())]
    return volumes_of(store, [case.case_id for case in cases], recipe.planes)


# --- slices split instead of patients -------------------------------------------------------------


def split_parts(
    store: SliceStore, fold: Fold, sides: Sides
) -> tuple[dict[str, PartOfStore], tuple[Scored, ...]]:
    """Part slices in two ways, and score the same ones.

    Of every patient half of the slices, drawn at random, are kept back.  "slice" trains on the
    other halves of everybody, those of the scored patients included; "patient" on patients that
    are not scored.  Both train on equally many slices, of patients and of phantoms, and neither on
    a slice that is scored.  Phantoms are of one kind on both sides: only who they are differs.

    Args:
        store: slices of all patients, the cohort and `split_phantoms`, along one plane.
        fold: who is scored.
        sides: for the phantoms.

    Returns:
        The stores of "patient" and "slice", and what is scored.
    """
    numbers = {volume.case_id: number for number, volume in enumerate(store.volumes)}
    kept = {
        case_id: halves(store.volumes[number].shape[0], (SPLIT_FROM, number))
        for case_id, number in numbers.items()
    }
    chosen: dict[str, dict[int, list[int]]] = {"patient": {}, "slice": {}}
    looked_at = []
    for group, strangers, scored in (
        ("patients", fold.train, fold.scored),
        ("phantoms", sides.split_phantoms, sides.cohort),
    ):
        strangers, scored = (
            [case for case in cases if case.case_id in numbers] for cases in (strangers, scored)
        )
        apart = {numbers[c.case_id]: range(sum(map(len, kept[c.case_id]))) for c in strangers}
        mixed = {numbers[c.case_id]: kept[c.case_id][0] for c in (*strangers, *scored)}
        count = min(sum(map(len, apart.values())), sum(map(len, mixed.values())))
        chosen["patient"] |= some_of(apart, count, (SPLIT_FROM, 0))
        chosen["slice"] |= some_of(mixed, count, (SPLIT_FROM, 1))
        plane = store.volumes[0].plane
        looked_at += [Scored(c, group, plane, tuple(kept[c.case_id][1])) for c in scored]
    return {name: PartOfStore(store, slices) for name, slices in chosen.items()}, tuple(looked_at)
