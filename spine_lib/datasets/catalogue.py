"""The data sets that the library reads: what they are, where they come from, how to cite them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spine_lib import SpineError
from spine_lib.datasets.ctspine1k import read_ctspine1k
from spine_lib.datasets.folder import read_folder
from spine_lib.datasets.found import Found
from spine_lib.datasets.pycad1089 import read_pycad1089
from spine_lib.datasets.rebuilt1089 import read_rebuilt1089
from spine_lib.datasets.totalsegmentator import read_totalsegmentator
from spine_lib.datasets.verse import read_verse


@dataclass(frozen=True)
class PublicSet:
    """Describe one data set.

    Attributes:
        name: as `--dataset` takes it.
        scans: how many, in words.
        labels: what the masks hold.
        licence: of the data.
        where: to get it.
        cite: whom to name.
        layout: what its folder looks like.
        read: find its cases in a folder.
    """

    name: str
    scans: str
    labels: str
    licence: str
    where: str
    cite: str
    layout: str
    read: Callable[[str | Path], Found]


PUBLIC_SETS: dict[str, PublicSet] = {
    entry.name: entry
    for entry in (
        PublicSet(
            "pycad1089",
            "1089",
            "C1 to L5, S1",
            "CC BY 4.0 (source data)",
            "kaggle.com/datasets/pycadmk/spine-segmentation-from-ct-scans",
            "Wasserthal et al. 2023, doi:10.1148/ryai.230024, and the Kaggle page",
            "volumes/case_0000.nii, segmentations/case_0000.nii",
            read_pycad1089,
        ),
        PublicSet(
            "totalsegmentator",
            "1228",
            "C1 to L5, S1, sacrum; one mask a structure",
            "CC BY 4.0",
            "doi.org/10.5281/zenodo.6802613 (version 2)",
            "Wasserthal et al. 2023, doi:10.1148/ryai.230024",
            "meta.csv, s0000/ct.nii.gz, s0000/segmentations/vertebrae_C1.nii.gz",
            read_totalsegmentator,
        ),
        PublicSet(
            "rebuilt1089",
            "1089 of totalsegmentator's",
            "C1 to L5, S1; the rest of the sacrum ignored",
            "CC BY 4.0",
            "doi.org/10.5281/zenodo.6802613 (version 2)",
            "Wasserthal et al. 2023, doi:10.1148/ryai.230024",
            "that of totalsegmentator; subjects whose affine ITK refuses are left out",
            read_rebuilt1089,
        ),
        PublicSet(
            "verse",
            "374 (2019 and 2020)",
            "whole vertebrae C1 to L6, T13; no sacrum",
            "CC BY-SA 4.0",
            "osf.io/nqjyw (2019), osf.io/t98fz (2020)",
            "Sekuboyina et al. 2021, doi:10.1016/j.media.2021.102166",
            "dataset-01training/rawdata/sub-verse004/, .../derivatives/sub-verse004/",
            read_verse,
        ),
        PublicSet(
            "ctspine1k",
            "1005",
            "vertebrae C1 to L6; no sacrum",
            "CC BY-NC-SA 4.0",
            "github.com/MIRACLE-Center/CTSpine1K",
            "Deng et al. 2021, arXiv:2105.14711",
            "data_split.txt, volumes/liver/liver_0.nii.gz, labels/liver/liver_0_seg.nii.gz",
            read_ctspine1k,
        ),
        PublicSet(
            "folder",
            "any",
            "stated in dataset.yaml",
            "stated in dataset.yaml",
            "your own disk",
            "whoever made them",
            "dataset.yaml, images/NAME.nii.gz, masks/NAME.nii.gz (or folders of PNG slices)",
            read_folder,
        ),
    )
}


def find_cases(name: str, root: str | Path) -> Found:
    """Find the cases of a public data set in a folder.

    Args:
        name: key of `PUBLIC_SETS`.
        root: the folder that it was unpacked into.

    Raises:
        SpineError: if the name is unknown or the folder is another data set.
    """
    if name not in PUBLIC_SETS:
        raise SpineError(
            f"The data set {name!r} is not known: use one of {', '.join(PUBLIC_SETS)}."
        )
    return PUBLIC_SETS[name].read(root)


def catalogue_text() -> str:
    """Return the list that `spine datasets` prints."""
    parts = []
    for entry in PUBLIC_SETS.values():
        parts.append(
            f"{entry.name}: {entry.scans} scans; {entry.labels}\n"
            f"  licence  {entry.licence}\n"
            f"  get it   {entry.where}\n"
            f"  cite     {entry.cite}\n"
            f"  layout   {entry.layout}"
        )
    return "\n".join(parts)
