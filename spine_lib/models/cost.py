"""Lesson 5: what a network costs on this machine: parameters, multiply-adds, time and memory.

Run as a program, it measures the memory of one network in a process of its own:
`python -m spine_lib.models.cost unet_resnet34 8 128`.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from spine_lib import SpineError
from spine_lib.models.build import build_model

MB = 1e6


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers training may change."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count_multiply_adds(network: nn.Module, rows: int, columns: int, in_channels: int = 1) -> int:
    """Return the multiplications of a network's convolutions for one image, each with its addition.

    Nothing is computed. Normalisation, ReLU and enlarging are left out, as in most papers.

    Args:
        network: maps [batch, in_channels, row, column].
        rows, columns, in_channels: of the image.
    """
    shapes_only = copy.deepcopy(network).to("meta").eval()
    image = torch.zeros(1, in_channels, rows, columns, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes_only(image)
    return counter.get_total_flops() // 2


def kept_for_backward_mb(network: nn.Module, images: Tensor) -> float:
    """Return the megabytes that a training step must keep from the forward to the backward pass.

    Args:
        network: in training mode.
        images: float32 [batch, channel, row, column].

    Returns:
        Millions of bytes of all maps that autograd saved, each counted once, weights left out.
    """
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(images)  # holds what is kept, so no address is used twice
    total = sum(kept.values()) / MB
    del output
    return total


def forward_seconds(network: nn.Module, images: Tensor, at_least_s: float = 1.0) -> float:
    """Return the median seconds of predicting `images`, measured for at least so long."""
    network.eval()
    with torch.inference_mode():
        return _median_seconds(lambda: network(images), at_least_s)


def step_seconds(network: nn.Module, images: Tensor, at_least_s: float = 1.0) -> float:
    """Return the median seconds of a training step on `images`: forward, backward, update."""
    return _median_seconds(training_step(network, images), at_least_s)


def training_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return a function that does one training step on `images`, with a target of zeros."""
    network.train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)

    def step() -> None:
        logits = network(images)
        loss = functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _median_seconds(function: Callable[[], object], at_least_s: float) -> float:
    function()  # the first call prepares
    measured: list[float] = []
    while len(measured) < 3 or sum(measured) < at_least_s:
        started = time.perf_counter()
        function()
        measured.append(time.perf_counter() - started)
    return statistics.median(measured)


def peak_memory_mb(names: Iterable[str], batch: int, side: int) -> dict[str, dict[str, float]]:
    """Return the peak memory of networks, each measured in a new process.

    Args:
        names: of the networks, as for `build_model`.
        batch: images at once.
        side: rows and columns of each.

    Returns:
        For each name "predict" and "train": the largest resident set of its process, less what it
        held before the network was made, in millions of bytes.

    Raises:
        SpineError: if a process fails.
    """
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "spine_lib.models.cost", name, str(batch), str(side)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for name in names
    }
    return {name: _collect(process, name) for name, process in started.items()}


def _collect(process: subprocess.Popen, name: str) -> dict[str, float]:
    output, errors = process.communicate()
    if process.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise SpineError(f"the memory of {name} could not be measured: {last}")
    return json.loads(output.splitlines()[-1])


def _measure_here(name: str, batch: int, side: int) -> dict[str, float]:
    before = resident_bytes()
    network = build_model(name)
    images = torch.rand(batch, 1, side, side)
    with torch.inference_mode():
        network.eval()(images)
    predict = resident_bytes(peak=True)
    step = training_step(network, images)
    for _ in range(2):  # the first makes the optimiser's averages, the second has them
        step()
    train = resident_bytes(peak=True)
    return {"predict": (predict - before) / MB, "train": (train - before) / MB}


def resident_bytes(peak: bool = False) -> int:
    """Return the memory that this process holds, or the most that it ever held."""
    info = psutil.Process().memory_info()
    if not peak:
        return info.rss
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held before this program began
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    if hasattr(info, "peak_wset"):  # Windows
        return info.peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts bytes


if __name__ == "__main__":
    print(json.dumps(_measure_here(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
