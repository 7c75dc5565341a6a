"""Training: resumed to the same numbers, loaded instead of repeated, refused when it cannot be."""

import functools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import lightning as L
import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import spine_lib
from spine_lib import SpineError
from spine_lib.cli import Terminated
from spine_lib.ct.files import sole_use
from spine_lib.datasets import phantom_cases
from spine_lib.models import build, build_model
from spine_lib.slices import TrainingSlices, prepare
from spine_lib.slices.augment import Augmentation
from spine_lib.training import devices, loading
from spine_lib.training import train as training
from spine_lib.training.checkpoints import (
    load_weights,
    read_checkpoint,
    save_weights,
    weights_sha256,
)
from spine_lib.training.logs import read_log
from spine_lib.training.module import AtomicCheckpoints, Segmenter
from spine_lib.training.recipe import Recipe
from spine_lib.training.train import Job, data_identity, fit, load_or_train, train_side_by_side

MODEL = "unet_tu-mobilenetv3_small_050"
RECIPE = Recipe(
    models=(MODEL,),
    steps=8,  # the averaged weights are brought up to date after steps 4 and 8
    steps_per_epoch=4,
    batch=2,
    workers=0,
    averaging=0.5,
    precision="32-true",
    augmentation=Augmentation(size=32),
)

WITH_DROPOUT = "deeplabv3plus_tu-mobilenetv3_small_050"
DROPOUT_RECIPE = RECIPE.changed(models=(WITH_DROPOUT,), augmentation=Augmentation(size=64))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    grid = {"shape": (40, 40, 20), "spacing_mm": 6.0}
    folder = tmp_path_factory.mktemp("stores")
    return [
        prepare(phantom_cases(2, seed, **grid), folder / str(seed), spacing_mm=6.0)
        for seed in (0, 10)
    ]


@pytest.fixture(scope="module")
def finished(stores, tmp_path_factory):
    """The folder of a run without stops, and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, load_or_train(MODEL, RECIPE, *stores, folder, "cpu", progress=False)


@pytest.fixture(scope="module")
def stopped(stores, tmp_path_factory):
    """A folder with a checkpoint and without weights."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(RuntimeError, match="killed"):
        fit(MODEL, RECIPE, *stores, folder, "cpu", False, (StopAfter(6),))
    return folder


class StopAfter(L.Callback):
    """Stop in the middle of a run, as a killed process would that saved just before, if at all."""

    def __init__(self, step: int, path=None):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == self.step:
            if self.path:
                trainer.save_checkpoint(self.path)
            raise RuntimeError("killed")


@pytest.fixture(scope="module")
def unbroken(stores, tmp_path_factory):
    """A network that also draws random numbers, for dropout, trained without stops."""
    folder = tmp_path_factory.mktemp("unbroken")
    return fit(WITH_DROPOUT, DROPOUT_RECIPE, *stores, folder, "cpu", progress=False)


def is_equal(module, other) -> bool:
    pairs = zip(module.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("steps", "saves"),
    [
        ([6], False),  # goes on from the epoch's end, step 4
        ([6, 7], True),  # twice in an epoch
        ([6, 7], "without random numbers"),
    ],
)
def test_a_resumed_run_ends_with_the_same_numbers(
    stores, unbroken, tmp_path, monkeypatch, steps, saves
):
    """Without the random numbers in the checkpoint, dropout would drop other units."""
    if saves == "without random numbers":
        monkeypatch.setattr(loading, "_random_state", dict)
    arguments = (WITH_DROPOUT, DROPOUT_RECIPE, *stores, tmp_path, "cpu", False)
    for step in steps:
        with pytest.raises(RuntimeError, match="killed"):
            fit(*arguments, (StopAfter(step, tmp_path / "last.ckpt" if saves else None),))
    resumed = fit(*arguments)
    assert is_equal(unbroken, resumed) is (saves != "without random numbers")
    assert [row["step"] for row in read_log(tmp_path / "metrics.csv")] == [3, 7]


def test_a_finished_run_is_loaded(stores, finished):
    folder, first = finished
    again = load_or_train(MODEL, RECIPE, *stores, folder, "cpu", progress=False)
    assert again.trained_seconds == first.trained_seconds > 0
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(first.network(image), again.network(image), atol=1e-5)


def test_a_run_leaves_its_log_and_two_checkpoints_the_last_of_which_is_the_network(finished):
    """Also where it is not the best."""
    folder, fitted = finished
    names = {path.name for path in folder.iterdir()}
    assert {"best.ckpt", "last.ckpt", "weights.safetensors", "metrics.csv"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    dice = [row["val_dice"] for row in fitted.curve if "val_dice" in row]
    assert len(dice) == 2 and all(0 <= value <= 1 for value in dice)
    last = read_checkpoint(folder / "last.ckpt")
    assert (last.recipe, last.step) == (RECIPE, RECIPE.steps)
    assert is_equal(last.network, fitted.network)


def test_a_folder_with_another_recipe_is_refused(stores, finished):
    folder, _ = finished
    with pytest.raises(SpineError, match="another recipe .batch 2 there, 4 asked for"):
        load_or_train(MODEL, RECIPE.changed(batch=4), *stores, folder, "cpu", progress=False)


def other_data(stores, folder, change):
    """Prepare the stores of the same training after a change of its cases."""
    grid = {"shape": (40, 40, 20), "spacing_mm": 6.0}
    if change == "exchanged":
        return stores[::-1]
    cases = phantom_cases(2, 0, **grid)
    if change == "added":
        cases.append(phantom_cases(1, 5, **grid)[0])
    elif change == "removed":
        cases.pop()
    elif change == "replaced":
        cases[1] = replace(phantom_cases(1, 5, **grid)[0], case_id=cases[1].case_id)
    elif change == "reordered":
        cases.reverse()
    return prepare(cases, folder, spacing_mm=6.0), stores[1]


@pytest.mark.parametrize("run", ["finished", "stopped"])
@pytest.mark.parametrize(
    ("change", "odd"),
    [
        ("added", "phantom-0005"),
        ("removed", "phantom-0001"),
        ("replaced", "phantom-0001"),
        ("reordered", "the order of its cases"),
        ("exchanged", "phantom-0000, phantom-0001, phantom-0010, phantom-0011"),
    ],
)
def test_a_run_that_saw_other_data_is_neither_loaded_nor_resumed(
    stores, request, tmp_path, run, change, odd
):
    folder = request.getfixturevalue(run)
    folder = folder[0] if run == "finished" else folder
    data = other_data(stores, tmp_path, change)
    sentence = f"on other data than are given now .what differs: {odd}.: choose another --name"
    with pytest.raises(SpineError, match=sentence):
        load_or_train(MODEL, RECIPE, *data, folder, "cpu", progress=False)


def test_the_same_cases_cut_anew_are_the_same_data(stores, finished, tmp_path):
    data = other_data(stores, tmp_path, "none")
    again = load_or_train(MODEL, RECIPE, *data, finished[0], "cpu", progress=False)
    assert again.trained_seconds == finished[1].trained_seconds


def test_a_run_of_an_older_version_is_loaded_by_itself_but_not_gone_on_with(
    stores, finished, stopped, tmp_path
):
    """It kept no record of its data, and has a setting that is gone."""
    with safe_open(finished[0] / "weights.safetensors", framework="pt") as file:
        notes = file.metadata()
    del notes["training_data"]
    recipe = json.loads(notes["recipe"]) | {"augment_on": "worker"}
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    del state["training_data"]
    state["hyper_parameters"]["recipe"] = recipe
    torch.save(state, tmp_path / "last.ckpt")
    weights = load_file(finished[0] / "weights.safetensors")
    notes["recipe"] = json.dumps(recipe)
    save_file(weights, tmp_path / "weights.safetensors", notes)
    for name in ("weights.safetensors", "last.ckpt"):
        assert load_weights(tmp_path / name, MODEL)[1] == RECIPE
        with pytest.raises(SpineError, match="on other data than are given now"):
            load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
        (tmp_path / name).unlink()


def test_half_precision_weights_are_half_as_large(tmp_path):
    network = build_model(MODEL)
    whole = save_weights(network, MODEL, RECIPE, tmp_path / "a.safetensors").stat().st_size
    half = save_weights(network, MODEL, RECIPE, tmp_path / "b.safetensors", half=True)
    assert half.stat().st_size / whole == pytest.approx(0.5, abs=0.01)
    load_weights(half, MODEL)


def test_equal_networks_make_equal_files(tmp_path):
    network = build_model(MODEL)
    paths = [save_weights(network, MODEL, RECIPE, tmp_path / f"{n}.safetensors") for n in range(4)]
    assert len({path.read_bytes() for path in paths}) == 1
    assert read_checkpoint(paths[0]).recipe == RECIPE


def test_a_checkpoint_is_staged_beside_the_old_one_which_stays_until_it_is_complete(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": 1}, path)
    with pytest.raises(AttributeError, match="local"):
        AtomicCheckpoints().save_checkpoint({"big": torch.ones(10**6), "bad": lambda: 0}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def _change(stopped, folder, change):
    """Copy a stopped run's checkpoint, changed, into a folder."""
    path = folder / "last.ckpt"
    if isinstance(change, bytes):
        path.write_bytes(change)
    elif isinstance(change, int):
        path.write_bytes((stopped / "last.ckpt").read_bytes()[:change])
    else:
        content = torch.load(stopped / "last.ckpt", weights_only=True)
        change(content)
        torch.save(content, path)


def _with_nan(content):
    next(iter(content["state_dict"].values())).fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (b"", "cannot be read as a checkpoint"),
        (b"junk", "cannot be read as a checkpoint"),
        (100_000, "cannot be read as a checkpoint"),
        (-10, "cannot be read as a checkpoint"),
        (lambda content: content.clear(), "cannot be read as a checkpoint"),
        (lambda content: content.pop("global_step"), "cannot be read as a checkpoint"),
        (lambda content: content.update(training_data=5), "cannot be read as a checkpoint"),
        (lambda content: content.update(training_data={"training": [[1]]}), "cannot be read as a"),
        (lambda content: content["hyper_parameters"].update(recipe=5), "cannot be read as a check"),
        (lambda content: content["hyper_parameters"].update(recipe={1: 2}), "no setting '1'"),
        (lambda content: content["hyper_parameters"].update(model="unet_own"), "holds a unet_own"),
        (lambda content: content.pop("optimizer_states"), "cannot be resumed from .*KeyError"),
        (lambda content: content["state_dict"].popitem(), "does not fit a unet_tu-mobilenet"),
        (lambda content: content["state_dict"].update(x=torch.ones(1)), "cannot be resumed from"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(stores, stopped, tmp_path, change, message):
    _change(stopped, tmp_path, change)
    with pytest.raises(SpineError, match=message) as caught:
        load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    assert "\n" not in str(caught.value) and str(tmp_path / "last.ckpt") in str(caught.value)


def test_weights_that_are_nan_are_refused(stopped, tmp_path):
    _change(stopped, tmp_path, _with_nan)
    with pytest.raises(SpineError, match="holds NaN or infinite weights in encoder"):
        load_weights(tmp_path / "last.ckpt")


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(10**7))
    with pytest.raises(SpineError, match="cannot be read as a checkpoint .* .ValueError"):
        load_weights(tmp_path / "x.ckpt")


@pytest.mark.parametrize("model", ["unet_tu-hf-hub:someone/x", "unet_tu-local-dir:/x", "x", ""])
def test_a_checkpoint_cannot_name_a_network_of_a_model_hub(tmp_path, monkeypatch, model):
    monkeypatch.setattr(socket, "getaddrinfo", None)  # nothing is asked
    path = save_weights(build_model(MODEL), model, RECIPE, tmp_path / "x.safetensors")
    with pytest.raises(SpineError, match="unknown (model|encoder)"):
        load_weights(path)


def test_the_checksum_of_the_weights_that_an_encoder_starts_from_is_kept(tmp_path, monkeypatch):
    def load(encoder, name):
        torch.nn.init.ones_(next(encoder.parameters()))

    monkeypatch.setattr(build, "_load_packaged_weights", load)
    model = "unet_timm-tf_efficientnet_lite0"
    recipe = RECIPE.changed(models=(model,), encoder_weights="package")
    module = Segmenter(model, recipe.to_dict())
    assert module.encoder_sha256 == weights_sha256(module.network.encoder) != ""
    facts = (model, recipe, tmp_path / "x.safetensors", False, None, module.encoder_sha256)
    assert read_checkpoint(save_weights(module.network, *facts)).encoder_sha256 == facts[-1]
    assert Segmenter(MODEL, RECIPE.to_dict()).encoder_sha256 == ""


def test_two_trainings_do_not_write_into_one_folder(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "sole_use", functools.partial(sole_use, seconds=0.1))
    with sole_use(tmp_path), pytest.raises(SpineError, match="is in use by another process"):
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [("'long'", "cannot be read"), ('"long"', "holds 'long'"), ("-1", "holds -1")],
)
def test_edited_seconds_are_one_sentence(stores, tmp_path, content, words):
    (tmp_path / "seconds.json").write_text(content, encoding="utf-8")
    with pytest.raises(SpineError, match=words):
        load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)


def _of_another_model(path, name="unet_mobilenet_v2"):
    save_weights(build_model("unet_mobilenet_v2"), name, RECIPE, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_of_another_model, "holds a unet_mobilenet_v2, not a unet_tu-mobile"),
        (lambda path: _of_another_model(path, MODEL), "does not fit a unet_tu-mobile"),
        (lambda path: path.write_bytes(b"junk"), "cannot be read as a checkpoint"),
        (lambda path: None, "does not exist: train first"),
    ],
)
def test_a_bad_checkpoint_is_refused_in_one_sentence(tmp_path, make, message):
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(SpineError, match=message) as caught:
        load_weights(path, MODEL)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_checkpoint_never_runs_pickled_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").mkdir, ())

    torch.save({"state_dict": {}, "hyper_parameters": Bomb()}, tmp_path / "x.ckpt")
    with pytest.raises(SpineError, match="cannot be read as a checkpoint"):
        load_weights(tmp_path / "x.ckpt")
    assert not (tmp_path / "exploded").exists()


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_cases_of_the_batch(
    stores, tmp_path, monkeypatch
):
    """The loader is asked what it handed out in the step of which the loss speaks."""
    handed_out = []

    class Noted(TrainingSlices):
        def __getitem__(self, draw):
            handed_out.append(self.store.volumes[draw.volume].case_id)
            return super().__getitem__(draw)

    monkeypatch.setattr(loading, "TrainingSlices", Noted)
    recipe = RECIPE.changed(learning_rate=1e30, averaging=0.0, steps_per_epoch=2)
    with pytest.raises(SpineError, match="loss became .* at step .*lower learning_rate") as caught:
        fit(MODEL, recipe, *stores, tmp_path, "cpu", progress=False)
    last = sorted(set(handed_out[-recipe.batch :]))
    assert f"in a batch of {', '.join(last)}: " in str(caught.value)


class Act(L.Callback):
    def __init__(self, act):
        self.act = act

    def on_train_batch_end(self, *_):
        self.act()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Terminated])
def test_ctrl_c_and_what_a_handler_of_sigterm_raises_reach_the_caller(stores, tmp_path, kind):
    def stop():
        raise kind

    with pytest.raises(kind):
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", False, (Act(stop),))


def test_sigterm_during_training_ends_with_its_code(stores, tmp_path):
    terminate = Act(lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit) as leaving:
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", False, (terminate,))
    assert leaving.value.code == 143


@pytest.mark.parametrize(
    ("limit", "amx", "able"),
    [
        ("", True, True),
        ("", False, False),
        ("AVX2", True, False),
        ("AVX512_CORE_BF16", True, False),
    ],
)
def test_bf16_is_chosen_where_a_cpu_has_amx_and_onednn_may_use_it(monkeypatch, limit, amx, able):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert devices.cpu_computes_bf16() is able
    assert devices.choose_precision("auto", "cpu") == ("bf16-mixed" if able else "32-true")


def test_a_missing_gpu_is_declined_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose_device("auto") == "cpu"
    assert devices.choose_device("mps") == "mps"
    with pytest.raises(SpineError, match="PyTorch sees no CUDA GPU; use --device cpu or mps"):
        devices.choose_device("cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.warns(UserWarning, match="no Apple GPU here: the CPU is used"):
        assert devices.choose_device("mps") == "cpu"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "16-mixed")])
def test_a_gpu_that_emulates_bf16_computes_in_fp16(monkeypatch, native, expected):
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or native,
    )
    assert devices.choose_precision("auto", "cuda") == expected
    assert devices.choose_precision("auto", "mps") == "32-true"
    with pytest.raises(SpineError, match="16-mixed needs a CUDA GPU"):
        devices.choose_precision("16-mixed", "cpu")


def test_the_time_of_a_stopped_run_counts(stores, tmp_path, monkeypatch):
    def stopped(*args, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    assert (tmp_path / "seconds.json").is_file()
    (tmp_path / "seconds.json").write_text("1000.0", encoding="utf-8")
    fitted = load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    assert 1000 < fitted.trained_seconds < 1100


def test_workers_that_live_on_leave_dropout_its_random_numbers(stores, unbroken, tmp_path):
    """A loader takes a random number whenever it begins, with or without new workers."""
    recipe = DROPOUT_RECIPE.changed(workers=1)
    assert is_equal(unbroken, fit(WITH_DROPOUT, recipe, *stores, tmp_path, "cpu", progress=False))


@pytest.mark.parametrize("spoilt", [5, 4])
def test_a_loss_that_is_checked_one_step_later_is_reported_with_its_own_step(
    stores, tmp_path, monkeypatch, spoilt
):
    """As on a GPU; step 4 is the last of an epoch, and its weights must not be kept."""
    right = training.Segmenter.training_step

    def step(module, batch, index):
        image, *rest = batch
        if module.global_step == spoilt - 1:
            image = image * float("nan")
        return right(module, (image, *rest), index)

    monkeypatch.setattr(Segmenter, "checks_later", True)
    monkeypatch.setattr(Segmenter, "training_step", step)
    with pytest.raises(SpineError, match=f"at step {spoilt - 1} of .*in a batch of phantom"):
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    last = tmp_path / "last.ckpt"
    if spoilt > 4:
        assert torch.load(last, weights_only=True)["global_step"] == 4
    else:
        assert not last.is_file()


# --- several networks at a time -------------------------------------------------------------------

PAIR = (MODEL, WITH_DROPOUT)
SHORT = DROPOUT_RECIPE.changed(models=PAIR, steps=4, steps_per_epoch=2, atrous_rates=(1, 2, 3))


def slow_pair(test):
    """Mark a slow test that needs two cores."""
    return pytest.mark.slow(pytest.mark.usefixtures("two_cores")(test))


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr("spine_lib.training.train._cores", lambda: 2)


def jobs_in(folder, stores, recipe=SHORT):
    return [Job(model, recipe, *stores, folder / model) for model in PAIR]


@slow_pair
def test_a_training_beside_one_that_fails_ends_with_the_numbers_it_has_alone(stores, tmp_path):
    bad, good = jobs_in(tmp_path, stores)
    load_or_train(bad.model, SHORT.changed(seed=9, steps=2), *stores, bad.folder, "cpu", False)
    bad.weights.unlink()
    with pytest.raises(SpineError, match="another recipe .*seed 9 there, 0 asked for"):
        train_side_by_side([bad, good], 2, progress=False)
    assert good.is_finished() and not bad.is_finished()
    network, recipe = load_weights(good.weights, good.model)
    assert recipe.changed(workers=SHORT.workers) == SHORT
    alone = load_or_train(PAIR[1], SHORT, *stores, tmp_path / "alone", "cpu", False)
    for name, value in alone.network.state_dict().items():
        assert torch.allclose(value, network.state_dict()[name], atol=1e-3), name


@slow_pair
def test_what_is_finished_or_alone_starts_no_process(stores, tmp_path, monkeypatch):
    monkeypatch.setattr("spine_lib.training.train.ProcessPoolExecutor", None)
    jobs = jobs_in(tmp_path, stores)
    train_side_by_side(jobs[:1], 2, progress=False)
    train_side_by_side(jobs, 1, progress=False)
    for job in jobs:
        data = data_identity(job.training, job.validation)
        save_weights(build_model(job.model), job.model, job.recipe, job.weights, data=data)
    train_side_by_side(jobs, 2, progress=False)


@slow_pair
def test_what_is_finished_with_other_data_is_refused_before_anything_is_trained(
    stores, tmp_path, monkeypatch
):
    monkeypatch.setattr("spine_lib.training.train.ProcessPoolExecutor", None)
    new, finished = jobs_in(tmp_path, stores)
    data = data_identity(*stores[::-1])
    save_weights(build_model(finished.model), finished.model, SHORT, finished.weights, data=data)
    with pytest.raises(SpineError, match="trained on other data than are given now"):
        train_side_by_side([new, finished], 2, progress=False)
    assert not new.folder.exists()


@slow_pair
def test_killing_the_program_stops_its_trainings(stores, tmp_path):
    jobs = jobs_in(tmp_path, stores, SHORT.changed(steps=4000, steps_per_epoch=2000))
    (tmp_path / "jobs").write_bytes(pickle.dumps(jobs))
    script = tmp_path / "job.py"
    script.write_text(
        "import pathlib, pickle\n"
        "from spine_lib.training import train\n"
        "if __name__ == '__main__':\n"
        "    train._cores = lambda: 2\n"
        "    train.train_side_by_side(pickle.loads(pathlib.Path('jobs').read_bytes()), 2, False)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(spine_lib.__file__).parents[1])}
    program = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path, env=environment)
    try:
        wait_until(lambda: all((job.folder / "hparams.yaml").is_file() for job in jobs), 300)
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
