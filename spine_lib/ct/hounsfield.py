"""From the numbers in a file to Hounsfield units (HU) or labels.

A file has numbers with a slope and an intercept: value = stored * slope + intercept. Water is 0 HU
and air -1000 HU by definition; a model would accept anything else without complaint.
"""

import math
from pathlib import Path

import numpy as np

from spine_lib import SpineError

HU_RANGE, TISSUE_RANGE, NORMALISED_RANGE = (-32768, 30710), (-1100, 3071), (-20, 50)
"""What can be HU, from padding to the end of the extended CT scale; air to dense bone, in which a
scan has at least one voxel; a mask or standard deviations, without fat and bone."""

PADDING_HU, TISSUE_FROM_HU, AIR_TO_HU = -1200, -300, -30
"""Up to the first lies padding, from the second on soft tissue, below the third air and fat."""

RARE, SAMPLE = 0.01, 100_000
"""A share that noise explains (even a crop about a vertebra has 0.2 of fat), and of how many."""

EXPORT = "export the CT with its rescale slope and intercept."


def hu_from_stored(
    stored: np.ndarray, slope: float, intercept: float, out: np.ndarray, name: str | Path
) -> tuple[float, float]:
    """Convert stored integers or floats into whole HU: stored * slope + intercept.

    `out` is an int16 array of the same shape that receives the HU, `name` the file. Returns the
    lowest and the highest value, before rounding; raises if one is NaN or cannot be HU.
    """
    low, high = sorted(float(end) * slope + intercept for end in (stored.min(), stored.max()))
    if math.isnan(low) or math.isnan(high):
        raise SpineError(f"{name} has voxels that are not a number (NaN): export the scan again.")
    if low < HU_RANGE[0] or high > HU_RANGE[1]:
        values = f"values from {low:g} to {high:g}"
        raise SpineError(f"{name} has {values}, which cannot be HU: {EXPORT}")
    if stored.dtype.kind in "iu" and slope == 1 and intercept == int(intercept):
        # HU fit into 16 bits (checked above), so adding modulo 2**16 is exact and needs no floats
        shift = np.array(int(intercept) & 0xFFFF, np.uint16).astype(np.int16)
        np.add(stored, shift, out=out, dtype=np.int16, casting="unsafe")
    else:
        out[...] = np.rint(stored * np.float64(slope) + intercept)
    return low, high


def labels_from_stored(
    stored: np.ndarray, slope: float, intercept: float, out: np.ndarray, name: str | Path
) -> tuple[float, float]:
    """Convert stored numbers into labels, whole ones from 0 to 65535, as `hu_from_stored` does."""
    if stored.dtype.kind == "f" or (slope, intercept) != (1, 0):
        values = stored * np.float64(slope) + intercept
        labels = np.rint(values)
        with np.errstate(invalid="ignore"):
            odd = ~(np.abs(values - labels) < 1e-3)  # also True for NaN and infinity
        if odd.any():
            what = f"{name} is no label map, it holds {values[odd][0]:g}"
            raise SpineError(f"{what}: give whole labels, or threshold a probability map first.")
        stored = labels
    low, high = int(stored.min()), int(stored.max())
    if low < 0 or high > 65535:
        what = f"{name} is no label map, its values go from {low} to {high}"
        raise SpineError(f"{what}: give the mask rather than the image.")
    out[...] = stored
    return low, high


def check_hu(array: np.ndarray, low: float, high: float, path: Path) -> list[str]:
    """Return what is odd about a scan [x, y, z] in HU; raise if its values cannot be tissue."""
    values = f"{path} has values from {low:g} to {high:g}"
    if low > TISSUE_RANGE[1] or high < TISSUE_RANGE[0]:
        raise SpineError(f"{values} only, in which no tissue can be: {EXPORT}")
    if low == high:
        return [f"{path} holds the value {low:g} in every voxel: it is no scan, or an empty one."]
    if NORMALISED_RANGE[0] < low and high < NORMALISED_RANGE[1]:
        raise SpineError(f"{values} only, so it is a mask or a normalised image: give it in HU.")
    step = int((array.size / SAMPLE) ** (1 / 3)) | 1
    inside = array[::step, ::step, ::step]
    inside = inside[inside > PADDING_HU]
    enough = inside.size > 1000
    if low >= 0 or (enough and (inside < AIR_TO_HU).mean() < RARE):
        what, cause = f"air and fat, below {AIR_TO_HU} HU", "lost"
    elif enough and (inside > TISSUE_FROM_HU).mean() < RARE:
        what, cause = f"soft tissue, above {TISSUE_FROM_HU} HU", "applied twice"
    else:
        return []
    what = f"hardly a voxel of {what}, so its intercept may be {cause}"
    return [f"{path} (from {low:g} to {high:g}) has {what}: if this is not meant, {EXPORT}"]


def label_likeness(values: np.ndarray) -> float:
    """Return how much whole numbers look like labels (1) rather than like a scan (0).

    It is the share of neighbours along the first axis, not both 0, that are equal: within a label
    all are, in a scan noise makes them differ.
    """
    step = int((values.size / (10 * SAMPLE)) ** 0.5) | 1
    values = values[:, ::step, ::step]
    first, second = values[:-1], values[1:]
    counted = np.count_nonzero(first | second)
    if counted == 0 or values.max() == 1:
        return 1.0
    return 1 - float(np.count_nonzero(first != second) / counted)
