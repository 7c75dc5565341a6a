"""Lesson 6: train a network with Lightning, stop it, go on, and load it instead of training twice.

`segmenter.py` holds the network, the loss and the schedule; the rest - device, mixed precision,
checkpoints, logs, several processes - is the trainer's.  A run folder that is finished is loaded,
one that was stopped goes on to the same numbers (on CPU), an empty one is trained.

Several processes train as one would: each takes its share of every batch, the loss is that of the
whole batch, and the first writes.  On GPUs BatchNorm's statistics are those of the whole batch too;
on CPU, where PyTorch cannot share them, they are each process's own, and scores differ a little
(`tests/test_many_processes.py` says how much).
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.slices.store import SliceStore
from spine_lib.training.checkpoints import load_weights, save_weights
from spine_lib.training.devices import (
    choose_device,
    choose_precision,
    prepare_device,
    require_compiler,
)
from spine_lib.training.loading import training_loader, validation_loader
from spine_lib.training.logs import read_log
from spine_lib.training.losses import (
    segmentation_loss as segmentation_loss,  # lesson 6 looks for it here
)
from spine_lib.training.module import MovingAverage, Segmenter
from spine_lib.training.processes import ALONE, Processes, is_first
from spine_lib.training.recipe import Recipe, recipe_from_dict


@dataclass(frozen=True)
class Fitted:
    """A trained network and how it came about.

    Attributes:
        network: in evaluation mode, on the CPU.
        recipe: it was trained with.
        weights: safetensors file.
        seconds: of training; 0.0 if it was only loaded.
        trained_seconds: of training, whenever that was.
        curve: rows of the log, each with "step" and what was measured there.
    """

    network: nn.Module
    recipe: Recipe
    weights: Path
    seconds: float
    trained_seconds: float
    curve: list[dict[str, float]]


def load_or_train(
    model: str,
    recipe: Recipe,
    training: SliceStore,
    validation: SliceStore,
    folder: str | Path,
    device: str = "auto",
    progress: bool = True,
    bar: int = 0,
    processes: Processes = ALONE,
    callbacks: tuple[L.Callback, ...] = (),
) -> Fitted:
    """Load a finished run, go on with a stopped one, or train.

    Args:
        model: name as in `build_model`.
        recipe: how to train.
        training, validation: sliced volumes of different patients.
        folder: of the run: logs, `last.ckpt`, `best.ckpt`, `weights.safetensors`.
        device: "auto", "cpu" or "gpu".
        progress: show a progress bar.
        bar: how many bars of other trainings are above it.
        processes: how many share the training; every one of them calls this.
        callbacks: of Lightning, besides those that keep checkpoints and logs.

    Raises:
        SpineError: if the folder holds a run with another recipe, training diverges, or the
            processes cannot share the batch.
    """
    folder = Path(folder)
    weights = folder / "weights.safetensors"
    if weights.is_file():
        network, found = load_weights(weights, model)
        _require_same_recipe(found, recipe, folder)
        return Fitted(
            network, found, weights, 0.0, _read_seconds(folder), read_log(folder / "metrics.csv")
        )
    started = time.perf_counter()
    before = _read_seconds(folder)
    stores = (training, validation)
    try:
        options = {"callbacks": callbacks, "bar": bar, "processes": processes}
        module = fit(model, recipe, *stores, folder, device, progress, **options)
    finally:  # what a stopped run took counts too
        seconds = time.perf_counter() - started
        if folder.is_dir() and is_first():
            with atomic_file(folder / "seconds.json") as stream:
                stream.write(json.dumps(before + seconds).encode())
    network = module.network.cpu().eval()
    if not is_first():
        return Fitted(network, recipe, weights, seconds, before + seconds, [])
    save_weights(network, model, recipe, weights)
    return Fitted(
        network, recipe, weights, seconds, before + seconds, read_log(folder / "metrics.csv")
    )


def fit(
    model: str,
    recipe: Recipe,
    training: SliceStore,
    validation: SliceStore,
    folder: Path,
    device: str = "auto",
    progress: bool = True,
    callbacks: tuple[L.Callback, ...] = (),
    bar: int = 0,
    processes: Processes = ALONE,
) -> Segmenter:
    """Train with Lightning, from `last.ckpt` in the folder where there is one.

    Returns:
        The module with the averaged weights of the last step.
    """
    kind = choose_device(device)
    processes.require_fit(recipe.batch, kind)
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    if last.is_file():
        hyper = _read_hyperparameters(last)
        _require_same_recipe(recipe_from_dict(hyper["recipe"]), recipe, folder)
    prepare_device(kind, recipe.precision)
    if recipe.compile:
        require_compiler(kind)
    module = Segmenter(model, recipe.to_dict())
    with _quiet():
        bars = [TQDMProgressBar(refresh_rate=10, process_position=bar)] if progress else []
        trainer = _trainer(recipe, folder, kind, (*bars, *callbacks), processes)
        share = (trainer.global_rank, trainer.world_size)
        try:
            trainer.fit(
                module,
                training_loader(training, recipe, *share),
                validation_loader(validation, recipe, *share),
                ckpt_path=str(last) if last.is_file() else None,
                weights_only=True,
            )
        except SystemExit as leaving:  # so Lightning ends after Ctrl-C
            if isinstance(leaving.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from leaving
            raise
    if trainer.interrupted:
        raise KeyboardInterrupt
    return module


def _trainer(
    recipe: Recipe,
    folder: Path,
    kind: str,
    callbacks: tuple[L.Callback, ...],
    processes: Processes,
) -> L.Trainer:
    # not save_last: it would save the last one only where it is also the best
    keep = [
        ModelCheckpoint(folder, "best", "val_dice", mode="max", enable_version_counter=False),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]
    # a run that ends before the first update would keep the weights that it began with
    averages = recipe.averaging and recipe.steps >= MovingAverage.EVERY
    average = [MovingAverage(recipe.averaging)] if averages else []
    try:
        return L.Trainer(
            accelerator=kind,
            devices=processes.devices,
            num_nodes=processes.nodes,
            strategy=_strategy(processes),
            sync_batchnorm=kind == "cuda" and processes.count > 1,
            precision=choose_precision(recipe.precision, kind),
            max_steps=recipe.steps,
            gradient_clip_val=1.0,
            callbacks=[*keep, *average, *callbacks],
            logger=[CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, "", "")],
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=any(isinstance(c, TQDMProgressBar) for c in callbacks),
            use_distributed_sampler=False,
        )
    except (ValueError, MisconfigurationException) as error:
        line = str(error).splitlines()[0].rstrip(".")
        raise SpineError(
            f"Lightning cannot train with --devices {processes.devices} --nodes {processes.nodes} "
            f"--strategy {processes.strategy} ({line}): change these"
        ) from error


def _strategy(processes: Processes) -> str | DDPStrategy:
    """Return what `Trainer(strategy=...)` is told."""
    if processes.strategy != "auto" or processes.count == 1:
        return processes.strategy
    # A pretrained encoder has layers that segmentation does not use; what of the graph is used is
    # the same in every step, so it is looked for once.
    return DDPStrategy(static_graph=True, gradient_as_bucket_view=True)


@contextmanager
def _quiet():
    """Keep the trainer's advice out of the console: workers and devices are chosen on purpose."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _read_hyperparameters(checkpoint: Path) -> dict:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return state["hyper_parameters"]
    except Exception as error:  # torch raises many kinds for a broken file
        raise SpineError(
            f"{checkpoint} cannot be read ({type(error).__name__}): delete it to train anew"
        ) from error


def _require_same_recipe(found: Recipe, wanted: Recipe, folder: Path) -> None:
    """Refuse to mix two recipes in one folder; workers and names do not change the numbers."""
    free = {"workers", "name", "models"}
    a, b = found.to_dict(), wanted.to_dict()
    different = [key for key in a if key not in free and a[key] != b[key]]
    if different:
        pairs = ", ".join(f"{key} {a[key]} there, {b[key]} asked for" for key in different)
        raise SpineError(
            f"{folder} holds a run with another recipe ({pairs}): choose another --name"
        )


def _read_seconds(folder: Path) -> float:
    try:
        return float(json.loads((folder / "seconds.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0.0
