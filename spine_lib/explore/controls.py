"""The controls that viewers share; all of them are reached by Tab and moved by arrow keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ipywidgets as widgets

from spine_lib import SpineError
from spine_lib.annotations.checks import CANONICAL
from spine_lib.ct.geometry import require_choice
from spine_lib.ct.volume import WINDOWS, Window
from spine_lib.explore import render
from spine_lib.explore.overlays import COLOURINGS
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

OWN = "own"
_WIDE = {"description_width": "80px"}


class Held:
    """Call something when a control changes, but only once when several are set together."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._depth = 0

    def watch(self, *controls: widgets.Widget) -> None:
        """Call whenever the value of one of the controls changes."""
        for control in controls:
            control.observe(self._changed, "value")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Keep still inside the block; the caller draws afterwards."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def _changed(self, _change: object) -> None:
        if not self._depth:
            self._call()


def whole(description: str, value: int, low: int, high: int, step: int = 1) -> widgets.IntSlider:
    """Return a slider of whole numbers."""
    return widgets.IntSlider(
        value, low, high, step, description=description, style=_WIDE, layout=_layout("310px")
    )


def part(
    description: str, value: float, low: float = 0.0, high: float = 1.0, step: float = 0.05
) -> widgets.FloatSlider:
    """Return a slider of numbers with a fraction."""
    return widgets.FloatSlider(
        value, min=low, max=high, step=step, description=description, style=_WIDE,
        layout=_layout("310px"),
    )  # fmt: skip


def choice(description: str, options: object, value: object, **more: object) -> widgets.Dropdown:
    """Return a list to choose one from."""
    return widgets.Dropdown(
        options=options, value=value, description=description, style=_WIDE,
        layout=_layout("310px"), **more,
    )  # fmt: skip


def button(description: str, clicked: Callable[[], None], tooltip: str = "") -> widgets.Button:
    """Return a button as wide as its words."""
    made = widgets.Button(
        description=description, tooltip=tooltip or description, layout=widgets.Layout(width="auto")
    )
    made.on_click(lambda _: clicked())
    return made


def column(*children: widgets.Widget, width_px: int | None = None) -> widgets.VBox:
    """Stack controls, in a column no wider than its picture where a width is given."""
    if width_px is None:
        return widgets.VBox(children)
    return widgets.VBox(children, layout=_layout(f"{width_px + 8}px"))


def row(*children: widgets.Widget) -> widgets.HBox:
    """Set controls side by side, on several lines where the page is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", grid_gap="2px 10px"))


def _layout(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, max_width="100%")


class WindowControls(widgets.VBox):
    """A preset, a centre and a width in HU; moving a slider leaves the preset.

    Args:
        window: a name from `WINDOWS`, or centre and width in HU.
        call: called after each change of the window, once.
    """

    def __init__(self, window: str | tuple[float, float], call: Callable[[], None]) -> None:
        preset = window if isinstance(window, str) else OWN
        if preset != OWN:
            require_choice("window", preset, tuple(WINDOWS))
            window = WINDOWS[preset]
        centre, width = window
        self.preset = choice("window", [*WINDOWS, OWN], preset)
        self.centre = whole("centre HU", round(centre), -1200, 3000, 10)
        self.width = whole("width HU", round(width), 10, 5000, 10)
        super().__init__([self.preset, self.centre, self.width])
        self._call = call
        self._held = Held(self._moved)
        self._held.watch(self.centre, self.width)
        self.preset.observe(self._chosen, "value")

    @property
    def window(self) -> Window:
        """Centre and width in HU."""
        if self.preset.value in WINDOWS:
            return WINDOWS[self.preset.value]
        return Window(self.centre.value, self.width.value)

    def _chosen(self, change: dict) -> None:
        if change["new"] == OWN:
            return
        with self._held.together():
            window = WINDOWS[change["new"]]
            self.centre.value, self.width.value = round(window.center), round(window.width)
        self._call()

    def _moved(self) -> None:
        self.preset.value = OWN
        self._call()


class LookControls(widgets.VBox):
    """How a mask and a prediction are drawn.

    Args:
        scene: what is shown; controls that would change nothing are left out.
        style: how to begin.
        labels: ids in the mask, which can be switched off one by one.
        call: called after each change.
    """

    def __init__(
        self, scene: Scene, style: Style, labels: tuple[int, ...], call: Callable[[], None]
    ) -> None:
        if style.overlay not in scene.overlays:
            raise SpineError("The overlay 'error' needs a mask and a prediction: give both.")
        self.first = style
        self.overlay = choice("overlay", ["none", *scene.overlays], style.overlay)
        self.colouring = choice("colours by", COLOURINGS, style.colouring)
        self.opacity = part("opacity", style.opacity)
        self.threshold = part("threshold", style.threshold, 0.01, 0.99, 0.01)
        named = [(CANONICAL.get(label, f"label {label}"), label) for label in labels]
        chosen = [label for _, label in named if style.labels is None or label in style.labels]
        self.structures = widgets.SelectMultiple(
            options=named,
            value=chosen,
            rows=min(8, max(2, len(named))),
            description="structures",
            style=_WIDE,
            layout=_layout("310px"),
            tooltip="Hold Ctrl (or Cmd) to switch single structures on and off",
        )
        super().__init__(self._needed(scene))
        Held(call).watch(
            self.overlay, self.colouring, self.opacity, self.threshold, self.structures
        )

    def _needed(self, scene: Scene) -> list[widgets.Widget]:
        if scene.mask is None and scene.prediction is None:
            return []
        shown = [self.overlay, self.colouring, self.opacity]
        painted = [one for one in (scene.mask, scene.prediction) if one is not None]
        if any(one.array.dtype.kind == "f" for one in painted):
            shown.append(self.threshold)
        if not scene.binary:
            shown.append(self.structures)
        return shown

    @property
    def visible(self) -> bool:
        """Whether anything is to be drawn over the image."""
        return self.overlay.value != "none"

    @property
    def style(self) -> Style:
        """The style that the controls ask for; labels is None where none is switched off."""
        chosen = tuple(self.structures.value)
        everything = len(chosen) == len(self.structures.options)
        return Style(
            overlay=self.overlay.value if self.visible else render.OVERLAYS[0],
            colouring=self.colouring.value,
            opacity=self.opacity.value,
            outline_px=self.first.outline_px,
            pixel_mm=self.first.pixel_mm,
            threshold=self.threshold.value,
            labels=None if everything else chosen,
        )
