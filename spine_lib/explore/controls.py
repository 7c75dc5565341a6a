"""What viewers are made of: pictures, charts and captions of `widget.js`, controls, the base class.

`widget.js` shows what these widgets hold and reports wheel, pointer, touch, keys and brush as
traits. Controls are ipywidgets, reached by Tab and moved by arrow keys.
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
STILL_WIDTH_PX = 640
MARGINS_PX = 36  # of the orientation marks beside a picture
OWN_WINDOW = "own"
SIDES = ("left", "right", "top", "bottom")
HOVER, PRESS, LEAVE = "hover", "press", "leave"


class Front(anywidget.AnyWidget):
    """A widget that `widget.js` draws; its traits are those that the script names."""

    _esm = FOLDER / "widget.js"
    _css = FOLDER / "widget.css"
    kind = T.Unicode().tag(sync=True)

    def hold(self, **values: Any) -> None:
        """Set several traits in one message."""
        with self.hold_sync():
            for name, value in values.items():
                setattr(self, name, value)


class Picture(Front):
    """One drawn slice with its marks, and what hands do on it.

    Attributes:
        rgb: what is shown, uint8 [row, column, 3].
        pointer: HOVER, PRESS (also while dragged) or LEAVE, and the position as shares, 0 to 1,
            of width and height.
        index, last: slice that is shown and the last one, which wheel, keys and swipes move.
        window: centre and width in HU, moved by a drag with the right button or Shift.
        stroke: of the brush: its id, points as shares, and whether it is done.
        tool, radius: of the brush: "" for none, and its radius as shares of width and height.
    """

    kind = T.Unicode("picture").tag(sync=True)
    image = T.Bytes(b"").tag(sync=True)
    alt = T.Unicode("").tag(sync=True)
    title = T.Unicode("").tag(sync=True)
    size_px = T.Int(420).tag(sync=True)
    marks = T.List().tag(sync=True)
    bar = T.List().tag(sync=True)
    cursor = T.List().tag(sync=True)
    lines = T.Bool(False).tag(sync=True)
    index = T.Int(0).tag(sync=True)
    last = T.Int(0).tag(sync=True)
    window = T.List().tag(sync=True)
    tool = T.Unicode("").tag(sync=True)
    radius = T.List().tag(sync=True)
    pointer = T.List().tag(sync=True)
    stroke = T.Dict().tag(sync=True)
    key = T.List().tag(sync=True)

    def __init__(self, size_px: int = 420, slider: widgets.IntSlider | None = None) -> None:
        self.rgb = np.zeros((1, 1, 3), np.uint8)
        self.plane: str | None = None
        self.pixel_mm: float | None = None
        self._drawn: object = None
        super().__init__(size_px=size_px)
        if slider is not None:
            T.dlink((slider, "max"), (self, "last"))
            T.link((slider, "value"), (self, "index"))

    def show(
        self,
        rgb: np.ndarray,
        alt: str,
        title: str = "",
        plane: str | None = None,
        pixel_mm: float | None = None,
        mirrored: bool = False,
        cursor: Sequence[float] = (),
        lines: bool = False,
    ) -> None:
        """Replace the picture.

        Args:
            rgb: uint8 [row, column, 3].
            alt: what is seen, in words.
            title: above the picture.
            plane: for the orientation marks; None leaves them out.
            pixel_mm: for the scale bar; None leaves it out.
            mirrored: the picture is seen from the other side than the plane's slices.
            cursor: a point as shares of the width and the height, 0 to 1.
            lines: mark the cursor with lines across the picture and not with a small cross.
        """
        self.rgb, self.pixel_mm, self.plane = rgb, pixel_mm, None if mirrored else plane
        self._drawn = None
        marks = [] if plane is None else [orientation_marks(plane)[side] for side in SIDES]
        if mirrored:
            marks[:2] = marks[1::-1]
        self.hold(
            image=render.encode_png(rgb),
            alt=alt,
            title=title,
            marks=marks,
            bar=scale_bar(rgb.shape[1] * pixel_mm) if pixel_mm else [],
            cursor=list(cursor),
            lines=lines,
        )

    def show_slice(
        self,
        scene: Scene,
        index: int,
        plane: str,
        window: tuple[float, float],
        style: Style,
        title: str | None = None,
        note: str = "",
        cursor: Sequence[float] = (),
        lines: bool = False,
    ) -> None:
        """Draw a slice of a scene, with a note at the end of its alt text.

        Where it is shown already, only the cursor moves. See `Scene.draw` and `show`.
        """
        wanted = (scene, scene.version, index, plane, window, style, title, note)
        if wanted == self._drawn:
            self.cursor = list(cursor)
            return
        rgb = scene.draw(index, plane, window, style)
        alt = f"{title + ': ' if title else ''}{scene.alt_text(index, plane, style)[:-1]}{note}."
        title = scene.title(index, plane) if title is None else title
        pixel_mm = pixel_size_mm(scene.ct, plane, style.pixel_mm)
        with self.hold_sync():
            self.window = list(window)
            self.show(rgb, alt, title, plane, pixel_mm, cursor=cursor, lines=lines)
        self._drawn = wanted


class Chart(Front):
    """Lines over an axis, or a histogram, with an upright mark that a click moves."""

    kind = T.Unicode("chart").tag(sync=True)
    lines = T.List().tag(sync=True)
    ranges = T.List([[0, 1], [0, 1]]).tag(sync=True)
    labels = T.List(["", ""]).tag(sync=True)
    y_ticks = T.Bool(True).tag(sync=True)
    band = T.List().tag(sync=True)
    mark = T.Float(None, allow_none=True).tag(sync=True)
    alt = T.Unicode("").tag(sync=True)

    def show(
        self,
        lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        alt: str,
        labels: tuple[str, str],
        mark: float | None = None,
        y_range: tuple[float, float] = (0, 1),
        **options: Any,
    ) -> None:
        """Draw lines.

        Args:
            lines: x and y values by name, five lines at most; NaN leaves a gap.
            alt: what the chart shows, in words.
            labels: of the x and the y axis.
            mark: the x value at which the upright mark stands.
            y_range: lowest and highest y.
            options: `y_ticks` False leaves the numbers of y out; `band`, the ends of a window.
        """
        x_ends = [end for x, _ in lines.values() for end in (np.min(x), np.max(x))]
        low, high = float(min(x_ends)), float(max(x_ends))
        drawn = [
            {"name": name, "x": np.asarray(x).tolist(), "y": _with_gaps(y)}
            for name, (x, y) in lines.items()
        ]
        ranges = [[low, high if high > low else low + 1], list(y_range)]
        self.hold(lines=drawn, ranges=ranges, labels=list(labels), alt=alt, mark=mark, **options)


def _with_gaps(values: Sequence[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 5) for value in values]


class Caption(Front):
    """A line of text, which screen readers announce when it changes, and a legend."""

    kind = T.Unicode("caption").tag(sync=True)
    text = T.Unicode("").tag(sync=True)
    swatches = T.List().tag(sync=True)


class Chips(Front):
    """Structures that are switched on and off one by one, or in groups.

    Args:
        labels: canonical ids, all of them on at first unless `chosen` names some.
        chosen: the ids that are on.
    """

    kind = T.Unicode("chips").tag(sync=True)
    options = T.List().tag(sync=True)
    value = T.List().tag(sync=True)
    groups = T.List().tag(sync=True)

    def __init__(self, labels: Sequence[int], chosen: Sequence[int] | None) -> None:
        value = [label for label in labels if chosen is None or label in chosen]
        options = [[label_name(label), label] for label in labels]
        super().__init__(options=options, value=value, groups=label_groups(labels))

    def add(self, label: int) -> None:
        """Add a structure that is new, switched on."""
        labels = [old for _, old in self.options]
        if labels and label not in labels:
            groups = label_groups([*labels, label])
            options = [*self.options, [label_name(label), label]]
            self.hold(options=options, value=[*self.value, label], groups=groups)


def label_groups(labels: Sequence[int]) -> list[list]:
    """Return the groups of structures that chips offer, by name."""
    spine = [label for label in labels if label in CANONICAL_LABELS]
    return [["all", list(labels)], ["none", []], ["spine only", spine]]


def scale_bar(width_mm: float) -> list[float]:
    """Return the length of a scale bar in mm, and as a share of a picture's width in mm."""
    length_mm = scale_bar_mm(width_mm)
    return [length_mm, length_mm / width_mm]


def swatch_list(swatches: Iterable[Swatch], dashed: bool = False) -> list[list]:
    """Return a legend as `widget.js` takes it; `dashed` adds the prediction's line."""
    items = [[swatch.name, list(swatch.rgb), swatch.hatch] for swatch in swatches]
    return items + [["prediction (dashed line)", [216, 200, 0], "dashed"]] * dashed


class Observer:
    """Calls a function when a control changes, once where several are set together."""

    def __init__(self, call: Callable[[], None], *controls: widgets.Widget) -> None:
        self._call, self._paused = call, False
        for control in controls:
            control.observe(self._changed, "value")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Make no call inside the block."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _changed(self, _change: object) -> None:
        if not self._paused:
            self._call()


class Viewer(widgets.VBox):
    """The base of all viewers: pictures and controls, and a still where no kernel runs.

    A subclass sets `pictures`, and draws what is shown in `_draw`.
    """

    window: WindowControls | None = None

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
        picture, value = change["owner"], change["new"]
        if change["name"] == "pointer":
            self._move_mouse(value[0], picture, value[1], value[2])
        elif change["name"] == "stroke":
            self._brush(picture, value)
        elif change["name"] == "key":
            self._press_key(value[0])
        elif self.window is not None:
            self.window.move(*value)

    def _move_mouse(self, kind: str, picture: Picture, across: float, down: float) -> None:
        """Answer the pointer; see `Picture`."""

    def _brush(self, picture: Picture, stroke: dict) -> None:
        """Answer the brush; see `Picture`."""

    def _press_key(self, name: str) -> None:
        """Answer a key that does not move the slice."""

    def swatches(self) -> Sequence[Swatch]:
        """Return the legend of what is shown."""
        return ()

    @property
    def alt(self) -> str:
        """What is shown now, in words."""
        return " ".join(picture.alt for picture in self._visible)

    @property
    def _visible(self) -> list[Picture]:
        return [picture for picture in self.pictures if picture.layout.display != "none"]

    def figure(self) -> Figure:
        """Draw what is shown now as a static figure, with marks, scale bars and legend."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        from spine_lib.explore import figures

        pictures, swatches = self._visible, self.swatches()
        widest = sum(picture.rgb.shape[1] / picture.rgb.shape[0] for picture in pictures)
        width = min(4.6 * len(pictures), 9.5)
        columns = min(6 if width > 6 else 3, max(len(swatches), 1))
        height = min(width / widest, 6) + 0.4 + 0.2 * -(-len(swatches) // columns)
        with mpl.rc_context({"font.size": 8}):
            figure = Figure(figsize=(width, height), layout="constrained")
            for axes, picture in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures):
                if picture.plane is None or picture.pixel_mm is None:
                    axes.imshow(picture.rgb, interpolation="nearest")
                    axes.set_axis_off()
                else:
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
        png = figures.encode_figure(figure, "png", dpi=STILL_WIDTH_PX / figure.get_figwidth())
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
    """A preset, a centre and a width in HU; moving a slider leaves the preset.

    Args:
        window: a name from `WINDOWS`, or centre and width in HU.
        call: called after each change of the window, once.
    """

    STEP_HU = 10

    def __init__(self, window: str | tuple[float, float], call: Callable[[], None]) -> None:
        preset = window if isinstance(window, str) else OWN_WINDOW
        if preset != OWN_WINDOW:
            require_choice("window", preset, tuple(WINDOWS))
            window = WINDOWS[preset]
        self._call = call
        self.preset = choice("window", [*WINDOWS, OWN_WINDOW], preset)
        self.centre = slider("centre HU", round(window[0]), -1200, 3000, self.STEP_HU)
        self.width = slider("width HU", round(window[1]), 10, 5000, self.STEP_HU)
        super().__init__([self.preset, self.centre, self.width])
        self._sliders = Observer(self._leave_preset, self.centre, self.width)
        self.preset.observe(self._use_preset, "value")

    @property
    def window(self) -> Window:
        """Centre and width in HU."""
        return WINDOWS.get(self.preset.value, Window(self.centre.value, self.width.value))

    def move(self, centre: float, width: float) -> None:
        """Set both, as far as the sliders reach, and call once."""
        if (centre, width) == tuple(self.window):
            return
        with self._sliders.paused():
            self.centre.value, self.width.value = round(centre), round(width)
        self._leave_preset()

    def _use_preset(self, change: dict) -> None:
        if change["new"] == OWN_WINDOW:
            return
        with self._sliders.paused():
            self.centre.value, self.width.value = map(round, self.window)
        self._call()

    def _leave_preset(self) -> None:
        # The page moves a slider onto its grid of 10 HU, which 1023.5 and 4095 are not on.
        moved = np.abs(np.subtract(self.window, (self.centre.value, self.width.value)))
        if self.preset.value == OWN_WINDOW or moved.max() > self.STEP_HU / 2:
            self.preset.value = OWN_WINDOW
            self._call()


class OverlayControls(widgets.VBox):
    """How a mask and a prediction are drawn.

    Args:
        scene: what is shown; controls without an effect on it are left out.
        style: at the start.
        labels: ids in the mask, which can be switched off one by one.
        call: called after each change.
    """

    def __init__(
        self, scene: Scene, style: Style, labels: Sequence[int], call: Callable[[], None]
    ) -> None:
        overlays = render.OVERLAYS if scene.compared else render.OVERLAYS[:2]
        if style.overlay not in overlays:
            raise SpineError("The overlay 'error' needs a mask and a prediction: give both.")
        self._style = style
        self.kind = choice("overlay", ["none", *overlays], style.overlay)
        self.colouring = choice("colours by", COLOURINGS, style.colouring)
        self.opacity = slider("opacity", style.opacity, 0.0, 1.0, 0.05)
        self.threshold = slider("threshold", style.threshold, 0.01, 0.99, 0.01)
        self.structures = Chips(labels, style.labels)
        controls = (self.kind, self.colouring, self.opacity, self.threshold, self.structures)
        shown = list(controls) if scene.labelled is not None else []
        drawn = (volume for volume in (scene.mask, scene.prediction) if volume is not None)
        if shown and all(volume.array.dtype.kind != "f" for volume in drawn):
            shown.remove(self.threshold)
        if shown and scene.binary:
            shown.remove(self.structures)
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


def slider(
    description: str, value: float, low: float, high: float, step: float = 1
) -> widgets.IntSlider | widgets.FloatSlider:
    """Return a slider; of whole numbers where the step is an int."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return kind(value, min=low, max=high, step=step, **described(description))


def choice(description: str, options: Sequence[str], value: str) -> widgets.Dropdown:
    """Return a list from which one option is chosen."""
    return widgets.Dropdown(options=options, value=value, **described(description))


def described(description: str) -> dict:
    """Return the description and layout that controls share."""
    layout = widgets.Layout(width="310px", max_width="100%")
    return {"description": description, "style": {"description_width": "80px"}, "layout": layout}


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
