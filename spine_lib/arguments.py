"""The arguments of the command `spine`; only the standard library is imported.

Each command names the function that runs it: by its own name in `spine_lib.commands`, or in
`spine_lib.developing` for those who work on the project.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from spine_lib import __version__

RECIPES = Path(__file__).parent / "training" / "recipes"
SCHEMES = ("canonical", "verse", "totalsegmentator", "pycad1089")
DEFAULT_RECIPE = "sample"
PUBLIC_SETS = ("pycad1089", "totalsegmentator", "rebuilt1089", "verse", "ctspine1k", "folder")
DATASETS = ("sample", "phantom", *PUBLIC_SETS)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of `spine` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="spine",
        description="Segment the spine in CT: fetch, look, check, train, compare with the paper.",
        epilog="`spine COMMAND --help` shows an example of each. "
        "`python -m spine_lib COMMAND` is the same and installs what is needed by itself.",
    )
    parser.add_argument("--version", action="version", version=f"spine_lib {__version__}")
    add = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for build in (
        _data_commands,
        _dataset_commands,
        _main_job,
        _compare,
        _ablate,
        _predict,
        _developer_commands,
        _handout,
    ):
        build(add)
    return parser


def _command(
    add,
    name: str,
    text: str,
    example: str,
    room: str = "commands",
    needs_packages: bool = True,
):
    parser = add.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(room=room, needs_packages=needs_packages)
    return parser


def _data_commands(add) -> None:
    fetch = _command(add, "fetch", "fetch the four real patients (once)", "spine fetch")
    fetch.add_argument("--root", type=Path, help="folder for them (default: data/sample)")

    info = _command(
        add,
        "info",
        "show the geometry and the values of a CT, or the labels of a mask",
        "spine info data/sample/chest/ct.nii.gz",
    )
    info.add_argument("path", type=Path, help=".nii, .nii.gz or the folder of a DICOM series")
    info.add_argument("--scheme", choices=SCHEMES, help="read the file as labels of this scheme")

    check = _command(
        add,
        "check",
        "look for errors in the annotation of a CT (exit code 1 if there are any)",
        "spine check ct.nii.gz mask.nii.gz --scheme verse",
    )
    check.add_argument("ct", type=Path)
    check.add_argument("mask", type=Path)
    check.add_argument("--scheme", choices=SCHEMES, default="canonical", help="of the mask's ids")

    phantom = _command(
        add,
        "phantom",
        "write synthetic CTs of the spine with exact labels",
        "spine phantom --seed 7 --count 3 --out phantoms",
    )
    phantom.add_argument("--seed", type=_whole, default=0, help="of the first one (default: 0)")
    phantom.add_argument("--count", type=_positive, default=1, help="how many (default: 1)")
    phantom.add_argument("--out", type=Path, required=True, help="folder to write into")
    phantom.add_argument("--shape", type=_positive, nargs=3, default=(160, 160, 240))
    phantom.add_argument("--spacing", type=float, default=2.0, help="mm (default: 2)")


def _public_set(command) -> None:
    command.add_argument(
        "--root", type=Path, metavar="DIR", help="folder that a public data set was unpacked into"
    )
    command.add_argument(
        "--workers", type=_positive, default=1, help="processes that slice its scans (1)"
    )


def _dataset_commands(add) -> None:
    listing = _command(
        add,
        "datasets",
        "list the public data sets: size, licence, where to get them, how to cite; or what lies "
        "in a folder",
        "spine datasets totalsegmentator --root Totalsegmentator_dataset_v201",
    )
    listing.add_argument("name", nargs="?", choices=PUBLIC_SETS)
    listing.add_argument("--root", type=Path, metavar="DIR", help="folder to look into")
    listing.add_argument("--split", type=Path, metavar="FILE", help="write the split as a CSV file")

    prepare = _command(
        add,
        "prepare",
        "cut a data set into slices, several scans at once; called again, it goes on where it was "
        "stopped",
        "spine prepare --dataset pycad1089 --root spine1089 --recipe paper --workers 8",
    )
    prepare.add_argument("--dataset", choices=DATASETS, help="instead of the recipe's")
    _public_set(prepare)
    prepare.add_argument("--recipe", default="paper", help="as for reproduce (%(default)s)")
    prepare.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="of a Dask cluster whose workers see the same folders, instead of --workers",
    )


def _main_job(add) -> None:
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    job = _command(
        add,
        "reproduce",
        "train both of the paper's models and print our table beside the paper's; called again, it "
        "goes on where it was stopped",
        "spine reproduce --seeds 0 1 2 --name three-seeds",
    )
    job.add_argument(
        "--recipe", default=DEFAULT_RECIPE, help=f"a YAML file, or one of: {names} (%(default)s)"
    )
    job.add_argument(
        "--name", type=_run_name, help="of the folder in runs/ (default: the recipe's name)"
    )
    job.add_argument("--seeds", type=_whole, nargs="+", default=[0], help="one run for each")
    job.add_argument("--dataset", choices=DATASETS, help="instead of the recipe's")
    _public_set(job)
    job.add_argument(
        "--at-once",
        type=_positive,
        default=2,
        help="trainings beside each other on a CPU, about 2 GB each (2)",
    )
    _processes(job)


def _processes(job) -> None:
    job.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    job.add_argument(
        "--devices",
        type=_positive,
        default=1,
        help="processes that share each training, on GPUs one for each (1)",
    )
    job.add_argument(
        "--nodes", type=_positive, default=1, help="machines, each with so many devices (1)"
    )
    job.add_argument(
        "--strategy", default="auto", help="of Lightning, for several devices (auto: ddp)"
    )


def _compare(add) -> None:
    compare = _command(
        add,
        "compare",
        "set two finished runs side by side: recipes, scores, differences by patient",
        "spine compare sample three-seeds --out comparison.html",
    )
    compare.add_argument("runs", nargs=2, metavar="RUN", help="a folder, or its name in runs/")
    compare.add_argument("--out", type=Path, metavar="FILE", help=".json or .html to write as well")


def _ablate(add) -> None:
    ablate = _command(
        add,
        "ablate",
        "change one setting and measure what it brings: split, plane, loss, weights, phantoms, "
        "neighbours, or all; without a name, list them",
        "spine ablate loss --seeds 0 1 2",
    )
    ablate.add_argument("ablation", nargs="?", metavar="NAME", help="one of these, or all")
    ablate.add_argument(
        "--recipe", default="ablation", help="what is changed: as for reproduce (%(default)s)"
    )
    ablate.add_argument("--model", help="network instead of the recipe's: unet_resnet34, ...")
    ablate.add_argument(
        "--seeds", type=_whole, nargs="+", default=[0, 1, 2], help="one run for each (0 1 2)"
    )
    ablate.add_argument(
        "--name",
        type=_run_name,
        default="ablations",
        help="of the folder in runs/ that all ablations share (%(default)s)",
    )
    ablate.add_argument(
        "--dataset",
        choices=DATASETS,
        help="instead of the recipe's; of a public one the validation part is scored, never the "
        "test part",
    )
    _public_set(ablate)
    ablate.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    ablate.add_argument(
        "--at-once", type=_positive, default=2, help="trainings beside each other on a CPU (2)"
    )
    ablate.add_argument(
        "--keep", action="store_true", help="for developers: keep the numbers in benchmarks/"
    )


def _predict(add) -> None:
    predict = _command(
        add,
        "predict",
        "segment a CT and write the mask on its own grid: 1 is spine, or by a network that names "
        "regions 1 is cervical, 2 thoracic, 3 lumbar, 4 sacral",
        "spine predict ct.nii.gz --out mask.nii.gz "
        "--checkpoint runs/sample/unet_resnet34/seed-0/weights.safetensors",
    )
    predict.add_argument("ct", type=Path, help=".nii, .nii.gz or the folder of a DICOM series")
    model = predict.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", type=Path, help="weights.safetensors or last.ckpt of a run")
    model.add_argument("--pretrained", help="a model that comes with the library: unet_light, ...")
    predict.add_argument("--out", type=Path, required=True, help=".nii or .nii.gz to write")
    predict.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")


def _developer_commands(add) -> None:
    test = _command(
        add,
        "test",
        "run the test suite; further arguments go to pytest",
        "spine test --fast -k metrics",
        room="developing",
    )
    test.add_argument("--fast", action="store_true", help="leave out what takes long")
    notebooks = _command(
        add,
        "notebooks",
        "make the notebooks from their sources: run every cell, keep what it shows",
        "spine notebooks 03",
        room="developing",
    )
    notebooks.add_argument("numbers", nargs="*", metavar="NN", help="lessons (default: all)")
    notebooks.add_argument(
        "--fast", action="store_true", help="try the fast profile of the tests; writes nothing"
    )
    notebooks.add_argument(
        "--check", action="store_true", help="run nothing, say which do not fit their source"
    )
    results = _command(
        add,
        "lesson-results",
        "run the long measurements of the lessons and keep their numbers",
        "spine lesson-results --seeds 3",
        room="developing",
    )
    results.add_argument("names", nargs="*", metavar="NAME", help="measurements (default: all)")
    results.add_argument(
        "--seeds", type=_positive, help="how many, from 0 (default: those of the measurement)"
    )
    results.add_argument("--fast", action="store_true", help="try the small version; keeps nothing")
    _command(add, "lab", "open the notebooks in JupyterLab", "spine lab", room="developing")
    site = _command(
        add,
        "site",
        "make the course as pages that need no Python: lessons, sliders, reference",
        "spine site",
        room="developing",
    )
    site.add_argument("numbers", nargs="*", metavar="NN", help="lessons (default: all)")
    site.add_argument("--out", type=Path, help="folder for it (default: docs/_build)")
    setup = _command(
        add,
        "setup",
        "install what is needed and say what is there",
        "spine setup",
        room="developing",
    )
    setup.add_argument("--again", action="store_true", help="install even if nothing has changed")
    _command(add, "lint", "check the style of the code with ruff", "spine lint", room="developing")
    _command(
        add,
        "clean",
        "remove caches; keeps data, runs and .venv",
        "spine clean",
        room="developing",
        needs_packages=False,
    )


def _handout(add) -> None:
    handout = _command(
        add,
        "handout",
        "for instructors: write the students' copy, the solutions and a course for nbgrader",
        "spine handout ../autumn-course",
        room="developing",
    )
    handout.add_argument("folder", type=Path, metavar="DIR", help="a new folder for the three")
    handout.add_argument(
        "numbers", nargs="*", metavar="NN", help="lessons of solutions and nbgrader (default: all)"
    )
    handout.add_argument(
        "--run", action="store_true", help="run the solved lessons too, half a minute or more each"
    )


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not _whole(text):
        raise argparse.ArgumentTypeError("'0' is too few: give 1 or more")
    return int(text)


def _run_name(text: str) -> str:
    if text == "latest" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' cannot name a run: use letters, digits, dots, dashes (and not 'latest')"
        )
    return text
