"""Time training against the plain loop that a user would write instead, in one run.

Three ways to train the same network on patches of the same size and the same batch:

- `spine_lib`: `training.fit` as `spine reproduce` calls it: Lightning, mixed precision and
  channels_last where the hardware gains by them, averaged weights, augmented patches made beside
  the step;
- `example_loop`: the loop of segmentation_models_pytorch's examples, written anew here: 32 bit,
  Adam, Dice loss, a DataLoader with a worker for each core that reads and scales the same slices;
- `bare_step`: forward, backward and optimiser of `spine_lib` on one batch that lies in memory;
- `compiled_step` (with `--compile`): the same, written by torch.compile; its first step, which
  waits for the compiler, is given apart.

The ways take turns, round after round, so that what else runs on the machine meets all alike. A
round's speed is that of all its timed steps together; a way's is the median over the rounds.
Prints a table and keeps it under its setting in `benchmarks/results/training.json`; returns 1 where
a goal is missed. The goals are stated for a CPU with AMX and for a datacentre GPU; elsewhere only
the share of the bare step counts.

    python benchmarks/training.py
    python benchmarks/training.py --size 256 --rounds 3 --steps 4
    python benchmarks/training.py --model deeplabv3plus_resnet34 --compile

Close other programs first; the load of the machine is kept beside the figures.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import lightning as L
import numpy as np
import psutil
import segmentation_models_pytorch as smp
import torch
from lightning.fabric.utilities import move_data_to_device
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2.functional import center_crop

from spine_lib.ct.files import read_json, write_json
from spine_lib.datasets import phantom_cases
from spine_lib.reproduce import provenance
from spine_lib.slices.augment import network_input
from spine_lib.slices.store import SliceStore, prepare
from spine_lib.training.devices import choose_device, choose_precision
from spine_lib.training.loading import training_loader
from spine_lib.training.losses import segmentation_loss
from spine_lib.training.module import Segmenter
from spine_lib.training.recipe import Recipe, load_recipe
from spine_lib.training.train import fit

RESULTS = Path(__file__).parent / "results" / "training.json"
WARM_UP = 2
"""Steps of each way in each round that are not timed."""

GOALS = {
    "amx": {"times_example_loop": 2.2, "share_of_bare_step": 0.85},
    "cpu": {"share_of_bare_step": 0.85},
    "cuda": {"times_example_loop": 6.0, "share_of_bare_step": 0.95},
}


def main() -> int:
    """Run the benchmark, print the table and return 0 if the goals are met, else 1."""
    options = parser().parse_args()
    recipe = benchmark_recipe(options)
    load = psutil.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "store")
        seconds, first = run_rounds(options, recipe, store, Path(folder))
    result = summarise(options, recipe, seconds, first)
    result["load_average"] = {"before": load, "after": psutil.getloadavg()}
    print(table(result))
    keep(options.output, result)
    return 0 if result["goals_met"] else 1


def parser() -> argparse.ArgumentParser:
    """Return what the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unet_resnet34")
    parser.add_argument("--size", type=int, default=128, help="rows and columns of a patch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each way in a round")
    parser.add_argument("--workers", type=int, help="of the library's loader")
    parser.add_argument("--compile", action="store_true", help="time the compiled step too")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser


def benchmark_recipe(options: argparse.Namespace) -> Recipe:
    """Return the main job's recipe with the asked size, batch and number of steps."""
    base = load_recipe("sample")
    steps = options.steps + WARM_UP
    beside = max(1, (os.cpu_count() or 2) - 1) if torch.cuda.is_available() else base.workers
    return base.changed(
        augmentation=base.augmentation.changed(size=options.size),
        batch=options.batch,
        steps=steps,
        steps_per_epoch=steps,
        workers=beside if options.workers is None else options.workers,
    )


def make_store(folder: Path, shape: tuple[int, int, int] = (229, 237, 60)) -> SliceStore:
    """Slice two phantoms, of the size of a public scan if no other is given."""
    grid = {"shape": shape, "spacing_mm": 1.5, "levels": ("T12", "L4")}
    return prepare(phantom_cases(2, 0, **grid), folder, ("axial",), 1.5)


def run_rounds(
    options: argparse.Namespace, recipe: Recipe, store: SliceStore, folder: Path
) -> tuple[dict[str, list[list[float]]], dict[str, float]]:
    """Let the ways take turns.

    Returns:
        Seconds of each timed step by way and round, and of the first step of the endless ways.
    """
    device, model = choose_device(), options.model
    endless = {"bare_step": bare_steps(model, recipe, store, device)}
    if options.compile:
        endless["compiled_step"] = bare_steps(model, recipe, store, device, compiled=True)
    first = {way: round(next(steps), 2) for way, steps in endless.items()}
    seconds: dict[str, list[list[float]]] = {}
    for number in range(options.rounds):
        run = folder / f"run-{number}"
        turns = {
            "spine_lib": time_library(model, recipe, store, run),
            "example_loop": time_example(model, recipe, store),
        }
        for way, steps in endless.items():
            turns[way] = list(itertools.islice(steps, recipe.steps))[WARM_UP:]
        for way, times in turns.items():
            seconds.setdefault(way, []).append(times)
    return seconds, first


def bare_steps(
    model: str,
    recipe: Recipe,
    store: SliceStore,
    device: str,
    wait: bool = True,
    compiled: bool = False,
) -> Iterator[float]:
    """Repeat a training step on one batch that lies in the device's memory.

    Args:
        model: name as in `build_model`.
        recipe: batch, size, loss, optimiser and precision are used.
        store: the batch is cut from it.
        device: "cuda" or "cpu".
        wait: for a GPU after every step; else the caller does, and the seconds mean nothing.
        compiled: the step is written by torch.compile.

    Yields:
        Seconds of one step after the other, without end; the first ones are slower.
    """
    torch.backends.cudnn.benchmark = device == "cuda"
    module = Segmenter(model, recipe.to_dict()).to(device).train()
    network = torch.compile(module, dynamic=False) if compiled else module
    optimiser = module.configure_optimizers()["optimizer"]
    batch = next(iter(training_loader(store, recipe.changed(workers=0))))
    image, target, weight = move_data_to_device(batch, torch.device(device))
    mixed = "bf16" in choose_precision(recipe.precision, device)
    while True:
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = segmentation_loss(network(image), target, weight, recipe.loss)
        optimiser.zero_grad()
        loss.backward()
        module.configure_gradient_clipping(optimiser, 1.0)
        optimiser.step()
        if wait:
            wait_for(device)
        yield time.perf_counter() - started


def wait_for(device: str) -> None:
    """Wait until a GPU has finished its work; a CPU always has."""
    if device == "cuda":
        torch.cuda.synchronize()


class StepTimes(L.Callback):
    """Note when each training step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer, module, *_) -> None:
        """Note the time, after the device has done its work."""
        wait_for(choose_device())
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
        image = self.fit(network_input(pixels["hu"].astype("float32")))
        return image, self.fit((pixels["label"] > 0).astype("float32"))

    def fit(self, plane: np.ndarray) -> torch.Tensor:
        """Return the middle of a slice as [1, size, size], zeros around one that is smaller."""
        tensor = torch.from_numpy(plane)[None]
        return center_crop(tensor, [self.size, self.size])


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
        wait_for(device)
        ends.append(time.perf_counter())
    return _between(ends)


def _between(ends: list[float]) -> list[float]:
    """Return the time from each end to the next, without the first steps."""
    return [after - before for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:])]


def summarise(
    options: argparse.Namespace,
    recipe: Recipe,
    seconds: dict[str, list[list[float]]],
    first: dict[str, float],
) -> dict:
    """Put the figures together: images a second of each round, and their median."""
    device = choose_device()
    ways = {way: speeds(rounds, options.batch) for way, rounds in seconds.items()}
    for way, value in first.items():
        ways[way]["first_step_s"] = value
    reached = {
        "times_example_loop": round(ratio(ways, "spine_lib", "example_loop"), 2),
        "share_of_bare_step": round(ratio(ways, "spine_lib", "bare_step"), 3),
    }
    if options.compile:
        reached["compiled_times_bare_step"] = round(ratio(ways, "compiled_step", "bare_step"), 2)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    goals = GOALS["cuda" if device == "cuda" else "amx" if amx else "cpu"]
    return {
        "model": options.model,
        "patch": options.size,
        "batch": options.batch,
        "rounds": options.rounds,
        "steps_a_round": options.steps,
        "workers": recipe.workers,
        "ways": ways,
        "reached": reached,
        "goals": goals,
        "goals_met": all(reached[name] >= goal for name, goal in goals.items()),
        "device": provenance.device_name(device),
        "precision": choose_precision("auto", device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": provenance.versions(),
        "created": time.strftime("%Y-%m-%d"),
    }


def speeds(rounds: list[list[float]], batch: int) -> dict:
    """Return images a second of each round, and their median."""
    each = [round(batch * len(times) / sum(times), 2) for times in rounds]
    return {"images_per_second": statistics.median(each), "rounds": each}


def ratio(ways: dict[str, dict], one: str, other: str) -> float:
    """Return how many times faster one way is: the median over the rounds of both."""
    pairs = zip(ways[one]["rounds"], ways[other]["rounds"], strict=True)
    return statistics.median(a / b for a, b in pairs)


def keep(file: Path, result: dict) -> None:
    """Keep a result beside those of other settings and devices."""
    kept = read_json(file) if file.is_file() else {}
    kind = "gpu" if torch.cuda.is_available() else "cpu"
    name = f"{result['model']}, {result['batch']} x {result['patch']}, {kind}"
    write_json(file, {**kept, name: result})


def table(result: dict) -> str:
    """Return the figures as text."""
    lines = [f"{result['model']}, {result['batch']} x {result['patch']}, {result['device']}"]
    for way, row in result["ways"].items():
        speed = row["images_per_second"]
        lines.append(f"{way:14} {speed:8.2f} images/s   (rounds: {row['rounds']})")
    for name, value in result["reached"].items():
        goal = result["goals"].get(name)
        lines.append(f"{name:25} {value:6.2f}" + (f"  (goal {goal})" if goal else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
