"""What each command of `spine` does: thin lines over the library.

Each function takes the parsed options and returns an exit code or None. Imports stand inside, so
that a command loads only what it uses.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from spine_lib import browser
from spine_lib.errors import SpineError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_OPTIONS = (
    "--nbval-lax",  # compares only the cells that are marked for it
    "--nbval-current-env",
    "--nbval-sanitize-with=tests/nbval.cfg",
    "--nbval-cell-timeout=150",
)


def fetch(options: Namespace) -> None:
    """Fetch the built-in real CTs and list them."""
    from spine_lib.datasets.sample import fetch_sample, sample_cases

    root = fetch_sample(options.root)
    print(f"The built-in data is in {root}")
    for case in sample_cases(root):
        print(f"  {case.case_id:8} {case.split:5} {case.covers}; {case.licence}")


def info(options: Namespace) -> None:
    """Print what a CT or a label map holds."""
    from spine_lib.ct import load_ct, load_mask

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        volume = load_mask(options.path) if options.scheme else load_ct(options.path)
    # HU of a body reach far below 0 (air); a file without a negative value is a label map.
    if volume.array.min() >= 0:
        rows = _mask_rows(load_mask(options.path), options.scheme)
    else:
        rows = _ct_rows(volume)
        for note in notes:
            warnings.warn_explicit(note.message, note.category, note.filename, note.lineno)
    for name, text in rows:
        print(f"{name:12} {text}")


def _geometry_rows(volume) -> Iterable[tuple[str, str]]:
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing_mm)
    extent = " x ".join(
        f"{n * mm:.0f}" for n, mm in zip(volume.shape, volume.spacing_mm, strict=True)
    )
    yield "file", str(volume.path)
    yield "shape", f"{shape} voxels (x, y, z: to the right, to the front, to the head)"
    yield "spacing", f"{spacing} mm"
    yield "extent", f"{extent} mm"
    if volume.source is not None:
        yield "orientation", f"stored as {volume.source.orientation}, read as RAS"


def _ct_rows(ct) -> Iterable[tuple[str, str]]:
    import numpy as np

    from spine_lib.ct import WINDOWS

    yield from _geometry_rows(ct)
    hu = ct.array
    low, middle, high = np.percentile(hu[::2, ::2, ::2], (1, 50, 99))
    yield "intensities", f"{hu.min()} to {hu.max()} HU ({hu.dtype}, {hu.nbytes / 2**20:.0f} MiB)"
    yield "percentiles", f"1 %: {low:.0f} HU, 50 %: {middle:.0f} HU, 99 %: {high:.0f} HU"
    if padding := int((hu < -1024).sum()):
        yield "padding", f"{100 * padding / hu.size:.1f} % of the voxels lie below -1024 HU"
    for name, (centre, width) in WINDOWS.items():
        share = float(((hu > centre - width / 2) & (hu < centre + width / 2)).mean())
        yield (
            "window",
            f"{name}: centre {centre:g} HU, width {width:g} HU; "
            f"{100 * share:.0f} % of the voxels lie inside",
        )


def _mask_rows(mask, scheme: str | None) -> Iterable[tuple[str, str]]:
    import numpy as np

    from spine_lib.annotations import SCHEMES

    yield from _geometry_rows(mask)
    ids, counts = np.unique(mask.array, return_counts=True)
    names = SCHEMES[scheme].names if scheme else {}
    millilitres = float(np.prod(mask.spacing_mm)) / 1000
    share = 100 * counts[ids != 0].sum() / mask.array.size
    yield "labels", f"{np.count_nonzero(ids)} besides background, {share:.2f} % of the voxels"
    if not scheme:
        yield "names", "add --scheme to name them (and to be told what does not fit)"
    for label, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if label:
            name = names.get(label, "not in this scheme" if scheme else "")
            yield f"  {label}", f"{count * millilitres:9.2f} ml  {name}".rstrip()


def check(options: Namespace) -> int:
    """Print the findings on an annotation; 1 if any of them is an error."""
    from spine_lib.annotations import check_annotation
    from spine_lib.ct import load_ct, load_mask

    findings = check_annotation(load_ct(options.ct), load_mask(options.mask), options.scheme)
    for finding in findings:
        print(f"{finding.severity}: {finding.message} [{finding.code}]")
    counts = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in ("error", "warning", "note")
    }
    print(", ".join(f"{severity}s: {count}" for severity, count in counts.items()))
    return 1 if counts["error"] else 0


def phantom(options: Namespace) -> None:
    """Write phantoms as pairs of NIfTI files."""
    from spine_lib.ct import save_nifti
    from spine_lib.datasets.phantom import make_phantom

    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seed, options.seed + options.count):
        case = make_phantom(seed, shape=tuple(options.shape), spacing_mm=options.spacing)
        for what, volume in (("ct", case.ct), ("labels", case.labels)):
            print(save_nifti(volume, options.out / f"phantom-{seed:04d}_{what}.nii.gz"))


def reproduce(options: Namespace) -> None:
    """Run the main job; it prints its own table and where the report lies."""
    from spine_lib.processes import Processes
    from spine_lib.reproduce import reproduce as run

    run(
        options.recipe,
        name=options.name,
        seeds=tuple(options.seeds),
        dataset=options.dataset,
        device=options.device,
        at_once=options.at_once,
        processes=Processes(options.devices, options.nodes, options.strategy),
        data_root=options.root,
        workers=options.workers,
    )


def compare(options: Namespace) -> None:
    """Print two runs side by side; write the comparison where that is asked for."""
    from spine_lib import compare_runs

    found = compare_runs.compare_runs(*(compare_runs.load_run(name) for name in options.runs))
    print(compare_runs.comparison_text(found))
    if options.out is not None:
        print(compare_runs.save_comparison(found, options.out))


def datasets(options: Namespace) -> None:
    """List the public data sets; with a name and a root, say what lies there."""
    from spine_lib.datasets.catalogue import catalogue_text, find_cases
    from spine_lib.datasets.totalsegmentator import rebuild_1089
    from spine_lib.nifti import atomic_file

    if options.name is None:
        print(catalogue_text())
        return
    if options.root is None:
        raise SpineError(f"spine datasets {options.name}: name its folder with --root")
    found = find_cases(options.name, options.root)
    for part in ("train", "validation", "test"):
        print(f"{part}: {sum(case.split == part for case in found.cases)} scans")
    print(f"split: {found.split_note}")
    for item in found.left_out:
        print(f"left out: {item}")
    if options.name == "totalsegmentator":
        print(f"the public 1089, rebuilt: {rebuild_1089(options.root)}")
    if options.split:
        rows = [f"{case.case_id},{case.patient_id},{case.split}" for case in found.cases]
        text = "\n".join(["case_id,patient_id,split", *rows]) + "\n"
        with atomic_file(options.split) as stream:
            stream.write(text.encode())
        print(options.split)


def prepare(options: Namespace) -> None:
    """Cut the scans of a data set into slices, as `reproduce` will ask for them."""
    from spine_lib.recipe import load_recipe
    from spine_lib.sources import gather, prepare

    recipe = load_recipe(options.recipe)
    recipe = recipe.changed(dataset=options.dataset or recipe.dataset)
    sources = gather(recipe, options.root)
    for part in ("train", "validation"):
        made = prepare(
            sources.parts[part], recipe, workers=options.workers, scheduler=options.scheduler
        )
        print(f"{part}: {len(made.store.volumes)} volumes in {made.store.folder}")
        for item in made.left_out:
            print(f"left out: {item}")


def predict(options: Namespace) -> None:
    """Segment one CT with a checkpoint or a model that comes with the library."""
    from spine_lib.volumes import predict_file

    checkpoint = options.checkpoint
    if options.pretrained is not None:
        from spine_lib.pretrained import weights_path

        checkpoint = weights_path(options.pretrained)
    written = predict_file(options.ct, options.out, checkpoint, options.device)
    print(f"The mask is in {written}")


# --- for those who work on the project ------------------------------------------------------------


def test(options: Namespace) -> int:
    """Run pytest on the project, in as many processes as there are cores (up to four).

    The whole suite runs every notebook too, each from top to bottom in the fast profile.
    """
    _require_source_tree("the tests")
    workers = min(_cores(), 4)
    command = [sys.executable, "-m", "pytest"]
    if options.fast:
        command += ["-m", "not slow and not browser"]
    elif not any(_is_path(argument) for argument in options.rest):
        browser.ensure_browser()
        command += [*NOTEBOOK_OPTIONS, "tests", "notebooks"]
    if workers > 1 and not any(argument.startswith(("-n", "--pdb")) for argument in options.rest):
        # One file stays in one process: what its tests share is made once.
        command += ["-n", str(workers), "--dist", "loadfile"]
    return _in_project([*command, *options.rest], OMP_NUM_THREADS=str(max(1, _cores() // workers)))


def _is_path(argument: str) -> bool:
    return not argument.startswith("-") and (ROOT / argument.split("::")[0]).exists()


def notebooks(options: Namespace) -> int:
    """Make the notebooks from their sources, or say which do not fit them."""
    _require_source_tree("the notebooks")
    from spine_lib.course import notebook_series

    folder = ROOT / "notebooks"
    if options.check:
        problems = notebook_series.check_series(folder, options.numbers)
    else:
        problems = notebook_series.make_series(folder, options.numbers, options.fast)
    for problem in problems:
        print(problem)
    return int(bool(problems))


def lesson_results(options: Namespace) -> None:
    """Run the long measurements of the lessons and keep what they give."""
    from spine_lib.course import results

    experiments = [results.load_experiment(n) for n in options.names or results.experiment_names()]
    for experiment in experiments:
        seeds = range(options.seeds) if options.seeds else experiment.SEEDS
        result = results.run_experiment(experiment, list(seeds), options.fast)
        if not options.fast:
            print(f"{experiment.NAME}: {result['seconds']:.0f} s, {results.keep_result(result)}")


def handout(options: Namespace) -> None:
    """Write what an instructor hands out and keeps."""
    _require_source_tree("the lessons")
    from spine_lib.course.handout import write_releases

    write_releases(ROOT, options.folder, options.numbers, options.run)


def lab(options: Namespace) -> int:
    """Open JupyterLab on the notebooks."""
    _require_source_tree("the notebooks")
    notebooks = ROOT / "notebooks"
    folder = notebooks if notebooks.is_dir() else ROOT
    return _in_project([sys.executable, "-m", "jupyterlab", str(folder)])


def site(options: Namespace) -> None:
    """Make the site of the course and say where it lies."""
    _require_source_tree("the lessons")
    from spine_lib.book import build_site

    build_site(out=options.out, numbers=options.numbers)


def lint(options: Namespace) -> int:
    """Check the code's style."""
    _require_source_tree("the code")
    check_code = _in_project([sys.executable, "-m", "ruff", "check", "."])
    return check_code or _in_project([sys.executable, "-m", "ruff", "format", "--check", "."])


def setup(options: Namespace) -> None:
    """Say what the environment holds (installing is done before any command)."""
    import torch

    from spine_lib import __version__
    from spine_lib.datasets.sample import sample_root

    print(f"Python       {platform.python_version()} in {sys.prefix}")
    print(f"spine_lib    {__version__}")
    print(f"PyTorch      {torch.__version__}")
    print(f"device       {_device(torch)}")
    print(f"cores        {_cores()}")
    there = "there" if sample_root().is_dir() else "not fetched yet (spine fetch)"
    print(f"sample data  {sample_root()}: {there}")


def _device(torch) -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "CPU (Apple's GPU is not supported yet)" if torch.backends.mps.is_available() else "CPU"


def clean(options: Namespace) -> None:
    """Remove what tools leave behind; never data, runs or the environment."""
    _require_source_tree("the caches")
    names = [".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist", "test-artefacts"]
    names += ["docs/_build"]
    folders = [ROOT / name for name in names]
    for parent in ("spine_lib", "tests", "benchmarks", "notebooks"):
        folders += (ROOT / parent).rglob("__pycache__")
        folders += (ROOT / parent).rglob(".ipynb_checkpoints")
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _cores() -> int:
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_source_tree(what: str) -> None:
    if not (ROOT / "pyproject.toml").is_file():
        raise SpineError(
            f"{what} are not in {ROOT}: this copy of the library was installed without its "
            "source tree; clone the project and run the command there."
        )


def _in_project(command: list[str], **environment: str) -> int:
    environment = {"NO_ALBUMENTATIONS_UPDATE": "1", **os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
