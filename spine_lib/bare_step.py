"""Lesson 6: the fastest that a training can be: forward, backward and optimiser, and no data.

What a training reaches of this speed says whether data, logging and checkpoints keep the network
waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from lightning.fabric.utilities import move_data_to_device

from spine_lib.slices.store import SliceStore
from spine_lib.training.devices import choose_precision, prepare_device
from spine_lib.training.loading import training_loader
from spine_lib.training.losses import segmentation_loss
from spine_lib.training.module import Segmenter
from spine_lib.training.recipe import Recipe


def bare_steps(
    model: str, recipe: Recipe, store: SliceStore, device: str, wait: bool = True
) -> Iterator[float]:
    """Repeat a training's step on one batch that lies in the device's memory.

    Args:
        model: name as in `build_model`.
        recipe: batch, size, loss, optimiser, precision and `compile` are used.
        store: the batch is cut from it.
        device: "cuda" or "cpu".
        wait: for a GPU after every step; else the caller does, and the seconds mean nothing.

    Yields:
        Seconds of one step after the other, without end; the first ones are slower.
    """
    prepare_device(device, recipe.precision)
    module = Segmenter(model, recipe.to_dict()).to(device).train()
    module.compile_if_asked()
    optimiser = module.configure_optimizers()["optimizer"]
    batch = next(iter(training_loader(store, recipe.changed(workers=0))))
    batch = move_data_to_device(batch, torch.device(device))
    image, target, weight = module.on_after_batch_transfer(batch, 0)
    mixed = "bf16" in choose_precision(recipe.precision, device)
    while True:
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = segmentation_loss(module(image), target, weight, recipe.loss)
        optimiser.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimiser, 1.0)
        optimiser.step()
        if wait:
            wait_for(device)
        yield time.perf_counter() - started


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was told; a CPU does it at once."""
    if device == "cuda":
        torch.cuda.synchronize()
