"""Lesson 6: train a network with Lightning, stop it, go on, and load it instead of training twice.

The module holds the network, the loss and the schedule; the rest - device, mixed precision, moving
average, checkpoints, logs - is the trainer's.  A run folder that is finished is loaded, one that
was stopped goes on to the same numbers (on CPU), an empty one is trained.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spine_lib.checkpoints import load_weights, save_weights
from spine_lib.errors import SpineError
from spine_lib.loading import training_loader, validation_loader
from spine_lib.logs import read_log
from spine_lib.models import build_model
from spine_lib.recipe import Recipe, recipe_from_dict
from spine_lib.store import SliceStore


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, kind: str = "bce_dice"
) -> torch.Tensor:
    """Return cross-entropy, one minus soft Dice, or their sum, over the pixels with a label.

    Args:
        logits, target, weight: float [batch, 1, row, column]; weight 0 leaves a pixel out.
        kind: "bce", "dice" or "bce_dice".

    Returns:
        A scalar.  Soft Dice is taken over the whole batch: slices without spine then count.
    """
    logits = logits.float()
    parts = []
    if "bce" in kind:
        entropy = functional.binary_cross_entropy_with_logits(
            logits, target, weight, reduction="sum"
        )
        parts.append(entropy / weight.sum().clamp(min=1))
    if "dice" in kind:
        probability = torch.sigmoid(logits) * weight
        overlap = 2 * (probability * target).sum() + 10
        parts.append(1 - overlap / (probability.sum() + (target * weight).sum() + 10))
    return torch.stack(parts).sum()


class Segmenter(L.LightningModule):
    """A network with its loss, optimiser and schedule.

    Args:
        model: name as in `build_model`.
        recipe: `Recipe.to_dict()`; built-in types, so that checkpoints load without pickle.
    """

    def __init__(self, model: str, recipe: dict) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recipe = recipe_from_dict(recipe)
        self.network = build_model(
            model,
            self.recipe.channels,
            encoder_weights=self.recipe.encoder_weights,
            **self.recipe.decoder(),
        )
        self.network.to(memory_format=torch.channels_last)
        self._counts = torch.zeros(3, dtype=torch.float64)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map [batch, channel, row, column] to logits [batch, 1, row, column]."""
        return self.network(image.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch, batch_index: int) -> torch.Tensor:
        """Return the loss of one batch."""
        image, target, weight = batch
        loss = segmentation_loss(self(image), target, weight, self.recipe.loss)
        if not torch.isfinite(loss):
            raise SpineError(
                f"the loss became {loss.item()} at step {self.global_step} of "
                f"{self.hparams.model}: lower learning_rate or use precision 32-true"
            )
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_index: int) -> None:
        """Count one batch of whole slices; Dice is pooled over all of them."""
        image, target, weight = batch
        logits = self(image).float()
        self.log("val_loss", segmentation_loss(logits, target, weight, self.recipe.loss))
        guess = (logits > 0) & (weight > 0)
        truth = target > 0
        sums = [(guess & truth).sum(), guess.sum(), truth.sum()]
        self._counts += torch.stack(sums).double().cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the pooled Dice."""
        both, guessed, true = self._counts.tolist()
        self.log("val_dice", 2 * both / max(1.0, guessed + true), prog_bar=True)
        self._counts.zero_()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, **_) -> None:
        """Clip by norm; Lightning refuses a fused optimiser, though bf16 needs no unscaling."""
        nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self):
        """AdamW with a one-cycle schedule (Smith & Topin 2019, doi:10.1117/12.2520589)."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=recipe.steps + 1, pct_start=0.2
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class MovingAverage(WeightAveraging):
    """Keep an exponential moving average of the weights, brought up to date every fourth step.

    Unlike Lightning's own it takes all tensors at once; taking them one by one, and at every
    step, costs up to a tenth of a step on a CPU.

    Args:
        decay: a step; four of them are taken together.
    """

    EVERY = 4

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay**self.EVERY))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Tell whether the average is to be updated after this step."""
        return step_idx is not None and step_idx % self.EVERY == self.EVERY - 1


def choose_device(wish: str = "auto") -> str:
    """Return "cuda" or "cpu".

    Args:
        wish: "auto", "cpu" or "gpu".

    Raises:
        SpineError: if a GPU is asked for and none can be used.
    """
    if wish not in ("auto", "cpu", "gpu"):
        raise SpineError(f"unknown device {wish!r}: use auto, cpu or gpu")
    if wish != "cpu" and torch.cuda.is_available():
        return "cuda"
    if wish == "gpu":
        apple = torch.backends.mps.is_available()
        found = "Apple's GPU is not supported yet" if apple else "torch sees no CUDA GPU"
        raise SpineError(f"--device gpu: {found}; use --device cpu")
    return "cpu"


def choose_precision(wish: str, device: str) -> str:
    """Return "bf16-mixed" where the hardware multiplies in bf16 and "32-true" elsewhere."""
    if wish != "auto":
        return wish
    able = torch.cuda.is_bf16_supported() if device == "cuda" else cpu_computes_bf16()
    return "bf16-mixed" if able else "32-true"


def cpu_computes_bf16() -> bool:
    """Tell whether this CPU has AMX or AVX512-BF16 and oneDNN was not told to leave them."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not any(name in limit for name in ("BF16", "AMX", "DEFAULT", "FP16")):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


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
) -> Fitted:
    """Load a finished run, go on with a stopped one, or train.

    Args:
        model: name as in `build_model`.
        recipe: how to train.
        training, validation: sliced volumes of different patients.
        folder: of the run: logs, `last.ckpt`, `best.ckpt`, `weights.safetensors`.
        device: "auto", "cpu" or "gpu".
        progress: show a progress bar.

    Raises:
        SpineError: if the folder holds a run with another recipe, or training diverges.
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
    try:
        module = fit(model, recipe, training, validation, folder, device, progress)
    finally:  # what a stopped run took counts too
        seconds = time.perf_counter() - started
        if folder.is_dir():
            (folder / "seconds.json").write_text(json.dumps(before + seconds), encoding="utf-8")
    network = module.network.cpu().eval()
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
) -> Segmenter:
    """Train with Lightning, from `last.ckpt` in the folder where there is one.

    Returns:
        The module with the averaged weights of the last step.
    """
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    if last.is_file():
        hyper = _read_hyperparameters(last)
        _require_same_recipe(recipe_from_dict(hyper["recipe"]), recipe, folder)
    kind = choose_device(device)
    module = Segmenter(model, recipe.to_dict())
    with _quiet():
        trainer = _trainer(recipe, folder, kind, progress, callbacks)
        trainer.fit(
            module,
            training_loader(training, recipe),
            validation_loader(validation, recipe),
            ckpt_path=str(last) if last.is_file() else None,
            weights_only=True,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    return module


def _trainer(
    recipe: Recipe, folder: Path, kind: str, progress: bool, callbacks: tuple[L.Callback, ...]
) -> L.Trainer:
    # not save_last: it would save the last one only where it is also the best
    keep = [
        ModelCheckpoint(folder, "best", "val_dice", mode="max", enable_version_counter=False),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]
    average = [MovingAverage(recipe.averaging)] if recipe.averaging else []
    bar = [TQDMProgressBar(refresh_rate=10)] if progress else []
    return L.Trainer(
        accelerator=kind,
        devices=1,
        precision=choose_precision(recipe.precision, kind),
        max_steps=recipe.steps,
        gradient_clip_val=1.0,
        callbacks=[*keep, *average, *bar, *callbacks],
        logger=[CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, "", "")],
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=progress,
        use_distributed_sampler=False,
    )


@contextmanager
def _quiet():
    """Keep the trainer's advice out of the console: workers and devices are chosen on purpose."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        yield
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
