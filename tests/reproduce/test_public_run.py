"""The whole experiment on a public data set, on a tree of phantoms in its layout."""

import dataclasses
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from spine_lib import SpineError, cli
from spine_lib.datasets import phantom_cases, split_of
from spine_lib.reproduce import deviations, reproduce, sources
from spine_lib.reproduce.sources import gather
from spine_lib.training.checkpoints import read_checkpoint
from spine_lib.training.recipe import load_recipe

pytestmark = pytest.mark.slow


def main(arguments) -> int:
    """Run a command; return its exit code."""
    with pytest.raises(SystemExit) as leaving:
        cli.main(arguments)
    return leaving.value.code


def numbers_of(part, count):
    """Find scans whose names fall into a part."""
    names = (f"case_{number:04d}" for number in range(500))
    return [name for name in names if split_of(name) == part][:count]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Six scans with pycad1089's ids; one test scan is broken."""
    from spine_lib.datasets import make_phantom

    root = tmp_path_factory.mktemp("tree")
    names = [*numbers_of("train", 2), *numbers_of("validation", 1), *numbers_of("test", 3)]
    for number, name in enumerate(names):
        data = make_phantom(number, shape=(40, 40, 24), spacing_mm=6.0, levels=("T12", "L4"))
        for kind, array in (("volumes", data.ct.array), ("segmentations", data.labels.array)):
            path = root / kind / f"{name}.nii"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(np.ascontiguousarray(array), data.ct.affine), path)
    broken = root / "volumes" / f"{names[-1]}.nii"
    broken.write_bytes(broken.read_bytes()[:3000])
    return root


RECIPE = load_recipe("tiny").changed(
    dataset="pycad1089", phantoms=0, phantom_share=0.0, validation_phantoms=0, steps=4,
    steps_per_epoch=4, atrous_rates=(1, 2, 3), models=("unet_resnet18", "deeplabv3plus_resnet18"),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    folder, lines = tmp_path_factory.mktemp("runs"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(folder / "data"))
        options = {"root": folder, "data_root": tree, "progress": False, "device": "cpu"}
        path = reproduce(RECIPE, "small", say=lines.append, **options)
        again = []
        reproduce(RECIPE, "small", say=again.append, **options)
    return path, lines, again


def test_a_broken_test_scan_is_named_and_does_not_stop_the_rest(run):
    results = json.loads((run[0] / "results.json").read_text(encoding="utf-8"))
    broken = numbers_of("test", 3)[-1]
    for entry in results["models"].values():
        assert sorted(entry["test"]["volumes"]) == numbers_of("test", 2)
    (left_out,) = results["data"]["left_out"]
    assert left_out.startswith(f"{broken}: ") and "truncated" in left_out
    assert "by scan" in results["data"]["split"]


def test_the_run_publishes_its_split_as_a_file(run):
    rows = (run[0] / "split.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "case_id,patient_id,split"
    parts = [row.split(",")[2] for row in rows[1:]]
    assert [parts.count(part) for part in ("train", "validation", "test")] == [2, 1, 3]


def test_scores_that_are_there_are_not_computed_again(run):
    assert sum("testing" in line for line in run[1]) == 4
    assert not any("testing" in line for line in run[2])


def test_a_mask_that_was_fetched_again_is_scored_again(run, tree):
    path, lines, _ = run
    name = numbers_of("test", 2)[0]
    mask = tree / "segmentations" / f"{name}.nii"
    before = mask.stat()
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    later = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(path.parent / "data"))
        options = {"root": path.parent, "data_root": tree, "progress": False, "device": "cpu"}
        reproduce(RECIPE, "small", say=later.append, **options)
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    tested = [line for line in later if "testing" in line]
    assert len(tested) == 2 and all(name in line for line in tested)


def _exchange(first, second):
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def _move(root, move):
    """Change the tree after a run: what it was trained on, or tests on, is no longer there."""
    trained, tested = numbers_of("train", 3), numbers_of("test", 4)
    for kind in ("volumes", "segmentations"):
        first, new = (root / kind / f"{name}.nii" for name in (trained[0], trained[2]))
        if move == "a training case added":
            shutil.copy(root / kind / f"{tested[0]}.nii", new)
        elif move == "training and test exchanged":
            _exchange(first, root / kind / f"{tested[0]}.nii")
        elif move == "a training scan tested under another name":
            shutil.copy(first, root / kind / f"{tested[3]}.nii")
        elif move == "a mask emptied" and kind == "segmentations":
            image = nib.load(first)
            nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), first)
        elif move == "an image broken" and kind == "volumes":
            first.write_bytes(first.read_bytes()[:3000])


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ("a training case added", "on other data .*what differs: {0[2]}."),
        ("training and test exchanged", "what differs: {0[0]}."),
        ("a mask emptied", "what differs: {0[0]}."),
        ("an image broken", "what differs: {0[0]}."),
        ("another recipe", "another recipe .steps 4 there, 6 asked for"),
        (
            "a training scan tested under another name",
            "cannot test .* in training .{0[0]}, the",
        ),
    ],
)
def test_a_finished_run_does_not_pass_for_one_on_other_data(run, tree, tmp_path, move, words):
    path, root = run[0], shutil.copytree(tree, tmp_path / "tree")
    _move(root, move)
    recipe = RECIPE.changed(steps=6) if move == "another recipe" else RECIPE
    before = [(path / name).read_bytes() for name in ("results.json", "split.csv")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_DATA", str(tmp_path / "data"))
        options = {"root": path.parent, "data_root": root, "progress": False, "device": "cpu"}
        with pytest.raises(SpineError, match=words.format(numbers_of("train", 3))):
            reproduce(recipe, "small", say=len, **options)
    assert [(path / name).read_bytes() for name in ("results.json", "split.csv")] == before


def test_the_results_list_what_was_trained(run):
    data = json.loads((run[0] / "results.json").read_text(encoding="utf-8"))["data"]
    network = next(run[0].glob("*/seed-0/weights.safetensors"))
    record = read_checkpoint(network).data
    assert data["train"] == record.case_ids("training") == numbers_of("train", 2)
    assert data["validation"] == record.case_ids("validation")
    assert data["test"] == numbers_of("test", 2) and data["images"] == record.images
    sums = {f"train/{row[0]}-{row[1]}": row[-1] for row in record.training}
    assert sums.items() <= data["checksums"].items()


def test_the_report_names_the_split_the_augmentation_and_known_faults(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "by scan (there are no patient ids)" in page
    assert "known faults of the masks" in page and "TotalSegmentator/issues/394" in page
    assert any(line.startswith("known fault: ") for line in run[1])
    rows = {row["setting"]: row["ours"] for row in deviations(load_recipe("paper").to_dict())}
    assert rows["augmentation"] == "geometry, photometry, narrow fields of view"
    rows = {row["setting"]: row["ours"] for row in deviations(load_recipe("sample").to_dict())}
    assert "redrawn tissues" in rows["augmentation"] and rows["split"] == "by patient"


def test_the_command_prepares_what_the_run_then_finds(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPINE_DATA", str(tmp_path / "data"))
    recipe = tmp_path / "small.yaml"
    recipe.write_text(
        "dataset: pycad1089\nphantoms: 0\nphantom_share: 0\nvalidation_phantoms: 0\n"
        "spacing_mm: 6\naugmentation: {size: 32}\n",
        encoding="utf-8",
    )
    command = ["prepare", "--root", str(tree), "--recipe", str(recipe), "--workers", "2"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "5 scans" in first or "6 scans" in first
    assert "train: 2 volumes" in first and "validation: 1 volumes" in first
    assert main(command) == 0
    assert "scans to slice" not in capsys.readouterr().out


def test_preparing_needs_a_folder_and_no_test_part(tree, tmp_path, capsys):
    with pytest.raises(SpineError, match="--dataset pycad1089 needs --root"):
        gather(RECIPE)
    for name in [*numbers_of("train", 2), *numbers_of("validation", 1)]:
        for kind in ("volumes", "segmentations"):
            (tmp_path / "half" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(tree / kind / f"{name}.nii", tmp_path / "half" / kind)
    parts = gather(RECIPE, tmp_path / "half", needed=("train", "validation")).parts
    assert [len(parts[part]) for part in ("train", "validation", "test")] == [2, 1, 0]
    with pytest.raises(SpineError, match="no case in the test part of pycad1089"):
        gather(RECIPE, tmp_path / "half")
    assert "known fault: the whole set: presumably" in capsys.readouterr().out


def test_the_command_lists_sets_and_writes_the_split(tree, tmp_path, capsys):
    assert main(["datasets"]) == 0
    assert "CC BY-SA 4.0" in capsys.readouterr().out
    split = tmp_path / "split.csv"
    assert main(["datasets", "pycad1089", "--root", str(tree), "--split", str(split)]) == 0
    assert "train: 2 scans" in capsys.readouterr().out
    rows = split.read_text(encoding="utf-8").splitlines()
    assert rows[0] == "case_id,patient_id,split" and len(rows) == 7


def test_fetched_sets_join_the_sample_whose_test_pair_stays(tree, tmp_path, monkeypatch):
    pair = [dataclasses.replace(c, split="test") for c in phantom_cases(2, 900)]
    monkeypatch.setenv("SPINE_DATA", str(tmp_path))
    monkeypatch.setattr(sources, "fetch_sample", lambda progress: None)
    monkeypatch.setattr(sources, "sample_cases", lambda: pair)
    recipe, lines = load_recipe("more").changed(phantoms=0, validation_phantoms=0), []
    with pytest.raises(SpineError, match="bring some with 'spine fetch --more NAME', one of cts"):
        gather(recipe)
    shutil.copytree(tree, tmp_path / "more" / "pycad-8")
    found = gather(recipe, say=lines.append)
    assert found.parts["test"] == pair and lines[-1].startswith("pycad-8: 3 of 6 scans")
    assert [c.case_id for c in found.parts["train"]] == numbers_of("train", 2)
    assert [c.case_id for c in found.parts["validation"]] == numbers_of("validation", 1)
    assert "pycad-8: by scan" in found.split_note
