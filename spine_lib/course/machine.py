"""Report whether a machine is ready for the lessons."""

import platform
import sys
from importlib import metadata

import psutil
import torch

from spine_lib import SpineError
from spine_lib.datasets.sample import fetch_sample
from spine_lib.reproduce.provenance import device_name

PYTHONS = ((3, 11), (3, 14))  # first that works, first that does not
ENOUGH_MEMORY_GB = 6


def machine_report() -> str:
    """Return lines on Python, PyTorch, device, memory, widgets and data, with advice below each.

    The real patients are fetched where they are missing, 82 MB once.
    """
    fits = PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]
    unfit = "" if fits else "The library is tested with Python 3.11, 3.12 and 3.13: use one."
    gpu = torch.cuda.is_available()
    cpu_text = f"{device_name('cpu')}, no NVIDIA GPU: enough for every lesson"
    memory = psutil.virtual_memory()
    total_gb, free_gb = memory.total / 2**30, memory.available / 2**30
    full = f"Training takes up to {ENOUGH_MEMORY_GB} GB: close other programs before lesson 6."
    widgets = f"ipywidgets {metadata.version('ipywidgets')}"
    no_kernel = "No notebook kernel runs here: open this in JupyterLab."
    if "ipykernel" in sys.modules:
        widgets, no_kernel = f"{widgets}; whether your browser shows them is tested below", ""
    rows = [
        ("Python", platform.python_version(), unfit),
        ("PyTorch", torch.__version__, ""),
        ("device", f"GPU: {device_name('cuda')}" if gpu else cpu_text, ""),
        (
            "memory",
            f"{total_gb:.0f} GB, {free_gb:.0f} GB of it free",
            full if free_gb < ENOUGH_MEMORY_GB else "",
        ),
        ("widgets", widgets, no_kernel),
        ("data", *_data()),
    ]
    lines = []
    for name, finding, advice in rows:
        lines.append(f"{'look' if advice else 'ok':>4}  {name:<8} {finding}")
        lines += [f"{'':>15}{advice}"] if advice else []
    problems = sum(bool(advice) for _, _, advice in rows)
    return "\n".join([*lines, f"{problems} to look at." if problems else "This machine is ready."])


def _data() -> tuple[str, str]:
    try:
        root = fetch_sample(progress=lambda line: None)
    except SpineError as error:
        return "missing", str(error)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return f"4 real patients, {size / 1e6:.0f} MB", ""
