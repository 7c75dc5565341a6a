"""The command line: quick help with examples, one sentence for what goes wrong, the right code."""

import errno
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from spine_lib import SpineError, cli

ROOT = Path(__file__).parents[1]
GROUP = typer.main.get_command(cli.app)


def run(*arguments) -> int:
    """Run a command in this process; return its exit code."""
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    return leaving.value.code


def run_spine(*arguments, **options) -> subprocess.CompletedProcess:
    """Run a command as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "spine_lib.cli", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        **options,
    )


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_help_shows_an_example_that_parses(name, capsys):
    assert run(name, "--help") == 0
    example = re.search(r"Example:\n +spine (.+)\n", capsys.readouterr().out)
    assert example, "no example"
    command, *arguments = shlex.split(example[1])
    assert command == name
    assert GROUP.commands[name].make_context(name, arguments).command.name == name


def test_help_imports_no_package_that_computes():
    code = "import sys; from spine_lib import cli; print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_without_arguments_the_help_is_shown(capsys):
    assert run() == 0
    assert "reproduce" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fetch", "--quickly"],
        ["unknown"],
        ["predict", "ct.nii", "--out", "mask.nii"],
        ["predict", "ct.nii", "--out", "mask.nii", "--checkpoint", "a", "--pretrained", "b"],
        ["prepare", "--workers", "0"],
        *(["reproduce", "--seeds", seed] for seed in ("-1", "1.5", "x", "4294967296")),
        ["phantom", "--out", "x", "--spacing", "0"],
    ],
)
def test_arguments_that_are_not_understood_are_refused(arguments, capsys):
    assert run(*arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_the_options_of_the_main_job_reach_it(monkeypatch):
    import spine_lib.reproduce as room
    from spine_lib.training.devices import Processes

    seen = {}
    monkeypatch.setattr(room, "reproduce", lambda recipe, **rest: seen.update(rest, r=recipe))
    arguments = "reproduce --recipe my.yaml --name n --seeds 3 4 --dataset phantom --device cpu"
    more = "--at-once 1 --devices 4 --nodes 2 --strategy ddp --root there --workers 3"
    assert run(*arguments.split(), *more.split()) == 0
    expected = {"r": "my.yaml", "name": "n", "seeds": (3, 4), "dataset": "phantom"}
    processes = Processes(devices=4, nodes=2, strategy="ddp")
    expected |= {"data_root": Path("there"), "workers": 3}
    assert seen == {**expected, "device": "cpu", "at_once": 1, "processes": processes}


def test_a_prediction_takes_a_checkpoint_or_a_model_of_the_library(monkeypatch, capsys):
    from spine_lib.training import pretrained
    from spine_lib.volumes import predict

    seen = []
    monkeypatch.setattr(
        predict, "predict_file", lambda ct, out, *rest, **_: seen.append(rest) or out
    )
    to = ["--out", "mask.nii.gz"]
    assert run("predict", "ct.nii", "--pretrained", "unet_light", *to) == 0
    assert run("predict", "ct.nii", "--checkpoint", "a.ckpt", *to) == 0
    assert seen[0][:2] == (pretrained.weights_path("unet_light"), "auto")
    assert seen[1][:2] == (Path("a.ckpt"), "auto")
    assert capsys.readouterr().out.endswith("To look at it: spine view ct.nii mask.nii.gz\n")
    assert run("predict", "ct.nii", "--pretrained", "unet", *to) == 2


def test_a_scan_is_viewed_with_its_mask_as_a_page(small_phantom, tmp_path, monkeypatch, capsys):
    from spine_lib.ct import save_nifti

    ct, mask = tmp_path / "thorax.nii.gz", tmp_path / "mask.nii.gz"
    save_nifti(small_phantom.ct, ct)
    save_nifti(small_phantom.labels, mask)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    page = tmp_path / "page.html"
    assert run("view", str(ct), str(mask), "--out", str(page), "--no-browser") == 0
    assert "Thorax CT" in page.read_text(encoding="utf-8") and not opened
    assert run("view", str(ct), "--out", str(page)) == 2  # the file exists
    assert run("view", str(ct), str(mask), str(mask), "--out", str(page), "--overwrite") == 0
    assert opened == [page.resolve().as_uri()] and "true positive" in page.read_text("utf-8")
    assert run("view", str(ct), str(tmp_path / "none.nii.gz")) == 2


def test_without_seeds_the_recipe_names_the_seed(monkeypatch):
    import spine_lib.reproduce as room

    seen = {}
    monkeypatch.setattr(room, "reproduce", lambda recipe, **rest: seen.update(rest))
    assert run("reproduce") == 0 and seen["seeds"] is None


# --- what goes wrong ------------------------------------------------------------------------------


def failing(monkeypatch, error: BaseException) -> None:
    from spine_lib.datasets import sample

    def raise_it(*_):
        raise error

    monkeypatch.setattr(sample, "fetch_sample", raise_it)


def chained(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


FULL = OSError(errno.ENOSPC, "No space left on device", "runs/a/model.ckpt")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SpineError("ct.nii has 4 axes: give one volume."), 2, "ct.nii has 4 axes"),
        (KeyboardInterrupt(), 130, "by Ctrl-C; the same command again goes on where training was"),
        (cli.Terminated(), 143, "by SIGTERM; the same command again goes on where training was"),
        (
            NotADirectoryError(20, "Not a directory", "data"),
            2,
            "data cannot be used, what should be",
        ),
        (MemoryError("Unable to allocate 2 TiB"), 2, "memory ran out (Unable to allocate 2 TiB)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "memory ran out"),
        (FULL, 2, "runs/a/model.ckpt cannot be used, the disk is full: free"),
        (chained(RuntimeError("could not save"), FULL), 2, "the disk is full"),
        (RuntimeError("write failed: No space left on device"), 2, "the disk is full"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "package torch"),
    ],
)
def test_each_trouble_is_one_sentence_and_a_code(monkeypatch, capsys, error, code, words):
    failing(monkeypatch, error)
    monkeypatch.delenv("SPINE_DEBUG", raising=False)
    assert run("fetch") == code
    message = capsys.readouterr().err
    assert words in message
    assert message.startswith("spine: ") and message.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("bug"), ModuleNotFoundError("x", name="spine_lib.lost"), OSError(5, "io")]
)
def test_a_bug_is_not_hidden(monkeypatch, error):
    failing(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["fetch"])


def test_debugging_shows_the_traceback(monkeypatch):
    failing(monkeypatch, SpineError("no"))
    monkeypatch.setenv("SPINE_DEBUG", "1")
    with pytest.raises(SpineError):
        cli.main(["fetch"])


def test_a_missing_file_ends_with_one_sentence_and_code_2(tmp_path):
    done = run_spine("info", tmp_path / "nowhere.nii.gz")
    assert done.returncode == 2
    assert "nowhere.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no head")
def test_a_reader_that_has_enough_is_no_error(pair):
    command = [sys.executable, "-u", "-m", "spine_lib.cli", "info", str(pair[0])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_a_console_that_cannot_show_a_character_is_no_reason_to_fail(monkeypatch, pair):
    from spine_lib.annotations import checks

    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    finding = checks.Finding("note", "angle", "25 \N{DEGREE SIGN}")
    monkeypatch.setattr(checks, "check_annotation", lambda *_: [finding])
    assert run("check", *pair) == 0


# --- what the commands do -------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, small_phantom):
    """The small phantom as files: CT and canonical labels."""
    from spine_lib.ct.volume import save_nifti

    ct = save_nifti(small_phantom.ct, tmp_path / "ct.nii.gz")
    mask = save_nifti(small_phantom.labels, tmp_path / "mask.nii.gz")
    return ct, mask


def test_info_shows_the_geometry_and_the_range_of_a_ct(pair, small_phantom, capsys):
    assert run("info", pair[0]) == 0
    text = capsys.readouterr().out
    hu = small_phantom.ct.array
    assert "64 x 64 x 64 voxels" in text
    assert "4 x 4 x 4 mm" in text
    assert f"{hu.min()} to {hu.max()} HU" in text
    inside = 100 * ((hu > 400 - 900) & (hu < 400 + 900)).mean()
    assert f"bone: centre 400 HU, width 1800 HU; {inside:.0f} % of the voxels" in text


def test_info_lists_labels_with_names_and_volumes(pair, small_phantom, capsys):
    assert run("info", pair[1], "--scheme", "canonical") == 0
    text = capsys.readouterr().out
    label = int(small_phantom.labels.array.max())
    millilitres = np.count_nonzero(small_phantom.labels.array == label) * 0.064
    assert re.search(rf"^  {label} +{millilitres:.2f} ml  \w", text, re.M)


def test_info_recognises_a_label_map(pair, capsys):
    assert run("info", pair[1]) == 0
    assert "add --scheme" in capsys.readouterr().out


def test_check_passes_a_right_annotation_and_fails_a_wrong_one(pair, small_phantom, capsys):
    from spine_lib.ct.volume import save_nifti

    assert run("check", *pair) == 0
    assert "errors: 0" in capsys.readouterr().out

    labels = small_phantom.labels
    empty = labels.with_array(np.zeros_like(labels.array))
    assert run("check", pair[0], save_nifti(empty, pair[1].with_name("empty.nii.gz"))) == 1
    assert "error: " in capsys.readouterr().out


@pytest.mark.parametrize("copied", [False, True])
def test_a_mask_is_not_checked_against_itself(pair, tmp_path, capsys, copied):
    mask = shutil.copy(pair[1], tmp_path / "copy.nii.gz") if copied else pair[1]
    assert run("check", pair[1], mask) == 2
    assert "are the same file" in capsys.readouterr().err


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("SPINE_DATA", str(file))
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["phantom", "--out", file],
        ["fetch", "--root", file],
        ["fetch"],
        ["prepare", "--recipe", "tiny"],
        ["reproduce", "--recipe", "tiny", "--name", "x"],
    ):
        assert run(*arguments) == 2, arguments
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and str(file) in message, arguments


def test_phantoms_that_exist_are_replaced_only_when_asked(tmp_path, capsys):
    arguments = ["phantom", "--out", tmp_path, "--shape", 40, 40, 50, "--spacing", 6]
    assert run(*arguments) == 0
    assert run(*arguments) == 2
    assert "phantom-0000_ct.nii.gz exists already" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0


def test_phantoms_are_written_as_pairs_that_differ_by_seed(tmp_path):
    from spine_lib.ct import load_ct, load_mask, require_same_grid

    size = ["--spacing", 6, "--shape", 40, 40, 50]
    assert run("phantom", "--seed", 5, "--count", 2, "--out", tmp_path, *size) == 0
    names = ["phantom-0005_ct", "phantom-0005_labels", "phantom-0006_ct", "phantom-0006_labels"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.nii.gz" for n in names]
    first, second = (load_ct(tmp_path / f"phantom-000{seed}_ct.nii.gz") for seed in (5, 6))
    assert not np.array_equal(first.array, second.array)
    require_same_grid(first, load_mask(tmp_path / "phantom-0005_labels.nii.gz"))


def test_fetch_lists_the_patients(sample_root, capsys):
    assert run("fetch", "--root", sample_root) == 0
    text = capsys.readouterr().out
    for case in ("chest", "abdomen", "dicom", "crop"):
        assert re.search(rf"^  {case} ", text, re.M)


def test_datasets_lists_the_public_sets_and_asks_for_the_folder_of_one(capsys):
    assert run("datasets") == 0
    assert "verse" in capsys.readouterr().out
    assert run("datasets", "verse") == 2
    assert "--root" in capsys.readouterr().err
