"""Cut a whole data set into slices: several workers, stopped and gone on, broken scans named.

`store.prepare_store` cuts a few cases one after the other; this does the same for a thousand.  One
machine uses processes; a cluster uses Dask (extra `cluster`), whose executor stands in for them.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.ct.geometry import resampled_shape, slice_spacing_mm
from spine_lib.datasets.case import Case, ExcludedScan
from spine_lib.slices.cut import SLICE_DTYPE
from spine_lib.slices.cutting import Unreadable, cut_or_say_why
from spine_lib.slices.store import SliceStore, StoreIndex

WRITE_EVERY_S = 5.0
"""The index is written at most this often; what was finished since is cut again after a kill."""


@dataclass(frozen=True)
class Prepared:
    """Hold a finished store and what is not in it."""

    store: SliceStore
    left_out: list[ExcludedScan]


def prepare_cases(
    cases: Sequence[Case],
    folder: str | Path,
    planes: Sequence[str] = ("axial",),
    spacing_mm: float = 1.5,
    workers: int = 1,
    scheduler: str = "",
    progress: bool = True,
    say: Callable[[str], object] = print,
) -> Prepared:
    """Cut cases into slices with several workers; called again, it goes on where it was stopped.

    Args:
        cases: what to cut.
        folder: of the store; made if needed.
        planes, spacing_mm: as for `prepare_store`.
        workers: processes on this machine.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers see the same
            folders, instead of processes here.
        progress: show a progress bar with an estimate of the time left.
        say: called with a line where something is to be told.

    Returns:
        The store with the cases that can be read, in their order, and the others with the reason;
        these also lie in `left_out.json`.

    Raises:
        SpineError: if the disk is too small or gets full, a worker is killed, or no case can be
            read; what was finished is kept.
    """
    index = StoreIndex(folder, planes, spacing_mm, say)
    for draft in index.folder.glob(".*.part"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    missing = [case for case in cases if not index.has(case)]
    _require_space(missing, index.folder, planes, spacing_mm, say)
    left_out: dict[str, str] = {}
    with _executor(workers, scheduler) as pool, _bar(missing, progress) as bar:
        futures = {
            pool.submit(cut_or_say_why, case, index.folder, tuple(planes), spacing_mm): case
            for case in missing
        }
        try:
            _collect(futures, index, left_out, bar)
        finally:
            for future in futures:
                future.cancel()
            index.write()
    for case in cases:
        if case.case_id not in left_out:
            index.keep(case)
    broken = [ExcludedScan(case_id, reason) for case_id, reason in sorted(left_out.items())]
    _write_left_out(index.folder, broken)
    if len(broken) == len(cases):
        raise SpineError(f"No case can be read; the first: {broken[0].reason}")
    return Prepared(index.finish(), broken)


def _collect(futures: dict[Future, Case], index: StoreIndex, left_out: dict, bar: tqdm) -> None:
    written = time.monotonic()
    try:
        for future in as_completed(futures):
            case, rows = futures[future], future.result()
            if isinstance(rows, Unreadable):
                left_out[case.case_id] = rows.reason
            else:
                due = time.monotonic() - written > WRITE_EVERY_S
                index.add(case, rows, write=due)
                written = time.monotonic() if due else written
            bar.update()
    except BrokenProcessPool as error:
        raise SpineError(
            "A worker was killed, most likely as memory ran out: run the command again with fewer "
            "--workers; what was finished is kept."
        ) from error


@contextlib.contextmanager
def _executor(workers: int, scheduler: str) -> Iterator[Executor]:
    if not scheduler:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max(1, workers), spawn) as pool:
            yield pool
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise SpineError(
            "--scheduler needs Dask, which is not installed: pip install 'spine-lib[cluster]'"
        ) from error
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, ValueError) as error:
        raise SpineError(
            f"No Dask scheduler answers at {scheduler} ({error}): start one with 'dask scheduler'."
        ) from error
    with client, client.get_executor() as pool:
        yield pool


def _bar(missing: Sequence, progress: bool) -> tqdm:
    return tqdm(total=len(missing), unit="scan", desc="slicing", disable=not progress)


def estimate_bytes(cases: Sequence[Case], planes: Sequence[str], spacing_mm: float) -> int:
    """Estimate from headers how much disk the slices of cases will take.

    Args:
        cases: of which NIfTI headers are read; the others count like the mean of those.
        planes, spacing_mm: as for `prepare_store`.
    """
    sizes = []
    for case in cases:
        grid = grid_of(case)
        if grid is None:
            continue
        shape, spacing = grid
        total = 0
        for plane in planes:
            slices, *shape_hw = slice_spacing_mm(shape, plane)
            hw = resampled_shape(shape_hw, slice_spacing_mm(spacing, plane)[1:], spacing_mm)
            total += int(slices) * int(np.prod(hw)) * SLICE_DTYPE.itemsize
        sizes.append(total)
    return round(np.mean(sizes) * len(cases)) if sizes else 0


def grid_of(case: Case) -> tuple[tuple, tuple] | None:
    """Return shape and spacing along x, y, z without reading an array, or None."""
    if case.ct_path is None or not case.ct_path.is_file():
        return None
    try:
        image = nib.load(case.ct_path)
        order = nib.io_orientation(image.affine)[:, 0].argsort()
        zooms = nib.affines.voxel_sizes(image.affine)
        return tuple(image.shape[i] for i in order), tuple(zooms[i] for i in order)
    except Exception:  # a broken file is told when it is cut
        return None


def _require_space(
    missing: Sequence, folder: Path, planes: Sequence[str], spacing_mm: float, say: Callable
) -> None:
    if not missing:
        return
    needed = estimate_bytes(missing, planes, spacing_mm)
    free = shutil.disk_usage(folder).free
    if needed:
        say(f"{len(missing)} scans to slice: about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
    if needed > free:
        raise SpineError(
            f"{folder} has {free / 1e9:.1f} GB free, the slices need about {needed / 1e9:.1f} GB: "
            "free some, set SPINE_DATA to a larger disk, or choose a coarser spacing_mm."
        )


def _write_left_out(folder: Path, left_out: list[ExcludedScan]) -> None:
    rows = [{"case_id": item.case_id, "reason": item.reason} for item in left_out]
    with atomic_file(folder / "left_out.json") as stream:
        stream.write(json.dumps(rows, indent=1).encode())
