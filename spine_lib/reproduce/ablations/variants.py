"""What each ablation changes, and what it compares with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spine_lib import SpineError
from spine_lib.ct.geometry import PLANES
from spine_lib.models import split_name
from spine_lib.training.losses import LOSSES
from spine_lib.training.recipe import Recipe

PACKAGED_ENCODER = "timm-tf_efficientnet_lite0"
"""The one encoder that a public package carries ImageNet weights for."""

NEIGHBOURS_MM = (0.0, 3.0, 6.0)

WEIGHTS = {None: "random", "package": "imagenet"}


@dataclass(frozen=True)
class Variant:
    """Say how one kind of training differs from the recipe.

    Attributes:
        name: names its folder; unique within an ablation.
        label: names it in tables.
        changes: of the recipe.
        model: instead of the run's; "" for that.
        split: "patient" or "slice" where a split is compared, and slices are counted; else "".
        caution: a sentence on what else differs; "" where nothing does.
        unfair_on: the group of cases, "patients" or "phantoms", on which the comparison is no fair
            one for that reason; "" for none.
    """

    name: str
    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    split: str = ""
    caution: str = ""
    unfair_on: str = ""

    def recipe(self, base: Recipe) -> Recipe:
        """Return the recipe of this variant."""
        return base.changed(**self.changes)

    def is_base(self, base: Recipe, model: str) -> bool:
        """Tell whether a training of this variant is one of the recipe as it stands."""
        return not self.split and self.recipe(base) == base and self.model in ("", model)


Build = Callable[[Recipe, str], list[Variant]]


@dataclass(frozen=True)
class Ablation:
    """Name a question and the variants that answer it.

    Attributes:
        name: as typed after `spine ablate`.
        line: what is compared, in one line.
        setting: row of the report's table of deviations that it speaks of.
        build: gives the variants for a recipe and a model; the first is what the others are
            compared with.
    """

    name: str
    line: str
    setting: str
    build: Build

    def variants(self, recipe: Recipe, model: str) -> list[Variant]:
        """Return the variants, the reference first.

        Raises:
            SpineError: if there is nothing to compare with this recipe.
        """
        found = self.build(recipe, model)
        if len(found) < 2:
            raise SpineError(
                f"ablate {self.name}: recipe {recipe.name!r} leaves nothing to compare; name "
                "another --recipe"
            )
        return found


def _split(recipe: Recipe, model: str) -> list[Variant]:
    if len(recipe.planes) > 1:
        raise SpineError(
            f"ablate split: recipe {recipe.name!r} cuts {len(recipe.planes)} planes, and a slice "
            "that is left out in one of them is seen in the others; name a recipe with one plane"
        )
    return [
        Variant("patient", "by patient", split="patient"),
        Variant("slice", "by slice", split="slice"),
    ]


def _recipe(label: str) -> Variant:
    return Variant("recipe", f"{label} (the recipe)")


def _planes(recipe: Recipe, model: str) -> list[Variant]:
    kinds = [*((plane,) for plane in PLANES), PLANES]
    others = [planes for planes in kinds if set(planes) != set(recipe.planes)]
    return [_recipe(_plane_label(recipe.planes)), *map(_plane, others)]


def _plane(planes: tuple[str, ...]) -> Variant:
    if len(planes) == 1:
        return Variant(planes[0], planes[0], {"planes": planes})
    caution = "The steps stay the same, so that each plane is seen less often than it is alone."
    return Variant("all", _plane_label(planes), {"planes": planes}, caution=caution)


def _plane_label(planes: Sequence[str]) -> str:
    return "all three, averaged" if len(planes) == len(PLANES) else " and ".join(planes)


def _losses(recipe: Recipe, model: str) -> list[Variant]:
    others = [loss for loss in LOSSES if loss != recipe.loss]
    return [_recipe(recipe.loss), *(Variant(loss, loss, {"loss": loss}) for loss in others)]


def _weights(recipe: Recipe, model: str) -> list[Variant]:
    """Compare both starts with the encoder that has packaged weights, whatever the model's."""
    architecture, encoder = split_name(model)
    light = "" if encoder == PACKAGED_ENCODER else f"{architecture}_{PACKAGED_ENCODER}"
    labels = {None: "random weights", "package": "ImageNet weights"}
    return [
        Variant(WEIGHTS[weights], label, {"encoder_weights": weights}, light)
        for weights, label in labels.items()
    ]


def _phantoms(recipe: Recipe, model: str) -> list[Variant]:
    if not recipe.phantoms or not recipe.phantom_share:
        raise SpineError(
            f"ablate phantoms: recipe {recipe.name!r} trains without phantoms as it is; name a "
            "recipe with phantoms above 0"
        )
    if recipe.dataset == "phantom":
        raise SpineError(
            "ablate phantoms: the data set phantom holds nothing else to train on; name sample or "
            "a public data set"
        )
    caution = (
        "Left out of training, phantoms are another kind of scan: on them the comparison asks how "
        "far patients teach phantoms. The real patients are what counts here."
    )
    none = {"phantoms": 0, "phantom_share": 0.0}
    out = Variant("without", "without phantoms", none, caution=caution, unfair_on="phantoms")
    return [_recipe(f"with {recipe.phantoms} phantoms"), out]


def _neighbours(recipe: Recipe, model: str) -> list[Variant]:
    others = [mm for mm in NEIGHBOURS_MM if mm != recipe.neighbour_mm]
    caution = (
        "Of a pretrained encoder the first layer starts from the weights of the three colours "
        "where there are three channels, and from their sum where there is one."
    )
    return [
        _recipe(_neighbour_label(recipe.neighbour_mm)),
        *(
            Variant(
                f"{mm:g}-mm",
                _neighbour_label(mm),
                {"neighbour_mm": mm},
                caution=caution if recipe.encoder_weights else "",
            )
            for mm in others
        ),
    ]


def _neighbour_label(mm: float) -> str:
    return f"with the slices {mm:g} mm before and behind" if mm else "the slice alone"


ABLATIONS = {
    one.name: one
    for one in (
        Ablation("split", "split by slice against split by patient", "split", _split),
        Ablation("plane", "axial, coronal and sagittal slices, and all three", "plane", _planes),
        Ablation("loss", f"the losses {', '.join(LOSSES)}", "loss", _losses),
        Ablation(
            "weights",
            "an encoder that starts from ImageNet or from random weights",
            "encoder weights at the start",
            _weights,
        ),
        Ablation("phantoms", "training with and without phantoms", "data", _phantoms),
        Ablation(
            "neighbours",
            "neighbouring slices as channels (2.5-D)",
            "channels of the input",
            _neighbours,
        ),
    )
}


def chosen(name: str) -> list[Ablation]:
    """Return the ablations that a name stands for: one, or all of them.

    Raises:
        SpineError: if there is no such ablation.
    """
    if name == "all":
        return list(ABLATIONS.values())
    if name not in ABLATIONS:
        raise SpineError(f"there is no ablation {name!r}: name {', '.join(ABLATIONS)} or all")
    return [ABLATIONS[name]]
