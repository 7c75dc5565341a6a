"""The set-up: what is missing is found, nothing is installed twice, nothing is done in vain."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_lib import SpineError, setup_env
from spine_lib.requirements import in_range, missing_requirements, requirements, split_requirement

PINS = "# tested versions\nnumpy==2.4.6\ntorch==2.15.0\ntorchvision==0.29.2\n"


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A project of its own with two requirements, in place of the real one."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "spine-lib"\ndependencies = ["torch>=2.6,<3", "torchvision>=0.21,<1"]\n'
        '[project.optional-dependencies]\ntest = ["numpy>=2.0,<3"]\nsite = []\ninstructor = []\n',
        encoding="utf-8",
    )
    (tmp_path / "constraints.txt").write_text(PINS, encoding="utf-8")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.delenv("SPINE_NO_VENV", raising=False)
    monkeypatch.delenv("SPINE_PREPARED", raising=False)
    return tmp_path


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Record the costly steps of `prepare` instead of doing them."""
    done = []
    monkeypatch.setattr(setup_env, "missing_requirements", lambda lines: lines)
    monkeypatch.setattr(setup_env, "ensure_venv", lambda venv: venv.mkdir(exist_ok=True) or "py")
    monkeypatch.setattr(setup_env, "install", lambda root, python: done.append("install"))
    monkeypatch.setattr(setup_env, "run_again", lambda python, rest: done.append(" ".join(rest)))
    return done


def test_a_bare_python_installs_once_and_runs_the_same_command_there(project, calls):
    setup_env.prepare(["test", "--fast"])
    assert calls == ["install", "test --fast"]
    setup_env.prepare(["test"])
    assert calls == ["install", "test --fast", "test"]


def test_a_changed_version_is_installed(project, calls):
    setup_env.prepare(["fetch"])
    (project / "constraints.txt").write_text(PINS.replace("2.4.6", "2.4.7"), encoding="utf-8")
    setup_env.prepare(["fetch"])
    assert calls == ["install", "fetch"] * 2


def test_a_moved_project_is_installed_anew(project, calls, tmp_path_factory, monkeypatch):
    setup_env.prepare(["fetch"])
    moved = tmp_path_factory.mktemp("moved") / "project"
    os.rename(project, moved)
    monkeypatch.setattr(setup_env, "ROOT", moved)
    setup_env.prepare(["fetch"])
    assert calls == ["install", "fetch"] * 2


def test_setup_again_installs_even_if_nothing_has_changed(project, calls):
    setup_env.prepare(["setup"])
    setup_env.prepare(["setup", "--again"], force=True)
    assert calls == ["install", "setup", "install", "setup --again"]


def test_an_installation_that_failed_is_tried_again(project, calls, monkeypatch):
    def fail(root, python):
        raise SpineError("pip could not")

    monkeypatch.setattr(setup_env, "install", fail)
    for _ in range(2):
        with pytest.raises(SpineError, match="pip could not"):
            setup_env.prepare(["test"])
    assert calls == []


def test_an_environment_that_has_everything_is_used_as_it_is(project, calls, monkeypatch):
    monkeypatch.setattr(setup_env, "missing_requirements", lambda lines: [])
    setup_env.prepare(["test"])
    assert calls == []
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("variable", ["SPINE_NO_VENV", "SPINE_PREPARED"])
def test_who_asks_for_it_stays_in_the_running_python(project, calls, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    setup_env.prepare(["test"])
    assert calls == []


def test_an_installed_copy_never_makes_an_environment(project, calls):
    (project / "pyproject.toml").unlink()
    setup_env.prepare(["info"])
    assert calls == []


@pytest.mark.parametrize("version", [(3, 10), (3, 14), (2, 7)])
def test_a_python_that_does_not_fit_is_refused_with_the_way_out(version):
    with pytest.raises(SpineError, match=r"make PYTHON=python3\.12 test"):
        setup_env.check_python(version)


def test_a_fitting_torch_that_is_there_is_kept(project, monkeypatch):
    there = {"torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu"}
    monkeypatch.setattr(setup_env, "_version_in", lambda python, name: there[name])
    with setup_env.constraints_keeping_torch(project, "py") as path:
        lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["numpy==2.4.6", "torch==2.13.0+cpu", "torchvision==0.28.0+cpu"]


def test_a_torchvision_is_left_to_pip_where_only_torch_is_there(project, monkeypatch):
    monkeypatch.setattr(
        setup_env, "_version_in", lambda python, name: {"torch": "2.13.0+cpu"}.get(name)
    )
    with setup_env.constraints_keeping_torch(project, "py") as path:
        lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["numpy==2.4.6", "torch==2.13.0+cpu"]


def test_a_torch_that_is_too_old_is_replaced(project, monkeypatch):
    monkeypatch.setattr(setup_env, "_version_in", lambda python, name: {"torch": "2.1.0"}.get(name))
    with setup_env.constraints_keeping_torch(project, "py") as path:
        assert path.read_text(encoding="utf-8") == PINS


def test_the_versions_of_this_very_environment_are_found(project):
    assert setup_env._version_in(sys.executable, "pytest") == pytest.__version__
    assert setup_env._version_in(sys.executable, "no-such-package") is None


@pytest.mark.slow
def test_a_broken_environment_is_made_anew(tmp_path):
    venv = tmp_path / ".venv"
    python = setup_env.venv_python(venv)
    python.parent.mkdir(parents=True)
    python.write_text("not a program", encoding="utf-8")
    python.chmod(0o755)
    made = setup_env.ensure_venv(venv)
    command = [str(made), "-c", "import sys, pip; print(sys.prefix)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).resolve() == venv.resolve()


@pytest.mark.slow
def test_an_environment_without_pip_is_given_one_and_not_cleared(tmp_path):
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (venv / "kept").touch()
    python = setup_env.ensure_venv(venv)
    subprocess.run([str(python), "-c", "import pip"], check=True)
    assert (venv / "kept").exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SpineError, match="could not make an environment"):
        setup_env.ensure_venv(tmp_path / "file" / ".venv")


def test_a_missing_package_and_an_old_one_are_found():
    lines = ["numpy>=2.0,<3", "scipy>=1.14,<2", "torch>=2.6,<3"]
    installed = {"numpy": "1.26.4", "torch": "2.15.0+cu130"}
    assert missing_requirements(lines, installed) == lines[:2]


def test_this_environment_meets_the_requirements():
    assert missing_requirements(requirements(setup_env.ROOT)) == []


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("2.0", ">=2.0,<3", True),
        ("2", ">=2.0.0,<3", True),
        ("3.0.0", ">=2.0,<3", False),
        ("2.13.0+cpu", ">=2.6,<3", True),
        ("2.10", ">=2.9", True),
        ("1.9.9", ">=1.10", False),
        ("5.0.0.93", "!=5.0", True),
        ("9.2", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version, bounds, fits):
    assert in_range(version, bounds) is fits


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.integers(0, 3))
def test_a_version_equals_itself_with_zeros_behind(parts, zeros):
    version = ".".join(map(str, parts))
    padded = version + ".0" * zeros
    assert in_range(padded, f"=={version},>={version},<={version}")
    assert not in_range(padded, f"<{version}")


def test_a_requirement_is_split_into_name_and_range():
    assert split_requirement("segmentation-models-pytorch>=0.5,<0.7") == (
        "segmentation-models-pytorch",
        ">=0.5,<0.7",
    )
    assert split_requirement("jsonargparse[signatures] >=4 ; os_name == 'nt'") == (
        "jsonargparse",
        ">=4",
    )
    with pytest.raises(SpineError, match="not a requirement"):
        split_requirement("?")
