"""What lesson 6 keeps of a run on a GPU."""

from pathlib import Path

import nbformat

from benchmarks.lesson06_gpu import LESSON, gpu_outputs
from spine_lib.course.authoring import read_source


def test_each_cell_for_a_gpu_has_a_title_of_its_own():
    cells = [c for c in read_source(LESSON).cells if "gpu" in c.metadata.get("tags", [])]
    titles = {cell.source.splitlines()[0] for cell in cells}
    assert len(titles) == len(cells) > 3
    assert all(title.startswith("# ") for title in titles)


def test_what_cells_for_a_gpu_print_is_kept_by_title():
    notebook = nbformat.read(Path(LESSON).with_suffix(".ipynb"), as_version=4)
    outputs = gpu_outputs(notebook)
    assert "half precision" in outputs["The device"]
