"""Cases: one patient's CT with its label map.

Sources differ in what they label: one counts only S1 to the spine, another the whole sacrum. So a
case says in words what its mask covers, and its data have an *ignore* region: voxels that may or
may not be spine, and leave both the loss and the scores.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.annotations.schemes import SCHEMES, get_scheme, to_canonical
from spine_lib.annotations.structures import better_scheme, measure, misfit
from spine_lib.ct.files import atomic_file, file_identity, list_folder
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume, load_ct, load_mask
from spine_lib.datasets.ignore import IgnoreRule


@dataclass(frozen=True, eq=False)
class CaseData:
    """One patient's volumes, all on one grid, [x, y, z] in RAS+."""

    ct: Volume  # int16 HU
    labels: Volume  # uint8 canonical vertebra ids, 0 is background
    ignore: Volume  # bool; True where neither loss nor score counts
    tissues: Volume | None = None  # of a phantom that was asked for them: uint8 ids of `TISSUES`


@dataclass(frozen=True)
class Case:
    """One patient's files; nothing is read before `load()`."""

    case_id: str  # unique within its source, for instance "chest"
    patient_id: str  # cases with the same patient never lie on both sides of a split
    source: str  # where it comes from, for instance "sample"
    ct_path: Path | None  # NIfTI file or folder of a DICOM series
    mask_path: Path | None  # NIfTI label map
    scheme: str  # label scheme of the mask, a key of `annotations.SCHEMES`
    covers: str  # which bone the mask labels and which not
    licence: str  # of the data, not of the package that carries them
    split: str = ""  # "train", "validation", "test" or ""
    note: str = ""  # what a report should repeat beside a figure
    ignore_rules: tuple[IgnoreRule, ...] = ()  # what leaves loss and scores

    def load(self) -> CaseData:
        """Load image and mask and compute the ignore region.

        Raises a `SpineError` if a file is missing, broken or without content, the two grids differ,
        the mask has ids that its scheme does not know, or it cannot be meant in that scheme.
        """
        ct, structures = self.load_image(), self.load_structures()
        require_same_grid(ct, structures)
        if (level := ct.array.min()) == ct.array.max():
            raise SpineError(f"{self.ct_path} is {level} HU everywhere: fetch the scan again.")
        try:
            labels = to_canonical(structures.array, self.scheme)
        except SpineError as error:
            raise SpineError(f"{self.mask_path}: {error}") from error
        scheme, measured = get_scheme(self.scheme), measure(structures, ct.array)
        better = better_scheme(measured, scheme)
        reason = better[1] if better else misfit(measured, scheme, plain=True)
        if measured and reason:
            advice = f"it looks like {better[0].name!r}" if better else "check the annotation"
            raise SpineError(
                f"{self.mask_path} does not fit the scheme {self.scheme!r}, {reason}: {advice}."
            )
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

        Raises a `SpineError` if a mask is missing, lies on another grid, or is not binary.
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
    """A case whose image and mask are folders of PNG slices, the lowest number lowest."""

    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of columns, rows and slices
    window_hu: tuple[float, float] = (-1024.0, 1024.0)  # of grey 0 and the brightest grey value

    def load_image(self) -> Volume:
        """Load the slices, their grey values as HU."""
        grey = _load_slices([image for image, _ in self.slices()])
        low, high = self.window_hu
        hu = low + grey.astype(np.float32) * ((high - low) / np.iinfo(grey.dtype).max)
        return Volume(np.rint(hu).astype(np.int16), np.diag([*self.spacing_mm, 1.0]))

    def load_structures(self) -> Volume:
        """Load the slices of the mask; grey values are ids."""
        slices = _load_slices([mask for _, mask in self.slices()])
        return Volume(slices, np.diag([*self.spacing_mm, 1.0]))

    def slices(self) -> list[tuple[Path, Path]]:
        """Return the files of image and mask of each slice, paired by name, else by number.

        Raises a `SpineError` if a slice has no partner, or the numbers skip one.
        """
        images, masks = files = [png_files(folder) for folder in (self.ct_path, self.mask_path)]
        numbers = [slice_numbers(paths) for paths in files]
        keys = [[path.stem for path in paths] for paths in files]
        if set(keys[0]) != set(keys[1]) and all(numbers):
            keys = numbers
        by_key = [dict(zip(own, paths)) for own, paths in zip(keys, files)]
        lonely = set(by_key[0]).symmetric_difference(by_key[1])
        if lonely:
            path = min((by_key[0] | by_key[1])[key] for key in lonely)
            raise SpineError(f"{path} has no partner in the other folder: add it or remove this.")
        steps = set(np.diff(sorted(numbers[0])).tolist())
        if len(steps) > 1:
            raise SpineError(
                f"{self.ct_path} skips slices, its numbers go up by {sorted(steps)[:3]}: add them."
            )
        order = np.argsort(numbers[0] or range(len(images)))
        return [(images[i], by_key[1][keys[0][i]]) for i in order]


def png_files(folder: Path) -> list[Path]:
    """Return the PNG files of a folder in natural order."""
    return [path for path in list_folder(folder) if path.suffix.lower() == ".png"]


def slice_numbers(paths: Sequence[Path]) -> list[int]:
    """Return the one number that varies in the names of slices, [] if there is no such number."""
    rows = [[int(number) for number in re.findall(r"\d+", path.stem)] for path in paths]
    if len({len(row) for row in rows}) != 1:
        return []
    columns = [column for column in zip(*rows) if len(set(column)) > 1]
    return list(columns[0]) if len(columns) == 1 and len(set(columns[0])) == len(paths) else []


def _load_slices(paths: Sequence[Path]) -> np.ndarray:
    """Load slices as [x, y, z] in RAS+: columns run from right to left, rows to the back."""
    slices = []
    for path in paths:
        pixels = _read_png(path)
        if slices and (pixels.shape, pixels.dtype) != (slices[0].shape, slices[0].dtype):
            raise SpineError(
                f"{path} has {pixels.shape} pixels of {pixels.dtype}, the slice before "
                f"{slices[0].shape} of {slices[0].dtype}: all slices of a case are alike."
            )
        slices.append(pixels)
    return np.ascontiguousarray(np.stack(slices)[:, ::-1, ::-1].transpose(2, 1, 0))


def _read_png(path: Path) -> np.ndarray:
    """Return the grey values of a PNG, uint8 or uint16 [row, column]."""
    from PIL import Image  # only PNG folders need it

    try:
        with path.open("rb") as stream:
            head = stream.read(26)
        if not head.startswith(b"\x89PNG"):
            raise ValueError("another kind of file")
        bits, colour = head[24:]
        if bits < 8 or colour:  # Pillow would stretch grey values of fewer bits
            raise ValueError(f"{bits} bits of colour type {colour}")
        Image.open(path, formats=("PNG",)).verify()  # reading skips checksums
        return np.asarray(Image.open(path, formats=("PNG",)))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpineError(
            f"{path} cannot be read as a grey PNG ({reason}): write it anew."
        ) from error


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
    import pandas as pd

    rows = [(c.case_id, c.patient_id, part) for part, cases in cases_by_part.items() for c in cases]
    table = pd.DataFrame(rows, columns=["case_id", "patient_id", "split"])
    with atomic_file(path) as stream:
        table.to_csv(stream, index=False, lineterminator="\n")
    return path
