"""Set the library beside the tools of the field, job by job, in one run and one table.

Each job is done by each tool in turn, round after round; the figure is the median of the rounds, in
seconds of the clock. Loading, the training step and the viewer's frame come from `loading.py`,
`training.py` and `frames.py`, which this script runs. TorchIO's queue takes part where TorchIO is
installed (`pip install torchio`; no other part of the project needs it).

    python benchmarks/peers.py
    python benchmarks/peers.py --jobs counts surfaces --rounds 3

Close other programs first; the load of the machine is kept beside the figures. Prints the table and
writes `benchmarks/results/peers.json`.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import psutil
import torch

from spine_lib.ct.files import write_json
from spine_lib.datasets import sample_cases
from spine_lib.reproduce import provenance

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "peers.json"
PATCH, BATCH, BATCHES, SPACING_MM = 64, 8, 50, 1.5
PEERS = ("monai", "torchio", "SimpleITK", "nibabel", "torchmetrics", "segmentation-models-pytorch")
GOALS = {
    "load": {"SimpleITK": 2, "get_fdata": 3},
    "slices": {"MONAI PersistentDataset": 3},
    "step": {"example_loop": 2},
    "counts": {"best of the others": 5},
    "surfaces": {"MONAI": 2},
    "frame": {"interact_imshow": 20},
    "predict": {"MONAI SliceInferer, bf16": 2},
}
"""By job and tool, how many times faster the library is to be."""


def main() -> int:
    """Run the jobs, print and keep the table; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", nargs="*", default=list(JOBS), choices=JOBS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--feed", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.feed:
        FEEDERS[options.feed](options.folder)
        return 0
    kept = json.loads(options.output.read_text()) if options.output.is_file() else {"jobs": {}}
    kept["threads"] = torch.get_num_threads()
    kept["memory_gb"] = round(psutil.virtual_memory().total / 2**30)
    kept["device"] = provenance.device_name("cpu")
    found = importlib.metadata.packages_distributions()
    peers = {name: importlib.metadata.version(name) for name in PEERS if _installed(name, found)}
    kept["versions"] = provenance.versions() | peers
    kept["created"] = time.strftime("%Y-%m-%d")
    for job in options.jobs:
        before = os.getloadavg()[0]
        seconds = JOBS[job](options.rounds)
        ours = seconds["spine_lib"]
        others = {tool: value / ours for tool, value in seconds.items() if tool != "spine_lib"}
        best = {"best of the others": min(others.values())}
        goals = {
            tool: (others | best)[tool] >= goal
            for tool, goal in GOALS[job].items()
            if tool in others | best
        }
        kept["jobs"][job] = {
            "seconds": seconds,
            "times_faster": {tool: round(ratio, 2) for tool, ratio in others.items()},
            "goals": GOALS[job],
            "goals_met": goals,
            "load_average_before": round(before, 2),
        }
        texts = [f"{tool} {value:.4g} s" for tool, value in seconds.items()]
        texts += [f"{ratio:.1f} x {tool}" for tool, ratio in others.items()]
        print(f"{job:9}", "; ".join(texts), flush=True)
        write_json(options.output, kept)
    return 0 if all(all(job["goals_met"].values()) for job in kept["jobs"].values()) else 1


def _installed(name: str, distributions: dict) -> bool:
    return any(name.lower() in map(str.lower, names) for names in distributions.values())


def time_in_turn(ways: dict, rounds: int) -> dict[str, float]:
    """Return the median seconds of each way, which take turns; each is run once before."""
    seconds = {name: [] for name in ways}
    for number, (name, way) in itertools.product(range(rounds + 1), ways.items()):
        start = time.perf_counter()
        way()
        if number:
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


# --- jobs that other scripts time -----------------------------------------------------------------


def _run(script: str, *arguments: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / script), *arguments, "--output", str(output)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # 1: a goal is missed
        return json.loads(output.read_text())


def time_loading(rounds: int) -> dict[str, float]:
    """Time a lone `.nii.gz` of 512x512x200 voxels, each load in a fresh process."""
    readers = _run("loading.py", "--runs", str(rounds))["files"][0]["readers"]
    seconds = {name: row["seconds_median"] for name, row in readers.items()}
    return {"spine_lib": seconds.pop("load_ct"), **seconds}


def time_step(rounds: int) -> dict[str, float]:
    """Time a training step of U-Net/ResNet34 on 16 patches of 128 x 128."""
    (result,) = _run("training.py", "--rounds", str(rounds), "--steps", "6").values()
    ways = result["ways"]
    return {n: 16 / ways[n]["images_per_second"] for n in ("spine_lib", "example_loop")}


def time_frame(rounds: int) -> dict[str, float]:
    """Time one frame of a viewer, in processor time."""
    ways = _run("frames.py", "--frames", str(10 * rounds))["ways"]
    seconds = {name: row["cpu_ms"] / 1000 for name, row in ways.items()}
    return {"spine_lib": seconds["render_slice"]} | {
        name: seconds[name] for name in ("set_data", "interact_imshow")
    }


# --- slices to a training loop --------------------------------------------------------------------


def time_slices(rounds: int) -> dict[str, float]:
    """Time a cold process until it has drawn 50 batches of patches of the two training patients.

    What a tool can keep on disk lies there already.
    """
    feeders = [name for name in FEEDERS if "TorchIO" not in name or _has("torchio")]
    with tempfile.TemporaryDirectory() as folder:
        base = [sys.executable, __file__, "--folder", folder, "--feed"]
        ways = {n: lambda n=n: subprocess.run([*base, n], check=True) for n in feeders}
        return time_in_turn(ways, rounds)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def feed_spine_lib(folder: Path) -> None:
    """Draw batches by the library's store and loader."""
    from spine_lib.slices.store import prepare
    from spine_lib.training.loading import training_loader
    from spine_lib.training.recipe import load_recipe

    recipe = load_recipe("sample").changed(phantoms=0, phantom_share=0, workers=0)
    cases = [case for case in sample_cases() if case.split == "train"]
    store = prepare(cases, folder / "store", spacing_mm=SPACING_MM)
    for _ in itertools.islice(training_loader(store, recipe), BATCHES):
        pass


def _monai(folder: Path, kind: str) -> None:
    from monai import transforms as T
    from monai.data import CacheDataset, DataLoader, PersistentDataset

    keys, modes = ["image", "label"], ("bilinear", "nearest")
    steps = T.Compose(
        [
            T.LoadImaged(keys),
            T.EnsureChannelFirstd(keys),
            T.Orientationd(keys, axcodes="RAS", labels=None),
            T.Spacingd(keys, (SPACING_MM, SPACING_MM, -1), mode=modes),
            T.ScaleIntensityRanged("image", -1024, 2000, 0, 1, clip=True),
            T.SpatialPadd(keys, (PATCH, PATCH, 1)),
            T.RandCropByPosNegLabeld(
                keys, "label", (PATCH, PATCH, 1), pos=0.85, neg=0.15, num_samples=BATCH
            ),
            T.SqueezeDimd(keys, dim=-1),
            T.RandFlipd(keys, 0.5, spatial_axis=0),
            T.RandAffined(keys, 1.0, rotate_range=0.2, scale_range=(0.1, 0.1), mode=modes),
            T.RandGaussianNoised("image", 0.5, std=0.02),
        ]
    )
    cases = [case for case in sample_cases() if case.split == "train"]
    files = [{"image": str(case.ct_path), "label": str(case.mask_path)} for case in cases]
    if kind == "cache":
        data = CacheDataset(files, steps, num_workers=0, progress=False)
    else:
        data = PersistentDataset(files, steps, folder / "monai")
    for _ in range(BATCHES // len(files)):
        for _ in DataLoader(data, batch_size=1, num_workers=0):  # a scan gives a batch of patches
            pass


def feed_torchio(folder: Path) -> None:
    """Draw batches by TorchIO's queue."""
    import torchio as tio

    cases = [case for case in sample_cases() if case.split == "train"]
    subjects = [
        tio.Subject(image=tio.ScalarImage(case.ct_path), label=tio.LabelMap(case.mask_path))
        for case in cases
    ]
    grid = tio.Compose([tio.ToCanonical(), tio.Resample((SPACING_MM, SPACING_MM, 3.0))])
    noise = tio.Compose([grid, tio.RandomFlip(0), tio.RandomAffine(0.1, 10), tio.RandomNoise()])
    data = tio.SubjectsDataset(subjects, transform=noise)
    sampler = tio.data.LabelSampler((PATCH, PATCH, 1), "label")
    queue = tio.Queue(data, 400, BATCH * BATCHES // 2, sampler, num_workers=0)
    for _ in tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0):
        pass


FEEDERS = {
    "spine_lib": feed_spine_lib,
    "MONAI CacheDataset": lambda folder: _monai(folder, "cache"),
    "MONAI PersistentDataset": lambda folder: _monai(folder, "disk"),
    "TorchIO Queue": feed_torchio,
}


# --- scores ---------------------------------------------------------------------------------------


def _masks() -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Return the chest's mask, moved by a voxel, the mask itself, and its spacing."""
    (case,) = (case for case in sample_cases() if case.case_id == "chest")
    data = case.load()
    truth = data.labels.array > 0
    truth = np.ascontiguousarray(truth)  # as the others ask for
    return np.roll(truth, 1, 0), truth, data.labels.spacing_mm


def time_counts(rounds: int) -> dict[str, float]:
    """Time Dice of a whole scan from two boolean masks."""
    import segmentation_models_pytorch as smp
    from monai.metrics import compute_dice
    from torchmetrics.functional.classification import binary_f1_score

    from spine_lib.metrics import confusion, dice

    prediction, truth, _ = _masks()
    batch = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    numbers = [mask.int() for mask in batch]

    def count_by_smp():
        stats = smp.metrics.get_stats(*numbers, mode="binary")
        return smp.metrics.f1_score(*stats, reduction="micro")

    ways = {
        "spine_lib": lambda: dice(confusion(prediction, truth)),
        "smp": count_by_smp,
        "MONAI": lambda: compute_dice(*batch),
        "torchmetrics": lambda: binary_f1_score(*numbers),
    }
    return time_in_turn(ways, 5 * rounds)


def time_surfaces(rounds: int) -> dict[str, float]:
    """Time surface Dice at 2 mm and HD95 of a whole scan."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    from spine_lib.metrics import hd95, nsd, surface_distances

    prediction, truth, spacing = _masks()
    batch = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]

    def ours():
        distances = surface_distances(prediction, truth, spacing)
        return nsd(distances, 2.0), hd95(distances)

    def theirs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compute_surface_dice(*batch, class_thresholds=[2.0], spacing=spacing)
            compute_hausdorff_distance(*batch, percentile=95, spacing=spacing)

    return time_in_turn({"spine_lib": ours, "MONAI": theirs}, rounds)


# --- prediction -----------------------------------------------------------------------------------


def time_prediction(rounds: int) -> dict[str, float]:
    """Time the mask of the chest scan on its own grid, with the same network.

    The library predicts as `spine predict` does: near the spine. `MONAI SliceInferer` gets every
    slice, resampled by torch, once; `whole slices` is the library without the search.
    """
    from monai.inferers import SliceInferer

    from spine_lib.slices.augment import network_input
    from spine_lib.training.pretrained import load_pretrained
    from spine_lib.volumes import predict_volume

    (case,) = (case for case in sample_cases() if case.case_id == "chest")
    ct, (network, recipe) = case.load().ct, load_pretrained("unet_light")
    once = recipe.changed(flip=False)

    def monai(dtype):
        def infer():
            image = torch.from_numpy(network_input(ct.array.astype(np.float32)))[None, None]
            scale = [mm / recipe.spacing_mm for mm in ct.spacing_mm[:2]]
            size = [-(-round(n * f) // 32) * 32 for n, f in zip(ct.shape, scale)] + [ct.shape[2]]
            image = torch.nn.functional.interpolate(image, size, mode="trilinear")
            inferer = SliceInferer(roi_size=size[:2], sw_batch_size=16, spatial_dim=2)
            with torch.inference_mode(), torch.autocast("cpu", dtype, dtype is not None):
                logits = inferer(image, network)
            logits = torch.nn.functional.interpolate(logits.float(), ct.shape, mode="trilinear")
            return logits[0, 0].sigmoid().numpy()

        return infer

    ways = {
        "spine_lib": lambda: predict_volume(network, ct, once, "cpu", near_spine=True),
        "spine_lib, whole slices": lambda: predict_volume(network, ct, once, "cpu"),
        "MONAI SliceInferer, fp32": monai(None),
        "MONAI SliceInferer, bf16": monai(torch.bfloat16),
    }
    return time_in_turn(ways, rounds)


JOBS = {
    "load": time_loading,
    "slices": time_slices,
    "step": time_step,
    "counts": time_counts,
    "surfaces": time_surfaces,
    "frame": time_frame,
    "predict": time_prediction,
}


if __name__ == "__main__":
    sys.exit(main())
