"""Turn an executed notebook into a page of the site: alt texts, viewers, links."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from html import escape

import nbformat
from nbformat import NotebookNode

from spine_lib.course.notebook_index import FIGURE

PNG, PLAIN = "image/png", "text/plain"
WIDGET_TEXT = re.compile(r"^[A-Za-z]+\(.*(children=|description=|value=|layout=)", re.S)
WIDGET_NOTE = (
    "Here stands a slider or a button that needs Python: open this lesson with `make lab`."
)
FIGURE_LINE = re.compile(r"^(?=\*Figure:)", re.M)


def lesson_page(
    notebook: NotebookNode,
    pages: Mapping[int, str],
    link: Callable[[str], str | None],
) -> NotebookNode:
    """Make the page of a lesson from its executed notebook.

    Every picture gets an alt text: a viewer's own, else the `*Figure: ...*` line that follows it.
    A viewer gets a button that puts its page, with sliders, in the place of its still picture.

    Args:
        notebook: executed; it is left as it is.
        pages: address of the viewer's page by the index of the cell that shows the viewer.
        link: turns the address of a link in the text into that on the site, None takes it away.

    Returns:
        A notebook for myst-nb, with the cells of the old one and one more for each viewer.
    """
    cells = []
    for index, cell in enumerate(notebook.cells):
        new = nbformat.from_dict(cell)
        if cell.cell_type == "markdown":
            new.source = FIGURE_LINE.sub("{.figure-line}\n", relink(cell.source, link, "../"))
        else:
            _describe(new, figure_line(notebook, index))
        cells.append(new)
        if index in pages:
            source = sliders_html(pages[index], _alt_of(new))
            cells.append(nbformat.v4.new_markdown_cell(source))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def figure_line(notebook: NotebookNode, index: int) -> str:
    """Return the description of a code cell's picture: that before the next cell with a picture."""
    for cell in notebook.cells[index + 1 :]:
        if cell.cell_type == "markdown" and (match := FIGURE.search(cell.source)):
            return " ".join(match[1].split())
        if any(PNG in output.get("data", {}) for output in cell.get("outputs", [])):
            break
    return ""


def _describe(cell: NotebookNode, description: str) -> None:
    """Give a cell's pictures their alt text, and take out what only a kernel can show."""
    for output in cell.outputs:
        data = output.get("data", {})
        if PNG in data:
            alt = output.get("metadata", {}).get(PNG, {}).get("alt") or description
            # Every picture of a cell gets one text; no cell of the course shows two.
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
        elif list(data) == [PLAIN] and WIDGET_TEXT.match(data[PLAIN]):
            output.data = {"text/markdown": f"*{WIDGET_NOTE}*"}


def _alt_of(cell: NotebookNode) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")


def viewer_cells(notebook: NotebookNode) -> list[int]:
    """Return the cells that show a viewer: their picture brings its own alt text."""
    return [
        index
        for index, cell in enumerate(notebook.cells)
        if any(
            output.get("metadata", {}).get(PNG, {}).get("alt") for output in cell.get("outputs", [])
        )
    ]


def sliders_html(address: str, alt: str) -> str:
    """Return what opens a viewer's page, as Markdown: a link, which a script makes a button of.

    Args:
        address: of the page, seen from the page with the link.
        alt: of the viewer's still picture, which stands before the link.
    """
    html = (
        f'<p class="sliders"><a class="sliders-link" href="{escape(address)}" target="_blank" '
        f'rel="noopener" data-alt="{escape(alt)}">Open with sliders</a></p>'
    )
    return f"```{{raw}} html\n{html}\n```"


LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s]+)\)")


CODE_FILE = re.compile(r"(?<!\[)`(spine_lib/[\w/]+\.py)`(?!\])")


def relink(text: str, link: Callable[[str], str | None], root: str = "") -> str:
    """Replace the addresses of Markdown links; those that lead nowhere become plain text.

    Args:
        text: Markdown.
        link: turns the address of a link into that on the site, None takes it away.
        root: path from the file to the root of the repository, such as "../"; a name of a file of
            the library, such as `spine_lib/ct/volume.py`, becomes a link to its page of the reference.
    """

    def replaced(match: re.Match) -> str:
        mark, words, address = match.groups()
        if re.match(r"[a-z]+:|#", address):
            return match[0]
        new = link(address)
        return words if new is None else f"{mark}[{words}]({new})"

    def named(match: re.Match) -> str:
        new = link(f"{root}{match[1]}")
        return match[0] if new is None else f"[{match[0]}]({new})"

    return CODE_FILE.sub(named, LINK.sub(replaced, text))
