"""Report whether a machine is ready for the lessons."""

from __future__ import annotations

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

    The four real patients are fetched where they are missing, 82 MB once.
    """
    rows = [
        _python(),
        ("PyTorch", torch.__version__, ""),
        _device(),
        _memory(),
        _widgets(),
        _data(),
    ]
    lines = []
    for name, finding, advice in rows:
        lines.append(f"{'look' if advice else 'ok':>4}  {name:<8} {finding}")
        if advice:
            lines.append(f"{'':>15}{advice}")
    problems = sum(bool(advice) for _, _, advice in rows)
    lines.append(f"{problems} to look at." if problems else "This machine is ready.")
    return "\n".join(lines)


def _python() -> tuple[str, str, str]:
    fits = PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]
    advice = "" if fits else "The library is tested with Python 3.11, 3.12 and 3.13: use one."
    return "Python", platform.python_version(), advice


def _device() -> tuple[str, str, str]:
    if torch.cuda.is_available():
        return "device", f"GPU: {device_name('cuda')}", ""
    return "device", f"{device_name('cpu')}, no NVIDIA GPU: enough for every lesson", ""


def _memory() -> tuple[str, str, str]:
    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    advice = f"Training takes up to {ENOUGH_MEMORY_GB} GB: close other programs before lesson 6."
    text = f"{memory.total / 2**30:.0f} GB, {free:.0f} GB of it free"
    return "memory", text, advice if free < ENOUGH_MEMORY_GB else ""


def _widgets() -> tuple[str, str, str]:
    version = f"ipywidgets {metadata.version('ipywidgets')}"
    if "ipykernel" not in sys.modules:
        return "widgets", version, "No notebook kernel runs here: open this in JupyterLab."
    return "widgets", f"{version}; whether your browser shows them is tested below", ""


def _data() -> tuple[str, str, str]:
    try:
        root = fetch_sample(progress=lambda line: None)
    except SpineError as error:
        return "data", "missing", str(error)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return "data", f"4 real patients, {size / 1e6:.0f} MB", ""
