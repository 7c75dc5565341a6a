"""Read any pairs of images and masks: NIfTI files, or folders of PNG slices.

`images/NAME.nii.gz` with `masks/NAME.nii.gz`, or `images/NAME/000.png` with `masks/NAME/000.png`,
and `dataset.yaml`, which states what no file says: the label scheme of the masks, what they cover,
the licence; for PNG also the spacing and the window that the grey values stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from spine_lib import SpineError
from spine_lib.annotations.schemes import get_scheme
from spine_lib.ct.volume import Volume
from spine_lib.datasets.case import Case
from spine_lib.datasets.found import (
    Found,
    LeftOut,
    nifti_files,
    not_this,
    pair_up,
    require_folder,
    require_found,
)
from spine_lib.datasets.pycad1089 import split_of

LAYOUT = "dataset.yaml, images/NAME.nii.gz and masks/NAME.nii.gz (or folders of .png slices)"


@dataclass(frozen=True)
class Stated:
    """Hold what `dataset.yaml` states.

    Attributes:
        scheme: label scheme of the masks.
        covers: what the masks label, in words.
        licence: of the data.
        spacing_mm: distance of columns, rows and slices of PNG folders.
        window_hu: HU of the darkest and of the brightest grey value of PNG slices.
        patients: patient of each case; a case that is not named is a patient of its own.
        splits: "train", "validation" or "test" of each case; default by the case's name.
    """

    scheme: str
    covers: str = "not stated"
    licence: str = "not stated"
    spacing_mm: tuple[float, float, float] | None = None
    window_hu: tuple[float, float] | None = None
    patients: dict[str, str] | None = None
    splits: dict[str, str] | None = None


def read_folder(root: str | Path) -> Found:
    """Find the pairs of images and masks of a folder.

    Args:
        root: folder with `dataset.yaml`, `images` and `masks`.

    Raises:
        SpineError: if the folder is another, the YAML lacks a statement, or no pair is complete.
    """
    root = require_folder(root)
    if not ((root / "images").is_dir() and (root / "masks").is_dir()):
        raise not_this(root, "folder", LAYOUT)
    stated = read_statement(root)
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for kind, list_of in ((Case, nifti_files), (PngCase, _png_folders)):
        images, masks = list_of(root / "images"), list_of(root / "masks")
        names, alone = pair_up(images, masks)
        left_out += alone
        if names and kind is PngCase:
            _require_png(stated, root)
        cases += [_case(kind, name, images[name], masks[name], stated) for name in names]
    note = "as stated in dataset.yaml" if stated.splits else "by a number made from the case's name"
    return require_found(cases, left_out, note, root)


def _png_folders(folder: Path) -> dict[str, Path]:
    return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and any(p.glob("*.png"))}


def read_statement(root: Path) -> Stated:
    """Read `dataset.yaml`.

    Raises:
        SpineError: if it is missing, is not YAML, or states something unknown or too little.
    """
    path = root / "dataset.yaml"
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpineError(
            f"{path} is missing: write at least a line 'scheme: verse' (or another scheme)."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpineError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "scheme" not in values:
        raise SpineError(f"{path} states no scheme: add a line 'scheme: verse' (or another).")
    fields = set(Stated.__dataclass_fields__)
    unknown = sorted(set(values) - fields)
    if unknown:
        raise SpineError(f"{path}: {unknown[0]!r} is unknown; known are {', '.join(fields)}.")
    get_scheme(values["scheme"])
    for name, count in (("spacing_mm", 3), ("window_hu", 2)):
        if values.get(name) is not None:
            values[name] = _numbers(path, name, values[name], count)
    return Stated(**values)


def _numbers(path: Path, name: str, value: Any, count: int) -> tuple[float, ...]:
    good = isinstance(value, list) and len(value) == count
    good = good and all(isinstance(v, int | float) for v in value)
    if not good or (name == "spacing_mm" and min(value) <= 0):
        raise SpineError(f"{path}: {name} is {value!r}; it must be {count} numbers in brackets.")
    return tuple(float(v) for v in value)


def _require_png(stated: Stated, root: Path) -> None:
    for name in ("spacing_mm", "window_hu"):
        if getattr(stated, name) is None:
            raise SpineError(
                f"{root / 'dataset.yaml'} states no {name}: PNG slices carry none, so add it, for "
                "example 'spacing_mm: [0.8, 0.8, 2.0]' or 'window_hu: [-1024, 1024]'."
            )


def _case(kind: type[Case], name: str, image: Path, mask: Path, stated: Stated) -> Case:
    more: dict[str, Any] = {}
    if kind is PngCase:
        more = {"spacing_mm": stated.spacing_mm, "window_hu": stated.window_hu}
    return kind(
        case_id=name,
        patient_id=f"folder-{(stated.patients or {}).get(name, name)}",
        source="folder",
        ct_path=image,
        mask_path=mask,
        scheme=stated.scheme,
        covers=stated.covers,
        licence=stated.licence,
        split=(stated.splits or {}).get(name, "" if stated.splits else split_of(name)),
        **more,
    )


@dataclass(frozen=True)
class PngCase(Case):
    """Describe a case whose image and mask are folders of PNG slices, first slice lowest.

    Attributes:
        spacing_mm: distance of columns, rows and slices.
        window_hu: HU of grey 0 and of the brightest grey value.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    window_hu: tuple[float, float] = (-1024.0, 1024.0)

    def load_image(self) -> Volume:
        """Stack the slices and turn grey values into HU."""
        grey = _stack(self.ct_path)
        low, high = self.window_hu
        hu = low + grey.astype(np.float32) * ((high - low) / np.iinfo(grey.dtype).max)
        return Volume(np.rint(hu).astype(np.int16), self._affine())

    def load_structures(self) -> Volume:
        """Stack the slices of the mask; grey values are ids."""
        return Volume(_stack(self.mask_path), self._affine())

    def _affine(self) -> np.ndarray:
        return np.diag([*self.spacing_mm, 1.0])


def _stack(folder: Path) -> np.ndarray:
    """Read slices as [x, y, z] in RAS+: columns run from right to left, rows to the back."""
    paths = sorted(folder.glob("*.png"))
    slices = []
    for path in paths:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            what = "cannot be read" if pixels is None else f"has {pixels.shape[2]} colours"
            raise SpineError(f"{path} {what}: a slice is a grey PNG.")
        if slices and pixels.shape != slices[0].shape:
            raise SpineError(
                f"{path} has {pixels.shape} pixels, {paths[0].name} {slices[0].shape}: all slices "
                "of a case have one size."
            )
        slices.append(pixels)
    return np.ascontiguousarray(np.stack(slices)[:, ::-1, ::-1].transpose(2, 1, 0))
