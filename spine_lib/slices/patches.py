"""Lessons 3 and 6: the images and targets that a network is trained and validated on.

With the target "spine" a network has one output, the logit of spine. With "regions" it has one for
the background and one for each region; spine is every class but the background.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from spine_lib.annotations.schemes import REGIONS, to_regions
from spine_lib.slices.augment import Augmentation, TrainingAugmenter, network_input
from spine_lib.slices.cut import AIR_HU, IGNORE
from spine_lib.slices.store import Draw, SliceStore

TARGETS = {"spine": 1, "regions": 1 + len(REGIONS)}  # a network's outputs


class TrainingSlices(Dataset):
    """Cut augmented patches from a store; indexed by `Draw`.

    Slices at a distance of `neighbour_mm` become further channels (0 for none); `target` is a key
    of `TARGETS`.
    """

    def __init__(
        self,
        store: SliceStore,
        augmentation: Augmentation,
        seed: int = 0,
        neighbour_mm: float = 0.0,
        target: str = "spine",
    ) -> None:
        self.store, self.seed = store, seed
        self.neighbour_mm, self.target = neighbour_mm, target
        self.augmenter = TrainingAugmenter(augmentation)

    def __len__(self) -> int:
        return sum(volume.shape[0] for volume in self.store.volumes)

    def __getitem__(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return input, target and weight of one patch, as `as_tensors` makes them."""
        pixels = self.store.stack(draw, self.neighbour_mm)
        seeds = np.random.SeedSequence((self.seed, draw.epoch, draw.place))
        # A mirrored patient is still one from the front or above, but not from the side.
        mirror = self.store.volumes[draw.volume].plane != "sagittal"
        image_hu, label = self.augmenter(pixels, seeds, mirror)
        return as_tensors(image_hu, label, self.target)


class WholeSlices(Dataset):
    """Read each n-th slice as it is, padded to a common shape of multiples of 32, to validate."""

    def __init__(
        self,
        store: SliceStore,
        every: int = 1,
        neighbour_mm: float = 0.0,
        target: str = "spine",
    ) -> None:
        self.store = store
        self.neighbour_mm, self.target = neighbour_mm, target
        shapes = np.array([volume.shape[1:] for volume in store.volumes])
        self.shape_hw = tuple(int(n) for n in -(-shapes.max(axis=0) // 32) * 32)
        self.draws = [
            Draw(number, index)
            for number, volume in enumerate(store.volumes)
            for index in range(0, volume.shape[0], every)
        ]

    def __len__(self) -> int:
        return len(self.draws)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return input, target and weight of one slice, as `as_tensors` makes them."""
        pixels = self.store.stack(self.draws[item], self.neighbour_mm)
        rows, columns, channels = pixels.shape
        image_hu = np.full((*self.shape_hw, channels), AIR_HU, np.float32)
        label = np.full(self.shape_hw, IGNORE, np.uint8)
        image_hu[:rows, :columns] = pixels["hu"]
        label[:rows, :columns] = pixels["label"][..., channels // 2]
        return as_tensors(image_hu, label, self.target)


def as_tensors(
    image_hu: np.ndarray, label: np.ndarray, target: str = "spine"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what training takes of an image [row, column, channel] in HU and its labels, float32.

    That is the input [channel, row, column], the target [1, row, column] (0, and 1 or the region's
    id), and the weight [1, row, column] (0 where the label is unknown).
    """
    maps = (to_target(label, target), label != IGNORE)
    image = np.ascontiguousarray(network_input(image_hu).transpose(2, 0, 1))
    return tuple(map(torch.from_numpy, (image, *(m[None].astype(np.float32) for m in maps))))


def to_target(label: np.ndarray, target: str = "spine") -> np.ndarray:
    """Return the classes of stored labels (any shape, 0 where unknown) for a key of `TARGETS`."""
    known = np.where(label == IGNORE, 0, label)
    return to_regions(known) if target == "regions" else (known > 0).astype(np.uint8)


def spine_logit(logits: torch.Tensor) -> torch.Tensor:
    """Return the logit of spine [batch, 1, row, column] of any network's [batch, class, ...]."""
    if logits.shape[1] == 1:
        return logits
    return torch.logsumexp(logits[:, 1:], 1, keepdim=True) - logits[:, :1]


def class_map(logits: torch.Tensor) -> torch.Tensor:
    """Return the class of each pixel: 0 unless spine is likelier, else 1 or the likeliest region.

    It is int64 [batch, 1, row, column] of logits [batch, class, row, column].
    """
    spine = spine_logit(logits) > 0
    if logits.shape[1] == 1:
        return spine.long()
    return torch.where(spine, logits[:, 1:].argmax(1, keepdim=True) + 1, 0)
