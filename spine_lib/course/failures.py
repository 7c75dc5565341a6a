"""Failures of the shipped models on unseen scans, each reviewed and named by a person."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage
from torch import nn

from spine_lib.course.patients import HELD_OUT, course_case
from spine_lib.course.provocations import provoke
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.phantom import TISSUES
from spine_lib.training.pretrained import load_pretrained, load_probability
from spine_lib.training.recipe import Recipe
from spine_lib.volumes.measure import ErrorPiece, error_pieces
from spine_lib.volumes.predict import predict_volume

PHANTOM_SEED = 6000


@dataclass(frozen=True)
class Failure:
    """One failure, and where to find it.

    Attributes:
        cause: what misled the model.
        scan: "dicom", "crop" or the name of a provocation.
        kind: "false positive" or "false negative".
        plane: in which it is seen best.
        model: which of the shipped ones.
        near: voxel (x, y, z) of a real patient; the nearest piece is taken, else the largest.
        tissue: only pieces that lie mostly on this tissue of a phantom.
        thinnest_mm: see `error_pieces`.
        seed: of the phantom.
    """

    cause: str
    scan: str
    kind: str
    plane: str = "axial"
    model: str = "unet_light"
    near: tuple[int, int, int] | None = None
    tissue: str = ""
    thinnest_mm: float = 3.0
    seed: int = PHANTOM_SEED

    @property
    def key(self) -> tuple[str, str, int]:
        """The scan and model that it was found on, as `segment_all` names them."""
        return self.scan, self.model, self.seed


FAILURES: tuple[Failure, ...] = (
    Failure("head of a rib", "dicom", "false positive", near=(240, 163, 9), thinnest_mm=6.0),
    Failure("between two arches", "dicom", "false positive", "sagittal", near=(264, 140, 9)),
    Failure("rim around a disc", "dicom", "false positive", near=(237, 185, 1)),
    Failure("end plate taken for disc", "crop", "false negative", "sagittal", near=(21, 45, 42)),
    Failure(
        "an arm beside the trunk",
        "dicom",
        "false positive",
        model="deeplabv3plus_light",
        near=(494, 178, 4),
    ),
    Failure("dark streaks of metal", "pedicle screws", "false negative"),
    Failure("noise of a low dose", "low dose", "false negative"),
    Failure("marrow as dark as fat", "osteoporosis", "false negative"),
    Failure("slices thicker than a disc", "thick slices", "false positive", "sagittal"),
    Failure("a loop of bowel", "pelvis", "false positive", tissue="bowel"),
    Failure(
        "a neck unlike those seen", "neck", "false negative", model="deeplabv3plus_light", seed=6002
    ),
    Failure("front and back swapped", "front and back swapped", "false negative"),
    Failure("intercept lost", "lost intercept", "false positive"),
)


@dataclass(frozen=True, eq=False)
class Segmented:
    """A scan with the probabilities that a model gave it."""

    data: CaseData
    probability: Volume

    @property
    def mask(self) -> Volume:
        """The prediction as it is, nothing cleaned up: probability above one half."""
        return self.probability.with_array(self.probability.array > 0.5)


@cache
def shipped_model(name: str) -> tuple[nn.Module, Recipe]:
    """Load a shipped model once."""
    return load_pretrained(name)


def segment(scan: str, model: str = "unet_light", seed: int = PHANTOM_SEED) -> Segmented:
    """Return a scan with what a shipped model predicts on it.

    The predictions on the two held-out patients are stored; all others are computed.

    Args:
        scan: "dicom", "crop" or the name of a provocation.
        model: name of a shipped model.
        seed: of the phantom.
    """
    if scan in HELD_OUT:
        data = course_case(scan)
        return Segmented(data, load_probability(model, scan, data.ct))
    data = provoke(scan, seed)
    network, recipe = shipped_model(model)
    return Segmented(data, predict_volume(network, data.ct, recipe, "cpu"))


def segment_all(
    failures: Iterable[Failure] = FAILURES,
) -> dict[tuple[str, str, int], Segmented]:
    """Segment every scan that the failures were found on, by `Failure.key`."""
    return {key: segment(*key) for key in dict.fromkeys(failure.key for failure in failures)}


def close_up(segmented: Segmented, margin_mm: float = 40.0) -> Segmented:
    """Crop a scan and its prediction to the labelled spine and a margin."""
    data = segmented.data
    (box,) = ndimage.find_objects((data.labels.array > 0).astype(np.uint8))
    pads = [int(np.ceil(margin_mm / size)) for size in data.ct.spacing_mm]
    box = tuple(slice(max(0, side.start - pad), side.stop + pad) for side, pad in zip(box, pads))
    shift = np.eye(4)
    shift[:3, 3] = [side.start for side in box]
    ct, labels, ignore, probability = (
        Volume(volume.array[box], volume.affine @ shift, path=volume.path)
        for volume in (data.ct, data.labels, data.ignore, segmented.probability)
    )
    return Segmented(CaseData(ct, labels, ignore), probability)


def find(failure: Failure, segmented: Segmented) -> ErrorPiece | None:
    """Return the piece of error that a failure is about; None where the model makes none such."""
    data = segmented.data
    pieces = error_pieces(
        segmented.mask, data.labels, data.ignore, thinnest_mm=failure.thinnest_mm, smallest_ml=0.02
    )
    pieces = [piece for piece in pieces if piece.kind == failure.kind]
    if failure.tissue and getattr(data, "tissues", None) is not None:
        pieces = [p for p in pieces if tissue_under(p, data.tissues) == failure.tissue]
    if not pieces or failure.near is None:
        return pieces[0] if pieces else None
    voxels = np.array([piece.voxel for piece in pieces])
    distances_mm = np.linalg.norm((voxels - failure.near) * data.ct.spacing_mm, axis=1)
    return pieces[int(distances_mm.argmin())]


def tissue_under(piece: ErrorPiece, tissues: Volume) -> str:
    """Return what most of a piece lies on, in a phantom."""
    names = {number: name for name, number in TISSUES.items()}
    most = int(np.bincount(tissues.array[piece.box][piece.inside]).argmax())
    return names.get(most, "air")
