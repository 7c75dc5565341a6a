"""One truth about what is needed: pyproject.toml, constraints.txt, environment.yml, the imports."""

import ast
import fnmatch
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from spine_lib import setup_env
from spine_lib.requirements import in_range, split_requirement
from spine_lib.requirements import requirements as project_requirements

ROOT = setup_env.ROOT
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

# What conda-forge calls differently.
CONDA_NAMES = {
    "torch": "pytorch",
    "isal": "python-isal",
    "opencv-python-headless": "py-opencv",
    "playwright": "playwright-python",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> dict[str, str]:
    lines = project_requirements(ROOT)
    return {normal(name): bounds for name, bounds in map(split_requirement, lines)}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): version for name, version in pairs}


def project_files() -> list[Path]:
    """List the files that belong to the project: tracked ones, and new ones that git would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the project's files here: {error}")
    names = done.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def text_files() -> list[tuple[Path, str]]:
    found = []
    for path in project_files():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((path, data.decode("utf-8")))
    return found


def test_conda_and_pip_install_the_same_packages_in_the_same_ranges():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    conda = dict(split_requirement(line) for line in environment["dependencies"])
    assert environment["channels"][0] == "conda-forge"
    assert conda.pop("pip") == ""
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda == {CONDA_NAMES.get(name, name): bounds for name, bounds in requirements().items()}


def test_every_requirement_is_pinned_within_its_range():
    pins = constraints()
    for name, bounds in requirements().items():
        assert name in pins, f"constraints.txt has no version of {name}"
        assert in_range(pins[name], bounds), f"{name}=={pins[name]} is not {bounds}"
    for line in PROJECT["optional-dependencies"]["viz3d"]:
        name, bounds = split_requirement(line)
        assert in_range(pins[name], bounds)


def test_constraints_fit_every_system():
    for name, version in constraints().items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*", version), f"{name}=={version}"
        assert not name.startswith(("nvidia", "cuda", "triton", "spine")), name


def test_every_requirement_has_a_lower_bound():
    for name, bounds in requirements().items():
        assert bounds.startswith(">="), f"{name}: '{bounds}'"


def test_everything_that_is_imported_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = {
        "spine_lib": {normal(split_requirement(x)[0]) for x in PROJECT["dependencies"]}
        | {"ipyniivue", "distributed"},  # the extras viz3d and cluster
        "tests": set(requirements()),
    }
    for folder, names in declared.items():
        for path in (ROOT / folder).rglob("*.py"):
            for module in third_party_imports(path):
                owners = {normal(name) for name in distributions.get(module, [module])}
                assert owners & names, f"{path.name} imports {module}, which is not declared"


def third_party_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    local = {"spine_lib", *(p.stem for p in path.parent.glob("*.py"))}
    return found - set(sys.stdlib_module_names) - local


def test_every_data_file_of_the_package_is_shipped():
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["spine_lib"]
    inside = [p for p in project_files() if (ROOT / "spine_lib") in p.parents]
    for path in inside:
        if path.suffix != ".py":
            name = "/" + path.relative_to(ROOT / "spine_lib").as_posix()
            assert any(fnmatch.fnmatch(name, f"*{p.removeprefix('**')}") for p in patterns), name


def test_every_folder_of_code_is_a_package():
    for path in (ROOT / "spine_lib").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} lacks __init__.py"
