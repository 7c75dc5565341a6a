"""The index of the lessons: minutes, goals and a picture of each, taken from the lessons."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

from spine_lib import SpineError
from spine_lib.course.notebook_source import LessonSource

HEAD = """\
# The lessons

From a CT file to a measured segmentation of the spine. Begin with the first one; each needs only
what the ones before it taught. `make lab` opens them.

Every lesson is also a plain Python file of the same name: the notebook is made from it, and so is
this page, by `make notebooks`.
"""
GOALS_START = re.compile(r"you will", re.I)
BULLET = re.compile(r"\s*(?:[-*]|\d+\.)\s+(.*)")
MINUTES = re.compile(r"(\d+)(?:\s*(?:to|-|–)\s*(\d+))?\s+minutes")
FIGURE = re.compile(r"^\*Figure:\s*(.+?)\*\s*$", re.M | re.S)


@dataclass(frozen=True)
class Card:
    """What the index says of a lesson.

    Attributes:
        name: of its files, without suffix.
        title: its H1.
        minutes: as the lesson gives them, for example "25" or "20 to 30".
        goals: what the reader will do.
        alt: what its picture shows.
    """

    name: str
    title: str
    minutes: str
    goals: tuple[str, ...]
    alt: str


def lesson_card(source: LessonSource) -> Card:
    """Read a lesson's card from its source.

    Raises:
        SpineError: if the lesson lacks its title, minutes, three to five goals or a described
            figure.
    """
    texts = [c.source for c in source.notebook.cells if c.cell_type == "markdown"]
    titles = re.findall(r"^# (.+)$", "\n\n".join(texts), re.M)
    minutes = MINUTES.search("\n".join(texts[:4]))
    goals = next((_goals(text) for text in texts[:4] if GOALS_START.search(text)), ())
    alt = _picture_alt(source.notebook)
    found = {
        "one title (`# ...`)": len(titles) == 1,
        "its minutes (`25 minutes`)": minutes,
        "three to five goals (a list after `In this notebook you will`)": 3 <= len(goals) <= 5,
        "a described figure (`*Figure: ...*`)": alt,
    }
    missing = [what for what, there in found.items() if not there]
    if missing:
        raise SpineError(f"{source.path.name} lacks {' and '.join(missing)}: add it.")
    span = " to ".join(filter(None, minutes.groups()))
    return Card(source.path.stem, titles[0].strip(), span, goals, alt)


def _goals(text: str) -> tuple[str, ...]:
    goals: list[str] = []
    lines = text[GOALS_START.search(text).end() :].splitlines()
    for line in lines[1:]:
        if match := BULLET.match(line):
            goals.append(match[1].strip())
        elif goals and line.strip() and line.startswith(" "):
            goals[-1] += f" {line.strip()}"
        elif goals:
            break
    return tuple(goals)


def picture_cell(notebook: NotebookNode) -> int | None:
    """Return the cell whose picture stands for the lesson: tagged `picture`, else the first.

    Args:
        notebook: with or without outputs. Without them, the cell before the first described
            figure counts as the first.
    """
    cells = notebook.cells
    for index, cell in enumerate(cells):
        if "picture" in cell.metadata.get("tags", []):
            return index
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown" and FIGURE.search(cell.source):
            return max((n for n in range(index) if cells[n].cell_type == "code"), default=None)
    return None


def _picture_alt(notebook: NotebookNode) -> str:
    start = picture_cell(notebook)
    for cell in notebook.cells[start:] if start is not None else ():
        if cell.cell_type == "markdown" and (match := FIGURE.search(cell.source)):
            return " ".join(match[1].split())
    return ""


def write_picture(source: LessonSource, notebook: NotebookNode) -> Path | None:
    """Write the picture of a lesson from its executed notebook, as `pictures/NN.png`.

    Returns:
        The file, or None where the cell shows no PNG.
    """
    index = picture_cell(notebook)
    outputs = notebook.cells[index].get("outputs", []) if index is not None else []
    for output in outputs:
        if png := output.get("data", {}).get("image/png"):
            path = source.path.parent / "pictures" / f"{source.path.stem[:2]}.png"
            path.parent.mkdir(exist_ok=True)
            partial = path.with_name(f"{path.name}.tmp")
            partial.write_bytes(base64.b64decode(png))
            os.replace(partial, path)
            return path
    return None


def index_text(cards: list[Card]) -> str:
    """Return the page of the index, in Markdown."""
    return "\n".join([HEAD, *map(_section, cards)])


def _section(card: Card) -> str:
    picture = f"pictures/{card.name[:2]}.png"
    alt = card.alt.replace("[", "(").replace("]", ")")
    goals = "\n".join(f"- {goal}" for goal in card.goals)
    return (
        f"## {card.name[:2]}: [{card.title}]({card.name}.ipynb)\n\n"
        f"About {card.minutes} minutes. In it you will\n\n{goals}\n\n![{alt}]({picture})\n"
    )
