"""Copies for Colab and Kaggle: badges, and a first cell that installs there and not at home."""

import subprocess
import sys
import types

import nbformat
import pytest
from hosted import write_hosted_copies

from spine_lib import SpineError

SOURCE = '# %% [markdown]\n# # Tiny\n\n# %%\nprint("two")\n'


@pytest.fixture
def project(tmp_path):
    (tmp_path / "notebooks" / "figures").mkdir(parents=True)
    (tmp_path / "notebooks" / "00_tiny.py").write_text(SOURCE)
    return tmp_path


def set_up_cell(project) -> str:
    write_hosted_copies(project, project / "hosted", "ada/spine", "v1")
    notebook = nbformat.read(project / "hosted" / "00_tiny.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert [cell.cell_type for cell in notebook.cells] == ["markdown", "markdown", "code", "code"]
    return notebook.cells[2].source


def test_each_lesson_has_badges_that_open_its_copy(project):
    set_up_cell(project)
    page = (project / "hosted" / "README.md").read_text()
    assert "colab.research.google.com/github/ada/spine/blob/v1/hosted/00_tiny.ipynb" in page
    assert "src=https://github.com/ada/spine/blob/v1/hosted/00_tiny.ipynb" in page


def test_the_first_cell_does_nothing_at_home(project, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: pytest.fail("something was installed"))
    exec(set_up_cell(project), {})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("code", [0, 1])
def test_on_colab_it_installs_once_and_switches_widgets_on(project, monkeypatch, capsys, code):
    ran, switched = [], []
    output = types.SimpleNamespace(enable_custom_widget_manager=lambda: switched.append(True))
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(output=output))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(
        subprocess, "run", lambda c: ran.append(c) or types.SimpleNamespace(returncode=code)
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cell = set_up_cell(project)
    if code:
        with pytest.raises(SystemExit, match="turn Internet on"):
            exec(cell, {})
        return
    exec(cell, {})
    assert ran[0][-1] == "spine-lib[lessons] @ git+https://github.com/ada/spine@v1"
    assert switched and "No GPU" in capsys.readouterr().out


def test_a_wrong_repository_or_folder_is_refused(project):
    with pytest.raises(SpineError, match="is no repository"):
        write_hosted_copies(project, project / "hosted", "https://github.com/ada/spine")
    with pytest.raises(SpineError, match="exists and may hold work"):
        write_hosted_copies(project, project / "notebooks", "ada/spine")
    with pytest.raises(SpineError, match="is not in"):
        write_hosted_copies(project, project.parent / "elsewhere", "ada/spine")
