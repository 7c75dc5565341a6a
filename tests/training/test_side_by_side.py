"""Trainings beside each other on a CPU: the numbers of one after the other, and no orphans."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

import spine_lib
from spine_lib import SpineError
from spine_lib.datasets import phantom_cases
from spine_lib.models import build_model
from spine_lib.reproduce import reproduce
from spine_lib.slices import prepare
from spine_lib.training.checkpoints import load_weights, save_weights
from spine_lib.training.recipe import load_recipe
from spine_lib.training.train import Job, data_identity, load_or_train, train_side_by_side

pytestmark = pytest.mark.slow

MODELS = ("unet_resnet34", "deeplabv3plus_resnet34")
RECIPE = load_recipe("tiny").changed(
    steps=4, steps_per_epoch=2, batch=2, precision="32-true", atrous_rates=(1, 2, 3)
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    grid = {"shape": (40, 40, 20), "spacing_mm": 6.0}
    return [
        prepare(phantom_cases(1, seed, **grid), folder / str(seed), spacing_mm=6.0)
        for seed in (0, 10)
    ]


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr("spine_lib.training.train._cores", lambda: 2)


def jobs_in(folder, stores, recipe=RECIPE):
    return [Job(model, recipe, *stores, folder / model) for model in MODELS]


def test_two_at_once_train_what_one_after_the_other_trains(stores, tmp_path):
    jobs = jobs_in(tmp_path / "pair", stores)
    train_side_by_side(jobs, 2, progress=False)
    assert all(job.is_finished() for job in jobs)
    alone = load_or_train(MODELS[1], RECIPE, *stores, tmp_path / "alone", "cpu", False)
    network, recipe = load_weights(jobs[1].folder / "weights.safetensors", MODELS[1])
    assert recipe.changed(workers=RECIPE.workers) == RECIPE
    for name, value in alone.network.state_dict().items():
        assert torch.allclose(value, network.state_dict()[name], atol=1e-3), name


def test_a_training_that_fails_leaves_the_other_finished_and_says_why(stores, tmp_path):
    good, bad = jobs_in(tmp_path, stores)
    load_or_train(bad.model, RECIPE.changed(seed=9, steps=2), *stores, bad.folder, "cpu", False)
    (bad.folder / "weights.safetensors").unlink()
    with pytest.raises(SpineError, match="another recipe .*seed 9 there, 0 asked for"):
        train_side_by_side([good, bad], 2, progress=False)
    assert good.is_finished() and not bad.is_finished()


def test_what_is_finished_or_alone_starts_no_process(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("spine_lib.training.train.ProcessPoolExecutor", None)
    jobs = jobs_in(tmp_path, stores)
    train_side_by_side(jobs[:1], 2, progress=False)
    train_side_by_side(jobs, 1, progress=False)
    for job in jobs:
        data = data_identity(job.training, job.validation)
        save_weights(build_model(job.model), job.model, job.recipe, job.weights, data=data)
    train_side_by_side(jobs, 2, progress=False)


def test_what_is_finished_with_other_data_is_refused_before_anything_is_trained(
    stores, tmp_path, monkeypatch
):
    monkeypatch.setattr("spine_lib.training.train.ProcessPoolExecutor", None)
    new, finished = jobs_in(tmp_path, stores)
    data = data_identity(*stores[::-1])
    save_weights(build_model(finished.model), finished.model, RECIPE, finished.weights, data=data)
    with pytest.raises(SpineError, match="trained on other data than are given now"):
        train_side_by_side([new, finished], 2, progress=False)
    assert not new.folder.exists()


def test_killing_the_program_stops_its_trainings(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "from spine_lib.reproduce import reproduce\n"
        "from spine_lib.training.recipe import load_recipe\n"
        "if __name__ == '__main__':\n"
        "    long = load_recipe('tiny').changed(steps=4000, steps_per_epoch=2000)\n"
        f"    reproduce(long, 'long', root={str(tmp_path / 'runs')!r}, device='cpu', at_once=2)\n",
        encoding="utf-8",
    )
    project = str(Path(spine_lib.__file__).parents[1])
    environment = {**os.environ, "SPINE_DATA": str(tmp_path / "data"), "PYTHONPATH": project}
    program = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        logs = [tmp_path / "runs" / "long" / m / "seed-0" / "hparams.yaml" for m in MODELS]
        wait_until(lambda: all(log.is_file() for log in logs), 90)
        workers = psutil.Process(program.pid).children(recursive=True)
        assert len(workers) >= 2
    finally:
        program.kill()
        program.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def wait_until(done, seconds):
    """Wait for something to come true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)


def test_the_time_of_both_is_counted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_DATA", str(tmp_path / "data"))
    folder = reproduce(
        RECIPE, "pair", root=tmp_path, progress=False, device="cpu", at_once=2, say=lambda line: 0
    )
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    each = [run["train_seconds"] for m in results["models"].values() for run in m["runs"]]
    assert len(each) == 2 and results["stages"]["train"] >= max(each)
    assert results["wall_seconds"] == pytest.approx(sum(results["stages"].values()), abs=0.2)
