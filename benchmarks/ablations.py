"""Measure what single settings bring: `python benchmarks/ablations.py loss --keep`.

Short runs with one setting changed are scored on patients that they have not seen: each training
patient is left out in turn and scored by the networks that never saw it, and every network scores a
cohort of held-out phantoms. The test part is never read. What is finished is kept in
`runs/ablations`: a run that was stopped goes on. With `--keep` the numbers go into
`benchmarks/results/ablations.json`, and `benchmarks/ablations.md` is written from all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from filelock import FileLock
from scipy import ndimage

from spine_lib import SpineError, __version__
from spine_lib.ct.files import array_sha256, atomic_file, read_json, write_json
from spine_lib.ct.geometry import PLANES, to_slices
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import Case, CaseData
from spine_lib.datasets.phantom import phantom_cases
from spine_lib.metrics import overlap, statistics
from spine_lib.models import split_name
from spine_lib.reproduce import provenance
from spine_lib.reproduce.compare import aligned, estimate_text, number, paired
from spine_lib.reproduce.evaluate import Truth, require_unseen
from spine_lib.reproduce.report import duration
from spine_lib.reproduce.sources import gather, prepare, prepared_root
from spine_lib.slices import Draw
from spine_lib.slices.split import require_separate
from spine_lib.slices.store import SliceStore
from spine_lib.training.devices import choose_device
from spine_lib.training.losses import LOSSES
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import Fitted, Job, load_or_train, train_side_by_side
from spine_lib.volumes.predict import predict_mask

PACKAGED_ENCODER = "timm-tf_efficientnet_lite0"
"""The one encoder that a public package carries ImageNet weights for."""

COHORT, COHORT_FROM, SPLIT_FROM = 12, 20_000, 21_000
"""Number and first seed of the scored phantoms; first seed of those that a split trains on."""

COHORT_GRID = {"shape": (96, 96, 40), "spacing_mm": (2.0, 2.0, 3.0), "tight": True}
COHORT_LEVELS = (("C4", "C6"), ("T3", "T6"), ("T9", "T12"), ("L3", "L5"))
GROUPS = ("patients", "phantoms")
MARGIN_MM = 40.0
"""Scans are scored in a box around their spine, with this margin."""

BONE_HU = (100, 150, 200, 250, 300)
KEPT = Path(__file__).parent / "results" / "ablations.json"
DOCUMENT = Path(__file__).with_suffix(".md")
CLEARLY = 0.05
"""A Dice that is higher by less than this is not called clearly above another."""


# --- variants -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """How one kind of training differs from the recipe.

    Attributes:
        name: of its folder; unique within an ablation.
        label: its name in tables.
        changes: of the recipe.
        model: instead of the run's; "" for that.
        split: "patient" or "slice" where a split is compared, and slices are counted; else "".
        caution: a sentence on what else differs; "" where nothing does.
        unfair_on: "patients" or "phantoms", where the comparison is no fair one for that reason.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    split: str = ""
    caution: str = ""
    unfair_on: str = ""


def _split(recipe: Recipe, model: str) -> list[Variant]:
    if len(recipe.planes) > 1:
        raise SpineError(
            f"ablate split: recipe {recipe.name!r} cuts {len(recipe.planes)} planes, and a slice "
            "that is left out in one of them is seen in the others; name a recipe with one plane"
        )
    return [Variant(kind, f"by {kind}", split=kind) for kind in ("patient", "slice")]


def _planes(recipe: Recipe, model: str) -> list[Variant]:
    def label(planes: Sequence[str]) -> str:
        return "all three, averaged" if len(planes) == len(PLANES) else " and ".join(planes)

    caution = "The steps stay the same, so that each plane is seen less often than it is alone."
    others = [Variant(plane, plane, {"planes": (plane,)}) for plane in PLANES]
    others.append(Variant("all", label(PLANES), {"planes": PLANES}, caution=caution))
    others = [v for v in others if set(v.changes["planes"]) != set(recipe.planes)]
    return [Variant("recipe", f"{label(recipe.planes)} (the recipe)"), *others]


def _losses(recipe: Recipe, model: str) -> list[Variant]:
    others = [Variant(loss, loss, {"loss": loss}) for loss in LOSSES if loss != recipe.loss]
    return [Variant("recipe", f"{recipe.loss} (the recipe)"), *others]


def _weights(recipe: Recipe, model: str) -> list[Variant]:
    """Compare both starts of the encoder that has packaged weights, whatever the model's."""
    architecture, encoder = split_name(model)
    light = "" if encoder == PACKAGED_ENCODER else f"{architecture}_{PACKAGED_ENCODER}"
    return [
        Variant("random", "random weights", {"encoder_weights": None}, light),
        Variant("imagenet", "ImageNet weights", {"encoder_weights": "package"}, light),
    ]


def _phantoms(recipe: Recipe, model: str) -> list[Variant]:
    if not recipe.phantoms or not recipe.phantom_share:
        raise SpineError(
            f"ablate phantoms: recipe {recipe.name!r} trains without phantoms as it is; name a "
            "recipe with phantoms above 0"
        )
    if recipe.dataset == "phantom":
        raise SpineError(
            "ablate phantoms: the data set phantom holds nothing else to train on; name sample or "
            "a public data set"
        )
    caution = (
        "Left out of training, phantoms are another kind of scan: on them the comparison asks how "
        "far patients teach phantoms. The real patients are what counts here."
    )
    none = {"phantoms": 0, "phantom_share": 0.0}
    return [
        Variant("recipe", f"with {recipe.phantoms} phantoms (the recipe)"),
        Variant("without", "without phantoms", none, caution=caution, unfair_on="phantoms"),
    ]


def _neighbours(recipe: Recipe, model: str) -> list[Variant]:
    def label(mm: float) -> str:
        return f"with the slices {mm:g} mm before and behind" if mm else "the slice alone"

    caution = (
        "Of a pretrained encoder the first layer starts from the weights of the three colours "
        "where there are three channels, and from their sum where there is one."
    )
    caution = caution if recipe.encoder_weights else ""
    others = [
        Variant(f"{mm:g}-mm", label(mm), {"neighbour_mm": mm}, caution=caution)
        for mm in (0.0, 3.0, 6.0)
        if mm != recipe.neighbour_mm
    ]
    return [Variant("recipe", f"{label(recipe.neighbour_mm)} (the recipe)"), *others]


@dataclass(frozen=True)
class Ablation:
    """A question and the variants that answer it.

    Attributes:
        line: what is compared, in one line.
        setting: row of the report's table of deviations that it belongs to.
        variants: from a recipe and a model, the variants; the first is the reference.
    """

    line: str
    setting: str
    variants: Callable[[Recipe, str], list[Variant]]


ABLATIONS = {
    "split": Ablation("split by slice against split by patient", "split", _split),
    "plane": Ablation("axial, coronal and sagittal slices, and all three", "plane", _planes),
    "loss": Ablation(f"the losses {', '.join(LOSSES)}", "loss", _losses),
    "weights": Ablation(
        "an encoder that starts from ImageNet or from random weights",
        "encoder weights at the start",
        _weights,
    ),
    "phantoms": Ablation("training with and without phantoms", "data", _phantoms),
    "neighbours": Ablation(
        "neighbouring slices as channels (2.5-D)", "channels of the input", _neighbours
    ),
}


# --- who is trained on, who is scored -------------------------------------------------------------


@dataclass(frozen=True)
class Fold:
    """Patients to train on, and patients that these networks have not seen."""

    name: str
    label: str
    train: tuple[Case, ...]
    scored: tuple[Case, ...]


@dataclass(frozen=True)
class Cases:
    """All that is trained on or scored.

    Attributes:
        folds: each is trained on its own.
        phantoms: the recipe's, which every fold may train on.
        validation: held-out phantoms: they give the learning curve and decide nothing.
        cohort: phantoms that every network scores.
        split_phantoms: others of their kind, for a split by patient.
    """

    folds: tuple[Fold, ...]
    phantoms: tuple[Case, ...]
    validation: tuple[Case, ...]
    cohort: tuple[Case, ...]
    split_phantoms: tuple[Case, ...]

    def note(self) -> str:
        """Return a sentence on who is scored by whom."""
        cohort = f"{len(self.cohort)} held-out phantoms that no network was trained on"
        names = " and ".join(case.case_id for fold in self.folds for case in fold.scored)
        if not names:
            return f"Trained on phantoms, scored on {cohort}."
        return (
            f"The training patients {names} are left out in turn and scored by the networks that "
            f"were not trained on them; every network also scores {cohort}. The test pair was not "
            "read."
        )


def gather_cases(
    recipe: Recipe, say: Callable[[str], object] = print, cohort: int = COHORT
) -> Cases:
    """Return the cases of an ablation; those of the test part are not among them.

    Raises:
        SpineError: if the recipe is not of the data set sample or phantom.
    """
    if recipe.dataset not in ("sample", "phantom"):
        raise SpineError(
            f"ablations are of the data sets sample and phantom, not of {recipe.dataset}: change "
            "the setting in a recipe of your own, and compare two runs"
        )
    parts = gather(recipe, say=say).parts
    patients = [case for case in parts["train"] if case.source != "phantom"]
    folds = [
        Fold(
            f"without-{case.case_id}",
            f"{case.case_id} left out",
            tuple(other for other in patients if other.patient_id != case.patient_id),
            (case,),
        )
        for case in patients
    ]
    cases = Cases(
        tuple(folds) or (Fold("phantoms", "phantoms alone", (), ()),),
        tuple(case for case in parts["train"] if case.source == "phantom"),
        tuple(parts["validation"]),
        cohort_cases(cohort, COHORT_FROM),
        cohort_cases(cohort, SPLIT_FROM),
    )
    for fold in cases.folds:
        trained = [*fold.train, *cases.phantoms, *cases.split_phantoms]
        scored = [*fold.scored, *cases.cohort]
        require_separate({"training": trained, "scored": scored, "validation": cases.validation})
    return cases


def cohort_cases(count: int, first: int) -> tuple[Case, ...]:
    """Return small phantoms of all regions of the spine in turn, each a patient of its own."""
    cases = []
    for index in range(count):
        levels = COHORT_LEVELS[index % len(COHORT_LEVELS)]
        cases += phantom_cases(1, first + index, **COHORT_GRID, levels=levels)
    return tuple(cases)


class SubsetStore(SliceStore):
    """Chosen slices of a store; nothing is copied.

    Args:
        store: the whole; its files are read.
        slices: by number of the volume, which of its slices, in ascending order; None for all.
            Neighbours of a slice are those of the scan, whether chosen or not.
    """

    def __init__(self, store: SliceStore, slices: Mapping[int, Sequence[int] | None]) -> None:
        self.folder, self.settings, self._whole = store.folder, store.settings, store
        self.numbers = list(slices)
        self.slices = [None if chosen is None else list(chosen) for chosen in slices.values()]
        self.volumes = []
        for whole, chosen in zip(self.numbers, self.slices):
            volume = store.volumes[whole]
            if chosen is not None:
                spine = set(volume.foreground)
                foreground = tuple(n for n, index in enumerate(chosen) if index in spine)
                shape = (len(chosen), *volume.shape[1:])
                volume = replace(volume, shape=shape, foreground=foreground)
            self.volumes.append(volume)

    def read(self, number: int) -> np.ndarray:
        """Map the whole volume that chosen slices come from."""
        return self._whole.read(self.numbers[number])

    def stack(self, draw: Draw, neighbour_mm: float) -> np.ndarray:
        """Copy a chosen slice, and its neighbours: [row, column, channel]."""
        chosen = self.slices[draw.volume]
        index = draw.slice if chosen is None else chosen[draw.slice]
        source = draw._replace(volume=self.numbers[draw.volume], slice=index)
        return self._whole.stack(source, neighbour_mm)


def volumes_of(store: SliceStore, cases: Sequence[Case], planes: Sequence[str]) -> SubsetStore:
    """Return the volumes of these cases, cut along these planes."""
    ids = {case.case_id for case in cases}
    chosen = [n for n, v in enumerate(store.volumes) if v.case_id in ids and v.plane in planes]
    return SubsetStore(store, dict.fromkeys(chosen))


@dataclass(frozen=True)
class Scored:
    """A case to score: its group, and the slices of it along a plane if not all."""

    case: Case
    group: str
    plane: str = "axial"
    slices: tuple[int, ...] | None = None


SPLIT_NOTE = (
    "Of everybody half of the slices, drawn at random, were kept back, and these are scored. Split "
    "by slice, networks were trained on the other halves of everybody; split by patient, on "
    "patients and phantoms that are not scored; both on equally many slices, and neither on a "
    "slice that is scored."
)


def split_slices(
    store: SliceStore, fold: Fold, cases: Cases
) -> tuple[dict[str, SubsetStore], tuple[Scored, ...]]:
    """Split slices by patient and by slice, and score the same ones; see `SPLIT_NOTE`.

    Args:
        store: slices of all patients, the cohort and `split_phantoms`, along one plane.
        fold: who is scored.
        cases: for the phantoms.

    Returns:
        The training stores of "patient" and "slice", and what is scored.
    """
    numbers = {volume.case_id: n for n, volume in enumerate(store.volumes)}
    halves = {}
    for n, volume in enumerate(store.volumes):
        order = np.random.default_rng((SPLIT_FROM, n)).permutation(volume.shape[0])
        half = volume.shape[0] // 2
        halves[n] = sorted(order[:half].tolist()), sorted(order[half:].tolist())
    chosen: dict[str, dict[int, list[int]]] = {"patient": {}, "slice": {}}
    scored_cases = []
    for group, train, scored in (
        ("patients", fold.train, fold.scored),
        ("phantoms", cases.split_phantoms, cases.cohort),
    ):
        trained = [numbers[case.case_id] for case in train]
        mixed = [numbers[case.case_id] for case in (*train, *scored)]
        apart = [(n, index) for n in trained for index in range(store.volumes[n].shape[0])]
        shared = [(n, index) for n in mixed for index in halves[n][0]]
        count = min(len(apart), len(shared))
        for kind, seed, pairs in (("patient", 0, apart), ("slice", 1, shared)):
            order = np.random.default_rng((SPLIT_FROM, seed)).permutation(len(pairs))[:count]
            for n, index in sorted(pairs[position] for position in order):
                chosen[kind].setdefault(n, []).append(index)
        plane = store.volumes[0].plane
        kept = {case: tuple(halves[numbers[case.case_id]][1]) for case in scored}
        scored_cases += [Scored(case, group, plane, slices) for case, slices in kept.items()]
    stores = {name: SubsetStore(store, slices) for name, slices in chosen.items()}
    return stores, tuple(scored_cases)


# --- scores ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training(Job):
    """One training of an ablation, and the cases that it is scored on.

    Attributes:
        scored: cases that it must not have seen.
        leaks: it has seen other slices of them on purpose, to measure what such a split pretends.
    """

    scored: tuple[Scored, ...] = ()
    leaks: bool = False


def crop_to_spine(data: CaseData, margin_mm: float = MARGIN_MM) -> CaseData:
    """Crop a case to a box around its labelled spine; one without any stays whole."""
    boxes = ndimage.find_objects((data.labels.array > 0).astype(np.uint8))
    if not boxes:
        return data
    margins = [int(np.ceil(margin_mm / size)) for size in data.ct.spacing_mm]
    box = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(boxes[0], margins))
    affine = data.ct.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    volumes = (data.ct, data.labels, data.ignore)
    cropped = [np.ascontiguousarray(volume.array[box]) for volume in volumes]
    return CaseData(*(Volume(array, affine, path=data.ct.path) for array in cropped))


@lru_cache(maxsize=32)
def load_scored(scored: Scored) -> CaseData:
    """Load a case as it is scored: cropped, slices that are not asked for ignored."""
    data = scored.case.load()
    if scored.slices is not None:
        ignore = np.ones(data.ct.shape, bool)
        to_slices(ignore, scored.plane)[list(scored.slices)] = False
        data = CaseData(data.ct, data.labels, data.ct.with_array(ignore | data.ignore.array))
    return crop_to_spine(data)


def _score(fitted: Fitted, scored: Scored, device: str) -> dict:
    data = load_scored(scored)
    truth = Truth(data)
    mask = predict_mask(fitted.network, data.ct, fitted.recipe, device)[1].array > 0
    scores = overlap.scores(overlap.confusion(mask, truth.mask, truth.ignore))
    return {name: scores[name] for name in ("dice", "precision", "recall")} | {
        "patient_id": scored.case.patient_id,
        "group": scored.group,
        "sha256": truth.sha256,
    }


def _trivial(scored: Scored) -> dict[str, float]:
    """Return the Dice that needs no network: of the whole box, and of the best threshold."""
    data = load_scored(scored)
    truth, ignore, hu = data.labels.array > 0, data.ignore.array, data.ct.array
    dice = [overlap.dice(overlap.confusion(hu > limit, truth, ignore)) for limit in BONE_HU]
    whole = overlap.dice(overlap.confusion(np.ones_like(truth), truth, ignore))
    return {"whole box": whole, "best threshold": max(dice)}


@lru_cache(maxsize=64)
def _image_sha256(case: Case) -> str:
    return array_sha256(case.load().ct.array)


def _finish(training: Training, device: str) -> tuple[float, dict[str, dict]]:
    """Load or train a network; return the seconds it was trained and its scores by case id.

    Checkpoints are deleted then: those of a whole table would fill the disk, and a training that
    is finished never goes on.
    """
    data = (training.training, training.validation, training.folder)
    fitted = load_or_train(training.model, training.recipe, *data, device, progress=False)
    for item in () if training.leaks else training.scored:
        require_unseen([fitted], item.case.case_id, _image_sha256(item.case))
    digest = hashlib.sha256(fitted.weights.read_bytes())
    digest.update(f"{__version__} {MARGIN_MM} {training.scored}".encode())
    path, key = training.folder / "scores.json", digest.hexdigest()
    kept = read_json(path) if path.is_file() else {}
    if kept.get("key") != key:
        rows = {item.case.case_id: _score(fitted, item, device) for item in training.scored}
        kept = {"key": key, "volumes": rows}
        write_json(path, kept)
    for checkpoint in training.folder.glob("*.ckpt"):
        checkpoint.unlink()
    return fitted.trained_seconds, kept["volumes"]


# --- the run --------------------------------------------------------------------------------------


def ablate(
    name: str,
    recipe: Recipe | str | Path = "ablation",
    model: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    run: str = "ablations",
    device: str = "auto",
    at_once: int = 2,
    root: str | Path = "runs",
    say: Callable[[str], object] = print,
    cohort: int = COHORT,
) -> list[Path]:
    """Run one ablation, or all of them, write `ablation.json` of each and print its table.

    Args:
        name: of `ABLATIONS`, or "all".
        recipe: a recipe, the name of a built-in one, or a YAML file; variants change it.
        model: network to train; default the recipe's first.
        seeds: one training of each variant for each.
        run: name of the folder in `root` that all ablations share.
        device: "auto", "cpu" or "cuda".
        at_once: trainings beside each other on a CPU; a script that asks for more than one needs
            `if __name__ == "__main__":`.
        root: folder of all runs.
        say: called with a line per stage, and with the table.
        cohort: held-out phantoms that are scored.

    Returns:
        The folder of each ablation.

    Raises:
        SpineError: if there is no such ablation, the recipe leaves nothing to compare, or the
            folder holds trainings with another recipe.
    """
    if name != "all" and name not in ABLATIONS:
        raise SpineError(f"there is no ablation {name!r}: name {', '.join(ABLATIONS)} or all")
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    recipe = recipe.changed(models=(model or recipe.models[0],))
    # all variants first: a recipe that does not fit is refused before anything is trained
    names = list(ABLATIONS) if name == "all" else [name]
    variants = {key: ABLATIONS[key].variants(recipe, recipe.models[0]) for key in names}
    with FileLock(prepared_root() / "lock"):
        cases = gather_cases(recipe, say, cohort)
    device = choose_device(device)
    folder, seeds = Path(root) / run, tuple(dict.fromkeys(seeds))
    for key in names:
        say(f"ablation {key}: {ABLATIONS[key].line}")
        started = time.perf_counter()
        jobs = _trainings(key, variants[key], cases, recipe, seeds, folder, say)
        results = _run(key, variants[key], jobs, cases, recipe, device, at_once, folder, say)
        results["call_seconds"] = round(time.perf_counter() - started, 1)
        write_json(folder / key / "ablation.json", results)
        table = ablation_table(results)
        rows = [("", *table.columns), *map(tuple, table.itertuples())]
        say("\n".join([*aligned(rows), results["note"]]))
    return [folder / key for key in names]


Key = tuple[str, str, int]
"""Variant, fold, seed."""


def _trainings(
    name: str,
    variants: Sequence[Variant],
    cases: Cases,
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path,
    say: Callable[[str], object],
) -> dict[Key, Training]:
    """Return the trainings of an ablation; those of the recipe as it stands share a folder."""
    wanted = {plane for v in variants for plane in recipe.changed(**v.changes).planes}
    planes = tuple(plane for plane in PLANES if plane in wanted)
    everybody = [case for fold in cases.folds for case in fold.train]
    if variants[0].split:
        everybody += [case for fold in cases.folds for case in fold.scored]
        everybody += [*cases.cohort, *cases.split_phantoms]
    else:
        everybody += cases.phantoms
    with FileLock(prepared_root() / "lock"):
        whole, validation = (
            prepare(list(dict.fromkeys(part)), planes, recipe.spacing_mm, say, progress=False)
            for part in (everybody, cases.validation)
        )
    trainings = {}
    for variant in variants:
        changed = recipe.changed(**variant.changes)
        model = variant.model or recipe.models[0]
        is_base = not variant.split and changed == recipe and model == recipe.models[0]
        parent = folder / "recipe" if is_base else folder / name / variant.name
        for seed in seeds:
            for fold in cases.folds:
                if variant.split:
                    stores, scored = split_slices(whole, fold, cases)
                    store = stores[variant.split]
                else:
                    trained = [*fold.train, *(cases.phantoms if changed.phantoms else ())]
                    store = volumes_of(whole, trained, changed.planes)
                    scored = tuple(Scored(case, "patients") for case in fold.scored)
                    scored += tuple(Scored(case, "phantoms") for case in cases.cohort)
                trainings[variant.name, fold.name, seed] = Training(
                    model,
                    changed.changed(seed=seed),
                    store,
                    volumes_of(validation, cases.validation, changed.planes),
                    parent / fold.name / f"seed-{seed}",
                    scored,
                    leaks=variant.split == "slice",
                )
    return trainings


def _run(
    name: str,
    variants: Sequence[Variant],
    jobs: Mapping[Key, Training],
    cases: Cases,
    recipe: Recipe,
    device: str,
    at_once: int,
    folder: Path,
    say: Callable[[str], object],
) -> dict:
    """Train and score what is not finished; return what `ablation.json` holds."""
    waiting = [job for job in jobs.values() if not job.is_finished()]
    if waiting:
        say(f"{len(waiting)} trainings of {recipe.steps} steps; {len(jobs)} in all")
    if device == "cpu":
        train_side_by_side(list(jobs.values()), at_once, progress=False)
    runs: dict[str, list[dict]] = {variant.name: [] for variant in variants}
    seconds, checksums, scored = {}, {}, {}
    for (variant, fold, seed), job in jobs.items():
        is_new = not (job.folder / "scores.json").is_file()
        seconds[job.folder], rows = _finish(job, device)
        if is_new:
            means = pd.DataFrame(rows).T.groupby("group").dice.mean()
            texts = (f"{mean:.3f} on {group}" for group, mean in means.items())
            say(f"{job.folder.relative_to(folder).as_posix()}: Dice {', '.join(texts)}")
        row = {"fold": fold, "seed": seed, "train_seconds": round(seconds[job.folder], 1)}
        runs[variant].append(row | {"volumes": rows})
        scored |= {item.case.case_id: item for item in job.scored}
        checksums |= {f"scored/{case_id}": row["sha256"] for case_id, row in rows.items()}
        for volume in job.training.volumes:
            checksums[f"train/{volume.case_id}-{volume.plane}"] = volume.sha256
    entries = {v.name: _entry(v, runs[v.name], recipe) for v in variants}
    results = {
        "name": name,
        "line": ABLATIONS[name].line,
        "setting": ABLATIONS[name].setting,
        "reference": variants[0].name,
        "variants": entries,
        "comparisons": compare_variants(entries, variants[0].name),
        "recipe": recipe.to_dict(),
        "model": recipe.models[0],
        "folds": {fold.name: fold.label for fold in cases.folds},
        "note": f"{SPLIT_NOTE} The test part was not read." if variants[0].split else cases.note(),
        "margin_mm": MARGIN_MM,
        "trivial": {
            case_id: _trivial(item) for case_id, item in scored.items() if item.group == "patients"
        },
        "left_out": [],
        "checksums": dict(sorted(checksums.items())),
        "seeds": sorted({seed for _, _, seed in jobs}),
        "device": provenance.device_name(device),
        "at_once": at_once,
        "versions": provenance.versions(),
        "command": shlex.join(["python", "benchmarks/ablations.py", *sys.argv[1:]]),
        "created": time.strftime("%Y-%m-%d"),
        "train_seconds": round(sum(seconds.values()), 1),
    }
    return results | {"finding": ablation_finding(results)}


def _entry(variant: Variant, runs: list[dict], recipe: Recipe) -> dict:
    settings = recipe.changed(**variant.changes).to_dict()
    changes = {name: settings[name] for name in variant.changes}
    table = _score_table(runs)
    dice = {group: _by_case(table[table.group == group]).to_dict() for group in GROUPS}
    return {
        "label": variant.label,
        "changes": changes | ({"split": variant.split} if variant.split else {}),
        "model": variant.model or recipe.models[0],
        "caution": variant.caution,
        "unfair_on": variant.unfair_on,
        "dice": {group: scores for group, scores in dice.items() if scores},
        "runs": runs,
    }


# --- comparisons ----------------------------------------------------------------------------------


def _score_table(runs: Sequence[Mapping]) -> pd.DataFrame:
    """Return "seed", "case", "patient", "group" and "dice", a row for each run and case."""
    rows = [
        (run["seed"], case_id, row["patient_id"], row["group"], row["dice"])
        for run in runs
        for case_id, row in run["volumes"].items()
    ]
    table = pd.DataFrame(rows, columns=["seed", "case", "patient", "group", "dice"])
    return table.astype({"dice": float})


def _by_case(table: pd.DataFrame) -> pd.Series:
    return table.groupby("case", sort=False).dice.mean()


def compare_variants(entries: Mapping[str, Mapping], reference: str) -> list[dict]:
    """Compare every variant with the reference in every group, patient by patient.

    Args:
        entries: by variant, an entry of `ablation.json`.
        reference: name of the variant that the others are compared with.

    Returns:
        For each variant and group, of the difference in Dice: its mean ("estimate") with interval
        and "p_value", or the "reason" for none; "n" patients; "p_holm", corrected for the number of
        comparisons; "cases", the difference on each case; "by_seed", these seed by seed; "seeds",
        how their mean varies (None for a single seed); and "reading" in words. A comparison that is
        not "fair" has no p-value.
    """
    tables = {name: _score_table(entry["runs"]) for name, entry in entries.items()}
    rows = []
    for name in entries:
        for group in GROUPS:
            new, old = (t[t.group == group] for t in (tables[name], tables[reference]))
            if name == reference or new.empty:
                continue
            fair = entries[name]["unfair_on"] != group
            row = {"variant": name, "group": group, "fair": fair} | _compare(new, old)
            rows.append(row if fair else row | {"p_value": None})
    for row, p_holm in zip(rows, statistics.holm([row["p_value"] for row in rows])):
        row["p_holm"] = p_holm
        row["reading"] = reading(row)
    return rows


def _compare(new: pd.DataFrame, old: pd.DataFrame) -> dict:
    patients = new.drop_duplicates("case").set_index("case").patient
    by_patient = [_by_case(table).groupby(patients, sort=False).mean() for table in (new, old)]
    row = paired(*(scores.to_frame("dice") for scores in by_patient)).loc["dice"]
    by_seed = {
        str(seed): _by_case(table) - _by_case(old[old.seed == seed])
        for seed, table in new.groupby("seed")
    }
    means = [differences.mean() for differences in by_seed.values() if differences.notna().any()]
    return row.drop("p_holm").to_dict() | {
        "cases": (_by_case(new) - _by_case(old)).to_dict(),
        "by_seed": {seed: differences.to_dict() for seed, differences in by_seed.items()},
        "seeds": vars(statistics.spread(means)) if len(means) > 1 else None,
    }


def reading(row: Mapping[str, Any]) -> str:
    """Return in a few words what a row of `compare_variants` allows one to say, and no more."""
    if not row["fair"]:
        return "not comparable on these"
    if row["low"] is None:
        n = row["n"]
        patients = f"{n} patient{'' if n == 1 else 's'}"
        return f"no interval: {patients}, {statistics.MINIMUM_PATIENTS} are needed"
    if row["low"] <= 0 <= row["high"]:
        return "no effect found"
    if row["p_holm"] is None or row["p_holm"] >= 0.05:
        return "no effect found once corrected for the number of comparisons"
    side = "better" if row["estimate"] > 0 else "worse"
    seeds = row["seeds"]
    if seeds and seeds["low"] < 0 < seeds["high"]:
        return f"{side} on average, not with every seed"
    return side


# --- tables and words -----------------------------------------------------------------------------


def _range(low: float, high: float) -> str:
    return f"{low:+.3f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high:+.3f}"


def ablation_table(results: Mapping) -> pd.DataFrame:
    """Return the table of an ablation, a row for each variant, the reference first.

    Real patients have a column each as long as they are too few for an interval.
    """
    compared = {(row["variant"], row["group"]): row for row in results["comparisons"]}
    table = {}
    for name, entry in results["variants"].items():
        cells = {}
        for group, dice in entry["dice"].items():
            row = compared.get((name, group))
            if _is_few(results, group):
                for case_id, score in dice.items():
                    cells[f"Dice, {case_id} (difference)"] = _with_difference(score, row, case_id)
                continue
            cells[f"Dice, {len(dice)} {group}"] = f"{sum(dice.values()) / len(dice):.3f}"
            titles = ["difference [95 %]", "p, Holm", "by seed", f"reading, {group}"]
            values = ["reference", "", "", ""]
            if row is not None:
                seeds = row["seeds"] and _range(row["seeds"]["low"], row["seeds"]["high"])
                values = [
                    estimate_text(row, sign="+"),
                    number(row["p_holm"], 4),
                    seeds or number(None),
                ]
                values.append(row["reading"])
            cells |= dict(zip(titles, values))
        table[entry["label"]] = cells
    return pd.DataFrame.from_dict(table, orient="index")


def _is_few(results: Mapping, group: str) -> bool:
    return all(row["low"] is None for row in results["comparisons"] if row["group"] == group)


def _with_difference(score: float | None, row: Mapping | None, case_id: str) -> str:
    if row is None:
        return number(score)
    known = [seed[case_id] for seed in row["by_seed"].values() if seed[case_id] is not None]
    ends = f"; {_range(min(known), max(known))}" if len(known) > 1 else ""
    return f"{number(score)} ({number(row['cases'][case_id], 3, '+')}{ends})"


def ablation_finding(results: Mapping) -> str:
    """Return in one or two sentences what an ablation found, for a remark elsewhere."""
    labels = {
        name: entry["label"].removesuffix(" (the recipe)")
        for name, entry in results["variants"].items()
    }
    reference = labels.pop(results["reference"])
    texts: dict[str, list[str]] = {name: [] for name in labels}
    for row in results["comparisons"]:
        if row["low"] is None:
            cases = row["cases"].items()
            text = ", ".join(f"{number(dice, 3, '+')} on {case_id}" for case_id, dice in cases)
            texts[row["variant"]].append(text)
        elif row["fair"]:
            text = f"{estimate_text(row, 3, '+')} on {row['n']} {row['group']}, {row['reading']}"
            texts[row["variant"]].insert(0, text)
    found = "; ".join(f"{labels[name]}: {'; '.join(parts)}" for name, parts in texts.items())
    return f"Ablation in short runs, difference in Dice to '{reference}': {found}."


# --- the page ------------------------------------------------------------------------------------


def ablations_page(ablations: Mapping[str, Mapping]) -> str:
    """Return the Markdown page of the ablations, by name what `ablation.json` holds."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "duration": duration}
    ordered = {name: ablations[name] for name in ABLATIONS if name in ablations}
    return environment.get_template("ablations.md.jinja").render(
        ablations=ordered,
        tables={name: ablation_table(results) for name, results in ordered.items()},
        clearly=CLEARLY,
        first=next(iter(ordered.values())),
        missing=[name for name in ABLATIONS if name not in ablations],
    )


def keep(folders: Sequence[Path], file: Path = KEPT, document: Path = DOCUMENT) -> None:
    """Add `ablation.json` of several folders to the kept ones, and write their page."""
    kept = read_json(file)["ablations"] if file.is_file() else {}
    for folder in folders:
        results = read_json(folder / "ablation.json")
        kept[results["name"]] = results
    write_json(file, {"ablations": kept})
    with atomic_file(document) as stream:
        stream.write(ablations_page(kept).encode())


def main() -> None:
    """Read the arguments and measure."""
    lines = (f"{name}: {ablation.line}" for name, ablation in ABLATIONS.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog="; ".join(lines))
    parser.add_argument("name", choices=[*ABLATIONS, "all"])
    parser.add_argument("--recipe", default="ablation", help="as for spine reproduce")
    parser.add_argument("--model", help="instead of the recipe's first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--keep", action="store_true", help="keep the numbers in benchmarks/")
    options = parser.parse_args()
    arguments = (options.name, options.recipe, options.model, options.seeds)
    folders = ablate(*arguments, device=options.device)
    if options.keep:
        keep(folders)


if __name__ == "__main__":
    main()
