"""Lesson 9: how sure is a prediction, and does that say where it is wrong?

Three maps claim to tell where not to trust a network: the entropy of its own probability, how much
its answer changes when the scan is shown in other ways (test-time augmentation), and how far two
models disagree. Such a map is useful if wrong voxels have higher values than right ones (`auroc`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats
from torch import nn

from spine_lib import SpineError
from spine_lib.ct.volume import Volume
from spine_lib.training.recipe import Recipe
from spine_lib.volumes.predict import predict_volume


@dataclass(frozen=True)
class View:
    """A transformation of a scan for test-time augmentation.

    Left and right are swapped (`mirror`), the network's pixels are smaller by `zoom`, `shift_hu` is
    added to every voxel, or the patient is turned about the body's long axis.
    """

    name: str
    mirror: bool = False
    zoom: float = 1.0
    shift_hu: float = 0.0
    turn_degrees: float = 0.0


VIEWS: tuple[View, ...] = (
    View("as it is"),
    View("mirrored", mirror=True),
    View("larger", zoom=1.15),
    View("smaller", zoom=0.87),
    View("brighter", shift_hu=40.0),
    View("darker", shift_hu=-40.0),
    View("turned left", turn_degrees=8.0),
    View("turned right", turn_degrees=-8.0),
)
"""What another patient, another pose or another tube could have looked like."""


def predict_views(
    network: nn.Module,
    ct: Volume,
    recipe: Recipe,
    views: Sequence[View] = VIEWS,
    device: str = "auto",
) -> np.ndarray:
    """Predict a scan in several views, each answer brought back to the scan as it is.

    Args as for `predict_volume`, but that the recipe's own averaging over the mirror image is left
    out. Returns float32 probabilities [view, x, y, z].
    """
    if not views:
        raise SpineError("There are no views to predict: give at least View('as it is').")
    return np.stack([_predict_view(network, ct, recipe, view, device) for view in views])


def _predict_view(
    network: nn.Module, ct: Volume, recipe: Recipe, view: View, device: str
) -> np.ndarray:
    image = ct.array
    if view.turn_degrees:
        image = _turn(image, ct, view.turn_degrees, float(image.min()))
    if view.shift_hu:
        image = image.astype(np.float32) + np.float32(view.shift_hu)
    if view.mirror:
        image = image[::-1]
    seen = recipe.changed(flip=False, spacing_mm=recipe.spacing_mm / view.zoom)
    probability = predict_volume(network, ct.with_array(image), seen, device).array
    if view.mirror:
        probability = probability[::-1]
    return _turn(probability, ct, -view.turn_degrees, 0.0) if view.turn_degrees else probability


def _turn(array: np.ndarray, ct: Volume, degrees: float, outside: float) -> np.ndarray:
    """Return a volume rotated about the z axis through its middle; float32, linear."""
    size = np.array(ct.spacing_mm)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    matrix = about_z * size / size[:, None]  # in mm, since pixels need not be square
    middle = (np.array(array.shape) - 1) / 2
    return ndimage.affine_transform(
        np.asarray(array, np.float32), matrix, middle - matrix @ middle, order=1, cval=outside
    )


def entropy(probability: np.ndarray) -> np.ndarray:
    """Return the entropy of probabilities (any shape, 0 to 1) in bits, float32; at most 1."""
    p = np.clip(np.asarray(probability, np.float32), 1e-7, 1 - 1e-7)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def auroc(score: np.ndarray, wrong: np.ndarray) -> float:
    """Return how often a wrong voxel has a higher score than a right one; a tie counts half.

    This is the area under the ROC curve: 0.5 is chance, 1 is perfect; NaN where all are alike.

    Args:
        score: uncertainty of each voxel, any shape.
        wrong: boolean array of the same shape, True where the prediction is wrong.

    Source: Mann and Whitney (1947), doi:10.1214/aoms/1177730491.
    """
    score, wrong = np.asarray(score), np.asarray(wrong)
    if score.shape != wrong.shape or wrong.dtype != bool:
        raise SpineError(
            f"Scores of shape {score.shape} and errors of shape {wrong.shape} ({wrong.dtype}) do "
            "not belong together: give a boolean array of the scores' shape."
        )
    if not score.size or np.isnan(score).any():
        raise SpineError("The scores are empty or hold NaN: give a number for each voxel.")
    if wrong.all() or not wrong.any():
        return math.nan
    # SciPy's ranks have the dtype of the scores, and those of a scan need more than float32.
    positive, negative = (score[part].astype(np.float64) for part in (wrong, ~wrong))
    ordered = stats.mannwhitneyu(positive, negative, method="asymptotic").statistic
    return float(ordered / positive.size / negative.size)


def closeness_to_outline(prediction: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return how close a voxel lies to the outline of a predicted mask, in -mm; 0 is closest.

    Errors lie at outlines: this map needs no network, and an uncertainty should beat it.
    """
    inside = ndimage.distance_transform_edt(prediction, spacing_mm)
    outside = ndimage.distance_transform_edt(~prediction, spacing_mm)
    return -(inside + outside).astype(np.float32)
