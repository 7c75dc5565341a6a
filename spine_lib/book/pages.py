"""Where the files of the repository stand on the site, and the pages made of its Markdown files."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

from spine_lib.book.lessons import relink
from spine_lib.course.notebook_index import Card

PAGES = {
    "README.md": "project/readme",
    "INSTRUCTORS.md": "project/instructors",
    "data/README.md": "project/data",
    "spine_lib/training/pretrained/MODEL_CARD.md": "project/model_card",
    "benchmarks/README.md": "project/benchmarks",
    "benchmarks/tuning.md": "project/tuning",
}
"""Markdown files of the repository that are pages of the site; those that are there."""

FILES = ("LICENSE", "CITATION.cff", "benchmarks/results/reproduce.json")
"""Files that pages link to, to be read or kept as they are."""


def linker(root: Path, folder: str, on_site: set[str]) -> Callable[[str], str | None]:
    """Return a function that turns a link in a file of the repository into one on the site.

    Args:
        root: of the repository.
        folder: of the file, seen from the root.
        on_site: modules that the reference describes, and names of the lessons.
    """

    def link(address: str) -> str | None:
        path, _, place = address.partition("#")
        return _target(root, posixpath.normpath(posixpath.join(folder, path)), place, on_site)

    return link


def _target(root: Path, path: str, place: str, on_site: set[str]) -> str | None:
    """Return the address on the site of a file of the repository, None if it is not on the site."""
    anchor = f"#{place}" if place else ""
    if not (root / path).exists():
        return None
    if path == "notebooks/README.md":
        return "/lessons/index.md"
    if path in PAGES:
        return f"/{PAGES[path]}.md{anchor}"
    if path.startswith("notebooks/") and path.endswith(".ipynb"):
        name = posixpath.basename(path)
        return f"/lessons/{name}" if name.removesuffix(".ipynb") in on_site else None
    if path in FILES or path.startswith("docs/") and path.endswith(".png"):
        return f"/project/files/{posixpath.basename(path)}"
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    if path.startswith("spine_lib") and module in on_site:
        return f"/reference/modules/{module}.rst"
    return None


def markdown_page(root: Path, path: str, on_site: set[str]) -> str:
    """Return a Markdown file of the repository as a page of the site."""
    text = (root / path).read_text(encoding="utf-8")
    folder = posixpath.dirname(path)
    up = "../" * (folder.count("/") + 1) if folder else ""
    return relink(text, linker(root, folder, on_site), up)


def opening(readme: str) -> str:
    """Return what the README says before its first section, without its title."""
    return readme.split("\n## ")[0].split("\n", 1)[1].strip() + "\n"


def section(readme: str, heading: str) -> str:
    """Return a section of the README with its heading; empty where there is none."""
    start = readme.find(f"\n## {heading}\n")
    if start < 0:
        return ""
    end = readme.find("\n## ", start + 1)
    return readme[start : end if end > 0 else None].strip() + "\n"


def lesson_cards(cards: list[Card]) -> str:
    """Return a grid of the lessons: picture, number, title, minutes."""
    return "\n".join(["::::{container} cards", *map(_lesson_card, cards), "::::", ""])


def _lesson_card(card: Card) -> str:
    number, address = card.name[:2], f"/lessons/{card.name}.ipynb"
    # The words of the link name the lesson, so its picture is told as a picture of it.
    alt = card.alt.replace("[", "(").replace("]", ")")
    title, _, rest = card.title.partition(": ")
    return f"""
:::{{container}} card-lesson
![{alt}](/lessons/pictures/{number}.png)

[{number} {title}]({address})

{rest[:1].upper() + rest[1:]}{"." if rest else ""} About {card.minutes} minutes.
:::
"""


def lessons_index(cards: list[Card]) -> str:
    """Return the page that lists the lessons with their goals."""
    parts = ["# Lessons", LESSONS_HEAD, "```{toctree}\n:hidden:\n"]
    parts[-1] += "\n".join(f"{c.name[:2]} {short_title(c)} <{c.name}>" for c in cards) + "\n```"
    for card in cards:
        goals = "\n".join(f"- {goal}" for goal in card.goals)
        alt = card.alt.replace("[", "(").replace("]", ")")
        parts.append(
            f"## {card.name[:2]}: [{card.title}](/lessons/{card.name}.ipynb)\n\n"
            f"About {card.minutes} minutes. In it you will\n\n{goals}\n\n"
            f"![{alt}](/lessons/pictures/{card.name[:2]}.png)"
        )
    return "\n\n".join(parts) + "\n"


def short_title(card: Card) -> str:
    """Return the part of a lesson's title before its colon."""
    return card.title.partition(":")[0]


LESSONS_HEAD = """\
From a CT file to a measured segmentation of the spine. Each lesson needs only what the ones before
it taught. Here you see what they print and draw, and can move the sliders of the viewers. To fill
in the exercises and to be told what is wrong, run them: `make lab`, or `python -m spine_lib lab`.
"""
