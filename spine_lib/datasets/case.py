"""Cases: one patient's CT with its label map.

Sources differ in what they label: one counts only S1 to the spine, another the whole sacrum. So a
case says in words what its mask covers, and its data have an *ignore* region: voxels that may or
may not be spine, and leave both the loss and the scores.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import SCHEMES, to_canonical
from spine_lib.ct.files import atomic_file, file_identity
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume, load_ct, load_mask
from spine_lib.datasets.ignore import IgnoreRule


@dataclass(frozen=True, eq=False)
class CaseData:
    """One patient's arrays, all on one grid.

    Attributes:
        ct: int16 HU, [x, y, z] in RAS+.
        labels: uint8 canonical vertebra ids (0 is background), same grid.
        ignore: bool, same grid; True where neither loss nor score counts.
    """

    ct: Volume
    labels: Volume
    ignore: Volume


@dataclass(frozen=True)
class Case:
    """One patient's files; nothing is read before `load()`.

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
    ct_path: Path | None
    mask_path: Path | None
    scheme: str
    covers: str
    licence: str
    split: str = ""
    note: str = ""
    ignore_rules: tuple[IgnoreRule, ...] = ()

    def load(self) -> CaseData:
        """Load image and mask and compute the ignore region.

        Raises:
            SpineError: if a file is missing or broken, the two grids differ, or the mask has ids
                that its scheme does not know.
        """
        ct, structures = self.load_image(), self.load_structures()
        require_same_grid(ct, structures)
        try:
            labels = to_canonical(structures.array, self.scheme)
        except SpineError as error:
            raise SpineError(f"{self.mask_path}: {error}") from error
        ignore = np.zeros(labels.shape, dtype=bool)
        for rule in self.ignore_rules:
            ignore |= rule(ct, structures.array, labels)
        return CaseData(ct, structures.with_array(labels), ct.with_array(ignore))

    def load_image(self) -> Volume:
        """Load the scan: int16 HU [x, y, z] in RAS+."""
        return load_ct(self.ct_path)

    def load_structures(self) -> Volume:
        """Load the label map [x, y, z] with the ids of its file, other organs included."""
        return load_mask(self.mask_path)

    def load_organs(self) -> Volume | None:
        """Load the label map if it is one file that names other organs too, else return None."""
        organs = self.scheme == "totalsegmentator" and self.mask_path.is_file()
        return self.load_structures() if organs else None


def mask_names() -> dict[int, str]:
    """Return the mask file of each structure of the spine, by its id in a multilabel map."""
    names = SCHEMES["totalsegmentator"].names
    ids = sorted(SCHEMES["totalsegmentator"].canonical)
    return {i: "sacrum" if names[i] == "sacrum" else f"vertebrae_{names[i]}" for i in ids}


@dataclass(frozen=True)
class StructuresCase(Case):
    """A subject whose label map is a folder of binary masks, one a structure."""

    def load_structures(self) -> Volume:
        """Load the binary masks as one uint8 label map; of two that overlap, the higher id counts.

        Raises:
            SpineError: if a mask is missing, lies on another grid, or is not binary.
        """
        label_map = None
        for number, name in mask_names().items():
            path = self.mask_path / f"{name}.nii.gz"
            mask = load_mask(path)
            if label_map is None:
                label_map = mask.with_array(np.zeros(mask.shape, np.uint8))
            require_same_grid(label_map, mask, f"{self.case_id}: the masks of two structures")
            if (top := mask.array.max(initial=0)) > 1:
                raise SpineError(
                    f"{path}: a mask of one structure holds 0 and 1, this one {top}: is it a "
                    "multilabel map?"
                )
            label_map.array[mask.array > 0] = number
        return label_map


@dataclass(frozen=True)
class PngCase(Case):
    """A case whose image and mask are folders of PNG slices, first slice lowest.

    Attributes:
        spacing_mm: distance of columns, rows and slices.
        window_hu: HU of grey 0 and of the brightest grey value.
    """

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    window_hu: tuple[float, float] = (-1024.0, 1024.0)

    def load_image(self) -> Volume:
        """Load the slices, their grey values as HU."""
        grey = _load_slices(self.ct_path)
        low, high = self.window_hu
        hu = low + grey.astype(np.float32) * ((high - low) / np.iinfo(grey.dtype).max)
        return Volume(np.rint(hu).astype(np.int16), np.diag([*self.spacing_mm, 1.0]))

    def load_structures(self) -> Volume:
        """Load the slices of the mask; grey values are ids."""
        return Volume(_load_slices(self.mask_path), np.diag([*self.spacing_mm, 1.0]))


def _load_slices(folder: Path) -> np.ndarray:
    """Load slices as [x, y, z] in RAS+: columns run from right to left, rows to the back."""
    import cv2  # only PNG folders need it

    slices = []
    for path in sorted(folder.glob("*.png")):
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            what = "cannot be read" if pixels is None else f"has {pixels.shape[2]} colours"
            raise SpineError(f"{path} {what}: a slice is a grey PNG.")
        if slices and pixels.shape != slices[0].shape:
            raise SpineError(
                f"{path} has {pixels.shape} pixels, the slice before {slices[0].shape}: all slices "
                "of a case have one size."
            )
        slices.append(pixels)
    return np.ascontiguousarray(np.stack(slices)[:, ::-1, ::-1].transpose(2, 1, 0))


@dataclass(frozen=True)
class ExcludedScan:
    """A scan that is not used, and why."""

    case_id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.case_id}: {self.reason}"


def case_identity(case: Case) -> str:
    """Return a checksum, kept with slices and scores, of a case's description, scan and mask."""
    files = [file_identity(path) for path in (case.ct_path, case.mask_path) if path is not None]
    return hashlib.sha256("\n".join([repr(case), *files]).encode()).hexdigest()[:32]


def require_cases(cases: Sequence[Case], where: str) -> None:
    """Raise a `SpineError` that says `where` if there is no case or two have the same id."""
    if not cases:
        raise SpineError(f"There is no case in {where}: name at least one case or another source.")
    ids = [case.case_id for case in cases]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise SpineError(
            f"Case ids occur twice in {where}: {', '.join(twice)}; rename one of each."
        )


def write_split(cases_by_part: Mapping[str, Iterable[Case]], path: Path) -> Path:
    """Write which case is in which part, as a CSV file with case_id, patient_id and split."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("case_id", "patient_id", "split"))
    for part, cases in cases_by_part.items():
        rows.writerows((case.case_id, case.patient_id, part) for case in cases)
    with atomic_file(path) as stream:
        stream.write(text.getvalue().encode("utf-8"))
    return path
