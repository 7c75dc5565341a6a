"""Put the models of a finished run of the recipe `light` into the library, with their predictions.

    spine reproduce --recipe light
    python benchmarks/ship_models.py runs/light

Writes `<model>.safetensors` (half precision) and `<model>_<case>.npz` (8 bits, for the two held-out
patients) into `spine_lib/training/pretrained/`. Bring `MODEL_CARD.md` there up to date by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.datasets import sample_cases
from spine_lib.training.checkpoints import read_checkpoint, save_weights
from spine_lib.training.pretrained import FOLDER, PRETRAINED, load_pretrained
from spine_lib.training.recipe import load_recipe
from spine_lib.volumes import predict_volume


def ship(run: Path, folder: Path = FOLDER, device: str = "auto") -> None:
    """Write weights and predictions of a run's models.

    Args:
        run: folder that `reproduce("light")` left.
        folder: to write into.
        device: "auto", "cpu" or "cuda".

    Raises:
        SpineError: if the run was made with another recipe.
    """
    wanted = load_recipe("light")
    cases = [case for case in sample_cases() if case.split == "test"]
    for name, model in PRETRAINED.items():
        weights = run / model / "seed-0" / "weights.safetensors"
        stored = read_checkpoint(weights, model)
        network, recipe = stored.network, stored.recipe
        if recipe.changed(workers=wanted.workers) != wanted:
            raise SpineError(f"{run} was not made with the recipe light: train it anew")
        record = (stored.data, stored.encoder_sha256)
        save_weights(network, model, recipe, folder / f"{name}.safetensors", True, *record)
        network, recipe = load_pretrained(name)
        for case in cases:
            ct = case.load().ct
            probability = predict_volume(network, ct, recipe, device).array
            with atomic_file(folder / f"{name}_{case.case_id}.npz") as stream:
                levels = np.rint(probability * 255).astype(np.uint8)
                np.savez_compressed(stream, probability=levels, affine=ct.affine)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the run")
    ship(parser.parse_args().run)
