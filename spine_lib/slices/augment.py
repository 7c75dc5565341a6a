"""Lesson 3: change image and mask together, so that few patients look like many.

The strongest step redraws tissues: every organ's mean HU and contrast is drawn anew within its own
outline, which teaches a network that knows two patients not to rely on how bright their kidneys
were (after Billot et al. 2023, doi:10.1016/j.media.2023.102789).

Import albumentations after this module: it would ask the network for its newest version. It is
imported only where patches are made, as it takes seconds.
"""

import os
from typing import TYPE_CHECKING, Annotated

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import cv2
import numpy as np
from pydantic import Field, field_validator

from spine_lib.datasets.settings import Settings, Share
from spine_lib.slices.cut import AIR_HU, IGNORE, UNLABELLED_TISSUE

if TYPE_CHECKING:
    import albumentations as A

INPUT_RANGE_HU = (-250.0, 1000.0)  # fat to dense bone; what is below and above is cut off
FIRST_SPINE_CLASS = 220  # of vertebrae: this plus the canonical id

# Tables: a look-up is faster than computing a pixel. Class 219 leaves loss and scores. The second
# undoes `classes_of`: 0, canonical ids, 255 = ignore.
CLASS_OF_LABEL = (np.arange(256) + FIRST_SPINE_CLASS).astype(np.uint8)
CLASS_OF_LABEL[IGNORE] = 219
LABEL_OF_CLASS = np.maximum(np.arange(256) - FIRST_SPINE_CLASS, 0).astype(np.uint8)
LABEL_OF_CLASS[219] = IGNORE


def network_input(image_hu: np.ndarray) -> np.ndarray:
    """Return HU (any shape and real dtype) as the networks take them: float32, -1.5 to 2.5."""
    low, high = INPUT_RANGE_HU
    image = np.clip(np.asarray(image_hu, np.float32), low, high)
    image -= low
    image *= 4 / (high - low)
    image -= 1.5
    return image


Zoom = Annotated[float, Field(ge=0.1, le=10)]


class Augmentation(Settings):
    """How a training patch is made; every share is the probability of a step."""

    size: Annotated[int, Field(gt=0, le=2048, multiple_of=32)] = 96  # rows and columns, pixels
    centred: Share = 0.65  # near the spine
    zoom: tuple[Zoom, Zoom] = (0.7, 1.35)  # smallest and largest enlargement
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 25.0  # largest to either side
    elastic: Share = 0.3  # deformed smoothly
    redraw: Share = 0.5  # tissues get other HU (where the class of each pixel is known)
    redraw_fully: Share = 0.3  # of those, the HU are drawn without regard to the real ones
    narrow_view: Share = 0.35  # cut to a narrow field of view
    contrast: Share = 0.5
    sharpness: Share = 0.5
    coarse: Share = 0.15
    noise: Share = 0.6

    @field_validator("zoom")
    @classmethod
    def _require_order(cls, zoom: tuple[float, float]) -> tuple[float, float]:
        if zoom[0] > zoom[1]:
            raise ValueError("it must name the smaller enlargement first")
        return zoom


def _geometry(augmentation: Augmentation) -> "A.Compose":
    """Return the pipeline that moves image and mask alike; it ends with the patch's size."""
    import albumentations as A

    turn = augmentation.rotation_degrees
    options = {
        "interpolation": cv2.INTER_LINEAR,
        "mask_interpolation": cv2.INTER_NEAREST,
        "fill": AIR_HU,
        "fill_mask": UNLABELLED_TISSUE,
        "border_mode": cv2.BORDER_CONSTANT,
    }
    return A.Compose(
        [
            A.Affine(
                scale=augmentation.zoom,
                keep_ratio=False,
                balanced_scale=True,
                rotate=(-turn, turn),
                shear=(-6, 6),
                p=1.0,
                **options,
            ),
            A.CenterCrop(augmentation.size, augmentation.size),
            A.ElasticTransform(40, 6, approximate=True, p=augmentation.elastic, **options),
        ]
    )


def _photometry(augmentation: Augmentation) -> "A.Compose":
    """Return the pipeline that changes intensities; it takes an image scaled to 0..1."""
    import albumentations as A

    return A.Compose(
        [
            A.RandomBrightnessContrast(0.04, 0.2, ensure_safe_range=False, p=augmentation.contrast),
            A.OneOf(
                [
                    A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.3)),
                    A.Sharpen(alpha=(0.1, 0.4), lightness=(1.0, 1.0)),
                ],
                p=augmentation.sharpness,
            ),
            A.Downscale((0.4, 0.8), p=augmentation.coarse),
            A.GaussNoise(std_range=(0.002, 0.05), noise_scale_factor=0.7, p=augmentation.noise),
        ]
    )


class TrainingAugmenter:
    """Make a training patch from a stored slice; the same seeds make the same patch."""

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation
        self._geometry = _geometry(augmentation)
        self._photometry = _photometry(augmentation)
        cv2.setNumThreads(1)

    def __call__(
        self, pixels: np.ndarray, seeds: np.random.SeedSequence, mirror: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return one patch: float32 HU [size, size, channel], and uint8 labels [size, size].

        Args:
            pixels: `SLICE_DTYPE` [row, column, channel]; labels come from the middle channel.
            seeds: decides everything random.
            mirror: swap left and right in half of the patches.
        """
        settings = self.augmentation
        random = np.random.default_rng(seeds)
        image, classes = self._patch(pixels, random)
        if mirror and random.random() < 0.5:
            image, classes = np.fliplr(image), np.fliplr(classes)
        self._geometry.set_random_seed(int(random.integers(2**31)))
        arrays = {"image": np.ascontiguousarray(image), "mask": np.ascontiguousarray(classes)}
        moved = self._geometry(**arrays)
        # One channel may lose its axis on the way.
        shape = (settings.size, settings.size, pixels.shape[2])
        image, classes = moved["image"].reshape(shape), moved["mask"].reshape(shape)
        if random.random() < settings.redraw:
            image = redraw_tissues(image, classes, random, random.random() < settings.redraw_fully)
        self._photometry.set_random_seed(int(random.integers(2**31)))
        image = from_unit(self._photometry(image=to_unit(image))["image"].reshape(shape))
        label = LABEL_OF_CLASS[classes[..., shape[2] // 2]]
        if random.random() < settings.narrow_view:
            narrow_view(image, label, random)
        return image, label

    def _patch(self, pixels: np.ndarray, random: np.random.Generator):
        """Cut a generous square around a point, so that turning it shows no empty corners."""
        side, channels = int(self.augmentation.size * 1.5), pixels.shape[2]
        label = np.ascontiguousarray(pixels["label"][..., channels // 2])
        spine = np.flatnonzero((label > 0) & (label != IGNORE))
        if len(spine) and random.random() < self.augmentation.centred:
            pick = spine[random.integers(len(spine))]
            centre = np.array(np.unravel_index(pick, label.shape)) + random.normal(0, 8, 2)
        else:
            centre = random.uniform(0, pixels.shape[:2])
        corner = np.rint(centre - side / 2).astype(int)
        start = np.maximum(corner, 0)
        stop = np.maximum(start, np.minimum(corner + side, pixels.shape[:2]))
        source = tuple(map(slice, start, stop))
        target = tuple(map(slice, start - corner, stop - corner))
        image = np.full((side, side, channels), AIR_HU, np.float32)
        classes = np.full((side, side, channels), UNLABELLED_TISSUE, np.uint8)
        image[target] = pixels["hu"][source]
        classes[target] = classes_of(pixels[source])
        return image, classes


def classes_of(pixels: np.ndarray) -> np.ndarray:
    """Merge label and tissue of stored pixels into one class a pixel, uint8."""
    label = np.ascontiguousarray(pixels["label"])
    return np.where(label > 0, CLASS_OF_LABEL[label], pixels["tissue"])


def to_unit(image_hu: np.ndarray) -> np.ndarray:
    """Window HU to 0..1 float32, the only range in which every albumentations step works."""
    low, high = INPUT_RANGE_HU
    return (np.clip(image_hu, low, high) - np.float32(low)) / np.float32(high - low)


def from_unit(image: np.ndarray) -> np.ndarray:
    """Undo `to_unit`, within its range."""
    low, high = INPUT_RANGE_HU
    return image * np.float32(high - low) + np.float32(low)


def narrow_view(image_hu: np.ndarray, label: np.ndarray, random: np.random.Generator) -> None:
    """Blank all but a rectangle near the middle, in place, as a tight reconstruction would."""
    size = image_hu.shape[0]
    height, width = random.uniform(size / 6, size * 2 / 3, 2)
    row, column = size / 2 + random.normal(0, size / 20, 2)
    outside = np.ones(label.shape, dtype=bool)
    rows = slice(max(0, int(row - height / 2)), int(row + height / 2))
    outside[rows, max(0, int(column - width / 2)) : int(column + width / 2)] = False
    image_hu[outside] = AIR_HU
    label[outside] = 0


def redraw_tissues(
    image_hu: np.ndarray, classes: np.ndarray, random: np.random.Generator, fully: bool
) -> np.ndarray:
    """Return an image in which every tissue has another mean and contrast within its outline.

    The image is float32 HU [row, column, channel]; means are shifted, or (`fully`) drawn anew from
    what a tissue of that kind may have.
    """
    flat = classes.ravel()
    count = np.maximum(np.bincount(flat, minlength=256), 1)
    mean = np.bincount(flat, image_hu.ravel(), 256) / count
    if fully:
        new_mean, contrast = _drawn_means(mean, random), np.full(256, random.uniform(0.2, 1.2))
    else:
        new_mean, contrast = _shifted_means(mean, random), np.exp(random.normal(0, 0.25, 256))
    new_mean, contrast, mean = (a.astype(np.float32) for a in (new_mean, contrast, mean))
    image = new_mean[classes] + (image_hu - mean[classes]) * contrast[classes]
    if fully:
        texture = random.standard_normal(image.shape, dtype=np.float32)
        texture = _blurred(texture, random.uniform(0.5, 2))
        image += texture * np.float32(random.uniform(5, 60) / max(texture.std(), 1e-6))
    return _blurred(image, random.uniform(0.3, 0.9))


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)


def _shifted_means(mean: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shift soft tissue by about 40 HU each, and all vertebrae by about 60 HU together."""
    shift = random.normal(0, 40, 256) * (mean > -300)
    shift[FIRST_SPINE_CLASS:] = random.normal(0, 60) + random.normal(0, 15, 36)
    return mean + shift


def _drawn_means(mean: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw means by kind of tissue: air, fat, soft tissue and contrast, bone of one density."""
    bone = random.uniform(80, 700)
    soft = random.uniform(-20, 120, 256)
    drawn = np.where(mean > 150, (random.uniform(80, 600, 256) + bone) / 2, soft)
    drawn = np.where(mean < -40, random.uniform(-130, -60), drawn)
    drawn = np.where(mean < -300, random.uniform(-1000, -600, 256), drawn)
    drawn[FIRST_SPINE_CLASS:] = bone + random.normal(0, 50, 36)
    return drawn
