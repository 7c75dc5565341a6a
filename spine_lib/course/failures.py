"""Failures of the shipped models on unseen scans, each reviewed and named by a person."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spine_lib.course.patients import HELD_OUT, course_case
from spine_lib.course.provocations import provoke
from spine_lib.ct import geometry
from spine_lib.ct.volume import WINDOWS, Volume
from spine_lib.datasets.case import CaseData
from spine_lib.datasets.phantom import TISSUES
from spine_lib.explore import figures, render
from spine_lib.training.pretrained import load_pretrained, load_probability
from spine_lib.volumes.measure import ErrorPiece, error_pieces
from spine_lib.volumes.predict import predict_volume

PHANTOM_SEED = 6000
_load_once = cache(load_pretrained)


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


def segment(scan: str, model: str = "unet_light", seed: int = PHANTOM_SEED) -> Segmented:
    """Return a scan with what a shipped model predicts on it.

    The predictions on the two held-out patients are stored; all others are computed.

    `scan` is "dicom", "crop" or the name of a provocation, `seed` that of the phantom.
    """
    if scan in HELD_OUT:
        data = course_case(scan)
        return Segmented(data, load_probability(model, scan, data.ct))
    data = provoke(scan, seed)
    network, recipe = _load_once(model)
    return Segmented(data, predict_volume(network, data.ct, recipe, "cpu"))


def segment_all(
    failures: Iterable[Failure] = FAILURES,
) -> dict[tuple[str, str, int], Segmented]:
    """Segment every scan that the failures were found on, by `Failure.key`."""
    return {key: segment(*key) for key in dict.fromkeys(failure.key for failure in failures)}


def find(failure: Failure, segmented: Segmented) -> ErrorPiece | None:
    """Return the piece of error that a failure is about; None where the model makes none such."""
    data = segmented.data
    pieces = error_pieces(
        segmented.mask, data.labels, data.ignore, thinnest_mm=failure.thinnest_mm, smallest_ml=0.02
    )
    pieces = [piece for piece in pieces if piece.kind == failure.kind]
    if failure.tissue:
        tissue = TISSUES[failure.tissue]
        below = ((piece, data.tissues.array[piece.box][piece.inside]) for piece in pieces)
        pieces = [piece for piece, numbers in below if np.bincount(numbers).argmax() == tissue]
    if not pieces or failure.near is None:
        return pieces[0] if pieces else None
    voxels = np.array([piece.voxel for piece in pieces])
    distances_mm = np.linalg.norm((voxels - failure.near) * data.ct.spacing_mm, axis=1)
    return pieces[int(distances_mm.argmin())]


def gallery(
    findings: Sequence[tuple[Failure, ErrorPiece | None]],
    scans: Mapping[tuple[str, str, int], Segmented],
    columns: int = 4,
) -> Figure:
    """Draw failures side by side, each with its surroundings, marks of orientation and scale.

    Args:
        findings: failures with what `find` returned; those without a piece are left out.
        scans: what `segment_all` returned.
        columns: pictures in a row.
    """
    shown = [(failure, piece) for failure, piece in findings if piece is not None]
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.75 * columns, 2.05 * rows + 0.25), layout="constrained", dpi=144)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (failure, piece) in zip(grid.flat, shown):
        _draw_failure(axes, failure, scans[failure.key], piece)
    handles = figures.legend_handles(render.ERROR_SWATCHES[:3])
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_failure(
    axes: Axes, failure: Failure, segmented: Segmented, piece: ErrorPiece, half_mm: float = 36.0
) -> None:
    """Draw the slice through a piece of error, cropped to `half_mm` around it."""
    data, plane = segmented.data, failure.plane
    cut, *shown_axes = geometry.plane_axes(plane)
    pixel_mm = render.pixel_size_mm(data.ct, plane)
    rgb = render.render_slice(
        data.ct, piece.voxel[cut], plane, WINDOWS["bone"], data.labels, segmented.mask,
        render.Style("error", opacity=0.3), data.ignore,
    )  # fmt: skip
    crop = []
    for axis, size in zip(shown_axes, rgb.shape[:2]):
        count = data.ct.shape[axis]
        middle = (count - 0.5 - piece.voxel[axis]) / count * size
        half = min(half_mm / pixel_mm, size / 2)
        start = int(np.clip(middle - half, 0, size - 2 * half))
        crop.append(slice(start, start + int(2 * half)))
    figures.show_slice(axes, rgb[tuple(crop)], plane, pixel_mm)
    axes.set_title(failure.cause, fontsize=9, pad=12)
