"""Where the shipped models fail: scans that they never saw, and the errors that have a name.

Every entry of `FAILURES` was looked at by a person, who then named it; the program finds the place
again and measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from scipy import ndimage
from torch import nn

from spine_lib.course.lesson_data import course_case
from spine_lib.course.stress import PROVOCATIONS, provoke
from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.phantom import TISSUES
from spine_lib.explore import figures, render
from spine_lib.training.pretrained import load_pretrained, load_probability
from spine_lib.training.recipe import Recipe
from spine_lib.volumes.masks import predict_volume
from spine_lib.volumes.measure import ErrorPiece, error_pieces

PHANTOM_SEED = 6000
LEFT_OUT = ("dicom", "crop")


@dataclass(frozen=True)
class Failure:
    """Name one failure and say where to find it.

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
    """Hold a scan with the probabilities that a model gave it."""

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


@cache
def _left_out(scan: str) -> tuple[CaseData, str]:
    return course_case(scan)


def segment(scan: str, model: str = "unet_light", seed: int = PHANTOM_SEED) -> Segmented:
    """Return a scan with what a shipped model says of it.

    The two left-out patients have stored predictions; everything else is predicted here.

    Args:
        scan: "dicom", "crop" or the name of a provocation.
        model: name of a shipped model.
        seed: of the phantom, where it is one.
    """
    if scan in LEFT_OUT:
        data, note = _left_out(scan)
        if not note:
            return Segmented(data, load_probability(model, scan, data.ct))
    else:
        (chosen,) = (one for one in PROVOCATIONS if one.name == scan)
        data = provoke(chosen, seed)
    network, recipe = shipped_model(model)
    return Segmented(data, predict_volume(network, data.ct, recipe, "cpu"))


def segment_all(
    failures: Iterable[Failure] = FAILURES,
) -> dict[tuple[str, str, int], Segmented]:
    """Segment every scan that the failures were found on, by `Failure.key`."""
    return {key: segment(*key) for key in dict.fromkeys(one.key for one in failures)}


def close_up(segmented: Segmented, margin_mm: float = 40.0) -> Segmented:
    """Cut a scan and its prediction down to a box around the labelled spine."""
    data = segmented.data
    (box,) = ndimage.find_objects((data.labels.array > 0).astype(np.uint8))
    pads = [int(np.ceil(margin_mm / size)) for size in data.ct.spacing_mm]
    box = tuple(slice(max(0, side.start - pad), side.stop + pad) for side, pad in zip(box, pads))
    shift = np.eye(4)
    shift[:3, 3] = [side.start for side in box]
    ct, labels, ignore, probability = (
        Volume(one.array[box], one.affine @ shift, path=one.path)
        for one in (data.ct, data.labels, data.ignore, segmented.probability)
    )
    return Segmented(CaseData(ct, labels, ignore), probability)


def find(failure: Failure, segmented: Segmented) -> ErrorPiece | None:
    """Find the piece of error that a failure is about; None where the model makes none such."""
    data = segmented.data
    pieces = error_pieces(
        segmented.mask, data.labels, data.ignore, thinnest_mm=failure.thinnest_mm, smallest_ml=0.02
    )
    pieces = [one for one in pieces if one.kind == failure.kind]
    if failure.tissue and getattr(data, "tissues", None) is not None:
        pieces = [one for one in pieces if tissue_under(one, data.tissues) == failure.tissue]
    if not pieces or failure.near is None:
        return pieces[0] if pieces else None
    spacing = data.ct.spacing_mm
    return min(pieces, key=lambda one: _distance_mm(one.voxel, failure.near, spacing))


def tissue_under(piece: ErrorPiece, tissues: Volume) -> str:
    """Return what most of a piece lies on, in a phantom."""
    names = {number: name for name, number in TISSUES.items()}
    most = int(np.bincount(tissues.array[piece.box][piece.inside]).argmax())
    return names.get(most, "air")


def _distance_mm(a: Sequence[int], b: Sequence[int], spacing_mm: Sequence[float]) -> float:
    return float(np.linalg.norm((np.array(a) - b) * spacing_mm))


def draw_failure(
    axes: Axes, failure: Failure, segmented: Segmented, piece: ErrorPiece, half_mm: float = 36.0
) -> None:
    """Draw the slice through a piece of error, cut to its surroundings, with errors marked.

    Args:
        axes: where to draw.
        failure: gives plane and title.
        segmented: the scan and its prediction.
        piece: what `find` returned.
        half_mm: half the side of the part that is shown.
    """
    data, plane = segmented.data, failure.plane
    cut, down, across = planes.plane_axes(plane)
    pixel_mm = render.pixel_size_mm(data.ct, plane)
    style = render.Style("error", opacity=0.3)
    rgb = render.render_slice(
        data.ct, piece.voxel[cut], plane, WINDOWS["bone"], data.labels, segmented.mask, style,
        data.ignore,
    )  # fmt: skip
    part = []
    for axis, size in zip((down, across), rgb.shape[:2]):
        place = (data.ct.shape[axis] - 0.5 - piece.voxel[axis]) / data.ct.shape[axis] * size
        half = min(half_mm / pixel_mm, size / 2)
        start = int(np.clip(place - half, 0, size - 2 * half))
        part.append(slice(start, start + int(2 * half)))
    figures.show_slice(axes, rgb[tuple(part)], plane, pixel_mm)
    axes.set_title(failure.cause, fontsize=9)
