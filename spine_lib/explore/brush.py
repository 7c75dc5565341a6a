"""Correct a mask by hand: strokes, undo and redo, and scores counted from what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets as widgets
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from spine_lib.annotations.schemes import CANONICAL
from spine_lib.ct.geometry import plane_axes
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.scene import Scene, Voxel, is_spine, label_name, score_text, voxel_at_share
from spine_lib.metrics.surfaces import ROUNDING_MM

LOOK, PAINT, ERASE, FILL = "look", "paint", "erase", "fill"
HU_LIMITS = (-1024, 3071)
TOLERANCE_MM = 2.0

Box = tuple[slice, slice, slice]


class MaskEditor:
    """A copy of a mask that strokes change, uint8 [x, y, z], with Dice and NSD against a truth.

    Without a mask it begins with an empty one of booleans.
    """

    def __init__(
        self, ct: Volume, mask: Volume | None, truth: Volume | None, ignore: Volume | None
    ) -> None:
        self.ct, self.binary = ct, mask is None or mask.array.dtype.kind in "bf"
        self.array = np.zeros_like(ct.array, np.uint8)
        if mask is not None:
            self.array[:] = is_spine(mask.array) if self.binary else mask.array
        self._done: list[list[tuple[Box, np.ndarray]]] = []
        self._undone: list[list[tuple[Box, np.ndarray]]] = []
        self._scored = None if ignore is None else ~(ignore.array > 0)
        self._reach = [int(np.ceil(TOLERANCE_MM / mm)) + 1 for mm in ct.spacing_mm]
        self._truth = None
        if truth is not None:
            self._truth = is_spine(truth.array).view(np.uint8) if self.binary else truth.array
            either = ((self.array > 0) | (self._truth > 0)).view(np.uint8)
            (box,) = ndimage.find_objects(either) or [(slice(0, 0),) * 3]
            self._pixels, self._surface = self._count_labels(box), self._count_surface(box)

    @property
    def mask(self) -> Volume:
        """The corrected mask: booleans where the mask had no label ids."""
        return self.ct.with_array(self.array.view(np.bool_) if self.binary else self.array)

    def begin(self) -> None:
        """Begin a stroke, which `undo` takes back as one."""
        self._done.append([])
        self._undone.clear()

    def paint(
        self,
        start: Voxel,
        end: Voxel,
        radius_mm: float,
        label: int,
        cut: int | None = None,
        hu_range: tuple[float, float] = HU_LIMITS,
    ) -> None:
        """Give a label (0 erases) to the voxels within a radius of a line, from `start` to `end`.

        Only voxels within a range of HU change, and only in the slice across the axis `cut`.
        """
        spacing = np.array(self.ct.spacing_mm)
        ends, steps = np.array([start, end]), np.ceil(radius_mm / spacing).astype(int)
        if cut is not None:
            steps[cut] = 0
        low = np.maximum(ends.min(axis=0) - steps, 0)
        high = np.minimum(ends.max(axis=0) + steps + 1, self.array.shape)
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist()))
        grid = np.moveaxis(np.mgrid[box], 0, -1)
        offset, line = (grid - ends[0]) * spacing, (ends[1] - ends[0]) * spacing
        share = np.clip(offset @ line / max(line @ line, 1e-9), 0, 1)
        near = ((offset - share[..., None] * line) ** 2).sum(axis=-1) <= radius_mm**2 + 1e-9
        self._write(box, near & self._allowed(box, hu_range), label)

    def fill(
        self, voxel: Voxel, label: int, cut: int, hu_range: tuple[float, float] = HU_LIMITS
    ) -> bool:
        """Give a label to the connected area of one label around a voxel, in one slice.

        Where the area reaches the edge of the slice nothing changes, and False is returned.
        """
        box = tuple(
            slice(voxel[axis], voxel[axis] + 1) if axis == cut else slice(0, size)
            for axis, size in enumerate(self.array.shape)
        )
        alike = (self.array[box] == self.array[voxel]) & self._allowed(box, hu_range)
        pieces, _ = ndimage.label(alike)
        piece = pieces[tuple(0 if axis == cut else voxel[axis] for axis in range(3))]
        edges = [np.take(pieces, [0, -1], axis) for axis in range(3) if axis != cut]
        if piece == 0 or any((edge == piece).any() for edge in edges):
            return False
        self._write(box, pieces == piece, label)
        return True

    def undo(self) -> None:
        """Take the last stroke back."""
        self._swap(self._done, self._undone)

    def redo(self) -> None:
        """Make the last stroke that was taken back again."""
        self._swap(self._undone, self._done)

    def _allowed(self, box: Box, hu_range: tuple[float, float]) -> np.ndarray:
        hu, (low, high) = self.ct.array[box], hu_range
        return ((hu >= low) | (low == HU_LIMITS[0])) & ((hu <= high) | (high == HU_LIMITS[1]))

    def _write(self, box: Box, where: np.ndarray, label: int) -> None:
        self._done[-1].append(self._change(box, np.where(where, np.uint8(label), self.array[box])))

    def _swap(self, source: list[list[tuple]], target: list[list[tuple]]) -> None:
        if source:
            target.append([self._change(*change) for change in reversed(source.pop())])

    def _change(self, box: Box, labels: np.ndarray) -> tuple[Box, np.ndarray]:
        """Replace the labels in a box, and the counts with them; return what takes it back."""
        before = self.array[box].copy()
        if self._truth is not None:
            self._pixels -= self._count_labels(box)
            self._surface -= self._count_surface(box)
        self.array[box] = labels
        if self._truth is not None:
            self._pixels += self._count_labels(box)
            self._surface += self._count_surface(box)
        return box, before

    def dice(self, label: int | None = None) -> float:
        """Return the Dice of a label, or of all spine (None)."""
        of_mask, of_truth, both = self._pixels[256 if label is None else label]
        total = of_mask + of_truth
        return float(2 * both / total) if total else float("nan")

    @property
    def nsd(self) -> float:
        """The NSD of all spine at the tolerance; see `metrics.nsd`."""
        within, total = self._surface
        return float(within / total) if total else float("nan")

    def _count_labels(self, box: Box) -> np.ndarray:
        """Return voxels of the mask, of the truth, and of both, by label; row 256 is all spine."""
        where = ... if self._scored is None else self._scored[box]
        mask, truth = self.array[box][where].ravel(), self._truth[box][where].ravel()
        counts = np.zeros((257, 3), np.int64)
        for column, labels in enumerate((mask, truth, mask[mask == truth])):
            counts[:256, column] = np.bincount(labels, minlength=256)
        spine = mask > 0, truth > 0
        counts[256] = [np.count_nonzero(part) for part in (*spine, spine[0] & spine[1])]
        return counts

    def _count_surface(self, box: Box) -> np.ndarray:
        """Return how many surface voxels that a change in a box touches are near, and how many."""
        touched = _grow(box, self._reach, self.array.shape)
        wide = _grow(touched, self._reach, self.array.shape)
        scored = np.bool_(True) if self._scored is None else self._scored[wide]
        masks = [(array[wide] > 0) & scored for array in (self.array, self._truth)]
        surfaces = [mask & ~ndimage.binary_erosion(mask | ~scored) for mask in masks]
        inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(touched, wide))
        limit, counts = TOLERANCE_MM + ROUNDING_MM, np.zeros(2, np.int64)
        for surface, other in (surfaces, reversed(surfaces)):
            points = np.argwhere(surface[inside]) + [part.start for part in inside]
            counts[1] += len(points)
            others = np.argwhere(other)
            if len(points) and len(others):
                tree, spacing = KDTree(others * self.ct.spacing_mm), self.ct.spacing_mm
                apart, _ = tree.query(points * spacing, distance_upper_bound=limit + ROUNDING_MM)
                counts[0] += np.count_nonzero(apart <= limit)
        return counts


def _grow(box: Box, margins: Sequence[int], shape: Voxel) -> Box:
    return tuple(
        slice(max(0, part.start - margin), min(size, part.stop + margin))
        for part, margin, size in zip(box, margins, shape)
    )


class Brush(widgets.VBox):
    """The tools that correct the mask of a scene, from the first stroke on a copy of it."""

    def __init__(
        self,
        scene: Scene,
        truth: Volume | None,
        labels: Sequence[int],
        changed: Callable[[], None],
    ) -> None:
        self._scene, self._truth, self._changed = scene, truth, changed
        self._editor: MaskEditor | None = None
        self._stroke, self._used = None, 0
        self.tool = widgets.ToggleButtons(
            options=(LOOK, PAINT, ERASE, FILL), description="brush", style={"button_width": "64px"}
        )
        ids = [1] if scene.binary else [label for label in (*CANONICAL, *labels) if label]
        names = [("spine" if scene.binary else label_name(label), label) for label in ids]
        self.label = ui.choice("label", names, 1 if scene.binary else labels[0])
        self.radius = ui.Slider("radius mm", 5.0, 0.5, 30.0, 0.5)
        self.ball = widgets.Checkbox(description="ball", indent=False)
        self.low, self.high = (
            ui.Slider(name, value, *HU_LIMITS) for name, value in zip(("HU from", "to"), HU_LIMITS)
        )
        self.undo = ui.button("undo", lambda: self.press("z"))
        self.redo = ui.button("redo", lambda: self.press("y"))
        self.scores = ui.Caption()
        buttons = ui.row(self.ball, self.undo, self.redo)
        self._options = ui.column(
            self.label, self.radius, self.low, self.high, buttons, self.scores
        )
        self._options.layout.display = "none"
        super().__init__([self.tool, self._options])
        self.tool.observe(self._choose_tool, "value")
        self.radius.observe(lambda _: changed(), "value")
        self.label.observe(lambda _: self._write_scores(), "value")

    @property
    def editor(self) -> MaskEditor:
        """The editor, made where it is first needed, since it copies the mask."""
        if self._editor is None:
            scene = self._scene
            self._editor = MaskEditor(scene.ct, scene.mask, self._truth, scene.ignore)
            scene.change_mask(self._editor.mask)
        return self._editor

    def stroke(self, stroke: dict, plane: str, index: int) -> None:
        """Paint what is new of a stroke; see `controls.Picture`."""
        if stroke["id"] != self._stroke:
            self._stroke, self._used = stroke["id"], 0
            self.editor.begin()
        voxels = [
            voxel_at_share(self._scene.ct.shape, plane, index, *point)
            for point in stroke["points"][max(self._used - 1, 0) :]
        ]
        self._apply(voxels, plane_axes(plane)[0])
        self._used = len(stroke["points"])
        self._show_change()

    def _apply(self, voxels: Sequence[Voxel], cut: int) -> None:
        label = 0 if self.tool.value == ERASE else self.label.value
        hu_range = self.low.value, self.high.value
        if self.tool.value == FILL:
            if self._used == 0 and not self.editor.fill(voxels[0], label, cut, hu_range):
                self.scores.text = "Nothing to fill: the area is open; limit it by HU or close it."
            return
        within = None if self.ball.value else cut
        for start, end in zip(voxels[:-1] or voxels, voxels[1:] or voxels):
            self.editor.paint(start, end, self.radius.value, label, within, hu_range)

    def press(self, name: str) -> None:
        """Answer a key: z undoes, y redoes, [ and ] change the radius."""
        if name in "[]":
            self.radius.value += {"[": -1, "]": 1}[name]
            return
        {"z": self.editor.undo, "y": self.editor.redo}[name]()
        self._show_change()

    def _choose_tool(self, change: dict) -> None:
        self._options.layout.display = "none" if change["new"] == LOOK else None
        if change["new"] != LOOK:
            self._write_scores()
        self._changed()

    def _show_change(self) -> None:
        self._scene.change_mask(self.editor.mask)
        self._write_scores()
        self._changed()

    def _write_scores(self) -> None:
        editor, label = self.editor, self.label.value
        if self._truth is None:
            return
        text = f"Dice {score_text(editor.dice())}, NSD at {TOLERANCE_MM:g} mm "
        text += score_text(editor.nsd)
        if not editor.binary:
            text += f"; {label_name(label)}: Dice {score_text(editor.dice(label))}"
        self.scores.text = f"{text}."
