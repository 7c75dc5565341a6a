"""Slides of the lessons: one deck a lesson, from its notebook as it was executed."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from traitlets.config import Config

from spine_lib import SpineError
from spine_lib.course.authoring import lesson_sources
from spine_lib.ct.files import atomic_file

HELPERS = re.compile(r"^(check|hint|solution|progress|certify)\(", re.MULTILINE)
PICTURE = ".reveal img {max-height: 520px; width: auto !important} .reveal pre {width: 100%}"


def lesson_slides(notebook: NotebookNode) -> NotebookNode:
    """Return a lesson's notebook with the kind of slide of each cell.

    A heading begins a slide, a figure has one of its own, without its code. Text without a heading
    goes to the speaker's notes, below what was last shown; checks of exercises are left out.
    """
    for cell in notebook.cells:
        heading = re.match(r"#{1,3} ", cell.source) if cell.cell_type == "markdown" else None
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        pictures = any("image/png" in data or "image/svg+xml" in data for data in outputs)
        if cell.cell_type == "code" and HELPERS.search(cell.source):
            kind = "skip"
        elif heading:
            kind = "slide" if heading[0] in ("# ", "## ") else "subslide"
        elif cell.cell_type == "code":
            kind = "subslide"
        else:
            kind = "notes" if "](figures/" not in cell.source else "subslide"
        cell.metadata["slideshow"] = {"slide_type": kind}
        if pictures:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return notebook


def write_slides(project: Path, folder: Path, numbers: Sequence[str] = ()) -> None:
    """Write `NN_name.slides.html` of each lesson, or of those named; pictures are inside.

    The pages load reveal.js, which turns the slides, from the network when they are opened.

    Raises:
        SpineError: if a lesson has no notebook, or no number fits.
    """
    for path in lesson_sources(project / "notebooks", numbers):
        if not path.with_suffix(".ipynb").is_file():
            raise SpineError(f"{path.stem} has no notebook: run `make notebooks` first.")
        notebook = lesson_slides(nbformat.read(path.with_suffix(".ipynb"), as_version=4))
        hidden = {"enabled": True, "remove_input_tags": ["hide-input"]}
        exporter = SlidesExporter(
            config=Config(TagRemovePreprocessor=hidden),
            reveal_scroll=True, reveal_theme="white", reveal_width="1200", reveal_number="c/t",
            embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True,
        )  # fmt: skip
        resources = {"metadata": {"name": path.stem, "path": str(path.parent)}}
        page, _ = exporter.from_notebook_node(notebook, resources)
        page = page.replace("</head>", f"<style>{PICTURE}</style></head>", 1)
        with atomic_file(folder / f"{path.stem}.slides.html") as stream:
            stream.write(page.encode())


def main() -> None:
    """Write the decks; the options are those of `--help`."""
    parser = argparse.ArgumentParser(prog="docs/slides.py")
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", nargs="*", help="first characters of lessons, such as 03")
    options = parser.parse_args()
    try:
        write_slides(Path(__file__).resolve().parents[1], options.folder, options.numbers)
    except SpineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
