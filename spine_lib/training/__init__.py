"""Lesson 6: recipes, losses, loaders and the training itself."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["pretrained"],
    submod_attrs={
        "checkpoints": ["load_weights", "save_weights"],
        "devices": ["Processes", "choose_device", "choose_precision"],
        "loading": ["PatchSampler", "training_loader"],
        "logs": ["read_log"],
        "losses": ["segmentation_loss"],
        "module": ["Segmenter"],
        "pretrained": ["PRETRAINED", "load_pretrained", "load_probability"],
        "recipe": ["Recipe", "load_recipe"],
        "train": ["fit", "load_or_train"],
    },
)
