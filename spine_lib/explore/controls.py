"""What viewers are made of: the base class, pictures, the mouse, and the controls.

All controls are ipywidgets, reached by Tab and moved by arrow keys.
"""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
from PIL import Image

from spine_lib import SpineError
from spine_lib.ct.geometry import pixel_size_mm, require_choice
from spine_lib.ct.volume import WINDOWS, Window
from spine_lib.explore import markup, render
from spine_lib.explore.overlays import COLOURINGS, Swatch
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene, label_name

if TYPE_CHECKING:  # matplotlib takes longer to import than a viewer to open
    from matplotlib.figure import Figure

STILL_WIDTH_PX = 640
OWN_WINDOW = "own"
HOVER, PRESS, LEAVE = "hover", "press", "leave"

# No widget of ipywidgets reports the mouse, so a picture's frame types the position into a hidden
# text field of its viewer. The time makes two equal messages differ, or the second would be lost.
_MOUSE_HANDLER = " ".join(
    resources.files("spine_lib.explore").joinpath("pointer.js").read_text(encoding="utf-8").split()
)
_MOUSE_MESSAGE = re.compile(r"(hover|press|leave) (\w+) (-?\d+\.\d+) (-?\d+\.\d+) \d+")


class Picture(widgets.HTML):
    """One drawn slice with its marks; `rgb` and `alt` are what is shown.

    The picture is an `<img>`, because `ipywidgets.Image` has no alt text.

    Args:
        size_px: length of the longer side on the screen; a narrow page shrinks it.
        name: a word by which a `Pointer` reports the mouse; without one it does not.
    """

    def __init__(self, size_px: int = 420, name: str = "") -> None:
        super().__init__()
        self.size_px = size_px
        handler = _MOUSE_HANDLER.replace("NAME", name)
        self._attributes = f'onpointerenter="{handler}"' if name else ""
        self.rgb = np.zeros((1, 1, 3), np.uint8)
        self.alt = ""
        self.plane: str | None = None
        self.pixel_mm: float | None = None
        self._content = ""
        self._drawn: object = None

    def show(
        self,
        rgb: np.ndarray,
        alt: str,
        plane: str | None = None,
        pixel_mm: float | None = None,
        mirrored: bool = False,
        cursor: tuple[float, float] | None = None,
        lines: bool = False,
    ) -> None:
        """Replace the picture.

        Args:
            rgb: uint8 [row, column, 3].
            alt: what is seen, in words.
            plane: for the orientation marks; None leaves them out.
            pixel_mm: for the scale bar; None leaves it out.
            mirrored: the picture is seen from the other side than the plane's slices.
            cursor: a point as shares of the width and the height, 0 to 1.
            lines: mark the cursor with lines across the picture and not with a small cross.
        """
        self.rgb, self.alt, self.pixel_mm = rgb, alt, pixel_mm
        self.plane = None if mirrored else plane
        marks = "" if plane is None else markup.marks_html(plane, mirrored)
        if pixel_mm is not None:
            marks += markup.scale_bar_html(rgb.shape[1] * pixel_mm)
        if self._content:
            source = markup.data_uri(render.encode_png(rgb))
        else:  # a notebook saves the first picture, which must be small; later ones must be fast
            source = markup.webp_uri(rgb, lossless=True, method=1)
        self._content = markup.picture_html(source, alt) + marks
        self.move_cursor(cursor, lines)

    def show_slice(
        self,
        scene: Scene,
        index: int,
        plane: str,
        window: tuple[float, float],
        style: Style,
        title: str = "",
        note: str = "",
        cursor: tuple[float, float] | None = None,
        lines: bool = False,
    ) -> None:
        """Draw a slice of a scene, with words before and after its alt text.

        Where it is shown already, only the cursor moves. See `Scene.draw` and `show`.
        """
        wanted = (scene, index, plane, window, style, title, note)
        if wanted == self._drawn:
            self.move_cursor(cursor, lines)
            return
        self._drawn = wanted
        rgb = scene.draw(index, plane, window, style)
        alt = f"{title}{scene.alt_text(index, plane, style)[:-1]}{note}."
        pixel_mm = pixel_size_mm(scene.ct, plane, style.pixel_mm)
        self.show(rgb, alt, plane, pixel_mm, cursor=cursor, lines=lines)

    def move_cursor(self, cursor: tuple[float, float] | None, lines: bool = False) -> None:
        """Show the picture with the cursor at another point; see `show`."""
        content = self._content + ("" if cursor is None else markup.cursor_html(*cursor, lines))
        self.value = markup.frame_html(content, self.rgb.shape[:2], self.size_px, self._attributes)


class Pointer(widgets.Text):
    """A hidden text field that reports the mouse over the pictures of a viewer.

    Args:
        call: takes HOVER, PRESS (also while dragged) or LEAVE, the picture's name, and the
            position as shares of its width and height, 0 to 1.
    """

    def __init__(self, call: Callable[[str, str, float, float], None]) -> None:
        super().__init__(layout=widgets.Layout(display="none"))
        self.add_class("spine-pointer")
        self._call = call
        self.observe(self._receive, "value")

    def _receive(self, change: dict) -> None:
        message = _MOUSE_MESSAGE.fullmatch(change["new"])
        if message:
            kind, name, *shares = message.groups()
            self._call(kind, name, *(min(max(float(share), 0.0), 1.0) for share in shares))


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

    def __init__(self) -> None:
        super().__init__()
        self.add_class("spine-viewer")
        self.pictures: Sequence[Picture] = ()
        self.text, self.chart, self.legend = (widgets.HTML() for _ in range(3))
        self.pointer = Pointer(self._move_mouse)

    def _arrange(self, *children: widgets.Widget) -> None:
        """Put pictures and controls on the page, and draw."""
        self.children = [*children, self.pointer]
        self._draw()

    def _move_mouse(self, kind: str, name: str, across: float, down: float) -> None:
        """Answer the mouse; see `Pointer`."""

    def swatches(self) -> Sequence[Swatch]:
        """Return the legend of what is shown."""
        return ()

    @property
    def alt(self) -> str:
        """What is shown now, in words."""
        return " ".join(picture.alt for picture in self.pictures)

    def figure(self) -> Figure:
        """Draw what is shown now as a static figure, with marks, scale bars and legend."""
        import matplotlib as mpl
        from matplotlib.figure import Figure

        from spine_lib.explore import figures

        pictures, swatches = self.pictures, self.swatches()
        widest = sum(picture.rgb.shape[1] / picture.rgb.shape[0] for picture in pictures)
        width = min(4.6 * len(pictures), 9.5)
        title = textwrap.wrap(self.alt, int(width * 15))
        height = min(width / widest, 6) + 0.16 * len(title) + 0.5
        with mpl.rc_context({"font.size": 8}):
            figure = Figure(figsize=(width, height), layout="constrained")
            for axes, picture in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures):
                if picture.plane is None or picture.pixel_mm is None:
                    axes.imshow(picture.rgb, interpolation="nearest")
                    axes.set_axis_off()
                else:
                    figures.show_slice(axes, picture.rgb, picture.plane, picture.pixel_mm)
            figure.suptitle("\n".join(title), fontsize=8)
            if swatches:
                columns = min(6 if width > 6 else 3, len(swatches))
                handles = figures.legend_handles(swatches[:12])
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

    def __init__(self, window: str | tuple[float, float], call: Callable[[], None]) -> None:
        preset = window if isinstance(window, str) else OWN_WINDOW
        if preset != OWN_WINDOW:
            require_choice("window", preset, tuple(WINDOWS))
            window = WINDOWS[preset]
        self._call = call
        self.preset = choice("window", [*WINDOWS, OWN_WINDOW], preset)
        self.centre = slider("centre HU", round(window[0]), -1200, 3000, 10)
        self.width = slider("width HU", round(window[1]), 10, 5000, 10)
        super().__init__([self.preset, self.centre, self.width])
        self._sliders = Observer(self._leave_preset, self.centre, self.width)
        self.preset.observe(self._use_preset, "value")

    @property
    def window(self) -> Window:
        """Centre and width in HU."""
        return WINDOWS.get(self.preset.value, Window(self.centre.value, self.width.value))

    def _use_preset(self, change: dict) -> None:
        if change["new"] == OWN_WINDOW:
            return
        with self._sliders.paused():
            self.centre.value, self.width.value = map(round, self.window)
        self._call()

    def _leave_preset(self) -> None:
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
        self.structures = widgets.SelectMultiple(
            options=[(label_name(label), label) for label in labels],
            value=[label for label in labels if style.labels is None or label in style.labels],
            rows=min(8, max(2, len(labels))),
            tooltip="Hold Ctrl (or Cmd) to switch single structures on and off",
            **_options("structures"),
        )
        controls = (self.kind, self.colouring, self.opacity, self.threshold, self.structures)
        shown = list(controls) if scene.labelled is not None else []
        drawn = (volume for volume in (scene.mask, scene.prediction) if volume is not None)
        if shown and all(volume.array.dtype.kind != "f" for volume in drawn):
            shown.remove(self.threshold)
        if shown and scene.binary:
            shown.remove(self.structures)
        super().__init__(shown)
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
    return kind(value, min=low, max=high, step=step, **_options(description))


def choice(description: str, options: Sequence[str], value: str) -> widgets.Dropdown:
    """Return a list from which one option is chosen."""
    return widgets.Dropdown(options=options, value=value, **_options(description))


def _options(description: str) -> dict:
    layout = widgets.Layout(width="310px", max_width="100%")
    return {"description": description, "style": {"description_width": "80px"}, "layout": layout}


def button(description: str, clicked: Callable[[], None]) -> widgets.Button:
    """Return a button as wide as its words."""
    control = widgets.Button(description=description, tooltip=description)
    control.layout.width = "auto"
    control.on_click(lambda _: clicked())
    return control


def column(*children: widgets.Widget, width_px: int | None = None) -> widgets.VBox:
    """Return controls below each other, no wider than a picture of `width_px`."""
    width = None if width_px is None else f"{width_px + 8}px"
    return widgets.VBox(children, layout=widgets.Layout(width=width, max_width="100%"))


def row(*children: widgets.Widget) -> widgets.HBox:
    """Return controls side by side, on several lines where the page is narrow."""
    return widgets.HBox(children, layout=widgets.Layout(flex_flow="row wrap", grid_gap="2px 10px"))
