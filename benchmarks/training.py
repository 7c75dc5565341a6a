"""Time training against the plain loop that a user would write instead, in one run.

Three ways to train the same network on patches of the same size and the same batch:

- `spine_lib`: `training.fit` as `spine reproduce` calls it: Lightning, mixed precision and
  channels_last where the hardware gains by them, augmented patches made beside the step;
- `example_loop`: the loop of segmentation_models_pytorch's examples, written anew here: 32 bit,
  Adam, Dice loss, a DataLoader with a worker for each core that reads and scales the same slices;
- `bare_step`: forward, backward and optimiser of `spine_lib` on one batch that lies in memory.

Prints a table and writes `benchmarks/results/training.json`; returns 1 where a goal is missed. The
goals are stated for a CPU with AMX and for a datacentre GPU; elsewhere only the share of the bare
step counts.

    python benchmarks/training.py
    python benchmarks/training.py --model deeplabv3plus_resnet34 --size 256 --batch 8

Close other programs first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import lightning as L
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, Dataset

from spine_lib import run_facts
from spine_lib.augment import network_input
from spine_lib.datasets import phantom_cases
from spine_lib.devices import choose_device, choose_precision
from spine_lib.loading import training_loader
from spine_lib.losses import segmentation_loss
from spine_lib.recipe import Recipe, load_recipe
from spine_lib.segmenter import Segmenter
from spine_lib.store import SliceStore, prepare_store
from spine_lib.training import fit

RESULTS = Path(__file__).parent / "results" / "training.json"
WARM_UP = 5
GOALS = {
    "amx": {"times_example_loop": 2.2, "share_of_bare_step": 0.85},
    "cpu": {"share_of_bare_step": 0.85},
    "cuda": {"times_example_loop": 6.0, "share_of_bare_step": 0.95},
}


def main() -> int:
    """Run the benchmark, print the table and return 0 if the goals are met, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unet_resnet34")
    parser.add_argument("--size", type=int, default=128, help="rows and columns of a patch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each way")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    recipe = benchmark_recipe(options)
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        seconds = {
            "spine_lib": time_library(options.model, recipe, store, Path(folder) / "run"),
            "example_loop": time_example(options.model, recipe, store),
            "bare_step": time_bare(options.model, recipe, store),
        }
    result = summarise(options, seconds)
    print(table(result))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8", newline="\n")
    return 0 if result["goals_met"] else 1


def benchmark_recipe(options: argparse.Namespace) -> Recipe:
    """Return the main job's recipe with the asked size, batch and number of steps."""
    base = load_recipe("sample")
    augmentation = {**base.to_dict()["augmentation"], "size": options.size}
    steps = options.steps + WARM_UP
    return base.changed(
        augmentation=type(base.augmentation)(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in augmentation.items()}
        ),
        batch=options.batch,
        steps=steps,
        steps_per_epoch=steps,
        workers=max(1, (os.cpu_count() or 2) - 1) if torch.cuda.is_available() else base.workers,
    )


def make_store(folder: Path) -> SliceStore:
    """Slice two phantoms of the size of a public scan."""
    grid = {"shape": (229, 237, 60), "spacing_mm": 1.5, "levels": ("T12", "L4")}
    return prepare_store(phantom_cases(2, 0, **grid), folder, ("axial",), 1.5)


class StepTimes(L.Callback):
    """Note when each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        """Note the time, after the device has done its work."""
        _wait()
        self.ends.append(time.perf_counter())


def time_library(model: str, recipe: Recipe, store: SliceStore, folder: Path) -> list[float]:
    """Train with the library; return seconds a step."""
    times = StepTimes()
    fit(model, recipe, store, store, folder, "auto", progress=False, callbacks=(times,))
    return _between(times.ends)


class PlainSlices(Dataset):
    """Read slices as the example loop would: a patch around the middle, scaled, its mask."""

    def __init__(self, store: SliceStore, size: int, count: int) -> None:
        self.store, self.size, self.count = store, size, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        volume = item % len(self.store.volumes)
        pixels = self.store.read(volume)[item % self.store.volumes[volume].shape[0]]
        rows, columns = ((n - self.size) // 2 for n in pixels.shape)
        patch = pixels[max(0, rows) :, max(0, columns) :][: self.size, : self.size]
        image = torch.from_numpy(network_input(patch["hu"].astype("float32")))
        return image[None], torch.from_numpy((patch["label"] > 0).astype("float32"))[None]


def time_example(model: str, recipe: Recipe, store: SliceStore) -> list[float]:
    """Train with the plain loop; return seconds a step."""
    device = choose_device()
    makers = {"unet": smp.Unet, "deeplabv3plus": smp.DeepLabV3Plus}
    architecture, _, encoder = model.partition("_")
    network = makers[architecture](encoder, encoder_weights=None, in_channels=1, classes=1)
    network.to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-4)
    loss_of = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
    images = PlainSlices(store, recipe.augmentation.size, recipe.steps * recipe.batch)
    loader = DataLoader(images, recipe.batch, shuffle=True, num_workers=os.cpu_count() or 1)
    ends = []
    for image, mask in loader:
        loss = loss_of(network(image.to(device)), mask.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        _wait()
        ends.append(time.perf_counter())
    return _between(ends)


def time_bare(model: str, recipe: Recipe, store: SliceStore) -> list[float]:
    """Repeat the library's step on one batch in memory; return seconds a step."""
    device = choose_device()
    module = Segmenter(model, recipe.to_dict()).to(device).train()
    optimiser = module.configure_optimizers()["optimizer"]
    batch = next(iter(training_loader(store, recipe.changed(workers=0))))
    image, target, weight = (part.to(device) for part in batch[:3])
    mixed = "bf16" in choose_precision(recipe.precision, device)
    ends = []
    for _ in range(recipe.steps):
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = segmentation_loss(module(image), target, weight, recipe.loss)
        optimiser.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimiser, 1.0)
        optimiser.step()
        _wait()
        ends.append(time.perf_counter())
    return _between(ends)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _between(ends: list[float]) -> list[float]:
    """Return the time from each end to the next, without the first steps."""
    return [after - before for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:])]


def summarise(options: argparse.Namespace, seconds: dict[str, list[float]]) -> dict:
    """Put the figures together: images a second from the median step."""
    device = choose_device()
    ways = {
        way: {
            "images_per_second": round(options.batch / statistics.median(times), 2),
            "step_ms": {
                "median": round(statistics.median(times) * 1e3, 1),
                "fastest": round(min(times) * 1e3, 1),
                "slowest": round(max(times) * 1e3, 1),
            },
        }
        for way, times in seconds.items()
    }
    speed = {way: row["images_per_second"] for way, row in ways.items()}
    reached = {
        "times_example_loop": round(speed["spine_lib"] / speed["example_loop"], 2),
        "share_of_bare_step": round(speed["spine_lib"] / speed["bare_step"], 3),
    }
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    goals = GOALS["cuda" if device == "cuda" else "amx" if amx else "cpu"]
    return {
        "model": options.model,
        "patch": options.size,
        "batch": options.batch,
        "steps": options.steps,
        "ways": ways,
        "reached": reached,
        "goals": goals,
        "goals_met": all(reached[name] >= goal for name, goal in goals.items()),
        "device": run_facts.device_name("gpu" if device == "cuda" else "cpu"),
        "precision": choose_precision("auto", device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": run_facts.versions(),
    }


def table(result: dict) -> str:
    """Return the figures as text."""
    lines = [f"{result['model']}, {result['batch']} x {result['patch']}, {result['device']}"]
    for way, row in result["ways"].items():
        median = row["step_ms"]["median"]
        lines.append(f"{way:14} {row['images_per_second']:8.2f} images/s   {median:8.1f} ms a step")
    for name, value in result["reached"].items():
        goal = result["goals"].get(name)
        lines.append(f"{name:20} {value:6.2f}" + (f"  (goal {goal})" if goal else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
