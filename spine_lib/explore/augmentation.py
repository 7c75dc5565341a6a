"""See what one augmentation step does to a slice and its mask, weak or strong."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np

from spine_lib.ct import geometry as planes
from spine_lib.ct.volume import Volume
from spine_lib.explore import render
from spine_lib.explore.base import Viewer
from spine_lib.explore.controls import Held, WindowControls, choice, column, part, row, whole
from spine_lib.explore.counts import count_slices
from spine_lib.explore.picture import Picture, text_html
from spine_lib.explore.render import Style
from spine_lib.explore.scene import Scene

PLANE = "axial"
STEPS: dict[str, Callable] = {
    "rotation": lambda A, s: A.Affine(rotate=(25 * s, 25 * s), p=1),
    "zoom": lambda A, s: A.Affine(scale=(1 + 0.5 * s, 1 + 0.5 * s), p=1),
    "shear": lambda A, s: A.Affine(shear={"x": (20 * s, 20 * s), "y": (0, 0)}, p=1),
    "mirror": lambda A, s: A.HorizontalFlip(p=1),
    "elastic": lambda A, s: A.ElasticTransform(alpha=160 * s, sigma=6, approximate=True, p=1),
    "contrast": lambda A, s: A.RandomBrightnessContrast(
        (0, 0), (0.6 * s, 0.6 * s), ensure_safe_range=False, p=1
    ),
    "brightness": lambda A, s: A.RandomBrightnessContrast(
        (0.3 * s, 0.3 * s), (0, 0), ensure_safe_range=False, p=1
    ),
    "blur": lambda A, s: A.GaussianBlur(blur_limit=0, sigma_limit=(3 * s, 3 * s), p=1),
    "coarse": lambda A, s: A.Downscale((1 - 0.85 * s, 1 - 0.85 * s), p=1),
    "noise": lambda A, s: A.GaussNoise(std_range=(0.15 * s, 0.15 * s), p=1),
}
"""albumentations steps by name, as functions of the module and of a strength above 0, up to 1."""
MOVES_MASK = ("rotation", "zoom", "shear", "mirror", "elastic")


def augment_slice(
    image_hu: np.ndarray, mask: np.ndarray, step: str, strength: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Apply one albumentations step to a slice and its mask.

    Args:
        image_hu: HU [row, column].
        mask: uint8 labels [row, column].
        step: key of `STEPS`.
        strength: 0 (nothing) to 1.
        seed: decides what is random in elastic deformation and noise.

    Returns:
        float32 HU within the range that the networks see, and uint8 labels; same shapes.

    Raises:
        SpineError: for an unknown step.
    """
    # Here, since it imports torch and OpenCV, which no other viewer needs.
    from spine_lib.slices import augment

    planes.require_choice("augmentation", step, tuple(STEPS))
    unit = np.ascontiguousarray(augment.to_unit(image_hu), np.float32)
    mask = np.ascontiguousarray(mask, np.uint8)
    if strength > 0:
        pipeline = augment.A.Compose([STEPS[step](augment.A, float(strength))])
        pipeline.set_random_seed(seed)
        moved = pipeline(image=unit, mask=mask)
        unit, mask = np.clip(moved["image"], 0, 1), moved["mask"]
    return augment.from_unit(unit), mask


class AugmentationExplorer(Viewer):
    """Show a slice before and after one augmentation step of a chosen strength.

    Args:
        ct: scan in HU.
        mask: canonical labels or booleans on its grid.
        index: axial slice to begin with; by default the one with the most spine.
        case_id: name in alt texts.
    """

    def __init__(
        self, ct: Volume, mask: Volume, index: int | None = None, case_id: str = ""
    ) -> None:
        self.scene = Scene(ct, mask, case_id=case_id)
        last = planes.slice_count(ct, PLANE) - 1
        fullest = count_slices(mask).fullest(PLANE) if index is None else index
        index = planes.checked_index(ct, last // 2 if fullest is None else fullest, PLANE)
        self.slice = whole("slice", index, 0, last)
        self.step = choice("step", tuple(STEPS), "rotation")
        self.strength = part("strength", 0.5)
        self.seed = whole("seed", 0, 0, 20)
        self.window = WindowControls("soft tissue", self._draw)
        self.before, self.after, self.text = Picture(360), Picture(360), widgets.HTML()
        Held(self._draw).watch(self.slice, self.step, self.strength, self.seed)
        controls = row(column(self.slice, self.step, self.strength, self.seed), self.window)
        super().__init__([row(self.before, self.after), self.text, controls])
        self._draw()

    def pictures(self) -> tuple[Picture, Picture]:
        """Return the pictures before and after."""
        return self.before, self.after

    def _draw(self) -> None:
        scene, index, step = self.scene, self.slice.value, self.step.value
        style = Style("outline", outline_px=2)
        window, pixel_mm = self.window.window, render.pixel_size_mm(scene.ct, PLANE)
        alt = scene.alt_text(index, PLANE, style)
        self.before.show(scene.draw(index, PLANE, window, style), f"Before: {alt}", PLANE, pixel_mm)
        image = planes.cut_slice(scene.ct, index, PLANE)
        labels = planes.cut_slice(scene.mask, index, PLANE)
        strength = self.strength.value
        image, labels = augment_slice(image, labels, step, strength, self.seed.value)
        ct, mask = (_as_volume(one, scene.ct) for one in (image, labels))
        if scene.binary:
            mask = mask.with_array(mask.array > 0)
        rgb = render.render_slice(ct, 0, PLANE, window, mask, style=style)
        name = f"{step} of strength {strength:.2f}"
        self.after.show(rgb, f"After {name}: {alt}", PLANE, pixel_mm)
        moves = "moves image and mask alike" if step in MOVES_MASK else "leaves the mask alone"
        self.text.value = text_html(f"Left before, right after {name}, which {moves}.")


def _as_volume(image_hw: np.ndarray, ct: Volume) -> Volume:
    """Return a picture as a volume of one axial slice."""
    return Volume(np.ascontiguousarray(image_hw[::-1, ::-1].T)[:, :, None], ct.affine)
