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
from spine_lib.explore.controls import Caption, button, choice, described, row, slider
from spine_lib.explore.scene import Scene, Voxel, is_spine, label_name, score_text
from spine_lib.metrics.surfaces import ROUNDING_MM

LOOK, PAINT, ERASE, FILL = "look", "paint", "erase", "fill"
HU_LIMITS = (-1024, 3071)
TOLERANCE_MM = 2.0

Box = tuple[slice, slice, slice]


class MaskEditor:
    """A copy of a mask that strokes change, with its Dice and NSD against a truth.

    Args:
        ct: scan in HU.
        mask: labels or booleans on its grid; None begins with an empty mask of booleans.
        truth: labels or booleans on its grid, or None.
        ignore: boolean on its grid, True where nothing is scored, or None.
        tolerance_mm: of the NSD.

    Attributes:
        array: uint8 [x, y, z], the corrected labels.
    """

    def __init__(
        self,
        ct: Volume,
        mask: Volume | None,
        truth: Volume | None = None,
        ignore: Volume | None = None,
        tolerance_mm: float = TOLERANCE_MM,
    ) -> None:
        self.ct, self.binary = ct, mask is None or mask.array.dtype.kind in "bf"
        self.array = np.zeros_like(ct.array, np.uint8)
        if mask is not None:
            self.array[:] = is_spine(mask.array) if self.binary else mask.array
        self._done: list[list[tuple]] = []
        self._undone: list[list[tuple]] = []
        self._scored = None if ignore is None else ~(ignore.array > 0)
        self._reach = [int(np.ceil(tolerance_mm / mm)) + 1 for mm in ct.spacing_mm]
        self.tolerance_mm, self._truth = tolerance_mm, None
        if truth is not None:
            self._truth = is_spine(truth.array).view(np.uint8) if self.binary else truth.array
            either = ((self.array > 0) | (self._truth > 0)).view(np.uint8)
            (box,) = ndimage.find_objects(either) or [(slice(0, 0),) * 3]
            where = np.ones(self.array[box].shape, bool)
            self._pixels, self._surface = self._count_labels(box, where), self._count_surface(box)

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
        hu_range: tuple[float, float] | None = None,
    ) -> None:
        """Give a label to the voxels within a radius of a line, from `start` to `end`.

        Args:
            radius_mm: of the brush; the voxels of the line itself are always painted.
            label: 0 erases.
            cut: the axis of the slice in which it paints; None paints a ball.
            hu_range: lowest and highest HU of the voxels that may change.
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
        self, voxel: Voxel, label: int, cut: int, hu_range: tuple[float, float] | None = None
    ) -> bool:
        """Give a label to the connected area of one label around a voxel, in one slice.

        Returns:
            False, with nothing changed, where the area reaches the edge of the slice.
        """
        whole = [slice(None)] * 3
        whole[cut] = slice(voxel[cut], voxel[cut] + 1)
        box = tuple(slice(*part.indices(n)) for part, n in zip(whole, self.array.shape))
        alike = (self.array[box] == self.array[voxel]) & self._allowed(box, hu_range)
        pieces, _ = ndimage.label(alike)
        inside = list(voxel)
        inside[cut] = 0
        piece = pieces[tuple(inside)]
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

    def _allowed(self, box: Box, hu_range: tuple[float, float] | None) -> np.ndarray | bool:
        if hu_range is None:
            return True
        return (self.ct.array[box] >= hu_range[0]) & (self.ct.array[box] <= hu_range[1])

    def _swap(self, source: list[list[tuple]], target: list[list[tuple]]) -> None:
        if not source:
            return
        stroke = source.pop()
        target.append([])
        for box, where, before in reversed(stroke):
            target[-1].append((box, where, self.array[box][where]))
            self._change(box, where, before)

    def _write(self, box: Box, where: np.ndarray, label: int) -> None:
        where &= self.array[box] != label
        if where.any():
            self._done[-1].append((box, where, self.array[box][where]))
            self._change(box, where, label)

    def _change(self, box: Box, where: np.ndarray, labels: np.ndarray | int) -> None:
        if self._truth is None:
            self.array[box][where] = labels
            return
        self._pixels -= self._count_labels(box, where)
        self._surface -= self._count_surface(box)
        self.array[box][where] = labels
        self._pixels += self._count_labels(box, where)
        self._surface += self._count_surface(box)

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

    def _count_labels(self, box: Box, where: np.ndarray) -> np.ndarray:
        """Return voxels of the mask, of the truth, and of both, by label; row 256 is all spine."""
        if self._scored is not None:
            where = where & self._scored[box]
        mask, truth = self.array[box][where], self._truth[box][where]
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
        if not (masks[0].any() or masks[1].any()):
            return np.zeros(2, np.int64)
        surfaces = [mask & ~ndimage.binary_erosion(mask | ~scored) for mask in masks]
        inside = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(touched, wide))
        limit, counts = self.tolerance_mm + ROUNDING_MM, np.zeros(2, np.int64)
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
    """The tools that correct the mask of a scene.

    Args:
        scene: its mask is replaced by the corrected one at the first stroke.
        truth: what the corrected mask is scored against, or None.
        labels: ids in the mask, of which the first is painted at the start.
        changed: called after each change of the mask or of a tool.
    """

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
        tools, width = (
            (LOOK, PAINT, ERASE, FILL),
            {"button_width": "64px"},
        )
        self.tool = widgets.ToggleButtons(options=tools, description="brush", style=width)
        names = (
            [("spine", 1)]
            if scene.binary
            else [(label_name(n), n) for n in (*CANONICAL, *labels) if n]
        )
        first = 1 if scene.binary else labels[0]
        self.label = choice("label", names, first)
        self.radius = slider("radius mm", 5.0, 0.5, 30.0, 0.5)
        self.ball = widgets.Checkbox(description="ball", indent=False)
        self.hu = widgets.IntRangeSlider(
            value=HU_LIMITS, min=HU_LIMITS[0], max=HU_LIMITS[1], **described("only HU")
        )
        self.undo = button("undo", lambda: self._step("undo"))
        self.redo = button("redo", lambda: self._step("redo"))
        self.scores = Caption()
        buttons = row(self.ball, self.undo, self.redo)
        self._options = widgets.VBox(
            [self.label, self.radius, self.hu, buttons, self.scores],
            layout=widgets.Layout(display="none"),
        )
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
        cut, rows, columns = plane_axes(plane)
        shape, voxels = self._scene.ct.shape, []
        for across, down in stroke["points"][max(self._used - 1, 0) :]:
            voxel = [index] * 3
            for axis, share in ((columns, across), (rows, down)):
                voxel[axis] = shape[axis] - 1 - min(int(share * shape[axis]), shape[axis] - 1)
            voxels.append(tuple(voxel))
        self._apply(voxels, cut)
        self._used = len(stroke["points"])
        self._show_change()

    def _apply(self, voxels: Sequence[Voxel], cut: int) -> None:
        label = 0 if self.tool.value == ERASE else self.label.value
        hu_range = None if self.hu.value == HU_LIMITS else self.hu.value
        if self.tool.value == FILL:
            if self._used == 0 and not self.editor.fill(voxels[0], label, cut, hu_range):
                self.scores.text = "Nothing to fill: the area is open; limit it by HU or close it."
            return
        for start, end in zip(voxels[:-1] or voxels, voxels[1:] or voxels):
            within = None if self.ball.value else cut
            self.editor.paint(start, end, self.radius.value, label, within, hu_range)

    def press(self, name: str) -> None:
        """Answer a key: z undoes, y redoes, [ and ] change the radius."""
        if name in "zy":
            self._step({"z": "undo", "y": "redo"}[name])
        else:
            self.radius.value += {"[": -1, "]": 1}[name]

    def _step(self, name: str) -> None:
        getattr(self.editor, name)()
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
        text = f"Dice {score_text(editor.dice())}, NSD at {editor.tolerance_mm:g} mm "
        text += score_text(editor.nsd)
        if not editor.binary:
            text += f"; {label_name(label)}: Dice {score_text(editor.dice(label))}"
        self.scores.text = f"{text}."
