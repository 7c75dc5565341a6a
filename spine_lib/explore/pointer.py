"""Tell a viewer where the mouse is on its pictures, with ipywidgets alone.

No widget of ipywidgets reports the mouse. A picture is HTML, though, so its frame can write the
place into a text field that nobody sees, as if it had been typed, and the text field's value
reaches Python like any other. Where a page does not run such handlers, the sliders remain.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import ipywidgets as widgets

VIEWER_CLASS, POINTER_CLASS = "spine-viewer", "spine-pointer"
HOVER, PRESS, LEAVE = "hover", "press", "leave"

# The time makes each message differ from the one before, or pressing twice would be told once.
_HANDLER = """
const tell = e => {
  const field = this.closest('.VIEWER')?.querySelector('.POINTER input');
  if (!field) return;
  const box = this.getBoundingClientRect();
  const kind = e.type === 'pointerleave' ? 'leave' : e.buttons & 1 ? 'press' : 'hover';
  const place = [(e.clientX - box.x) / box.width, (e.clientY - box.y) / box.height];
  field.value = [kind, 'NAME', ...place.map(one => one.toFixed(5)), Math.round(e.timeStamp)]
    .join(' ');
  field.dispatchEvent(new Event('input', {bubbles: true}));
};
this.onpointermove = this.onpointerdown = this.onpointerleave = tell;
"""
_HANDLER = " ".join(
    _HANDLER.replace("VIEWER", VIEWER_CLASS).replace("POINTER", POINTER_CLASS).split()
)
_MESSAGE = re.compile(r"(hover|press|leave) (\w+) (-?\d+\.\d+) (-?\d+\.\d+) \d+")


def handler_html(name: str) -> str:
    """Return the attributes that make a frame tell where the mouse is on it.

    Args:
        name: of the picture, a word.
    """
    return f'onpointerenter="{_HANDLER.replace("NAME", name)}"'


class Pointer(widgets.Text):
    """Call when the mouse moves over, presses on or leaves a picture of a viewer.

    Args:
        call: takes HOVER, PRESS (also while dragged) or LEAVE, the picture's name, and the place
            as shares of its width and height, 0 to 1.
    """

    def __init__(self, call: Callable[[str, str, float, float], None]) -> None:
        super().__init__(layout=widgets.Layout(display="none"))
        self.add_class(POINTER_CLASS)
        self._call = call
        self.observe(self._told, "value")

    def _told(self, change: dict) -> None:
        message = _MESSAGE.fullmatch(change["new"])
        if message:
            kind, name, across, down = message.groups()
            shares = (min(max(float(share), 0.0), 1.0) for share in (across, down))
            self._call(kind, name, *shares)
