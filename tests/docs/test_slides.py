"""Slides: headings, figures without their code, notes, and no checks of exercises."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from slides import lesson_slides, write_slides

from spine_lib import SpineError

ROOT = Path(__file__).parents[2]


def test_each_kind_of_cell_has_its_kind_of_slide():
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo="})
    cells = {
        "slide": new_markdown_cell("## 1. Windows (5 min)\n\nText."),
        "notes": new_markdown_cell("A long explanation."),
        "subslide": new_code_cell("draw()", outputs=[picture]),
        "skip": new_code_cell('check("1.5", window)'),
    }
    notebook = lesson_slides(new_notebook(cells=list(cells.values())))
    kinds = [cell.metadata.slideshow.slide_type for cell in notebook.cells]
    assert kinds == list(cells)
    assert notebook.cells[2].metadata.tags == ["hide-input"]


def test_a_deck_has_the_lessons_figures_and_not_their_code(tmp_path):
    write_slides(ROOT, tmp_path, ["01"])
    (page,) = tmp_path.glob("*.html")
    text = page.read_text(encoding="utf-8")
    assert text.count("<section>") > 20 and "data:image/png" in text
    assert "plt.subplots" not in text and 'class="notes"' in text


def test_a_lesson_without_a_notebook_is_named(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "03_x.py").write_text("# %%\n1\n")
    with pytest.raises(SpineError, match="03_x has no notebook: run `make notebooks`"):
        write_slides(tmp_path, tmp_path / "out")
