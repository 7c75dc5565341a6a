"""Preparation and training killed at random moments end as an unbroken run does."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows cannot fork"),
]

KILLS = int(os.environ.get("SPINE_KILLS", "20"))


def work(folder):
    """Prepare, train and evaluate, as `spine reproduce` does."""
    from spine_lib.reproduce import run
    from spine_lib.training.recipe import Recipe

    os.environ["SPINE_DATA"] = str(folder / "data")
    recipe = Recipe(
        name="killed",
        dataset="phantom",
        models=("deeplabv3plus_tu-mobilenetv3_small_050",),
        phantoms=2,
        validation_phantoms=1,
        spacing_mm=8.0,
        steps=6,
        steps_per_epoch=2,
        batch=2,
        workers=0,
        averaging=0.5,
        precision="32-true",
        flip=False,
        augmentation={"size": 32},
    )
    run.reproduce(recipe, root=folder, progress=False, device="cpu", say=len)


def child(folder):
    """Work in a process of its own, which need not import anything."""
    process = os.fork()
    if not process:
        try:
            work(folder)
        finally:
            sys.stdout.flush()
            os._exit(0 if (folder / "killed" / "results.json").is_file() else 1)
    return process


def kill_often(folder, seed=0):
    """Work with and without kills; print how many there were and how they were spread."""
    moments = random.Random(seed)
    started = time.monotonic()
    assert os.waitpid(child(folder / "unbroken"), 0)[1] == 0
    seconds = time.monotonic() - started
    kills, runs = 0, 0
    while kills < KILLS:
        target = folder / f"run-{runs}"
        process = child(target)
        time.sleep(moments.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)  # nothing happens if it has ended by itself
        status = os.waitpid(process, 0)[1]
        if os.WIFSIGNALED(status):
            kills += 1
            continue
        assert status == 0
        runs += 1
    assert os.waitpid(child(target), 0)[1] == 0
    print(json.dumps({"kills": kills, "runs": runs, "seconds": seconds}))


def outcome(folder):
    """Return what must not depend on kills, and what a kill may have left behind."""
    results = json.loads((folder / "killed" / "results.json").read_text(encoding="utf-8"))
    (weights,) = folder.rglob("weights.safetensors")
    log = weights.with_name("metrics.csv").read_text(encoding="utf-8")
    scores = {
        case: {key: value for key, value in row.items() if key != "predict_seconds"}
        for entry in results["models"].values()
        for case, row in entry["test"]["volumes"].items()
    }
    rows = [line.split(",")[1:] for line in log.splitlines()]  # the first is the epoch
    drafts = [path.name for path in folder.rglob(".*.part")]
    return weights.read_bytes(), rows, scores, results["data"]["checksums"], drafts


def test_runs_killed_at_random_moments_end_as_an_unbroken_one(tmp_path):
    project = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": project, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["kills"] == KILLS
    weights, rows, scores, checksums, drafts = outcome(tmp_path / "unbroken")
    folders = sorted(tmp_path.glob("run-*"))
    assert folders and not drafts
    for folder in folders:
        assert outcome(folder) == (weights, rows, scores, checksums, []), folder


if __name__ == "__main__":  # what is done once, for all children
    import spine_lib.training.train  # noqa: F401
    from spine_lib.datasets import phantom
    from spine_lib.reproduce import evaluate, run, sources

    sources.PHANTOM_GRID = {"shape": (32, 32, 16), "spacing_mm": 8.0}
    evaluate._draw_overlays = run.write_report = lambda *_: []
    phantom.make_phantom = functools.cache(phantom.make_phantom)
    for first in sources.FIRST_PHANTOM.values():
        for case in phantom.phantom_cases(2, first, **sources.PHANTOM_GRID):
            case.load()
    kill_often(Path(sys.argv[1]))
