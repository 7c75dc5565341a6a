"""Lesson 6: train two networks beside each other on a CPU, each in a process of its own.

A step on small patches gains little from a second thread: the layers are too short to share out.
Two trainings with half of the cores each are done in little more than the time of one.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spine_lib.slices.store import SliceStore
from spine_lib.training.recipe import Recipe
from spine_lib.training.train import Fitted, load_or_train


@dataclass(frozen=True)
class Job:
    """Name one training: `load_or_train` with these arguments finishes it.

    Attributes:
        model: name as in `build_model`.
        recipe: with the seed of this training.
        training, validation: sliced volumes of different patients.
        folder: of the training.
    """

    model: str
    recipe: Recipe
    training: SliceStore
    validation: SliceStore
    folder: Path

    def is_finished(self) -> bool:
        """Tell whether its weights are there."""
        return (self.folder / "weights.safetensors").is_file()


def train_side_by_side(
    jobs: Sequence[Job],
    at_once: int = 2,
    progress: bool = True,
    afterwards: Callable[[Job, Fitted], Any] | None = None,
    tell: Callable[[Job, Any], object] = lambda job, found: None,
) -> None:
    """Train what is not trained yet, several networks at a time, on the CPU.

    The numbers are those of one training after the other, up to rounding: with fewer threads sums
    are taken in another order.  With a single core or a single job nothing is done here; the last
    of several has no more threads than the others had, so that a run that was stopped comes to the
    same numbers.

    Args:
        jobs: trainings with folders of their own.
        at_once: how many; each needs about 2 GB.
        progress: show a progress bar for each.
        afterwards: called with each job and its network in the process that trained it; a function
            of a module, as it is sent there by its name.
        tell: called here with each job that ended and what `afterwards` returned.

    Raises:
        SpineError: as `load_or_train` does; the other training is still finished, or kept as far
            as it came.
    """
    waiting = [job for job in jobs if not job.is_finished()]
    at_once = min(at_once, len(jobs), _cores())
    if not waiting or at_once < 2:
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    threads = _cores() // at_once
    with ProcessPoolExecutor(at_once, spawn, _begin, (threads,)) as pool:
        running = {
            pool.submit(_train, job, place % at_once if progress else None, afterwards): job
            for place, job in enumerate(waiting)
        }
        try:
            for future in as_completed(running):
                tell(running[future], future.result())
        finally:
            for future in running:
                future.cancel()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what a container may use
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Stop when the program that asked for the training is gone; its checkpoints stay."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(
    job: Job, place: int | None, afterwards: Callable[[Job, Fitted], Any] | None = None
) -> Any:
    # with every core busy, a process that makes patches beside the step would gain nothing
    recipe = job.recipe.changed(workers=0)
    options: dict[str, Any] = {"device": "cpu", "progress": place is not None}
    fitted = load_or_train(
        job.model, recipe, job.training, job.validation, job.folder, **options, bar=place or 0
    )
    return afterwards(job, fitted) if afterwards else None
