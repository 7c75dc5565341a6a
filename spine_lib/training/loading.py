"""Lesson 6: the order of patches, the same for every number of workers and after every stop."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from spine_lib import SpineError
from spine_lib.slices.patches import TrainingSlices, WholeSlices
from spine_lib.slices.store import Draw, SliceStore
from spine_lib.training.recipe import Recipe


class PatchSampler(Sampler[Draw]):
    """Draws the slices of an epoch at random, with the recipe's shares of phantoms and of spine.

    The order depends on the seed and the epoch alone. Several processes (this is number `rank` of
    `world_size`) share the draws of each step, which together are the batch of one process.
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
        return self.recipe.steps_per_epoch * self.recipe.batch // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        numbers = range(self.rank, len(self) * self.world_size, self.world_size)
        for number in numbers[self.skip :]:
            yield self._draw(number)

    def cases(self, batch: int) -> list[str]:
        """Return the ids of the cases that a batch of this epoch is cut from, all shares of it."""
        size = self.recipe.batch
        draws = map(self._draw, range(batch * size, (batch + 1) * size))
        return sorted({self.store.volumes[draw.volume].case_id for draw in draws})

    def _draw(self, number: int) -> Draw:
        random = np.random.default_rng((self.recipe.seed, self.epoch, number))
        volumes = self.store.volumes
        phantoms = [i for i, v in enumerate(volumes) if v.source == "phantom"]
        patients = [i for i, v in enumerate(volumes) if v.source != "phantom"]
        wants_phantom = random.random() < self.recipe.phantom_share
        pool = (phantoms if wants_phantom else patients) or phantoms or patients
        chosen = pool[random.integers(len(pool))]
        volume = volumes[chosen]
        if volume.foreground and random.random() < self.recipe.foreground_share:
            index = volume.foreground[random.integers(len(volume.foreground))]
        else:
            index = random.integers(volume.shape[0])
        return Draw(chosen, int(index), self.epoch, number)


class ResumableLoader(DataLoader):
    """A DataLoader that resumes in the middle of an epoch; its sampler must have `skip`.

    It also keeps the state of PyTorch's random numbers, which dropout draws from.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self._done = 0
        self._random: dict[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches of this epoch were yielded, and the random numbers' state."""
        # a checkpoint that is saved after resuming, before the first batch, keeps what it came from
        return {"batches": self._done, "random": self._random or _random_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Skip, once, the batches that were yielded before the stop."""
        self._done = state["batches"] % max(1, len(self))
        self.sampler.skip = self._done * self.batch_size
        if self.sampler.rank == 0:  # others draw other numbers
            self._random = state.get("random", {})

    def __iter__(self):
        resumed = self.sampler.skip > 0
        if not resumed:
            self._done = 0
            self._restore()
        if self._iterator is not None:  # workers that go on would leave a random number untaken
            torch.empty((), dtype=torch.int64).random_()
        batches = super().__iter__()
        if resumed:
            self._restore()
        for batch in batches:
            self._done += 1
            yield batch
        self.sampler.skip = 0

    def _restore(self) -> None:
        random, self._random = self._random, {}
        if "cpu" in random:
            torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def training_loader(
    store: SliceStore, recipe: Recipe, rank: int = 0, world_size: int = 1
) -> ResumableLoader:
    """Return the loader of augmented patches; all processes together take the recipe's batch."""
    return ResumableLoader(
        TrainingSlices(store, recipe.augmentation, recipe.seed, recipe.neighbour_mm, recipe.target),
        batch_size=recipe.batch // world_size,
        sampler=PatchSampler(store, recipe, rank, world_size),
        num_workers=recipe.workers,
        prefetch_factor=4 if recipe.workers else None,
        persistent_workers=recipe.workers > 0,  # starting them anew costs seconds an epoch
        pin_memory=torch.cuda.is_available(),
    )


def validation_loader(
    store: SliceStore, recipe: Recipe, rank: int = 0, world_size: int = 1, every: int = 12
) -> DataLoader:
    """Return the loader of each n-th whole slice; several processes share the batches of one."""
    slices = WholeSlices(store, every, neighbour_mm=recipe.neighbour_mm, target=recipe.target)
    if len(slices) < world_size:
        raise SpineError(
            f"{len(slices)} validation slices cannot be shared by {world_size} processes: use more "
            "validation_phantoms or fewer processes"
        )
    size = min(recipe.batch, len(slices) // world_size)  # so that each gets a batch at least
    batches = [range(a, min(a + size, len(slices))) for a in range(0, len(slices), size)]
    return DataLoader(slices, batch_sampler=batches[rank::world_size], num_workers=0)
