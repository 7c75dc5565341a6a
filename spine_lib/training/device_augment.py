"""Lesson 6: augment whole batches where the network is, for a GPU that outruns the processor.

A core makes a few hundred patches a second, a datacentre GPU may train on thousands.  Here a worker
only cuts a square of HU and labels out of a slice and draws the numbers that say what happens to
it; turning, deforming and disturbing it are a few operations of PyTorch on the batch.  Everything
random follows from (seed, epoch, place), noise too, which is hashed from pixel numbers: the same
patch comes out whatever the batch, the number of workers or the device, up to rounding.

The steps are those of `augment.py`, without redrawing tissues, and not the same to the last digit;
Downscale and elastic fields are made a little differently.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import Dataset

from spine_lib.slices.augment import INPUT_RANGE_HU, Augmentation, TrainingAugmenter
from spine_lib.slices.cut import AIR_HU, IGNORE
from spine_lib.slices.store import Draw, SliceStore, VolumeMaps
from spine_lib.slices.targets import to_target

SHEAR_DEGREES = 6.0
ELASTIC_EVERY, ELASTIC_PIXELS = 16, 2.5
"""Distance of the points that move at random, and how far, as a standard deviation."""

BLUR_RADIUS = 4
NOISE_SCALE = 0.7
"""Noise is drawn on a coarser grid and enlarged, as a scanner's is correlated."""


class RawPatches(NamedTuple):
    """Hold what workers hand over: squares of a slice and what is to happen to them.

    Attributes:
        image_hu: int16 [batch, channel, side, side].
        label: uint8 [batch, side, side]: classes as `targets.to_target` names them, 255 = ignore.
        plan: float32 [batch, len(PLAN)].
        seed: int64 [batch], of the noise.
    """

    image_hu: torch.Tensor
    label: torch.Tensor
    plan: torch.Tensor
    seed: torch.Tensor


PLAN = (
    *("a", "b", "c", "d"),  # a pixel of the patch in its square: [a b; c d] of (column, row)
    *("elastic", "brightness", "contrast", "blur", "sharpen", "coarse", "noise"),
    *("top", "bottom", "left", "right"),  # what a narrow field of view leaves, pixels
)
"""Names of the numbers that say what happens to a patch."""


def draw_plan(wish: Augmentation, random: np.random.Generator, mirror: bool) -> list[float]:
    """Draw what happens to a patch; see `PLAN`.

    Args:
        wish: how strongly, and in which share of the patches.
        random: decides everything.
        mirror: swap left and right in half of the patches.
    """
    turn = math.radians(random.uniform(-wish.rotation_degrees, wish.rotation_degrees))
    shear = np.tan(np.radians(random.uniform(-SHEAR_DEGREES, SHEAR_DEGREES, 2)))
    # As often smaller as larger, and along rows and columns apart.
    zoom = [_zoom(wish.zoom, random) for _ in range(2)]
    rotation = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    forward = np.array(rotation) @ [[1, shear[0]], [shear[1], 1]] @ np.diag(zoom)
    if mirror and random.random() < 0.5:
        forward = np.diag([-1.0, 1.0]) @ forward
    elastic = float(random.random() < wish.elastic)
    brightness = contrast = blur = sharpen = noise = 0.0
    coarse = 1.0
    if random.random() < wish.contrast:
        brightness, contrast = random.uniform(-0.04, 0.04), random.uniform(-0.2, 0.2)
    if random.random() < wish.sharpness:
        if random.random() < 0.5:
            blur = random.uniform(0.3, 1.3)
        else:
            sharpen = random.uniform(0.1, 0.4)
    if random.random() < wish.coarse:
        coarse = random.uniform(0.4, 0.8)
    if random.random() < wish.noise:
        noise = random.uniform(0.002, 0.05)
    photometry = [elastic, brightness, contrast, blur, sharpen, coarse, noise]
    return [*np.linalg.inv(forward).ravel(), *photometry, *_view(wish, random)]


def _zoom(limits: tuple[float, float], random: np.random.Generator) -> float:
    low, high = limits
    if low < 1 < high:
        return random.uniform(low, 1) if random.random() < 0.5 else random.uniform(1, high)
    return random.uniform(low, high)


def _view(wish: Augmentation, random: np.random.Generator) -> list[float]:
    size = wish.size
    if random.random() >= wish.narrow_view:
        return [0, size, 0, size]
    height, width = random.uniform(size / 6, size * 2 / 3, 2)
    row, column = size / 2 + random.normal(0, size / 20, 2)
    return [row - height / 2, row + height / 2, column - width / 2, column + width / 2]


class RawSlices(Dataset):
    """Cut squares from a store and say what is to happen to them; indexed by `Draw`.

    Args:
        store, augmentation, seed, neighbour_mm, target: as for `store.TrainingSlices`.
    """

    def __init__(
        self,
        store: SliceStore,
        augmentation: Augmentation,
        seed: int = 0,
        neighbour_mm: float = 0.0,
        target: str = "spine",
    ) -> None:
        self.store, self.seed, self.neighbour_mm = store, seed, neighbour_mm
        self.target = target
        self.augmentation = augmentation
        self._cutter = TrainingAugmenter(augmentation)
        self._maps = VolumeMaps(store)

    def __len__(self) -> int:
        return sum(volume.shape[0] for volume in self.store.volumes)

    def __getitem__(self, draw: Draw) -> RawPatches:
        """Return one square and its plan, without the first axis."""
        pixels = self.store.stack(self._maps[draw.volume], draw, self.neighbour_mm)
        random = np.random.default_rng((self.seed, draw.epoch, draw.place))
        image, label = self._cutter.cut_square(pixels, random)
        mirror = self.store.volumes[draw.volume].plane != "sagittal"
        plan = draw_plan(self.augmentation, random, mirror)
        return RawPatches(
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            torch.from_numpy(np.where(label == IGNORE, label, to_target(label, self.target))),
            torch.tensor(plan, dtype=torch.float32),
            torch.tensor(int(random.integers(2**62))),
        )


@torch.no_grad()
def augment_batch(raw: RawPatches, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make a training batch from raw patches, on the device that they lie on.

    Args:
        raw: squares with their plans.
        size: rows and columns of a patch.

    Returns:
        Input float32 [batch, channel, size, size], target (0, and 1 or the region's id) and weight
        (0 where the label is unknown) float32 [batch, 1, size, size].
    """
    plan = dict(zip(PLAN, raw.plan.T[:, :, None, None, None], strict=True))
    grid = _grid(plan, raw.seed, size, raw.image_hu.shape[-1])
    # Outside a square is air without label: 0, once air is 0.
    image = functional.grid_sample(raw.image_hu.float() - AIR_HU, grid, align_corners=False)
    label = functional.grid_sample(
        raw.label[:, None].float(), grid, mode="nearest", align_corners=False
    )
    low, high = INPUT_RANGE_HU
    image = ((image + (AIR_HU - low)) / (high - low)).clamp(0, 1)
    image = image * (1 + plan["contrast"]) + plan["brightness"]
    image = _sharpened(_blurred(image, plan["blur"]), plan["sharpen"])
    image = _coarser(image, plan["coarse"].flatten())
    image = image + plan["noise"] * _noise(raw.seed, image.shape)
    inside = _inside(plan, size, image.device)
    image = torch.where(inside, image.clamp(0, 1), 0.0)
    target = torch.where((label != IGNORE) & inside, label, 0.0)
    return image * 4 - 1.5, target, ((label != IGNORE) | ~inside).float()


def _grid(plan: dict, seed: torch.Tensor, size: int, side: int) -> torch.Tensor:
    """Return where each pixel of a patch lies in its square, in -1..1 [batch, row, column, 2]."""
    place = torch.arange(size, device=seed.device) - (size - 1) / 2
    x, y = place[None, None, None, :], place[None, None, :, None]
    columns = plan["a"] * x + plan["b"] * y
    rows = plan["c"] * x + plan["d"] * y
    points = -(-size // ELASTIC_EVERY) + 3
    moves = hashed_normal(seed + 1, (len(seed), 2, points, points)) * ELASTIC_PIXELS
    moves = functional.interpolate(moves, (size, size), mode="bicubic", align_corners=False)
    where = torch.cat([columns, rows], dim=1) + plan["elastic"] * moves
    return (where * (2 / side)).permute(0, 2, 3, 1)


def _blurred(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image with its own Gaussian; a width of 0 leaves it."""
    count, channels, rows, columns = image.shape
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma.view(count, 1).clamp(min=0.05)) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    flat = image.reshape(1, count * channels, rows, columns)
    pad = functional.pad(flat, [BLUR_RADIUS] * 4, mode="replicate")
    along_rows = functional.conv2d(pad, kernel[:, None, :, None], groups=count * channels)
    both = functional.conv2d(along_rows, kernel[:, None, None, :], groups=count * channels)
    return both.view(image.shape)


def _sharpened(image: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Add what a pixel has more than the mean of its neighbourhood."""
    pad = functional.pad(image, [1] * 4, mode="replicate")
    return image + 9 * strength * (image - functional.avg_pool2d(pad, 3, stride=1))


def _coarser(image: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Let several pixels take the value of one, as if there were only this share of them."""
    place = torch.arange(image.shape[-1], device=image.device)[None]
    pick = (((place * scale[:, None]).floor() + 0.5) / scale[:, None]).long()
    pick = torch.where(scale[:, None] < 1, pick, place).clamp(max=image.shape[-1] - 1)
    batch = torch.arange(len(image), device=image.device)[:, None, None]
    # Indices around a slice put its axis last.
    return image[batch, :, pick[:, :, None], pick[:, None, :]].permute(0, 3, 1, 2)


def _noise(seed: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    coarse = [math.ceil(n * NOISE_SCALE) for n in shape[2:]]
    noise = hashed_normal(seed, (*shape[:2], *coarse))
    return functional.interpolate(noise, shape[2:], mode="bilinear", align_corners=False)


def _inside(plan: dict, size: int, device: torch.device) -> torch.Tensor:
    place = torch.arange(size, device=device)
    rows, columns = place[None, None, :, None], place[None, None, None, :]
    inside = (rows >= plan["top"].floor()) & (rows < plan["bottom"].floor())
    return inside & (columns >= plan["left"].floor()) & (columns < plan["right"].floor())


def hashed_normal(seed: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return normally distributed numbers that follow from seeds and places alone.

    Args:
        seed: int64 [batch].
        shape: of the result; its first number is that of the seeds.

    Returns:
        float32, on the seeds' device.  Places are hashed by the finaliser of MurmurHash3 in 64 bit
        (Steele et al. 2014, doi:10.1145/2660193.2660195), and pairs of them turned into normal
        numbers (Box & Muller 1958, doi:10.1214/aoms/1177706645).
    """
    count = math.prod(shape[1:])
    half = (count + 1) // 2
    place = torch.arange(2 * half, device=seed.device)[None]
    bits = _mixed(_mixed(seed)[:, None] + place)
    uniform = ((bits >> 40) & 0xFFFFFF).float().add_(0.5).mul_(2.0**-24)
    radius = torch.sqrt(-2 * torch.log(uniform[:, :half]))
    angle = 2 * math.pi * uniform[:, half:]
    normal = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return normal[:, :count].reshape(shape)


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """Scramble 64 bits; numbers wrap around, and shifts bring in zeros."""
    for factor in (-0x00AE502812AA7333, -0x3B314601E57A13AD):
        bits = (bits ^ ((bits >> 33) & 0x7FFFFFFF)) * factor
    return bits ^ ((bits >> 33) & 0x7FFFFFFF)
