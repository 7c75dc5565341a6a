"""What viewers are made of: pictures, charts, sliders and captions of `widget.js`, the base class.

`widget.js` shows what these widgets hold and reports wheel, pointer, touch, keys and brush as
traits. All controls are reached by Tab and moved by arrow keys.
"""

from __future__ import annotations

import base64
import inspect
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets as T
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct.geometry import orientation_marks, pixel_size_mm, require_choice, scale_bar_mm
from spine_lib.ct.volume import WINDOWS, Window
from spine_lib.explore import render
from spine_lib.explore.overlays import CANONICAL_LABELS, COLOURINGS, Swatch
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, label_name

if TYPE_CHECKING:  # matplotlib takes longer to import than a viewer to open
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
STILL_WIDTH_PX, STILL_HEIGHT_PX = 640, 300  # at least
OWN_WINDOW = "own"
PRESS, LEAVE = "press", "leave"


def synced(kind: type[T.TraitType], *default: Any, **options: Any) -> T.TraitType:
    """Return a trait that `widget.js` reads."""
    return kind(*default, **options).tag(sync=True)


class Front(anywidget.AnyWidget):
    """A widget that `widget.js` draws; its traits are those that the script names.

    The script reports in messages, several of which may be under way; `answered` is the last.
    """

    _esm = FOLDER / "widget.js"
    _css = FOLDER / "widget.css"
    kind = synced(T.Unicode)
    answered = synced(T.List, [0, 0])

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(lambda _, report, __: self.hold(**report))

    def hold(self, **values: Any) -> None:
        """Set several traits in one message."""
        with self.hold_sync():
            for name, value in values.items():
                setattr(self, name, value)


class Picture(Front):
    """One drawn slice, `rgb` uint8 [row, column, 3], with its marks, and what hands do on it.

    Positions and the brush's radius are shares, 0 to 1, of width and height. `pointer` is "hover",
    PRESS (also while dragged) or LEAVE with a position, `stroke` has an id and all its points.
    """

    kind = synced(T.Unicode, "picture")
    image = synced(T.Bytes)
    alt = synced(T.Unicode)
    title = synced(T.Unicode)
    size_px = synced(T.Int, 420)
    marks = synced(T.List)
    bar = synced(T.List)
    cursor = synced(T.List)
    lines = synced(T.Bool, False)
    index = synced(T.Int)
    last = synced(T.Int)
    window = synced(T.List)
    tool = synced(T.Unicode)
    radius = synced(T.List)
    pointer = synced(T.List)
    stroke = synced(T.Dict)
    key = synced(T.List)

    def __init__(self, size_px: int = 420, slider: Slider | None = None) -> None:
        self.rgb = np.zeros((1, 1, 3), np.uint8)
        self.plane = self.pixel_mm = None
        self._drawn, self._links = None, []
        super().__init__(size_px=size_px)
        if slider is not None:
            self.follow(slider)

    def follow(self, slider: Slider) -> None:
        """Let wheel, keys and swipes move a slider, and no other."""
        for link in self._links:
            link.unlink()
        self._links = [
            T.dlink((slider, "max"), (self, "last")),
            T.link((slider, "value"), (self, "index")),
        ]

    def show(
        self,
        rgb: np.ndarray,
        alt: str,
        title: str = "",
        plane: str | None = None,
        pixel_mm: float | None = None,
        mirrored: bool = False,
    ) -> None:
        """Replace the picture; a mirrored one is seen from the other side of the plane.

        Without a plane it has no orientation marks, without `pixel_mm` no scale bar.
        """
        self.rgb, self.pixel_mm, self.plane = rgb, pixel_mm, None if mirrored else plane
        self._drawn = None
        marks = [] if plane is None else list(orientation_marks(plane).values())
        marks[:2] = marks[1::-1] if mirrored else marks[:2]
        bar = scale_bar(rgb.shape[1] * pixel_mm) if pixel_mm else []
        self.hold(image=render.encode_png(rgb), alt=alt, title=title, marks=marks, bar=bar)

    def show_slice(
        self, scene: Scene, index: int, plane: str, window: Sequence[float], note: str = ""
    ) -> None:
        """Draw a slice where it is not shown already, with a note at the end of its alt text."""
        wanted = (scene, scene.look, index, plane, window, note)
        if wanted == self._drawn:
            return
        rgb, alt = scene.draw(index, plane, window), scene.alt_text(index, plane)
        pixel_mm = pixel_size_mm(scene.ct, plane, scene.style.pixel_mm)
        with self.hold_sync():
            self.window = list(window)
            self.show(rgb, f"{alt[:-1]}{note}.", scene.slice_title(index, plane), plane, pixel_mm)
        self._drawn = wanted


class Chart(Front):
    """Lines over an axis as matplotlib draws them, with an upright mark that a click moves.

    `box` has the sides of the axes, left, right, top and bottom, as shares of the chart, and
    `range` the x at the left and right; `band` is a window in x, laid over the lines.
    """

    kind = synced(T.Unicode, "chart")
    svg = synced(T.Unicode)
    box = synced(T.List, [0, 1, 0, 1])
    range = synced(T.List, [0, 1])
    band = synced(T.List)
    mark = synced(T.Float, None, allow_none=True)
    alt = synced(T.Unicode)
    shown: tuple = ()
    _drawn: tuple | None = None

    def follow(self, slider: Slider) -> None:
        """Let a click move a slider."""

        def move(change: dict) -> None:
            if change["new"] != slider.value:
                slider.value = round(change["new"], 2)

        self.observe(move, "mark")

    def show(
        self,
        lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        alt: str,
        labels: tuple[str, str],
        mark: float | None = None,
        y_range: tuple[float, float] = (0, 1),
        band: Sequence[float] = (),
    ) -> None:
        """Draw lines, x and y by name, with the labels of the axes; NaN leaves a gap."""
        from spine_lib.explore import figures  # here, as matplotlib takes long to import

        lines = {name: np.asarray(line, float) for name, line in lines.items()}
        wanted = labels, y_range, [(name, line.tobytes()) for name, line in lines.items()]
        drawn = {}
        if wanted != self._drawn:
            self._drawn, self.shown = wanted, (lines, labels, y_range)
            figure = figures.line_chart(*self.shown)
            svg = figures.encode_figure(figure).decode()  # before its place is asked for
            left, bottom, right, top = figure.axes[0].get_position().extents.tolist()
            drawn["box"] = [left, right, 1 - top, 1 - bottom]
            drawn["range"] = list(figure.axes[0].get_xlim())
            drawn["svg"] = svg[svg.index("<svg") :].replace(figures.INK, "currentColor")
        self.hold(alt=alt, mark=mark, band=list(band), **drawn)


class Caption(Front):
    """A line of text, which screen readers announce when it changes, and a legend."""

    kind = synced(T.Unicode, "caption")
    text = synced(T.Unicode)
    swatches = synced(T.List)


class Slider(Front):
    """A slider with its number; of whole numbers where the step is an int."""

    kind = synced(T.Unicode, "slider")
    description = synced(T.Unicode)
    min = synced(T.Any)
    max = synced(T.Any)
    step = synced(T.Any)
    value = synced(T.Any)
    width_px = synced(T.Int)

    def __init__(
        self, name: str, value: float, low: float, high: float, step: float = 1, width: int = 310
    ) -> None:
        limits = {"min": low, "max": high, "step": step}
        super().__init__(description=name, value=value, width_px=width, **limits)

    @T.validate("value")
    def _inside(self, proposal: dict) -> float:
        value = min(max(proposal["value"], self.min), self.max)
        return round(value) if isinstance(self.step, int) else float(value)


class Chips(Front):
    """Structures, by label id, that are switched on and off one by one, or in groups."""

    kind = synced(T.Unicode, "chips")
    options = synced(T.List)
    value = synced(T.List)
    groups = synced(T.List)

    def __init__(self, labels: Sequence[int], chosen: Sequence[int] | None) -> None:
        value = [label for label in labels if chosen is None or label in chosen]
        super().__init__(**chip_traits(labels, value))

    def add(self, label: int) -> None:
        """Add a structure that is new, switched on."""
        labels = [old for _, old in self.options]
        if labels and label not in labels:
            self.hold(**chip_traits([*labels, label], [*self.value, label]))


def chip_traits(labels: Sequence[int], value: Sequence[int]) -> dict[str, list]:
    """Return the traits of chips: structures, those that are on, and groups, by name."""
    spine = [label for label in labels if label in CANONICAL_LABELS]
    return {
        "options": [[label_name(label), label] for label in labels],
        "value": list(value),
        "groups": [["all", list(labels)], ["none", []], ["spine only", spine]],
    }


def scale_bar(width_mm: float) -> list[float]:
    """Return the length of a scale bar in mm, and as a share of a picture's width in mm."""
    length_mm = scale_bar_mm(width_mm)
    return [length_mm, length_mm / width_mm]


def swatch_list(swatches: Iterable[Swatch], dashed: bool = False) -> list[list]:
    """Return a legend as `widget.js` takes it; `dashed` adds the prediction's line."""
    items = [[swatch.name, list(swatch.rgb), swatch.hatch] for swatch in swatches]
    return items + [["prediction (dashed line)", [216, 200, 0], "dashed"]] * dashed


class Observer:
    """Calls a function when a control changes, but not for what the function itself changes."""

    def __init__(self, call: Callable[[], None], *controls: widgets.Widget) -> None:
        self._call, self._busy = call, False
        for control in controls:
            control.observe(self._changed, "value")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Call once for all changes inside the block, at its end."""
        self._busy = True
        try:
            yield
            self._call()
        finally:
            self._busy = False

    def _changed(self, _change: object) -> None:
        if not self._busy:
            with self.together():
                pass


class Viewer(widgets.VBox):
    """The base of all viewers: pictures and controls, and a still where no kernel runs.

    A subclass sets `pictures`, draws what is shown in `_draw`, and answers traits of a picture, its
    pointer for example in `_answer_pointer`.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Give `help` and the reference the arguments, which the class of widgets hides."""
        super().__init_subclass__(**options)
        parameters = list(inspect.signature(cls.__init__).parameters.values())
        cls.__signature__ = inspect.Signature(parameters[1:])

    def __init__(self) -> None:
        super().__init__()
        self.add_class("spine-viewer")
        self.pictures: Sequence[Picture] = ()
        self.caption, self.chart = Caption(), Chart()
        if "google.colab" in sys.modules:  # Colab shows widgets of others only when asked to
            sys.modules["google.colab"].output.enable_custom_widget_manager()

    def _arrange(self, *children: widgets.Widget) -> None:
        """Put pictures and controls on the page, listen to the pictures, and draw."""
        self.children = children
        self._draw()
        for picture in self.pictures:
            picture.observe(self._receive, ["pointer", "window", "stroke", "key"])

    def _receive(self, change: dict) -> None:
        answer = getattr(self, f"_answer_{change['name']}", None)
        if answer is not None:
            answer(change["owner"], change["new"])

    def _answer_window(self, picture: Picture, window: list) -> None:
        self.window.move(*window)

    def swatches(self) -> Sequence[Swatch]:
        """Return the legend of what is shown."""
        return ()

    @property
    def alt(self) -> str:
        """What is shown now, in words."""
        return " ".join(picture.alt for picture in self.pictures or [self.chart])

    def figure(self) -> Figure:
        """Draw what is shown now as a static figure, with marks, scale bars and legend."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        from spine_lib.explore import figures

        pictures, swatches = self.pictures, self.swatches()
        if not pictures:
            return figures.line_chart(*self.chart.shown, mark=self.chart.mark)
        widest = sum(picture.rgb.shape[1] / picture.rgb.shape[0] for picture in pictures)
        width = min(4.6 * len(pictures), 9.5)
        columns = min(6 if width > 6 else 3, max(len(swatches), 1))
        height = min(width / widest, 6) + 0.4 + 0.2 * -(-len(swatches) // columns)
        with mpl.rc_context({"font.size": 8}):
            figure = Figure(figsize=(width, height), layout="constrained")
            for axes, picture in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures):
                figures.show_slice(axes, picture.rgb, picture.plane, picture.pixel_mm)
                axes.set_title(picture.title, fontsize=8, pad=14)
            if swatches:
                handles = figures.legend_handles(swatches)
                figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        return figure

    def still(self) -> bytes:
        """Return the static figure as a small PNG, some tens of kilobytes."""
        from spine_lib.explore import figures

        figure = self.figure()
        width, height = figure.get_size_inches()
        dpi = max(STILL_WIDTH_PX / width, STILL_HEIGHT_PX / height)
        png = figures.encode_figure(figure, "png", dpi=dpi)
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(png)) as image:
            image.convert("RGB").quantize(96).save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        alt, still = self.alt, base64.b64encode(self.still()).decode("ascii")
        data = {**(data or {}), "image/png": still, "text/plain": alt}
        return data, {**metadata, "image/png": {"alt": alt}}


class WindowControls(widgets.VBox):
    """A preset, a centre and a width in HU; moving a slider leaves the preset."""

    def __init__(self, window: str | tuple[float, float], call: Callable[[], None]) -> None:
        name = window if isinstance(window, str) else OWN_WINDOW
        require_choice("window", name, (*WINDOWS, OWN_WINDOW))
        self.window = WINDOWS[name] if name in WINDOWS else Window(*window)
        self.preset = choice("window", [*WINDOWS, OWN_WINDOW], name)
        self.centre = Slider("centre HU", self.window[0], -1200, 3000, 10)
        self.width = Slider("width HU", self.window[1], 10, 5000, 10)
        super().__init__([self.preset, self.centre, self.width])
        self._name, self._call = name, call
        self._controls = Observer(self._read, self.preset, self.centre, self.width)

    def move(self, centre: float, width: float) -> None:
        """Set both, as far as the sliders reach."""
        if (centre, width) != tuple(self.window):
            with self._controls.together():
                self.centre.value, self.width.value = centre, width

    def _read(self) -> None:
        name = self.preset.value
        if name in WINDOWS and name != self._name:
            self.window = WINDOWS[name]
        else:
            name, self.window = OWN_WINDOW, Window(self.centre.value, self.width.value)
        self._name = self.preset.value = name
        self.centre.value, self.width.value = self.window
        self._call()


class OverlayControls(widgets.VBox):
    """How a mask and a prediction are drawn; controls without an effect are left out."""

    def __init__(self, scene: Scene, labels: Sequence[int], call: Callable[[], None]) -> None:
        overlays, style = render.OVERLAYS if scene.compared else render.OVERLAYS[:2], scene.style
        if style.overlay not in overlays:
            raise SpineError("The overlay 'error' needs a mask and a prediction: give both.")
        self._style = style
        self.kind = choice("overlay", ["none", *overlays], style.overlay)
        self.colouring = choice("colours by", COLOURINGS, style.colouring)
        self.opacity = Slider("opacity", style.opacity, 0.0, 1.0, 0.05)
        self.threshold = Slider("threshold", style.threshold, 0.01, 0.99, 0.01)
        self.structures = Chips(labels, style.labels)
        controls = [self.kind, self.colouring, self.opacity, self.threshold, self.structures]
        drawn = [volume for volume in (scene.mask, scene.prediction) if volume is not None]
        fractions = any(volume.array.dtype.kind == "f" for volume in drawn)
        useful = [bool(drawn)] * 3 + [fractions, not scene.binary]
        shown = [control for control, use in zip(controls, useful) if use]
        super().__init__(shown, layout=widgets.Layout(max_width="318px"))
        self._observer = Observer(call, *controls)

    @property
    def visible(self) -> bool:
        """Whether anything is to be drawn over the image."""
        return self.kind.value != "none"

    @property
    def style(self) -> Style:
        """The style that the controls ask for; labels is None where none is switched off."""
        chosen = tuple(self.structures.value)
        return replace(
            self._style,
            overlay=self.kind.value if self.visible else "fill",
            colouring=self.colouring.value,
            opacity=self.opacity.value,
            threshold=self.threshold.value,
            labels=None if len(chosen) == len(self.structures.options) else chosen,
        )


def choice(description: str, options: Sequence, value: object) -> widgets.Dropdown:
    """Return a list from which one option is chosen."""
    return widgets.Dropdown(
        options=options,
        value=value,
        description=description,
        style={"description_width": "80px"},
        layout=widgets.Layout(width="310px", max_width="calc(100% - 4px)"),
    )


def button(description: str, clicked: Callable[[], None]) -> widgets.Button:
    """Return a button as wide as its words."""
    control = widgets.Button(description=description, tooltip=description)
    control.layout.width = "auto"
    control.on_click(lambda _: clicked())
    return control


def column(*children: widgets.Widget, width_px: int | None = None) -> widgets.VBox:
    """Return controls below each other, in a column that holds a width of `width_px`."""
    width = None if width_px is None else f"{width_px + 8}px"
    return widgets.VBox(children, layout=widgets.Layout(width=width, max_width="100%"))


def row(*children: widgets.Widget) -> widgets.HBox:
    """Return controls side by side, on several lines where the page is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", grid_gap="2px 10px"))


def board(pictures: Sequence[Picture]) -> widgets.HBox:
    """Return pictures side by side."""
    return row(*pictures).add_class("spine-pictures")
