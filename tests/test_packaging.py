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
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

EXTRAS = PROJECT["optional-dependencies"]

USED_BY_THE_LIBRARY = ("cluster", "instructor", "lab", "lessons")

# What conda-forge calls differently.
CONDA_NAMES = {"torch": "pytorch", "isal": "python-isal", "opencv-python-headless": "py-opencv"}


def ranges(*groups: list[str]) -> dict[str, str]:
    """Return the range of versions of each package in lists of requirements."""
    requirements = [Requirement(line) for group in groups for line in group]
    return {canonicalize_name(each.name): str(each.specifier) for each in requirements}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def project_files() -> list[Path]:
    """List the files that belong to the project: tracked ones, and new ones that git would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git cannot list the project's files here: {error}")
    names = done.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_conda_and_pip_install_the_same_packages_in_the_same_ranges():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *packages, pip = environment["dependencies"]
    assert environment["channels"][0] == "conda-forge"
    assert pip == {"pip": ["--editable .[lab,lessons]"]}
    conda = ranges(packages)
    assert conda.pop("pip") == ""
    assert conda.pop("python") == ranges([f"python{PROJECT['requires-python']}"])["python"]
    expected = ranges(PROJECT["dependencies"], EXTRAS["lab"], EXTRAS["lessons"])
    del expected["ipyniivue"]  # brought by pip, with the extra
    assert conda == {CONDA_NAMES.get(name, name): bounds for name, bounds in expected.items()}


def test_every_requirement_has_a_lower_bound_and_is_pinned_within_its_range():
    pins = constraints()
    for line in [*PROJECT["dependencies"], *(line for group in EXTRAS.values() for line in group)]:
        requirement = Requirement(line)
        assert ">=" in line, line
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line


def test_constraints_fit_every_system():
    for name, version in constraints().items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*", version), f"{name}=={version}"
        assert not name.startswith(("nvidia", "cuda", "triton", "spine")), name


def test_everything_that_is_imported_is_declared():
    distributions = importlib.metadata.packages_distributions()
    declared = {
        "spine_lib": ranges(
            PROJECT["dependencies"], *(EXTRAS[name] for name in USED_BY_THE_LIBRARY)
        ),
        "tests": ranges(PROJECT["dependencies"], *EXTRAS.values()),
    }
    for folder, names in declared.items():
        for path in (ROOT / folder).rglob("*.py"):
            for module in third_party_imports(path):
                owners = {canonicalize_name(n) for n in distributions.get(module, [module])}
                assert owners & set(names), f"{path.name} imports {module}, which is not declared"


def third_party_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    local = {"spine_lib", "benchmarks"}
    for folder in ("tests", "benchmarks", "docs"):  # which are on the path of the tests
        local |= {file.stem for file in (ROOT / folder).rglob("*.py")}
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


def test_each_row_of_the_data_formats_names_a_test_that_exists():
    text = (ROOT / "docs" / "data-formats.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"def (test_\w+)", code))
    named = set(re.findall(r"`(?:[\w./]*::)?(test_\w+)`", text))
    assert named and named <= defined
