"""The volumes that a viewer shows, what each slice holds, and both in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import CANONICAL
from spine_lib.ct.geometry import (
    PLANES,
    Grid,
    cut_slice,
    plane_axes,
    require_same_grid,
    slice_count,
    slice_position_mm,
)
from spine_lib.ct.volume import Volume, load_ct, load_mask
from spine_lib.explore import overlays, render
from spine_lib.explore.overlays import Swatch
from spine_lib.explore.render import Style
from spine_lib.metrics import overlap as metrics

Voxel = tuple[int, int, int]
SLAB_VOXELS = 1 << 22


@dataclass(eq=False)
class Scene:
    """A CT with its mask and a prediction, on one grid; nothing is copied or resampled.

    Attributes:
        ct: scan in HU. Each volume may be given as the path of its file too.
        mask: canonical labels or booleans on its grid, or None; one of 0 and 1 alone is spine.
        prediction: labels, booleans or probabilities on its grid, or None.
        ignore: boolean on its grid, True where nothing is scored, or None.
        case_id: name in titles and alt texts; by default that of the CT's file.
        version: grows by one with each change of the mask.

    Raises:
        SpineError: where something is not a `Volume` or lies on another grid, with the reason.
    """

    ct: Volume
    mask: Volume | None = None
    prediction: Volume | None = None
    ignore: Volume | None = None
    case_id: str = ""
    version: int = 0
    _counts: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.ct = as_volume("CT", self.ct, load_ct)
        for role in ("mask", "prediction", "ignore"):
            if (volume := getattr(self, role)) is not None:
                volume = as_volume(role, volume, load_mask)
                require_same_grid(self.ct, volume, f"CT and {role}")
                setattr(self, role, volume if role == "ignore" else _without_ids(volume))
        self.case_id = self.case_id or scan_name(self.ct)

    def change_mask(self, mask: Volume) -> None:
        """Show another mask, or the same one after its array was changed."""
        self.mask, self.version = mask, self.version + 1
        self._counts.clear()

    @cached_property
    def bare(self) -> Scene:
        """The CT alone."""
        return Scene(self.ct, case_id=self.case_id)

    @property
    def labelled(self) -> Volume | None:
        """The mask, or the prediction where there is no mask."""
        return self.mask if self.mask is not None else self.prediction

    @property
    def compared(self) -> bool:
        """Whether there are a mask and a prediction."""
        return self.mask is not None and self.prediction is not None

    @property
    def binary(self) -> bool:
        """Whether what is drawn has no label ids."""
        return self.labelled is None or self.labelled.array.dtype.kind in "bf"

    def draw(self, index: int, plane: str, window: tuple[float, float], style: Style) -> np.ndarray:
        """Draw one slice; see `spine_lib.explore.render.render_slice`."""
        return render.render_slice(
            self.ct, index, plane, window, self.mask, self.prediction, style, self.ignore
        )

    def overlay(self, index: int, plane: str, style: Style) -> render.Overlay | None:
        """Return what `draw` draws over one slice; None where there is nothing."""
        return render.slice_overlay(
            self.ct, index, plane, self.mask, self.prediction, style, self.ignore
        )

    def labels_in(self, index: int, plane: str, threshold: float) -> list[int]:
        """Return the label ids in a slice of what is drawn."""
        if self.labelled is None:
            return []
        values = render.as_labels(cut_slice(self.labelled, index, plane), threshold)
        return np.unique(values[values > 0]).tolist()

    def swatches(self, labels: Sequence[int], style: Style) -> list[Swatch]:
        """Return the legend of label ids as they are drawn, under their anatomical names."""
        if self.labelled is None:
            return []
        if style.overlay == "error":
            return error_swatches(self.ignore is not None)
        shown = [label for label in labels if style.labels is None or label in style.labels]
        if self.binary or style.colouring == "spine":
            return [overlays.SPINE_SWATCH] if (labels if self.binary else shown) else []
        swatches = []
        for label in shown:
            swatch = overlays.label_swatches(style.colouring)[label - 1]
            if style.colouring != "region" or swatch not in overlays.REGION_SWATCHES:
                swatch = swatch._replace(name=label_name(label))
            swatches.append(swatch)
        # Regions from head to foot, of which T13 (28) is thoracic; then the labels without one.
        head_to_foot = [swatch for swatch in overlays.REGION_SWATCHES if swatch in swatches]
        return list(dict.fromkeys(head_to_foot + swatches))

    def count_slices(self, threshold: float) -> SliceCounts:
        """Count spine and errors in every slice; the counts of the last threshold are kept."""
        if threshold not in self._counts:
            prediction = self.prediction if self.compared else None
            self._counts.clear()
            self._counts[threshold] = count_slices(
                self.labelled, prediction, self.ignore, threshold
            )
        return self._counts[threshold]

    def slice_confusion(self, index: int, plane: str, threshold: float) -> metrics.Confusion | None:
        """Count a slice's right and wrong pixels; None where there is nothing to compare."""
        if not self.compared:
            return None
        spine, predicted = (
            is_spine(cut_slice(volume, index, plane), threshold)
            for volume in (self.mask, self.prediction)
        )
        skip = None if self.ignore is None else cut_slice(self.ignore, index, plane) > 0
        return metrics.confusion(predicted, spine, skip)

    @property
    def name(self) -> str:
        """What the scene shows, for titles."""
        return f"{self.case_id[:1].upper()}{self.case_id[1:]} CT"

    def title(self, index: int, plane: str) -> str:
        """Return a short title: case, plane and slice."""
        return f"{self.name}, {plane} slice {index + 1} of {slice_count(self.ct, plane)}"

    def alt_text(self, index: int, plane: str, style: Style) -> str:
        """Describe a slice in words: case, plane, position and what is overlaid."""
        overlaid = ""
        if self.labelled is not None and style.overlay == "error":
            overlaid = "with the errors of the prediction against the mask"
        elif self.labelled is not None:
            kind = {"fill": "painted", "outline": "outlined"}[style.overlay]
            name = "prediction" if self.mask is None else "mask"
            overlaid = f"with the {name} {kind} by {'spine' if self.binary else style.colouring}"
            if self.compared:
                overlaid += ", prediction dashed"
        return render.alt_text(self.ct, index, plane, self.case_id, overlaid)

    def slice_text(self, index: int, plane: str) -> str:
        """Return a slice's number and its position in the patient."""
        letter = "RAS"[plane_axes(plane)[0]]
        return (
            f"{plane} slice {index + 1} of {slice_count(self.ct, plane)} (index {index}) "
            f"at {letter} {slice_position_mm(self.ct, index, plane):+.1f} mm"
        )

    def voxel_text(self, voxel: Voxel, threshold: float) -> str:
        """Return a voxel's position in mm and HU, and what mask and prediction name it."""
        position = self.ct.affine[:3] @ [*voxel, 1]
        text = "R {:+.1f}, A {:+.1f}, S {:+.1f} mm".format(*position)
        text += f": {self.ct.array[voxel]:g} HU"
        if self.mask is not None:
            text += f", mask {_value_name(self.mask.array[voxel], threshold)}"
        if self.prediction is not None:
            text += f", prediction {self.predicted_text(voxel, threshold)}"
        return text

    def predicted_text(self, voxel: Voxel, threshold: float) -> str:
        """Return what the prediction names a voxel; 1 is spine, as for `mask_as_spine`."""
        value = self.prediction.array[voxel]
        is_one = value == 1 and value.dtype.kind != "f"
        return _value_name(np.bool_(value) if is_one else value, threshold)


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """The voxels of each slice in every plane.

    Attributes:
        by_plane: int64 [slice, 3] by plane: true positives, false positives, false negatives.
            Without a prediction every voxel of spine counts as true positive.
        labels: ids above 0 in the mask (of the prediction, where there is no mask), ascending.
    """

    by_plane: dict[str, np.ndarray]
    labels: tuple[int, ...]

    def spine(self, plane: str) -> np.ndarray:
        """Return the voxels of spine in each slice of the mask."""
        return self.by_plane[plane][:, [0, 2]].sum(axis=1)

    def wrong(self, plane: str) -> np.ndarray:
        """Return the voxels of each slice that the prediction has wrong."""
        return self.by_plane[plane][:, 1:].sum(axis=1)

    def dice(self, plane: str) -> np.ndarray:
        """Return the Dice of each slice; NaN where mask and prediction are both empty."""
        twice = 2 * self.by_plane[plane][:, 0]
        total = twice + self.wrong(plane)
        return np.where(total > 0, twice / np.maximum(total, 1), np.nan)

    def fullest(self, plane: str, count: int) -> int:
        """Return the slice with the most spine, or the middle one of `count` without any."""
        if not self.by_plane or not self.spine(plane).any():
            return count // 2
        return int(self.spine(plane).argmax())

    def worst(self, plane: str) -> int | None:
        """Return the slice with the lowest Dice, of several the one with most wrong voxels."""
        dice, wrong = self.dice(plane), self.wrong(plane)
        if not wrong.any():
            return None
        return int(np.lexsort((-wrong, np.where(np.isnan(dice), np.inf, dice)))[0])


def as_volume(name: str, value: Volume | str | Path, load: Callable) -> Volume:
    """Return a volume, loaded where a path is given."""
    if isinstance(value, str | Path):
        return load(value)
    if not isinstance(value, Volume):
        raise SpineError(
            f"The {name} is a {type(value).__name__} and not a Volume, so its position is unknown: "
            "give a path or a Volume, for example ct.with_array(array)."
        )
    return value


def _without_ids(volume: Volume) -> Volume:
    """Return a mask that holds nothing but 0 and 1 as booleans: 1 is spine, and not C1."""
    array = volume.array
    if array.dtype.kind not in "ui" or not array.size or array.max() > 1 or array.min() < 0:
        return volume
    return volume.with_array(array.view(np.bool_) if array.itemsize == 1 else array > 0)


def scan_name(ct: Volume) -> str:
    """Return a scan's name: its file's, or the description and number of a DICOM series."""
    if ct.path is None:
        return "unnamed"
    if not ct.path.is_dir():
        return ct.path.name.removesuffix(".gz").removesuffix(".nii")
    import pydicom  # here, where there is such a series

    files = [path for path in sorted(ct.path.iterdir()) if path.is_file()]
    first = next(filter(pydicom.misc.is_dicom, files), None)
    header = pydicom.dcmread(first, stop_before_pixels=True) if first else {}
    words = (header.get("SeriesDescription"), header.get("SeriesNumber"))
    return " ".join(str(word) for word in words if word) or ct.path.name


def count_slices(
    mask: Grid | None,
    prediction: Grid | None = None,
    ignore: Grid | None = None,
    threshold: float = 0.5,
) -> SliceCounts:
    """Count spine and errors in every slice of all three planes, in one pass.

    Args:
        mask: labels or booleans [x, y, z]; None gives no counts at all.
        prediction: labels, booleans or probabilities on the same grid.
        ignore: boolean, True where nothing is scored.
        threshold: a probability counts as spine from this value on.

    Raises:
        SpineError: where a label lies outside 0 to 255.
    """
    if mask is None:
        return SliceCounts({}, ())
    arrays = [None if grid is None else grid.array for grid in (mask, prediction, ignore)]
    tallies = [np.zeros((size, 4), np.int64) for size in mask.array.shape]
    labels = np.zeros(256, bool)
    for axes, start, (truth, guess, skip) in slabs(arrays):
        spine = is_spine(truth, threshold)
        predicted = spine if guess is None else is_spine(guess, threshold)
        # Most lines along the last axis have no spine at all.
        lines = np.flatnonzero(spine.any(axis=-1) | predicted.any(axis=-1))
        spine, predicted, skip = (_take_lines(array, lines) for array in (spine, predicted, skip))
        areas = overlays.compare_masks(spine, predicted, skip)
        line, last = np.nonzero(areas)
        kind = areas[line, last] - 1
        first, second = np.unravel_index(lines[line], truth.shape[:2])
        for axis, position in zip(axes, (first + start, second, last)):
            flat = position * 4 + kind
            tallies[axis] += np.bincount(flat, minlength=tallies[axis].size).reshape(-1, 4)
        values = render.as_labels(_take_lines(truth, lines)[spine], threshold)
        labels[np.unique(values)] = True
    by_plane = {plane: tallies[plane_axes(plane)[0]][:, :3] for plane in PLANES}
    return SliceCounts(by_plane, tuple((np.flatnonzero(labels[1:]) + 1).tolist()))


def slabs(
    arrays: Sequence[np.ndarray | None],
) -> Iterator[tuple[tuple[int, ...], int, list[np.ndarray | None]]]:
    """Yield pieces (views) of arrays of one shape, in the order in which the first lies in memory.

    With them go the array axis of each of their axes, and where they start along the first.
    """
    first = arrays[0]
    axes = tuple(int(axis) for axis in np.argsort([-abs(step) for step in first.strides]))
    depth = max(1, SLAB_VOXELS * first.shape[axes[0]] // max(first.size, 1))
    turned = [None if array is None else array.transpose(axes) for array in arrays]
    for start in range(0, first.shape[axes[0]], depth):
        stop = start + depth
        yield axes, start, [None if array is None else array[start:stop] for array in turned]


def _take_lines(array: np.ndarray | None, lines: np.ndarray) -> np.ndarray | None:
    return None if array is None else array.reshape(-1, array.shape[-1])[lines]


def is_spine(array: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Return where labels are above 0, or probabilities at or above a threshold."""
    return array >= threshold if array.dtype.kind == "f" else array > 0


def next_marked(marked: np.ndarray, index: int) -> int | None:
    """Return the next index after `index` where an array is above 0, starting over at the end."""
    indices = np.flatnonzero(marked)
    if not indices.size:
        return None
    return int(indices[np.searchsorted(indices, index, side="right") % indices.size])


def middle_voxel(mask: np.ndarray) -> tuple[int, ...]:
    """Return the True element nearest to the median of all, or the middle of an empty mask."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return tuple(size // 2 for size in mask.shape)
    nearest = np.abs(voxels - np.median(voxels, axis=0)).sum(axis=1).argmin()
    return tuple(voxels[nearest].tolist())


def share_in_slice(shape: Voxel, plane: str, voxel: Voxel) -> tuple[float, float]:
    """Return where a voxel's centre lies in a slice's picture, as shares of width and height."""
    _, rows, columns = plane_axes(plane)
    return tuple((shape[axis] - 0.5 - voxel[axis]) / shape[axis] for axis in (columns, rows))


def voxel_at_share(shape: Voxel, plane: str, index: int, across: float, down: float) -> Voxel:
    """Return the voxel of a slice at shares, 0 to 1, of its picture's width and height."""
    cut, rows, columns = plane_axes(plane)
    voxel = [index] * 3
    for axis, share in ((columns, across), (rows, down)):
        voxel[axis] = shape[axis] - 1 - min(int(share * shape[axis]), shape[axis] - 1)
    return tuple(voxel)


def error_swatches(with_ignore: bool) -> list[Swatch]:
    """Return the legend of a comparison; "not scored" where there is an ignored region."""
    return list(overlays.ERROR_SWATCHES[: 4 if with_ignore else 3])


def label_name(label: int) -> str:
    """Return the anatomical name of a canonical id."""
    return CANONICAL.get(label, f"label {label}")


def score_text(value: float) -> str:
    """Return a score with three digits, or "undefined"."""
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def dice_text(counts: metrics.Confusion) -> str:
    """Return a slice's Dice and its wrong pixels in words."""
    value = metrics.dice(counts)
    text = score_text(value) + (" (both empty)" if np.isnan(value) else "")
    return f"slice Dice {text} ({counts.fp} false positive, {counts.fn} false negative pixels)"


def _value_name(value: np.generic, threshold: float) -> str:
    if value.dtype.kind == "f":
        return f"{value:.2f} ({'spine' if value >= threshold else 'background'})"
    if value.dtype.kind == "b":
        return "spine" if value else "background"
    return label_name(int(value)) if value else "background"
