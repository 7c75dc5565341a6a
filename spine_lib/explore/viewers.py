"""Viewers of a whole scan: slice by slice, three linked planes, two models compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry
from spine_lib.ct.geometry import PLANES, plane_axes
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.brush import ERASE, LOOK, PAINT, Brush
from spine_lib.explore.overlays import SPINE_SWATCH, Swatch
from spine_lib.explore.page import Stack, fit_style, save_page
from spine_lib.explore.render import Style
from spine_lib.explore.scene import (
    Panel,
    Scene,
    SliceCounts,
    Voxel,
    dice_text,
    middle_voxel,
    next_marked,
    score_text,
    share_in_slice,
    voxel_at_share,
)

Source = Volume | str | Path
SIDE_BY_SIDE = "side by side"
AXES = ("L to R", "P to A", "I to S")


class ScanViewer(ui.Viewer):
    """The base of the viewers of a scan: it writes their slices to a page.

    A subclass names its `_panels`, its `_title`, the `_index` that a plane shows and the
    `_slice_text` of any slice.
    """

    one_plane_at_once = True

    def save_html(self, path: str | Path, max_slices: int = 100) -> Path:
        """Write one page that works like the viewer, without Python and a network; return its path.

        The page begins with what is shown now, and has the slices, the windows and the overlay.

        Args:
            path: `.html` file to write, of some megabytes.
            max_slices: of each plane; of more slices, every second (third ...) is kept.

        Raises:
            SpineError: where there are no slices or the file cannot be written.
        """
        if max_slices < 1:
            raise SpineError(f"A page with {max_slices} slices shows nothing: give 1 or more.")
        first, panels, stacks = self._shown_planes()[0], self._panels(), []
        for plane in sorted(PLANES, key=lambda plane: plane != first):
            count = geometry.slice_count(panels[0].scene.ct, plane)
            indices = range(0, count, -(-count // max_slices))
            texts = [f"{self._slice_text(kept, plane)}." for kept in indices]
            chart = self._saved_chart(plane, indices)
            stacks.append(Stack(plane, indices, self._index(plane), texts, panels, *chart))
        one_at_once, window = self.one_plane_at_once, self.window.window
        return save_page(path, self._title(), stacks, window, one_at_once, *self._saved_legend())

    def _shown_planes(self) -> Sequence[str]:
        return (self.plane.value,)

    def _saved_legend(self) -> tuple[Sequence[Swatch], Sequence[int]]:
        """Return the legend of all slices, and the structures that can be switched off."""
        return self.swatches(), ()

    def _saved_chart(self, plane: str, indices: Sequence[int]) -> tuple:
        return ()

    def _show_index(self, index: int | None) -> None:
        if index is not None:
            self.slice.value = index


class MaskViewer(ScanViewer):
    """The base of the viewers of one mask and one prediction, with a voxel that is described."""

    voxel_name = "Cursor"

    def __init__(
        self,
        volumes: Sequence,
        case_id: str,
        window: str | tuple[float, float],
        style: Style | str,
    ) -> None:
        super().__init__()
        self.scene = Scene(*volumes, case_id)
        labels = self.scene.count_slices().labels
        style = style if isinstance(style, Style) else Style(style)
        self.window = ui.WindowControls(window, self._draw)
        self.overlay = ui.OverlayControls(self.scene, style, labels, self._draw)
        self.axes = [
            ui.Slider(name, 0, 0, size - 1) for name, size in zip(AXES, self.scene.ct.shape)
        ]
        self._line = ""

    def _arrange(self, *children: widgets.Widget) -> None:
        self._sliders = ui.Observer(self._draw, *self.axes)
        super()._arrange(*children)

    @property
    def voxel(self) -> Voxel:
        """The voxel that is described, x, y, z."""
        return tuple(control.value for control in self.axes)

    def go_to(self, voxel: Voxel) -> None:
        """Show the slices through a voxel, and describe it."""
        with self._sliders.together():
            self._set_voxel(voxel)

    def _set_voxel(self, voxel: Voxel) -> None:
        for control, index, plane in zip(self.axes, voxel, ("sagittal", "coronal", "axial")):
            control.value = geometry.checked_index(self.scene.ct, index, plane)

    def _voxel_in_slice(self, index: int, plane: str) -> Voxel:
        """Return a voxel of the slice: in the middle of its spine, else of the slice."""
        cut, mask = plane_axes(plane)[0], self.scene.mask
        image = np.moveaxis(self.scene.ct.array if mask is None else mask.array, cut, 0)[index]
        voxel = middle_voxel((image > 0) & (mask is not None))
        return (*voxel[:cut], index, *voxel[cut:])

    def swatches(self) -> list[Swatch]:
        """Return the legend of the slices that are shown."""
        slices = ((self._index(plane), plane) for plane in self._shown_planes())
        return self._shown.legend(slices, self.overlay.style)

    @property
    def _shown(self) -> Scene:
        return self.scene if self.overlay.visible else self.scene.bare

    def _answer_pointer(self, picture: ui.Picture, pointer: list) -> None:
        kind, across, down = pointer[:3]
        plane = self._shown_planes()[self.pictures.index(picture)]
        shape = self.scene.ct.shape
        voxel = voxel_at_share(shape, plane, self._index(plane), across, down)
        if kind == ui.PRESS:
            self.go_to(voxel)
        elif kind == ui.LEAVE:
            self._describe(self.voxel_name, self.voxel)
        else:
            self._describe("Mouse", voxel)

    def _describe(self, name: str, voxel: Voxel) -> None:
        text = self.scene.voxel_text(voxel, self.overlay.threshold.value)
        self.caption.text = f"{self._line}{name} at {text}."

    def _draw(self) -> None:
        for plane, picture in zip(self._shown_planes(), self.pictures):
            panel = Panel(self._shown, self._style(plane))
            with picture.hold_sync():
                picture.show_slice(panel, self._index(plane), plane, self.window.window)
                picture.cursor = share_in_slice(self.scene.ct.shape, plane, self.voxel)
        dashed = self._shown.compared and self.overlay.kind.value != "error"
        with self.caption.hold_sync():
            self._describe(self.voxel_name, self.voxel)
            self.caption.swatches = ui.swatch_list(self.swatches(), dashed)

    def _style(self, plane: str) -> Style:
        return self.overlay.style

    def _index(self, plane: str) -> int:
        return self.voxel[plane_axes(plane)[0]]

    def _title(self) -> str:
        return self.scene.name

    def _panels(self) -> list[Panel]:
        return [Panel(self._shown, self.overlay.style)]

    def _slice_text(self, index: int, plane: str) -> str:
        return self.scene.slice_text(index, plane)

    def _saved_legend(self) -> tuple[Sequence[Swatch], Sequence[int]]:
        style = self.overlay.style
        structures = [] if self.scene.binary else self.overlay.structures.value
        swatches = self._shown.swatches(structures or [1], style)
        chosen = self.overlay.visible and style.overlay != "error"
        return swatches, structures if chosen else ()


class SliceViewer(MaskViewer):
    """Scroll through a CT: planes, windows, overlays, and where a prediction is wrong.

    Args:
        ct: scan in HU, [x, y, z] in RAS+; each volume may be given as a path too.
        mask: canonical labels or booleans on its grid.
        prediction: labels, booleans or probabilities (0 to 1) on its grid.
        ignore: boolean on its grid, True where nothing is scored.
        case_id: name in alt texts; by default the name of the CT's file.
        plane: "axial", "coronal" or "sagittal".
        index: slice to begin with; by default the one with the most spine.
        window: a name from `spine_lib.ct.volume.WINDOWS`, or centre and width in HU.
        style: of the overlay at the start; by default errors where there are two masks, else a
            fill.
        size_px: length of the picture's longer side on the screen.
        truth: labels or booleans on its grid, against which the brush scores the corrected mask.

    Raises:
        SpineError: where volumes lie on different grids, with the reason, or a choice is unknown.

    Example:
        >>> SliceViewer(case.ct, case.labels, ignore=case.ignore)  # doctest: +SKIP
    """

    voxel_name = "Probe"

    def __init__(
        self,
        ct: Source,
        mask: Source | None = None,
        prediction: Source | None = None,
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        plane: str = "axial",
        index: int | None = None,
        window: str | tuple[float, float] = "bone",
        style: Style | str | None = None,
        size_px: int = 470,
        truth: Source | None = None,
    ) -> None:
        geometry.require_choice("plane", plane, PLANES)
        if style is None:
            style = "fill" if mask is None or prediction is None else "error"
        super().__init__((ct, mask, prediction, ignore), case_id, window, style)
        scene, counts = self.scene, self.scene.count_slices()
        if index is None:
            index = counts.fullest(plane, geometry.slice_count(scene.ct, plane))
        self._set_voxel(self._voxel_in_slice(geometry.checked_index(scene.ct, index, plane), plane))
        self.plane = ui.choice("plane", PLANES, plane)
        self.plane.observe(lambda _: self._turn(), "value")
        self.picture = ui.Picture(size_px)
        self.pictures = [self.picture]
        self.next_spine = ui.button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = ui.button("Next error", lambda: self._go_to_next("wrong"))
        self.worst = ui.button("Worst slice", self._go_to_worst)
        truth = None if truth is None else Scene(scene.ct, truth).mask
        self.brush = Brush(scene, truth, counts.labels, self._draw)

        buttons = [self.next_spine] if scene.labelled is not None else []
        buttons += [self.next_error, self.worst] if scene.compared else []
        self._below, self._probe = ui.column(), ui.column()
        left = ui.column(self.picture, self._below, self.caption, width_px=size_px + 36)
        right = (self.plane, ui.row(*buttons), self.brush, self.window, self.overlay, self._probe)
        self._turn()
        self._arrange(ui.row(left, ui.column(*right, width_px=310)))

    @property
    def slice(self) -> ui.Slider:
        """The slider of the plane's slices."""
        return self.axes[plane_axes(self.plane.value)[0]]

    @property
    def mask(self) -> Volume | None:
        """The mask as the brush corrected it; `save_nifti` writes it onto the scan's grid."""
        return self.scene.mask

    @property
    def counts(self) -> SliceCounts:
        """Spine and errors by slice at the current threshold."""
        return self.scene.count_slices(self.overlay.threshold.value)

    def _turn(self) -> None:
        """Put the slider of the plane below the picture, and the others to the probe."""
        for control, name in zip(self.axes, AXES):
            is_slice = control is self.slice
            control.description = "slice" if is_slice else f"probe {name}"
            control.width_px = self.picture.size_px if is_slice else 310
        self.picture.follow(self.slice)
        self._below.children = [self.slice]
        self._probe.children = [control for control in self.axes if control is not self.slice]
        self._draw()

    def _go_to_next(self, counts: str) -> None:
        marked = getattr(self.counts, counts)(self.plane.value)
        self._show_index(next_marked(marked, self.slice.value))

    def _go_to_worst(self) -> None:
        self._show_index(self.counts.worst(self.plane.value))

    def _draw(self) -> None:
        self._line = f"{self._slice_text(self.slice.value, self.plane.value)}. "
        with self.picture.hold_sync():
            super()._draw()
            tool, plane = self.brush.tool.value, self.plane.value
            sides_mm = np.multiply(self.scene.ct.shape, self.scene.ct.spacing_mm)
            radius = self.brush.radius.value / sides_mm[list(plane_axes(plane)[:0:-1])]
            self.picture.radius = radius.tolist() if tool in (PAINT, ERASE) else []
            self.picture.tool = "" if tool == LOOK else tool

    def _answer_stroke(self, picture: ui.Picture, stroke: dict) -> None:
        self.brush.stroke(stroke, self.plane.value, self.slice.value)
        self.overlay.structures.add(self.brush.label.value)

    def _answer_key(self, picture: ui.Picture, key: list) -> None:
        self.brush.press(key[0])

    def _slice_text(self, index: int, plane: str) -> str:
        text = self.scene.slice_text(index, plane)
        counts = self.scene.slice_confusion(index, plane, self.overlay.threshold.value)
        return text if counts is None else f"{text}, {dice_text(counts)}"


class OrthoViewer(MaskViewer):
    """Show the axial, coronal and sagittal slice through one point of the patient.

    Args:
        ct, mask, prediction, ignore, case_id, window, style: as for `SliceViewer`.
        voxel: x, y, z to begin with; by default in the middle of the spine.
        size_px: length of each picture's longer side on the screen.

    Raises:
        SpineError: where volumes lie on different grids, or the voxel outside of them.
    """

    one_plane_at_once = False

    def __init__(
        self,
        ct: Source,
        mask: Source | None = None,
        prediction: Source | None = None,
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        voxel: Voxel | None = None,
        window: str | tuple[float, float] = "bone",
        style: Style | str = "fill",
        size_px: int = 272,
    ) -> None:
        super().__init__((ct, mask, prediction, ignore), case_id, window, style)
        self._size_px = size_px
        if voxel is None:
            middle = self.scene.count_slices().middle(PLANES[0], self.scene.ct.shape[2])
            voxel = self._voxel_in_slice(middle, PLANES[0])
        self._set_voxel(voxel)
        self.pictures = [ui.Picture(size_px, self.axes[plane_axes(plane)[0]]) for plane in PLANES]
        for picture in self.pictures:
            picture.lines = True
        left = ui.column(*self.axes, self.caption, width_px=420)
        controls = ui.row(left, ui.column(self.window, self.overlay))
        self._arrange(ui.board(self.pictures), controls)

    def _shown_planes(self) -> Sequence[str]:
        return PLANES

    def _style(self, plane: str) -> Style:
        """Return the style, with pixels no finer than the screen shows them."""
        return fit_style(self.overlay.style, self.scene.ct, plane, self._size_px)


class CompareViewer(ScanViewer):
    """Show the truth and the errors of two models side by side, with the Dice of every slice.

    The models can be shown in one picture too, blended or as a checkerboard.

    Args:
        ct: scan in HU; each volume may be given as a path too.
        mask: the truth, canonical labels or booleans on its grid.
        first, second: labels, booleans or probabilities of the two models on its grid.
        names: of the two models.
        ignore, case_id, plane, index, window: as for `SliceViewer`.
        size_px: length of each picture's longer side on the screen.

    Raises:
        SpineError: where volumes lie on different grids, or the names are not two.
    """

    def __init__(
        self,
        ct: Source,
        mask: Source,
        first: Source,
        second: Source,
        names: tuple[str, str] = ("first model", "second model"),
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        plane: str = "axial",
        index: int | None = None,
        window: str | tuple[float, float] = "bone",
        size_px: int = 272,
    ) -> None:
        super().__init__()
        if len(names) != 2 or names[0] == names[1]:
            raise SpineError(f"The names {names!r} are not two different names: give one a model.")
        geometry.require_choice("plane", plane, PLANES)
        self.truth = truth = Scene(ct, mask, None, ignore, case_id)
        self.models = {
            name: Scene(truth.ct, truth.mask, prediction, ignore, truth.case_id)
            for name, prediction in zip(names, (first, second))
        }
        self.plane = ui.choice("plane", PLANES, plane)
        self.mix = ui.choice("models", (SIDE_BY_SIDE, "blended", "checkerboard"), SIDE_BY_SIDE)
        self.share = ui.Slider("of second", 0.5, 0.0, 1.0, 0.05)
        self.opacity = ui.Slider("opacity", 0.5, 0.0, 1.0, 0.05)
        self.threshold = ui.Slider("threshold", 0.5, 0.01, 0.99, 0.01)
        start = self._fullest(plane) if index is None else index
        start, count = geometry.checked_index(truth.ct, start, plane), self._count(plane)
        self.slice = ui.Slider("slice", start, 0, count - 1, 1, 640)
        self.window = ui.WindowControls(window, self._draw)
        controls = (self.slice, self.mix, self.share, self.opacity, self.threshold)
        self._sliders = ui.Observer(self._draw, *controls)
        self.plane.observe(lambda _: self._turn(), "value")
        self.chart.observe(lambda change: self._show_index(round(change["new"]) - 1), "mark")

        self.pictures = [ui.Picture(size_px, self.slice) for _ in range(3)]
        self.next_spine = ui.button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = ui.button("Next error", lambda: self._go_to_next("wrong"))
        self.disagree = ui.button("Largest difference", self._go_to_difference)
        buttons = ui.row(self.next_spine, self.next_error, self.disagree)
        right = [self.plane, buttons, self.window, self.opacity, self.mix, self.share]
        if any(scene.prediction.array.dtype.kind == "f" for scene in self.models.values()):
            right.append(self.threshold)
        left = ui.column(self.caption, self.chart, width_px=520)
        self._all, self._board = self.pictures, ui.board(self.pictures)
        self._arrange(self._board, self.slice, ui.row(left, ui.column(*right, width_px=310)))

    @property
    def counts(self) -> dict[str, SliceCounts]:
        """Spine and errors by slice, for each model, at the current threshold."""
        threshold = self.threshold.value
        return {name: scene.count_slices(threshold) for name, scene in self.models.items()}

    def swatches(self) -> list[Swatch]:
        """Return the legend of the three pictures."""
        scene = next(iter(self.models.values()))
        _, *errors = scene.swatches((), Style("error"))
        return [SPINE_SWATCH._replace(name="truth, or true positive"), *errors]

    def _turn(self) -> None:
        with self._sliders.together():
            self.slice.max = self._count(self.plane.value) - 1
            self.slice.value = self._fullest(self.plane.value)

    def _count(self, plane: str) -> int:
        return geometry.slice_count(self.truth.ct, plane)

    def _fullest(self, plane: str) -> int:
        first, _ = self.counts.values()
        return first.fullest(plane, self._count(plane))

    def _answer_pointer(self, picture: ui.Picture, pointer: list) -> None:
        kind, across, down = pointer[:3]
        text, threshold, plane = self._line, self.threshold.value, self.plane.value
        if kind != ui.LEAVE:
            voxel = voxel_at_share(self.truth.ct.shape, plane, self.slice.value, across, down)
            said = [f" Mouse at {self.truth.voxel_text(voxel, threshold)}"]
            for model, scene in self.models.items():
                said.append(f"{model} {scene.predicted_text(voxel, threshold)}")
            text += ", ".join(said) + "."
        self.caption.text = text

    def _go_to_next(self, counts: str) -> None:
        marked = sum(getattr(model, counts)(self.plane.value) for model in self.counts.values())
        self._show_index(next_marked(marked, self.slice.value))

    def _go_to_difference(self) -> None:
        """Show the slice where the Dice of the two models differs most."""
        first, second = (model.dice(self.plane.value) for model in self.counts.values())
        difference = np.nan_to_num(np.abs(first - second), nan=-1.0)
        if difference.max() > 0:
            self.slice.value = int(difference.argmax())

    def _panels(self) -> list[Panel]:
        options = {"opacity": self.opacity.value, "threshold": self.threshold.value}
        errors = Style("error", **options)
        models = [Panel(scene, errors, name) for name, scene in self.models.items()]
        return [Panel(self.truth, Style("fill", **options), "truth"), *models]

    def _draw(self) -> None:
        index, plane, window = self.slice.value, self.plane.value, self.window.window
        panels, mixed = self._panels(), self.mix.value != SIDE_BY_SIDE
        self.pictures = self._board.children = self._all[: 2 if mixed else 3]
        for panel, picture in zip(panels[: 1 if mixed else 3], self.pictures):
            picture.show_slice(panel, index, plane, window)
        if mixed:
            self._draw_mixed(panels[1:])
        self._line = f"{self._slice_text(index, plane)}."
        self.caption.hold(text=self._line, swatches=ui.swatch_list(self.swatches()))
        self._draw_chart(self.chart, plane, index)

    def _draw_mixed(self, panels: Sequence[Panel]) -> None:
        index, plane, window = self.slice.value, self.plane.value, self.window.window
        drawn = [panel.scene.draw(index, plane, window, panel.style) for panel in panels]
        rgb = mix_pictures(*drawn, None if self.mix.value == "checkerboard" else self.share.value)
        title = f"{' and '.join(self.models)}, {self.mix.value}"
        alt = f"{title}: {panels[0].scene.alt_text(index, plane, panels[0].style)}"
        self.pictures[1].show(rgb, alt, title, plane, geometry.pixel_size_mm(self.truth.ct, plane))

    def _index(self, plane: str) -> int:
        return self.slice.value if plane == self.plane.value else self._fullest(plane)

    def _title(self) -> str:
        return f"{' and '.join(self.models)} on {self.truth.name}"

    def _slice_text(self, index: int, plane: str) -> str:
        text = self.truth.slice_text(index, plane)
        for name, scene in self.models.items():
            counts = scene.slice_confusion(index, plane, self.threshold.value)
            text += f"; {name}: {dice_text(counts)}"
        return text

    def _draw_chart(self, chart: ui.Chart, plane: str, index: int) -> None:
        """Draw the Dice of both models over the slice numbers, from 1."""
        numbers = np.arange(1, self._count(plane) + 1)
        lines = {name: (numbers, counts.dice(plane)) for name, counts in self.counts.items()}
        chart.show(lines, self._chart_alt(plane, index), (f"{plane} slice", "Dice"), index + 1)

    def _chart_alt(self, plane: str, index: int) -> str:
        scores = (
            f"{name} {score_text(counts.dice(plane)[index])}"
            for name, counts in self.counts.items()
        )
        return (
            f"Dice of each {plane} slice of case {self.truth.case_id} for "
            f"{' and '.join(self.models)}; at the marked slice {index + 1}: {', '.join(scores)}."
        )

    def _saved_chart(self, plane: str, indices: Sequence[int]) -> tuple:
        chart = ui.Chart()
        self._draw_chart(chart, plane, self._index(plane))
        return chart, [self._chart_alt(plane, kept) for kept in indices]


def mix_pictures(first: np.ndarray, second: np.ndarray, share: float | None) -> np.ndarray:
    """Return two pictures blended by the share of the second, or as a checkerboard (None)."""
    if share is not None:
        return np.round(first * (1 - share) + second * share).astype(np.uint8)
    side = max(1, max(first.shape) // 8)
    down, across = (np.arange(length) // side for length in first.shape[:2])
    odd = (down[:, None] + across) % 2 == 1
    return np.where(odd[:, :, None], second, first)
