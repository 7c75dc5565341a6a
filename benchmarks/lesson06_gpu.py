"""Run lesson 6 on a GPU and keep what its cells tagged "gpu" print; the lesson shows it.

python benchmarks/lesson06_gpu.py               # or: make lessons-gpu
"""

import datetime
import sys
import time
from pathlib import Path

import torch
from nbformat import NotebookNode

from spine_lib.course.authoring import build_lesson
from spine_lib.course.measurements import RESULTS
from spine_lib.ct.files import write_json
from spine_lib.reproduce.provenance import device_name, versions

LESSON = Path(__file__).resolve().parents[1] / "notebooks" / "06_training_on_gpu.py"


def gpu_outputs(notebook: NotebookNode) -> dict[str, str]:
    """Return what the cells tagged "gpu" printed, by the comment in their first line."""
    outputs = {}
    for cell in notebook.cells:
        if "gpu" in cell.metadata.get("tags", []):
            title = cell.source.splitlines()[0].removeprefix("# ")
            outputs[title] = "".join(output.get("text", "") for output in cell.outputs)
    return outputs


def main() -> None:
    """Run the lesson and write `lesson06_gpu.json` among the course's results."""
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA GPU: run this on a machine with one")
    started = time.perf_counter()
    outputs = gpu_outputs(build_lesson(LESSON))
    result = {
        "name": "lesson06_gpu",
        "outputs": outputs,
        "device": device_name("cuda"),
        "versions": versions(),
        "made": datetime.date.today().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(RESULTS / "lesson06_gpu.json", result)


if __name__ == "__main__":
    main()
