"""Copies of the lessons for Colab and Kaggle, which begin with a cell that installs the library."""

import argparse
import re
import shutil
import sys
from pathlib import Path

from nbformat.v4 import new_code_cell, new_markdown_cell

from spine_lib import SpineError
from spine_lib.course.authoring import lesson_sources, read_source, write_notebook
from spine_lib.ct.files import atomic_file

COLAB = "https://colab.research.google.com/github"
KAGGLE = "https://kaggle.com/kernels/welcome?src=https://github.com"
SET_UP = """\
# For Colab and Kaggle; anywhere else this cell does nothing.
import importlib.util
import os
import subprocess
import sys

colab, kaggle = "google.colab" in sys.modules, "KAGGLE_KERNEL_RUN_TYPE" in os.environ
if (colab or kaggle) and importlib.util.find_spec("spine_lib") is None:
    source = "{source}"
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", source])
    if done.returncode:
        raise SystemExit("Nothing was installed. On Kaggle, turn Internet on in the settings.")
if colab:
    from google.colab import output

    output.enable_custom_widget_manager()
if colab or kaggle:
    import torch

    if not torch.cuda.is_available():
        print("No GPU: Runtime > Change runtime type (Colab), Settings > Accelerator (Kaggle).")
"""


def write_hosted_copies(project: Path, folder: Path, repository: str, ref: str = "main") -> None:
    """Write every lesson, with badges and a cell that installs the library, and a page of badges.

    Args:
        project: root of the project.
        folder: where to write: a folder of the repository that is not there yet.
        repository: where the project is public on GitHub, as owner/name.
        ref: branch or tag to install from.

    Raises:
        SpineError: if the repository is no owner/name, or the folder exists or lies elsewhere.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise SpineError(f"{repository!r} is no repository: write owner/name as GitHub does.")
    if folder.exists():
        raise SpineError(f"{folder} exists and may hold work: name another folder.")
    try:
        place = folder.resolve().relative_to(project.resolve()).as_posix()
    except ValueError:
        raise SpineError(f"{folder} is not in {project}, whose repository is to show it.") from None
    rows = ["# The lessons on Colab and Kaggle", "", "| lesson | |", "|---|---|"]
    source = f"spine-lib[lessons] @ git+https://github.com/{repository}@{ref}"
    notebooks = project / "notebooks"
    for path in [*lesson_sources(notebooks), *notebooks.glob("kaggle_*.py")]:
        notebook = read_source(path)
        address = f"{repository}/blob/{ref}/{place}/{path.stem}.ipynb"
        badges = f"[Open in Colab]({COLAB}/{address}) · [Open in Kaggle]({KAGGLE}/{address})"
        rows.append(f"| {path.stem} | {badges} |")
        first = [new_markdown_cell(badges), new_code_cell(SET_UP.format(source=source))]
        for cell, name in zip(first, ("badges", "set-up")):
            cell.id = name
        notebook.cells[1:1] = first
        write_notebook(notebook, folder / f"{path.stem}.ipynb")
    shutil.copytree(notebooks / "figures", folder / "figures")
    with atomic_file(folder / "README.md") as stream:
        stream.write("\n".join([*rows, ""]).encode())


def main() -> None:
    """Write the copies; the options are those of `--help`."""
    parser = argparse.ArgumentParser(prog="docs/hosted.py")
    parser.add_argument("repository", help="where the project is public on GitHub: owner/name")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("hosted"))
    parser.add_argument("--ref", default="main", help="branch or tag to install from")
    options = parser.parse_args()
    project = Path(__file__).resolve().parents[1]
    try:
        write_hosted_copies(project, options.folder, options.repository, options.ref)
    except SpineError as error:
        sys.exit(str(error))
    print(f"{options.folder} has the lessons: commit it, and link to its README.md.")


if __name__ == "__main__":
    main()
