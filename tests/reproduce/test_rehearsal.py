"""The rehearsal: phantoms in the public set's layout, stages timed, stopped and gone on."""

import json
import re

import numpy as np
import pytest

from spine_lib import SpineError, rehearsal, rehearsal_facts
from spine_lib.annotations.schemes import SACRUM
from spine_lib.cli import main
from spine_lib.ct.volume import load_mask
from spine_lib.datasets.catalogue import find_cases
from spine_lib.phantom_tree import (
    case_name,
    files_of,
    numbers_of,
    public_ids,
    shape_of,
    shares_of,
    write_tree,
)
from spine_lib.rehearsal import Rehearsal, rehearse
from spine_lib.reproduce.laps import Laps, OutOfTime
from spine_lib.training.recipe import load_recipe

RECIPE = """
dataset: pycad1089
models: [unet_resnet18, deeplabv3plus_resnet18]
atrous_rates: [1, 2, 3]
phantoms: 0
phantom_share: 0
validation_phantoms: 0
spacing_mm: 6
batch: 16
workers: 0
averaging: 0
precision: 32-true
augmentation: {size: 32, redraw: 0}
"""

SMALL = {"middle": (40, 40, 30), "spacing_mm": 6.0}


def test_the_parts_are_those_of_the_public_sets_split():
    assert shares_of(1089) == {"train": 762, "validation": 109, "test": 218}
    assert shares_of(11) == {"train": 8, "validation": 1, "test": 2}
    assert shares_of(3) == {"train": 1, "validation": 1, "test": 1}
    with pytest.raises(SpineError, match="2 scans cannot be split in 3 parts"):
        shares_of(2)


def test_numbers_have_gaps_and_shapes_vary_around_the_median():
    numbers = numbers_of(40)
    assert len(set(numbers)) == 40 and numbers == sorted(numbers)
    assert numbers != list(range(40))
    shapes = np.array([shape_of(number) for number in range(400)])
    assert np.allclose(np.median(shapes, axis=0), (229, 237, 243), rtol=0.03)
    assert (shapes.std(axis=0) > 5).all()
    assert shape_of(7) == shape_of(7) != shape_of(8)


def test_only_the_upper_part_of_the_sacrum_stays_and_is_called_25():
    labels = np.zeros((4, 4, 60), np.uint8)
    labels[1:3, 1:3, 5:45] = SACRUM
    labels[1:3, 1:3, 45:55] = 24
    found = public_ids(labels, spacing_mm=1.5)
    assert set(np.unique(found)) == {0, 24, 25}
    assert np.flatnonzero((found == 25).any(axis=(0, 1))).tolist() == list(range(25, 45))
    assert np.array_equal(found == 24, labels == 24) and (labels == SACRUM).any()


def test_a_tree_is_read_as_the_public_set_and_what_is_there_is_kept(tmp_path):
    laps = Laps(None)
    write_tree(tmp_path, 3, 1, (30, 30, 70), 5.0, laps)
    assert laps.units("phantoms") == 3
    found = find_cases("pycad1089", tmp_path)
    assert sorted(case.split for case in found.cases) == ["test", "train", "validation"]
    assert not found.left_out
    ids = set()
    for case in found.cases:
        data = case.load()
        assert data.ct.spacing_mm == (5.0, 5.0, 5.0) and data.ct.array.dtype == np.int16
        ids |= set(np.unique(load_mask(case.mask_path).array).tolist())
    assert ids <= set(range(26))
    scan, mask = files_of(tmp_path, numbers_of(3)[0])
    before = scan.stat().st_mtime_ns
    bytes_before = mask.read_bytes()
    mask.unlink()  # as if killed between the two
    write_tree(tmp_path, 3, 1, (30, 30, 70), 5.0, laps)
    assert laps.units("phantoms") == 4
    assert mask.read_bytes() == bytes_before and scan.stat().st_mtime_ns > before
    other = files_of(tmp_path, numbers_of(3)[1])[0]
    assert other.is_file() and case_name(3) == "case_0003"


def test_a_disk_that_is_too_small_is_told_beforehand(tmp_path, monkeypatch):
    from spine_lib import phantom_tree

    monkeypatch.setattr(phantom_tree.shutil, "disk_usage", lambda path: type("D", (), {"free": 9}))
    with pytest.raises(SpineError, match="11 phantoms need about 0.4 GB: free some, or ask for"):
        write_tree(tmp_path, 11)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small rehearsal, called with so little time that it takes many pieces."""
    root = tmp_path_factory.mktemp("rehearsal")
    recipe = root / "small.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    what = Rehearsal(scans=3, epochs=2, recipe=str(recipe), **SMALL)
    keep, lines, pieces = root / "kept" / "rehearsal.json", [], 0
    options = {"device": "cpu", "root": root, "progress": False, "say": lines.append}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(root / "data"))
        patch.setattr(rehearsal, "BARE_STEPS", {"cpu": 2})
        done = False
        while not done:
            assert pieces < 60, "a call does nothing"
            pieces += 1
            try:
                rehearse(what, "small", 1e-6, keep=keep, **options)
                done = True
            except OutOfTime:
                continue
        again = []
        rehearse(what, "small", keep=keep, **{**options, "say": again.append})
        with pytest.raises(SpineError, match=re.escape("another rehearsal (steps 0)")):
            rehearse(Rehearsal(scans=3, epochs=2, steps=4, recipe=str(recipe), **SMALL), "small",
                     **options)  # fmt: skip
    return root, json.loads(keep.read_text(encoding="utf-8")), lines, again, pieces


@pytest.mark.slow
def test_a_rehearsal_stopped_after_every_unit_ends_with_each_unit_counted_once(finished):
    root, facts, _, _, pieces = finished
    measured = facts["measured"]
    assert pieces > 10
    assert measured["phantoms"]["scans"] == 3 and measured["prepare"]["scans"] == 2
    steps = facts["rehearsed"]["steps"]
    laps = Laps(root / "small" / "laps.json")
    for model, row in measured["train"].items():
        assert laps.units(f"start {model}") + laps.units(f"train {model}") == steps
        assert row["bare_step"]["images"] == 2 * 16
        assert measured["evaluate"][model]["predict"]["scans"] == 1
        assert measured["evaluate"][model]["score"]["scans"] == 1
    assert measured["report"]["reports"] == 1
    assert len(facts["pieces"]) == pieces - 1  # the last call only puts the result together
    assert all(len(piece["load_before"]) == 3 for piece in facts["pieces"])


@pytest.mark.slow
def test_the_result_says_what_was_measured_what_computed_and_on_what(finished):
    _, facts, lines, again, _ = finished
    assert facts["goal"]["reached"] == "not measured: no GPU"
    assert facts["goal"]["minutes"] == 30 and facts["goal"]["share_of_bare_step"] == 0.95
    assert facts["hardware"]["cores"] >= 1 and "torch" in facts["versions"]
    assert facts["recipe"]["encoder_weights"] is None
    assert any("random" in note for note in facts["notes"])
    assert "computed for 1089 scans, 2 models, 10 epochs at 32x32" in lines[-2]
    assert not any(line.startswith("testing ") or "steps of" in line for line in again)


@pytest.mark.slow
def test_the_stages_of_a_stopped_run_count_all_their_pieces(finished):
    root, facts, _, _, _ = finished
    stages = json.loads((root / "small" / "stages.json").read_text(encoding="utf-8"))
    assert set(stages) == {"prepare", "train", "evaluate"}
    sliced = facts["measured"]["prepare"]["seconds"]
    assert stages["prepare"] >= sliced - 0.2


def test_a_whole_experiment_is_computed_from_what_was_measured():
    recipe = load_recipe("paper").changed(models=("unet_resnet34",))
    stages = {
        "phantoms": {"seconds": 30.0, "units": 10},
        "prepare": {"seconds": 16.0, "units": 8},
        "start unet_resnet34": {"seconds": 5.0, "units": 1},
        "train unet_resnet34": {"seconds": 64.0, "units": 4},
        "validate unet_resnet34": {"seconds": 10.0, "units": 20},
        "between epochs unet_resnet34": {"seconds": 6.0, "units": 2},
        "end unet_resnet34": {"seconds": 1.0, "units": 1},
        "bare step unet_resnet34": {"seconds": 60.0, "units": 5},
        "read test scans": {"seconds": 2.0, "units": 2},
        "predict unet_resnet34": {"seconds": 20.0, "units": 2},
        "score unet_resnet34": {"seconds": 4.0, "units": 2},
        "report": {"seconds": 7.0, "units": 1},
    }
    measured = rehearsal_facts.measure(stages, recipe, 10)
    row = measured["train"]["unet_resnet34"]
    assert row["steps"]["images"] == 256 and row["steps"]["images_per_second"] == 4.0
    assert row["bare_step"]["images_per_second"] == pytest.approx(64 / 12, abs=1e-3)
    assert row["share_of_bare_step"] == 0.75
    computed = rehearsal_facts.extrapolate(measured, recipe, slices=240.0)
    images = 762 * 240 * 10
    assert computed["training_images_of_each_model"] == images
    validated = 109 * 240 / 12 * 10
    assert computed["seconds"] == {
        "prepare": 2 * (762 + 109),
        "train unet_resnet34": round(images / 4 + 5 + validated / 2 + 9 * 3 + 1),
        "evaluate": 218 * (1 + 10 + 2),
        "report": 7,
    }
    assert computed["minutes"] == round(sum(computed["seconds"].values()) / 60, 1)


@pytest.mark.parametrize(
    ("minutes", "share", "met"), [(29.0, 0.96, True), (31.0, 0.96, False), (29.0, 0.9, False)]
)
def test_the_goal_is_met_by_time_and_speed_together_and_only_on_a_gpu(minutes, share, met):
    measured = {"train": {"a": {"share_of_bare_step": 0.99}, "b": {"share_of_bare_step": share}}}
    found = rehearsal_facts.reached(measured, {"minutes": minutes}, "cuda")
    assert found["met"] is met and found["share_of_bare_step"] == share
    assert rehearsal_facts.reached(measured, {"minutes": minutes}, "cpu") == "not measured: no GPU"


def test_the_recipe_is_the_papers_but_for_what_was_asked(tmp_path):
    write_tree(tmp_path, 3, 1, (20, 20, 20), 6.0)
    paper, found = load_recipe("paper"), Rehearsal(scans=3, epochs=2).recipe_for(tmp_path, 5)
    slices = shape_of(next(n for n in numbers_of(3) if _is_training(n)), (20, 20, 20))[2]
    assert found.steps_per_epoch == -(-slices // paper.batch) and found.steps == 2
    changed = {"encoder_weights", "steps", "steps_per_epoch", "workers"}
    differs = {k for k, v in paper.to_dict().items() if found.to_dict()[k] != v}
    assert differs == changed
    cut = Rehearsal(scans=3, steps=3, batch=2, encoder_weights="imagenet").recipe_for(tmp_path, 1)
    assert (cut.steps, cut.steps_per_epoch, cut.batch) == (3, 3, 2)
    assert cut.encoder_weights == "imagenet"


def _is_training(number):
    from spine_lib.datasets.pycad1089 import split_of

    return split_of(case_name(number)) == "train"


def test_the_command_pauses_with_an_exit_code_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPINE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def small(what, **options):
        assert (what.scans, what.steps, options["minutes"]) == (4, 2, 0.5)
        raise OutOfTime("the minutes of this call are over: the same command again goes on")

    monkeypatch.setattr(rehearsal, "rehearse", small)
    assert main(["rehearse", "--scans", "4", "--steps", "2", "--minutes", "0.5"]) == 3
    assert "goes on" in capsys.readouterr().out


def test_minutes_must_be_a_number_above_0(capsys):
    for wrong in ("0", "-3", "soon"):
        with pytest.raises(SystemExit):
            main(["rehearse", f"--minutes={wrong}"])
        assert "is not a number of minutes above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wish", "message"),
    [({"recipe": "papr"}, "no recipe 'papr'"), ({"scans": 2}, "2 scans cannot be split")],
)
def test_what_cannot_work_is_told_before_a_phantom_is_made(tmp_path, wish, message):
    with pytest.raises(SpineError, match=message):
        rehearse(Rehearsal(**wish), "try", device="cpu", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_recipe_with_phantoms_and_patients_is_rehearsed_on_the_public_layout_alone():
    recipe = Rehearsal(recipe="sample").base()
    assert (recipe.dataset, recipe.phantoms, recipe.validation_phantoms) == ("pycad1089", 0, 0)


def test_several_devices_are_not_set_beside_the_goal_of_one():
    found = rehearsal_facts.reached({"train": {}}, {"minutes": 3.0}, "cuda", devices=8)
    assert found == "not measured: 8 devices share each training"


def test_stages_that_were_not_timed_are_named():
    row = {"steps": 1, "start": 1, "validation": 1, "between_epochs": None, "end": 1}
    (note,) = rehearsal_facts.not_measured({"prepare": 1, "report": None, "train": {"unet": row}})
    assert "report, between epochs of unet." in note
