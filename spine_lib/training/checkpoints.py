"""Save and load trained networks without ever running pickled code.

Training resumes from Lightning's `.ckpt`; what is kept and passed on is a safetensors file whose
metadata name the network and its recipe.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from spine_lib import SpineError, __version__
from spine_lib.ct.files import atomic_file
from spine_lib.models.build import build_model
from spine_lib.training.recipe import Recipe, recipe_from_dict


def save_weights(
    network: nn.Module,
    model: str,
    recipe: Recipe,
    path: str | Path,
    half: bool = False,
    data: dict[str, list] | None = None,
) -> Path:
    """Write a network's weights with all that is needed to build it again.

    Args:
        network: as `build_model` made it.
        model: its name.
        recipe: it was trained with.
        path: safetensors file to write.
        half: store weights in half precision, at half the size.
        data: what identifies the volumes that it was trained on, as `data_identity` returns it.
    """
    state = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    notes = {"model": model, "recipe": json.dumps(recipe.to_dict()), "spine_lib": __version__}
    notes |= {} if data is None else {"training_data": json.dumps(data)}
    with atomic_file(Path(path)) as stream:
        stream.write(safetensors.torch.save(state, metadata=notes))
    return Path(path)


def load_weights(path: str | Path, model: str | None = None) -> tuple[nn.Module, Recipe]:
    """Load a network from `weights.safetensors`, or from a training checkpoint `.ckpt`.

    Args:
        path: the file.
        model: name of the network that the file must hold.

    Returns:
        The network in evaluation mode on the CPU, and the recipe it was trained with.

    Raises:
        SpineError: if the file is missing, broken, of another network, or not made here.
    """
    path = Path(path)
    if not path.is_file():
        raise SpineError(f"{path} does not exist: train first, or name another checkpoint")
    state, notes = read_checkpoint(path)
    name = notes["model"]
    if model is not None and name != model:
        raise SpineError(f"{path} holds a {name}, not a {model}: name the other checkpoint")
    recipe = recipe_from_dict(notes["recipe"], str(path))
    network = build_model(name, recipe.channels, recipe.classes, **recipe.decoder())
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except RuntimeError as error:
        line = str(error).splitlines()[0]
        raise SpineError(f"{path} does not fit a {name} ({line}): name another file") from error
    return network.eval(), recipe


def read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Load the weights of a network, and a dictionary of what is stored beside them.

    Returns:
        The weights, and "model", "recipe" and "training_data"; the last is None where an older
        version stored none.

    Raises:
        SpineError: if the file is broken or was not made by this library.
    """
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, framework="pt") as file:
                notes = {"training_data": "null", **file.metadata()}
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            recipe, data = (json.loads(notes[key]) for key in ("recipe", "training_data"))
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            notes, data = content["hyper_parameters"], content.get("training_data")
            recipe = dict(notes["recipe"])
            state = {
                key.removeprefix("network."): value
                for key, value in content["state_dict"].items()
                if key.startswith("network.")
            }
        model = notes["model"]
    except Exception as error:  # torch and safetensors raise many kinds for a broken file
        raise SpineError(
            f"{path} cannot be read as a checkpoint of this library ({type(error).__name__}): "
            "name a weights.safetensors or last.ckpt that `spine reproduce` wrote, or delete it to "
            "train anew"
        ) from error
    if recipe.get("augment_on") == "worker":  # a setting of older versions; today's only way
        del recipe["augment_on"]
    return state, {"model": model, "recipe": recipe, "training_data": data}
