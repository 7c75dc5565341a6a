"""What a result file records beside the scores: where, with what and on which data it was made."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import psutil
import torch

from spine_lib import SpineError, __version__
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.files import read_json, write_json
from spine_lib.training.recipe import Recipe

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "segmentation-models-pytorch",
    "albumentations",
    "numpy",
    "scipy",
    "nibabel",
    "pydicom",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, this library and what the scores depend on."""
    found = {"python": platform.python_version(), "spine_lib": __version__}
    return found | {name: metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """Return the git revision of this library, "unknown" outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    options = {"capture_output": True, "text": True, "check": True, "timeout": 10}
    try:
        # a library installed inside of another project's clone is not tracked there
        subprocess.run([*git, "ls-files", "--error-unmatch", Path(__file__).name], **options)
        revision = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "."], **options).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{revision} with local changes" if changed else revision


def device_name(device: str) -> str:
    """Describe the device that did the training."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    isa = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    held = f", held to {limit}" if limit else ""
    return f"{torch.get_num_threads()} CPU threads ({isa}{held})"


@contextlib.contextmanager
def peak_memory(every_s: float = 0.25) -> Iterator[_Peak]:
    """Watch the memory of this process and its workers; read `.megabytes` at any time."""
    peak = _Peak()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            peak.look()

    peak.look()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


class _Peak:
    def __init__(self) -> None:
        self.megabytes = 0.0
        self._process = psutil.Process()

    def look(self) -> None:
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # a worker that has just ended
        self.megabytes = max(self.megabytes, round(total / 2**20, 1))


def remember_peak(folder: Path, megabytes: float) -> float:
    """Return the highest peak of all calls for this run; a call that only loads needs less."""
    path = folder / "peak_memory_mb.json"
    with contextlib.suppress(SpineError, TypeError):
        megabytes = max(megabytes, float(read_json(path)))
    write_json(path, megabytes)
    return megabytes


def describe_data(recipe: Recipe, parts: dict[str, list], stores: dict, tests: dict) -> dict:
    """Return the case ids of each part and the checksums of what was trained on and scored.

    Args:
        recipe: names the data set.
        parts: cases by part.
        stores: slices by part.
        tests: scores by model and seed (`spine_lib.reproduce.evaluate`).
    """
    checksums = {
        f"{part}/{volume.file.removesuffix('.npy')}": volume.sha256
        for part, store in stores.items()
        for volume in store.volumes
    }
    scored = next(iter(next(iter(tests.values())).values()))["volumes"]
    checksums |= {f"test/{case}": volume["sha256"] for case, volume in scored.items()}
    names = {part: [case.case_id for case in cases] for part, cases in parts.items()}
    return {
        "name": recipe.dataset,
        **names,
        "sources": data_sources(parts),
        "checksums": checksums,
        "same_as_paper": False,
    }


def data_sources(parts: dict[str, list]) -> list[dict[str, str]]:
    """Describe patients one by one and phantoms part by part."""
    rows = []
    for part, cases in parts.items():
        phantoms = [case for case in cases if case.source == "phantom"]
        for case in [case for case in cases if case.source != "phantom"] + phantoms[:1]:
            several = case.source == "phantom" and len(phantoms) > 1
            rows.append(
                {
                    "name": f"{len(phantoms)} phantoms" if several else case.case_id,
                    "role": part,
                    "licence": case.licence,
                    "mask covers": case.covers,
                    "note": case.note,
                }
            )
    return rows


def test_looks(recipe: Recipe) -> dict | str:
    """Say how often test patients had been looked at while the recipe was made."""
    if recipe.dataset == "phantom":
        return "The test phantoms were made for this run."
    if recipe.dataset != "sample":
        return "The library's recipes were made without this data set's test part."
    return read_json(Path(__file__).with_name("history.json"))["test_looks"]


def counted_as_spine(recipe: Recipe) -> str:
    """Say what is segmented and scored."""
    spine = "Spine: every labelled vertebra and, where the mask has it, the sacrum."
    if recipe.classes == 1:
        return spine
    return f"{spine} The networks name its {len(REGIONS)} regions; as spine counts any of them."


def command(arguments: Sequence[str]) -> str:
    """Return what was typed, without the folders of this machine."""
    words = list(arguments)
    program = "python -m spine_lib" if words[0].endswith(".py") else Path(words[0]).name
    return " ".join([program, *(shlex.quote(word) for word in words[1:])])
