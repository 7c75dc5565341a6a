"""Viewers of a whole scan: slice by slice, three linked planes, two models compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry
from spine_lib.ct.geometry import PLANES, plane_axes
from spine_lib.ct.volume import Volume
from spine_lib.explore import controls as ui
from spine_lib.explore.brush import ERASE, LOOK, PAINT, Brush
from spine_lib.explore.overlays import SPINE_SWATCH, Swatch
from spine_lib.explore.page import save_page
from spine_lib.explore.render import Style
from spine_lib.explore.scene import (
    Scene,
    SliceCounts,
    Voxel,
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
    """The base of all viewers of a scan: scenes of it side by side, in slices through one voxel.

    A subclass may set styles and draw more in `_draw`, and change `planes`, those that are shown.

    Args:
        scenes: what is drawn, all on one grid.
        window: a name from `spine_lib.ct.volume.WINDOWS`, or centre and width in HU.
        plane, index: slice to begin with; by default the one with the most spine.
        size_px: length of each picture's longer side on the screen.
    """

    one_plane_at_once = True
    voxel_name = "Probe"
    note = ""

    def __init__(
        self,
        scenes: Sequence[Scene],
        window: str | tuple[float, float],
        plane: str = "axial",
        index: int | None = None,
        size_px: int = 420,
    ) -> None:
        geometry.require_choice("plane", plane, PLANES)
        super().__init__()
        self.scenes, self.scene, self.size_px = scenes, scenes[0], size_px
        ct = self.scene.ct
        self.axes = [ui.Slider(name, 0, 0, size - 1) for name, size in zip(AXES, ct.shape)]
        self.plane = ui.choice("plane", PLANES, plane)
        index = scenes[-1].count_slices().fullest(plane) if index is None else index
        self._set_voxel(self._voxel_in_slice(geometry.checked_index(ct, index, plane), plane))
        self.window = ui.WindowControls(window, self._draw)
        self.pictures = [ui.Picture(size_px) for _ in scenes for _ in self.planes]
        self.below, self.probe, self._text = ui.column(), ui.column(), ""
        self.next_spine = ui.button("Next slice with spine", lambda: self._show_next("spine"))
        self.next_error = ui.button("Next error", lambda: self._show_next("wrong"))
        self._observer = ui.Observer(self._draw, *self.axes)
        self.plane.observe(lambda _: self._turn(), "value")

    @property
    def planes(self) -> Sequence[str]:
        """The planes that are shown."""
        return (self.plane.value,)

    @property
    def slice(self) -> ui.Slider:
        """The slider of the plane's slices."""
        return self.axes[plane_axes(self.plane.value)[0]]

    @property
    def voxel(self) -> Voxel:
        """The voxel that all slices go through and that is described, x, y, z."""
        return tuple(control.value for control in self.axes)

    def go_to(self, voxel: Voxel) -> None:
        """Show the slices through a voxel, and describe it."""
        with self._observer.together():
            self._set_voxel(voxel)

    def swatches(self) -> list[Swatch]:
        """Return the legend of the slices that are shown."""
        return self.scenes[-1].legend([(self.index(plane), plane) for plane in self.planes])

    def index(self, plane: str) -> int:
        """Return the slice that a plane shows."""
        return self.voxel[plane_axes(plane)[0]]

    def _set_voxel(self, voxel: Voxel) -> None:
        for control, index, plane in zip(self.axes, voxel, ("sagittal", "coronal", "axial")):
            control.value = geometry.checked_index(self.scene.ct, index, plane)

    def _voxel_in_slice(self, index: int, plane: str) -> Voxel:
        """Return a voxel of the slice: in the middle of its spine, else of the slice."""
        cut, mask = plane_axes(plane)[0], self.scene.mask
        image = np.moveaxis(self.scene.ct.array if mask is None else mask.array, cut, 0)[index]
        voxel = middle_voxel((image > 0) & (mask is not None))
        return (*voxel[:cut], index, *voxel[cut:])

    def _turn(self) -> None:
        """Put the slider of the plane below the pictures, and the others to the probe."""
        for control, name in zip(self.axes, AXES):
            is_slice = control is self.slice
            control.description = "slice" if is_slice else f"probe {name}"
            control.width_px = min(len(self.scenes) * self.size_px, 640) if is_slice else 310
        for picture in self.pictures:
            picture.follow(self.slice)
        self.below.children = [self.slice]
        self.probe.children = [control for control in self.axes if control is not self.slice]
        self._draw()

    def _show_next(self, counts: str) -> None:
        by_slice = [getattr(one.count_slices(), counts)(self.plane.value) for one in self.scenes]
        if (index := next_marked(sum(by_slice), self.slice.value)) is not None:
            self.slice.value = index

    def _answer_pointer(self, picture: ui.Picture, pointer: list) -> None:
        kind, across, down = pointer[:3]
        plane = self.planes[list(self.pictures).index(picture) % len(self.planes)]
        voxel = voxel_at_share(self.scene.ct.shape, plane, self.index(plane), across, down)
        if kind == ui.PRESS:
            self.go_to(voxel)
        elif kind == ui.LEAVE:
            self._describe(self.voxel_name, self.voxel)
        else:
            self._describe("Mouse", voxel)

    def _describe(self, name: str, voxel: Voxel) -> None:
        first, *others = self.scenes
        text = first.voxel_text(voxel) + "".join(one.predicted_text(voxel) for one in others)
        self.caption.text = f"{self._text}{name} at {text}."

    def _draw(self) -> None:
        shown = [(scene, plane) for scene in self.scenes for plane in self.planes]
        for picture, (scene, plane) in zip(self.pictures, shown):
            with picture.hold_sync():
                picture.index = index = self.index(plane)
                self._show(picture, scene, index, plane)
                picture.cursor = share_in_slice(self.scene.ct.shape, plane, self.voxel)
        with self.caption.hold_sync():
            self._text = ""
            if len(self.planes) == 1:
                self._text = self.slice_text(self.index(self.planes[0]), self.planes[0]) + " "
            self._describe(self.voxel_name, self.voxel)
            self.caption.swatches = ui.swatch_list(self.swatches(), self.scene.dashed)

    def _show(self, picture: ui.Picture, scene: Scene, index: int, plane: str) -> None:
        picture.show_slice(scene, index, plane, self.window.window, self.note)

    def slice_text(self, index: int, plane: str) -> str:
        """Return a slice's number, its position, and the scores in it."""
        scores = [scene.slice_dice(index, plane) for scene in self.scenes]
        return "; ".join([self.scene.slice_text(index, plane), *filter(None, scores)]) + "."

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
        return save_page(self, Path(path), max_slices)

    @property
    def title(self) -> str:
        """The title of a saved page."""
        return self.scene.name

    def all_swatches(self) -> tuple[Sequence[Swatch], Sequence[int]]:
        """Return the legend of all slices, and the structures that can be switched off."""
        return self.swatches(), ()

    def chart_in(self, plane: str) -> ui.Chart | None:
        """Return the chart of a plane, if there is one."""
        return None


class MaskViewer(ScanViewer):
    """The base of the viewers of one mask and one prediction."""

    def __init__(self, scene: Scene, style: Style | str, *options: object) -> None:
        scene.style = style if isinstance(style, Style) else Style(style)
        super().__init__([scene], *options)
        self.overlay = ui.OverlayControls(scene, scene.count_slices().labels, self._draw)

    def _draw(self) -> None:
        self.scene.style, self.scene.visible = self.overlay.style, self.overlay.visible
        super()._draw()

    def all_swatches(self) -> tuple[Sequence[Swatch], Sequence[int]]:
        structures = [] if self.scene.binary else self.overlay.structures.value
        chosen = self.overlay.visible and self.overlay.kind.value != "error"
        return self.scene.swatches(structures or [1]), structures if chosen else ()


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
        size_px: int = 420,
        truth: Source | None = None,
    ) -> None:
        scene = Scene(ct, mask, prediction, ignore, case_id)
        style = style or ("error" if scene.compared else "fill")
        super().__init__(scene, style, window, plane, index, size_px)
        (self.picture,) = self.pictures
        self.worst = ui.button("Worst slice", self._go_to_worst)
        truth = None if truth is None else Scene(scene.ct, truth).mask
        self.brush = Brush(scene, truth, scene.count_slices().labels, self._draw)
        buttons = [self.next_spine] if scene.labelled is not None else []
        buttons += [self.next_error, self.worst] if scene.compared else []
        left = ui.column(self.picture, self.below, self.caption, width_px=size_px + 36)
        right = (self.plane, ui.row(*buttons), self.brush, self.window, self.overlay, self.probe)
        self._turn()
        self._arrange(ui.row(left, ui.column(*right, width_px=310)))

    @property
    def mask(self) -> Volume | None:
        """The mask as the brush corrected it; `save_nifti` writes it onto the scan's grid."""
        return self.scene.mask

    def _go_to_worst(self) -> None:
        if (worst := self.scene.count_slices().worst(self.plane.value)) is not None:
            self.slice.value = worst

    def _draw(self) -> None:
        with self.picture.hold_sync():
            super()._draw()
            tool, axes = self.brush.tool.value, plane_axes(self.plane.value)[:0:-1]
            sides_mm = np.multiply(self.scene.ct.shape, self.scene.ct.spacing_mm)[list(axes)]
            radius = (self.brush.radius.value / sides_mm).tolist()
            self.picture.radius = radius if tool in (PAINT, ERASE) else []
            self.picture.tool = "" if tool == LOOK else tool

    def _answer_stroke(self, picture: ui.Picture, stroke: dict) -> None:
        self.brush.stroke(stroke, self.plane.value, self.slice.value)
        self.overlay.structures.add(self.brush.label.value)

    def _answer_key(self, picture: ui.Picture, key: list) -> None:
        self.brush.press(key[0])


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
    voxel_name = "Cursor"
    planes = PLANES

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
        scene = Scene(ct, mask, prediction, ignore, case_id)
        middle = scene.count_slices().middle("axial")
        super().__init__(scene, style, window, "axial", middle, size_px)
        if voxel is not None:
            self.go_to(voxel)
        for picture, plane in zip(self.pictures, PLANES):
            picture.follow(self.axes[plane_axes(plane)[0]])
            picture.lines = True
        left = ui.column(*self.axes, self.caption, width_px=420)
        controls = ui.row(left, ui.column(self.window, self.overlay))
        self._arrange(ui.board(self.pictures), controls)


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
        if len(names) != 2 or names[0] == names[1]:
            raise SpineError(f"The names {names!r} are not two different names: give one a model.")
        truth, error = Scene(ct, mask, case_id=case_id, title="truth"), Style("error")
        self.models = [
            Scene(truth.ct, truth.mask, prediction, ignore, truth.case_id, error, name)
            for name, prediction in zip(names, (first, second))
        ]
        super().__init__([truth, *self.models], window, plane, index, size_px)
        self.mix = ui.choice("models", (SIDE_BY_SIDE, "blended", "checkerboard"), SIDE_BY_SIDE)
        self.share = ui.Slider("of second", 0.5, 0.0, 1.0, 0.05)
        self.opacity = ui.Slider("opacity", 0.5, 0.0, 1.0, 0.05)
        self.threshold = ui.Slider("threshold", 0.5, 0.01, 0.99, 0.01)
        ui.Observer(self._draw, self.mix, self.share, self.opacity, self.threshold)
        self.chart.observe(self._go_to_mark, "mark")
        self.disagree = ui.button("Largest difference", self._go_to_difference)
        buttons = ui.row(self.next_spine, self.next_error, self.disagree)
        right = [self.plane, buttons, self.window, self.opacity, self.mix, self.share]
        if any(scene.prediction.array.dtype.kind == "f" for scene in self.models):
            right.append(self.threshold)
        left = ui.column(self.caption, self.chart, width_px=440)
        self._all, self._board = self.pictures, ui.board(self.pictures)
        below = ui.row(left, ui.column(*right, self.probe, width_px=310))
        self._turn()
        self._arrange(self._board, self.below, below)

    @property
    def counts(self) -> dict[str, SliceCounts]:
        """Spine and errors by slice, for each model, at the current threshold."""
        return {scene.title: scene.count_slices() for scene in self.models}

    def swatches(self) -> list[Swatch]:
        """Return the legend of the three pictures."""
        _, *errors = self.models[0].swatches()
        return [SPINE_SWATCH._replace(name="truth, or true positive"), *errors]

    def _go_to_mark(self, change: dict) -> None:
        if change["new"] is not None:
            self.slice.value = round(change["new"]) - 1

    def _go_to_difference(self) -> None:
        """Show the slice where the Dice of the two models differs most."""
        first, second = (model.dice(self.plane.value) for model in self.counts.values())
        difference = np.nan_to_num(np.abs(first - second), nan=-1.0)
        if difference.max() > 0:
            self.slice.value = int(difference.argmax())

    def _draw(self) -> None:
        options = {"opacity": self.opacity.value, "threshold": self.threshold.value}
        for scene in self.scenes:
            scene.style = replace(scene.style, **options)
        self.pictures = self._board.children = self._all[
            : 3 if self.mix.value == SIDE_BY_SIDE else 2
        ]
        super()._draw()
        self._draw_chart(self.chart, self.plane.value, self.slice.value)

    def _show(self, picture: ui.Picture, scene: Scene, index: int, plane: str) -> None:
        if self.mix.value == SIDE_BY_SIDE or scene is self.scene:
            super()._show(picture, scene, index, plane)
            return
        drawn = [scene.draw(index, plane, self.window.window) for scene in self.models]
        rgb = mix_pictures(*drawn, None if self.mix.value == "checkerboard" else self.share.value)
        title = f"{' and '.join(self.counts)}, {self.mix.value}"
        alt = scene.alt_text(index, plane).replace(scene.title, title, 1)
        picture.show(rgb, alt, title, plane, geometry.pixel_size_mm(scene.ct, plane))

    @property
    def title(self) -> str:
        """The title of a saved page."""
        return f"{' and '.join(self.counts)} on {self.scene.name}"

    def _draw_chart(self, chart: ui.Chart, plane: str, index: int) -> None:
        """Draw the Dice of both models over the slice numbers, from 1."""
        lines = {name: counts.dice(plane) for name, counts in self.counts.items()}
        lines = {name: (np.arange(1, len(dice) + 1), dice) for name, dice in lines.items()}
        alt = self.chart_alt(plane, index)
        chart.show(lines, alt, (f"{plane} slice", "Dice"), index + 1)

    def chart_alt(self, plane: str, index: int) -> str:
        """Return the chart of a plane in words, with the scores of a slice."""
        scores = [
            f"{name} {score_text(counts.dice(plane)[index])}"
            for name, counts in self.counts.items()
        ]
        return (
            f"Dice of each {plane} slice of case {self.scene.case_id} for "
            f"{' and '.join(self.counts)}; at the marked slice {index + 1}: {', '.join(scores)}."
        )

    def chart_in(self, plane: str) -> ui.Chart:
        """Return the chart of a plane."""
        chart = ui.Chart()
        self._draw_chart(chart, plane, self.index(plane))
        return chart


def mix_pictures(first: np.ndarray, second: np.ndarray, share: float | None) -> np.ndarray:
    """Return two pictures blended by the share of the second, or as a checkerboard (None)."""
    if share is not None:
        return np.round(first * (1 - share) + second * share).astype(np.uint8)
    side = max(1, max(first.shape) // 8)
    down, across = (np.arange(length) // side for length in first.shape[:2])
    odd = (down[:, None] + across) % 2 == 1
    return np.where(odd[:, :, None], second, first)
