"""The volumes that a viewer shows, what each slice holds, and both in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import CANONICAL
from spine_lib.ct import geometry
from spine_lib.ct.geometry import PLANES, cut_slice, plane_axes, slice_count
from spine_lib.ct.volume import Volume, load_ct, load_mask
from spine_lib.explore import overlays, render
from spine_lib.explore.overlays import Swatch
from spine_lib.explore.render import Style
from spine_lib.metrics import overlap as metrics

Voxel = tuple[int, int, int]


@dataclass(eq=False)
class Scene:
    """A CT in HU with its mask, prediction and ignored region, each a `Volume` or a path, as drawn.

    They lie on one grid; a mask of 0 and 1 alone is spine. Where `visible` is False the CT is drawn
    alone. The `title` tells several scenes of one scan apart; `version` grows with each change of
    the mask.
    """

    ct: Volume
    mask: Volume | None = None
    prediction: Volume | None = None
    ignore: Volume | None = None
    case_id: str = ""
    style: Style = Style()
    title: str = ""
    visible: bool = True
    version: int = 0
    _counts: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.ct = _as_volume("CT", self.ct, load_ct)
        for role in ("mask", "prediction", "ignore"):
            if (volume := getattr(self, role)) is not None:
                volume = _as_volume(role, volume, load_mask)
                geometry.require_same_grid(self.ct, volume, f"CT and {role}")
                setattr(self, role, volume if role == "ignore" else _without_ids(volume))
        self.case_id = self.case_id or _scan_name(self.ct)

    def change_mask(self, mask: Volume) -> None:
        """Show another mask, or the same one after its array was changed."""
        self.mask, self.version = mask, self.version + 1
        self._counts.clear()

    @property
    def look(self) -> tuple:
        """What a drawn slice depends on beside its place and window."""
        return self.version, self.style, self.visible

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

    @property
    def dashed(self) -> bool:
        """Whether the prediction is drawn as a dashed line."""
        return self.compared and self.visible and self.style.overlay != "error"

    def draw(self, index: int, plane: str, window: tuple[float, float]) -> np.ndarray:
        """Draw one slice; see `spine_lib.explore.render.render_slice`."""
        volumes = (self.mask, self.prediction) if self.visible else (None, None)
        style = self.style if self.visible else Style(pixel_mm=self.style.pixel_mm)
        return render.render_slice(self.ct, index, plane, window, *volumes, style, self.ignore)

    def legend(self, slices: Iterable[tuple[int, str]]) -> list[Swatch]:
        """Return the swatches of what slices (index and plane) show."""
        labels = set()
        for index, plane in slices if self.labelled is not None else ():
            values = render.as_labels(cut_slice(self.labelled, index, plane), self.style.threshold)
            labels.update(np.unique(values[values > 0]).tolist())
        return self.swatches(sorted(labels))

    def swatches(self, labels: Sequence[int] = ()) -> list[Swatch]:
        """Return the legend of label ids as they are drawn, under their anatomical names."""
        style = self.style
        if self.labelled is None or not self.visible:
            return []
        if style.overlay == "error":
            return list(overlays.ERROR_SWATCHES[: 3 if self.ignore is None else 4])
        shown = [label for label in labels if style.labels is None or label in style.labels]
        if self.binary or style.colouring == "spine":
            return [overlays.SPINE_SWATCH] if (labels if self.binary else shown) else []
        regions, swatches = overlays.REGION_SWATCHES, []
        for label in shown:
            swatch = overlays.label_swatches(style.colouring)[label - 1]
            named = style.colouring == "region" and swatch in regions
            swatches.append(swatch if named else swatch._replace(name=label_name(label)))
        # Regions from head to foot, of which T13 (28) is thoracic; then the labels without one.
        swatches.sort(key=lambda swatch: regions.index(swatch) if swatch in regions else 4)
        return list(dict.fromkeys(swatches))

    def count_slices(self) -> SliceCounts:
        """Count spine and errors in every slice; the counts of the last threshold are kept."""
        threshold = self.style.threshold
        if threshold not in self._counts:
            self._counts = {threshold: self._count(threshold)}
        return self._counts[threshold]

    def _count(self, threshold: float) -> SliceCounts:
        counts = {plane: np.zeros((slice_count(self.ct, plane), 3), np.int64) for plane in PLANES}
        if self.labelled is None:
            return SliceCounts(counts, ())
        drawn = (self.labelled, self.prediction) if self.compared else (self.labelled,)
        box = _box([volume.array for volume in drawn])
        labels = render.as_labels(self.labelled.array[box], threshold)
        guess = is_spine(self.prediction.array[box], threshold) if self.compared else labels
        skip = None if self.ignore is None else self.ignore.array[box]
        areas = overlays.compare_masks(labels, guess, skip)
        for plane, by_slice in counts.items():
            cut, *others = plane_axes(plane)
            for kind in range(3):
                by_slice[box[cut], kind] = np.count_nonzero(areas == kind + 1, axis=tuple(others))
        present = np.flatnonzero(np.bincount(labels.ravel(order="K"), minlength=1)[1:]) + 1
        return SliceCounts(counts, tuple(present.tolist()))

    def slice_dice(self, index: int, plane: str) -> str:
        """Return a slice's Dice and wrong pixels in words; "" where nothing is compared."""
        if not self.compared:
            return ""
        volumes = [self.prediction, self.mask] + [self.ignore] * (self.ignore is not None)
        counts = metrics.confusion(
            *(is_spine(cut_slice(volume, index, plane), self.style.threshold) for volume in volumes)
        )
        value = metrics.dice(counts)
        text = score_text(value) + (" (both empty)" if np.isnan(value) else "")
        wrong = f"{counts.fp} false positive, {counts.fn} false negative pixels"
        return f"{self.title and f'{self.title}: '}slice Dice {text} ({wrong})"

    @property
    def name(self) -> str:
        """What the scene shows, for titles."""
        return f"{self.case_id[:1].upper()}{self.case_id[1:]} CT"

    def slice_title(self, index: int, plane: str) -> str:
        """Return the scene's title, or a short one of the slice: case, plane and number."""
        count = slice_count(self.ct, plane)
        return self.title or f"{self.name}, {plane} slice {index + 1} of {count}"

    def alt_text(self, index: int, plane: str, visible: bool | None = None) -> str:
        """Return a slice in words: case, plane, position and what is overlaid."""
        overlaid, style = "", self.style
        if self.labelled is None or not (self.visible if visible is None else visible):
            pass
        elif style.overlay == "error":
            overlaid = "with the errors of the prediction against the mask"
        else:
            kind = {"fill": "painted", "outline": "outlined"}[style.overlay]
            name = "prediction" if self.mask is None else "mask"
            overlaid = f"with the {name} {kind} by {'spine' if self.binary else style.colouring}"
            if self.compared:
                overlaid += ", prediction dashed"
        alt = render.alt_text(self.ct, index, plane, self.case_id, overlaid)
        return f"{self.title}: {alt}" if self.title else alt

    def slice_text(self, index: int, plane: str) -> str:
        """Return a slice's number and its position in the patient."""
        position = geometry.slice_position_mm(self.ct, index, plane)
        number = f"slice {index + 1} of {slice_count(self.ct, plane)} (index {index})"
        return f"{plane} {number} at {'RAS'[plane_axes(plane)[0]]} {position:+.1f} mm"

    def voxel_text(self, voxel: Voxel) -> str:
        """Return a voxel's position in mm and HU, and what mask and prediction name it."""
        text = "R {:+.1f}, A {:+.1f}, S {:+.1f} mm".format(*self.ct.affine[:3] @ [*voxel, 1])
        text += f": {self.ct.array[voxel]:g} HU"
        if self.mask is not None:
            text += f", mask {self._value_name(self.mask.array[voxel])}"
        return text + self.predicted_text(voxel)

    def predicted_text(self, voxel: Voxel) -> str:
        """Return what the prediction names a voxel; 1 is spine, as for `mask_as_spine`."""
        if self.prediction is None:
            return ""
        value = self.prediction.array[voxel]
        value = np.bool_(value) if value == 1 and value.dtype.kind != "f" else value
        return f", {self.title or 'prediction'} {self._value_name(value)}"

    def _value_name(self, value: np.generic) -> str:
        if value.dtype.kind == "f":
            spine = "spine" if value >= self.style.threshold else "background"
            return f"{value:.2f} ({spine})"
        if value.dtype.kind == "b":
            return "spine" if value else "background"
        return label_name(int(value)) if value else "background"


@dataclass(frozen=True, eq=False)
class SliceCounts:
    """True and false positives and false negatives, int64 [slice, 3] by plane, and the label ids.

    Without a prediction every voxel of spine counts as true positive.
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

    def fullest(self, plane: str) -> int:
        """Return the slice with the most spine, or the middle one where there is none."""
        spine = self.spine(plane)
        return int(spine.argmax()) if spine.any() else len(spine) // 2

    def middle(self, plane: str) -> int:
        """Return the slice with half of the spine on either side, or the middle one."""
        share = self.spine(plane).cumsum()
        return int(np.searchsorted(share, share[-1] / 2)) if share[-1] else len(share) // 2

    def worst(self, plane: str) -> int | None:
        """Return the slice with the lowest Dice, of several the one with most wrong voxels."""
        dice, wrong = self.dice(plane), self.wrong(plane)
        if not wrong.any():
            return None
        return int(np.lexsort((-wrong, np.where(np.isnan(dice), np.inf, dice)))[0])


def _box(arrays: Sequence[np.ndarray]) -> tuple[slice, ...]:
    """Return the smallest box with all that is not 0, in one pass along each array's memory."""
    marked = [np.zeros(size, bool) for size in arrays[0].shape]
    for array in arrays:
        fast = int(np.argmin(np.abs(array.strides)))
        first, second = (axis for axis in range(3) if axis != fast)
        flat = array.any(axis=fast)
        part = [slice(None)] * 3
        for axis, line in ((first, flat.any(axis=1)), (second, flat.any(axis=0))):
            marked[axis] |= line
            part[axis] = _span(line)
        marked[fast] |= array[tuple(part)].any(axis=(first, second))
    return tuple(map(_span, marked))


def _span(line: np.ndarray) -> slice:
    indices = np.flatnonzero(line)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)


def _as_volume(name: str, value: Volume | str | Path, load: Callable) -> Volume:
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


def _scan_name(ct: Volume) -> str:
    """Return a scan's name: its file's, or the description and number of a DICOM series."""
    if ct.path is None:
        return "unnamed"
    if not ct.path.is_dir():
        name = ct.path.name.removesuffix(".gz").removesuffix(".nii")
        return ct.path.resolve().parent.name if name.lower() == "ct" else name
    import pydicom  # here, where there is such a series

    files = [path for path in sorted(ct.path.iterdir()) if path.is_file()]
    first = next(filter(pydicom.misc.is_dicom, files), None)
    header = pydicom.dcmread(first, stop_before_pixels=True) if first else {}
    words = (header.get("SeriesDescription"), header.get("SeriesNumber"))
    return " ".join(str(word) for word in words if word) or ct.path.name


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


def share_in_slice(shape: Voxel, plane: str, voxel: Voxel) -> list[float]:
    """Return where a voxel's centre lies in a slice's picture, as shares of width and height."""
    _, rows, columns = plane_axes(plane)
    return [(shape[axis] - 0.5 - voxel[axis]) / shape[axis] for axis in (columns, rows)]


def voxel_at_share(shape: Voxel, plane: str, index: int, across: float, down: float) -> Voxel:
    """Return the voxel of a slice at shares, 0 to 1, of its picture's width and height."""
    _, rows, columns = plane_axes(plane)
    voxel = [index] * 3
    for axis, share in ((columns, across), (rows, down)):
        voxel[axis] = shape[axis] - 1 - min(int(share * shape[axis]), shape[axis] - 1)
    return tuple(voxel)


def label_name(label: int) -> str:
    """Return the anatomical name of a canonical id."""
    return CANONICAL.get(label, f"label {label}")


def score_text(value: float) -> str:
    """Return a score with three digits, or "undefined"."""
    return "undefined" if np.isnan(value) else f"{value:.3f}"
