"""The command line: quick help with examples, one sentence for what goes wrong, the right code."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spine_lib import SpineError, cli, commands, developing, setup_env

NOTEBOOKS = [*developing.NOTEBOOK_OPTIONS, "tests", "notebooks"]
COMMANDS = sorted(cli.build_parser()._subparsers._group_actions[0].choices)


def run_spine(*arguments, **environment) -> subprocess.CompletedProcess:
    """Run `python -m spine_lib` as a user does, in the running Python."""
    return subprocess.run(
        [sys.executable, "-m", "spine_lib", *map(str, arguments)],
        cwd=setup_env.ROOT,
        env={**os.environ, "SPINE_NO_VENV": "1", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def test_every_command_has_a_function():
    rooms = {"commands": commands, "developing": developing}
    for name, parser in cli.build_parser()._subparsers._group_actions[0].choices.items():
        room = rooms[parser.get_default("room")]
        assert callable(getattr(room, name.replace("-", "_"))), name


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_parses(name, capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.parse([name, "--help"])
    assert leaving.value.code == 0
    example = re.search(r"example:\n  spine (.+)\n", capsys.readouterr().out)
    assert example, "no example"
    assert cli.parse(example[1].split()).command == name


def test_help_needs_nothing_but_the_standard_library():
    code = (
        "import sys; from spine_lib import cli, setup_env; cli.build_parser().format_help();"
        "known = sys.stdlib_module_names | {'spine_lib'};"
        "print({m.split('.')[0] for m in sys.modules} - known)"
    )
    bare = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = ['.']; {code}"]
    done = subprocess.run(bare, cwd=setup_env.ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ("set()", "{'__main__'}")


def test_without_arguments_the_help_is_shown(capsys):
    assert pytest.raises(SystemExit, cli.main, []).value.code == 0
    assert "reproduce" in capsys.readouterr().out


def test_an_unknown_argument_is_refused_and_not_swallowed(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["fetch", "--quickly"])
    assert leaving.value.code == 2
    assert "--quickly" in capsys.readouterr().err


def test_what_test_does_not_know_goes_to_pytest():
    options = cli.parse(["test", "--fast", "-k", "metrics", "tests/test_cli.py", "-x"])
    assert options.fast
    assert options.rest == ["-k", "metrics", "tests/test_cli.py", "-x"]


@pytest.mark.parametrize("name", ["latest", "../elsewhere", "a b", "", ".hidden", "C:run"])
def test_a_run_name_that_would_leave_the_folder_is_refused(name):
    with pytest.raises(SystemExit):
        cli.parse(["reproduce", "--name", name])


@pytest.mark.parametrize("value", ["-1", "1.5", "x"])
def test_a_seed_is_a_whole_number(value):
    with pytest.raises(SystemExit):
        cli.parse(["reproduce", "--seeds", value])


def test_the_options_of_the_main_job_reach_it(monkeypatch):
    from spine_lib.reproduce import reproduce
    from spine_lib.training.processes import Processes

    seen = {}
    monkeypatch.setattr(reproduce, "reproduce", lambda recipe, **rest: seen.update(rest, r=recipe))
    arguments = "reproduce --recipe my.yaml --name n --seeds 3 4 --dataset phantom --device cpu"
    more = "--at-once 1 --devices 4 --nodes 2 --strategy ddp --root there --workers 3"
    assert cli.main([*arguments.split(), *more.split()]) == 0
    expected = {"r": "my.yaml", "name": "n", "seeds": (3, 4), "dataset": "phantom"}
    processes = Processes(devices=4, nodes=2, strategy="ddp")
    expected |= {"data_root": Path("there"), "workers": 3}
    assert seen == {**expected, "device": "cpu", "at_once": 1, "processes": processes}


def test_a_prediction_takes_a_model_that_comes_with_the_library(monkeypatch, tmp_path):
    from spine_lib.training import pretrained
    from spine_lib.volumes import masks as volumes

    seen = []
    monkeypatch.setattr(
        volumes, "predict_file", lambda ct, out, checkpoint, *_: seen.append(checkpoint) or out
    )
    out = str(tmp_path / "mask.nii.gz")
    assert cli.main(["predict", "ct.nii", "--pretrained", "unet_light", "--out", out]) == 0
    assert seen == [pretrained.weights_path("unet_light")]
    assert cli.main(["predict", "ct.nii", "--pretrained", "unet", "--out", out]) == 2


def test_the_options_of_a_prediction_reach_it(monkeypatch, tmp_path, capsys):
    from spine_lib.volumes import masks as volumes

    seen = {}

    def predict_file(ct, out, checkpoint, device, say):
        seen.update(ct=ct, checkpoint=checkpoint, device=device)
        return out

    monkeypatch.setattr(volumes, "predict_file", predict_file)
    out = tmp_path / "mask.nii.gz"
    assert cli.main(["predict", "ct.nii", "--checkpoint", "a.ckpt", "--out", str(out)]) == 0
    assert seen == {"ct": Path("ct.nii"), "checkpoint": Path("a.ckpt"), "device": "auto"}
    assert str(out) in capsys.readouterr().out


# --- what goes wrong ------------------------------------------------------------------------------


def failing(monkeypatch, error: BaseException) -> None:
    def raise_it(options):
        raise error

    monkeypatch.setattr(commands, "fetch", raise_it)


def chained(outer: BaseException, inner: BaseException) -> BaseException:
    outer.__cause__ = inner
    return outer


FULL = OSError(errno.ENOSPC, "No space left on device", "runs/a/model.ckpt")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SpineError("ct.nii has 4 axes: give one volume."), 2, "ct.nii has 4 axes"),
        (KeyboardInterrupt(), 130, "goes on where training was stopped"),
        (FULL, 2, "the disk is full at runs/a/model.ckpt"),
        (chained(RuntimeError("could not save"), FULL), 2, "the disk is full"),
        (RuntimeError("write failed: No space left on device"), 2, "the disk is full"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "package torch"),
    ],
)
def test_each_trouble_is_one_sentence_and_a_code(monkeypatch, capsys, error, code, words):
    failing(monkeypatch, error)
    monkeypatch.delenv("SPINE_DEBUG", raising=False)
    assert cli.main(["fetch"]) == code
    told = capsys.readouterr().err
    assert words in told
    assert told.startswith("spine: ") and told.count("\n") == 1


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
    missing = tmp_path / "nowhere.nii.gz"
    done = run_spine("info", missing)
    assert done.returncode == 2
    assert "nowhere.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no head")
def test_a_reader_that_has_enough_is_no_error(pair):
    command = [sys.executable, "-m", "spine_lib", "info", str(pair[0])]
    environment = {**os.environ, "SPINE_NO_VENV": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=setup_env.ROOT, env=environment, **pipes) as child:
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 141


def test_a_console_that_cannot_show_a_character_is_no_reason_to_fail(monkeypatch):
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", narrow)
    monkeypatch.setattr(commands, "fetch", lambda options: print("25 \N{DEGREE SIGN}"))
    assert cli.main(["fetch"]) == 0


def test_set_up_is_asked_for_only_where_packages_are_needed(monkeypatch):
    asked = []
    monkeypatch.setattr(commands, "fetch", lambda options: None)
    monkeypatch.setattr(developing, "clean", lambda options: None)
    for command in (["clean"], ["fetch"]):
        assert cli.main(command, before=lambda argv, again: asked.append((argv, again))) == 0
    assert asked == [(["fetch"], False)]


# --- what the commands do -------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path, small_phantom):
    """The small phantom as files: CT and canonical labels."""
    from spine_lib.ct.volume import save_nifti

    ct = save_nifti(small_phantom.ct, tmp_path / "ct.nii.gz")
    mask = save_nifti(small_phantom.labels, tmp_path / "mask.nii.gz")
    return ct, mask


def test_info_tells_the_geometry_and_the_range_of_a_ct(pair, small_phantom, capsys):
    assert cli.main(["info", str(pair[0])]) == 0
    told = capsys.readouterr().out
    hu = small_phantom.ct.array
    assert "64 x 64 x 64 voxels" in told
    assert "4 x 4 x 4 mm" in told
    assert f"{hu.min()} to {hu.max()} HU" in told
    assert "bone: centre" in told


def test_info_lists_labels_with_names_and_volumes(pair, small_phantom, capsys):
    assert cli.main(["info", str(pair[1]), "--scheme", "canonical"]) == 0
    told = capsys.readouterr().out
    label = int(small_phantom.labels.array.max())
    millilitres = np.count_nonzero(small_phantom.labels.array == label) * 0.064
    assert re.search(rf"^  {label} +{millilitres:.2f} ml  \w", told, re.M)


def test_info_sees_a_label_map_by_itself(pair, capsys):
    assert cli.main(["info", str(pair[1])]) == 0
    assert "add --scheme" in capsys.readouterr().out


def test_check_passes_a_right_annotation_and_fails_a_wrong_one(pair, small_phantom, capsys):
    from spine_lib.ct.volume import save_nifti

    ct, mask = map(str, pair)
    assert cli.main(["check", ct, mask]) == 0
    assert "errors: 0" in capsys.readouterr().out

    labels = small_phantom.labels
    empty = save_nifti(
        labels.with_array(np.zeros_like(labels.array)), pair[1].with_name("empty.nii.gz")
    )
    assert cli.main(["check", ct, str(empty)]) == 1
    assert "error: " in capsys.readouterr().out


def test_phantoms_are_written_as_pairs_that_differ_by_seed(tmp_path, capsys):
    from spine_lib.ct.volume import load_ct, load_mask, require_same_grid

    command = ["phantom", "--seed", "5", "--count", "2", "--spacing", "6", "--out", str(tmp_path)]
    assert cli.main([*command, "--shape", "40", "40", "50"]) == 0
    names = ["phantom-0005_ct", "phantom-0005_labels", "phantom-0006_ct", "phantom-0006_labels"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.nii.gz" for n in names]
    first, second = (load_ct(tmp_path / f"phantom-000{seed}_ct.nii.gz") for seed in (5, 6))
    assert not np.array_equal(first.array, second.array)
    require_same_grid(first, load_mask(tmp_path / "phantom-0005_labels.nii.gz"))


def test_fetch_lists_the_patients(sample_root, capsys):
    assert cli.main(["fetch", "--root", str(sample_root)]) == 0
    told = capsys.readouterr().out
    for case in ("chest", "abdomen", "dicom", "crop"):
        assert re.search(rf"^  {case} ", told, re.M)


def test_clean_keeps_data_and_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(developing, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    for name in (".pytest_cache", "spine_lib/__pycache__", "data/sample", "runs/a", ".venv/x"):
        (tmp_path / name).mkdir(parents=True)
    assert cli.main(["clean"]) == 0
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_dir()}
    assert left == {"spine_lib", "data", "data/sample", "runs", "runs/a", ".venv", ".venv/x"}


def test_an_installed_copy_has_no_tests_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(developing, "ROOT", tmp_path)
    assert cli.main(["test"]) == 2
    assert "clone the project" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["test"], [*NOTEBOOKS, "-n", "2", "--dist", "loadfile"]),
        (["test", "--fast"], ["-m", "not slow and not browser", "-n", "2", "--dist", "loadfile"]),
        (["test", "-n0", "-x"], [*NOTEBOOKS, "-n0", "-x"]),
        (["test", "--pdb"], [*NOTEBOOKS, "--pdb"]),
        (["test", "-n0", "tests/test_cli.py::x"], ["-n0", "tests/test_cli.py::x"]),
    ],
)
def test_the_suite_is_spread_over_the_cores_unless_told_otherwise(monkeypatch, arguments, expected):
    seen = []
    monkeypatch.setattr(developing, "_cores", lambda: 2)
    monkeypatch.setattr(developing.browser, "ensure_browser", lambda: None)
    monkeypatch.setattr(developing, "_in_project", lambda command, **env: seen.append(command) or 5)
    assert cli.main(arguments) == 5
    assert seen == [[sys.executable, "-m", "pytest", *expected]]
