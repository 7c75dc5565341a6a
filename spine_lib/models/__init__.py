"""Lessons 4 and 5: the networks, two of them written out; `build_model` makes any by its name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "build": ["ARCHITECTURES", "build_model", "split_name"],
        "deeplab": ["ASPP", "DeepLabV3Plus"],
        "receptive": ["encoder_layers", "receptive_field"],
        "fold": ["fold_norms"],
        "resnet": ["ResNet34"],
        "small_maps": ["multiply_small_maps"],
        "unet": ["UNet"],
    },
)
