"""Lesson 3: a folder of slices that training reads from, one memory-mapped file a volume.

Each volume is cut once, and a training step reads only the pages of the slices that it draws.  A
thousand scans are cut by several processes, or on a cluster by Dask's workers (extra `cluster`).

A worker process imports nothing of PyTorch, which would take half a gigabyte in each of them.
"""

import contextlib
import functools
import hashlib
import multiprocessing
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from spine_lib import SpineError
from spine_lib.ct.files import array_sha256, atomic_file, read_json, write_json
from spine_lib.ct.geometry import slice_spacing_mm
from spine_lib.ct.nifti import open_nifti
from spine_lib.datasets.case import Case, ExcludedScan, case_identity
from spine_lib.slices.cut import IGNORE, SLICE_DTYPE, cut_slices, with_neighbours

STORE_VERSION = 5
WRITE_EVERY_S = 5.0  # the index at most; what was finished since is cut again after a kill
MAPS_AT_ONCE = 256  # volumes kept mapped, fewer than the files that a process may hold open


@dataclass(frozen=True)
class StoredVolume:
    """One case in a store, cut along one plane, as the index lists it."""

    case_id: str
    patient_id: str
    source: str
    plane: str
    file: str
    shape: tuple[int, int, int]
    distance_mm: float
    foreground: tuple[int, ...]
    sha256: str
    image_sha256: str
    made_from: str


@dataclass(frozen=True)
class _Index:
    """What `index.json` holds."""

    version: Literal[STORE_VERSION]
    settings: dict[str, Any]
    left_out: list[ExcludedScan]
    volumes: list[StoredVolume]


class Draw(NamedTuple):
    """A slice of the store for training; epoch and place seed its augmentation."""

    volume: int
    slice: int
    epoch: int = 0
    place: int = 0


class SliceStore:
    """A folder of sliced volumes, as `prepare` makes it; a `SpineError` where there is none.

    It has the index's `volumes`, `settings`, and cases `left_out` that could not be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder)
        if index is None:
            raise SpineError(f"{self.folder} holds no slices: prepare it first")
        self.settings, self.left_out, self.volumes = index.settings, index.left_out, index.volumes
        self._maps: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict:
        """Leave the memory maps out of a pickle: a spawned worker opens its own."""
        return {**self.__dict__, "_maps": {}}

    def read(self, number: int) -> np.ndarray:
        """Map one volume, read-only: `SLICE_DTYPE` [slice, row, column]."""
        if number in self._maps:
            return self._maps[number]
        if len(self._maps) >= MAPS_AT_ONCE:
            self._maps.pop(next(iter(self._maps)))
        path = self.folder / self.volumes[number].file
        try:
            pixels = np.load(path, mmap_mode="r")
            if (pixels.dtype, pixels.shape) != (SLICE_DTYPE, self.volumes[number].shape):
                raise ValueError(f"it holds {pixels.dtype} of shape {pixels.shape}")
        except (OSError, ValueError, EOFError) as error:
            raise SpineError(
                f"{path} cannot be read ({error}): delete {self.folder} to prepare it anew"
            ) from error
        self._maps[number] = pixels
        return pixels

    def stack(self, draw: Draw, neighbour_mm: float) -> np.ndarray:
        """Copy a slice, and its neighbours: `SLICE_DTYPE` [row, column, channel]."""
        volume = self.volumes[draw.volume]
        indices = with_neighbours(draw.slice, volume.shape[0], volume.distance_mm, neighbour_mm)
        # As whole numbers a slice is copied at once, as a structure field by field.
        pixels = self.read(draw.volume).view(np.uint32)
        stacked = np.stack([pixels[index] for index in indices], axis=-1)
        return stacked.view(SLICE_DTYPE)


def _read_index(folder: Path) -> _Index | None:
    """Return a store's index, or None where there is none of this version, or a damaged one."""
    try:
        return TypeAdapter(_Index).validate_python(read_json(folder / "index.json"))
    except (SpineError, ValidationError):
        return None


def prepare(
    cases: Sequence[Case],
    folder: str | Path,
    planes: Sequence[str] = ("axial",),
    spacing_mm: float = 1.5,
    workers: int = 1,
    scheduler: str = "",
    progress: bool = False,
    report: Callable[[str], object] = lambda line: None,
) -> SliceStore:
    """Cut cases into slices and store them; called again, it goes on where it was stopped.

    What was cut with other settings, or from files that have changed since, is cut anew.

    Args:
        cases: what to cut.
        folder: where to; made if needed.
        planes: of "axial", "coronal" and "sagittal"; a case is cut along each.
        spacing_mm: size of a pixel.
        workers: processes on this machine; 1 cuts in the process that calls.
        scheduler: address of a Dask scheduler ("tcp://host:8786") whose workers see the same
            folders, instead of processes of this machine.
        progress: show a progress bar and what the slices will take.
        report: called with a line where something is to be reported.

    Returns the store with exactly these cases, in this order. Raises a `SpineError` if the disk is
    too small or gets full, a worker is killed, or no case can be read; what was finished is kept.
    """
    cases, folder = list(cases), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(".*.part"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    settings = {"planes": list(planes), "spacing_mm": float(spacing_mm)}
    rows = _finished_rows(cases, folder, settings, report)
    missing = [case for case in cases if case.case_id not in rows]
    needed, free = estimate_bytes(missing, planes, spacing_mm), shutil.disk_usage(folder).free
    sizes = f"{free / 1e9:.1f} GB free, the slices need about {needed / 1e9:.1f} GB"
    if needed and progress:
        report(f"{len(missing)} scans to slice: {sizes}")
    if needed > free:
        raise SpineError(
            f"{folder} has {sizes}: free some, set SPINE_DATA to a larger disk, or choose a "
            "coarser spacing_mm."
        )
    left_out: dict[str, ExcludedScan] = {}
    job = functools.partial(cut_case, folder=folder, planes=tuple(planes), spacing_mm=spacing_mm)
    results = _results(job, missing, workers, scheduler, report)
    bar = {"total": len(missing), "unit": "scan", "desc": "slicing", "disable": not progress}
    written = time.monotonic()
    try:
        for case, (result, notes) in tqdm(results, **bar):
            for note in notes:
                report(f"note: {note}")
            (left_out if isinstance(result, ExcludedScan) else rows)[case.case_id] = result
            if time.monotonic() - written > WRITE_EVERY_S:
                _write_index(folder, settings, rows.values())
                written = time.monotonic()
    finally:
        _write_index(folder, settings, rows.values())
    if len(left_out) == len(cases):
        raise SpineError(f"No case can be read; the first: {left_out[cases[0].case_id].reason}")
    readable = [rows[case.case_id] for case in cases if case.case_id not in left_out]
    _write_index(folder, settings, readable, [left_out[case_id] for case_id in sorted(left_out)])
    listed = {row.file for rows_of_case in readable for row in rows_of_case}
    for stale in {path.name for path in folder.glob("*.npy")} - listed:
        (folder / stale).unlink(missing_ok=True)
    return SliceStore(folder)


def _finished_rows(
    cases: list[Case], folder: Path, settings: dict, report: Callable
) -> dict[str, list[StoredVolume]]:
    """Return the rows of a store's index by case, of the cases that are stored as they are now."""
    index = _read_index(folder)
    rows: dict[str, list[StoredVolume]] = {}
    if index and index.settings != settings:
        report(f"{folder} was made with {index.settings}: making it anew with {settings}")
    elif index is None and (folder / "index.json").is_file():
        report(f"{folder} is of another version of the library, or damaged: making it anew")
    elif index:
        for row in index.volumes:
            rows.setdefault(row.case_id, []).append(row)
    for case in cases:
        if not all(
            (folder / row.file).is_file() and row.made_from == case_identity(case)
            for row in rows.get(case.case_id, [])
        ):
            del rows[case.case_id]
    return rows


def _write_index(folder: Path, settings: dict, rows, left_out: Sequence[ExcludedScan] = ()) -> None:
    volumes = [row for rows_of_case in rows for row in rows_of_case]
    index = _Index(STORE_VERSION, settings, list(left_out), volumes)
    write_json(folder / "index.json", asdict(index))


def _results(
    job: Callable, cases: list[Case], workers: int, scheduler: str, report: Callable
) -> Iterator[tuple[Case, tuple[list[StoredVolume] | ExcludedScan, list[str]]]]:
    """Yield each case with what the job returns for it, in this process or by workers."""
    if not scheduler and workers <= 1:
        for case in cases:
            report(f"slicing {case.case_id}")
            yield case, job(case)
        return
    with _executor(workers, scheduler) as pool:
        case_of_future = {pool.submit(job, case): case for case in cases}
        try:
            for future in as_completed(case_of_future):
                yield case_of_future[future], future.result()
        except BrokenProcessPool as error:
            raise SpineError(
                "A worker was killed, most likely as memory ran out: run the command again with "
                "fewer --workers; what was finished is kept."
            ) from error
        finally:
            for future in case_of_future:
                future.cancel()


@contextlib.contextmanager
def _executor(workers: int, scheduler: str) -> Iterator[Executor]:
    if not scheduler:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
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


def cut_case(
    case: Case, folder: Path, planes: Sequence[str], spacing_mm: float
) -> tuple[list[StoredVolume] | ExcludedScan, list[str]]:
    """Write the slices of one case; return its rows of the index, or why it cannot be read; notes.

    Raises a `SpineError` if the slices cannot be written, as that concerns every case.
    """
    made_from = case_identity(case)  # before the files are read: they may be replaced meanwhile
    try:
        with warnings.catch_warnings(record=True) as noted:  # a worker's would show its code
            warnings.simplefilter("always")
            data, organs = case.load(), case.load_organs()
        if not data.labels.array.any():
            raise SpineError(f"{case.mask_path} labels no spine: give the mask of this scan.")
    except (SpineError, MemoryError) as error:
        reason = str(error) or f"{case.ct_path} does not fit into memory"
        return ExcludedScan(case.case_id, reason), []
    rows, image_sha256, name = [], array_sha256(data.ct.array), case.case_id
    if len(name.encode()) >= 100:  # more than some file systems take
        name = hashlib.sha256(name.encode()).hexdigest()
    for plane in planes:
        slices = cut_slices(data, plane, spacing_mm, organs)
        file = f"{name}-{plane}.npy"
        with atomic_file(folder / file) as stream:
            np.save(stream, slices, allow_pickle=False)
        spine = ((slices["label"] > 0) & (slices["label"] != IGNORE)).any(axis=(1, 2))
        volume = StoredVolume(
            case_id=case.case_id,
            patient_id=case.patient_id,
            source=case.source,
            plane=plane,
            file=file,
            shape=slices.shape,
            distance_mm=slice_spacing_mm(data.ct.spacing_mm, plane)[0],
            foreground=np.flatnonzero(spine).tolist(),
            sha256=hashlib.sha256(slices.view(np.uint8)).hexdigest(),
            image_sha256=image_sha256,
            made_from=made_from,
        )
        rows.append(volume)
    return rows, list(dict.fromkeys(str(note.message) for note in noted))


def estimate_bytes(cases: Sequence[Case], planes: Sequence[str], spacing_mm: float) -> int:
    """Compute from NIfTI headers the size of the slices; a case without one counts as the mean."""
    sizes = []
    for case in cases:
        try:
            image = open_nifti(Path(case.ct_path))
        except (SpineError, TypeError):  # a broken file is reported when it is cut
            continue
        order = nib.io_orientation(image.affine)[:, 0].argsort()
        spacing = voxel_sizes(image.affine)[order]
        volume_mm3 = np.prod(image.shape) * np.prod(spacing)
        pixels_mm3 = [slice_spacing_mm(spacing, plane)[0] * spacing_mm**2 for plane in planes]
        sizes.append(sum(volume_mm3 / pixel_mm3 for pixel_mm3 in pixels_mm3))
    return round(np.mean(sizes) * len(cases) * SLICE_DTYPE.itemsize) if sizes else 0
