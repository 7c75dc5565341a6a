"""Lessons 4 and 5: build a segmentation network by its name.

A name is an architecture and an encoder: "unet_resnet34" and "deeplabv3plus_resnet34" are the
paper's two, from segmentation_models_pytorch.  "unet_own" and "deeplabv3plus_own" are written out
in `unet.py` and `deeplab.py`.
"""

import json
from importlib import resources

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.datasets.sample import Package, fetch_package, sample_root
from spine_lib.models.deeplab import DeepLabV3Plus
from spine_lib.models.unet import UNet

ARCHITECTURES = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus}

OWN = "own"  # the "encoder" of the networks that the lessons write out
OWN_UNET = {"width": 24, "depth": 4}  # a step takes about as long as one of unet_resnet34


def split_name(name: str) -> tuple[str, str]:
    """Return architecture and encoder of a name such as "unet_resnet34", if there are such."""
    architecture, _, encoder = name.partition("_")
    if architecture not in ARCHITECTURES or not encoder:
        raise SpineError(
            f"unknown model {name!r:.60}: use one of {', '.join(ARCHITECTURES)}, _ and an encoder, "
            "for example unet_resnet34"
        )
    # timm itself would ask a model hub for "hf-hub:..." and a disk for "local-dir:..."
    known = encoder in (OWN, *smp.encoders.get_encoder_names())
    if not known and not (encoder.startswith("tu-") and timm.is_model(encoder[3:])):
        raise SpineError(
            f"unknown encoder {encoder!r:.60}: the paper's is resnet34, own is the lessons' network"
        )
    return architecture, encoder


def require_weights(name: str, encoder_weights: str | None) -> None:
    """Raise a `SpineError` where a network has no such weights to start from; see `build_model`."""
    encoder = split_name(name)[1]
    if encoder_weights is None:
        return
    if encoder == OWN:
        raise SpineError(
            f"{name} starts from random weights, and {encoder_weights!r} were asked for: set "
            "encoder_weights to none"
        )
    if encoder_weights == "package":
        if encoder not in _packages():
            raise SpineError(
                f"no package carries weights for {encoder}: use encoder {', '.join(_packages())}"
            )
        return
    known = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings")
    if known is not None and encoder_weights not in known:
        raise SpineError(
            f"there are no weights {encoder_weights!r} for {encoder}: use imagenet, package or none"
        )


def _packages() -> dict[str, dict]:
    text = resources.files("spine_lib.models").joinpath("encoders.json").read_text("utf-8")
    return json.loads(text)


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
            model hub; "package" takes ImageNet weights that a public Python package carries.
        atrous_rates, aspp_dropout: of DeepLabv3+'s ASPP. Its map has a 16th of the input's size:
            8 x 8 for patches of 128, over which rates of 12 and more reach nothing.

    Rows and columns must be multiples of 32 for U-Net and 16 for DeepLabv3+. Raises a `SpineError`
    if the name is unknown or the weights cannot be had.
    """
    architecture, encoder = split_name(name)
    require_weights(name, encoder_weights)
    if encoder == OWN:
        if architecture == "unet":
            return UNet(in_channels, classes, **OWN_UNET)
        return DeepLabV3Plus(in_channels, classes, tuple(atrous_rates), aspp_dropout)
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
    except Exception as error:  # the hub's client raises many kinds, none of them its own
        raise SpineError(
            f"the weights {encoder_weights!r} of {encoder} cannot be fetched "
            f"({type(error).__name__}): connect to the network once, or train with "
            "encoder_weights none"
        ) from error


def _load_packaged_weights(encoder: nn.Module, name: str) -> None:
    """Load ImageNet weights into an encoder, in place; they are fetched once, with their hash."""
    root, package = sample_root().parent / "encoders", Package(**_packages()[name])
    fetch_package(package, root, print)
    weights = torch.load(root / package.files[0].target, map_location="cpu", weights_only=True)
    own = encoder.state_dict()
    # the package names its layers differently, in the same order
    values = [value for key, value in weights.items() if not key.startswith("_fc.")]
    fitting = {key: _for_channels(value, own[key]) for key, value in zip(own, values)}
    wrong = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if len(values) != len(own) or wrong:
        raise SpineError(
            f"the packaged weights do not fit the encoder ({len(values)} arrays for {len(own)}): "
            "install the versions of constraints.txt"
        )
    encoder.load_state_dict(fitting)


def _for_channels(weight: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return a first layer's weights for grey images, which have the sum of the three colours."""
    if weight.ndim != 4 or weight.shape == own.shape:
        return weight
    channels = own.shape[1]
    return weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
