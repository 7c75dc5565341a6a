"""Lesson 8: score trained networks on the test cases, each on its own grid."""

import functools
import hashlib
import itertools
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError, __version__
from spine_lib.annotations.schemes import to_regions
from spine_lib.ct.files import array_sha256, atomic_file, read_json
from spine_lib.datasets.case import Case, CaseData, ExcludedScan, case_identity
from spine_lib.metrics import calibration, overlap
from spine_lib.metrics.overlap import aggregate, evaluate_volume
from spine_lib.metrics.regions import mean_named, mean_regions, score_named, score_regions
from spine_lib.reproduce.report_figures import Overlay, draw_overlay, pick_slices
from spine_lib.slices.cut import IGNORE
from spine_lib.slices.store import SliceStore
from spine_lib.training.train import Fitted
from spine_lib.volumes.masks import largest_component
from spine_lib.volumes.predict import predict_mask

BONE_HU = tuple(range(100, 501, 50))
"""Thresholds of which the baseline takes the best on training volumes."""

BASELINE_VOLUMES = 10
"""So many training volumes at most choose the threshold."""


@dataclass(frozen=True)
class Evaluation:
    """Scores on the test cases.

    Attributes:
        tests: by model and seed, what `summarise` returns.
        baseline: "name", "threshold_hu", the cases it was "chosen_on" and "test" (of
            `metrics.aggregate`) of a bone threshold.
        overlays: by model, the drawn slices of its first seed.
        excluded: cases that cannot be read.
    """

    tests: dict[str, dict[int, dict]]
    baseline: dict
    overlays: dict[str, list[Overlay]]
    excluded: list[ExcludedScan]


def evaluate_all(
    fitted: Mapping[str, Mapping[int, Fitted]],
    cases: Sequence[Case],
    device: str,
    say: Callable[[str], object],
    keep: Path | None = None,
    threshold_hu: float = 250,
    chosen_on: Sequence[str] = (),
) -> Evaluation:
    """Score every network, and a bone threshold, on every test case, on the case's own grid.

    Args:
        fitted: networks by model and seed.
        cases: test cases.
        device: "cpu" or "cuda".
        say: called with a line for each prediction.
        keep: folder of scores that are kept, where a stopped run would lose much.
        threshold_hu, chosen_on: of the baseline, as `best_threshold` gives them.

    Raises:
        SpineError: if no case can be read, or a network was trained or validated on one, by its id
            or by its scan under another name.
    """
    jobs = {(model, seed): run for model, runs in fitted.items() for seed, run in runs.items()}
    scorers = {job: functools.partial(_score_network, run, device) for job, run in jobs.items()}
    folders = {
        job: keep and keep / f"{job[0]}-{job[1]}-{_digest(run.weights)}"
        for job, run in jobs.items()
    }
    threshold = ("threshold", threshold_hu)
    keep_largest = next(iter(jobs.values())).recipe.largest_component
    scorers[threshold] = functools.partial(_score_threshold, threshold_hu, keep_largest)
    folders[threshold] = keep and keep / f"threshold-{threshold_hu:g}"
    rows: dict[tuple, dict[str, dict]] = {job: {} for job in scorers}
    masks: dict[tuple, dict[str, bytes]] = {job: {} for job in scorers}
    read, excluded = {}, []
    for case in cases:
        require_unseen(jobs.values(), case.case_id)
        kept = {job: _read_scores(folder, case) for job, folder in folders.items()}
        if None in kept.values():
            try:
                data = case.load()
            except SpineError as error:
                excluded.append(ExcludedScan(case.case_id, str(error)))
                say(f"left out {excluded[-1]}")
                continue
            truth = Truth(data)
            require_unseen(jobs.values(), case.case_id, truth.image_sha256)
        for job, row in kept.items():
            if row is None:
                if job in jobs:
                    say(f"testing {job[0]}, seed {job[1]}, on {case.case_id}")
                mask, row = scorers[job](data, truth)
                # hundreds of them would fill the memory
                masks[job][case.case_id] = zlib.compress(np.packbits(mask), level=1)
                _write_scores(folders[job], case, row)
            rows[job][case.case_id] = row
        read[case.case_id] = case
    if not read:
        raise SpineError(f"no test case can be read; the first: {excluded[0]}")
    tests = {m: {s: summarise(rows[m, s]) for s in runs} for m, runs in fitted.items()}
    baseline = {
        "name": f"Bone threshold, {threshold_hu:g} HU (no network)",
        "threshold_hu": threshold_hu,
        "chosen_on": list(chosen_on),
        "test": aggregate(rows[threshold]),
    }
    for test in [baseline["test"], *(test for runs in tests.values() for test in runs.values())]:
        for case_id, volume in test["volumes"].items():
            volume["patient_id"] = read[case_id].patient_id
    first = {model: (model, next(iter(runs))) for model, runs in fitted.items()}
    overlays = {
        model: _draw_overlays(jobs[job], device, read, rows[job], masks[job])
        for model, job in first.items()
    }
    return Evaluation(tests, baseline, overlays, excluded)


def require_unseen(runs: Iterable[Fitted], case_id: str, image_sha256: str = "") -> None:
    """Raise an error if a network was trained or validated on a case, or on a copy of its scan."""
    for run, part in itertools.product(runs, ("training", "validation")):
        for seen in run.data.case_ids(part) if run.data else ():
            is_copy = image_sha256 and run.data.images.get(seen) == image_sha256
            if seen == case_id or is_copy:
                name = seen if seen == case_id else f"{seen}, the same scan"
                raise SpineError(
                    f"{case_id} cannot test {run.weights}, which has seen it in {part} ({name}): "
                    "test on other patients"
                )


def summarise(rows: Mapping[str, dict]) -> dict[str, dict]:
    """Return the averages of what `evaluate_case` measured, by case id, with one network.

    Returns:
        What `metrics.aggregate` gives, with each volume's calibration error "ece", and "regions",
        "calibration" and, where the network names the regions, "named" over all volumes.
    """
    test = aggregate(rows)
    for volume in test["volumes"].values():
        volume["ece"] = calibration.expected_error(volume.pop("calibration"))
    test["regions"] = mean_regions(rows.values())
    bins = calibration.add_up(row["calibration"] for row in rows.values())
    test["calibration"] = calibration.summarise(bins)
    if all("named" in row for row in rows.values()):
        test["named"] = mean_named(rows.values())
    return test


class Truth:
    """The reference of a case: boolean `mask` and `ignore`, `regions` by id, [x, y, z].

    `sha256` is that of CT, labels and ignored voxels as they are scored, `image_sha256` of the CT.
    """

    def __init__(self, data: CaseData) -> None:
        self.spacing_mm = data.ct.spacing_mm
        self.mask, self.ignore = data.labels.array > 0, data.ignore.array
        self.regions = np.where(self.ignore, 0, to_regions(data.labels.array))
        digest = hashlib.sha256()
        for volume in (data.ct, data.labels, data.ignore):
            digest.update(f"{volume.array.dtype.str}{volume.shape}".encode())
            digest.update(np.ascontiguousarray(volume.array))
        self.sha256, self.image_sha256 = digest.hexdigest(), array_sha256(data.ct.array)

    @functools.cached_property
    def near(self) -> np.ndarray:
        """Boolean [x, y, z]: the voxels whose calibration is measured."""
        return calibration.near_spine(self.mask & ~self.ignore, self.spacing_mm, self.ignore)


def evaluate_case(
    probability: np.ndarray, mask: np.ndarray, truth: Truth, named: np.ndarray | None = None
) -> dict:
    """Measure one prediction: overlap, surfaces, "regions", "calibration", "sha256" of the case.

    All arrays are [x, y, z]: the probability of spine, the boolean mask that was made of it and,
    where the network names regions, their ids in the mask, scored as "named".
    """
    row = evaluate_volume(mask, truth.mask, truth.spacing_mm, truth.ignore)
    row["regions"] = score_regions(mask, truth.regions, truth.spacing_mm, truth.ignore)
    row["calibration"] = calibration.reliability(probability, truth.mask, truth.near)
    row |= {"sha256": truth.sha256, "image_sha256": truth.image_sha256}
    if named is not None:
        row["named"] = score_named(named, truth.regions, truth.ignore)
    return row


def mean_over_seeds(tests: Sequence[dict]) -> dict:
    """Average what `summarise` gave for several seeds, on the same cases, number by number.

    A score that is undefined with one seed is averaged over the others, a text is the first.
    """
    if len(tests) == 1:
        return tests[0]
    mean = {}
    for key, first in tests[0].items():
        values = [test[key] for test in tests]
        if isinstance(first, dict):
            mean[key] = mean_over_seeds(values)
        elif isinstance(first, int | float) and not isinstance(first, bool):
            defined = [value for value in values if not np.isnan(value)]
            mean[key] = float(np.mean(defined)) if defined else float("nan")
        else:
            mean[key] = first
    return mean


# --- one prediction -------------------------------------------------------------------------------


def _score_network(
    run: Fitted, device: str, data: CaseData, truth: Truth
) -> tuple[np.ndarray, dict]:
    started = time.perf_counter()
    probability, named = predict_mask(run.network, data.ct, run.recipe, device)
    seconds = time.perf_counter() - started
    mask = named.array > 0
    named = None if run.recipe.classes == 1 else named.array
    row = evaluate_case(probability.array, mask, truth, named)
    return mask, row | {"predict_seconds": round(seconds, 2)}


def _score_threshold(
    threshold_hu: float, keep_largest: bool, data: CaseData, truth: Truth
) -> tuple[np.ndarray, dict]:
    mask = bone_mask(data.ct.array, threshold_hu, keep_largest)
    row = evaluate_volume(mask, truth.mask, truth.spacing_mm, truth.ignore)
    return mask, row | {"sha256": truth.sha256, "image_sha256": truth.image_sha256}


def bone_mask(hu: np.ndarray, threshold_hu: float, keep_largest: bool) -> np.ndarray:
    """Return what lies above a threshold, cleaned up as a network's mask is."""
    mask = hu > threshold_hu
    return largest_component(mask) if keep_largest else mask


def best_threshold(store: SliceStore, keep_largest: bool) -> tuple[int, list[str]]:
    """Return the bone threshold of highest mean Dice on training volumes, and these cases.

    Phantoms are used only where the store holds nothing else.
    """
    plane = store.volumes[0].plane
    numbers = [n for n, volume in enumerate(store.volumes) if volume.plane == plane]
    real = [number for number in numbers if store.volumes[number].source != "phantom"]
    numbers = (real or numbers)[:BASELINE_VOLUMES]
    dice = np.zeros((len(numbers), len(BONE_HU)))
    for row, number in enumerate(numbers):
        hu, labels = (store.read(number)[name] for name in ("hu", "label"))
        for column, threshold_hu in enumerate(BONE_HU):
            mask = bone_mask(hu, threshold_hu, keep_largest)
            dice[row, column] = overlap.dice(overlap.confusion(mask, labels > 0, labels == IGNORE))
    best = BONE_HU[int(np.nan_to_num(dice).mean(axis=0).argmax())]
    return best, [store.volumes[number].case_id for number in numbers]


# --- scores that are kept -------------------------------------------------------------------------


@functools.cache
def _digest(weights: Path) -> str:
    with open(weights, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(__version__.encode())
    return digest.hexdigest()[:12]


def _read_scores(folder: Path | None, case: Case) -> dict | None:
    """Return scores that were kept, unless the files of the case have changed."""
    try:
        row = read_json(folder / f"{case.case_id}.json") if folder else {}
        # what an older version kept was not compared with what the network has seen
        kept = "image_sha256" in row and row["files"] == case_identity(case)
    except (SpineError, TypeError, KeyError):
        return None
    return row if kept else None


def _write_scores(folder: Path | None, case: Case, row: dict) -> None:
    if folder:
        text = json.dumps({**row, "files": case_identity(case)}, default=int)  # NumPy's integers
        with atomic_file(folder / f"{case.case_id}.json") as stream:
            stream.write(text.encode())


# --- overlays -------------------------------------------------------------------------------------


def _draw_overlays(
    run: Fitted,
    device: str,
    cases: Mapping[str, Case],
    rows: Mapping[str, dict],
    masks: Mapping[str, bytes],
) -> list[Overlay]:
    """Draw the best, median and worst slice that shows spine; predict where no mask is kept."""
    dice = {}
    for case_id, row in rows.items():
        for index, (tp, fp, fn, _) in enumerate(row["slices"]):
            dice[case_id, index] = 2 * tp / (2 * tp + fp + fn) if tp + fn else np.nan
    overlays = []
    for kind, (case_id, index) in pick_slices(dice).items():
        data = cases[case_id].load()
        if case_id in masks:
            bits = np.frombuffer(zlib.decompress(masks[case_id]), np.uint8)
            mask = np.unpackbits(bits, count=data.ct.array.size).reshape(data.ct.shape)
            mask = data.ct.with_array(mask)
        else:
            mask = predict_mask(run.network, data.ct, run.recipe, device)[1]
        where = (index, case_id, kind, dice[case_id, index])
        overlays.append(draw_overlay(data.ct, data.labels, mask, *where, ignore=data.ignore))
    return overlays
