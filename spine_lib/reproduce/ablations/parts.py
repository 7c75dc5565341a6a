"""Some volumes of a store, or some of their slices, as a store of its own; nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spine_lib.slices.store import Draw, SliceStore, StoredVolume


class PartOfStore(SliceStore):
    """Show chosen slices of a store.

    Args:
        store: the whole; its files are read.
        slices: by number of the volume, which of its slices, in ascending order; None for all.
            Neighbours of a slice are those of the scan, whether chosen or not.
    """

    def __init__(self, store: SliceStore, slices: Mapping[int, Sequence[int] | None]) -> None:
        self.folder, self.settings = store.folder, store.settings
        self._whole = store
        self._numbers = list(slices)
        self._slices = [None if kept is None else list(kept) for kept in slices.values()]
        self.volumes = [
            _shortened(store.volumes[number], kept)
            for number, kept in zip(self._numbers, self._slices, strict=True)
        ]

    def read(self, number: int) -> np.ndarray:
        """Map the whole volume that chosen slices come from."""
        return self._whole.read(self._numbers[number])

    def stack(self, draw: Draw, neighbour_mm: float) -> np.ndarray:
        """Copy a chosen slice, and its neighbours: [row, column, channel]."""
        kept = self._slices[draw.volume]
        index = draw.slice if kept is None else kept[draw.slice]
        whole_draw = draw._replace(volume=self._numbers[draw.volume], slice=index)
        return self._whole.stack(whole_draw, neighbour_mm)


def _shortened(volume: StoredVolume, kept: Sequence[int] | None) -> StoredVolume:
    if kept is None:
        return volume
    spine = set(volume.foreground)
    places = tuple(place for place, index in enumerate(kept) if index in spine)
    return replace(volume, shape=(len(kept), *volume.shape[1:]), foreground=places)


def volumes_of(store: SliceStore, case_ids: Sequence[str], planes: Sequence[str]) -> PartOfStore:
    """Return the volumes of these cases, cut along these planes."""
    wanted = set(case_ids)
    numbers = [
        number
        for number, volume in enumerate(store.volumes)
        if volume.case_id in wanted and volume.plane in planes
    ]
    return PartOfStore(store, dict.fromkeys(numbers))


def halves(count: int, seed: Sequence[int]) -> tuple[list[int], list[int]]:
    """Part slices at random into two halves, whichever lie beside each other.

    Args:
        count: of slices.
        seed: of the draw.

    Returns:
        Slices to train on and slices to score on, both in ascending order.
    """
    order = np.random.default_rng(seed).permutation(count)
    half = count // 2
    return sorted(order[:half].tolist()), sorted(order[half:].tolist())


def some_of(
    candidates: Mapping[int, Sequence[int]], count: int, seed: Sequence[int]
) -> dict[int, list[int]]:
    """Draw slices at random from several volumes.

    Args:
        candidates: slices by number of the volume.
        count: how many to draw in all.
        seed: of the draw.

    Returns:
        The drawn slices by volume, in ascending order; a volume without any is left out.
    """
    pairs = [(number, index) for number, slices in candidates.items() for index in slices]
    order = np.random.default_rng(seed).permutation(len(pairs))[:count]
    drawn: dict[int, list[int]] = {}
    for number, index in sorted(pairs[place] for place in order):
        drawn.setdefault(number, []).append(index)
    return drawn
