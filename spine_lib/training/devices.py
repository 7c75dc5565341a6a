"""Lesson 6: on which device, in which precision and in how many processes a run computes.

Lightning starts the processes of one machine itself, by calling the same command again; `torchrun`
and SLURM's `srun` start those of many. Every process then does the same up to the training, in
which each takes its share of every batch; what comes after is done by the first alone.
"""

import os
import warnings
from dataclasses import dataclass

import torch
from torch import distributed

from spine_lib import SpineError


def choose_device(name: str = "auto") -> str:
    """Return "cuda", "mps" or "cpu", as PyTorch names them.

    Args:
        name: "auto" (a CUDA GPU where there is one), "cpu", "cuda" ("gpu" is the same), or "mps",
            Apple's GPU, instead of which the CPU is taken, with a warning, where there is none.
    """
    if name not in ("auto", "cpu", "cuda", "gpu", "mps"):
        raise SpineError(f"unknown device {name!r}: use auto, cpu, cuda or mps")
    if name == "mps":
        if torch.backends.mps.is_available():
            return "mps"
        warnings.warn("PyTorch sees no Apple GPU here: the CPU is used instead.", stacklevel=2)
    elif name != "cpu" and torch.cuda.is_available():
        return "cuda"
    elif name in ("cuda", "gpu"):
        raise SpineError(f"--device {name}: PyTorch sees no CUDA GPU; use --device cpu or mps")
    return "cpu"


def choose_precision(precision: str, device: str) -> str:
    """Return the fastest precision that a device computes in for "auto", or the one asked for.

    That is "bf16-mixed" where the hardware has it, "16-mixed" on older CUDA GPUs (a T4 emulates
    bf16, slowly), else "32-true".
    """
    if precision == "16-mixed" and device != "cuda":
        raise SpineError("precision 16-mixed needs a CUDA GPU: set precision to auto or 32-true")
    if precision != "auto":
        return precision
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if native else "16-mixed"
    return "bf16-mixed" if device == "cpu" and cpu_computes_bf16() else "32-true"


def autocast(precision: str, device: str) -> torch.autocast:
    """Return the context in which a network predicts in a precision, as in `choose_precision`."""
    chosen = choose_precision(precision, device)
    dtype = torch.float16 if chosen == "16-mixed" else torch.bfloat16
    return torch.autocast(device, dtype, enabled=chosen != "32-true")


def cpu_computes_bf16() -> bool:
    """Return whether this CPU has AMX and oneDNN may use it.

    With AVX512-BF16 alone, steps take 1.2 to 1.4 times as long as in 32 bit (`speed.md`).
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    allowed = not limit or any(name in limit for name in ("AMX", "DEFAULT"))
    return allowed and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()


@dataclass(frozen=True)
class Processes:
    """How many processes train one network: on each machine (one a GPU), and how many machines.

    `strategy` is Lightning's name of how they work together; "auto" is one process alone, and
    DistributedDataParallel for several.
    """

    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    @property
    def count(self) -> int:
        """Number of processes on all machines."""
        return self.devices * self.nodes

    def require_fit(self, batch: int, device: str) -> None:
        """Raise an error for what cannot run, before anything is fetched or started."""
        if batch % self.count:
            raise SpineError(
                f"a batch of {batch} patches cannot be shared by {self.count} processes: choose "
                f"--devices and --nodes whose product divides {batch}, or another batch in the "
                "recipe"
            )
        gpus = torch.cuda.device_count() if device == "cuda" else self.devices
        if gpus < self.devices:
            raise SpineError(
                f"--devices {self.devices}: torch sees {gpus} GPU{'s' if gpus > 1 else ''} on "
                "this machine; ask for as many, or add --device cpu"
            )
        _, launched = _launched() or (0, self.count)
        if launched != self.count:
            raise SpineError(
                f"{launched} processes were started from outside (torchrun or srun), and --devices "
                f"{self.devices} --nodes {self.nodes} makes {self.count}: make them the same"
            )


ALONE = Processes()


def _launched() -> tuple[int, int] | None:
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
    """Return whether this process is the one that writes, prints and evaluates."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    if launched := _launched():
        return launched[0] == 0
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK"))
