"""Save and load trained networks without ever running pickled code.

Training resumes from Lightning's `.ckpt`; what is passed on is a safetensors file whose metadata
name the network, its recipe and the data that it saw.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import nn

from spine_lib import SpineError, __version__
from spine_lib.ct.files import atomic_file
from spine_lib.training.recipe import Recipe, recipe_from_dict

Row = tuple[str, str, str, tuple[int, int, int], float, str]
"""A volume: case id, plane, source, shape, slice distance in mm, SHA-256 of its slices."""


@dataclass(frozen=True)
class DataRecord:
    """What identifies the data of a training: its volumes, in their order."""

    training: list[Row]
    validation: list[Row]
    images: dict[str, str] = field(default_factory=dict, compare=False)
    """SHA-256 of each case's scan as it was loaded, by case id; empty in older files."""

    def case_ids(self, part: str) -> list[str]:
        """Return the ids of the cases of "training" or "validation"."""
        return list(dict.fromkeys(row[0] for row in getattr(self, part)))

    def to_dict(self) -> dict[str, Any]:
        """Return the record as built-in types, as JSON and checkpoints keep it."""
        return TypeAdapter(DataRecord).dump_python(self, mode="json")


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode on the CPU, and what its file of weights says of it."""

    network: nn.Module
    model: str
    recipe: Recipe
    data: DataRecord | None  # None where an older version stored nothing
    encoder_sha256: str  # of the weights that its encoder started from; "" for random ones
    step: int  # optimiser steps that a stopped training has done; 0 in finished weights


def weights_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()


def save_weights(
    network: nn.Module,
    model: str,
    recipe: Recipe,
    path: str | Path,
    half: bool = False,
    data: DataRecord | None = None,
    encoder_sha256: str = "",
) -> Path:
    """Write a network's weights with all that is needed to build it again, as safetensors.

    Equal networks make equal files; `half` stores weights in half precision. `encoder_sha256` is
    that of the weights that the encoder started from.
    """
    state = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    notes = {"model": model, "recipe": json.dumps(recipe.to_dict()), "spine_lib": __version__}
    notes["training_data"] = json.dumps(data and data.to_dict())
    notes["encoder_sha256"] = encoder_sha256
    packed = safetensors.torch.save(state, notes)
    with atomic_file(Path(path)) as stream:
        _write_sorted(packed, stream)
    return Path(path)


def _write_sorted(packed: bytes, stream: BinaryIO) -> None:
    """Write a safetensors file with its header in order, which safetensors shuffles."""
    end = 8 + int.from_bytes(packed[:8], "little")
    header = json.dumps(json.loads(packed[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    stream.write(len(header).to_bytes(8, "little") + header)
    stream.write(memoryview(packed)[end:])


def load_weights(path: str | Path, model: str | None = None) -> tuple[nn.Module, Recipe]:
    """Load a network from `weights.safetensors` or `.ckpt`, in evaluation mode, and its recipe.

    Raises a `SpineError` if the file is missing, broken, of another network than `model`, or was
    not made by this library.
    """
    checkpoint = read_checkpoint(Path(path), model)
    return checkpoint.network, checkpoint.recipe


def read_checkpoint(path: Path, model: str | None = None) -> Checkpoint:
    """Load a network, and what is stored beside its weights; raises as `load_weights`."""
    if not path.is_file():
        raise SpineError(f"{path} does not exist: train first, or name another checkpoint")
    try:
        read = _read_safetensors if path.suffix == ".safetensors" else _read_lightning
        state, notes = read(path)
        settings = dict(notes["recipe"])
        data = TypeAdapter(DataRecord | None).validate_python(notes["training_data"])
        name, encoder_sha256 = str(notes["model"]), str(notes["encoder_sha256"])
        step = TypeAdapter(int).validate_python(notes["step"])
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise SpineError(
            f"{path} cannot be read as a checkpoint of this library ({type(error).__name__}): "
            "name a weights.safetensors or last.ckpt that `spine reproduce` wrote, or delete it to "
            "train anew"
        ) from error
    if model is not None and name != model:
        raise SpineError(f"{path} holds a {name:.60}, not a {model}: name the other checkpoint")
    recipe = recipe_from_dict(settings, str(path))
    try:
        network = recipe.build(name).eval()
        network.load_state_dict(state)
    except (SpineError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        line = str(error).splitlines()[0]
        raise SpineError(
            f"{path} does not fit a {name:.60} ({line}): delete it or name another"
        ) from error
    for key, value in network.state_dict().items():
        if not torch.isfinite(value).all():
            raise SpineError(f"{path} holds NaN or infinite weights in {key}: train anew")
    return Checkpoint(network, name, recipe, data, encoder_sha256, step)


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with safetensors.safe_open(path, framework="pt") as file:
        notes = {"training_data": "null", "encoder_sha256": "", **file.metadata()}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    notes |= {key: json.loads(notes[key]) for key in ("recipe", "training_data")}
    return state, notes | {"step": 0}


def _read_lightning(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    with zipfile.ZipFile(path) as archive:  # torch stores its records, uncompressed
        if sum(record.file_size for record in archive.infolist()) > os.path.getsize(path):
            raise ValueError("it unpacks to more than its size")
    content = torch.load(path, map_location="cpu", weights_only=True)
    state = {
        key.removeprefix("network."): value
        for key, value in content["state_dict"].items()
        if key.startswith("network.")
    }
    notes = {"training_data": None, "encoder_sha256": "", **content}
    return state, notes | content["hyper_parameters"] | {"step": content["global_step"]}
