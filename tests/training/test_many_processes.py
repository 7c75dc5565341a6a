"""Several processes train as one would: same batches, same loss, every slice scored once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn

from spine_lib import SpineError
from spine_lib.datasets import phantom_cases
from spine_lib.reproduce import reproduce, sources
from spine_lib.slices import prepare
from spine_lib.slices.augment import Augmentation
from spine_lib.slices.patches import TARGETS
from spine_lib.training import recipe as recipes
from spine_lib.training.devices import Processes, is_first
from spine_lib.training.loading import PatchSampler, training_loader, validation_loader
from spine_lib.training.logs import read_log
from spine_lib.training.losses import LOSSES, segmentation_loss, sum_over_processes
from spine_lib.training.recipe import Recipe

OUTSIDE = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_NAME")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Forget what started the tests themselves."""
    for name in (*OUTSIDE, *SLURM):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    cases = phantom_cases(2, 0, shape=(24, 24, 37), spacing_mm=8.0)
    return prepare(cases, tmp_path_factory.mktemp("store"), spacing_mm=8.0)


# --- what each process gets -----------------------------------------------------------------------

RECIPE = Recipe(batch=6, steps_per_epoch=4, workers=0, augmentation=Augmentation(size=32))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_shares_of_every_step_are_together_the_batch_of_one_process(store, count):
    def batches(rank: int, count: int) -> list[list]:
        sampler = PatchSampler(store, RECIPE, rank, count)
        sampler.set_epoch(3)
        draws, size = list(sampler), RECIPE.batch // count
        assert len(draws) == len(sampler)
        return [draws[n : n + size] for n in range(0, len(draws), size)]

    shares = zip(*(batches(rank, count) for rank in range(count)), strict=True)
    together = [sorted(sum(parts, []), key=lambda draw: draw.place) for parts in shares]
    assert together == batches(0, 1) and len(together) == RECIPE.steps_per_epoch


def test_the_shares_hold_the_same_pixels_as_the_batch_of_one_process(store):
    (whole, *_) = next(iter(training_loader(store, RECIPE)))
    halves = [next(iter(training_loader(store, RECIPE, rank, 2)))[0] for rank in (0, 1)]
    assert torch.equal(whole[0::2], halves[0]) and torch.equal(whole[1::2], halves[1])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_every_validation_slice_is_scored_once_whatever_the_number_of_processes(store, count):
    # There are 8: a sampler that makes the shares equal would take some twice for 3 and for 5.
    loaders = [validation_loader(store, RECIPE, rank, count) for rank in range(count)]
    shown = [number for loader in loaders for batch in loader.batch_sampler for number in batch]
    assert sorted(shown) == list(range(len(loaders[0].dataset)))
    assert all(len(loader) for loader in loaders)


def test_two_processes_validate_in_the_batches_of_one(store):
    recipe = RECIPE.changed(batch=2)
    one = [list(b) for b in validation_loader(store, recipe).batch_sampler]
    two = [[list(b) for b in validation_loader(store, recipe, r, 2).batch_sampler] for r in (0, 1)]
    assert sorted(two[0] + two[1]) == one and len(one) > 2


# --- refusals -------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_fetched(tmp_path):
    recipe = RECIPE.changed(dataset="phantom", batch=8)
    said = []
    with pytest.raises(SpineError, match="a batch of 8 patches cannot be shared by 3 processes"):
        reproduce(recipe, "x", root=tmp_path, say=said.append, processes=Processes(3))
    assert not said and not list(tmp_path.iterdir())


def test_more_processes_than_validation_slices_are_refused(store):
    with pytest.raises(SpineError, match="8 validation slices cannot be shared by 9 processes"):
        validation_loader(store, RECIPE, 0, 9)


def test_missing_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SpineError, match="--devices 2: torch sees 1 GPU on this machine"):
        Processes(2).require_fit(8, "cuda")
    Processes(1).require_fit(8, "cuda")


@pytest.mark.parametrize(
    "found",
    [
        {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "4"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"},
    ],
)
def test_another_number_of_processes_than_was_started_is_refused(monkeypatch, found):
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SpineError, match="4 processes were started from outside"):
        Processes(2).require_fit(8, "cpu")
    Processes(devices=2, nodes=2).require_fit(8, "cpu")


def test_a_shell_inside_a_slurm_job_is_no_process_of_a_run(monkeypatch):
    for name, value in zip(SLURM, ("0", "4", "interactive"), strict=True):
        monkeypatch.setenv(name, value)
    Processes(1).require_fit(8, "cpu")


@pytest.mark.parametrize(
    ("found", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
        ({"TORCHELASTIC_RUN_ID": "x", "RANK": "8", "WORLD_SIZE": "16", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}, False),
    ],
)
def test_the_first_of_all_processes_is_known_before_they_are_connected(monkeypatch, found, first):
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", TARGETS.values())
@pytest.mark.parametrize("kind", LOSSES)
def test_the_mean_of_the_shares_slopes_is_the_slope_of_the_whole_batch(monkeypatch, kind, classes):
    """Two processes in turn: what each adds to a sum is noted first, then handed to both."""
    torch.manual_seed(0)
    network = nn.Conv2d(1, classes, 3, padding=1).double()
    image = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    target = torch.randint(max(2, classes), image.shape) * (torch.rand_like(image) > 0.7).double()
    target[2:] *= target[2:] < 3  # the last class is in one share only
    weight = (torch.rand_like(image) > 0.3).double()
    weight[:2] = 0.0  # the shares hold different numbers of known pixels
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)

    def slope(part, together):
        network.zero_grad()
        logits = network(image[part])
        loss = segmentation_loss(logits, target[part], weight[part], kind, together)
        loss.backward()
        return loss.item(), network.weight.grad.clone()

    parts, noted = [slice(0, 2), slice(2, 6)], [[], []]
    for part, note in zip(parts, noted, strict=True):
        monkeypatch.setattr(distributed, "all_reduce", lambda t, note=note: note.append(t.clone()))
        slope(part, sum_over_processes)
    shares = []
    for part in parts:
        sums = iter([a + b for a, b in zip(*noted, strict=True)])
        monkeypatch.setattr(distributed, "all_reduce", lambda t, sums=sums: t.copy_(next(sums)))
        shares.append(slope(part, sum_over_processes))
    loss, whole = slope(slice(None), lambda *sums: sums)
    assert [one for one, _ in shares] == pytest.approx([loss, loss], rel=1e-5)
    assert torch.allclose((shares[0][1] + shares[1][1]) / 2, whole, rtol=1e-4, atol=1e-8)


# --- two real processes ---------------------------------------------------------------------------

WITHOUT_BATCHNORM = """\
import torch
from spine_lib.training import recipe as recipes
from spine_lib.slices.augment import Augmentation
from spine_lib.training.devices import Processes
from spine_lib.training.recipe import Recipe
from spine_lib.slices.store import SliceStore
from spine_lib.training.train import load_or_train

MODEL = "unet_own"
RECIPE = Recipe(
    models=(MODEL,), phantom_share=1.0, steps=4, steps_per_epoch=2, batch=4, workers=0,
    averaging=0.5, precision="32-true", augmentation=Augmentation(size=32), target="regions",
)
build_model = recipes.build_model


def without_batchnorm(*arguments, **options):
    network = build_model(*arguments, **options)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.GroupNorm(4, child.num_features))
    return network


def train(name, count):
    recipes.build_model = without_batchnorm
    data = SliceStore("store"), SliceStore("store")
    load_or_train(MODEL, RECIPE, *data, name, "cpu", False, processes=Processes(count))


if __name__ == "__main__":
    train("two", 2)
"""

WITH_BATCHNORM = """\
dataset: phantom
models: [unet_resnet18]
phantoms: 2
phantom_share: 1.0
validation_phantoms: 1
spacing_mm: 6.0
steps: 20
steps_per_epoch: 10
batch: 16
workers: 0
averaging: 0.5
precision: 32-true
augmentation: {size: 32}
"""

GRID = {"shape": (40, 40, 74), "spacing_mm": 6.0}

SMALL_PHANTOMS = f"""\
from spine_lib import cli
from spine_lib.reproduce import sources

sources.PHANTOM_GRID = {GRID}
if __name__ == "__main__":
    cli.main()
"""

EQUAL = {"train_loss": 1e-4, "val_loss": 1e-4, "val_dice": 1e-3, "val_region_dice": 1e-3}
"""Without BatchNorm, up to rounding: sums come in another order."""

WEIGHT_TOLERANCE = 2e-4
"""Adam divides slopes by their size, so that rounding of tiny ones becomes visible in a weight."""

LOSS_TOLERANCE = 0.06
"""With BatchNorm.  Measured: the losses of steps 10, 20, 30 and 40 differed by 0.007 on average and
by 0.020 at most, over three seeds (two processes on a CPU, a batch of 16 patches of 32 pixels)."""


def start(folder, *arguments) -> subprocess.CompletedProcess:
    """Run Python in a folder as from a fresh terminal."""
    environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    environment["SPINE_DATA"] = str(folder / "data")
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def log_of(folder) -> list[dict[str, float]]:
    return read_log(folder / "metrics.csv")


@pytest.mark.slow
def test_without_batchnorm_two_processes_end_with_the_numbers_of_one(store, tmp_path, monkeypatch):
    shutil.copytree(store.folder, tmp_path / "store")
    (tmp_path / "train.py").write_text(WITHOUT_BATCHNORM, encoding="utf-8")
    start(tmp_path, "train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipes, "build_model", recipes.build_model)  # what the script changes
    script = {"__name__": "script"}
    exec(WITHOUT_BATCHNORM, script)
    script["train"]("one", 1)
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [row.keys() for row in one] == [row.keys() for row in two]
    assert sum("val_dice" in row and "val_region_dice" in row for row in one) == 2
    for a, b in zip(one, two, strict=True):
        for name, tolerance in EQUAL.items():
            assert b.get(name, 0) == pytest.approx(a.get(name, 0), abs=tolerance), (name, a, b)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=WEIGHT_TOLERANCE), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The main job in one process and in two; where the runs lie, and what the second printed."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "small.yaml").write_text(WITH_BATCHNORM, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(folder / "data"))
        patch.setattr(sources, "PHANTOM_GRID", GRID)
        options = {"device": "cpu", "root": folder / "runs", "progress": False, "say": len}
        reproduce(folder / "small.yaml", "one", **options)
    (folder / "spine.py").write_text(SMALL_PHANTOMS, encoding="utf-8")
    arguments = "reproduce --recipe small.yaml --name two --device cpu --devices 2"
    return folder / "runs", start(folder, "spine.py", *arguments.split())


@pytest.mark.slow
def test_two_processes_say_and_write_everything_once(runs):
    root, done = runs
    assert done.stdout.count("20 steps of 16 patches") == 1
    assert done.stdout.count("the report is") == 1
    assert "Traceback" not in done.stderr
    training = root / "two" / "unet_resnet18" / "seed-0"
    assert len(list(training.glob("events.out.tfevents*"))) == 1
    names = {path.name for path in training.iterdir() if path.is_file()}
    assert {"best.ckpt", "last.ckpt", "metrics.csv", "weights.safetensors"} <= names
    assert len(list((root / "two").rglob("report.html"))) == 1
    results = json.loads((root / "two" / "results.json").read_text(encoding="utf-8"))
    assert results["processes"] == {"devices": 2, "nodes": 1, "strategy": "auto"}
    checksums = json.loads((root / "one" / "results.json").read_text(encoding="utf-8"))["data"]
    assert results["data"] == checksums


@pytest.mark.slow
def test_with_batchnorm_two_processes_stay_within_the_measured_tolerance(runs):
    one, two = (log_of(runs[0] / name / "unet_resnet18" / "seed-0") for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    losses = [
        (a["train_loss"], b["train_loss"])
        for a, b in zip(one, two, strict=True)
        if "train_loss" in a
    ]
    assert len(losses) == 2 and losses[1][0] < losses[0][0] - LOSS_TOLERANCE
    for a, b in losses:
        assert b == pytest.approx(a, abs=LOSS_TOLERANCE)
