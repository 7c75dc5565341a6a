"""Lesson 6: what a run computes on, and in which precision."""

from __future__ import annotations

import importlib.util
import os

import torch

from spine_lib import SpineError


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


def prepare_device(device: str, precision: str) -> None:
    """Let a GPU look for its fastest convolutions, and multiply 32 bits in TensorFloat-32.

    Args:
        device: "cuda" or "cpu", where nothing is to be done.
        precision: of the recipe.
    """
    if device != "cuda":
        return
    torch.backends.cudnn.benchmark = True  # all patches are of one size; scans are not
    if choose_precision(precision, device) == "32-true":
        torch.set_float32_matmul_precision("high")


def require_compiler(device: str) -> None:
    """Refuse a recipe that wants its networks compiled where that cannot be done.

    Raises:
        SpineError: if `torch.compile` finds no C++ compiler for a CPU, or no Triton for a GPU.
    """
    if device == "cuda":
        missing = "Triton" if importlib.util.find_spec("triton") is None else ""
    else:
        missing = "" if _has_cpp_compiler() else "C++ compiler"
    if missing:
        raise SpineError(
            f"the recipe says compile: true, and torch.compile finds no {missing}"
            " here: install one, or set compile: false"
        )


def _has_cpp_compiler() -> bool:
    from torch._inductor import config, cpp_builder, exc

    try:
        return bool(cpp_builder.get_cpp_compiler()) and bool(config.cpp.cxx)
    except (exc.InvalidCxxCompiler, RuntimeError):
        return False


def cpu_computes_bf16() -> bool:
    """Tell whether this CPU has AMX or AVX512-BF16 and oneDNN was not told to leave them."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if limit and not any(name in limit for name in ("BF16", "AMX", "DEFAULT", "FP16")):
        return False
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
