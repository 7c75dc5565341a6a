"""Lesson 6: the LightningModule, and how its weights are averaged and kept."""

from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import WeightAveraging
from torch import distributed, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.slices.patches import class_map
from spine_lib.training.checkpoints import DataRecord, weights_sha256
from spine_lib.training.devices import choose_precision
from spine_lib.training.losses import segmentation_loss, sum_over_processes
from spine_lib.training.recipe import recipe_from_dict


class Segmenter(L.LightningModule):
    """A network with its loss, optimiser and schedule.

    Args:
        model: name as in `build_model`.
        recipe: `Recipe.to_dict()`; built-in types, so that checkpoints load without pickle.
        data: identifies the training's volumes; every checkpoint stores it.
    """

    def __init__(self, model: str, recipe: dict, data: DataRecord | None = None) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="data")
        self.data = data
        self.recipe = recipe_from_dict(recipe)
        pretrained = self.recipe.encoder_weights
        self.network = self.recipe.build(model, pretrained).to(memory_format=torch.channels_last)
        self.encoder_sha256 = weights_sha256(self.network.encoder) if pretrained else ""
        self._counts = torch.zeros(self.recipe.classes, 3, dtype=torch.float64)
        self._unchecked: tuple[torch.Tensor, int, int] | None = None
        self.began = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map [batch, channel, row, column] to logits [batch, class, row, column]."""
        return self.network(image.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch, batch_index: int) -> torch.Tensor:
        """Return the loss of one batch."""
        image, target, weight = batch
        logits = self(image)
        shared = {"all_reduce": sum_over_processes} if self.trainer.world_size > 1 else {}
        loss = segmentation_loss(logits, target, weight, self.recipe.loss, **shared)
        self._check_loss()
        self._unchecked = (loss.detach(), batch_index, self.global_step)
        if not self.checks_later:
            self._check_loss()
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @property
    def checks_later(self) -> bool:
        """Whether a loss is checked one step later, so as not to wait for a GPU."""
        return self.device.type == "cuda"

    def _check_loss(self) -> None:
        """Raise an error that names the cases of the batch if its loss is NaN or infinite."""
        unchecked, self._unchecked = self._unchecked, None
        if unchecked is None or torch.isfinite(unchecked[0]):
            return
        loss, batch_index, step = unchecked
        if self.global_rank:  # the loss is the same in all processes; the first one reports it
            raise SystemExit(0)
        cases = self.trainer.train_dataloader.sampler.cases(batch_index)
        raise SpineError(
            f"the loss became {loss.item()} at step {step} of {self.hparams.model}, in a batch of "
            f"{', '.join(cases)}: check these cases, lower learning_rate or use precision 32-true"
        )

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Check the last loss, so that no weights are kept that it has spoilt; store the data."""
        self._check_loss()
        checkpoint["training_data"] = self.data and self.data.to_dict()
        checkpoint["encoder_sha256"] = self.encoder_sha256
        for log in self.trainer.loggers:  # after a stop, rows up to this step are there
            log.save()

    def on_train_start(self) -> None:
        """Seed dropout differently in each process but the first."""
        self.began = True
        if self.global_rank:
            torch.manual_seed(self.recipe.seed + 1000 * self.global_rank + self.global_step)

    def on_train_epoch_start(self) -> None:
        """Set the epoch by steps: resumed at an epoch's end, the trainer counts one too many."""
        sampler = self.trainer.train_dataloader.sampler
        sampler.set_epoch(self.global_step // self.recipe.steps_per_epoch)

    def on_train_batch_start(self, *_) -> None:
        """Set the step for the logs: resumed at an epoch's end, the trainer counts one too many."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def on_validation_epoch_start(self) -> None:
        """Give all processes the first one's statistics of batch normalisation."""
        self._check_loss()
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, 0)

    def validation_step(self, batch, batch_index: int) -> None:
        """Count one batch of whole slices: of the spine, then of its regions if they are taught."""
        image, target, weight = batch
        logits = self(image).float()
        loss = segmentation_loss(logits, target, weight, self.recipe.loss)
        self.log("val_loss", loss, sync_dist=True)
        predicted = torch.where(weight > 0, class_map(logits), 0)
        pairs = [(predicted > 0, target > 0)]
        pairs += [(predicted == region, target == region) for region in range(1, logits.shape[1])]
        sums = [torch.stack([(a & b).sum(), a.sum(), b.sum()]) for a, b in pairs]
        self._counts += torch.stack(sums).cpu()

    def on_validation_epoch_end(self) -> None:
        """Log the pooled Dice of the spine, and the mean of its regions that there are."""
        counts = self._counts
        if self.trainer.world_size > 1:
            counts = self.trainer.strategy.reduce(counts.to(self.device), reduce_op="sum")
        dice = [2 * both / max(1.0, predicted + true) for both, predicted, true in counts.tolist()]
        self.log("val_dice", dice[0], prog_bar=True)
        shown = [score for score, (_, *sizes) in zip(dice[1:], counts[1:].tolist()) if any(sizes)]
        if shown:
            self.log("val_region_dice", sum(shown) / len(shown))
        self._counts.zero_()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, **_) -> None:
        """Clip by norm; Lightning refuses a fused optimiser, which is taken without scaling."""
        nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self):
        """AdamW with a one-cycle schedule (Smith & Topin 2019, doi:10.1117/12.2520589)."""
        recipe = self.recipe
        # Clipping must see unscaled gradients, and a fused step would unscale them after it.
        fused = choose_precision(recipe.precision, self.device.type) != "16-mixed"
        optimizer = torch.optim.AdamW(
            self.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay, fused=fused
        )
        total = max(6, recipe.steps + 1)  # a cycle of five has a rise of no steps: 0 / 0
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=total, pct_start=0.2
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class MovingAverage(WeightAveraging):
    """An exponential moving average of the weights, with four steps' decay at every fourth step.

    Unlike Lightning's own it takes all tensors at once; taking them one by one, and at every
    step, costs up to a tenth of a step on a CPU.
    """

    EVERY = 4

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay**self.EVERY))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the average is updated after this step."""
        return step_idx is not None and step_idx % self.EVERY == self.EVERY - 1


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint files, each staged beside the one before, which stays until then.

    Lightning itself stages them in the system's temporary folder; from another file system, the
    last step is a copy over the good file.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options=None) -> None:
        """Write a checkpoint whole or not at all."""
        with atomic_file(Path(path)) as stream:
            torch.save(checkpoint, stream)
