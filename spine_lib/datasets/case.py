"""Cases: one patient's CT with its label map, from a file or from a generator.

Sources differ in what they label: one counts only S1 to the spine, another the whole sacrum, a
third leaves out every vertebra that the image cuts.  So a case says in words what its mask covers,
and its data carry an *ignore* region: voxels of which nobody said whether they are spine.  They
leave both the loss and the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy import ndimage

from spine_lib import SpineError
from spine_lib.annotations.checks import to_canonical
from spine_lib.ct.volume import Volume, load_ct, load_mask, require_same_grid


@dataclass(frozen=True, eq=False)
class CaseData:
    """Hold what a lesson or a training run needs of one patient, all on one grid.

    Attributes:
        ct: int16 HU, [x, y, z] in RAS+.
        labels: uint8 canonical vertebra ids (0 is background), same grid.
        ignore: bool, same grid; True where neither loss nor score may look.
    """

    ct: Volume
    labels: Volume
    ignore: Volume


class IgnoreRule(Protocol):
    """Mark the voxels that a mask says nothing about; a frozen dataclass, so that it pickles."""

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return a bool array [x, y, z].

        Args:
            ct: scan in HU.
            structures: ids of the mask file, other organs included.
            labels: canonical vertebra ids.
        """
        ...


@dataclass(frozen=True)
class UnlabelledBoneAtEnds:
    """Ignore bone beside the spine that the mask leaves out where the image ends.

    The outermost slices show tips of vertebrae that lie mostly outside the image; whether a mask
    has them is chance.  Only what is bright, named by no label, near a labelled vertebra and not
    its outermost rim is ignored: an error on the rim of a labelled bone stays an error.

    Attributes:
        end: "superior" or "inferior" end of the image.
        depth_mm: thickness of the slab at that end.
        reach_mm: how far from a labelled vertebra.
        above_hu: how bright.
    """

    end: str
    depth_mm: float = 8.0
    reach_mm: float = 10.0
    above_hu: float = 250.0

    def __post_init__(self) -> None:
        if self.end not in ("superior", "inferior"):
            raise SpineError(f"The end of an image is 'superior' or 'inferior', not {self.end!r}.")

    def __call__(self, ct: Volume, structures: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the voxels to ignore, bool [x, y, z]."""
        ignore = np.zeros(labels.shape, dtype=bool)
        slices = max(1, round(self.depth_mm / ct.spacing_mm[2]))
        slab = np.s_[:, :, -slices:] if self.end == "superior" else np.s_[:, :, :slices]
        spine = labels[slab] > 0
        if spine.any():
            box = _box_around(spine, self.reach_mm, ct.spacing_mm)
            away = ndimage.distance_transform_edt(~spine[box], sampling=ct.spacing_mm)
            rim = ndimage.binary_dilation(spine[box])
            bright = ct.array[slab][box] > self.above_hu
            unnamed = structures[slab][box] == 0
            ignore[slab][box] = bright & unnamed & ~rim & (away < self.reach_mm)
        return ignore


def _box_around(
    marked: np.ndarray, margin_mm: float, spacing_mm: tuple[float, float, float]
) -> tuple[slice, ...]:
    (box,) = ndimage.find_objects(marked.astype(np.uint8))
    pad = [int(np.ceil(margin_mm / s)) for s in spacing_mm]
    return tuple(slice(max(0, b.start - p), b.stop + p) for b, p in zip(box, pad, strict=True))


@dataclass(frozen=True)
class Case:
    """Describe one patient's files; nothing is read before `load()`.

    Attributes:
        case_id: short name, unique within its source, for instance "chest".
        patient_id: cases with the same patient never lie on both sides of a split.
        source: where it comes from, for instance "sample".
        ct_path: NIfTI file or folder of a DICOM series.
        mask_path: NIfTI label map.
        scheme: label scheme of the mask, a key of `annotations.SCHEMES`.
        covers: phrase that says which bone the mask labels and which not.
        licence: licence of the data, not of the package that carries them.
        split: "train", "test" or "".
        note: anything a report should repeat beside a figure.
        ignore_rules: what to leave out of loss and scores; see `IgnoreRule`.
    """

    case_id: str
    patient_id: str
    source: str
    ct_path: Path
    mask_path: Path
    scheme: str
    covers: str
    licence: str
    split: str = ""
    note: str = ""
    ignore_rules: tuple[IgnoreRule, ...] = ()

    def load(self) -> CaseData:
        """Read image and mask and work out the ignore region.

        Returns:
            The CT in HU, canonical uint8 labels and the bool ignore region, all on the CT's grid.

        Raises:
            SpineError: if a file is missing or broken, the two grids differ, or the mask has ids
                that its scheme does not know.
        """
        ct = self.load_image()
        raw = self.load_structures()
        require_same_grid(ct, raw)
        try:
            labels = to_canonical(raw.array, self.scheme)
        except SpineError as error:
            raise SpineError(f"{self.mask_path}: {error}") from error
        ignore = np.zeros(labels.shape, dtype=bool)
        for rule in self.ignore_rules:
            ignore |= rule(ct, raw.array, labels)
        return CaseData(ct, raw.with_array(labels), ct.with_array(ignore))

    def load_image(self) -> Volume:
        """Read the scan: int16 HU [x, y, z] in RAS+."""
        return load_ct(self.ct_path)

    def load_structures(self) -> Volume:
        """Read the label map with the ids of its file, other organs included.

        Returns:
            A volume of unsigned integers [x, y, z] in RAS+.
        """
        return load_mask(self.mask_path)

    def load_organs(self) -> Volume | None:
        """Read the label map if it names other organs than the spine, else return None."""
        return self.load_structures() if self.scheme == "totalsegmentator" else None


def require_cases(cases: list, where: str) -> list:
    """Return `cases` unchanged, or refuse an empty list.

    Args:
        cases: cases of any kind.
        where: what was searched, for the message.

    Raises:
        SpineError: if there is none, or two have the same id.
    """
    if not cases:
        raise SpineError(f"There is no case in {where}: name at least one case or another source.")
    ids = [case.case_id for case in cases]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SpineError(
            f"Case ids occur twice in {where}: {', '.join(twice)}; rename one of each."
        )
    return cases
