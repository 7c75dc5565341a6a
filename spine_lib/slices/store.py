"""Lesson 3: a folder of slices that training reads from, one memory-mapped file a volume.

Resampling volumes again in every epoch would keep a network waiting; so each is cut once, and a
training step reads only the pages of the slices that it draws.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.datasets.case import Case
from spine_lib.slices.augment import Augmentation, TrainingAugmenter, network_input
from spine_lib.slices.cut import AIR_HU, IGNORE, SLICE_DTYPE, with_neighbours
from spine_lib.slices.cutting import store_case
from spine_lib.slices.targets import to_target

STORE_VERSION = 3


@dataclass(frozen=True)
class StoredVolume:
    """One case in a store, as its index lists it."""

    case_id: str
    patient_id: str
    source: str
    plane: str
    file: str
    shape: tuple[int, int, int]
    distance_mm: float
    foreground: tuple[int, ...]
    sha256: str


class Draw(NamedTuple):
    """Name one training image: a slice of the store, and the epoch and place it is drawn at.

    The last two seed its augmentation, so a slice never looks the same twice, no matter which
    worker process makes it, and the same run always makes the same images.
    """

    volume: int
    slice: int
    epoch: int = 0
    place: int = 0


class SliceStore:
    """Open a folder of sliced volumes: an index and one memory-mapped file a volume.

    Args:
        folder: what `prepare_store` returned.

    Raises:
        SpineError: if there is no index, or it is of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = read_index(self.folder)
        if index is None:
            raise SpineError(f"{self.folder} holds no slices: prepare it first")
        self.settings: dict[str, Any] = index["settings"]
        self.volumes = [
            StoredVolume(**{**v, "shape": tuple(v["shape"]), "foreground": tuple(v["foreground"])})
            for v in index["volumes"]
        ]

    def read(self, number: int) -> np.ndarray:
        """Map one volume, read-only: `SLICE_DTYPE` [slice, row, column]."""
        path = self.folder / self.volumes[number].file
        try:
            return np.load(path, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise SpineError(
                f"{path} cannot be read ({error}): delete {self.folder} to prepare it anew"
            ) from error

    def stack(self, mapped: np.ndarray, draw: Draw, neighbour_mm: float) -> np.ndarray:
        """Copy a slice of a mapped volume, and its neighbours: [row, column, channel]."""
        volume = self.volumes[draw.volume]
        indices = with_neighbours(draw.slice, volume.shape[0], volume.distance_mm, neighbour_mm)
        # As whole numbers a slice is copied at once, as a structure field by field.
        pixels = mapped.view(np.uint32)
        stacked = np.stack([pixels[index] for index in indices], axis=-1)
        return stacked.view(SLICE_DTYPE)


def read_index(folder: Path) -> dict | None:
    """Return a store's index, or None where there is none of this version."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index if index.get("version") == STORE_VERSION else None


def prepare_store(
    cases: Iterable[Case],
    folder: str | Path,
    planes: Sequence[str] = ("axial",),
    spacing_mm: float = 1.5,
    report: Callable[[str], None] = lambda line: None,
) -> SliceStore:
    """Cut cases into slices and store them; what is there already is kept.

    A volume is written whole before the index names it, so a run that was stopped goes on where
    it was.  A folder made with other settings is made anew.

    Args:
        cases: what to cut.
        folder: where to; made if needed.
        planes: of "axial", "coronal" and "sagittal"; a case is cut along each.
        spacing_mm: size of a pixel.
        report: called with a line for each case.

    Returns:
        The store with exactly these cases, in this order, each once a plane.
    """
    index = StoreIndex(folder, planes, spacing_mm, report)
    for case in cases:
        if not index.has(case):
            report(f"slicing {case.case_id}")
            index.add(case, store_case(case, index.folder, planes, spacing_mm))
        index.keep(case)
    return index.finish()


class StoreIndex:
    """Keep the index of a store that is being made; one that was stopped goes on.

    Args:
        folder: of the store; made if needed.
        planes, spacing_mm: settings of all its volumes; what was made with others is forgotten.
        report: called with a line where that happens.
    """

    def __init__(
        self,
        folder: str | Path,
        planes: Sequence[str],
        spacing_mm: float,
        report: Callable[[str], None],
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._settings = {"planes": list(planes), "spacing_mm": float(spacing_mm)}
        self._known: dict[str, list[dict]] = {}
        self._kept: list[str] = []
        index = read_index(self.folder)
        if index and index["settings"] != self._settings:
            report(
                f"{folder} was made with {index['settings']}: making it anew with {self._settings}"
            )
        elif index is None and (self.folder / "index.json").is_file():
            report(f"{folder} was made by another version of the library: making it anew")
        elif index:
            for row in index["volumes"]:
                self._known.setdefault(row["case_id"], []).append(row)

    def has(self, case: Case) -> bool:
        """Tell whether a case is stored already."""
        rows = self._known.get(case.case_id, [])
        return bool(rows) and all((self.folder / row["file"]).is_file() for row in rows)

    def add(self, case: Case, rows: list[dict], write: bool = True) -> None:
        """Name the volumes of a case, and remember that on disk unless told to wait."""
        self._known[case.case_id] = rows
        if write:
            self.write()

    def keep(self, case: Case) -> None:
        """Put a case into the finished store, after those that were kept before."""
        self._kept.append(case.case_id)

    def write(self) -> None:
        """Write what is known so far."""
        self._write([row for rows in self._known.values() for row in rows])

    def finish(self) -> SliceStore:
        """Write the index of the kept cases and open the store."""
        self._write([row for case_id in self._kept for row in self._known[case_id]])
        return SliceStore(self.folder)

    def _write(self, rows: list[dict]) -> None:
        index = {"version": STORE_VERSION, "settings": self._settings, "volumes": rows}
        with atomic_file(self.folder / "index.json") as stream:
            stream.write(json.dumps(index, indent=1).encode())


class VolumeMaps:
    """Map each volume of a store when it is first asked for.

    Args:
        store: sliced volumes.
    """

    def __init__(self, store: SliceStore) -> None:
        self._store = store
        self._maps: dict[int, np.ndarray] = {}

    def __getitem__(self, number: int) -> np.ndarray:
        """Return a volume as `SliceStore.read` does."""
        if number not in self._maps:
            self._maps[number] = self._store.read(number)
        return self._maps[number]

    def __getstate__(self) -> dict:
        """Leave the memory maps behind: a spawned worker opens its own."""
        return {**self.__dict__, "_maps": {}}


class TrainingSlices(Dataset):
    """Cut augmented patches from a store; indexed by `Draw`.

    Args:
        store: the sliced training volumes.
        augmentation: which changes, how strong, and the size of a patch.
        seed: of the run.
        neighbour_mm: distance of the slices that become further channels; 0 for none.
        target: what a network is taught, key of `targets.TARGETS`.
    """

    def __init__(
        self,
        store: SliceStore,
        augmentation: Augmentation,
        seed: int = 0,
        neighbour_mm: float = 0.0,
        target: str = "spine",
    ) -> None:
        self.store = store
        self.neighbour_mm, self.target = neighbour_mm, target
        self.seed = seed
        self.augmenter = TrainingAugmenter(augmentation)
        self._maps = VolumeMaps(store)

    def __len__(self) -> int:
        return sum(volume.shape[0] for volume in self.store.volumes)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return one patch.

        Returns:
            Input float32 [channel, row, column], target float32 [1, row, column] (0, and 1 or
            the region's id), and weight float32 [1, row, column] (0 where the label is unknown).
        """
        pixels = self.store.stack(self._maps[draw.volume], draw, self.neighbour_mm)
        seeds = np.random.SeedSequence((self.seed, draw.epoch, draw.place))
        # A mirrored patient is still one from the front or above, but not from the side.
        mirror = self.store.volumes[draw.volume].plane != "sagittal"
        image_hu, label = self.augmenter(pixels, seeds, mirror)
        return as_tensors(image_hu, label, self.target)


class WholeSlices(Dataset):
    """Read whole slices as they are, padded to a common shape, for validation.

    Args:
        store: sliced volumes.
        every: take each n-th slice of a volume.
        multiple: rows and columns become multiples of this, as the networks ask.
        neighbour_mm, target: as for `TrainingSlices`.
    """

    def __init__(
        self,
        store: SliceStore,
        every: int = 1,
        multiple: int = 32,
        neighbour_mm: float = 0.0,
        target: str = "spine",
    ) -> None:
        self.store = store
        self.neighbour_mm, self.target = neighbour_mm, target
        shapes = np.array([volume.shape[1:] for volume in store.volumes])
        self.shape_hw = tuple(int(n) for n in -(-shapes.max(axis=0) // multiple) * multiple)
        self.items = [
            (number, index)
            for number, volume in enumerate(store.volumes)
            for index in range(0, volume.shape[0], every)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return input, target and weight as `TrainingSlices` does."""
        number, index = self.items[item]
        draw = Draw(number, index)
        pixels = self.store.stack(self.store.read(number), draw, self.neighbour_mm)
        rows, columns, channels = pixels.shape
        image_hu = np.full((*self.shape_hw, channels), AIR_HU, np.float32)
        label = np.full(self.shape_hw, IGNORE, np.uint8)
        image_hu[:rows, :columns] = pixels["hu"]
        label[:rows, :columns] = pixels["label"][..., channels // 2]
        return as_tensors(image_hu, label, self.target)


def as_tensors(
    image_hu: np.ndarray, label: np.ndarray, target: str = "spine"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn an image [row, column, channel] in HU and its labels into what training takes.

    The target is one channel of class numbers, whatever their number: what is above 0 is spine.
    """
    known = label != IGNORE
    return (
        torch.from_numpy(np.ascontiguousarray(network_input(image_hu).transpose(2, 0, 1))),
        torch.from_numpy(to_target(label, target)[None].astype(np.float32)),
        torch.from_numpy(known[None].astype(np.float32)),
    )
