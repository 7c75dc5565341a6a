"""Look at three planes of a CT at once, linked by one cursor."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import render
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import Held, LookControls, WindowControls, column, row, whole
from spine_lib.explore.layers import fitted
from spine_lib.explore.overlays import Paint
from spine_lib.explore.page import Panel, Stack, kept_slices, save_page
from spine_lib.explore.picture import Picture, legend_html, paints_shown, text_html
from spine_lib.explore.pointer import HOVER, PRESS, Pointer
from spine_lib.explore.render import PLANES, Style
from spine_lib.explore.scene import Scene, open_scene, share_in_slice, voxel_at_share

_AXES = ("L to R", "P to A", "I to S")


class OrthoViewer(Viewer):
    """Show the axial, coronal and sagittal slice through one point of the patient.

    Args:
        ct, mask, prediction, ignore, case_id, window, style: as for `SliceViewer`.
        voxel: x, y, z to begin with; by default the middle of the slice with the most spine.
        size_px: length of each picture's longer side on the screen.

    Raises:
        SpineError: where volumes lie on different grids, or the voxel outside of them.
    """

    def __init__(
        self,
        ct: Volume,
        mask: Volume | None = None,
        prediction: Volume | None = None,
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        voxel: tuple[int, int, int] | None = None,
        window: str | tuple[float, float] = "bone",
        style: Style | str = "fill",
        size_px: int = 272,
    ) -> None:
        self.scene, counts = open_scene(ct, mask, prediction, ignore, case_id)
        voxel = self._first_voxel() if voxel is None else voxel
        for plane in PLANES:
            planes.checked_index(ct, voxel[planes.plane_axes(plane)[0]], plane)
        self._size_px, self._drawn = size_px, {}
        self.axes = tuple(
            whole(name, start, 0, size - 1) for name, start, size in zip(_AXES, voxel, ct.shape)
        )
        self.window = WindowControls(window, self._draw)
        style = style if isinstance(style, Style) else Style(style)
        self.look = LookControls(self.scene, style, counts.labels, self._draw)
        self._pictures = {plane: Picture(size_px, name=plane) for plane in PLANES}
        self.pointer = Pointer(self._pointed)
        self.text, self.legend = widgets.HTML(), widgets.HTML()
        self._held = Held(self._draw)
        self._held.watch(*self.axes)
        left = column(*self.axes, self.text, self.legend, width_px=420)
        pictures = row(*self._pictures.values())
        super().__init__([pictures, row(left, column(self.window, self.look)), self.pointer])
        self._draw()

    def _first_voxel(self) -> tuple[int, int, int]:
        """Return a voxel in the middle of the spine, else of the volume."""
        mask, shape = self.scene.mask, self.scene.ct.shape
        steps = tuple(max(1, size // 64) for size in shape)
        if mask is not None:
            coarse = mask.array[:: steps[0], :: steps[1], :: steps[2]] > 0
            spine = np.argwhere(coarse) * steps
            if len(spine):
                nearest = np.abs(spine - np.median(spine, axis=0)).sum(axis=1).argmin()
                return tuple(int(place) for place in spine[nearest])
        return tuple(size // 2 for size in shape)

    @property
    def voxel(self) -> tuple[int, int, int]:
        """The voxel under the cursor."""
        return tuple(slider.value for slider in self.axes)

    def pictures(self) -> tuple[Picture, ...]:
        """Return the axial, the coronal and the sagittal picture."""
        return tuple(self._pictures.values())

    def paints(self) -> list[Paint]:
        """Return the paints of the three slices that are shown."""
        scene, style = self._shown(), self.look.style
        if scene.mask is None and scene.prediction is None:
            return []
        labels = {
            label
            for plane in PLANES
            for label in scene.labels_in(self._index(plane), plane, style.threshold)
        }
        return paints_shown(sorted(labels), style, scene.binary, scene.ignore is not None)

    def _shown(self) -> Scene:
        if self.look.visible:
            return self.scene
        return self.scene.bare()

    def _index(self, plane: str) -> int:
        return self.voxel[planes.plane_axes(plane)[0]]

    def _style(self, plane: str) -> Style:
        """Return the style, with pixels no finer than the screen shows them."""
        return fitted(self.look.style, self.scene.ct, plane, self._size_px)

    def _pointed(self, kind: str, plane: str, across: float, down: float) -> None:
        """Say what lies under the mouse; where it is pressed, the cursor is set."""
        index, shape = self._index(plane), self.scene.ct.shape
        voxel = voxel_at_share(shape, plane, index, across, down)
        if kind == PRESS:
            with self._held.together():
                for slider, place in zip(self.axes, voxel):
                    slider.value = place
            self._draw()
        else:
            self._say(*(("Mouse", voxel) if kind == HOVER else ("Cursor", self.voxel)))

    def _say(self, what: str, voxel: tuple[int, int, int]) -> None:
        there = self.scene.voxel_text(voxel, self.look.threshold.value)
        self.text.value = text_html(f"{what} at {there}.")

    def _draw(self) -> None:
        for plane, picture in self._pictures.items():
            self._draw_plane(plane, picture)
        self._say("Cursor", self.voxel)
        scene = self._shown()
        both = scene.mask is not None and scene.prediction is not None
        dashed = both and self.look.style.overlay != "error"
        self.legend.value = legend_html(self.paints(), dashed)

    def _draw_plane(self, plane: str, picture: Picture) -> None:
        """Draw a plane anew if it shows something else than before, else move its cursor."""
        scene, style, index = self._shown(), self._style(plane), self._index(plane)
        cursor = share_in_slice(scene.ct.shape, plane, self.voxel)
        wanted = (index, style, self.window.window, self.look.visible)
        if self._drawn.get(plane) == wanted:
            picture.point(cursor, lines=True)
            return
        self._drawn[plane] = wanted
        picture.show(
            scene.draw(index, plane, self.window.window, style),
            scene.alt_text(index, plane, style),
            plane,
            render.pixel_size_mm(scene.ct, plane, style.pixel_mm),
            cursor,
            lines=True,
        )

    def save_html(self, path: str | Path, max_slices: int = 100, quality: int = 75) -> Path:
        """Write one page with the three planes, a slider for each; see `SliceViewer.save_html`."""
        scene, style = self._shown(), self.look.style
        panels = []
        for plane in PLANES:
            indices = kept_slices(planes.slice_count(scene.ct, plane), max_slices)
            texts = [f"{scene.slice_text(one, plane)}." for one in indices]
            stack = Stack(scene.ct, plane, indices, self._index(plane), texts)
            panels.append(Panel(stack, scene, style))
        title, legend = f"CT of case {scene.case_id}", self.legend.value
        return save_page(path, title, panels, self.window.window, legend=legend, quality=quality)
