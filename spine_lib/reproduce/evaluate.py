"""Lesson 8: score trained networks on the test cases, each on its own grid."""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from spine_lib import SpineError, __version__
from spine_lib.annotations.schemes import to_regions
from spine_lib.ct.files import atomic_file
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData, ExcludedScan, case_identity
from spine_lib.metrics import calibration
from spine_lib.metrics.overlap import aggregate, evaluate_volume
from spine_lib.metrics.regions import mean_named, mean_regions, score_named, score_regions
from spine_lib.reproduce.report import Overlay, draw_overlay, pick_slices
from spine_lib.reproduce.sources import CaseLike
from spine_lib.training.train import Fitted
from spine_lib.volumes.masks import to_mask, to_region_mask
from spine_lib.volumes.predict import predict_regions, predict_volume

Say = Callable[[str], object]


def evaluate_all(
    fitted: dict[str, dict[int, Fitted]],
    cases: Sequence[CaseLike],
    device: str,
    say: Say,
    keep: Path | None = None,
) -> tuple[dict[str, dict[int, dict]], dict[str, list[Overlay]], list[ExcludedScan]]:
    """Score every network on every test case, on the case's own grid.

    Args:
        fitted: networks by model and seed.
        cases: test cases.
        device: "cpu" or "cuda".
        say: called with a line for each prediction.
        keep: folder that remembers scores, where there are so many that a stop would hurt.

    Returns:
        By model and seed what `summarise` gives; by model the overlays of its first seed; and the
        cases that cannot be read.

    Raises:
        SpineError: if no case can be read.
    """
    desk = _Desk(fitted, device, say, keep)
    read, left_out = [], []
    for case in cases:
        try:
            desk.score(case)
            read.append(case)
        except _CannotRead as error:
            left_out.append(ExcludedScan(case.case_id, str(error.__cause__)))
            say(f"left out {left_out[-1]}")
    if not read:
        raise SpineError(f"no test case can be read; the first: {left_out[0]}")
    tests = {m: {s: summarise(rows) for s, rows in runs.items()} for m, runs in desk.scores.items()}
    for runs in tests.values():
        for test in runs.values():
            for case in read:
                test["volumes"][case.case_id]["patient_id"] = case.patient_id
    return tests, desk.overlays(read), left_out


def summarise(rows: Mapping[str, dict]) -> dict[str, dict]:
    """Put together what was measured on each case with one network.

    Args:
        rows: by case id, what `evaluate_case` returned.

    Returns:
        What `metrics.aggregate` gives, each volume with its "regions" and its calibration error
        "ece"; and "regions" (`regions.mean_regions`) and "calibration" over all volumes
        (`calibration.summarise`). Where the network names the regions, each volume has "named"
        (`regions.score_named`), and all together have it (`regions.mean_named`).
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
    """Hold what is compared with the predictions of a case: made once for all networks.

    Args:
        data: the case.

    Attributes:
        mask: boolean [x, y, z], where spine is labelled.
        ignore: boolean [x, y, z], where nothing is scored.
        regions: region ids [x, y, z], 0 where ignored.
        sha256: of CT, labels and ignored voxels as they are scored, whatever file they came in.
    """

    def __init__(self, data: CaseData) -> None:
        self.spacing_mm = data.ct.spacing_mm
        self.mask, self.ignore = data.labels.array > 0, data.ignore.array
        self.regions = np.where(self.ignore, 0, to_regions(data.labels.array))
        digest = hashlib.sha256()
        for volume in (data.ct, data.labels, data.ignore):
            digest.update(f"{volume.array.dtype.str}{volume.shape}".encode())
            digest.update(np.ascontiguousarray(volume.array))
        self.sha256 = digest.hexdigest()

    @functools.cached_property
    def near(self) -> np.ndarray:
        """Boolean [x, y, z]: the voxels whose calibration is looked at."""
        return calibration.near_truth(self.mask & ~self.ignore, self.spacing_mm, self.ignore)


def evaluate_case(
    probability: np.ndarray, mask: np.ndarray, truth: Truth, named: np.ndarray | None = None
) -> dict:
    """Measure one prediction: overlap, surfaces, regions and calibration.

    Args:
        probability: of spine, [x, y, z].
        mask: boolean, what was made of it.
        truth: of the case.
        named: region ids that the prediction gives to its mask, 0 elsewhere; None if it does not.

    Returns:
        What `metrics.evaluate_volume` gives, "regions" (`regions.score_regions`),
        "calibration" (`calibration.reliability`), the "sha256" of what was scored, and "named"
        (`regions.score_named`) if regions were named.
    """
    row = evaluate_volume(mask, truth.mask, truth.spacing_mm, truth.ignore)
    row["regions"] = score_regions(mask, truth.regions, truth.spacing_mm, truth.ignore)
    row["calibration"] = calibration.reliability(probability, truth.mask, truth.near)
    row["sha256"] = truth.sha256
    if named is not None:
        row["named"] = score_named(named, truth.regions, truth.ignore)
    return row


def mean_over_seeds(tests: Sequence[dict]) -> dict:
    """Average what `metrics.aggregate` gave for several seeds, number by number.

    Args:
        tests: one for each seed, all on the same cases.

    Returns:
        A dictionary of the same shape; a score that is undefined with one seed is averaged over the
        others, a text is that of the first.
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


class _CannotRead(Exception):
    """Part a broken case from any other error."""


class _Desk:
    """Predict, score and remember; a mask is kept packed, as hundreds of them would fill memory."""

    def __init__(self, fitted: dict, device: str, say: Say, keep: Path | None) -> None:
        self._fitted, self._device, self._say = fitted, device, say
        self._keep = keep
        self._packed: dict[tuple[str, str], bytes] = {}
        self.scores: dict[str, dict[int, dict]] = {m: {s: {} for s in r} for m, r in fitted.items()}

    def score(self, case: CaseLike) -> None:
        """Score one case with every network, or recall its scores."""
        jobs = [(m, s, run) for m, runs in self._fitted.items() for s, run in runs.items()]
        known = {(m, s): self._recall(m, s, run, case) for m, s, run in jobs}
        if not all(known.values()):
            try:
                data = case.load()
            except SpineError as error:
                raise _CannotRead from error
            truth = Truth(data)
        for model, seed, run in jobs:
            row = known[model, seed]
            if row is None:
                self._say(f"testing {model}, seed {seed}, on {case.case_id}")
                mask, row = self._measure(model, run, data, truth)
                if run is self._first(model):
                    self._packed[model, case.case_id] = _pack(mask)
                self._remember(model, seed, run, case, row)
            self.scores[model][seed][case.case_id] = row

    def overlays(self, cases: Sequence[CaseLike]) -> dict[str, list[Overlay]]:
        """Draw slices of each model's first seed, predicting again where a mask was not kept."""
        by_id = {case.case_id: case for case in cases}
        load = functools.cache(lambda case_id: by_id[case_id].load())

        def mask_of(model: str, case_id: str) -> Volume:
            data = load(case_id)
            if (model, case_id) in self._packed:
                packed = self._packed[model, case_id]
                return data.ct.with_array(_unpack(packed, data.ct.shape))
            first = self._first(model)
            return to_mask(self._predict(first, data), first.recipe)

        return {
            model: draw_overlays(load, next(iter(runs.values())), functools.partial(mask_of, model))
            for model, runs in self.scores.items()
        }

    def _first(self, model: str) -> Fitted:
        return next(iter(self._fitted[model].values()))

    def _predict(self, run: Fitted, data: CaseData) -> Volume:
        return predict_volume(run.network, data.ct, run.recipe, self._device)

    def _measure(
        self, model: str, run: Fitted, data: CaseData, truth: Truth
    ) -> tuple[np.ndarray, dict]:
        """Return a network's mask of a case, and its scores."""
        if run.recipe.classes == 1:
            probability = self._predict(run, data)
            mask = to_mask(probability, run.recipe).array > 0
            return mask, evaluate_case(probability.array, mask, truth)
        found = predict_regions(run.network, data.ct, run.recipe, self._device)
        named = to_region_mask(*found, run.recipe).array
        return named > 0, evaluate_case(found[0].array, named > 0, truth, named)

    def _place(self, model: str, seed: int, run: Fitted, case: CaseLike) -> Path | None:
        if self._keep is None:
            return None
        return self._keep / f"{model}-{seed}-{_digest(run.weights)}" / f"{case.case_id}.json"

    def _recall(self, model: str, seed: int, run: Fitted, case: CaseLike) -> dict | None:
        path = self._place(model, seed, run, case)
        try:
            row = json.loads(path.read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):
            return None
        # what an older version kept lacks both
        return row if "sha256" in row and row.get("files") == case_identity(case) else None

    def _remember(self, model: str, seed: int, run: Fitted, case: CaseLike, row: dict) -> None:
        if path := self._place(model, seed, run, case):
            with atomic_file(path) as stream:
                kept = {**row, "files": case_identity(case)}
                stream.write(json.dumps(kept, default=int).encode())  # NumPy's whole numbers


@functools.cache
def _digest(weights: Path) -> str:
    with open(weights, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(__version__.encode())
    return digest.hexdigest()[:12]


def _pack(mask: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), level=1)


def _unpack(packed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)


def draw_overlays(
    load: Callable[[str], CaseData], scores: dict, mask_of: Callable[[str], Volume]
) -> list[Overlay]:
    """Draw the best, the median and the worst slice that shows spine.

    Args:
        load, mask_of: give a case's data and its predicted mask, by the case's id.
        scores: rows of `evaluate_volume` by case id.
    """
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
                mask_of(case_id),
                index,
                case_id,
                kind,
                dice[case_id, index],
                ignore=data.ignore,
            )
        )
    return drawn
