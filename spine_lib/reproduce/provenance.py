"""What a result file records beside the scores: where, with what and on which data it was made."""

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
from spine_lib.ct.files import read_json, write_json

PACKAGES = (
    "torch torchvision lightning segmentation-models-pytorch albumentations numpy scipy nibabel "
    "pydicom"
).split()


def versions() -> dict[str, str]:
    """Return the versions of Python, this library and what the scores depend on."""
    own = {"python": platform.python_version(), "spine_lib": __version__}
    return own | {name: metadata.version(name) for name in PACKAGES}


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
    return f"{torch.get_num_threads()} CPU threads ({isa}{f', held to {limit}' if limit else ''})"


@contextlib.contextmanager
def peak_memory(folder: Path, every_s: float = 0.25) -> Iterator[None]:
    """Keep the highest memory of this process and its workers in MiB in `peak_memory_mb.json`.

    Of several calls for a run the highest stays: one that only loads needs less.
    """
    path, peaks, ended = folder / "peak_memory_mb.json", [], threading.Event()

    def measure() -> None:
        while not ended.wait(every_s if peaks else 0):
            peaks.append(0)
            for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
                with contextlib.suppress(psutil.Error):  # a worker that has just ended
                    peaks[-1] += process.memory_info().rss
            peaks[:] = [max(peaks)]

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    megabytes = round(max(peaks, default=0) / 2**20, 1)
    with contextlib.suppress(SpineError, TypeError):
        megabytes = max(megabytes, float(read_json(path)))
    write_json(path, megabytes)


def describe_data(name: str, parts: dict[str, list], fitted: dict, tests: dict) -> dict:
    """Return case ids by part and checksums: what the weights record, and what was scored.

    Args:
        name: of the data set.
        parts: cases by part, whose sources are described.
        fitted, tests: trained networks and what `evaluate.summarise` returns, by model and seed.
    """
    runs = {model: next(iter(runs.values())) for model, runs in fitted.items()}
    record = next(iter(runs.values())).data  # the same in all: other data are refused
    scored = next(iter(next(iter(tests.values())).values()))["volumes"]
    ids = {"train": [], "validation": [], "test": list(scored)}
    checksums = {}
    for part, stored in (("train", "training"), ("validation", "validation")) if record else ():
        ids[part] = record.case_ids(stored)
        for case_id, plane, *_, sha256 in getattr(record, stored):
            checksums[f"{part}/{case_id}-{plane}"] = sha256
    checksums |= {f"test/{case}": volume["sha256"] for case, volume in scored.items()}
    checksums |= {
        f"encoder at the start/{model}": run.encoder_sha256
        for model, run in runs.items()
        if run.encoder_sha256
    }
    facts = {"sources": data_sources(parts), "checksums": checksums, "same_as_paper": False}
    return {"name": name, **ids, "images": record.images if record else {}} | facts


def data_sources(parts: dict[str, list]) -> list[dict[str, str]]:
    """Describe patients one by one and phantoms part by part."""
    rows = []
    for part, cases in parts.items():
        phantoms = [case for case in cases if case.source == "phantom"]
        for case in [case for case in cases if case.source != "phantom"] + phantoms[:1]:
            several = case.source == "phantom" and len(phantoms) > 1
            name = f"{len(phantoms)} phantoms" if several else case.case_id
            facts = {"licence": case.licence, "mask covers": case.covers, "note": case.note}
            rows.append({"name": name, "role": part} | facts)
    return rows


def test_looks(dataset: str) -> str:
    """Return how often test patients had been looked at while the recipe was made."""
    if dataset == "phantom":
        return "The test phantoms were made for this run."
    if dataset not in ("sample", "more"):
        return "The library's recipes were made without this data set's test part."
    return read_json(Path(__file__).with_name("history.json"))["test_looks"]


def command(arguments: Sequence[str]) -> str:
    """Return what was typed, without the folders of this machine."""
    program = Path(arguments[0])
    name = "spine" if program.suffix == ".py" else program.name
    return shlex.join([name, *arguments[1:]])
