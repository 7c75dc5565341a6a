"""Two trained models that come with the library, for the lessons on judging what a model does.

`MODEL_CARD.md` beside this file says how they were trained, how well they do, and where they fail;
`benchmarks/ship_models.py` made them.
"""

from importlib import resources
from pathlib import Path

import numpy as np
from torch import nn

from spine_lib import SpineError
from spine_lib.ct.geometry import require_same_grid
from spine_lib.ct.volume import Volume
from spine_lib.training.checkpoints import load_weights
from spine_lib.training.recipe import Recipe

FOLDER = Path(str(resources.files("spine_lib.training.pretrained")))
PRETRAINED: dict[str, str] = {
    "unet_light": "unet_timm-tf_efficientnet_lite0",
    "deeplabv3plus_light": "deeplabv3plus_timm-tf_efficientnet_lite0",
}
"""Names of the shipped models, and what `build_model` calls each."""


def weights_path(name: str) -> Path:
    """Return the weights file of a shipped model."""
    if name not in PRETRAINED:
        raise SpineError(f"there is no shipped model {name!r}: use {' or '.join(PRETRAINED)}")
    return FOLDER / f"{name}.safetensors"


def load_pretrained(name: str) -> tuple[nn.Module, Recipe]:
    """Load a shipped model in evaluation mode on the CPU, and the recipe it was trained with.

    Example:
        >>> network, recipe = load_pretrained("unet_light")
        >>> recipe.spacing_mm
        1.5
    """
    return load_weights(weights_path(name), PRETRAINED[name])


def load_probability(name: str, case_id: str, ct: Volume) -> Volume:
    """Load a shipped model's stored prediction for a held-out patient, which saves minutes.

    Args:
        name: a key of `PRETRAINED`.
        case_id: "dicom" or "crop".
        ct: the scan of that case; gives the grid.

    Returns:
        float32 probabilities in steps of 1/255 on the scan's grid.
    """
    path = FOLDER / f"{name}_{case_id}.npz"
    if name not in PRETRAINED or not path.is_file():
        raise SpineError(f"there is no stored prediction of {name!r} for {case_id!r}")
    with np.load(path) as stored:
        probability = Volume(stored["probability"], stored["affine"])
    require_same_grid(ct, probability, f"scan and stored prediction of {case_id}")
    return ct.with_array(probability.array.astype(np.float32) / 255)
