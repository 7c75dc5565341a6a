"""Lessons 4 and 5: the networks, two of them written out; `build_model` makes any by its name."""

from spine_lib.models.build import ARCHITECTURES, build_model, split_name
from spine_lib.models.deeplab import DeepLabV3Plus
from spine_lib.models.unet import UNet

__all__ = ["ARCHITECTURES", "DeepLabV3Plus", "UNet", "build_model", "split_name"]
