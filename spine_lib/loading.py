"""Lesson 6: which patch comes when, the same for every number of workers and after every stop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from spine_lib.recipe import Recipe
from spine_lib.store import Draw, SliceStore, TrainingSlices, WholeSlices


class PatchSampler(Sampler[Draw]):
    """Draw the slices of an epoch at random, phantoms and slices with spine as often as asked.

    The order depends on the seed, the epoch and nothing else.  With several processes each takes
    every n-th draw.

    Args:
        store: the sliced training volumes.
        recipe: batch, steps_per_epoch, phantom_share, foreground_share and seed are used.
        rank, world_size: which of how many processes this is.
    """

    def __init__(self, store: SliceStore, recipe: Recipe, rank: int = 0, world_size: int = 1):
        self.store, self.recipe = store, recipe
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the trainer calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.recipe.steps_per_epoch * self.recipe.batch

    def __iter__(self) -> Iterator[Draw]:
        places = range(self.rank, len(self) * self.world_size, self.world_size)
        for place in places[self.skip :]:
            yield self._draw(place)

    def _draw(self, place: int) -> Draw:
        random = np.random.default_rng((self.recipe.seed, self.epoch, place))
        volumes = self.store.volumes
        phantoms = [i for i, v in enumerate(volumes) if v.source == "phantom"]
        patients = [i for i, v in enumerate(volumes) if v.source != "phantom"]
        wants_phantom = random.random() < self.recipe.phantom_share
        pool = (phantoms if wants_phantom else patients) or phantoms or patients
        number = pool[random.integers(len(pool))]
        volume = volumes[number]
        if volume.foreground and random.random() < self.recipe.foreground_share:
            index = volume.foreground[random.integers(len(volume.foreground))]
        else:
            index = random.integers(volume.shape[0])
        return Draw(number, int(index), self.epoch, place)


class ResumableLoader(DataLoader):
    """A DataLoader that can go on in the middle of an epoch; its sampler must have `skip`."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._done = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of this epoch were handed out."""
        return {"batches": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out the batches that were handed out before the stop, once."""
        self._done = state["batches"] % max(1, len(self))
        self.sampler.skip = self._done * self.batch_size

    def __iter__(self):
        if not self.sampler.skip:
            self._done = 0
        for batch in super().__iter__():
            self._done += 1
            yield batch
        self.sampler.skip = 0


def training_loader(
    store: SliceStore, recipe: Recipe, rank: int = 0, world_size: int = 1
) -> ResumableLoader:
    """Make the loader of augmented patches."""
    return ResumableLoader(
        TrainingSlices(store, recipe.augmentation, recipe.seed, recipe.neighbour_mm),
        batch_size=recipe.batch,
        sampler=PatchSampler(store, recipe, rank, world_size),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def validation_loader(store: SliceStore, recipe: Recipe, every: int = 12) -> DataLoader:
    """Make the loader of whole slices, every n-th of a volume."""
    slices = WholeSlices(store, every, neighbour_mm=recipe.neighbour_mm)
    return DataLoader(slices, batch_size=recipe.batch, num_workers=0)
