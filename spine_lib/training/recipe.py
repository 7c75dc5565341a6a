"""Lesson 6: a recipe says everything that a training run depends on, in one small file."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from spine_lib import SpineError
from spine_lib.ct.geometry import PLANES
from spine_lib.models import split_name
from spine_lib.slices.augment import Augmentation
from spine_lib.slices.patches import TARGETS
from spine_lib.training.losses import LOSSES


@dataclass(frozen=True)
class Recipe:
    """Say how the networks of one run are trained; runs count steps, never seconds.

    Attributes:
        name: of the recipe.
        dataset: where cases come from: "sample", "phantom" or a public data set.
        target: "spine", or "regions" for networks that name the four regions of the spine.
        models: architectures with their encoders, trained one after the other.
        encoder_weights: None, "imagenet" or "package".
        atrous_rates: of DeepLabv3+'s ASPP, in pixels of its map, a 16th of the input's size.
        aspp_dropout: of DeepLabv3+'s ASPP.
        phantoms: how many phantoms are added to the training patients.
        phantom_share: share of the training patches cut from them.
        validation_phantoms: held-out phantoms that the learning curve is drawn from.
        planes: of "axial", "coronal" and "sagittal"; one network learns all of them, and a scan's
            prediction is the mean over them.
        spacing_mm: size of a pixel that the networks see.
        neighbour_mm: if above 0, the slices this far before and behind are two more channels.
        foreground_share: share of the patches cut from slices that show spine.
        loss: "bce_dice", "bce", "dice", "focal" or "focal_dice"; for several classes "bce" is the
            cross-entropy over all of them.
        steps: optimiser steps of a run.
        steps_per_epoch: after each epoch comes a validation and a checkpoint.
        batch: patches a step.
        learning_rate: highest of the one-cycle schedule.
        weight_decay: of AdamW.
        averaging: decay of the moving average of the weights; 0 for none.
        precision: "auto" (bf16 where the hardware computes in it), "32-true" or "bf16-mixed".
        workers: processes that make patches beside the training step.
        compile: let torch.compile write the training step; needs a C++ compiler, on a GPU Triton;
            off, since on a CPU it is slower (`benchmarks/speed.md`) and a GPU was not measured.
        seed: decides everything random.
        flip: predictions are averaged over the image and its mirror image.
        largest_component: keep the largest connected piece of a predicted volume only.
        threshold: probability from which a voxel counts as spine.
        augmentation: how patches are changed.
    """

    name: str = "sample"
    dataset: str = "sample"
    target: str = "spine"
    models: tuple[str, ...] = ("unet_resnet34", "deeplabv3plus_resnet34")
    encoder_weights: str | None = None
    atrous_rates: tuple[int, ...] = (12, 24, 36)
    aspp_dropout: float = 0.5
    phantoms: int = 8
    phantom_share: float = 0.3
    validation_phantoms: int = 2
    planes: tuple[str, ...] = ("axial",)
    spacing_mm: float = 2.0
    neighbour_mm: float = 0.0
    foreground_share: float = 0.85
    loss: str = "bce_dice"
    steps: int = 500
    steps_per_epoch: int = 100
    batch: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    averaging: float = 0.98
    precision: str = "auto"
    workers: int = 1
    compile: bool = False
    seed: int = 0
    flip: bool = True
    largest_component: bool = True
    threshold: float = 0.5
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for model in self.models:
            split_name(model)
        known = bool(self.planes) and set(self.planes) <= set(PLANES)
        _require(known, "planes", self.planes, f"a list of {', '.join(PLANES)}")
        _require(self.target in TARGETS, "target", self.target, f"one of {', '.join(TARGETS)}")
        _require(self.loss in LOSSES, "loss", self.loss, f"one of {', '.join(LOSSES)}")
        _require(self.precision in PRECISIONS, "precision", self.precision, str(PRECISIONS))
        for name in ("steps", "steps_per_epoch", "batch", "spacing_mm", "learning_rate"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "a number above 0")
        rates = self.atrous_rates
        _require(all(rate > 0 for rate in rates), "atrous_rates", rates, "numbers above 0")
        for name in ("phantom_share", "foreground_share", "threshold", "aspp_dropout"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        _require(self.augmentation.size % 32 == 0, "size", self.augmentation.size, "32, 64, 96...")

    @property
    def channels(self) -> int:
        """Channels of the networks' input: the slice, and its neighbours if asked for."""
        return 3 if self.neighbour_mm > 0 else 1

    @property
    def classes(self) -> int:
        """Outputs of the networks: 1 for spine, with regions one more than there are."""
        return TARGETS[self.target]

    def decoder(self) -> dict[str, Any]:
        """Return what `build_model` is told about decoders."""
        return {"atrous_rates": self.atrous_rates, "aspp_dropout": self.aspp_dropout}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as built-in types, as YAML, JSON and checkpoints keep it."""
        return _plain(dataclasses.asdict(self))

    def changed(self, **values: Any) -> Recipe:
        """Return a copy with other values, checked like a new recipe."""
        return dataclasses.replace(self, **values)


PRECISIONS = ("auto", "32-true", "bf16-mixed")


def _require(good: bool, name: str, value: Any, wanted: str) -> None:
    if not good:
        raise SpineError(f"recipe: {name} is {value!r}; it must be {wanted}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def recipe_from_dict(values: dict[str, Any], where: str = "recipe") -> Recipe:
    """Build a recipe from built-in types; what is not named keeps its default.

    Args:
        values: as in a YAML file.
        where: named in errors.

    Raises:
        SpineError: naming an unknown key or a value of the wrong type.
    """
    values = dict(values)
    augmentation = _build(Augmentation, values.pop("augmentation", None) or {}, where)
    return _build(Recipe, {**values, "augmentation": augmentation}, where)


def _build(kind: type, values: dict[str, Any], where: str):
    hints = typing.get_type_hints(kind)
    for key, value in values.items():
        if key not in hints:
            raise SpineError(f"{where}: there is no setting {key!r}; see {kind.__name__}'s help")
        values = {**values, key: _converted(value, hints[key], key, where)}
    return kind(**values)


def _converted(value: Any, hint: Any, key: str, where: str) -> Any:
    """Check a value against a type hint; YAML's lists become tuples, whole numbers floats."""
    origin = typing.get_origin(hint)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value)
    kinds = typing.get_args(hint) if origin is types.UnionType else (origin or hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) and bool not in kinds or not isinstance(value, kinds):
        names = " or ".join(k.__name__ for k in kinds)
        raise SpineError(f"{where}: {key} is {value!r}; it must be of type {names}")
    return value


def built_in_recipes() -> list[str]:
    """Return the names of the recipes that come with the library."""
    folder = resources.files("spine_lib.training") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe by the name of a built-in one, or from a YAML file.

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
        values = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = str(error).splitlines()[0]
        raise SpineError(f"{text} cannot be read as YAML ({line}): correct it") from error
    if not isinstance(values, dict):
        raise SpineError(f"{text} holds no settings: write lines such as 'steps: 500'")
    return recipe_from_dict({"name": Path(text).stem, **values}, text)
