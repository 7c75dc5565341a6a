"""The run at true size, in miniature on the CPU."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spine_lib.annotations.schemes import SACRUM
from spine_lib.datasets import split_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

RECIPE = """
models: [unet_resnet18]
encoder_weights: imagenet
averaging: 0
precision: 32-true
augmentation: {size: 96, redraw: 0}
"""


@pytest.fixture
def true_size(monkeypatch):
    """The script, imported as Python does that runs it."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import true_size

    yield true_size
    for name in ("true_size", "training"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_every_stage_is_timed_and_the_whole_is_computed_from_it(true_size, tmp_path):
    (tmp_path / "small.yaml").write_text(RECIPE, encoding="utf-8")
    command = "--scans 3 --steps 4 --batch 2 --miniature --device cpu".split()
    command += ["--recipe", str(tmp_path / "small.yaml"), "--folder", str(tmp_path / "run")]
    command += ["--output", str(tmp_path / "result.json")]
    first = true_size.main(command)
    kept = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert kept["scans"] == {"train": 1, "validation": 1, "test": 1}
    assert kept["measured"]["phantoms"]["scans"] == 3 and kept["measured"]["prepare"]["scans"] == 2
    stages = kept["measured"]["train"]["unet_resnet18"]
    assert stages["steps"]["images"] == 3 * 2 and stages["share_of_bare_step"] > 0
    assert kept["measured"]["evaluate"]["unet_resnet18"]["score"]["scans"] == 1
    assert set(kept["computed"]["seconds"]) == {
        "prepare", "train unet_resnet18", "evaluate unet_resnet18",
    }  # fmt: skip
    images = 762 * 243 * 10
    assert kept["computed"]["training_images_of_each_model"] == images
    slow = stages["steps"]["seconds_each"] * images
    assert kept["computed"]["seconds"]["train unet_resnet18"] >= 0.99 * slow
    assert "torch" in kept["versions"] and kept["hardware"]["cores"] >= 1
    again = true_size.main(command)
    assert again["measured"]["phantoms"] is None and again["measured"]["train"] == {
        "unet_resnet18": {}
    }
    assert first["recipe"]["encoder_weights"] is None


def test_names_fall_into_the_parts_of_the_public_sets_split(true_size):
    assert true_size.shares_of(1089) == {"train": 762, "validation": 109, "test": 218}
    parts = [split_of(f"case_{number:04d}") for number in true_size.numbers_of(11)]
    assert {part: parts.count(part) for part in set(parts)} == true_size.shares_of(11)
    with pytest.raises(SystemExit, match="2 scans cannot be split"):
        true_size.main(["--scans", "2"])


def test_only_the_upper_part_of_the_sacrum_stays_and_is_called_25(true_size):
    labels = np.zeros((4, 4, 60), np.uint8)
    labels[1:3, 1:3, 5:45] = SACRUM
    labels[1:3, 1:3, 45:55] = 24
    public = true_size.public_ids(labels, spacing_mm=1.5)
    assert set(np.unique(public)) == {0, 24, 25}
    assert np.flatnonzero((public == 25).any(axis=(0, 1))).tolist() == list(range(25, 45))
