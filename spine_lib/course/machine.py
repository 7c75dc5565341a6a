"""Look at the machine that a course is to run on, and say what is there and what to do."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from importlib import metadata

from spine_lib import SpineError
from spine_lib.datasets.sample import fetch_sample

PYTHONS = ((3, 11), (3, 14))  # first that works, first that does not
ENOUGH_MEMORY_GB = 6


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, and what to do where that is not fine."""

    what: str
    found: str
    advice: str = ""


def check_machine() -> list[Finding]:
    """Look at Python, PyTorch, the device, memory, the data and the widgets.

    The four real patients are fetched where they are missing, 82 MB once.

    Returns:
        A finding each; those with an advice are not fine.
    """
    return [_python(), _torch(), _device(), _memory(), _widgets(), _data()]


def machine_report(findings: list[Finding]) -> str:
    """Write findings as lines of text, the advice below what it is about."""
    lines = []
    for finding in findings:
        mark = "look" if finding.advice else "ok"
        lines.append(f"{mark:>4}  {finding.what:<8} {finding.found}")
        if finding.advice:
            lines.append(f"{'':>15}{finding.advice}")
    bad = sum(bool(finding.advice) for finding in findings)
    lines.append(f"{bad} to look at." if bad else "This machine is ready.")
    return "\n".join(lines)


def _python() -> Finding:
    first, beyond = PYTHONS
    fits = first <= sys.version_info[:2] < beyond
    advice = "" if fits else "The library is tested with Python 3.11, 3.12 and 3.13: use one."
    return Finding("Python", platform.python_version(), advice)


def _torch() -> Finding:
    import torch

    return Finding("PyTorch", torch.__version__)


def _device() -> Finding:
    import torch

    from spine_lib.reproduce.provenance import device_name

    if torch.cuda.is_available():
        return Finding("device", f"GPU: {device_name('cuda')}")
    return Finding("device", f"{device_name('cpu')}, no NVIDIA GPU: enough for every lesson")


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    free = memory.available / 2**30
    text = f"{memory.total / 2**30:.0f} GB, {free:.0f} GB of it free"
    few = free < ENOUGH_MEMORY_GB
    advice = f"Training takes up to {ENOUGH_MEMORY_GB} GB: close other programs before lesson 6."
    return Finding("memory", text, advice if few else "")


def _widgets() -> Finding:
    found = f"ipywidgets {metadata.version('ipywidgets')}"
    if "ipykernel" not in sys.modules:
        return Finding("widgets", found, "No notebook kernel runs here: open this in JupyterLab.")
    return Finding("widgets", f"{found}; whether your browser shows them is tested below")


def _data() -> Finding:
    try:
        root = fetch_sample(progress=lambda line: None)
    except SpineError as error:
        return Finding("data", "phantoms in place of the real patients", str(error))
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    return Finding("data", f"4 real patients, {size / 1e6:.0f} MB")
