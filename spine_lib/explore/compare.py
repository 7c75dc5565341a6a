"""Compare two models with the truth on one slider."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib import SpineError
from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import charts, render
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import (
    Held,
    WindowControls,
    button,
    choice,
    column,
    part,
    row,
    whole,
)
from spine_lib.explore.counts import SliceCounts, count_slices, next_marked
from spine_lib.explore.overlays import SPINE_PAINT, Paint
from spine_lib.explore.page import Chart, Panel, Stack, kept_slices, save_page
from spine_lib.explore.picture import Picture, legend_html, text_html
from spine_lib.explore.pointer import LEAVE, Pointer
from spine_lib.explore.render import PLANES, Style
from spine_lib.explore.scene import Scene, dice_text, score_text, voxel_at_share


class CompareViewer(Viewer):
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
        if len(names) != 2 or names[0] == names[1]:
            raise SpineError(f"The names {names!r} are not two different names: give one a model.")
        self.names = tuple(names)
        self.truth = Scene(ct, mask, None, ignore, case_id)
        self.models = {
            name: Scene(ct, mask, guess, ignore, case_id)
            for name, guess in zip(names, (first, second))
        }
        planes.require_choice("plane", plane, PLANES)
        self._counts: tuple[float, dict[str, SliceCounts]] = (-1.0, {})
        self._make_controls(
            plane, window, any(one.array.dtype.kind == "f" for one in (first, second))
        )
        start = self._first_shown(plane) if index is None else index
        with self._held.together():
            self.slice.value = planes.checked_index(ct, start, plane)
        self._titles = ("truth", *names)
        self._pictures = [Picture(size_px, name="slice") for _ in self._titles]
        self.pointer = Pointer(self._pointed)
        super().__init__(self._arranged())
        self._draw()

    def _make_controls(self, plane: str, window: str | tuple[float, float], graded: bool) -> None:
        ct = self.truth.ct
        self.plane = choice("plane", PLANES, plane)
        self.slice = whole("slice", 0, 0, planes.slice_count(ct, plane) - 1)
        self.opacity = part("opacity", 0.5)
        self.threshold = part("threshold", 0.5, 0.01, 0.99, 0.01)
        self.window = WindowControls(window, self._draw)
        self._graded = graded
        self.slice.layout.width = "640px"
        self.next_spine = button("Next slice with spine", lambda: self._go_to_next("spine"))
        self.next_error = button("Next error", lambda: self._go_to_next("wrong"))
        self.disagree = button("Largest difference", self._go_to_difference)
        self.text, self.chart, self.legend = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._held = Held(self._draw)
        self._held.watch(self.slice, self.opacity, self.threshold)
        self.plane.observe(self._turned, "value")

    def _arranged(self) -> list[widgets.Widget]:
        titled = [
            column(widgets.Label(title), picture)
            for title, picture in zip(self._titles, self._pictures)
        ]
        buttons = row(self.next_spine, self.next_error, self.disagree)
        more = [self.threshold] if self._graded else []
        right = column(self.plane, buttons, self.window, self.opacity, *more, width_px=310)
        left = column(self.text, self.chart, self.legend, width_px=500)
        return [self.slice, row(*titled), row(left, right), self.pointer]

    @property
    def counts(self) -> dict[str, SliceCounts]:
        """Spine and errors by slice, for each model, at the current threshold."""
        threshold = self.threshold.value
        if self._counts[0] != threshold:
            counted = {
                name: count_slices(one.mask, one.prediction, one.ignore, threshold)
                for name, one in self.models.items()
            }
            self._counts = (threshold, counted)
        return self._counts[1]

    def pictures(self) -> list[Picture]:
        """Return the pictures of the truth and of both models."""
        return self._pictures

    def paints(self) -> list[Paint]:
        """Return the paints of the three pictures."""
        errors = render.ERROR_PAINTS[: 3 if self.truth.ignore is None else 4]
        return [SPINE_PAINT._replace(name="truth, or true positive"), *errors[1:]]

    def _turned(self, change: dict) -> None:
        plane = change["new"]
        with self._held.together():
            self.slice.max = planes.slice_count(self.truth.ct, plane) - 1
            self.slice.value = self._first_shown(plane)
        self._draw()

    def _first_shown(self, plane: str) -> int:
        count = planes.slice_count(self.truth.ct, plane)
        return self.counts[self.names[0]].first_shown(plane, count)

    def _pointed(self, kind: str, name: str, across: float, down: float) -> None:
        """Say what lies under the mouse, and what both models call it."""
        words, threshold = "", self.threshold.value
        if kind != LEAVE:
            shape, plane = self.truth.ct.shape, self.plane.value
            voxel = voxel_at_share(shape, plane, self.slice.value, across, down)
            called = (
                f"{name} {scene.predicted_text(voxel, threshold)}"
                for name, scene in self.models.items()
            )
            there = self.truth.voxel_text(voxel, threshold)
            words = f" Mouse at {', '.join((there, *called))}."
        self.text.value = text_html(self._line + words)

    def _go_to_next(self, what: str) -> None:
        marked = sum(getattr(one, what)(self.plane.value) for one in self.counts.values())
        index = next_marked(marked, self.slice.value)
        if index is not None:
            self.slice.value = index

    def _go_to_difference(self) -> None:
        """Go where the Dice of the two models lies farthest apart."""
        first, second = (one.dice(self.plane.value) for one in self.counts.values())
        apart = np.nan_to_num(np.abs(first - second), nan=-1.0)
        if apart.max() > 0:
            self.slice.value = int(apart.argmax())

    def _scenes(self) -> list[tuple[Scene, Style]]:
        truth = Style("fill", opacity=self.opacity.value, threshold=self.threshold.value)
        error = replace(truth, overlay="error")
        return [(self.truth, truth), *((one, error) for one in self.models.values())]

    def _draw(self) -> None:
        index, plane, window = self.slice.value, self.plane.value, self.window.window
        pixel_mm = render.pixel_size_mm(self.truth.ct, plane)
        for title, picture, (scene, style) in zip(self._titles, self._pictures, self._scenes()):
            alt = f"{title}: {scene.alt_text(index, plane, style)}"
            picture.show(scene.draw(index, plane, window, style), alt, plane, pixel_mm)
        self._line = self._slice_text(index, plane)
        self.text.value = text_html(self._line)
        self.chart.value = self._chart_svg(index, plane)
        self.legend.value = legend_html(self.paints())

    def _slice_text(self, index: int, plane: str) -> str:
        parts = [self.truth.slice_text(index, plane)]
        for name, scene in self.models.items():
            counts = scene.dice_at(index, plane, self.threshold.value)
            parts.append(f"{name}: {dice_text(counts)}")
        return "; ".join(parts) + "."

    def _lines(self, plane: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return slice numbers, from 1, and the Dice of each model there."""
        numbers = np.arange(1, planes.slice_count(self.truth.ct, plane) + 1)
        return {name: (numbers, one.dice(plane)) for name, one in self.counts.items()}

    def _chart_svg(self, index: int, plane: str) -> str:
        lines = self._lines(plane)
        alt = self._chart_alt(index, plane, lines)
        return charts.line_chart(lines, alt, f"{plane} slice", "Dice", x_mark=index + 1)

    def _chart_alt(self, index: int, plane: str, lines: dict) -> str:
        here = ", ".join(f"{name} {score_text(dice[index])}" for name, (_, dice) in lines.items())
        return (
            f"Dice of each {plane} slice of case {self.truth.case_id} for {self.names[0]} and "
            f"{self.names[1]}; at the marked slice {index + 1}: {here}."
        )

    def save_html(
        self,
        path: str | Path,
        max_slices: int = 100,
        quality: int = 75,
        all_planes: bool = True,
    ) -> Path:
        """Write one page with the three pictures on one slider; see `SliceViewer.save_html`."""
        first = self.plane.value
        others = [plane for plane in PLANES if plane != first] if all_planes else []
        panels = []
        for plane in (first, *others):
            stack = self._stack(plane, max_slices)
            panels += [
                Panel(stack, scene, style, title)
                for title, (scene, style) in zip(self._titles, self._scenes())
            ]
        title = f"{self.names[0]} and {self.names[1]} on case {self.truth.case_id}"
        return save_page(
            path, title, panels, self.window.window,
            choose_plane=all_planes, legend=self.legend.value, quality=quality,
        )  # fmt: skip

    def _stack(self, plane: str, max_slices: int) -> Stack:
        """Return a slider of a saved page with the curve under it."""
        ct = self.truth.ct
        index = self.slice.value if plane == self.plane.value else self._first_shown(plane)
        indices = kept_slices(planes.slice_count(ct, plane), max_slices)
        lines = self._lines(plane)
        chart = Chart(
            self._chart_svg(index, plane),
            charts.mark_places(lines, [one + 1 for one in indices]),
            [self._chart_alt(one, plane, lines) for one in indices],
        )
        texts = [self._slice_text(one, plane) for one in indices]
        return Stack(ct, plane, indices, index, texts, chart)
