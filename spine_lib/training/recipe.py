"""Lesson 6: a recipe, one small file with everything that a training run depends on."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import field_validator as validator

from spine_lib import SpineError
from spine_lib.ct.geometry import PLANES
from spine_lib.models.build import split_name
from spine_lib.slices.augment import Augmentation, Settings, Share
from spine_lib.slices.patches import TARGETS
from spine_lib.training.losses import LOSSES

LARGEST_FILE = 100_000
"""Characters of a recipe; a larger file holds something else."""


class Recipe(Settings):
    """How the networks of one run are trained; its length is counted in steps.

    Attributes:
        name: of the recipe.
        dataset: where cases come from: "sample", "phantom" or a public data set.
        target: "spine", or "regions" for networks that name the four regions of the spine.
        models: architectures with their encoders.
        encoder_weights: None, "imagenet" or "package".
        atrous_rates: of DeepLabv3+'s ASPP, in pixels of its map, a 16th of the input's size.
        aspp_dropout: of DeepLabv3+'s ASPP.
        phantoms: how many phantoms are added to the training patients.
        phantom_share: share of the training patches cut from them.
        validation_phantoms: held-out phantoms that the learning curve is drawn from.
        planes: of "axial", "coronal" and "sagittal"; one network learns all of them, and a scan's
            prediction is the mean over them.
        spacing_mm: size of a pixel of the networks' input.
        neighbour_mm: if above 0, the slices this far before and behind are two more channels.
        foreground_share: share of the patches cut from slices that show spine.
        loss: "bce_dice", "bce", "dice", "focal" or "focal_dice"; for several classes "bce" is the
            cross-entropy over all of them.
        steps: optimiser steps of a run.
        steps_per_epoch: after each epoch come a validation and a checkpoint.
        batch: patches a step, 2 or more, which batch normalisation needs.
        learning_rate: highest of the one-cycle schedule.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights; 0 for none.
        precision: "auto" (bf16 where the hardware computes in it), "32-true" or "bf16-mixed".
        workers: processes that make patches beside the training step.
        compile: let torch.compile write the training step; needs a C++ compiler, on a GPU Triton;
            off, since on a CPU it is slower (`benchmarks/speed.md`) and a GPU was not measured.
        seed: of all random numbers.
        flip: average predictions over the image and its mirror image.
        largest_component: keep only the largest connected component of a predicted volume.
        threshold: probability from which a voxel counts as spine.
        augmentation: how patches are changed.

    Raises:
        SpineError: naming the first setting that is unknown or not allowed.
    """

    name: str = "sample"
    dataset: str = "sample"
    target: Literal["spine", "regions"] = "spine"
    models: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "unet_resnet34",
        "deeplabv3plus_resnet34",
    )
    encoder_weights: Literal["imagenet", "package"] | None = None
    atrous_rates: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (12, 24, 36)
    aspp_dropout: Share = 0.5
    phantoms: NonNegativeInt = 8
    phantom_share: Share = 0.3
    validation_phantoms: NonNegativeInt = 2
    planes: Annotated[
        tuple[Literal[PLANES], ...], Field(min_length=1)
    ] = ("axial",)  # fmt: skip
    spacing_mm: PositiveFloat = 2.0
    neighbour_mm: NonNegativeFloat = 0.0
    foreground_share: Share = 0.85
    loss: Literal[LOSSES] = "bce_dice"
    steps: PositiveInt = 500
    steps_per_epoch: PositiveInt = 100
    batch: Annotated[int, Field(ge=2)] = 16
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.02
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.98
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    workers: NonNegativeInt = 1
    compile: bool = False
    seed: NonNegativeInt = 0
    flip: bool = True
    largest_component: bool = True
    threshold: Share = 0.5
    augmentation: Augmentation = Augmentation()

    @validator("models")
    @classmethod
    def _require_known(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for model in models:
            try:
                split_name(model)
            except SpineError as error:
                raise ValueError(str(error)) from error
        return models

    @property
    def channels(self) -> int:
        """Channels of the networks' input: the slice, and its neighbours if asked for."""
        return 3 if self.neighbour_mm > 0 else 1

    @property
    def classes(self) -> int:
        """Outputs of the networks: 1 for spine, with regions one more than there are."""
        return TARGETS[self.target]

    def decoder(self) -> dict[str, Any]:
        """Return the arguments of `build_model` for decoders."""
        return {"atrous_rates": self.atrous_rates, "aspp_dropout": self.aspp_dropout}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as built-in types, as YAML, JSON and checkpoints keep it."""
        return self.model_dump(mode="json")


def recipe_from_dict(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from built-in types; what is not named keeps its default.

    Args:
        values: as in a YAML file.
        where: named in errors.

    Raises:
        SpineError: naming the first setting that is unknown or not allowed.
    """
    try:
        return Recipe(**values)
    except SpineError as error:
        raise SpineError(f"{where}: {str(error).removeprefix('recipe: ')}") from error


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with the library."""
    folder = resources.files("spine_lib.training") / "recipes"
    return sorted(Path(file.name).stem for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a recipe by the name of a built-in one, or from a YAML file.

    Raises:
        SpineError: if there is no such recipe, or the file does not hold one.
    """
    text = str(name_or_path)
    if text in built_in_recipes():
        source = resources.files("spine_lib.training") / "recipes" / f"{text}.yaml"
    elif text.endswith((".yaml", ".yml")) and Path(text).is_file():
        source = Path(text)
    else:
        raise SpineError(
            f"there is no recipe {text!r}: name a YAML file or one of "
            f"{', '.join(built_in_recipes())}"
        )
    try:
        content = source.read_text(encoding="utf-8")
        values = yaml.safe_load(content) or {} if len(content) <= LARGEST_FILE else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = str(error).splitlines()[0]
        raise SpineError(f"{text} cannot be read as YAML ({line}): correct it") from error
    if not isinstance(values, dict):
        raise SpineError(f"{text} holds no settings: write lines such as 'steps: 500'")
    return recipe_from_dict({"name": Path(text).stem, **values}, text)
