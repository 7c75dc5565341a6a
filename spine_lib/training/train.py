"""Lesson 6: train a network with Lightning, resume it, and load it instead of training twice.

A run folder that is finished is loaded, one that was stopped is resumed with the same numbers (on
CPU), an empty one is trained; a folder of another recipe or of other data is refused.

Several processes train as one would: each takes its share of every batch, the loss is that of the
whole batch, and the first writes. On GPUs BatchNorm's statistics are those of the whole batch too;
on CPU, where PyTorch cannot share them, they are each process's own, and scores differ a little
(`tests/training/test_many_processes.py` states how much).
"""

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from spine_lib import SpineError
from spine_lib.ct.files import listed, read_json, sole_use, write_json
from spine_lib.slices.store import SliceStore
from spine_lib.training import devices
from spine_lib.training.checkpoints import Checkpoint, DataRecord, read_checkpoint, save_weights
from spine_lib.training.devices import ALONE, Processes, is_first
from spine_lib.training.loading import training_loader, validation_loader
from spine_lib.training.logs import MetricsLog, read_log
from spine_lib.training.module import AtomicCheckpoints, MovingAverage, Segmenter
from spine_lib.training.recipe import Recipe

WEIGHTS = "weights.safetensors"
"""Name of a finished training's file of weights, in its folder."""


@dataclass(frozen=True)
class Fitted(Checkpoint):
    """A trained network with its file and its history."""

    weights: Path
    trained_seconds: float = 0.0  # over all calls
    curve: Sequence[dict[str, float]] = ()  # rows of the log: "step", and what was measured there


def load_or_train(
    model: str,
    recipe: Recipe,
    training: SliceStore,
    validation: SliceStore,
    folder: str | Path,
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> Fitted | None:
    """Load a finished run, resume a stopped one, or train; return None if not the first process.

    Args:
        model, recipe: which network, and how to train it.
        training, validation: sliced volumes of different patients.
        folder: of the run: logs, `last.ckpt`, `best.ckpt`, `weights.safetensors`.
        device: "auto", "cpu" or "cuda".
        progress: show a progress bar.
        options: of `fit`.

    Raises a `SpineError` if the folder holds a run with another recipe or of other data, training
    diverges, or the processes cannot share the batch.
    """
    folder = Path(folder)
    weights = folder / WEIGHTS
    before = _read_seconds(folder / "seconds.json")
    if weights.is_file():
        fitted = load_fitted(weights, model)
        _require_same_run(folder, fitted, recipe, data_identity(training, validation))
        return fitted
    started = time.perf_counter()
    try:
        module = fit(model, recipe, training, validation, folder, device, progress, **options)
    finally:  # the time of a stopped run counts too
        if folder.is_dir() and is_first():
            write_json(folder / "seconds.json", before + time.perf_counter() - started)
    if not is_first():
        return None
    save_weights(module.network, model, recipe, weights, False, module.data, module.encoder_sha256)
    return load_fitted(weights, model)


def load_fitted(weights: Path, model: str | None = None) -> Fitted:
    """Load a finished training from its folder; raise a `SpineError` if it has not ended."""
    found, log = read_checkpoint(weights, model), weights.with_name("metrics.csv")
    trained_seconds = _read_seconds(weights.with_name("seconds.json"))
    curve = read_log(log) if log.is_file() else []
    return Fitted(**vars(found), weights=weights, trained_seconds=trained_seconds, curve=curve)


def _read_seconds(path: Path) -> float:
    seconds = read_json(path) if path.is_file() else 0.0
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise SpineError(f"{path} holds {seconds!r:.80}, which is no time in seconds: delete it")
    return seconds


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

    Args:
        model, recipe, training, validation, folder, device, progress: as for `load_or_train`.
        callbacks: of Lightning, besides those that keep checkpoints and logs.
        bar: how many progress bars of other trainings are above this one's.
        processes: how many share the training; every one of them calls this.

    Returns the module with the averaged weights of the last step.
    """
    kind = devices.choose_device(device)
    processes.require_fit(recipe.batch, kind)
    if (kind, devices.choose_precision(recipe.precision, kind)) == ("cuda", "32-true"):
        torch.set_float32_matmul_precision("high")  # products in TensorFloat-32
    last, data = folder / "last.ckpt", data_identity(training, validation)
    with sole_use(folder) if is_first() else nullcontext(), _quiet():
        stopped = read_checkpoint(last, model) if last.is_file() else None
        if stopped:
            _require_same_run(folder, stopped, recipe, data)
        steps = stopped.step if stopped else 0
        L.seed_everything(recipe.seed, workers=True, verbose=False)
        module = Segmenter(model, recipe.to_dict(), data)
        if steps >= recipe.steps:  # Lightning would return the weights before they were averaged
            module.network = stopped.network
            return module
        del stopped  # Lightning loads it once more
        bars = [TQDMProgressBar(refresh_rate=10, process_position=bar)] if progress else []
        trainer = _trainer(recipe, folder, kind, (*bars, *callbacks), processes, steps)
        share = (recipe, trainer.global_rank, trainer.world_size)
        loaders = (training_loader(training, *share), validation_loader(validation, *share))
        with _explained_stop(last, module):
            trainer.fit(module, *loaders, ckpt_path=last if steps else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return module


@contextmanager
def _explained_stop(last: Path, module: Segmenter):
    """Turn what a trainer raises into what has happened: Ctrl-C, SIGTERM, a damaged checkpoint."""
    try:
        yield
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):  # so Lightning ends after Ctrl-C
            raise leaving.__context__ from leaving
        if isinstance(leaving, SIGTERMException):  # its code would be 0
            leaving.code = 128 + signal.SIGTERM
        raise
    except Exception as error:
        if isinstance(error, SpineError) or module.began or not last.is_file():
            raise
        line = " ".join(str(error).split())
        raise SpineError(
            f"{last} cannot be resumed from ({type(error).__name__}: {line:.100}): delete it to "
            "train anew"
        ) from error


def _trainer(
    recipe: Recipe,
    folder: Path,
    kind: str,
    callbacks: tuple[L.Callback, ...],
    processes: Processes,
    steps: int,
) -> L.Trainer:
    # not save_last: it would save the last one only where it is also the best
    kept = [
        ModelCheckpoint(folder, "best", "val_dice", mode="max", enable_version_counter=False),
        ModelCheckpoint(folder, "last", enable_version_counter=False),
    ]
    # a run that ends before the first update would keep the weights that it began with
    if recipe.averaging and recipe.steps >= MovingAverage.EVERY:
        kept.append(MovingAverage(recipe.averaging))
    strategy = processes.strategy
    if strategy == "auto" and processes.count > 1:
        # A pretrained encoder has layers that segmentation does not use; the used part of the graph
        # is the same in every step, so it is searched for once.
        strategy = DDPStrategy(static_graph=True, gradient_as_bucket_view=True)
    try:
        return L.Trainer(
            accelerator=kind,
            devices=processes.devices,
            num_nodes=processes.nodes,
            strategy=strategy,
            sync_batchnorm=kind == "cuda" and processes.count > 1,
            precision=devices.choose_precision(recipe.precision, kind),
            benchmark=kind == "cuda",  # all patches are of one size; scans are not
            max_steps=recipe.steps,
            gradient_clip_val=1.0,
            callbacks=[*kept, *callbacks],
            logger=[
                MetricsLog(folder / "metrics.csv", steps),
                TensorBoardLogger(folder, "", "", purge_step=steps or None),
            ],
            plugins=[AtomicCheckpoints()],
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


def data_identity(training: SliceStore, validation: SliceStore) -> DataRecord:
    """Return what identifies the data of a training: the volumes of both stores, in their order."""
    rows = [
        [(v.case_id, v.plane, v.source, v.shape, v.distance_mm, v.sha256) for v in store.volumes]
        for store in (training, validation)
    ]
    volumes = (*training.volumes, *validation.volumes)
    return DataRecord(*rows, {volume.case_id: volume.image_sha256 for volume in volumes})


def _require_same_run(folder: Path, stored: Checkpoint, recipe: Recipe, data: DataRecord) -> None:
    """Raise an error where stored weights are of another recipe or saw other data."""
    free = {"workers", "name", "models"}  # these change no numbers
    a, b = stored.recipe.to_dict(), recipe.to_dict()
    if different := [key for key in a if key not in free and a[key] != b[key]]:
        pairs = ", ".join(f"{key} {a[key]} there, {b[key]} asked for" for key in different)
        raise SpineError(
            f"{folder} holds a run with another recipe ({pairs}): choose another --name"
        )
    if stored.data != data:
        seen, given = (
            {(part, *row) for part in ("training", "validation") for row in getattr(record, part)}
            for record in (stored.data or DataRecord([], []), data)  # older versions kept none
        )
        odd = listed(sorted({case_id for _, case_id, *_ in seen ^ given}), most=5)
        raise SpineError(
            f"{folder} holds a run that was trained on other data than are given now (what "
            f"differs: {odd or 'the order of its cases'}): choose another --name"
        )


@dataclass(frozen=True)
class Job:
    """The arguments of `load_or_train`."""

    model: str
    recipe: Recipe
    training: SliceStore
    validation: SliceStore
    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def is_finished(self) -> bool:
        return self.weights.is_file()


def train_side_by_side(jobs: Sequence[Job], at_once: int = 2, progress: bool = True) -> None:
    """Train what is not trained yet, several networks at a time, on the CPU.

    A step on small patches gains little from a second thread, so that two trainings with half of
    the cores each take little longer than one. The numbers are those of one training after the
    other, up to rounding. With a single core or a single job nothing is done here; the last of
    several has as many threads as the others, so that a stopped run comes to the same numbers.

    Args:
        jobs: trainings with folders of their own; those that are finished are checked first.
        at_once: how many; each needs about 2 GB.
        progress: show a progress bar for each.

    Raises as `load_or_train` does; the other training is still finished or kept.
    """
    for job in jobs:
        if job.is_finished():
            data = data_identity(job.training, job.validation)
            stored = read_checkpoint(job.weights)
            _require_same_run(job.folder, stored, job.recipe, data)
    waiting = [job for job in jobs if not job.is_finished()]
    at_once = min(at_once, len(jobs), _cores())
    if not waiting or at_once < 2:
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    threads, others = _cores() // at_once, set(multiprocessing.active_children())
    with ProcessPoolExecutor(at_once, spawn, _start_worker, (threads,)) as pool:
        running = [
            pool.submit(_train, job, progress, number % at_once)
            for number, job in enumerate(waiting)
        ]
        try:
            for future in as_completed(running):
                future.result()
        except (KeyboardInterrupt, SystemExit):  # SIGTERM comes to this process alone
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            raise
        finally:
            for future in running:
                future.cancel()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a container may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the program that started it is gone; its checkpoints stay."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _train(job: Job, progress: bool, bar: int) -> None:
    # with every core busy, a process that makes patches beside the step would gain nothing
    recipe = job.recipe.changed(workers=0)
    stores = (job.training, job.validation)
    load_or_train(job.model, recipe, *stores, job.folder, "cpu", progress, bar=bar)
