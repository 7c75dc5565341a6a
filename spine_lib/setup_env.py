"""Make the project's own Python environment, so that one command is enough on a bare machine.

Only the standard library is imported here: this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spine_lib import SpineError
from spine_lib.requirements import in_range, missing_requirements, requirements, split_requirement

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("test", "site", "instructor")
STAMP = "spine-setup.stamp"
SUPPORTED = ((3, 11), (3, 14))  # first that works, first that does not


def prepare(arguments: list[str], force: bool = False) -> None:
    """Return once the packages are there, or start the same command again where they are.

    Stays in the running Python where `SPINE_NO_VENV=1` is set, where the library was installed
    without its source tree, or where every dependency is already there in a fitting version (a
    conda environment, for instance). Otherwise makes `.venv` beside `pyproject.toml`, installs
    into it what has changed since the last time, and runs the command there.

    Args:
        arguments: what followed `python -m spine_lib` on the command line.
        force: install even where the stamp says that nothing has changed.

    Raises:
        SpineError: if Python has the wrong version or the environment cannot be made.
    """
    check_python()
    # Set by run_again; taken away, since what this command starts is not concerned.
    prepared = os.environ.pop("SPINE_PREPARED", None)
    if prepared or os.environ.get("SPINE_NO_VENV") == "1" or not is_source_tree(ROOT):
        return
    venv = ROOT / ".venv"
    inside = Path(sys.prefix).resolve() == venv.resolve()
    if not inside and not missing_requirements(requirements(ROOT)):
        return
    python = str(ensure_venv(venv))
    if force or read_stamp(venv) != fingerprint(ROOT, python):
        install(ROOT, python)
        write_stamp(venv, fingerprint(ROOT, python))
    if not inside:
        run_again(python, arguments)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:2])) -> None:
    """Refuse a Python that the dependencies do not support.

    Args:
        version: major and minor version.

    Raises:
        SpineError: if it is outside the supported range.
    """
    first, beyond = SUPPORTED
    if not first <= version < beyond:
        raise SpineError(
            f"Python {version[0]}.{version[1]} runs this, but 3.11, 3.12 or 3.13 is needed: "
            "install one of them and name it, for example `make PYTHON=python3.12 test` or "
            "`python3.12 -m spine_lib test`."
        )


def is_source_tree(root: Path) -> bool:
    """Tell whether `root` holds this project's `pyproject.toml`: a clone, not an installed copy."""
    pyproject = root / "pyproject.toml"
    return pyproject.is_file() and 'name = "spine-lib"' in pyproject.read_text(encoding="utf-8")


# --- making it ------------------------------------------------------------------------------------


def venv_python(venv: Path) -> Path:
    """Return where the Python of a virtual environment lies on this system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure_venv(venv: Path) -> Path:
    """Make the virtual environment where there is none that works, and return its Python.

    Raises:
        SpineError: if Python cannot make one.
    """
    python = venv_python(venv)
    if not _answers(python, "import sys; print(*sys.version_info[:2])"):
        _say(f"Making a Python environment in {venv}")
        # A folder left by a Python that is gone, or by an interrupted run, is cleared.
        _run_or_refuse([sys.executable, "-m", "venv", "--clear", str(venv)], venv)
    if not _answers(python, "import sys, pip; print(*sys.version_info[:2])"):
        _run_or_refuse([str(python), "-m", "ensurepip"], venv)
    return python


def _answers(python: Path, question: str) -> bool:
    """Tell whether this interpreter starts, runs the question and is of a supported version."""
    if not python.is_file():
        return False
    try:
        done = subprocess.run(
            [str(python), "-c", question], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    first, beyond = SUPPORTED
    version = tuple(int(part) for part in done.stdout.split()[:2])
    return done.returncode == 0 and first <= version < beyond


def _run_or_refuse(command: list[str], venv: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip().splitlines() or ["no reason was given"]
        raise SpineError(
            f"Python could not make an environment in {venv} ({reason[-1].strip()}): on Debian or "
            "Ubuntu install the package python3-venv; elsewhere check that the disk is not full "
            "and that the folder can be written."
        )


def install(root: Path, python: str) -> None:
    """Install the project and its extras with pip, at the versions of `constraints.txt`.

    A PyTorch that is already there in a fitting version (CPU-only, say) is kept.

    Raises:
        SpineError: if pip fails; its own lines stand above the sentence.
    """
    _say(
        "Installing the packages into it. This happens once: some minutes, and on Linux about "
        "3 GB to download, most of it PyTorch (the README tells how to take the small one)."
    )
    target = f"{root}[{','.join(EXTRAS)}]"
    with constraints_keeping_torch(root, python) as constraints:
        command = [python, "-m", "pip", "install", *_pip_flags(), "-c", str(constraints)]
        done = subprocess.run([*command, "-e", target], check=False, env=_pip_environment())
    if done.returncode:
        raise SpineError(
            f"pip could not install the packages into {Path(python).parent.parent} (its lines "
            "stand above): check the connection and the free disk space (about 8 GB), then run "
            "the same command again; what was downloaded is kept."
        )
    _say("Ready.")


def _pip_flags() -> list[str]:
    flags = ["--disable-pip-version-check", "--no-input"]
    if not sys.stdout.isatty():
        flags += ["--quiet", "--progress-bar", "off"]
    return flags


def _pip_environment() -> dict[str, str]:
    # A user-wide "install into my home" setting is refused inside a virtual environment.
    return {**os.environ, "PIP_USER": "0", "PYTHONNOUSERSITE": "1"}


@contextmanager
def constraints_keeping_torch(root: Path, python: str) -> Iterator[Path]:
    """Yield a constraints file in which PyTorch is pinned to what is installed, if it fits.

    Args:
        root: project folder, with `constraints.txt` and `pyproject.toml`.
        python: interpreter of the environment that is to be filled.
    """
    wanted = dict(split_requirement(line) for line in requirements(root))
    versions = {name: _version_in(python, name) for name in ("torch", "torchvision")}
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if versions["torch"] and in_range(versions["torch"], wanted["torch"]):
        # Each torchvision fits one torch only: where it is missing, pip finds the one that does.
        lines = [line for line in lines if line.split("==")[0] not in versions]
        lines += [f"{name}=={version}" for name, version in versions.items() if version]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield path


def _version_in(python: str, name: str) -> str | None:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


# --- has anything changed? ------------------------------------------------------------------------


def fingerprint(root: Path, python: str) -> str:
    """Hash all that the installed environment depends on.

    Args:
        root: project folder; it counts too, since the library is installed by reference to it.
        python: interpreter of the environment.

    Returns:
        A hexadecimal digest.
    """
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes().replace(b"\r\n", b"\n"))
    for part in (str(root), os.path.realpath(python), *EXTRAS):
        digest.update(part.encode())
    return digest.hexdigest()


def read_stamp(venv: Path) -> str | None:
    """Return the fingerprint of the last complete installation, or None if there is none."""
    stamp = venv / STAMP
    return stamp.read_text(encoding="utf-8").strip() if stamp.is_file() else None


def write_stamp(venv: Path, digest: str) -> None:
    """Record a complete installation."""
    partial = venv / f"{STAMP}.tmp"
    partial.write_text(digest + "\n", encoding="utf-8")
    os.replace(partial, venv / STAMP)


def run_again(python: str, arguments: list[str]) -> None:
    """Run `python -m spine_lib` with these arguments in the environment; does not return."""
    command = [python, "-m", "spine_lib", *arguments]
    os.environ["SPINE_PREPARED"] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execv(python, command)
    # Windows has no exec that keeps the console: wait, and leave Ctrl-C to the child.
    child = subprocess.Popen(command)
    while True:
        try:
            raise SystemExit(child.wait())
        except KeyboardInterrupt:
            continue


def _say(sentence: str) -> None:
    print(sentence, flush=True)
