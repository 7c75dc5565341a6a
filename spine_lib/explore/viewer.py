"""Look at one CT with its mask and a prediction, slice by slice."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import render
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
from spine_lib.explore.overlays import Paint
from spine_lib.explore.page import Panel, Stack, kept_slices, save_page
from spine_lib.explore.picture import Picture, legend_html, paints_shown, text_html
from spine_lib.explore.pointer import HOVER, PRESS, Pointer
from spine_lib.explore.render import PLANES, Style
from spine_lib.explore.scene import (
    Scene,
    dice_text,
    open_scene,
    share_in_slice,
    voxel_at_share,
    voxel_in_slice,
)


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
        window: a name from `spine_lib.ct.volume.WINDOWS`, or centre and width in HU.
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
        planes.require_choice("plane", plane, PLANES)
        self.scene, first = open_scene(ct, mask, prediction, ignore, case_id)
        self._counts: dict[float, SliceCounts] = {}
        style = self.scene.overlays[-1] if style is None and len(self.scene.overlays) > 2 else style
        style = style if isinstance(style, Style) else Style(style or "fill")
        if index is None:
            index = first.first_shown(plane, planes.slice_count(ct, plane))
        planes.checked_index(ct, index, plane)

        self.picture = Picture(size_px, name="slice")
        self.pointer = Pointer(self._pointed)
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
        return [row(left, right), self.pointer]

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

    def _pointed(self, kind: str, name: str, across: float, down: float) -> None:
        """Say what lies under the mouse; where it is pressed, the probe is set."""
        shape, plane = self.scene.ct.shape, self.plane.value
        voxel = voxel_at_share(shape, plane, self.slice.value, across, down)
        if kind == PRESS:
            self.look_at(voxel)
        else:
            self._say(*(("Mouse", voxel) if kind == HOVER else ("Probe", self._voxel)))

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
        return self.scene.bare()

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
        self._line = self._slice_text(index, plane)
        self._say("Probe", self._voxel)
        self.legend.value = self._legend(self._labels_here())

    def _say(self, what: str, voxel: tuple[int, int, int]) -> None:
        there = self.scene.voxel_text(voxel, self.look.threshold.value)
        self.text.value = text_html(f"{self._line}. {what} at {there}.")

    def _slice_text(self, index: int, plane: str) -> str:
        text = self.scene.slice_text(index, plane)
        counts = self.scene.dice_at(index, plane, self.look.threshold.value)
        return text if counts is None else f"{text}, {dice_text(counts)}"

    def save_html(
        self,
        path: str | Path,
        max_slices: int = 100,
        quality: int = 75,
        all_planes: bool = True,
    ) -> Path:
        """Write one page whose sliders work without Python and without a network.

        The page begins with what is shown now. It has a slice slider, the windows, the overlay as
        it is drawn now, to be faded or switched off, and a choice of plane.

        Args:
            path: `.html` file to write; some megabytes, see the arguments below.
            max_slices: of each plane; of more slices, every second (third ...) is kept.
            quality: of the CT's pictures, 1 to 100.
            all_planes: keep all three planes; otherwise the one that is shown, in half the room.

        Returns:
            The path.
        """
        first = self.plane.value
        others = [plane for plane in PLANES if plane != first] if all_planes else []
        scene, style = self._shown(), self.look.style
        panels = [Panel(self._stack(plane, max_slices), scene, style) for plane in (first, *others)]
        labels = [label for _, label in self.look.structures.options] or [1]
        return save_page(
            path, f"CT of case {scene.case_id}", panels, self.window.window,
            choose_plane=all_planes, legend=self._legend(labels), quality=quality,
        )  # fmt: skip

    def _stack(self, plane: str, max_slices: int) -> Stack:
        ct, index = self.scene.ct, self._voxel[planes.plane_axes(plane)[0]]
        indices = kept_slices(planes.slice_count(ct, plane), max_slices)
        texts = [f"{self._slice_text(one, plane)}." for one in indices]
        return Stack(ct, plane, indices, index, texts)

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
