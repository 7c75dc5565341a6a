"""Lesson 6: time a training's steps, and stop it in time with a checkpoint of its last step."""

from __future__ import annotations

from pathlib import Path

import lightning as L

from spine_lib.reproduce.laps import Laps


class TrainingLaps(L.Callback):
    """Time a training's steps apart from its start, its validation and what lies between epochs.

    Out of time, it saves a checkpoint first, from which the run goes on with the next step.

    Args:
        laps: the stop watch.
        model: whose training it is.
        folder: of the training, for the checkpoint.
    """

    ASK_EVERY = 5
    """Several processes agree after so many steps whether to stop; alone, one asks after each."""

    def __init__(self, laps: Laps, model: str, folder: Path) -> None:
        self._laps, self._model, self._last = laps, model, Path(folder) / "last.ckpt"
        self._begun = False

    def on_train_epoch_start(self, trainer, module) -> None:
        """Part the time between two epochs from that of the steps."""
        stage = "between epochs" if self._begun else "start"
        self._laps(f"{stage} {self._model}", int(self._begun), may_end=False)

    def on_train_batch_end(self, trainer, module, *_) -> None:
        """Count a step; the first of a call is its start."""
        self._laps(f"{'train' if self._begun else 'start'} {self._model}", may_end=False)
        self._begun = True
        if trainer.global_step % module.recipe.steps_per_epoch == 0:
            return  # an epoch ends with its validation
        if trainer.global_step == module.recipe.steps:
            return
        if trainer.world_size > 1 and trainer.global_step % self.ASK_EVERY:
            return
        if trainer.strategy.reduce_boolean_decision(self._laps.is_over(), all=False):
            trainer.save_checkpoint(self._last)
            for logger in trainer.loggers:
                logger.save()
            self._laps.end()

    def on_validation_start(self, trainer, module) -> None:
        """Leave what comes before to the steps' epoch."""
        self._laps(f"between epochs {self._model}", 0, may_end=False)

    def on_validation_end(self, trainer, module) -> None:
        """Count the slices of a validation."""
        slices = len(trainer.val_dataloaders.dataset)
        self._laps(f"validate {self._model}", slices, may_end=False)
