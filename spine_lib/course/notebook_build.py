"""Run a lesson from top to bottom and write its notebook: small outputs, nothing volatile."""

from __future__ import annotations

import base64
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from spine_lib import SpineError
from spine_lib.course.notebook_source import LessonSource

IMAGE_LIMIT_KB = 300
CELL_LIMIT_S = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
EMBEDDED = re.compile(r"data:image/[a-z+.-]+;base64,([A-Za-z0-9+/=]+)")
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,16}\b")


@dataclass(frozen=True)
class Built:
    """What came of running a lesson.

    Attributes:
        notebook: cells with outputs, cleaned.
        seconds: how long it ran, its kernel's start included.
        image_kb: its pictures together.
        problems: sentences; a notebook that has any is not to be written.
    """

    notebook: NotebookNode
    seconds: float
    image_kb: float
    problems: list[str]


def run_lesson(source: LessonSource, fast: bool = False) -> Built:
    """Run all cells of a lesson in its folder, in a kernel of the running Python.

    Args:
        source: the lesson.
        fast: run in the fast profile.

    Returns:
        The notebook with what it shows, and what is wrong with that.

    Raises:
        SpineError: if a cell raises or takes too long; names the line in the source.
    """
    notebook = nbformat.from_dict(source.notebook)
    started = time.perf_counter()
    _execute(notebook, source, fast)
    seconds = time.perf_counter() - started
    problems = _told_on_stderr(notebook, source)
    for cell in notebook.cells:
        _clean(cell)
    image_kb = sum(map(image_bytes, notebook.cells)) / 1024
    if image_kb > IMAGE_LIMIT_KB:
        largest = max(range(len(notebook.cells)), key=lambda n: image_bytes(notebook.cells[n]))
        problems.append(
            f"{source.path.name}: its pictures take {image_kb:.0f} KB together, {IMAGE_LIMIT_KB} "
            f"are allowed: make some smaller, first that of line {source.lines[largest]} "
            f"({image_bytes(notebook.cells[largest]) / 1024:.0f} KB)."
        )
    notebook.metadata = nbformat.from_dict(
        {
            **source.notebook.metadata,
            "spine": {"profile": "fast" if fast else "full"},
        }
    )
    return Built(notebook, seconds, image_kb, problems)


def write_notebook(source: LessonSource, notebook: NotebookNode) -> Path:
    """Write a notebook beside its source, all of it or nothing."""
    nbformat.validate(notebook)
    path = source.notebook_path
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def kernel_environment(fast: bool) -> dict[str, str]:
    """Return the environment of a lesson's kernel: this library, one profile, no grading."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    dropped = ("SPINE_FAST", "SPINE_GRADING", "MPLBACKEND", "PYTEST_CURRENT_TEST")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    kept |= {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "NO_ALBUMENTATIONS_UPDATE": "1"}
    return kept | ({"SPINE_FAST": "1"} if fast else {})


def _execute(notebook: NotebookNode, source: LessonSource, fast: bool) -> None:
    running = [0]
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(source.path.parent)}},
        on_cell_start=lambda cell, cell_index: running.__setitem__(0, cell_index),
    )
    # A kernel of that name which somebody installed for another Python must not be taken.
    client.create_kernel_manager().kernel_spec.argv[0] = sys.executable
    try:
        client.execute(env=kernel_environment(fast))
    except CellExecutionError as error:
        place = source.place(running[0], _line_in_cell(error.traceback))
        text = COLOURS.sub("", f"{error.ename}: {error.evalue}")
        raise SpineError(f"{place}: the cell stopped with {text}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise SpineError(
            f"{source.place(running[0])}: the cell took more than {CELL_LIMIT_S} seconds or its "
            "kernel died: make it smaller."
        ) from error


def _line_in_cell(traceback: str) -> int:
    match = re.search(r"Cell In\[\d+\], line (\d+)", COLOURS.sub("", traceback))
    return int(match[1]) if match else 0


def _told_on_stderr(notebook: NotebookNode, source: LessonSource) -> list[str]:
    problems = []
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                text = " ".join(COLOURS.sub("", output.text).split())
                problems.append(
                    f"{source.place(index)}: the cell writes to stderr, which no lesson should "
                    f"show (a warning, a progress bar): {text[:300]}"
                )
    return problems


def _clean(cell: NotebookNode) -> None:
    """Take out what changes from run to run or needs a kernel; a viewer leaves its still."""
    cell.metadata = nbformat.from_dict(
        {"tags": cell.metadata.tags} if "tags" in cell.metadata else {}
    )
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        data.pop(WIDGET, None)
        if output.output_type == "stream":
            output.text = ADDRESS.sub("0x...", output.text)
        if "text/plain" in data:
            data["text/plain"] = ADDRESS.sub("0x...", data["text/plain"])
    if "outputs" in cell:
        cell.outputs = [output for output in cell.outputs if output.get("data", True)]


def image_bytes(cell: NotebookNode) -> int:
    """Return the size of a cell's pictures, those inside HTML included."""
    total = 0
    for output in cell.get("outputs", []):
        for kind, content in output.get("data", {}).items():
            if kind == "image/svg+xml":
                total += len(content.encode("utf-8"))
            elif kind.startswith("image/"):
                total += len(base64.b64decode(content))
            elif kind == "text/html":
                total += sum(len(found) * 3 // 4 for found in EMBEDDED.findall(content))
    return total
