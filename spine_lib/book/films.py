"""Write a viewer that asks Python for every picture as a page that needs none: a film of it.

The viewer is set to every combination of a few values of its main controls, and what it shows is
kept. The page's own sliders then turn the leaves.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from spine_lib.ct.files import atomic_file
from spine_lib.explore.base import Viewer
from spine_lib.explore.quiz import AnnotationQuiz

FRAMES = 240
"""Combinations of a film at most."""

SLIDERS = (widgets.IntSlider, widgets.FloatSlider)
CHOICES = (widgets.Dropdown, widgets.ToggleButtons, widgets.RadioButtons)


@dataclass(frozen=True)
class Axis:
    """One control of a film.

    Attributes:
        name: beside the control.
        values: what it can be set to, in words; `move` knows what they stand for.
        start: position to begin with.
        move: sets the viewer to a position.
        slider: a slider, else a list to choose from.
    """

    name: str
    values: Sequence[str]
    start: int
    move: Callable[[int], object]
    slider: bool = True


def axes_of(viewer: Viewer) -> list[Axis]:
    """Return the controls of a viewer's film: those of `FILMS`, else its first two.

    Args:
        viewer: whose sliders and lists are attributes of it.
    """
    if isinstance(viewer, AnnotationQuiz):
        return _quiz_axes(viewer)
    paths = FILMS.get(type(viewer).__name__)
    if paths is None:
        found = (name for name, one in vars(viewer).items() if isinstance(one, SLIDERS + CHOICES))
        paths = dict.fromkeys(itertools.islice(found, 2), 0)
    controls = {path: _control(viewer, path) for path in paths}
    chosen = [one for one in controls.values() if isinstance(one, CHOICES)]
    room = FRAMES // int(np.prod([len(one.options) for one in chosen] or [1]))
    sliders = max(1, len(controls) - len(chosen))
    each = max(2, int(room ** (1 / sliders)))
    return [_axis(one, paths[path] or each) for path, one in controls.items()]


FILMS: dict[str, dict[str, int]] = {
    "AugmentationExplorer": {"step": 0, "strength": 5},
    "ReceptiveFieldExplorer": {"pattern": 0, "layers": 5, "dilation": 6},
    "ThresholdExplorer": {"threshold": 19, "slice": 12},
    "WindowExplorer": {"window.centre": 16, "window.width": 12},
}
"""Which controls a viewer's film has, and how many values of each; 0 leaves that to the film."""

RANGES = {"centre HU": (-800, 700), "width HU": (100, 2300)}
"""The part of a slider that is worth the room, by its description."""


def _control(viewer: Viewer, path: str) -> widgets.Widget:
    control = viewer
    for name in path.split("."):
        control = getattr(control, name)
    return control


def _axis(control: widgets.Widget, count: int) -> Axis:
    """Return the axis of a slider, with about `count` values and that of now, or of a list."""
    name = control.description.rstrip(":")
    if isinstance(control, CHOICES):
        names = [str(one[0] if isinstance(one, tuple) else one) for one in control.options]
        return Axis(
            name, names, control.index or 0, lambda at: setattr(control, "index", at), False
        )
    low, high = RANGES.get(name, (control.min, control.max))
    steps = np.linspace(low, high, count)
    values = {control.value, *(_on_step(control, one) for one in steps)}
    values = sorted(values)
    names = [f"{one:g}" for one in values]
    start = values.index(control.value)
    return Axis(name, names, start, lambda at: setattr(control, "value", values[at]))


def _on_step(control: widgets.Widget, value: float) -> float:
    steps = round((value - control.min) / control.step)
    return min(control.max, round(control.min + steps * control.step, 6))


def _quiz_axes(quiz: AnnotationQuiz) -> list[Axis]:
    """Return the axes of a quiz: the question, whether its answer is told, and the slice."""
    questions, slices = len(quiz._kinds), 24

    def ask(at: int) -> None:
        quiz.round = at - 1
        quiz._ask()

    def tell(at: int) -> None:
        words = f"Question {quiz.round + 1} of {questions}: what is wrong here?"
        quiz.told.value = f"<p>{words} {f'<b>{escape(quiz.question.told)}</b>' if at else ''}</p>"

    spine = np.flatnonzero((quiz._labels.array > 0).any(axis=(1, 2)))
    places = np.linspace(spine[0] - 3, spine[-1] + 3, slices).round().astype(int)
    places = np.clip(places, 0, quiz._labels.shape[0] - 1)
    return [
        Axis("question", [f"{one + 1}" for one in range(questions)], 0, ask, False),
        Axis("answer", ["hidden", "told"], 0, tell, False),
        Axis(
            "sagittal slice", [f"{one + 1}" for one in places], slices // 2,
            lambda at: setattr(quiz.viewer.slice, "value", int(places[at])),
        ),
    ]  # fmt: skip


def shown_parts(widget: widgets.Widget) -> list[str]:
    """Return what a viewer shows from top to bottom as HTML: pictures, charts, sentences."""
    if isinstance(widget, widgets.HTML | widgets.Label):
        return [widget.value if isinstance(widget, widgets.HTML) else escape(widget.value)]
    return [part for child in getattr(widget, "children", ()) for part in shown_parts(child)]


def save_film(viewer: Viewer, path: Path, title: str = "") -> Path:
    """Write a page that shows what a viewer shows, at the values of `axes_of`.

    Args:
        viewer: it is moved.
        path: `.html` file to write; it is replaced at once or not at all.
        title: heading of the page; what the viewer's class says of itself where left out.

    Returns:
        The path.
    """
    axes = axes_of(viewer)
    title = title or (type(viewer).__doc__ or "").strip().split("\n")[0].rstrip(".")
    table: dict[str, int] = {}
    frames, at = [], [None] * len(axes)
    for position in itertools.product(*(range(len(axis.values)) for axis in axes)):
        for number, axis in enumerate(axes):
            # What stands before has moved, so what follows it must be set again.
            if at[: number + 1] != list(position[: number + 1]):
                axis.move(position[number])
        at = list(position)
        frames.append([table.setdefault(part, len(table)) for part in shown_parts(viewer)])
    content = {
        "axes": [
            {"name": a.name, "values": a.values, "start": a.start, "slider": a.slider} for a in axes
        ],
        "parts": list(table),
        "frames": frames,
    }
    return _write_page(path, title, content)


def _write_page(path: Path, title: str, content: dict) -> Path:
    page = resources.files("spine_lib.book").joinpath("film.html").read_text(encoding="utf-8")
    # Without "<" no text can end the script.
    data = json.dumps(content).replace("<", "\\u003c")
    page = page.replace("@TITLE@", escape(title)).replace("@CONTENT@", data)
    with atomic_file(path) as stream:
        stream.write(page.encode("utf-8"))
    return path
