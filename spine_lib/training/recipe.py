"""Lesson 6: a recipe, one small file with everything that a training run depends on."""

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator
from torch import nn

from spine_lib import SpineError
from spine_lib.ct.files import read_yaml
from spine_lib.ct.geometry import PLANES
from spine_lib.datasets.public import PUBLIC_SETS
from spine_lib.datasets.settings import Settings, Share
from spine_lib.models import build_model, multiply_small_maps
from spine_lib.models.build import require_weights
from spine_lib.slices.augment import Augmentation
from spine_lib.slices.patches import TARGETS
from spine_lib.training.losses import LOSSES

FOLDER = Path(str(resources.files("spine_lib.training"))) / "recipes"

# Settings of older versions, with the value that is today's only way.
FORMER_SETTINGS = {"augment_on": "worker", "compile": False}

RUN_NAME = r"(?!latest$)[A-Za-z0-9][A-Za-z0-9._-]{0,98}(?<!\.)"


def run_name(text: str) -> str:
    """Return the name of a recipe or a run as it is, if it names a folder in `runs/`, no path."""
    if re.fullmatch(RUN_NAME, text):
        return text
    raise SpineError(
        f"name is {text!r:.80}; a run is named by letters, digits, dots and dashes, at most 99, "
        "and not 'latest'"
    )


def _different(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("it must name each only once")
    return values


Count = Annotated[int, Field(gt=0, le=10**8)]
Names = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_different)]
Planes = Annotated[tuple[Literal[PLANES], ...], Field(min_length=1), AfterValidator(_different)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Rate = Annotated[int, Field(gt=0, le=1000)]
Phantoms = Annotated[int, Field(ge=0, le=1000)]


class Recipe(Settings):
    """How the networks of one run are trained."""

    name: Annotated[str, AfterValidator(run_name)] = "sample"
    dataset: Literal[("sample", "phantom", "more", *PUBLIC_SETS)] = "sample"  # "more": all fetched
    target: Literal["spine", "regions"] = "spine"  # "regions": networks name those of the spine
    models: Names = ("unet_resnet34", "deeplabv3plus_resnet34")  # architectures with encoders
    encoder_weights: Literal["imagenet", "package"] | None = None
    # of DeepLabv3+'s ASPP, in pixels of its map, a 16th of the input's size
    atrous_rates: Annotated[tuple[Rate, ...], Field(min_length=3, max_length=3)] = (12, 24, 36)
    aspp_dropout: Share = 0.5
    phantoms: Phantoms = 8  # added to the training patients
    phantom_share: Share = 0.3  # of the training patches, cut from them
    validation_phantoms: Phantoms = 2  # held out; the learning curve is drawn from them
    planes: Planes = ("axial",)  # one network learns all; a scan's prediction is their mean
    spacing_mm: Annotated[float, Field(ge=0.1, le=100)] = 2.0  # size of an input's pixel
    # if above 0, the slices this far before and behind are two more channels
    neighbour_mm: Annotated[float, Field(ge=0, le=1000)] = 0.0
    foreground_share: Share = 0.85  # of the patches, cut from slices that show spine
    loss: Literal[LOSSES] = "bce_dice"  # of several classes "bce" is the cross-entropy over all
    steps: Count = 500  # of the optimiser
    steps_per_epoch: Count = 100  # after each epoch come a validation and a checkpoint
    batch: Annotated[int, Field(ge=2, le=10_000)] = 16  # batch normalisation needs two
    learning_rate: PositiveFloat = 1e-3  # highest of the one-cycle schedule
    weight_decay: NonNegativeFloat = 0.02  # of AdamW
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.98  # decay of the weights' moving average
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    workers: Annotated[int, Field(ge=0, le=256)] = 1  # that make patches beside the training step
    seed: Seed = 0  # of all random numbers
    flip: bool = True  # average predictions over the image and its mirror image
    largest_component: bool = True  # keep that alone of a predicted volume
    threshold: Share = 0.5  # probability above which a voxel counts as spine
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _require_networks(self) -> Self:
        for model in self.models:
            try:
                require_weights(model, self.encoder_weights)
            except SpineError as error:
                raise SpineError(f"recipe: models names {model!r:.60}; {error}") from error
        return self

    @property
    def channels(self) -> int:
        """Channels of the networks' input: the slice, and its neighbours if asked for."""
        return 3 if self.neighbour_mm > 0 else 1

    @property
    def classes(self) -> int:
        """Outputs of the networks: 1 for spine, with regions one more than there are."""
        return TARGETS[self.target]

    def build(self, model: str, encoder_weights: str | None = None) -> nn.Module:
        """Return one of the networks; its encoder starts from random weights if none are named."""
        kind = (self.channels, self.classes, encoder_weights)
        return multiply_small_maps(build_model(model, *kind, self.atrous_rates, self.aspp_dropout))

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as built-in types, as YAML, JSON and checkpoints keep it."""
        return self.model_dump(mode="json")


def recipe_from_dict(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from built-in types, as in a YAML file; `where` is named in errors."""
    values = {str(key): value for key, value in values.items()}
    for key, value in FORMER_SETTINGS.items():
        if values.get(key) == value:
            del values[key]
    try:
        return Recipe(**values)
    except SpineError as error:
        raise SpineError(f"{where}: {str(error).removeprefix('recipe: ')}") from error


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with the library."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by the name of a built-in one, or from a YAML file."""
    text = str(name_or_path)
    if text in built_in_recipes():
        path = FOLDER / f"{text}.yaml"
    elif text.endswith((".yaml", ".yml")) and Path(text).is_file():
        path = Path(text)
    else:
        raise SpineError(
            f"there is no recipe {text!r}: name a YAML file or one of "
            f"{', '.join(built_in_recipes())}"
        )
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", path.stem).strip("-")[:99] or "recipe"
    return recipe_from_dict({"name": stem} | read_yaml(path), text)
