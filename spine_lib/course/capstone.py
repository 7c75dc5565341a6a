"""The capstone: score the mask that a reader made of an unseen scan, and write a certificate."""

import base64
import contextlib
import datetime
import hashlib
import io
import itertools
from importlib import resources
from pathlib import Path

import jinja2
import nibabel as nib
import numpy as np
from nibabel.processing import resample_from_to
from scipy import ndimage

import spine_lib
from spine_lib import SpineError
from spine_lib.course import checking
from spine_lib.ct import WINDOWS, Volume, load_ct, load_mask, require_same_grid
from spine_lib.ct.files import atomic_file
from spine_lib.datasets import unseen_patient
from spine_lib.explore.render import Style, encode_png, render_slice
from spine_lib.metrics import confusion, dice

MARGIN_MM = 3.0
"""Only some vertebrae are labelled: voxels further from them than this are not scored."""

NEEDED = {"dice": 0.85, "slices": 0.8}
"""What a mask must reach: Dice near the labels, and the share of axial slices with spine."""


def certify(
    mask_path: str | Path,
    name: str = "",
    ct_path: str | Path | None = None,
    truth_path: str | Path | None = None,
    page: str | Path = "certificate.html",
) -> None:
    """Score a mask of the whole spine; print what is right and wrong; certify what is good.

    Args:
        mask_path: the mask as NIfTI, above zero where there is spine.
        name: yours, for the certificate.
        ct_path, truth_path: another scan and its label map, for example of VerSe; the course's
            unseen patient, of whom T12 is labelled, where left out.
        page: the certificate, an HTML file; written only if everything is right.

    Raises:
        SpineError: if a file other than the mask cannot be read, or the page is no HTML file.
    """
    if Path(page).suffix != ".html":
        raise SpineError(f"The certificate {page} would be no web page: give a name in .html.")
    if (ct_path is None) != (truth_path is None):
        raise SpineError("Give both ct_path and truth_path, or neither for the unseen patient.")
    if not Path(mask_path).is_file():
        print(f"Not yet: there is no {mask_path} in {Path.cwd().name}. Export your mask first.")
        return
    paths = (ct_path, truth_path) if ct_path and truth_path else unseen_patient()
    ct = load_ct(paths[0])
    try:
        mask = load_mask(mask_path)
        require_same_grid(ct, mask, "scan and your mask")
    except SpineError as error:
        print(f"✗ {error}")
        return
    findings = score_mask(ct, mask.array > 0, truth_on(ct, paths[1]))
    print("\n".join(f"{'✓' if right else '✗'} {text}" for right, text in findings))
    if all(right for right, _ in findings):
        with atomic_file(Path(page)) as stream:
            stream.write(_certificate(ct, mask, findings, name, Path(mask_path)).encode())
        print(f"Well done. Your certificate is {page}: open it in a browser.")


def truth_on(ct: Volume, path: str | Path) -> np.ndarray:
    """Return where a label map has labels, bool [x, y, z] on a scan's grid; its own may differ.

    Raises:
        SpineError: if it cannot be read, or has no label within the scan.
    """
    labels = load_mask(path)
    image = nib.Nifti1Image((labels.array > 0).astype(np.uint8), labels.affine)
    truth = np.asarray(resample_from_to(image, (ct.shape, ct.affine), order=0).dataobj) > 0
    if not truth.any():
        raise SpineError(f"{path} has no label within {ct.path}: give the scan that it belongs to.")
    return truth


def score_mask(ct: Volume, mask: np.ndarray, truth: np.ndarray) -> list[tuple[bool, str]]:
    """Return findings on a mask of the spine, each with whether it is right.

    Args:
        ct: the scan.
        mask: bool [x, y, z] on its grid.
        truth: bool, the same shape, the vertebrae that are labelled; others may be missing.
    """
    if not mask.any():
        return [(False, "The mask is empty: no voxel is above zero.")]
    near = ndimage.distance_transform_edt(~truth, sampling=ct.spacing_mm) <= MARGIN_MM

    def score(turned: np.ndarray) -> float:
        return dice(confusion(turned & near, truth))

    value = score(mask)
    right = value >= NEEDED["dice"]
    text = f"Dice within {MARGIN_MM:g} mm of what is labelled: {value:.3f}"
    if not right:
        turns = [axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n)]
        best, axes = max((score(np.flip(mask, axes)), axes) for axes in turns)
        text += f"; {NEEDED['dice']} is needed"
        if best > max(0.5, 2 * value):
            text += (
                f". Reversed along {' and '.join('xyz'[axis] for axis in axes)} it would be "
                f"{best:.3f}: was the array turned back to the order of the scan's file"
            )
        elif mask[near].sum() > 1.3 * truth.sum():
            text += ". Too much is marked around the labelled bone"
        else:
            text += f". Of the labelled bone {mask[truth].mean():.0%} is marked"
    findings = [(right, f"{text}.")]
    share = mask.any(axis=(0, 1)).mean()
    text = f"{share:.0%} of the axial slices have spine"
    right = share >= NEEDED["slices"]
    needed = "" if right else f"; the spine runs through at least {NEEDED['slices']:.0%} of them"
    return [(True, "The mask lies on its scan: same grid, same position."), *findings,
            (right, f"{text}{needed}.")]  # fmt: skip


def _certificate(ct: Volume, mask: Volume, findings: list, name: str, path: Path) -> str:
    centre = int(np.argwhere(mask.array)[:, 0].mean())
    style = Style("outline", outline_px=2, pixel_mm=min(0.75, *ct.spacing_mm))
    spine = mask.with_array(mask.array > 0)
    pixels = render_slice(ct, centre, "sagittal", WINDOWS["bone"], spine, style=style)
    with contextlib.redirect_stdout(io.StringIO()) as exercises:
        checking.progress()
    *lines, total = exercises.getvalue().splitlines()
    solved = "\n".join([*(line for line in lines if "  done" in line), total])
    template = resources.files("spine_lib.course").joinpath("certificate.html").read_text("utf-8")
    return jinja2.Environment(autoescape=True).from_string(template).render(
        name=name.strip() or "A reader",
        date=datetime.date.today().isoformat(),
        findings=[text for _, text in findings],
        picture=base64.b64encode(encode_png(pixels)).decode(),
        exercises=solved,
        mask=path.name,
        checksum=hashlib.sha256(path.read_bytes()).hexdigest(),
        version=spine_lib.__version__,
    )  # fmt: skip
