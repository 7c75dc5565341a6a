"""The GPU's measurements run in miniature on any machine, so that a lent hour is not lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_every_part_runs_in_miniature_and_leaves_its_figures(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--miniature", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result = json.loads(output.read_text(encoding="utf-8"))
    assert done.returncode == 0 and not result["failed"], result["failed"]
    assert set(result["parts"]) == {"steps", "training", "feeding", "prediction", "true_size"}
    assert result["parts"]["steps"]["unet_resnet34"]["bf16"]["images_per_second"] > 0
    assert not result["left_out"] and result["hardware"]["cores"]


@pytest.mark.slow
def test_a_part_that_would_begin_too_late_is_named_as_left_out(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--miniature", "--minutes", "0", "--output"]
    subprocess.run([*command, str(output)], capture_output=True, check=False)
    assert json.loads(output.read_text(encoding="utf-8"))["left_out"][0] == "steps"
