"""Viewers of a whole scan: slice by slice, three linked planes, two models compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.ct.geometry import PLANES, checked_index, plane_axes, require_choice, slice_count
from spine_lib.ct.volume import Volume
from spine_lib.datasets.sample import sample_cases
from spine_lib.explore.controls import (
    HOVER,
    LEAVE,
    PRESS,
    Observer,
    OverlayControls,
    Picture,
    Viewer,
    WindowControls,
    button,
    choice,
    column,
    row,
    slider,
)
from spine_lib.explore.markup import legend_html, line_chart, mark_positions, text_html
from spine_lib.explore.overlays import SPINE_SWATCH, Swatch
from spine_lib.explore.page import Chart, Panel, Stack, fit_style, save_page
from spine_lib.explore.render import Style
from spine_lib.explore.scene import (
    Scene,
    SliceCounts,
    Voxel,
    dice_text,
    error_swatches,
    middle_voxel,
    next_marked,
    open_scene,
    score_text,
    share_in_slice,
    voxel_at_share,
)


class ScanViewer(Viewer):
    """The base of the viewers of a scan: it writes their slices to a page.

    A subclass names its `_panels`, its `_title`, the `_index` that a plane shows and the
    `_slice_text` of any slice.
    """

    one_plane_at_once = True

    def save_html(
        self,
        path: str | Path,
        max_slices: int = 100,
        quality: int = 75,
        all_planes: bool = True,
    ) -> Path:
        """Write one page whose sliders work without Python and without a network.

        The page begins with what is shown now. It has slice sliders, the windows, and the overlay
        as it is drawn now, to be faded or switched off.

        Args:
            path: `.html` file to write; some megabytes, see the arguments below.
            max_slices: of each plane; of more slices, every second (third ...) is kept.
            quality: of the CT's pictures, 1 to 100.
            all_planes: keep all three planes; otherwise the one that is shown, in half the space.

        Returns:
            The path.

        Raises:
            SpineError: where the numbers are out of range or the file cannot be written.
        """
        if max_slices < 1:
            raise SpineError(f"A page with {max_slices} slices shows nothing: give 1 or more.")
        first = self._first_plane()
        others = [plane for plane in PLANES if plane != first] if all_planes else []
        panels, stacks = self._panels(), []
        for plane in (first, *others):
            index = self._index(plane)
            count = slice_count(panels[0].scene.ct, plane)
            indices = range(0, count, -(-count // max_slices))
            texts = [f"{self._slice_text(kept, plane)}." for kept in indices]
            chart = self._saved_chart(plane, index, indices)
            stacks.append(Stack(plane, indices, index, texts, panels, chart))
        return save_page(
            path,
            self._title(),
            stacks,
            self.window.window,
            self.one_plane_at_once and all_planes,
            self._saved_legend(),
            quality,
        )

    def _first_plane(self) -> str:
        return self.plane.value

    def _saved_legend(self) -> str:
        return self.legend.value

    def _saved_chart(self, plane: str, index: int, indices: Sequence[int]) -> Chart | None:
        return None


class MaskViewer(ScanViewer):
    """The base of the viewers of one mask and one prediction, with a voxel that is described.

    Arguments and errors are those of `SliceViewer`.
    """

    voxel_name = "Cursor"

    def __init__(
        self,
        ct: Volume,
        mask: Volume | None,
        prediction: Volume | None,
        ignore: Volume | None,
        case_id: str,
        window: str | tuple[float, float],
        style: Style | str,
    ) -> None:
        super().__init__()
        self.scene, self._mask_counts = open_scene(ct, mask, prediction, ignore, case_id)
        style = style if isinstance(style, Style) else Style(style)
        self.window = WindowControls(window, self._draw)
        self.overlay = OverlayControls(self.scene, style, self._mask_counts.labels, self._draw)
        self._line = ""

    def go_to(self, voxel: Voxel) -> None:
        """Show the slices through a voxel, and describe it."""
        self.voxel = self._checked(voxel)
        with self._sliders.paused():
            self._set_sliders()
        self._draw()

    def _checked(self, voxel: Voxel) -> Voxel:
        return tuple(
            checked_index(self.scene.ct, index, plane)
            for index, plane in zip(voxel, ("sagittal", "coronal", "axial"))
        )

    def swatches(self) -> list[Swatch]:
        """Return the legend of the slices that are shown."""
        style = self.overlay.style
        labels = {
            label
            for plane in self._shown_planes()
            for label in self._shown.labels_in(self._index(plane), plane, style.threshold)
        }
        return self._shown.swatches(sorted(labels), style)

    @property
    def _shown(self) -> Scene:
        return self.scene if self.overlay.visible else self.scene.bare

    def _move_mouse(self, kind: str, name: str, across: float, down: float) -> None:
        plane = name if name in PLANES else self._first_plane()
        voxel = voxel_at_share(self.scene.ct.shape, plane, self._index(plane), across, down)
        if kind == PRESS:
            self.go_to(voxel)
        elif kind == HOVER:
            self._describe("Mouse", voxel)
        else:
            self._describe(self.voxel_name, self.voxel)

    def _describe(self, name: str, voxel: Voxel) -> None:
        text = self.scene.voxel_text(voxel, self.overlay.threshold.value)
        self.text.value = text_html(f"{self._line}{name} at {text}.")

    def _legend_html(self, swatches: Sequence[Swatch]) -> str:
        return legend_html(swatches, self._shown.compared and self.overlay.kind.value != "error")

    def _draw(self) -> None:
        shape = self.scene.ct.shape
        for plane, picture in zip(self._shown_planes(), self.pictures):
            picture.show_slice(
                self._shown,
                self._index(plane),
                plane,
                self.window.window,
                self._style(plane),
                cursor=share_in_slice(shape, plane, self.voxel),
                lines=len(self.pictures) > 1,
            )
        self._describe(self.voxel_name, self.voxel)
        self.legend.value = self._legend_html(self.swatches())

    def _style(self, plane: str) -> Style:
        return self.overlay.style

    def _index(self, plane: str) -> int:
        return self.voxel[plane_axes(plane)[0]]

    def _title(self) -> str:
        return f"CT of case {self.scene.case_id}"

    def _panels(self) -> list[Panel]:
        return [Panel(self._shown, self.overlay.style)]

    def _slice_text(self, index: int, plane: str) -> str:
        return self.scene.slice_text(index, plane)


class SliceViewer(MaskViewer):
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
        style: of the overlay at the start; by default errors where there are two masks, else a
            fill.
        size_px: length of the picture's longer side on the screen.

    Raises:
        SpineError: where volumes lie on different grids, with the reason, or a choice is unknown.

    Example:
        >>> SliceViewer(case.ct, case.labels, ignore=case.ignore)  # doctest: +SKIP
    """

    voxel_name = "Probe"

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
        require_choice("plane", plane, PLANES)
        if style is None:
            style = "fill" if mask is None or prediction is None else "error"
        super().__init__(ct, mask, prediction, ignore, case_id, window, style)
        if index is None:
            index = self._mask_counts.fullest(plane, slice_count(ct, plane))
        self.voxel = self._voxel_in_slice(checked_index(ct, index, plane), plane)

        self.picture = Picture(size_px, name="slice")
        self.pictures = [self.picture]
        self.plane = choice("plane", PLANES, plane)
        self.slice, self.across, self.down = (
            slider(name, 0, 0, 0) for name in ("slice", "probe right", "probe down")
        )
        self.slice.layout.width = f"{size_px}px"
        self.next_spine = button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = button("Next error", lambda: self._go_to_next("wrong"))
        self.worst = button("Worst slice", self._go_to_worst)
        self._set_sliders()
        self._sliders = Observer(self._read_sliders, self.slice, self.across, self.down)
        self.plane.observe(lambda _: self.go_to(self.voxel), "value")

        buttons = [self.next_spine] if self.scene.labelled is not None else []
        buttons += [self.next_error, self.worst] if self.scene.compared else []
        left = column(self.slice, self.picture, self.text, self.legend, width_px=size_px)
        probe = column(self.across, self.down)
        right = column(self.plane, row(*buttons), self.window, self.overlay, probe, width_px=310)
        self._arrange(row(left, right))

    @property
    def counts(self) -> SliceCounts:
        """Spine and errors by slice at the current threshold."""
        return self.scene.count_slices(self.overlay.threshold.value)

    def _voxel_in_slice(self, index: int, plane: str) -> Voxel:
        """Return a voxel of the slice: in the middle of its spine, else of the slice."""
        cut, mask = plane_axes(plane)[0], self.scene.mask
        image = np.moveaxis(self.scene.ct.array if mask is None else mask.array, cut, 0)[index]
        voxel = middle_voxel((image > 0) & (mask is not None))
        return (*voxel[:cut], index, *voxel[cut:])

    def _set_sliders(self) -> None:
        shape, (cut, rows, columns) = self.scene.ct.shape, plane_axes(self.plane.value)
        last = {axis: shape[axis] - 1 for axis in range(3)}
        values = {
            self.slice: (last[cut], self.voxel[cut]),
            self.across: (last[columns], last[columns] - self.voxel[columns]),
            self.down: (last[rows], last[rows] - self.voxel[rows]),
        }
        for control, (high, value) in values.items():
            control.max, control.value = high, value

    def _read_sliders(self) -> None:
        cut, rows, columns = plane_axes(self.plane.value)
        voxel = {
            cut: self.slice.value,
            rows: self.down.max - self.down.value,
            columns: self.across.max - self.across.value,
        }
        self.voxel = (voxel[0], voxel[1], voxel[2])
        self._draw()

    def _shown_planes(self) -> Sequence[str]:
        return (self.plane.value,)

    def _go_to_next(self, counts: str) -> None:
        marked = getattr(self.counts, counts)(self.plane.value)
        self._show_index(next_marked(marked, self.slice.value))

    def _go_to_worst(self) -> None:
        self._show_index(self.counts.worst(self.plane.value))

    def _show_index(self, index: int | None) -> None:
        if index is not None:
            self.slice.value = index

    def _draw(self) -> None:
        self._line = f"{self._slice_text(self.slice.value, self.plane.value)}. "
        super()._draw()

    def _slice_text(self, index: int, plane: str) -> str:
        text = self.scene.slice_text(index, plane)
        counts = self.scene.slice_confusion(index, plane, self.overlay.threshold.value)
        return text if counts is None else f"{text}, {dice_text(counts)}"

    def _saved_legend(self) -> str:
        labels = [label for _, label in self.overlay.structures.options] or [1]
        return self._legend_html(self._shown.swatches(labels, self.overlay.style))


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
        ct: Volume,
        mask: Volume | None = None,
        prediction: Volume | None = None,
        *,
        ignore: Volume | None = None,
        case_id: str = "",
        voxel: Voxel | None = None,
        window: str | tuple[float, float] = "bone",
        style: Style | str = "fill",
        size_px: int = 272,
    ) -> None:
        super().__init__(ct, mask, prediction, ignore, case_id, window, style)
        self._size_px = size_px
        self.voxel = self._middle_of_spine() if voxel is None else self._checked(voxel)
        self.pictures = [Picture(size_px, name=plane) for plane in PLANES]
        self.axes = [
            slider(name, start, 0, size - 1)
            for name, start, size in zip(("L to R", "P to A", "I to S"), self.voxel, ct.shape)
        ]
        self._sliders = Observer(self._read_sliders, *self.axes)
        left = column(*self.axes, self.text, self.legend, width_px=420)
        controls = row(left, column(self.window, self.overlay))
        self._arrange(row(*self.pictures), controls)

    def _middle_of_spine(self) -> Voxel:
        """Return a voxel in the middle of the spine, else of the volume."""
        shape, mask = self.scene.ct.shape, self.scene.mask
        x, y, z = steps = [max(1, size // 64) for size in shape]
        if mask is not None and (coarse := mask.array[::x, ::y, ::z] > 0).any():
            return tuple(n * step for n, step in zip(middle_voxel(coarse), steps))
        return tuple(size // 2 for size in shape)

    def _set_sliders(self) -> None:
        for control, position in zip(self.axes, self.voxel):
            control.value = position

    def _read_sliders(self) -> None:
        self.voxel = tuple(control.value for control in self.axes)
        self._draw()

    def _first_plane(self) -> str:
        return PLANES[0]

    def _shown_planes(self) -> Sequence[str]:
        return PLANES

    def _style(self, plane: str) -> Style:
        """Return the style, with pixels no finer than the screen shows them."""
        return fit_style(self.overlay.style, self.scene.ct, plane, self._size_px)


class CompareViewer(ScanViewer):
    """Show the truth and the errors of two models side by side, with the Dice of every slice.

    Args:
        ct: scan in HU.
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
        ct: Volume,
        mask: Volume,
        first: Volume,
        second: Volume,
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
        self.truth = Scene(ct, mask, None, ignore, case_id)
        self.models = {
            name: Scene(ct, mask, prediction, ignore, case_id)
            for name, prediction in zip(names, (first, second))
        }
        require_choice("plane", plane, PLANES)
        self.plane = choice("plane", PLANES, plane)
        self.opacity = slider("opacity", 0.5, 0.0, 1.0, 0.05)
        self.threshold = slider("threshold", 0.5, 0.01, 0.99, 0.01)
        start = self._fullest(plane) if index is None else checked_index(ct, index, plane)
        self.slice = slider("slice", start, 0, slice_count(ct, plane) - 1)
        self.slice.layout.width = "640px"
        self.window = WindowControls(window, self._draw)
        self.next_spine = button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = button("Next error", lambda: self._go_to_next("wrong"))
        self.disagree = button("Largest difference", self._go_to_difference)
        self._sliders = Observer(self._draw, self.slice, self.opacity, self.threshold)
        self.plane.observe(lambda _: self._turn(), "value")

        self.pictures = [Picture(size_px, name="slice") for _ in range(3)]
        titled = [
            column(widgets.Label(title), picture)
            for title, picture in zip(("truth", *names), self.pictures)
        ]
        controls = [self.plane, row(self.next_spine, self.next_error, self.disagree)]
        controls += [self.window, self.opacity]
        if any(prediction.array.dtype.kind == "f" for prediction in (first, second)):
            controls.append(self.threshold)
        left = column(self.text, self.chart, self.legend, width_px=500)
        below = row(left, column(*controls, width_px=310))
        self._arrange(self.slice, row(*titled), below)

    @property
    def counts(self) -> dict[str, SliceCounts]:
        """Spine and errors by slice, for each model, at the current threshold."""
        threshold = self.threshold.value
        return {name: scene.count_slices(threshold) for name, scene in self.models.items()}

    def swatches(self) -> list[Swatch]:
        """Return the legend of the three pictures."""
        _, *errors = error_swatches(self.truth.ignore is not None)
        return [SPINE_SWATCH._replace(name="truth, or true positive"), *errors]

    def _turn(self) -> None:
        plane = self.plane.value
        with self._sliders.paused():
            self.slice.max = slice_count(self.truth.ct, plane) - 1
            self.slice.value = self._fullest(plane)
        self._draw()

    def _fullest(self, plane: str) -> int:
        first, _ = self.counts.values()
        return first.fullest(plane, slice_count(self.truth.ct, plane))

    def _move_mouse(self, kind: str, name: str, across: float, down: float) -> None:
        text, threshold, plane = self._line, self.threshold.value, self.plane.value
        if kind != LEAVE:
            voxel = voxel_at_share(self.truth.ct.shape, plane, self.slice.value, across, down)
            text += f" Mouse at {self.truth.voxel_text(voxel, threshold)}"
            for model, scene in self.models.items():
                text += f", {model} {scene.predicted_text(voxel, threshold)}"
            text += "."
        self.text.value = text_html(text)

    def _go_to_next(self, counts: str) -> None:
        marked = sum(getattr(model, counts)(self.plane.value) for model in self.counts.values())
        index = next_marked(marked, self.slice.value)
        if index is not None:
            self.slice.value = index

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
        for panel, picture in zip(self._panels(), self.pictures):
            title = f"{panel.title}: "
            picture.show_slice(panel.scene, index, plane, window, panel.style, title)
        self._line = f"{self._slice_text(index, plane)}."
        self.text.value = text_html(self._line)
        self.chart.value = self._chart_svg(index, plane)
        self.legend.value = legend_html(self.swatches())

    def _index(self, plane: str) -> int:
        return self.slice.value if plane == self.plane.value else self._fullest(plane)

    def _title(self) -> str:
        return f"{' and '.join(self.models)} on case {self.truth.case_id}"

    def _slice_text(self, index: int, plane: str) -> str:
        text = self.truth.slice_text(index, plane)
        for name, scene in self.models.items():
            counts = scene.slice_confusion(index, plane, self.threshold.value)
            text += f"; {name}: {dice_text(counts)}"
        return text

    def _lines(self, plane: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return slice numbers, from 1, and the Dice of each model there."""
        numbers = np.arange(1, slice_count(self.truth.ct, plane) + 1)
        return {name: (numbers, counts.dice(plane)) for name, counts in self.counts.items()}

    def _chart_svg(self, index: int, plane: str) -> str:
        lines, alt = self._lines(plane), self._chart_alt(index, plane)
        return line_chart(lines, alt, f"{plane} slice", "Dice", index + 1)

    def _chart_alt(self, index: int, plane: str) -> str:
        lines = self._lines(plane).items()
        scores = ", ".join(f"{name} {score_text(dice[index])}" for name, (_, dice) in lines)
        return (
            f"Dice of each {plane} slice of case {self.truth.case_id} for "
            f"{' and '.join(self.models)}; at the marked slice {index + 1}: {scores}."
        )

    def _saved_chart(self, plane: str, index: int, indices: Sequence[int]) -> Chart:
        positions = mark_positions(self._lines(plane), [kept + 1 for kept in indices])
        alts = [self._chart_alt(kept, plane) for kept in indices]
        return Chart(self._chart_svg(index, plane), positions, alts)


def compare_shipped(case_id: str = "crop", **options: Any) -> CompareViewer:
    """Compare the shipped U-Net and DeepLabv3+ with the truth on a patient held out of training.

    Their stored probabilities are shown, so nothing has to be predicted.

    Args:
        case_id: "crop" or "dicom".
        options: as for `CompareViewer`: plane, index, window, size_px.

    Raises:
        SpineError: if the sample was not fetched, or the case is none of the two.

    Example:
        >>> compare_shipped("crop", plane="sagittal")  # doctest: +SKIP
    """
    from spine_lib.training.pretrained import load_probability  # imports torch

    test_cases = {case.case_id: case for case in sample_cases() if case.split == "test"}
    if case_id not in test_cases:
        raise SpineError(
            f"there are no stored predictions for {case_id!r}: use {' or '.join(test_cases)}"
        )
    data = test_cases[case_id].load()
    predictions = (
        load_probability(name, case_id, data.ct) for name in ("unet_light", "deeplabv3plus_light")
    )
    return CompareViewer(
        data.ct,
        data.labels,
        *predictions,
        ("U-Net", "DeepLabv3+"),
        ignore=data.ignore,
        case_id=case_id,
        **options,
    )
