"""Gather the sources of the site in one folder and let Sphinx make pages of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import nbformat

from spine_lib import SpineError
from spine_lib.book import pages
from spine_lib.book.lessons import lesson_page, viewer_cells
from spine_lib.book.reference import complete, named_modules, public_modules
from spine_lib.book.scans import scans_page
from spine_lib.book.viewers import can_move, save_viewer, viewer_of
from spine_lib.course.notebook_index import Card, lesson_card
from spine_lib.course.notebook_source import lesson_sources, read_source
from spine_lib.explore.base import Viewer

ROOT = Path(__file__).resolve().parents[2]
VIEWERS = "viewers"
REFERENCE = "reference/index.md"


def build_site(
    root: Path = ROOT,
    out: Path | None = None,
    numbers: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> Path:
    """Build the site: the lessons that are there, their viewers, the reference, the README.

    Args:
        root: of the repository.
        out: folder for it; `docs/_build` where left out. It holds `source`, what Sphinx reads, and
            `html`, the site.
        numbers: of the lessons wanted, for instance "03"; all where left out.
        say: takes a sentence for the user.

    Returns:
        The first page of the site.

    Raises:
        SpineError: if Sphinx is missing, warns or fails; its own lines stand above the sentence.
    """
    out = out or root / "docs" / "_build"
    source, html = out / "source", out / "html"
    cards = gather(root, source, numbers, say)
    # A page that is gone from the sources must not stay on the site; the cache makes this cheap.
    shutil.rmtree(html, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going"]
    command += ["-d", str(out / "cache"), str(source), str(html)]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": os.pathsep.join(paths)
    }  # fmt: skip
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise SpineError(
            f"Sphinx did not make the site in {html} (its lines stand above): correct what they "
            "name, or run `python -m spine_lib setup` if it is not installed."
        )
    say(f"{len(cards)} lessons, the reference and the README: open {html / 'index.html'}")
    return html / "index.html"


def gather(
    root: Path, source: Path, numbers: Sequence[str], say: Callable[[str], object] = print
) -> list[Card]:
    """Write the sources of the site into a folder; a file that is there and equal is kept.

    Args:
        root: of the repository.
        source: the folder; what it holds besides is removed.
        numbers: of the lessons wanted; all where left out.
        say: takes a sentence for the user.

    Returns:
        The cards of the lessons.
    """
    lessons = _executed(root, numbers, say)
    rooms = (root / "docs" / REFERENCE).read_text(encoding="utf-8")
    reference = complete(rooms, public_modules(root))
    on_site = {*named_modules(reference), *(path.stem for path in lessons)}
    written: set[Path] = set()

    def write(path: str, content: str | bytes) -> None:
        written.add(source / path)
        write_if_changed(source / path, content)

    for path in sorted((root / "docs").rglob("*")):
        relative = path.relative_to(root / "docs")
        if path.is_file() and relative.parts[0] not in ("_build", "reference"):
            write(relative.as_posix(), path.read_bytes())
    write(REFERENCE, reference)
    cards = _write_lessons(root, lessons, on_site, write, say)
    write("explore.md", scans_page(lambda *one: _write_viewer(*one, write), write, say))
    _write_project(root, on_site, write)
    readme = pages.markdown_page(root, "README.md", on_site)
    write("parts/opening.md", pages.opening(readme))
    write("parts/quick_start.md", pages.section(readme, "Quick start"))
    write("parts/cards.md", pages.lesson_cards(cards))
    _remove_others(source, written)
    return cards


def write_if_changed(path: Path, content: str | bytes) -> None:
    """Write a file unless it holds just that, so that Sphinx reads anew only what has changed."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_bytes(data)
    os.replace(partial, path)


def _executed(root: Path, numbers: Sequence[str], say) -> list[Path]:
    """Return the sources of the lessons that have an executed notebook beside them."""
    found = lesson_sources(root / "notebooks", list(numbers))
    for path in found:
        if not path.with_suffix(".ipynb").is_file():
            say(f"{path.stem} is left out: it was not executed yet (spine notebooks).")
    return [path for path in found if path.with_suffix(".ipynb").is_file()]


def _write_lessons(root, lessons, on_site, write, say) -> list[Card]:
    cards = []
    link = pages.linker(root, "notebooks", on_site)
    for path in lessons:
        notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
        shown = _write_viewers(path.stem[:2], notebook, write, say)
        page = lesson_page(notebook, shown, link)
        for number, cell in enumerate(page.cells):
            cell.id = f"cell-{number}"  # new ones at each call would change the file
        write(f"lessons/{path.stem}.ipynb", nbformat.writes(page))
        picture = root / "notebooks" / "pictures" / f"{path.stem[:2]}.png"
        write(f"lessons/pictures/{picture.name}", picture.read_bytes())
        cards.append(lesson_card(read_source(path)))
    write("lessons/index.md", pages.lessons_index(cards))
    return cards


def _write_viewers(lesson: str, notebook, write, say) -> dict[int, str]:
    """Write the pages of a lesson's viewers; returns their addresses by cell."""
    shown = {}
    for place, index in enumerate(viewer_cells(notebook), 1):
        try:
            viewer = viewer_of(notebook, index)
            if can_move(viewer):
                shown[index] = f"../{_write_viewer(f'{lesson}-{place}', viewer, write)}"
        except Exception as error:  # the still picture stays, and somebody should know why
            say(f"Lesson {lesson}: no sliders for viewer {place} ({type(error).__name__}: {error})")
    return shown


def _write_viewer(name: str, viewer: Viewer, write) -> str:
    """Write the page of a viewer; returns its address, seen from the site's first page."""
    with tempfile.TemporaryDirectory() as folder:
        page = save_viewer(viewer, Path(folder) / "page.html").read_bytes()
    write(f"{VIEWERS}/{VIEWERS}/{name}.html", page)
    return f"{VIEWERS}/{name}.html"


def _write_project(root: Path, on_site: set[str], write) -> None:
    names = []
    for path, page in pages.PAGES.items():
        if (root / path).is_file():
            write(f"{page}.md", pages.markdown_page(root, path, on_site))
            name = page.removeprefix("project/")
            # Its own title is that of the site.
            names.append(f"README <{name}>" if path == "README.md" else name)
    for path in (*pages.FILES, *(one.relative_to(root) for one in (root / "docs").glob("*.png"))):
        write(f"project/files/{Path(path).name}", (root / path).read_bytes())
    head = "# The project\n\nWhat the repository says of itself.\n\n```{toctree}\n"
    write("project/index.md", head + "\n".join(names) + "\n```\n")


def _remove_others(source: Path, written: set[Path]) -> None:
    """Remove what an earlier run left; the modules' pages are Sphinx's own."""
    for path in source.rglob("*"):
        if path.is_file() and path not in written and "modules" not in path.parts:
            path.unlink()
