"""Measure in one command what only a GPU can show, and keep it as one JSON file.

Parts, in order of what they are worth; one that would begin after the minutes are over is left out
and named in the file, and one that fails leaves its error there:

- `steps`: images a second and peak memory of a step on a batch in memory, for both networks in
  32 bit with TensorFloat-32, in bf16, in fp16 with a gradient scaler, and compiled in bf16;
- `training`: the library's training beside the plain loop of `training.py` and the bare step;
- `feeding`: patches a second that the loader delivers with 1, 4, ... workers;
- `prediction`: seconds of a whole scan of 229x237x243 voxels, in bf16 and in 32 bit;
- `true_size`: one piece of the experiment at its true size (`true_size.py`).

    python benchmarks/gpu.py --minutes 8
    python benchmarks/gpu.py --miniature        # seconds on a CPU, to see that it runs

Without a GPU the same parts run on the CPU, fp16 left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
import training as training_benchmark
import true_size as true_size_benchmark

from spine_lib.ct.files import write_json
from spine_lib.datasets import phantom_cases
from spine_lib.models import build_model
from spine_lib.reproduce import provenance
from spine_lib.training.loading import training_loader
from spine_lib.training.losses import segmentation_loss
from spine_lib.training.recipe import load_recipe
from spine_lib.volumes import predict_volume

RESULTS = Path(__file__).parent / "results" / "gpu.json"
MODELS = ("unet_resnet34", "deeplabv3plus_resnet34")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FULL = SimpleNamespace(
    models=MODELS,
    size=256,
    batch=64,
    steps=30,
    rounds=2,
    workers=(1, 4, 8, 15),
    sliced=(229, 237, 60),
    scan=(229, 237, 243),
    true_size=("--scans", "24", "--steps", "150", "--batch", "64", "--workers", "14"),
)
MINIATURE = SimpleNamespace(
    models=("unet_resnet18",),
    size=32,
    batch=2,
    steps=2,
    rounds=1,
    workers=(0,),
    sliced=(64, 64, 20),
    scan=(48, 48, 16),
    true_size=("--scans", "3", "--steps", "2", "--batch", "2", "--miniature"),
)


def main() -> int:
    """Run the parts one after the other; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="after which no part begins")
    parser.add_argument("--miniature", action="store_true", help="everything small, on any machine")
    parser.add_argument("--parts", nargs="*", help="which; all if left out")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    scale = MINIATURE if options.miniature else FULL
    started = time.perf_counter()
    result = {"hardware": hardware(), "versions": provenance.versions(), "settings": vars(scale)}
    result |= {"created": time.strftime("%Y-%m-%d"), "parts": {}, "failed": {}, "left_out": []}
    for name, part in PARTS.items():
        if options.parts and name not in options.parts:
            continue
        if time.perf_counter() - started > 60 * options.minutes:
            result["left_out"].append(name)
            continue
        begun = time.perf_counter()
        try:
            result["parts"][name] = part(scale)
        except Exception as error:  # the other parts are worth having all the same
            result["failed"][name] = f"{type(error).__name__}: {error}"
        result.setdefault("seconds", {})[name] = round(time.perf_counter() - begun, 1)
        print(name, json.dumps(result["parts"].get(name, result["failed"].get(name))), flush=True)
        write_json(options.output, result)
    write_json(options.output, result)
    return int(bool(result["failed"]))


def hardware() -> dict:
    """Return what is computed on."""
    facts = {"machine": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()}
    if DEVICE == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)}
        facts |= {"multiprocessors": gpu.multi_processor_count, "cuda": torch.version.cuda}
    return facts


def steps(scale: SimpleNamespace) -> dict:
    """Time training steps on one batch in memory, by network and precision."""
    kinds = ["tf32", "bf16"] + (["fp16", "bf16_compiled"] if DEVICE == "cuda" else [])
    return {model: {kind: step(model, kind, scale) for kind in kinds} for model in scale.models}


def step(model: str, kind: str, scale: SimpleNamespace) -> dict[str, float]:
    """Return images a second, the seconds of the first step and the peak of memory in GiB."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    network = build_model(model).to(DEVICE, memory_format=torch.channels_last).train()
    forward = torch.compile(network, dynamic=False) if "compiled" in kind else network
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    scaler = torch.amp.GradScaler(DEVICE, enabled=kind == "fp16")
    dtype = torch.float16 if kind == "fp16" else torch.bfloat16
    image = torch.randn(scale.batch, 1, scale.size, scale.size, device=DEVICE)
    image = image.contiguous(memory_format=torch.channels_last)
    target = (torch.rand_like(image) < 0.01).float()
    weight = torch.ones_like(target)
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def once() -> None:
        with torch.autocast(DEVICE, dtype, enabled=kind != "tf32"):
            loss = segmentation_loss(forward(image), target, weight, "bce_dice")
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()

    first = timed(once)
    for _ in range(2):
        once()
    seconds = timed(lambda: [once() for _ in range(scale.steps)])
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else float("nan")
    return {
        "images_per_second": round(scale.batch * scale.steps / seconds, 1),
        "first_step_s": round(first, 2),
        "peak_memory_gib": round(memory, 2),
    }


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call, the device's work included."""
    training_benchmark.wait_for(DEVICE)
    started = time.perf_counter()
    call()
    training_benchmark.wait_for(DEVICE)
    return time.perf_counter() - started


def training(scale: SimpleNamespace) -> dict:
    """Time the library's training, the plain loop and the bare step in turns."""
    rows = {}
    for model in scale.models:
        arguments = ["--model", model, "--size", str(scale.size), "--batch", str(scale.batch)]
        arguments += ["--rounds", str(scale.rounds), "--steps", str(scale.steps)]
        options = training_benchmark.parser().parse_args(arguments)
        recipe = training_benchmark.benchmark_recipe(options)
        with tempfile.TemporaryDirectory() as folder:
            store = training_benchmark.make_store(Path(folder) / "store", scale.sliced)
            seconds, first = training_benchmark.run_rounds(options, recipe, store, Path(folder))
        rows[model] = training_benchmark.summarise(options, recipe, seconds, first)
    return rows


def feeding(scale: SimpleNamespace) -> dict[str, float]:
    """Return patches a second that the loader of the recipe `paper` delivers, by workers."""
    recipe = load_recipe("paper").changed(batch=scale.batch, steps_per_epoch=10**6)
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        store = training_benchmark.make_store(Path(folder) / "store", scale.sliced)
        for workers in scale.workers:
            batches = iter(training_loader(store, recipe.changed(workers=workers)))
            for _ in range(4 * max(1, workers)):  # the queues that filled at the start
                next(batches)
            count = scale.rounds * max(4, 4 * workers)
            started = time.perf_counter()
            for batch in itertools.islice(batches, count):
                assert len(batch[0]) == scale.batch
            speeds[workers] = round(scale.batch * count / (time.perf_counter() - started), 1)
            del batches
    return speeds


def prediction(scale: SimpleNamespace) -> dict:
    """Time the prediction of a whole scan; the second of two, the first one starts the device."""
    case = phantom_cases(1, 7, shape=scale.scan, spacing_mm=1.5)[0].load()
    rows: dict = {"scan": list(scale.scan)}
    for model, precision in itertools.product(scale.models, ("bf16-mixed", "32-true")):
        recipe = load_recipe("paper").changed(precision=precision)
        network = build_model(model).eval()
        predict_volume(network, case.ct, recipe)
        seconds = timed(lambda n=network, r=recipe: predict_volume(n, case.ct, r))
        rows.setdefault(model, {})[precision] = round(seconds, 2)
    return rows


def true_size(scale: SimpleNamespace) -> dict:
    """Run one piece of the experiment at its true size."""
    with tempfile.TemporaryDirectory() as folder:
        places = ["--folder", f"{folder}/run", "--output", f"{folder}/true_size.json"]
        return true_size_benchmark.main([*scale.true_size, *places])


PARTS = {part.__name__: part for part in (steps, training, feeding, prediction, true_size)}

if __name__ == "__main__":
    raise SystemExit(main())
