"""Lesson 6: one run in several processes, on one machine or on many, and which of them this is.

Lightning starts the processes of one machine itself, by calling the same command again; `torchrun`
and SLURM's `srun` start those of many.  Every process then does the same up to the training, in
which each takes its share of every batch; what comes after is done by the first alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from torch import distributed

from spine_lib import SpineError


@dataclass(frozen=True)
class Processes:
    """Say in how many processes a run trains.

    Attributes:
        devices: processes on each machine; on GPUs each has one of its own.
        nodes: machines.
        strategy: Lightning's name of how they work together; "auto" is one process alone, and
            DistributedDataParallel for several.
    """

    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise SpineError(f"--{name} is {getattr(self, name)}: give 1 or more")

    @property
    def count(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.nodes

    def require_fit(self, batch: int, device: str) -> None:
        """Refuse what cannot run, before anything is fetched or started.

        Args:
            batch: patches of a step, over all processes.
            device: "cuda" or "cpu".

        Raises:
            SpineError: if the batch cannot be shared evenly, GPUs are missing, or torchrun or srun
                started another number of processes.
        """
        if batch % self.count:
            raise SpineError(
                f"a batch of {batch} patches cannot be shared by {self.count} processes: choose "
                f"--devices and --nodes whose product divides {batch}, or another batch in the "
                "recipe"
            )
        there = torch.cuda.device_count() if device == "cuda" else self.devices
        if there < self.devices:
            raise SpineError(
                f"--devices {self.devices}: torch sees {there} GPU{'s' if there > 1 else ''} on "
                "this machine; ask for as many, or add --device cpu"
            )
        if (found := launched()) and found[1] != self.count:
            raise SpineError(
                f"{found[1]} processes were started from outside (torchrun or srun), and --devices "
                f"{self.devices} --nodes {self.nodes} makes {self.count}: make them the same"
            )


ALONE = Processes()
"""One process, the usual."""


def launched() -> tuple[int, int] | None:
    """Return rank and number of processes where torchrun or srun started them, else None."""
    value = os.environ
    if "TORCHELASTIC_RUN_ID" in value:
        return int(value["RANK"]), int(value["WORLD_SIZE"])
    # The shell of an interactive job has these variables too, and is no process of a run.
    interactive = value.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_PROCID" in value and "SLURM_NTASKS" in value and not interactive:
        return int(value["SLURM_PROCID"]), int(value["SLURM_NTASKS"])
    return None


def is_first() -> bool:
    """Tell whether this process is the one that writes, prints and evaluates."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    if found := launched():
        return found[0] == 0
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process of this or any other run in after the other; what the first made, it finds.

    Args:
        path: of the lock's file, on a disk that all of them see.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
