"""Score a network of an ablation on the patients left out, once, and remember it.

Scans are scored in a box around their spine, on their own grid: what a network takes for spine
far from it is not counted, and scoring takes seconds instead of minutes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from spine_lib import SpineError, __version__
from spine_lib.ct.files import atomic_file
from spine_lib.ct.geometry import to_slices
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData
from spine_lib.metrics import overlap as metrics
from spine_lib.reproduce.ablations.folds import Scored
from spine_lib.reproduce.evaluate import Truth
from spine_lib.training.train import Fitted, Job
from spine_lib.volumes.masks import to_mask
from spine_lib.volumes.predict import predict_volume

MARGIN_MM = 40.0
"""Of the box around the spine."""

BONE_HU = (100, 150, 200, 250, 300)
"""Thresholds that a network has to beat."""

SCORES = ("dice", "precision", "recall")


@dataclass(frozen=True)
class Training(Job):
    """Name one training of an ablation and what it is scored on.

    Attributes:
        scored: cases.
        device: "cpu" or "cuda".
    """

    scored: tuple[Scored, ...] = ()
    device: str = "cpu"


def around_spine(data: CaseData, margin_mm: float = MARGIN_MM) -> CaseData:
    """Cut a case to a box around its labelled spine; one without any stays whole."""
    found = ndimage.find_objects((data.labels.array > 0).astype(np.uint8))
    if not found:
        return data
    (box,) = found
    pad = [int(np.ceil(margin_mm / size)) for size in data.ct.spacing_mm]
    box = tuple(slice(max(0, b.start - p), b.stop + p) for b, p in zip(box, pad, strict=True))
    affine = data.ct.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [one.start for one in box]
    cut = [np.ascontiguousarray(v.array[box]) for v in (data.ct, data.labels, data.ignore)]
    return CaseData(*(Volume(array, affine, path=data.ct.path) for array in cut))


@lru_cache(maxsize=32)
def load_scored(scored: Scored) -> CaseData:
    """Load a case as it is scored: in its box, slices that are not asked for ignored."""
    data = scored.case.load()
    if scored.slices is not None:
        ignore = np.ones(data.ct.shape, bool)
        to_slices(ignore, scored.plane)[list(scored.slices)] = False
        data = CaseData(data.ct, data.labels, data.ct.with_array(ignore | data.ignore.array))
    return around_spine(data)


def score(fitted: Fitted, scored: Scored, device: str = "cpu") -> dict:
    """Score a network on one case: Dice, precision, recall, and the "sha256" of what was scored."""
    data = load_scored(scored)
    truth = Truth(data)
    probability = predict_volume(fitted.network, data.ct, fitted.recipe, device)
    mask = to_mask(probability, fitted.recipe).array > 0
    found = metrics.scores(metrics.confusion(mask, truth.mask, truth.ignore))
    return {name: found[name] for name in SCORES} | {
        "patient_id": scored.case.patient_id,
        "group": scored.group,
        "sha256": truth.sha256,
    }


def trivial(scored: Scored) -> dict[str, float]:
    """Return the Dice that needs no network: of the whole box, and of the best threshold."""
    data = load_scored(scored)
    truth, ignore, hu = data.labels.array > 0, data.ignore.array, data.ct.array
    whole = metrics.dice(metrics.confusion(np.ones_like(truth), truth, ignore))
    best = max(metrics.dice(metrics.confusion(hu > limit, truth, ignore)) for limit in BONE_HU)
    return {"whole box": whole, "best threshold": best}


def score_training(training: Training, fitted: Fitted) -> dict[str, dict]:
    """Score a network on all its cases, or recall what it scored.

    Checkpoints are deleted then: those of a whole table would fill the disk, and a training that
    is finished never goes on.

    Args:
        training: says on what.
        fitted: its network.

    Returns:
        By case id what `score` gives; a scan that cannot be read is left out.

    Raises:
        SpineError: if none of the scans can be read.
    """
    path, key = training.folder / "scores.json", _key(training, fitted)
    rows = recall(path, key)
    if rows is None:
        readable = [one for one in training.scored if _why_not(one) is None]
        if not readable:
            raise SpineError(f"no scan can be scored; the first: {_why_not(training.scored[0])}")
        rows = {one.case.case_id: score(fitted, one, training.device) for one in readable}
        with atomic_file(path) as stream:
            stream.write(json.dumps({"key": key, "volumes": rows}, indent=1).encode())
    for checkpoint in training.folder.glob("*.ckpt"):
        checkpoint.unlink()
    return rows


def _why_not(scored: Scored) -> SpineError | None:
    try:
        load_scored(scored)
    except SpineError as error:
        return error
    return None


def recall(path: Path, key: str) -> dict[str, dict] | None:
    """Return remembered scores if they are of these weights and cases."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept.get("volumes") if kept.get("key") == key else None


def _key(training: Training, fitted: Fitted) -> str:
    """Digest what scores depend on: weights, cases, slices, and the code."""
    digest = hashlib.sha256(fitted.weights.read_bytes())
    digest.update(f"{__version__} {MARGIN_MM} {training.scored}".encode())
    return digest.hexdigest()
