"""Look at one CT with its mask and a prediction, slice by slice."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib import planes, render
from spine_lib.ct import Volume
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import (
    Held,
    LookControls,
    WindowControls,
    button,
    choice,
    column,
    row,
    whole,
)
from spine_lib.explore.counts import SliceCounts, count_slices, next_marked
from spine_lib.explore.page import Stack, kept_slices, plain_slices, save_page, slice_panel
from spine_lib.explore.picture import Picture, legend_html, paints_shown, text_html
from spine_lib.explore.scene import Scene, dice_text, share_in_slice, voxel_in_slice
from spine_lib.overlays import Paint
from spine_lib.render import PLANES, Style


class SliceViewer(Viewer):
    """Scroll through a CT: planes, windows, overlays, and where a prediction is wrong.

    Args:
        ct: scan in HU, [x, y, z] in RAS+.
        mask: canonical labels or booleans on its grid.
        prediction: labels, booleans or probabilities (0 to 1) on its grid.
        ignore: boolean on its grid, True where nothing is scored.
        case_id: name in alt texts; by default the name of the CT's file.
        plane: "axial", "coronal" or "sagittal".
        index: slice to begin with; by default the one with the most spine.
        window: a name from `spine_lib.ct.WINDOWS`, or centre and width in HU.
        style: how overlays begin; by default errors where there are two masks, else a fill.
        size_px: length of the picture's longer side on the screen.

    Raises:
        SpineError: where volumes lie on different grids, with the reason, or a choice is unknown.

    Example:
        >>> SliceViewer(case.ct, case.labels, ignore=case.ignore)  # doctest: +SKIP
    """

    def __init__(
        self,
        ct: Volume,
        mask: Volume | None = None,
        prediction: Volume | None = None,
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        plane: str = "axial",
        index: int | None = None,
        window: str | tuple[float, float] = "bone",
        style: Style | str | None = None,
        size_px: int = 512,
    ) -> None:
        self.scene = Scene(ct, mask, prediction, ignore, case_id)
        planes.require_choice("plane", plane, PLANES)
        self._counts: dict[float, SliceCounts] = {}
        first = count_slices(mask if mask is not None else prediction)
        self.scene = self.scene.told_labels(first.labels)
        style = self.scene.overlays[-1] if style is None and len(self.scene.overlays) > 2 else style
        style = style if isinstance(style, Style) else Style(style or "fill")
        index = self._first_index(first, plane) if index is None else index
        planes.checked_index(ct, index, plane)

        self.picture = Picture(size_px)
        self.text, self.legend = widgets.HTML(), widgets.HTML()
        self._make_controls(plane, index, window, style, first.labels)
        self._voxel = self._first_voxel(plane, index)
        self._place_sliders(plane)
        super().__init__(self._arranged())
        self._draw()

    def _make_controls(self, plane, index, window, style, labels) -> None:
        ct = self.scene.ct
        self.plane = choice("plane", PLANES, plane)
        self.slice = whole("slice", index, 0, planes.slice_count(ct, plane) - 1)
        self.across = whole("probe right", 0, 0, 0)
        self.down = whole("probe down", 0, 0, 0)
        self.window = WindowControls(window, self._draw)
        self.look = LookControls(self.scene, style, labels, self._draw)
        self.slice.layout.width = f"{self.picture.size_px}px"
        self.next_spine = button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = button("Next error", lambda: self._go_to_next("wrong"))
        self.worst = button("Worst slice", lambda: self._go(self.counts.worst(self.plane.value)))
        self._held = Held(self._moved)
        self._held.watch(self.slice, self.across, self.down)
        self.plane.observe(self._turned, "value")

    def _arranged(self) -> list[widgets.Widget]:
        buttons = []
        if self.scene.mask is not None or self.scene.prediction is not None:
            buttons.append(self.next_spine)
        if self.scene.mask is not None and self.scene.prediction is not None:
            buttons += [self.next_error, self.worst]
        width = self.picture.size_px
        left = column(self.slice, self.picture, self.text, self.legend, width_px=width)
        probe = column(self.across, self.down)
        right = column(self.plane, row(*buttons), self.window, self.look, probe, width_px=310)
        return [row(left, right)]

    @property
    def counts(self) -> SliceCounts:
        """Spine and errors by slice at the current threshold; counted when first asked for."""
        threshold = self.look.threshold.value
        if threshold not in self._counts:
            scene = self.scene
            self._counts = {
                threshold: count_slices(scene.mask, scene.prediction, scene.ignore, threshold)
            }
        return self._counts[threshold]

    def _first_index(self, counts: SliceCounts, plane: str) -> int:
        fullest = counts.fullest(plane) if counts.by_plane else None
        return planes.slice_count(self.scene.ct, plane) // 2 if fullest is None else fullest

    def _first_voxel(self, plane: str, index: int) -> tuple[int, int, int]:
        """Return a voxel of the slice: in the middle of its spine, else of the slice."""
        cut = planes.plane_axes(plane)[0]
        voxel = [size // 2 for size in self.scene.ct.shape]
        mask = self.scene.mask
        if mask is not None:
            spine = np.argwhere(np.moveaxis(mask.array, cut, 0)[index] > 0)
            if len(spine):
                middle = spine[np.abs(spine - np.median(spine, axis=0)).sum(axis=1).argmin()]
                voxel[:cut], voxel[cut + 1 :] = middle[:cut].tolist(), middle[cut:].tolist()
        voxel[cut] = index
        return tuple(voxel)

    def _place_sliders(self, plane: str) -> None:
        """Set the sliders to the probed voxel, in a plane."""
        shape, (cut, rows, columns) = self.scene.ct.shape, planes.plane_axes(plane)
        places = {
            self.slice: (shape[cut], self._voxel[cut]),
            self.across: (shape[columns], shape[columns] - 1 - self._voxel[columns]),
            self.down: (shape[rows], shape[rows] - 1 - self._voxel[rows]),
        }
        with self._held.together():
            for slider, (size, value) in places.items():
                slider.max, slider.value = size - 1, value

    def _turned(self, change: dict) -> None:
        self._place_sliders(change["new"])
        self._draw()

    def _moved(self) -> None:
        self._voxel = voxel_in_slice(
            self.scene.ct.shape,
            self.plane.value,
            self.slice.value,
            self.across.value,
            self.down.value,
        )
        self._draw()

    def look_at(self, voxel: tuple[int, int, int]) -> None:
        """Go to the slice through a voxel, and probe it."""
        for plane in PLANES:
            planes.checked_index(self.scene.ct, voxel[planes.plane_axes(plane)[0]], plane)
        self._voxel = tuple(voxel)
        self._place_sliders(self.plane.value)
        self._draw()

    def _go_to_next(self, what: str) -> None:
        marked = getattr(self.counts, what)(self.plane.value)
        self._go(next_marked(marked, self.slice.value))

    def _go(self, index: int | None) -> None:
        if index is not None:
            self.slice.value = index

    def _shown(self) -> Scene:
        """Return the scene with what is switched on."""
        if self.look.visible:
            return self.scene
        return Scene(self.scene.ct, case_id=self.scene.case_id)

    def _draw(self) -> None:
        scene, style = self._shown(), self.look.style
        index, plane = self.slice.value, self.plane.value
        self.picture.show(
            scene.draw(index, plane, self.window.window, style),
            scene.alt_text(index, plane, style),
            plane,
            render.pixel_size_mm(scene.ct, plane, style.pixel_mm),
            share_in_slice(scene.ct.shape, plane, self._voxel),
        )
        self.text.value = text_html(f"{self._slice_text(index)}. Probe at {self._probe_text()}.")
        self.legend.value = self._legend(self._labels_here())

    def _slice_text(self, index: int) -> str:
        plane = self.plane.value
        count = planes.slice_count(self.scene.ct, plane)
        letter = "RAS"[planes.plane_axes(plane)[0]]
        position = planes.slice_position_mm(self.scene.ct, index, plane)
        text = (
            f"{plane} slice {index + 1} of {count} (index {index}) at {letter} {position:+.1f} mm"
        )
        counts = self.scene.dice_at(index, plane, self.look.threshold.value)
        return text if counts is None else f"{text}, {dice_text(counts)}"

    def _probe_text(self) -> str:
        return self.scene.voxel_text(self._voxel, self.look.threshold.value)

    def save_html(self, path: str | Path, max_slices: int = 100, quality: int = 80) -> Path:
        """Write one page whose sliders work without Python and without a network.

        The page has the slices of the current plane in the current window and style, and a slider
        for the opacity of the overlay.

        Args:
            path: `.html` file to write.
            max_slices: of more slices, every second (third ...) is kept.
            quality: of the pictures, 1 to 100.

        Returns:
            The path.
        """
        plane, style, window = self.plane.value, self.look.style, self.window.window
        scene = self._shown()
        indices = kept_slices(planes.slice_count(scene.ct, plane), max_slices)
        start = min(range(len(indices)), key=lambda at: abs(indices[at] - self.slice.value))
        stack = Stack(f"{plane} slice", [self._slice_text(index) for index in indices], start)
        base = plain_slices(scene, indices, plane, window, style)
        panel = slice_panel(scene, base, stack, indices, plane, window, style)
        labels = [label for _, label in self.look.structures.options] or [1]
        legend = self._legend(labels)
        return save_page(path, f"CT of case {scene.case_id}", [panel], legend, quality)

    def paints(self) -> list[Paint]:
        """Return the paints of the slice that is shown."""
        return self._paints_of(self._labels_here())

    def _labels_here(self) -> list[int]:
        threshold = self.look.threshold.value
        return self._shown().labels_in(self.slice.value, self.plane.value, threshold)

    def _paints_of(self, labels: list[int]) -> list[Paint]:
        scene = self._shown()
        if scene.mask is None and scene.prediction is None:
            return []
        return paints_shown(labels, self.look.style, scene.binary, scene.ignore is not None)

    def _legend(self, labels: list[int]) -> str:
        scene, style = self._shown(), self.look.style
        both = scene.mask is not None and scene.prediction is not None
        return legend_html(self._paints_of(labels), both and style.overlay != "error")
