"""The GPU's measurements run in miniature on any machine, so that a lent hour is not lost."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """Run the script in miniature; return its exit code and the file that it leaves."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    def run(*arguments):
        output = tmp_path / "gpu.json"
        command = ["gpu.py", "--miniature", *arguments, "--output", str(output)]
        monkeypatch.setattr(sys, "argv", command)
        return gpu.main(), json.loads(output.read_text(encoding="utf-8"))

    yield run
    for name in ("gpu", "training", "true_size"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_every_part_runs_in_miniature_and_leaves_its_figures(measure):
    code, result = measure()
    assert code == 0 and not result["failed"], result["failed"]
    assert set(result["parts"]) == {"steps", "training", "feeding", "prediction", "true_size"}
    assert result["parts"]["steps"]["unet_resnet18"]["bf16"]["images_per_second"] > 0
    assert not result["left_out"] and result["hardware"]["cores"]


def test_a_part_that_would_begin_too_late_is_named_as_left_out(measure):
    assert measure("--minutes", "0")[1]["left_out"][0] == "steps"
