"""What a result file records beside the scores: where, with what and on which data it was made."""

from __future__ import annotations

import json
import os
import platform
import shlex
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path

import psutil
import torch

from spine_lib import __version__
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.files import atomic_file
from spine_lib.metrics.paper import KNOWN_SETTINGS, PAPER, UNKNOWN_SETTINGS
from spine_lib.reproduce.ablations.kept import remarks
from spine_lib.reproduce.report_words import number
from spine_lib.training.recipe import Recipe

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "segmentation-models-pytorch",
    "albumentations",
    "numpy",
    "scipy",
    "nibabel",
    "pydicom",
)


def versions() -> dict[str, str]:
    """Return the versions of Python, this library and what the scores depend on."""
    found = {"python": platform.python_version(), "spine_lib": __version__}
    return found | {name: metadata.version(name) for name in PACKAGES}


def device_name(device: str) -> str:
    """Describe the device that did the training."""
    if device != "cpu":
        return torch.cuda.get_device_name()
    isa = torch.backends.cpu.get_cpu_capability()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    held = f", held to {limit}" if limit else ""
    return f"{torch.get_num_threads()} CPU threads ({isa}{held})"


@contextmanager
def peak_memory(every_s: float = 0.25) -> Iterator[_Peak]:
    """Watch the memory of this process and its workers; read `.megabytes` at any time."""
    peak = _Peak()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_s):
            peak.look()

    peak.look()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


class _Peak:
    def __init__(self) -> None:
        self.megabytes = 0.0
        self._process = psutil.Process()

    def look(self) -> None:
        total = 0
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue  # a worker that has just ended
        self.megabytes = max(self.megabytes, round(total / 2**20, 1))


def remember_peak(folder: Path, megabytes: float) -> float:
    """Return the highest peak of all calls for this run; a call that only loads needs less."""
    path = folder / "peak_memory_mb.json"
    try:
        megabytes = max(megabytes, float(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        pass
    with atomic_file(path) as stream:
        stream.write(json.dumps(megabytes).encode())
    return megabytes


def describe_data(recipe: Recipe, parts: dict[str, list], stores: dict, tests: dict) -> dict:
    """Return the case ids of each part and the checksums of what was trained on and scored.

    Args:
        recipe: names the data set.
        parts: cases by part.
        stores: slices by part.
        tests: scores by model and seed (`spine_lib.reproduce.evaluate`).
    """
    checksums = {
        f"{part}/{volume.file.removesuffix('.npy')}": volume.sha256
        for part, store in stores.items()
        for volume in store.volumes
    }
    scored = next(iter(next(iter(tests.values())).values()))["volumes"]
    checksums |= {f"test/{case}": volume["sha256"] for case, volume in scored.items()}
    names = {part: [case.case_id for case in cases] for part, cases in parts.items()}
    return {"name": recipe.dataset, **names, "checksums": checksums, "same_as_paper": False}


def data_sources(parts: dict[str, list]) -> list[dict[str, str]]:
    """Describe patients one by one and phantoms part by part."""
    rows = []
    for part, cases in parts.items():
        phantoms = [case for case in cases if case.source == "phantom"]
        for case in [case for case in cases if case.source != "phantom"] + phantoms[:1]:
            several = case.source == "phantom" and len(phantoms) > 1
            rows.append(
                {
                    "name": f"{len(phantoms)} phantoms" if several else case.case_id,
                    "role": part,
                    "licence": case.licence,
                    "mask covers": case.covers,
                    "note": case.note,
                }
            )
    return rows


def test_looks(recipe: Recipe) -> dict | str:
    """Say how often test patients had been looked at while the recipe was made."""
    if recipe.dataset == "phantom":
        return "The test phantoms were made for this run."
    if recipe.dataset != "sample":
        return "The library's recipes were made without this data set's test part."
    source = resources.files("spine_lib.reproduce") / "history.json"
    return json.loads(source.read_text(encoding="utf-8"))["test_looks"]


def deviations(recipe: dict, split: str = "by patient") -> list[dict[str, str]]:
    """Set our settings beside the paper's; what its abstract does not say is unknown.

    Args:
        recipe: `Recipe.to_dict()`.
        split: how the cases came to their parts.
    """
    size = recipe["augmentation"]["size"]
    weights = recipe["encoder_weights"] or "random"
    ours = {
        "data": _training_data(recipe["dataset"], recipe["phantoms"]),
        "annotation": _ANNOTATION[recipe.get("target", "spine")],
        "models": ", ".join(recipe["models"]),
        "encoder of DeepLabv3+": _encoder(recipe["models"]),
        "image size": f"patches of {size}x{size} pixels of {recipe['spacing_mm']:g} mm",
        "plane": " and ".join(recipe["planes"]),
        "channels": (
            f"the slice, and those {recipe['neighbour_mm']:g} mm before and behind it"
            if recipe["neighbour_mm"]
            else "the slice alone"
        ),
        "split": split,
        "epochs": f"{recipe['steps']} steps of {recipe['batch']} patches",
        "optimiser": (
            f"AdamW, one cycle up to {recipe['learning_rate']:g}, weight decay "
            f"{recipe['weight_decay']:g}, averaged weights ({recipe['averaging']:g})"
        ),
        "loss": recipe["loss"],
        "batch size": str(recipe["batch"]),
        "augmentation": _augmentation(recipe),
        "how scores were averaged": "pooled, per volume and per slice; both IoUs",
    }
    rows = [
        {"setting": name, "paper": KNOWN_SETTINGS.get(name, ""), "ours": ours[name]}
        for name in (*KNOWN_SETTINGS, *UNKNOWN_SETTINGS)
    ]
    more = {"channels of the input": ours["channels"], "encoder weights at the start": weights}
    rows += [{"setting": name, "paper": "", "ours": text} for name, text in more.items()]
    return [row | _remark(row["setting"]) for row in rows]


def _encoder(models: Sequence[str]) -> str:
    encoders = {name.partition("_")[0]: name.partition("_")[2] for name in models}
    ours = encoders.get("deeplabv3plus", "not trained")
    return "the encoder of U-Net" if ours == encoders.get("unet") else ours


def _augmentation(recipe: dict) -> str:
    wish = recipe["augmentation"]
    parts = ["geometry", "photometry"]
    parts += ["redrawn tissues"] if wish["redraw"] else []
    parts += ["narrow fields of view"] if wish["narrow_view"] else []
    return ", ".join(parts)


def _remark(setting: str) -> dict[str, str]:
    """Return what the kept ablation of a setting found, as a note to it."""
    found = remarks()
    return {"note": found[setting]} if setting in found else {}


_ANNOTATION = {
    "spine": "spine against background; the four regions are merged",
    "regions": "the four regions against each other and the background; scored merged as well",
}


def counted_as_spine(recipe: Recipe) -> str:
    """Say what is segmented and scored."""
    spine = "Spine: every labelled vertebra and, where the mask has it, the sacrum."
    if recipe.classes == 1:
        return spine
    return f"{spine} The networks name its {len(REGIONS)} regions; as spine counts any of them."


def _training_data(dataset: str, phantoms: int) -> str:
    patients = {"sample": "two patients", "phantom": ""}.get(dataset, f"the scans of {dataset}")
    made = f"{phantoms} phantoms" if phantoms else ""
    return " and ".join(text for text in (patients, made) if text) + " for training"


def command(arguments: Sequence[str]) -> str:
    """Return what was typed, without the folders of this machine."""
    words = list(arguments)
    program = "python -m spine_lib" if words[0].endswith(".py") else Path(words[0]).name
    return " ".join([program, *(shlex.quote(word) for word in words[1:])])


def table(results: dict) -> str:
    """Return the table that a run ends with, as plain text."""
    columns = ("iou", "iou_mean", "dice", "f1", "accuracy")
    head = ("", "IoU", "class-mean IoU", "Dice", "F1", "accuracy")
    lines = [head]
    for model, entry in results["models"].items():
        paper = PAPER.get(model, {})
        cells = [number(paper.get(key)) if paper.get(key) else "" for key in columns]
        lines.append((f"{entry['name']}: paper", *cells))
        for way in ("pooled", "per_volume", "per_slice"):
            scores = entry["test"][way]
            lines.append(
                (f"  ours, {way.replace('_', ' ')}", *(number(scores[k]) for k in columns))
            )
    width = max(len(line[0]) for line in lines)
    rows = [
        line[0].ljust(width)
        + "".join(cell.rjust(max(9, len(name) + 2)) for cell, name in zip(line[1:], head[1:]))
        for line in lines
    ]
    return "\n".join([*rows, *_named_lines(results)])


def _named_lines(results: dict) -> list[str]:
    """Return a line for each model that names regions."""
    lines = []
    for entry in results["models"].values():
        if named := entry["test"].get("named"):
            shown = {**named["pooled_dice"], "mean": named["mean_pooled_dice"]}
            scores = ", ".join(f"{name} {number(value)}" for name, value in shown.items())
            lines.append(f"{entry['name']}: pooled Dice of the regions by name: {scores}")
    return lines
