"""Training: resumed to the same numbers, loaded instead of repeated, refused when it cannot be."""

import json
import shutil
from dataclasses import replace

import lightning as L
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spine_lib import SpineError
from spine_lib.datasets import phantom_cases
from spine_lib.models import build_model
from spine_lib.slices import TrainingSlices, prepare
from spine_lib.slices.augment import Augmentation
from spine_lib.training import devices, loading
from spine_lib.training import train as training
from spine_lib.training.checkpoints import load_weights, save_weights
from spine_lib.training.loading import PatchSampler
from spine_lib.training.losses import LOSSES, segmentation_loss
from spine_lib.training.module import Segmenter
from spine_lib.training.recipe import Recipe
from spine_lib.training.train import fit, load_or_train

MODEL = "unet_resnet18"
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

WITH_DROPOUT = "deeplabv3plus_resnet18"
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
def unbroken(stores, tmp_path_factory):
    return fit(MODEL, RECIPE, *stores, tmp_path_factory.mktemp("run"), "cpu", progress=False)


class StopAfter(L.Callback):
    """Stop in the middle of a run, as a killed process would that saved just before, if at all."""

    def __init__(self, step: int, path=None):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step == self.step:
            if self.path:
                trainer.save_checkpoint(self.path)
            raise RuntimeError("killed")


@pytest.mark.parametrize(("step", "saves"), [(4, True), (5, True), (6, False)])
def test_a_resumed_run_ends_with_the_same_numbers(stores, unbroken, tmp_path, step, saves):
    """Step 4 is the last of an epoch; killed after step 6, a run goes on from that epoch's end."""
    last = tmp_path / "last.ckpt" if saves else None
    with pytest.raises(RuntimeError, match="killed"):
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", False, (StopAfter(step, last),))
    resumed = fit(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    for name, value in unbroken.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.fixture(scope="module")
def unbroken_with_dropout(stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout")
    return fit(WITH_DROPOUT, DROPOUT_RECIPE, *stores, folder, "cpu", progress=False)


@pytest.mark.parametrize("saved", ["at the epoch's end", "just before"])
@pytest.mark.parametrize("kept", [True, False])
def test_dropout_goes_on_with_the_random_numbers_of_the_stopped_run(
    stores, unbroken_with_dropout, tmp_path, saved, kept, monkeypatch
):
    """Without them in the checkpoint it would drop other units, and end elsewhere."""
    path = tmp_path / "last.ckpt" if saved == "just before" else None
    if not kept:
        monkeypatch.setattr(loading, "_random_state", dict)
    arguments = (WITH_DROPOUT, DROPOUT_RECIPE, *stores, tmp_path, "cpu", False)
    with pytest.raises(RuntimeError, match="killed"):
        fit(*arguments, (StopAfter(6, path),))
    resumed = fit(*arguments).state_dict()
    pairs = [(value, resumed[name]) for name, value in unbroken_with_dropout.state_dict().items()]
    assert all(torch.equal(a, b) for a, b in pairs) is kept


def test_another_seed_gives_other_numbers(stores, unbroken, tmp_path):
    other = fit(MODEL, RECIPE.changed(seed=1), *stores, tmp_path, "cpu", progress=False)
    key = "network.segmentation_head.0.weight"
    assert not torch.equal(unbroken.state_dict()[key], other.state_dict()[key])


@pytest.fixture(scope="module")
def finished(stores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, load_or_train(MODEL, RECIPE, *stores, folder, "cpu", progress=False)


def test_a_finished_run_is_loaded(stores, finished):
    folder, first = finished
    again = load_or_train(MODEL, RECIPE, *stores, folder, "cpu", progress=False)
    assert again.seconds == 0.0 and again.trained_seconds == first.trained_seconds > 0
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(first.network(image), again.network(image), atol=1e-5)


def test_a_run_leaves_logs_both_checkpoints_and_weights(finished):
    folder, fitted = finished
    names = {path.name for path in folder.iterdir()}
    assert {"best.ckpt", "last.ckpt", "weights.safetensors", "metrics.csv"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    dice = [row["val_dice"] for row in fitted.curve if "val_dice" in row]
    assert len(dice) == 2 and all(0 <= value <= 1 for value in dice)


def test_the_last_checkpoint_is_the_last_even_where_it_is_not_the_best(finished):
    folder, _ = finished
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == RECIPE.steps


def test_checkpoint_and_weights_hold_the_same_network(finished):
    folder, _ = finished
    a, recipe = load_weights(folder / "weights.safetensors", MODEL)
    b, other = load_weights(folder / "last.ckpt")
    assert recipe == other == RECIPE
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name


def test_a_folder_with_another_recipe_is_refused(stores, finished):
    folder, _ = finished
    with pytest.raises(SpineError, match="another recipe .batch 2 there, 4 asked for"):
        load_or_train(MODEL, RECIPE.changed(batch=4), *stores, folder, "cpu", progress=False)


@pytest.fixture(scope="module")
def stopped(stores, tmp_path_factory):
    """A folder with a checkpoint and without weights."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(RuntimeError, match="killed"):
        fit(MODEL, RECIPE, *stores, folder, "cpu", False, (StopAfter(6),))
    return folder


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
    ("change", "message"),
    [
        ("added", "training cases: phantom-0005 added"),
        ("removed", "training cases: phantom-0001 removed"),
        ("replaced", "training cases: phantom-0001 changed"),
        ("reordered", "training cases: in another order"),
        (
            "exchanged",
            "training cases: phantom-0010, phantom-0011 added, "
            "phantom-0000, phantom-0001 removed; validation cases: "
            "phantom-0000, phantom-0001 added, phantom-0010, phantom-0011 removed",
        ),
    ],
)
def test_a_run_that_saw_other_data_is_neither_loaded_nor_resumed(
    stores, request, tmp_path, run, change, message
):
    folder = request.getfixturevalue(run)
    folder = folder[0] if run == "finished" else folder
    data = other_data(stores, tmp_path, change)
    sentence = f"{folder} holds a run that was trained on other data than are given now "
    with pytest.raises(SpineError) as caught:
        load_or_train(MODEL, RECIPE, *data, folder, "cpu", progress=False)
    assert str(caught.value) == f"{sentence}({message}): choose another --name"


def test_the_same_cases_cut_anew_are_the_same_data(stores, finished, tmp_path):
    data = other_data(stores, tmp_path, "none")
    assert load_or_train(MODEL, RECIPE, *data, finished[0], "cpu", progress=False).seconds == 0.0


def without_record(finished, stopped, folder):
    """Copy weights and checkpoint as an older version would have written them."""
    with safe_open(finished[0] / "weights.safetensors", framework="pt") as file:
        notes = file.metadata()
    del notes["training_data"]
    recipe = json.loads(notes["recipe"]) | {"augment_on": "worker"}
    notes["recipe"] = json.dumps(recipe)
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    del state["training_data"]
    state["hyper_parameters"]["recipe"] = recipe
    torch.save(state, folder / "last.ckpt")
    weights = load_file(finished[0] / "weights.safetensors")
    save_file(weights, folder / "weights.safetensors", notes)
    shutil.copy(finished[0] / "metrics.csv", folder)


def test_what_a_run_of_an_older_version_saw_is_unknown(stores, finished, stopped, tmp_path):
    """It also has a setting that is gone: its weights load, and it is not resumed."""
    without_record(finished, stopped, tmp_path)
    with pytest.warns(UserWarning, match="which cases it was trained on is unknown"):
        fitted = load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)
    assert fitted.recipe == RECIPE and fitted.seconds == 0.0
    assert load_weights(tmp_path / "last.ckpt", MODEL)[1] == RECIPE
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(SpineError, match="which cases it was trained on is unknown: choose anothe"):
        load_or_train(MODEL, RECIPE, *stores, tmp_path, "cpu", progress=False)


def test_half_precision_weights_are_half_as_large(tmp_path):
    network = build_model(MODEL)
    whole = save_weights(network, MODEL, RECIPE, tmp_path / "a.safetensors").stat().st_size
    half = save_weights(network, MODEL, RECIPE, tmp_path / "b.safetensors", half=True)
    assert half.stat().st_size / whole == pytest.approx(0.5, abs=0.01)
    load_weights(half, MODEL)


def _of_another_model(path):
    save_weights(build_model("unet_mobilenet_v2"), "unet_mobilenet_v2", RECIPE, path)


def _with_another_name(path):
    save_weights(build_model("unet_mobilenet_v2"), MODEL, RECIPE, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_of_another_model, "holds a unet_mobilenet_v2, not a unet_resnet18"),
        (_with_another_name, "does not fit a unet_resnet18"),
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


def test_unknown_pixels_do_not_count_in_the_loss():
    logits, target = torch.randn(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    weight = torch.ones_like(logits)
    weight[..., :4] = 0
    for kind in LOSSES:
        changed = logits.clone()
        changed[..., :4] += 3
        loss = segmentation_loss(logits, target, weight, kind)
        assert torch.isclose(loss, segmentation_loss(changed, target, weight, kind))


def test_a_perfect_guess_has_less_loss_than_a_wrong_one():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 4:9, 4:9] = 1
    weight = torch.ones_like(target)
    for kind in LOSSES:
        right = segmentation_loss(40 * target - 20, target, weight, kind)
        wrong = segmentation_loss(20 - 40 * target, target, weight, kind)
        assert right < 0.02 < 0.5 < wrong


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


def test_the_cases_of_a_batch_are_those_that_its_draws_name(stores):
    recipe = RECIPE.changed(batch=3, steps_per_epoch=5)
    sampler = PatchSampler(stores[0], recipe)
    for epoch in (0, 2):
        sampler.set_epoch(epoch)
        ids = [stores[0].volumes[draw.volume].case_id for draw in sampler]
        for batch in range(5):
            assert sampler.cases(batch) == sorted(set(ids[3 * batch : 3 * batch + 3]))


def test_the_focal_loss_turns_down_what_is_right_and_keeps_what_is_wrong():
    target = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(4, 1, 1, 1)
    logits = torch.tensor([3.0, -3.0, -3.0, 3.0]).view(4, 1, 1, 1)
    for number, (logit, truth) in enumerate(zip(logits, target, strict=True)):
        one = (logit[None], truth[None], torch.ones(1, 1, 1, 1))
        factor = segmentation_loss(*one, "focal") / segmentation_loss(*one, "bce")
        sure_and_wrong = torch.sigmoid(torch.tensor(3.0 if number > 1 else -3.0)) ** 2
        assert torch.isclose(factor, sure_and_wrong, rtol=1e-4)
    both = segmentation_loss(logits, target, torch.ones_like(target), "focal_dice")
    parts = [
        segmentation_loss(logits, target, torch.ones_like(target), k) for k in ("focal", "dice")
    ]
    assert torch.isclose(both, sum(parts))


def test_ctrl_c_during_training_is_told_as_such(stores, tmp_path):
    class Interrupt(L.Callback):
        def on_train_batch_end(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(MODEL, RECIPE, *stores, tmp_path, "cpu", False, (Interrupt(),))


@pytest.mark.parametrize(("limit", "able"), [("AVX2", False), ("AVX512_CORE", False)])
def test_bf16_is_left_alone_where_onednn_may_not_use_it(monkeypatch, limit, able):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert devices.cpu_computes_bf16() is able
    assert devices.choose_precision("auto", "cpu") == "32-true"


def test_a_missing_gpu_is_declined_in_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.choose_device("auto") == "cpu"
    with pytest.raises(SpineError, match="Apple's GPU is not supported yet; use --device cpu"):
        devices.choose_device("cuda")


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
    assert fitted.trained_seconds == pytest.approx(1000 + fitted.seconds)


def test_workers_that_live_on_leave_dropout_its_random_numbers(
    stores, unbroken_with_dropout, tmp_path
):
    """A loader takes a random number whenever it begins, with or without new workers."""
    recipe = DROPOUT_RECIPE.changed(workers=1)
    found = fit(WITH_DROPOUT, recipe, *stores, tmp_path, "cpu", progress=False).state_dict()
    for name, value in unbroken_with_dropout.state_dict().items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("spoilt", [5, 4, 8])
def test_a_loss_that_is_checked_one_step_later_is_reported_with_its_own_step(
    stores, tmp_path, monkeypatch, spoilt
):
    """As on a GPU; steps 4 and 8 are the last of an epoch, and their weights must not be kept."""
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


@pytest.mark.slow
@pytest.mark.skipif(not devices._has_cpp_compiler(), reason="no C++ compiler for torch.compile")
def test_compiled_training_leaves_the_same_checkpoints(stores, tmp_path):
    recipe = RECIPE.changed(compile=True, steps=3, steps_per_epoch=3, averaging=0.0)
    # over two tiny patches BatchNorm leaves the deep layers nothing but rounding to learn from
    recipe = recipe.changed(batch=8, augmentation=Augmentation(size=64))
    compiled = load_or_train(MODEL, recipe, *stores, tmp_path / "a", "cpu", progress=False)
    plain = recipe.changed(compile=False)
    eager = load_or_train(MODEL, plain, *stores, tmp_path / "b", "cpu", progress=False)
    for file in ("weights.safetensors", "last.ckpt"):
        one, two = (load_weights(tmp_path / run / file, MODEL)[0].state_dict() for run in "ab")
        assert list(one) == list(two) and not any("_orig_mod" in name for name in one)
        L.seed_everything(recipe.seed, verbose=False)  # as `fit` begins
        begun = dict(Segmenter(MODEL, recipe.to_dict()).network.named_parameters())
        ways = [
            torch.cat([(end[name].float() - start).flatten() for name, start in begun.items()])
            for end in (one, two)
        ]
        assert min(way.norm() for way in ways) > 0.1
        assert torch.cosine_similarity(*ways, dim=0) > 0.9
    assert compiled.recipe.compile and not eager.recipe.compile


def test_compiling_without_a_compiler_is_declined_before_anything_starts(
    stores, tmp_path, monkeypatch
):
    monkeypatch.setattr(devices, "_has_cpp_compiler", lambda: False)
    with pytest.raises(SpineError, match=r"finds no C\+\+ compiler.*set compile: false"):
        fit(MODEL, RECIPE.changed(compile=True), *stores, tmp_path, "cpu", progress=False)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpineError, match="finds no Triton"):
        devices.require_compiler("cuda")


def test_a_checkpoint_from_before_a_setting_existed_is_read_with_the_old_behaviour(
    stores, finished, tmp_path
):
    state = torch.load(finished[0] / "last.ckpt", weights_only=True)
    del state["hyper_parameters"]["recipe"]["compile"]
    torch.save(state, tmp_path / "last.ckpt")
    _, recipe = load_weights(tmp_path / "last.ckpt")
    assert recipe == RECIPE and not recipe.compile
