"""What `spine` does for those who work on the project, teach with it or set it up.

Each function takes the parsed options and returns an exit code or None. Imports stand inside, so
that a command loads only what it uses.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from spine_lib import SpineError, browser

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_OPTIONS = (
    "--nbval-lax",  # compares only the cells that are marked for it
    "--nbval-current-env",
    "--nbval-sanitize-with=tests/nbval.cfg",
    "--nbval-cell-timeout=150",
)


def test(options: Namespace) -> int:
    """Run pytest on the project, in as many processes as there are cores (up to four).

    The whole suite runs every notebook too, each from top to bottom in the fast profile.
    """
    _require_source_tree("the tests")
    workers = min(_cores(), 4)
    command = [sys.executable, "-m", "pytest"]
    if options.fast:
        command += ["-m", "not slow and not browser"]
    elif not any(_is_path(argument) for argument in options.rest):
        browser.ensure_browser()
        command += [*NOTEBOOK_OPTIONS, "tests", "notebooks"]
    if workers > 1 and not any(argument.startswith(("-n", "--pdb")) for argument in options.rest):
        # One file stays in one process: what its tests share is made once.
        command += ["-n", str(workers), "--dist", "loadfile"]
    return _in_project([*command, *options.rest], OMP_NUM_THREADS=str(max(1, _cores() // workers)))


def _is_path(argument: str) -> bool:
    return not argument.startswith("-") and (ROOT / argument.split("::")[0]).exists()


def notebooks(options: Namespace) -> int:
    """Make the notebooks from their sources, or say which do not fit them."""
    _require_source_tree("the notebooks")
    from spine_lib.course import notebook_series

    folder = ROOT / "notebooks"
    if options.check:
        problems = notebook_series.check_series(folder, options.numbers)
    else:
        problems = notebook_series.make_series(folder, options.numbers, options.fast)
    for problem in problems:
        print(problem)
    return int(bool(problems))


def lesson_results(options: Namespace) -> None:
    """Run the long measurements of the lessons and keep what they give."""
    from spine_lib.course import results

    experiments = [results.load_experiment(n) for n in options.names or results.experiment_names()]
    for experiment in experiments:
        seeds = range(options.seeds) if options.seeds else experiment.SEEDS
        result = results.run_experiment(experiment, list(seeds), options.fast)
        if not options.fast:
            print(f"{experiment.NAME}: {result['seconds']:.0f} s, {results.keep_result(result)}")


def handout(options: Namespace) -> None:
    """Write what an instructor hands out and keeps."""
    _require_source_tree("the lessons")
    from spine_lib.course.handout import write_releases

    write_releases(ROOT, options.folder, options.numbers, options.run)


def lab(options: Namespace) -> int:
    """Open JupyterLab on the notebooks."""
    _require_source_tree("the notebooks")
    notebooks = ROOT / "notebooks"
    folder = notebooks if notebooks.is_dir() else ROOT
    return _in_project([sys.executable, "-m", "jupyterlab", str(folder)])


def site(options: Namespace) -> None:
    """Make the site of the course and say where it lies."""
    _require_source_tree("the lessons")
    from spine_lib.book import build_site

    build_site(out=options.out, numbers=options.numbers)


def lint(options: Namespace) -> int:
    """Check the code's style."""
    _require_source_tree("the code")
    check_code = _in_project([sys.executable, "-m", "ruff", "check", "."])
    return check_code or _in_project([sys.executable, "-m", "ruff", "format", "--check", "."])


def setup(options: Namespace) -> None:
    """Say what the environment holds (installing is done before any command)."""
    import torch

    from spine_lib import __version__
    from spine_lib.datasets.sample import sample_root

    print(f"Python       {platform.python_version()} in {sys.prefix}")
    print(f"spine_lib    {__version__}")
    print(f"PyTorch      {torch.__version__}")
    print(f"device       {_device(torch)}")
    print(f"cores        {_cores()}")
    there = "there" if sample_root().is_dir() else "not fetched yet (spine fetch)"
    print(f"sample data  {sample_root()}: {there}")


def _device(torch) -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "CPU (Apple's GPU is not supported yet)" if torch.backends.mps.is_available() else "CPU"


def clean(options: Namespace) -> None:
    """Remove what tools leave behind; never data, runs or the environment."""
    _require_source_tree("the caches")
    names = [".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist", "test-artefacts"]
    names += ["docs/_build"]
    folders = [ROOT / name for name in names]
    for parent in ("spine_lib", "tests", "benchmarks", "notebooks"):
        folders += (ROOT / parent).rglob("__pycache__")
        folders += (ROOT / parent).rglob(".ipynb_checkpoints")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_source_tree(what: str) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        raise SpineError(
            f"{what} are not in {ROOT}: this copy of the library was installed without its "
            "source tree; clone the project and run the command there."
        )


def _in_project(command: list[str], **environment: str) -> int:
    environment = {"NO_ALBUMENTATIONS_UPDATE": "1", **os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
