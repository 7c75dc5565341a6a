"""Public data sets: what they are, whom to cite, and how their folders become cases.

`public_sets.yaml` is the table; the functions here walk it.
"""

import csv
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import nibabel as nib
import pydantic

from spine_lib import SpineError
from spine_lib.annotations.schemes import SCHEMES
from spine_lib.ct.files import (
    is_content,
    list_folder,
    listed,
    os_reason,
    read_json,
    read_text,
    read_yaml,
)
from spine_lib.ct.geometry import require_choice
from spine_lib.ct.hounsfield import HU_RANGE
from spine_lib.ct.nifti import itk_affine
from spine_lib.datasets import ignore
from spine_lib.datasets.case import (
    Case,
    ExcludedScan,
    PngCase,
    StructuresCase,
    mask_names,
    png_files,
    require_cases,
)
from spine_lib.datasets.settings import Settings

SPLIT_SEED = 2025
SPLIT_ENDS = {"train": 0.7, "validation": 0.7 + 0.1}
"""Upper ends of the parts of a set that has no official split; the rest is for testing."""

PARTS = {"train": "train", "val": "validation", "test": "test", "trainset": "train"}
PARTS |= {"test_public": "validation", "test_private": "test"}
"""What the authors' split files call the parts."""

SACRUM_BELOW_S1 = 25
"""Id of the sacrum without S1 in TotalSegmentator's label maps."""

# A file's wildcards with their values: (("subset", "liver"), ("name", "liver_0")).
Key = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cohort:
    """The cases in the folder of a data set, and what a report says about them."""

    cases: list[Case]
    excluded: list[ExcludedScan]
    split_note: str
    faults: list[str] = field(default_factory=list)  # of the masks, with who reported them


class PublicSet(SimpleNamespace):
    """A data set: a row of `public_sets.yaml`, whose head explains the attributes, with its rules.

    `read(public_set, root)` returns the `Cohort` of a folder, and `split(root, images)` the part
    of each scan by name, of the images by name; a scan without a part is left out.
    """

    images = masks = note = ""

    def case(self, key: Key, image: Path, mask: Path, split: str) -> Case:
        """Return the case of an image and its mask."""
        wildcards = dict(key)
        shared = ("scheme", "covers", "licence", "note", "ignore_rules")
        return Case(
            case_id=wildcards["name"],
            patient_id=self.patient.format(**wildcards),
            source=self.name,
            ct_path=image,
            mask_path=mask,
            split=split,
            **{name: getattr(self, name) for name in shared},
        )


def find_cases(name: str, root: str | Path) -> Cohort:
    """List the cases of a public data set, a key of `PUBLIC_SETS`, in the folder of its files.

    Raises a `SpineError` if the name is unknown, the folder is another set, or no case is complete.
    """
    require_choice("data set", name, tuple(PUBLIC_SETS))
    public_set, root = PUBLIC_SETS[name], Path(os.path.expanduser(root))
    try:
        _require_layout(public_set, root)
        cohort = public_set.read(public_set, root)
    except OSError as error:
        raise SpineError(f"{error.filename or root} cannot be read, {os_reason(error)}") from error
    excluded = sorted(cohort.excluded, key=lambda scan: scan.case_id)
    if not cohort.cases and excluded:
        raise SpineError(
            f"No case in {root} is complete, {len(excluded)} left out, the first is "
            f"{excluded[0].case_id} ({excluded[0].reason}): fetch what is missing."
        )
    require_cases(cohort.cases, str(root))
    faults = known_faults(name, [case.case_id for case in cohort.cases])
    return dataclasses.replace(cohort, excluded=excluded, faults=faults)


def _require_layout(public_set: PublicSet, root: Path) -> None:
    if not root.is_dir():
        what = "a file" if root.is_file() else "not there"
        raise SpineError(f"{root} is {what}: give the folder that the data set was unpacked into.")
    if any(next(root.glob(path), None) is None for path in public_set.required):
        names = [path.name + ("/" if path.is_dir() else "") for path in list_folder(root)]
        raise SpineError(
            f"{root} does not look like {public_set.name}: expected {public_set.layout}, found "
            f"{listed(names, most=5) or 'nothing'}; give another root."
        )


def known_faults(name: str, case_ids: Iterable[str] | None = None) -> list[str]:
    """Return what is publicly known to be wrong with a data set's masks, a sentence for each fault.

    With `case_ids`, only faults of these cases, and of the whole set.
    """
    with Path(__file__).with_name("known_faults.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if name in row["datasets"].split()]
    wanted = None if case_ids is None else {"", *case_ids}
    return [
        f"{row['subject'] or 'the whole set'}: {row['fault']} ({row['source']})"
        for row in rows
        if wanted is None or row["subject"] in wanted
    ]


def catalogue_text() -> str:
    """Return the list that `spine datasets` prints."""
    return "\n".join(
        f"{public_set.name}: {public_set.scans} scans; {public_set.labels}\n"
        f"  licence  {public_set.licence}\n"
        f"  get it   {public_set.where}\n"
        f"  cite     {public_set.cite}\n"
        f"  layout   {public_set.layout}"
        + "".join(f"\n  fault    {fault}" for fault in known_faults(public_set.name))
        for public_set in PUBLIC_SETS.values()
    )


def _read_pairs(public_set: PublicSet, root: Path, png: bool = False) -> Cohort:
    """List pairs of NIfTI files, or of folders of PNG slices, by the patterns of a set."""
    list_files = _png_folders if png else _nifti_files
    images, masks = (list_files(root, p) for p in (public_set.images, public_set.masks))
    splits = public_set.split(root, {dict(key)["name"]: paths[0] for key, paths in images.items()})
    cases, excluded = [], []
    for key in sorted(images.keys() | masks.keys()):
        name, files = dict(key)["name"], [images.get(key, []), masks.get(key, [])]
        doubled = next((paths for paths in files if len(paths) > 1), None)
        if doubled:
            reason = f"it has {doubled[0]} and {doubled[1].name}: remove one of the two"
        elif not all(files):
            reason = "a scan without a mask" if files[0] else "a mask without a scan"
        elif name not in splits:
            reason = f"not in the split ({public_set.split_note})"
        else:
            cases.append(public_set.case(key, files[0][0], files[1][0], splits[name]))
            continue
        excluded.append(ExcludedScan(name, reason))
    return Cohort(cases, excluded, public_set.split_note)


def _nifti_files(root: Path, pattern: str) -> dict[Key, list[Path]]:
    """Return the NIfTI files that fit a pattern: one for each key, unless some are doubled."""
    glob = re.sub(r"\{\w+\}", "*", pattern) + ".*"
    regex = re.escape(pattern).replace(r"\*\*/", "(?P<folder>(?:[^/]+/)*)")
    regex = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+?)", regex) + r"\.(?i:nii(?:\.gz)?)"
    files: dict[Key, list[Path]] = {}
    for path in sorted(root.glob(glob)):
        match = re.fullmatch(regex, path.relative_to(root).as_posix())
        if match and is_content(path):
            files.setdefault(tuple(match.groupdict().items()), []).append(path)
    return files


def split_of(name: str) -> str:
    """Return "train", "validation" or "test" for a scan's name, whichever others there are."""
    digest = hashlib.sha256(f"{SPLIT_SEED}/{name}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    return next((part for part, end in SPLIT_ENDS.items() if draw < end), "test")


def _split_by_name(root: Path, images: Mapping[str, Path]) -> dict[str, str]:
    return {name: split_of(name) for name in images}


def _split_by_folder(root: Path, images: Mapping[str, Path]) -> dict[str, str]:
    """Read each scan's part from the nearest folder, from that of `rawdata` up, that names one."""
    splits = {}
    for name, path in images.items():
        for folder in reversed(path.parents[2:]):
            if match := re.search("train|validation|test", folder.name):
                splits[name] = match[0]
    return splits


def _split_by_list(root: Path, images: Mapping[str, Path]) -> dict[str, str]:
    """Read `data_split.txt`: names below headings, with the endings of files."""
    path, heading, rows = root / "data_split.txt", None, []
    for number, line in enumerate(map(str.strip, read_text(path).splitlines()), start=1):
        if line.removesuffix(":") in PARTS:
            heading = line.removesuffix(":")
        elif line:
            name = Path(line).name.removesuffix(".gz").removesuffix(".nii").removesuffix("_seg")
            rows.append((number, name, heading))
    return _parts(path, rows)


def _split_by_meta(root: Path, images: Mapping[str, Path]) -> dict[str, str]:
    """Read the official split of each subject from `meta.csv`."""
    path = root / "meta.csv"
    try:
        lines = list(csv.DictReader(read_text(path).splitlines(), delimiter=";"))
    except csv.Error as error:
        raise SpineError(f"{path} is not CSV ({error}): fetch it again.") from error
    if not lines or not {"image_id", "split"} <= set(lines[0]):
        raise SpineError(
            f"{path} has no columns image_id and split, parted by semicolons: this is not the "
            "meta.csv of version 2."
        )
    return _parts(path, [(n, row["image_id"], row["split"]) for n, row in enumerate(lines, 2)])


def _parts(path: Path, rows: Iterable[tuple[int, str, str | None]]) -> dict[str, str]:
    """Return the part of each name, from numbers of lines, names and a file's words for parts."""
    splits: dict[str, str] = {}
    for number, name, word in rows:
        if word not in PARTS:
            problem = f"the part of {name!r} is {word!r}; expected one of {', '.join(PARTS)}"
        elif not re.fullmatch(r"\w[\w.-]*", name or ""):  # a path could lead out of the folder
            problem = f"the name of a scan is {name!r}; expected one such as s0000"
        elif splits.setdefault(name, PARTS[word]) != PARTS[word]:
            problem = f"{name} is in two parts: keep one line"
        else:
            continue
        raise SpineError(f"{path}, line {number}: {problem}.")
    return splits


def _read_subjects(public_set: PublicSet, root: Path, unusable: Mapping[str, str] = {}) -> Cohort:
    """List the subjects of a folder, without those that a reason is given for."""
    splits = public_set.split(root, {})
    names = {*splits, *(folder.name for folder in root.glob("s[0-9]*"))} - unusable.keys()
    cases, excluded = [], [ExcludedScan(*item) for item in unusable.items()]
    for name in sorted(names):
        files = [f"{name}/ct.nii.gz"]
        files += [f"{name}/segmentations/{mask}.nii.gz" for mask in mask_names().values()]
        missing = [file for file in files if not (root / file).is_file()]
        if name not in splits:
            excluded.append(ExcludedScan(name, "not in meta.csv, so it has no place in the split"))
        elif missing:
            why = "half a download?"
            if [Path(file).name for file in missing] == ["vertebrae_S1.nii.gz"]:
                why = f"this looks like version 1 of the data: take version 2, {public_set.where}"
            excluded.append(ExcludedScan(name, f"{missing[0]} is missing: {why}"))
        else:
            masks = root / name / "segmentations"
            case = public_set.case((("name", name),), root / files[0], masks, splits[name])
            cases.append(StructuresCase(**vars(case)))
    return Cohort(cases, excluded, public_set.split_note)


def _read_rebuilt(public_set: PublicSet, root: Path) -> Cohort:
    """List the subjects that the public 1089 scans very probably are: those that ITK reads.

    3D Slicer, which uses ITK, could not open 136 subjects.
    Source: https://github.com/wasserth/TotalSegmentator/issues/461
    """
    known = set(read_json(Path(__file__).with_name("itk_refuses.json"))["subjects"])
    scans = {name: root / name / "ct.nii.gz" for name in public_set.split(root, {})}
    present = {name: path for name, path in scans.items() if path.is_file()}
    refused, broken = {}, {}
    for name, path in present.items():
        try:
            if itk_affine(nib.load(path).header) is None:
                refused[name] = "its affine is one that ITK refuses"
        except Exception as error:  # nibabel raises many kinds for a broken file
            broken[name] = f"{path} cannot be read ({error}): fetch it again."
    readable, missing = len(present) - len(broken), len(scans) - len(present)
    note = (
        f"{public_set.split_note}; {readable} subjects less {len(refused)} whose affine ITK "
        f"refuses leave {readable - len(refused)}; {len(known & refused.keys())} of the refused "
        f"are among the {len(known)} that others listed"
    )
    note += f"; {len(broken)} cannot be read" if broken else ""
    note += f"; {missing} are not there" if missing else ""
    cohort = _read_subjects(public_set, root, refused | broken)
    return dataclasses.replace(cohort, split_note=note)


Millimetres = Annotated[float, pydantic.Field(ge=0.01, le=100)]
Hounsfield = Annotated[float, pydantic.Field(ge=HU_RANGE[0], le=HU_RANGE[1])]


class Statement(Settings):
    """What `dataset.yaml` states, because no other file of the folder does; see `PngCase`.

    A case without a patient is a patient of its own, one without a split has it by its name.
    """

    scheme: Literal[*SCHEMES]
    covers: str = "not stated"
    licence: str = "not stated"
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres] = None
    window_hu: tuple[Hounsfield, Hounsfield] = None
    patients: dict[str, str] = {}
    splits: dict[str, Literal["train", "validation", "test"]] = {}

    @pydantic.field_validator("window_hu")
    @classmethod
    def _rising(cls, window: tuple[float, float]) -> tuple[float, float]:
        if window[0] >= window[1]:
            raise ValueError("the first HU must be below the second")
        return window


def read_statement(root: Path) -> Statement:
    """Read `dataset.yaml`; raise a `SpineError` if it states something unknown or too little."""
    path = root / "dataset.yaml"
    if not path.exists():
        raise SpineError(f"{path} is missing: write at least a line 'scheme: verse' (or another).")
    values = read_yaml(path, text=True, most_bytes=1 << 21)
    try:
        return Statement(**{n: v for n, v in values.items() if v not in ("", "~", "null")})
    except SpineError as error:
        raise SpineError(f"{path}: {str(error).partition(': ')[2]}.") from error


def _read_folder(public_set: PublicSet, root: Path) -> Cohort:
    statement = read_statement(root)
    stated = statement.model_dump(include={"scheme", "covers", "licence"})
    if splits := statement.splits:
        stated["split"] = lambda _, images: splits
        stated["split_note"] = "as stated in dataset.yaml"
    public_set = PublicSet(**{**vars(public_set), **stated})
    volumes = _read_pairs(public_set, root)
    slices = _read_pairs(public_set, root, png=True)
    geometry = {name: getattr(statement, name) for name in ("spacing_mm", "window_hu")}
    lacking = [name for name, value in geometry.items() if value is None]
    if slices.cases and lacking:
        raise SpineError(
            f"{root / 'dataset.yaml'} states no {lacking[0]}: PNG slices carry none, so add it, "
            "for example 'spacing_mm: [0.8, 0.8, 2.0]' or 'window_hu: [-1024, 1024]'."
        )
    cases = volumes.cases + [PngCase(**vars(case), **geometry) for case in slices.cases]
    excluded = volumes.excluded + slices.excluded
    names = {scan.case_id for scan in (*cases, *excluded)}
    missing = {*splits, *statement.patients} - names
    odd = dict.fromkeys(missing, "dataset.yaml names it, but it is not there")
    for path in [*list_folder(root / "images"), *list_folder(root / "masks")]:
        slices_inside = path.is_dir() and png_files(path)
        if not slices_inside and not re.search(r"\.nii(\.gz)?$", path.name.lower()):
            odd[path.name] = f"{path} is neither a NIfTI file nor a folder of PNG slices"
    excluded += [ExcludedScan(*item) for item in odd.items()]
    patients = {case.case_id: statement.patients.get(case.case_id, case.case_id) for case in cases}
    cases = [dataclasses.replace(c, patient_id=f"folder-{patients[c.case_id]}") for c in cases]
    return Cohort(cases, excluded, public_set.split_note)


def _png_folders(root: Path, pattern: str) -> dict[Key, list[Path]]:
    folders = [path for path in list_folder((root / pattern).parent) if path.is_dir()]
    return {(("name", path.name),): [path] for path in folders if png_files(path)}


# How the cases of a set are listed and split, and what is ignored in them.
_RULES = {
    "pycad1089": (_read_pairs, _split_by_name, (ignore.SacrumBelowS1(),)),
    "totalsegmentator": (_read_subjects, _split_by_meta, ()),
    "rebuilt1089": (_read_rebuilt, _split_by_meta, (ignore.OtherStructures((SACRUM_BELOW_S1,)),)),
    "verse": (_read_pairs, _split_by_folder, (ignore.BeyondLabelledVertebrae(),)),
    "ctspine1k": (_read_pairs, _split_by_list, (ignore.BeyondLabelledVertebrae(),)),
    "folder": (_read_folder, _split_by_name, ()),
}
PUBLIC_SETS: dict[str, PublicSet] = {
    name: PublicSet(
        name=name, **row, **dict(zip(("read", "split", "ignore_rules"), _RULES[name], strict=True))
    )
    for name, row in read_yaml(Path(__file__).with_name("public_sets.yaml")).items()
}
