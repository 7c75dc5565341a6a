"""Lesson 8: phantoms written as the public set's files, to rehearse with what cannot be downloaded.

The files have pycad1089's names, ids and size, so that everything from its reader on runs as it
will on the real scans. What a network scores on them says nothing about patients.
"""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import SACRUM
from spine_lib.ct.nifti import write_nifti
from spine_lib.datasets.phantom import make_phantom
from spine_lib.datasets.pycad1089 import SHARES, split_of
from spine_lib.reproduce.laps import Lap, each_done, no_lap

MEDIAN_SHAPE = (229, 237, 243)
"""Voxels of the middle one of the 1089 scans, along x, y and z."""

SPACING_MM = 1.5

S1_ID = 25
"""What the public set calls S1; the rest of the sacrum has no label there."""

S1_MM = 30.0
"""Height of S1 below the sacrum's upper end."""

SPREAD = 0.12
"""Shapes vary by up to this share around the median."""

FIRST_SEED = 5000
"""Of the phantoms, apart from those that the recipes train and test on."""

BYTES_PER_VOXEL = 3
"""int16 HU and uint8 labels."""


def shares_of(scans: int) -> dict[str, int]:
    """Share scans out as the public set's split does, with one at least in each part.

    Args:
        scans: how many, 3 or more.

    Raises:
        SpineError: if there are fewer scans than parts.
    """
    if scans < len(SHARES):
        raise SpineError(f"{scans} scans cannot be split in {len(SHARES)} parts: ask for 3 or more")
    counts = {part: max(1, round(share * scans)) for part, share in SHARES.items()}
    counts["train"] += scans - sum(counts.values())
    return counts


def numbers_of(scans: int) -> list[int]:
    """Choose the scans' numbers, with gaps, so that their names fall into the parts as they should.

    Args:
        scans: how many, 3 or more.
    """
    wanted, chosen, number = shares_of(scans), [], 0
    while any(wanted.values()):
        part = split_of(case_name(number))
        if wanted[part]:
            wanted[part] -= 1
            chosen.append(number)
        number += 1
    return chosen


def case_name(number: int) -> str:
    """Return the public set's name of a scan."""
    return f"case_{number:04d}"


def shape_of(number: int, middle: Sequence[int] = MEDIAN_SHAPE) -> tuple[int, ...]:
    """Return a scan's shape: another one for each number, the same at every call."""
    factors = np.random.default_rng((FIRST_SEED, number)).uniform(1 - SPREAD, 1 + SPREAD, 3)
    return tuple(int(round(n * factor)) for n, factor in zip(middle, factors, strict=True))


def files_of(root: Path, number: int) -> tuple[Path, Path]:
    """Return the paths of a scan and of its mask."""
    name = f"{case_name(number)}.nii"
    return root / "volumes" / name, root / "segmentations" / name


def write_case(
    root: Path, number: int, middle: Sequence[int] = MEDIAN_SHAPE, spacing_mm: float = SPACING_MM
) -> None:
    """Write one phantom and its mask; the mask comes last, so that a pair is whole.

    Args:
        root: folder of the tree.
        number: of the scan, from which everything about it follows.
        middle: shape around which shapes vary.
        spacing_mm: size of a voxel.
    """
    # The public set's ids have no place for a thirteenth thoracic or a sixth lumbar vertebra.
    data = make_phantom(FIRST_SEED + number, shape_of(number, middle), spacing_mm, extra="")
    scan, mask = files_of(root, number)
    write_nifti(data.ct.array, data.ct.affine, scan)
    write_nifti(public_ids(data.labels.array, spacing_mm), data.ct.affine, mask)


def public_ids(labels: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Turn canonical ids into the public set's: of the sacrum S1 alone, as 25.

    Args:
        labels: uint8 canonical ids [x, y, z], without L6 and T13.
        spacing_mm: size of a voxel along z.
    """
    labels = labels.copy()
    sacrum = labels == SACRUM
    heights = np.flatnonzero(sacrum.any(axis=(0, 1)))
    if len(heights):
        below = max(0, heights[-1] + 1 - round(S1_MM / spacing_mm))
        labels[:, :, :below][sacrum[:, :, :below]] = 0
        labels[labels == SACRUM] = S1_ID
    return labels


def write_tree(
    root: Path,
    scans: int,
    workers: int = 1,
    middle: Sequence[int] = MEDIAN_SHAPE,
    spacing_mm: float = SPACING_MM,
    lap: Lap = no_lap,
) -> None:
    """Write as many scans as asked; those that are there are kept.

    Args:
        root: folder of the tree.
        scans: how many.
        workers: processes.
        middle, spacing_mm: as for `write_case`.
        lap: called for each scan; see `spine_lib.reproduce.laps`.

    Raises:
        SpineError: if the disk is too small, or a worker is killed.
    """
    missing = [n for n in numbers_of(scans) if not all(p.is_file() for p in files_of(root, n))]
    if not missing:
        return
    root.mkdir(parents=True, exist_ok=True)
    _require_space(root, len(missing), middle)
    for draft in root.glob("*/.*.part"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    lap(None)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(missing)), spawn) as pool:
        running = [pool.submit(write_case, root, n, tuple(middle), spacing_mm) for n in missing]
        try:
            for future in each_done(running, lap, "phantoms"):
                future.result()
        except BrokenProcessPool as error:
            raise SpineError(
                "A worker was killed, most likely as memory ran out: run the command again with "
                "fewer --workers; what was finished is kept."
            ) from error
        finally:
            for future in running:
                future.cancel()


def _require_space(root: Path, scans: int, middle: Sequence[int]) -> None:
    needed = scans * BYTES_PER_VOXEL * float(np.prod(middle))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise SpineError(
            f"{root} has {free / 1e9:.1f} GB free, {scans} phantoms need about "
            f"{needed / 1e9:.1f} GB: free some, or ask for fewer --scans"
        )
