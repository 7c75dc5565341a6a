"""What a viewer shows: a CT with what belongs to it, all on one grid, under one name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.checks import CANONICAL
from spine_lib.ct import geometry as planes
from spine_lib.ct.geometry import cut_slice, plane_axes, require_same_grid
from spine_lib.ct.volume import Volume
from spine_lib.explore import render
from spine_lib.explore.counts import SliceCounts, count_slices, is_spine
from spine_lib.explore.render import Style
from spine_lib.metrics import overlap as metrics


@dataclass(frozen=True, eq=False)
class Scene:
    """Hold the volumes of a viewer; none is copied, and none is ever stretched.

    Attributes:
        ct: scan in HU.
        mask: canonical labels or booleans on its grid, or None.
        prediction: labels, booleans or probabilities on its grid, or None.
        ignore: boolean on its grid, True where nothing is scored, or None.
        case_id: name in alt texts; by default the name of the CT's file.

    Raises:
        SpineError: where a volume is none or lies on another grid, with the reason.
    """

    ct: Volume
    mask: Volume | None = None
    prediction: Volume | None = None
    ignore: Volume | None = None
    case_id: str = ""

    def __post_init__(self) -> None:
        parts = {"CT": self.ct, "mask": self.mask, "prediction": self.prediction}
        for name, volume in {**parts, "ignored region": self.ignore}.items():
            if volume is None and name != "CT":
                continue
            if not isinstance(volume, Volume):
                raise SpineError(
                    f"The {name} is a {type(volume).__name__} and not a Volume, so nothing tells "
                    "where it lies: give a Volume, for example ct.with_array(array)."
                )
            require_same_grid(self.ct, volume, f"CT and {name}")
        if not self.case_id:
            name = self.ct.path.name if self.ct.path else "without a name"
            object.__setattr__(self, "case_id", name)

    def told_labels(self, labels: tuple[int, ...]) -> Scene:
        """Return the scene with a mask that holds nothing but 1 taken as spine, and not as C1.

        Args:
            labels: ids in the mask.
        """
        if labels != (1,) or self.mask is None or self.mask.array.dtype != np.uint8:
            return self
        return replace(self, mask=self.mask.with_array(self.mask.array.view(np.bool_)))

    def bare(self) -> Scene:
        """Return the scene without anything over the CT."""
        return Scene(self.ct, case_id=self.case_id)

    @property
    def binary(self) -> bool:
        """Whether what is painted knows no vertebrae."""
        painted = self.mask if self.mask is not None else self.prediction
        return painted is None or painted.array.dtype.kind in "bf"

    @property
    def overlays(self) -> tuple[str, ...]:
        """The overlays that can be drawn."""
        both = self.mask is not None and self.prediction is not None
        return render.OVERLAYS if both else render.OVERLAYS[:2]

    def draw(self, index: int, plane: str, window: tuple[float, float], style: Style) -> np.ndarray:
        """Draw one slice; see `spine_lib.explore.render.render_slice`."""
        return render.render_slice(
            self.ct, index, plane, window, self.mask, self.prediction, style, self.ignore
        )

    def alt_text(self, index: int, plane: str, style: Style) -> str:
        """Describe a slice in words: case, plane, position and what is overlaid."""
        return render.alt_text(self.ct, index, plane, self.case_id, self.overlaid(style))

    def overlaid(self, style: Style) -> str:
        """Say what lies over the image."""
        if self.mask is None and self.prediction is None:
            return ""
        if style.overlay == "error":
            return "with the errors of the prediction against the mask"
        kind = {"fill": "painted", "outline": "outlined"}[style.overlay]
        colouring = "spine" if self.binary else style.colouring
        what = "mask" if self.mask is not None else "prediction"
        rest = (
            ", prediction dashed" if self.mask is not None and self.prediction is not None else ""
        )
        return f"with the {what} {kind} by {colouring}{rest}"

    def paints_in(self, index: int, plane: str) -> bool:
        """Tell whether a slice has anything that could be laid over it."""
        over = (self.mask, self.prediction, self.ignore)
        return any(one is not None and cut_slice(one, index, plane).any() for one in over)

    def labels_in(self, index: int, plane: str, threshold: float) -> list[int]:
        """Return the label ids in a slice of what is painted."""
        painted = self.mask if self.mask is not None else self.prediction
        if painted is None:
            return []
        values = cut_slice(painted, index, plane)
        if self.binary:
            return [1] if is_spine(values, threshold).any() else []
        return np.unique(values[values > 0]).tolist()

    def dice_at(self, index: int, plane: str, threshold: float) -> metrics.Confusion | None:
        """Count a slice's right and wrong pixels; None where there is nothing to compare."""
        if self.mask is None or self.prediction is None:
            return None
        truth, guess = (
            is_spine(cut_slice(one, index, plane), threshold)
            for one in (self.mask, self.prediction)
        )
        skip = None if self.ignore is None else cut_slice(self.ignore, index, plane) > 0
        return metrics.confusion(guess, truth, skip)

    def slice_text(self, index: int, plane: str) -> str:
        """Say which slice it is and where it lies in the patient."""
        letter, count = "RAS"[plane_axes(plane)[0]], planes.slice_count(self.ct, plane)
        position = planes.slice_position_mm(self.ct, index, plane)
        return (
            f"{plane} slice {index + 1} of {count} (index {index}) at {letter} {position:+.1f} mm"
        )

    def voxel_text(self, voxel: tuple[int, int, int], threshold: float) -> str:
        """Say where a voxel lies, its HU, and what mask and prediction call it."""
        parts = [f"{self.position_text(voxel)}: {self.ct.array[voxel]:g} HU"]
        if self.mask is not None:
            parts.append(f"mask {_name_at(self.mask.array[voxel], threshold)}")
        if self.prediction is not None:
            parts.append(f"prediction {self.predicted_text(voxel, threshold)}")
        return ", ".join(parts)

    def predicted_text(self, voxel: tuple[int, int, int], threshold: float) -> str:
        """Say what the prediction calls a voxel."""
        value = self.prediction.array[voxel]
        # A prediction of 1 is spine: models that tell C1 from the rest are not drawn here.
        value = np.bool_(value) if value == 1 and value.dtype.kind != "f" else value
        return _name_at(value, threshold)

    def position_text(self, voxel: tuple[int, int, int]) -> str:
        """Return a voxel's place in the patient in mm, right, anterior and superior positive."""
        place = self.ct.affine[:3] @ [*voxel, 1]
        return "R {:+.1f}, A {:+.1f}, S {:+.1f} mm".format(*place)


def open_scene(
    ct: Volume,
    mask: Volume | None,
    prediction: Volume | None,
    ignore: Volume | None,
    case_id: str,
) -> tuple[Scene, SliceCounts]:
    """Check what a viewer was given, and count the spine in it; see `Scene`.

    Returns:
        The scene, and the counts of the mask (of the prediction, where there is no mask).
    """
    scene = Scene(ct, mask, prediction, ignore, case_id)
    counts = count_slices(mask if mask is not None else prediction)
    return scene.told_labels(counts.labels), counts


def voxel_in_slice(
    shape: tuple[int, int, int], plane: str, index: int, across: int, down: int
) -> tuple[int, int, int]:
    """Return the voxel at a slice's column and row, counted from the picture's upper left."""
    cut, rows, columns = plane_axes(plane)
    voxel = [0, 0, 0]
    voxel[cut], voxel[rows], voxel[columns] = (
        index,
        shape[rows] - 1 - down,
        shape[columns] - 1 - across,
    )
    return tuple(voxel)


def share_in_slice(
    shape: tuple[int, int, int], plane: str, voxel: tuple[int, int, int]
) -> tuple[float, float]:
    """Return where a voxel's centre lies in a slice's picture, as shares of width and height."""
    _, rows, columns = plane_axes(plane)
    return tuple((shape[axis] - 0.5 - voxel[axis]) / shape[axis] for axis in (columns, rows))


def voxel_at_share(
    shape: tuple[int, int, int], plane: str, index: int, across: float, down: float
) -> tuple[int, int, int]:
    """Return the voxel of a slice at shares, 0 to 1, of its picture's width and height."""
    _, rows, columns = plane_axes(plane)
    right, lower = (
        min(int(share * shape[axis]), shape[axis] - 1)
        for share, axis in ((across, columns), (down, rows))
    )
    return voxel_in_slice(shape, plane, index, right, lower)


def score_text(value: float) -> str:
    """Return a score with three digits, or say that it is undefined."""
    return "undefined" if np.isnan(value) else f"{value:.3f}"


def dice_text(counts: metrics.Confusion) -> str:
    """Say a slice's Dice and how many pixels are wrong."""
    value = metrics.dice(counts)
    shown = score_text(value) + (" (both empty)" if np.isnan(value) else "")
    return f"slice Dice {shown} ({counts.fp} false positive, {counts.fn} false negative pixels)"


def _name_at(value: np.generic, threshold: float) -> str:
    """Name a voxel; whole numbers are canonical ids."""
    if value.dtype.kind == "f":
        return f"{value:.2f} ({'spine' if value >= threshold else 'background'})"
    if value.dtype.kind == "b":
        return "spine" if value else "background"
    return CANONICAL.get(int(value), f"label {int(value)}") if value else "background"
