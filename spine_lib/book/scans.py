"""The page on which anybody opens a CT and its mask and looks, without a lesson around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spine_lib import SpineError
from spine_lib.book.lessons import sliders_html
from spine_lib.course.lesson_data import course_case
from spine_lib.datasets.phantom import make_phantom
from spine_lib.explore import OrthoViewer, SliceViewer, compare_shipped
from spine_lib.explore.base import Viewer
from spine_lib.explore.render import Style

BY_VERTEBRA = Style("fill", "vertebra", opacity=0.45)


@dataclass(frozen=True)
class Scan:
    """One scan of the page.

    Attributes:
        name: of its files.
        title: its heading.
        text: what to look at.
        make: opens its viewer; may raise a `SpineError` where the real scan is not there.
    """

    name: str
    title: str
    text: str
    make: Callable[[], Viewer]


def _chest() -> Viewer:
    case, _ = course_case("chest")
    return SliceViewer(
        case.ct, case.labels, case_id="chest", plane="sagittal", style=BY_VERTEBRA, window="bone"
    )


def _abdomen() -> Viewer:
    case, _ = course_case("abdomen")
    style = Style("fill", "region", opacity=0.45)
    return OrthoViewer(case.ct, case.labels, case_id="abdomen", style=style, window="soft tissue")


def _phantom() -> Viewer:
    case = make_phantom(seed=4, shape=(100, 84, 195), spacing_mm=3.0, scoliosis_deg=0.0)
    style = Style("fill", "region", opacity=0.45)
    return SliceViewer(case.ct, case.labels, case_id="phantom", plane="sagittal", style=style)


SCANS = (
    Scan(
        "chest",
        "A chest, vertebra by vertebra",
        "Follow the column from C5 to L3. It bends to the side, so no single sagittal slice shows "
        "all of it: where does it leave the picture?",
        _chest,
    ),
    Scan(
        "abdomen",
        "An abdomen in three planes",
        "Thoracic, lumbar and sacral vertebrae in their colours. Find a kidney; then find the "
        "transverse processes of L3 in all three planes.",
        _abdomen,
    ),
    Scan(
        "models-crop",
        "Two networks and the truth, around L3",
        "What the two small networks that come with the library make of a patient whom they never "
        "saw. Move to the slice with the lowest Dice and see what was missed.",
        lambda: compare_shipped("crop", plane="sagittal"),
    ),
    Scan(
        "models-dicom",
        "Two networks and a coarse truth",
        "The same networks on a scan whose own mask is coarse: not every error is the network's.",
        lambda: compare_shipped("dicom"),
    ),
    Scan(
        "phantom",
        "A synthetic spine from neck to sacrum",
        "Nobody's body, drawn by a program from a seed: all four regions, with exact labels.",
        _phantom,
    ),
)

HEAD = """\
# Look at a scan

Scans with their masks, to move through with sliders: slices, planes, windows, overlays. Nothing has
to be installed and nothing is sent anywhere. None of this is for diagnosis. The lessons say what
there is to see, from [the first slider](/lessons/index.md) on.
"""

STAND_INS = (
    "The real patients could not be fetched when this site was made: on the pages with sliders, "
    "those of the lessons too, phantoms stand in for them."
)


def scans_page(
    write_viewer: Callable[[str, Viewer], str],
    write: Callable[[str, bytes], None],
    say: Callable[[str], object],
) -> str:
    """Return the page, having written its viewers and their still pictures.

    Args:
        write_viewer: writes the page of a viewer under a name; returns its address on the site.
        write: writes a file among the sources of the site.
        say: is told which scans are left out, and why.
    """
    parts = [HEAD]
    if course_case("crop")[1]:
        say(STAND_INS)
        parts.append(f"**{STAND_INS}**")
    for scan in SCANS:
        try:
            viewer = scan.make()
        except SpineError as error:
            say(f"'{scan.title}' is left out: {error}")
            continue
        write(f"scans/{scan.name}.png", viewer.still())
        alt, address = viewer.alt, write_viewer(scan.name, viewer)
        parts.append(
            f"## {scan.title}\n\n{scan.text}\n\n![{alt}](/scans/{scan.name}.png)\n\n"
            + sliders_html(address, alt)
        )
    return "\n\n".join(parts) + "\n"
