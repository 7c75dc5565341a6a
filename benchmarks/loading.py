"""Time loading a CT against what a user would pick instead.

Makes lone `.nii.gz` files of 512x512x200 voxels from the real chest CT (once with the HU stored as
they are, once with the intercept of -1024 that the original has), then loads them with `load_ct`,
SimpleITK and nibabel's `get_fdata`, each run in a fresh process so that peak memory is its own.
Prints a table and writes `benchmarks/results/loading.json`.

    python benchmarks/loading.py
    python benchmarks/loading.py --ct path/to/a_real_ct.nii.gz --runs 9

Needs SimpleITK (in the `test` extra). Close other programs first: the figures are wall times.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SHAPE = (512, 512, 200)
ARRAY_BYTES = 2 * SHAPE[0] * SHAPE[1] * SHAPE[2]
READERS = ("load_ct", "SimpleITK", "get_fdata")
INTERCEPTS = (0, -1024)
GOALS = {"SimpleITK": 1.5, "get_fdata": 2.5, "memory": 1.5}
RESULTS = Path(__file__).parent / "results" / "loading.json"


def main() -> int:
    """Run the benchmark, print the table and return 0 if the goals are met, else 1."""
    options = _options()
    if options.child:
        print(json.dumps(_measure(options.child, options.file)))
        return 0
    if options.make:
        make_file(options.ct, options.file, options.intercept)
        return 0
    files = [_race(intercept, options) for intercept in INTERCEPTS]
    result = {
        "what": "load a lone .nii.gz of a real CT (int16, gzip level 6), fresh process a run",
        "shape": SHAPE,
        "files": files,
        "goals": GOALS,
        "goals_met": all(file["goals_met"] for file in files),
        "hardware": _hardware(),
        "versions": _versions(),
    }
    print(_table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8", newline="\n")
    return 0 if result["goals_met"] else 1


def _race(intercept: int, options: argparse.Namespace) -> dict:
    """Let all readers load one file in turn and return their figures."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ct.nii.gz"
        source = ["--ct", options.ct] if options.ct else []
        _fresh("--make", "--file", file, f"--intercept={intercept}", *source)
        runs = {reader: [] for reader in READERS}
        for number in range(options.runs):
            for reader in READERS:  # in turn, so that a busy moment does not hit one alone
                runs[reader].append(json.loads(_fresh("--child", reader, "--file", file)))
            seconds = ", ".join(f"{name} {runs[name][-1]['seconds']:.3f} s" for name in READERS)
            print(f"intercept {intercept}, run {number + 1}: {seconds}", flush=True)
        figures = _summarise(runs)
        return {"intercept": intercept, "bytes": file.stat().st_size, **figures}


def make_file(ct_path: Path | None, path: Path, intercept: int) -> None:
    """Write the benchmark's file: a real CT, mirrored along its last axis until it is long enough.

    Args:
        ct_path: a NIfTI of at least 512x512 pixels a slice; None takes the sample's chest patient.
        path: the `.nii.gz` to write, compressed at gzip's usual level 6.
        intercept: what the header says must be added to the stored int16 numbers to give HU.
    """
    import nibabel as nib
    import numpy as np

    if ct_path is None:
        from spine_lib.datasets import sample_cases

        ct_path = next(case.ct_path for case in sample_cases() if case.case_id == "chest")
    image = nib.load(ct_path)
    stored = (np.asarray(image.dataobj) - intercept).astype(np.int16)[: SHAPE[0], : SHAPE[1]]
    if stored.shape[:2] != SHAPE[:2]:
        raise SystemExit(f"{ct_path}: needs slices of 512x512, has {stored.shape}.")
    parts = [stored, stored[:, :, ::-1]] * (SHAPE[2] // stored.shape[2] + 1)
    longer = nib.Nifti1Image(np.concatenate(parts, axis=2)[:, :, : SHAPE[2]], image.affine)
    longer.header.set_slope_inter(1, intercept)
    with gzip.open(path, "wb", compresslevel=6) as stream:
        longer.to_stream(stream)


def _measure(reader: str, path: Path) -> dict[str, float]:
    """Load once; return the seconds and the peak memory beyond what the imports took."""
    load = _reader(reader)
    before = _memory_bytes(peak=False)
    start = time.perf_counter()
    loaded = load(path)
    seconds = time.perf_counter() - start
    peak = _memory_bytes(peak=True) - before
    assert loaded is not None  # kept alive until the peak was read
    return {"seconds": seconds, "memory_ratio": peak / ARRAY_BYTES}


def _reader(name: str) -> Callable[[Path], object]:
    """Import one reader and return the call that yields its array."""
    if name == "load_ct":
        from spine_lib.ct.volume import load_ct

        return load_ct
    if name == "SimpleITK":
        import SimpleITK

        return lambda path: SimpleITK.ReadImage(str(path))
    import nibabel

    return lambda path: nibabel.load(path).get_fdata()


def _memory_bytes(peak: bool) -> int:
    """Return the resident memory of this process, now or at its peak."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before the exec
        key = "VmHWM:" if peak else "VmRSS:"
        lines = status.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))
    import psutil

    info = psutil.Process().memory_info()
    if not peak:
        return info.rss
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


def _fresh(*arguments: object) -> str:
    """Run this file in a new process and return what it prints."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _summarise(runs: dict[str, list[dict[str, float]]]) -> dict:
    """Return the best and the median run of each reader and how they compare."""
    readers = {
        name: {
            "seconds_min": min(run["seconds"] for run in entries),
            "seconds_median": statistics.median(run["seconds"] for run in entries),
            "memory_ratio_max": max(run["memory_ratio"] for run in entries),
            "seconds": [round(run["seconds"], 4) for run in entries],
        }
        for name, entries in runs.items()
    }
    ours = readers["load_ct"]
    speedup = {
        name: {
            kind: readers[name][f"seconds_{kind}"] / ours[f"seconds_{kind}"]
            for kind in ("min", "median")
        }
        for name in READERS[1:]
    }
    met = ours["memory_ratio_max"] <= GOALS["memory"]
    met = met and all(speedup[name]["min"] >= GOALS[name] for name in speedup)
    return {"readers": readers, "speedup_of_load_ct": speedup, "goals_met": met}


def _versions() -> dict[str, str]:
    """Name the versions that the figures depend on."""
    names = ("numpy", "nibabel", "isal", "simpleitk")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version(), **found}


def _hardware() -> dict[str, object]:
    """Name the processor, the number of cores and the system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.system()}


def _table(result: dict) -> str:
    """Format the figures for the console."""
    heads = f"{'reader':<12}{'min s':>8}{'median s':>10}{'memory / array':>16}{'load_ct is':>16}"
    lines = []
    for file in result["files"]:
        lines += ["", f"intercept {file['intercept']}", heads]
        for name, entry in file["readers"].items():
            ratio = file["speedup_of_load_ct"].get(name)
            note = f"{ratio['min']:.2f}x as fast" if ratio else ""
            lines.append(
                f"{name:<12}{entry['seconds_min']:>8.3f}{entry['seconds_median']:>10.3f}"
                f"{entry['memory_ratio_max']:>15.2f}x{note:>16}"
            )
    lines.append(f"goals {'met' if result['goals_met'] else 'MISSED'}: {result['goals']}")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ct", type=Path, help="a real CT to build the file from")
    parser.add_argument("--runs", type=int, default=7, help="runs of each reader (default 7)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON file to write")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--intercept", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
