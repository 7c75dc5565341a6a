"""The command `spine`: fetch, look, check, train, compare with the paper, segment.

What a command needs is imported inside it, so that `spine --help` answers at once.
"""

import errno
import filecmp
import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup

from spine_lib import SpineError, __version__

Scheme = Literal["canonical", "verse", "totalsegmentator", "totalsegmentator_v1", "pycad1089"]
PublicSet = Literal["pycad1089", "totalsegmentator", "rebuilt1089", "verse", "ctspine1k", "folder"]
Dataset = Literal[Literal["sample", "phantom", "more"], PublicSet]
MoreSet = Literal["ctspine1k-3", "pycad-8", "totalsegmentator-small", "holdout218"]
Device = Literal["auto", "cpu", "cuda", "gpu", "mps"]
SeriesOption = Annotated[str | None, Option(help="a DICOM series: number, description or UID")]
CtArgument = Annotated[Path, Argument(help=".nii, .nii.gz or the folder of a DICOM series")]
OverwriteOption = Annotated[bool, Option("--overwrite", help="replace a file that exists")]


class _SpineGroup(TyperGroup):
    """The commands; an error that the user can put right ends in one sentence and an exit code."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            message, code = explain(error)
            if message is None or os.environ.get("SPINE_DEBUG") == "1":
                raise
            if message:
                print(f"spine: {message}", file=sys.stderr)
            raise typer.Exit(code) from error


class _SeveralSeeds(TyperCommand):
    """A command whose `--seeds` takes several values: `--seeds 0 1 2`."""

    def parse_args(self, ctx, args):
        repeated, after_seeds = [], False
        for argument in args:
            if after_seeds and argument.isdecimal() and repeated[-1] != "--seeds":
                repeated.append("--seeds")
            elif not argument.isdecimal():
                after_seeds = argument == "--seeds"
            repeated.append(argument)
        return super().parse_args(ctx, repeated)


app = typer.Typer(
    cls=_SpineGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`spine COMMAND --help` shows an example of each.",
)


def _command(example: str, cls: type[TyperCommand] = TyperCommand):
    return app.command(epilog=f"\b\nExample:\n  {example}", cls=cls)


def main(argv: list[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    0 is success, 1 findings of `spine check` or a bug, 2 an error told in one sentence, 130 Ctrl-C,
    143 SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # consoles that cannot show a character (Windows)
    warnings.formatwarning = _plain_warning
    signal.signal(signal.SIGTERM, _raise_terminated)
    app(args=argv, prog_name="spine")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a command as Ctrl-C does."""


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated


def explain(error: BaseException) -> tuple[str | None, int]:
    """Return the sentence ("" for none, None for a bug) and the exit code for an error."""
    if isinstance(error, KeyboardInterrupt):
        name, code = ("SIGTERM", 143) if isinstance(error, Terminated) else ("Ctrl-C", 130)
        return f"stopped by {name}; the same command again goes on where training was.", code
    if isinstance(error, SpineError):
        return str(error), 2
    if isinstance(error, BrokenPipeError):
        # The reader (`head`, say) has enough; Python must not flush into the pipe at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 141
    if isinstance(error, OSError) and (error.filename or "temporary" in str(error)):
        from spine_lib.ct.files import os_reason

        file = os.fsdecode(error.filename or "what the command needs")
        return f"{file} cannot be used, {os_reason(error)}", 2
    if (where := _full_disk(error)) is not None:
        return f"the disk is full{where}: free some space, then run the same command again.", 2
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # NumPy; torch
        return f"memory ran out ({' '.join(str(error).split())}): close other programs.", 2
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("spine_lib"):
        advice = "run `pip install -e .` in the project's folder"
        return f"the package {error.name} is not installed in {sys.prefix}: {advice}.", 2
    return None, 1


def _full_disk(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f" at {error.filename}" if error.filename else ""
        if "No space left on device" in str(error):  # torch reports it in errors of its own
            return ""
        error = error.__cause__ or error.__context__
    return None


def _plain_warning(message, category, filename, lineno, line=None) -> str:
    if Path(filename).is_relative_to(Path(__file__).parent) and category is UserWarning:
        return f"spine: note: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


@app.callback(invoke_without_command=True)
def _spine(
    context: typer.Context,
    version: Annotated[bool, Option("--version", help="Show the version.")] = False,
) -> None:
    """Segment the spine in CT: fetch, look, check, train, compare with the paper."""
    if version:
        print(f"spine_lib {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


# --- data -----------------------------------------------------------------------------------------


@_command("spine fetch")
def fetch(
    root: Annotated[Path | None, Option(help="folder for it (default: in data/)")] = None,
    more: Annotated[MoreSet | None, Option(help="a public data set instead")] = None,
    subjects: Annotated[str, Option(help="only these of its subjects: s0011,s0058")] = "",
    accept_licence: Annotated[bool, Option("--accept-licence", help="non-commercial ones")] = False,
) -> None:
    """Fetch the five real patients (once), or more public data by name."""
    from spine_lib.datasets.more import fetch_more, more_sets
    from spine_lib.datasets.sample import fetch_sample, sample_cases

    if more is not None:
        folder = fetch_more(more, root, [s for s in subjects.split(",") if s], accept_licence)
        print(f"{more} is in {folder}")
        if reader := more_sets()[more].dataset:
            print(f"Next: spine datasets {reader} --root {folder}")
        return
    root = fetch_sample(root)
    print(f"The built-in data is in {root}")
    for case in sample_cases(root):
        print(f"  {case.case_id:8} {case.split:5} {case.covers}; {case.licence}")


@_command("spine datasets totalsegmentator --root Totalsegmentator_dataset_v201")
def datasets(
    name: Annotated[PublicSet | None, Argument()] = None,
    root: Annotated[Path | None, Option(help="folder to look into")] = None,
    split: Annotated[Path | None, Option(help="CSV file to write the split into")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """List the public data sets (size, licence, source, citation), or what lies in a folder."""
    from spine_lib.ct.files import check_output
    from spine_lib.datasets.case import write_split
    from spine_lib.datasets.public import catalogue_text, find_cases

    if name is None:
        print(catalogue_text())
        return
    if root is None:
        raise SpineError(f"spine datasets {name}: name its folder with --root")
    if split is not None:
        check_output(split, [root], overwrite, (".csv",))
    cohort = find_cases(name, root)
    cases_by_part = {part: [] for part in ("train", "validation", "test")}
    for case in cohort.cases:
        cases_by_part.setdefault(case.split, []).append(case)
    for part, cases in cases_by_part.items():
        print(f"{part}: {len(cases)} scans")
    print(f"split: {cohort.split_note}")
    for item in cohort.excluded:
        print(f"left out: {item}")
    for fault in cohort.faults:
        print(f"known fault: {fault}")
    if name == "totalsegmentator":
        print(f"split of --dataset rebuilt1089: {find_cases('rebuilt1089', root).split_note}")
    if split is not None:
        print(write_split(cases_by_part, split))


@_command("spine info data/sample/chest/ct.nii.gz")
def info(
    path: CtArgument,
    scheme: Annotated[Scheme | None, Option(help="read the file as labels of this scheme")] = None,
    series: SeriesOption = None,
    kind: Annotated[Literal["ct", "mask"] | None, Option("--as", help="what the file is")] = None,
) -> None:
    """Show the geometry and the values of a CT, or the labels of a mask."""
    from spine_lib.ct.volume import load_ct, load_either, load_mask

    kind = kind or ("mask" if scheme else None)
    if kind is None:
        volume, kind, reason = load_either(path, series)
        reason += f"; --as {'mask' if kind == 'ct' else 'ct'} if it is one"
    else:
        reason = "as asked for"
        volume = load_mask(path) if kind == "mask" else load_ct(path, series)
    print(f"{'kind':12} {'CT' if kind == 'ct' else 'mask'} ({reason})")
    for name, text in _ct_rows(volume) if kind == "ct" else _mask_rows(volume, scheme):
        print(f"{name:12} {text}")


def _geometry_rows(volume) -> Iterable[tuple[str, str]]:
    shape = " x ".join(str(n) for n in volume.shape)
    extent = " x ".join(f"{n * mm:.0f}" for n, mm in zip(volume.shape, volume.spacing_mm))
    yield "file", str(volume.path)
    yield "shape", f"{shape} voxels (x, y, z: to the right, to the front, to the head)"
    yield "spacing", " x ".join(f"{mm:.3g}" for mm in volume.spacing_mm) + " mm"
    yield "extent", f"{extent} mm"
    if volume.source is not None:
        yield "orientation", f"stored as {volume.source.orientation}, read as RAS"


def _counts(array) -> tuple:
    """Return the values of whole numbers and how often each is there, plane by plane (memory)."""
    import numpy as np

    low, high = int(array.min()), int(array.max())
    planes = (plane.ravel().astype(np.int64) - low for plane in np.moveaxis(array, 2, 0))
    counts = sum(np.bincount(plane, minlength=high - low + 1) for plane in planes)
    return low + np.flatnonzero(counts), counts[counts > 0]


def _ct_rows(ct) -> Iterable[tuple[str, str]]:
    import numpy as np

    from spine_lib.ct.volume import WINDOWS

    yield from _geometry_rows(ct)
    hu, counts = _counts(ct.array)
    size = ct.array.size
    low, middle, high = hu[np.searchsorted(counts.cumsum() / size, (0.01, 0.5, 0.99))]
    memory = f"{ct.array.dtype}, {ct.array.nbytes / 2**20:.0f} MiB"
    yield "intensities", f"{hu[0]} to {hu[-1]} HU ({memory})"
    yield "percentiles", f"1 %: {low} HU, 50 %: {middle} HU, 99 %: {high} HU"
    if padding := counts[hu < -1024].sum():
        yield "padding", f"{100 * padding / size:.1f} % of the voxels lie below -1024 HU"
    for name, (centre, width) in WINDOWS.items():
        low, high = centre - width / 2, centre + width / 2
        share = 100 * counts[(hu > low) & (hu < high)].sum() / size
        limits = f"centre {centre:g} HU, width {width:g} HU"
        yield "window", f"{name}: {limits}; {share:.0f} % of the voxels lie inside"


def _mask_rows(mask, scheme: str | None) -> Iterable[tuple[str, str]]:
    import numpy as np

    from spine_lib.annotations.schemes import SCHEMES

    yield from _geometry_rows(mask)
    ids, counts = _counts(mask.array)
    names = SCHEMES[scheme].names if scheme else {}
    millilitres = float(np.prod(mask.spacing_mm)) / 1000
    share = 100 * counts[ids != 0].sum() / mask.array.size
    yield "labels", f"{np.count_nonzero(ids)} besides background, {share:.2f} % of the voxels"
    if not scheme:
        yield "names", "add --scheme to name them (and to be told what does not fit)"
    for label, count in zip(ids.tolist(), counts.tolist()):
        if label:
            name = names.get(label, "not in this scheme" if scheme else "")
            yield f"  {label}", f"{count * millilitres:9.2f} ml  {name}".rstrip()


@_command("spine check ct.nii.gz mask.nii.gz --scheme verse")
def check(
    ct: Path,
    mask: Path,
    scheme: Annotated[Scheme, Option(help="of the mask's ids")] = "canonical",
    series: SeriesOption = None,
) -> None:
    """Look for errors in the annotation of a CT (exit code 1 if there are any)."""
    from spine_lib.annotations.checks import check_annotation
    from spine_lib.ct.volume import load_ct, load_mask

    if ct.is_file() and mask.is_file() and filecmp.cmp(ct, mask, shallow=False):
        raise SpineError(f"{ct} and {mask} are the same file: name the scan, then its mask.")
    findings = check_annotation(load_ct(ct, series), load_mask(mask), scheme)
    for finding in findings:
        print(f"{finding.severity}: {finding.message} [{finding.code}]")
    severities = [finding.severity for finding in findings]
    print(", ".join(f"{name}s: {severities.count(name)}" for name in ("error", "warning", "note")))
    if "error" in severities:
        raise typer.Exit(1)


@_command("spine view ct.nii.gz mask.nii.gz")
def view(
    ct: CtArgument,
    mask: Annotated[Path | None, Argument(help="labels or spine to draw over it")] = None,
    prediction: Annotated[Path | None, Argument(help="to compare with the mask")] = None,
    scheme: Annotated[Scheme, Option(help="of the mask's ids")] = "canonical",
    series: SeriesOption = None,
    out: Annotated[Path | None, Option(help=".html file to write (a temporary one)")] = None,
    overwrite: OverwriteOption = False,
    browser: Annotated[bool, Option(help="open the page in the browser")] = True,
) -> None:
    """Look at a CT, its mask and a prediction, as a page in the browser."""
    import tempfile
    import webbrowser

    from spine_lib.annotations.schemes import to_canonical
    from spine_lib.ct.files import check_output
    from spine_lib.ct.volume import load_ct, load_mask
    from spine_lib.explore import SliceViewer

    out = out or Path(tempfile.mkdtemp(prefix="spine-view-")) / "view.html"
    check_output(out, [ct, mask, prediction], overwrite, (".html",))
    labels = None if mask is None else load_mask(mask)
    if labels is not None and scheme != "canonical":
        labels = labels.with_array(to_canonical(labels.array, scheme))
    path = SliceViewer(load_ct(ct, series), labels, prediction).save_html(out).resolve()
    print(f"The page is in {path}")
    if browser:
        webbrowser.open(path.as_uri())


@_command("spine phantom --seed 7 --count 3 --out phantoms")
def phantom(
    out: Annotated[Path, Option(help="folder to write into")],
    seed: Annotated[int, Option(min=0, help="of the first one")] = 0,
    count: Annotated[int, Option(min=1, help="how many")] = 1,
    shape: Annotated[tuple[int, int, int], Option(min=1, help="voxels")] = (160, 160, 240),
    spacing: Annotated[float, Option(min=0.1, max=100, help="mm")] = 2.0,
    overwrite: OverwriteOption = False,
) -> None:
    """Write synthetic CTs of the spine with exact labels."""
    from spine_lib.ct.files import check_output
    from spine_lib.ct.volume import save_nifti
    from spine_lib.datasets.phantom import make_phantom

    files = {
        number: [out / f"phantom-{number:04d}_{kind}.nii.gz" for kind in ("ct", "labels")]
        for number in range(seed, seed + count)
    }
    for file in (file for pair in files.values() for file in pair):
        check_output(file, overwrite=overwrite, size=count * math.prod(shape))
    for number, pair in files.items():
        case = make_phantom(number, shape=shape, spacing_mm=spacing)
        for file, volume in zip(pair, (case.ct, case.labels)):
            print(save_nifti(volume, file))


# --- training and its results ---------------------------------------------------------------------

DatasetOption = Annotated[Dataset | None, Option(help="instead of the recipe's")]
RootOption = Annotated[Path | None, Option(help="folder of a public data set, unpacked")]
WorkersOption = Annotated[int, Option(min=1, help="processes that slice its scans")]
DeviceOption = Annotated[Device, Option(help="to compute on")]
NameOption = Annotated[str | None, Option(help="of the folder in runs/")]
SchedulerOption = Annotated[str, Option(help="address of a Dask cluster, instead of --workers")]
RecipeOption = Annotated[str, Option(help="a YAML file, or a name of spine_lib/training/recipes")]
SeedsOption = Annotated[
    list[int] | None, Option(min=0, max=2**32 - 1, metavar="N ...", help="one run each")
]


@_command("spine prepare --dataset pycad1089 --root spine1089 --recipe paper --workers 8")
def prepare(
    dataset: DatasetOption = None,
    root: RootOption = None,
    workers: WorkersOption = 1,
    recipe: RecipeOption = "paper",
    scheduler: SchedulerOption = "",
) -> None:
    """Cut a data set into slices, several scans at once; called again, it goes on."""
    from spine_lib.reproduce import sources
    from spine_lib.training.recipe import load_recipe

    settings = load_recipe(recipe)
    settings = settings.changed(dataset=dataset or settings.dataset)
    options = {"workers": workers, "scheduler": scheduler}
    options["skip_broken"] = settings.dataset not in sources.BUILT_IN
    parts = sources.gather(settings, root, needed=("train", "validation")).parts
    for part in ("train", "validation"):
        store = sources.prepare(parts[part], settings.planes, settings.spacing_mm, **options)
        print(f"{part}: {len(store.volumes)} volumes in {store.folder}")
        for item in store.left_out:
            print(f"left out: {item}")


@_command("spine reproduce --seeds 0 1 2 --name three-seeds", cls=_SeveralSeeds)
def reproduce(
    recipe: RecipeOption = "sample",
    name: NameOption = None,
    seeds: SeedsOption = None,
    dataset: DatasetOption = None,
    root: RootOption = None,
    workers: WorkersOption = 1,
    at_once: Annotated[int, Option(min=1, help="trainings in parallel on a CPU, 2 GB each")] = 2,
    device: DeviceOption = "auto",
    devices: Annotated[int, Option(min=1, help="processes a training, on GPUs one each")] = 1,
    nodes: Annotated[int, Option(min=1, help="machines, each with so many devices")] = 1,
    strategy: Annotated[str, Option(help="of Lightning, for several devices")] = "auto",
    test: Annotated[Dataset | None, Option(help="train nothing, test on this set")] = None,
    checkpoint: Annotated[
        list[str] | None, Option(help="for --test: weights.safetensors, or a shipped model's name")
    ] = None,
) -> None:
    """Train both of the paper's models and print our table beside the paper's.

    Called again, it goes on where it was stopped. With --test, score trained weights (of the run
    --name, or --checkpoint) on another data set, into runs/NAME-on-SET.
    """
    from spine_lib.reproduce import reproduce as run
    from spine_lib.training.devices import Processes

    if test is not None:
        return _test(test, name, checkpoint or [], root, device)
    if checkpoint:
        raise typer.BadParameter("--checkpoint is for --test")
    run(
        recipe,
        name=name,
        seeds=tuple(seeds) if seeds else None,
        dataset=dataset,
        device=device,
        at_once=at_once,
        processes=Processes(devices, nodes, strategy),
        data_root=root,
        workers=workers,
    )


def _test(
    dataset: str, name: str | None, checkpoints: list[str], root: Path | None, device: str
) -> None:
    from spine_lib.reproduce.run import evaluate_on
    from spine_lib.training.pretrained import PRETRAINED, weights_path

    runs = Path("runs")
    weights = [weights_path(c) if c in PRETRAINED else Path(c) for c in checkpoints]
    if not weights:
        name = name or "sample"
        weights = sorted((runs / name).glob("*/seed-*/weights.safetensors"))
    if not weights:
        raise SpineError(f"runs/{name} holds no trained weights: name a run, or give --checkpoint.")
    evaluate_on(dataset, weights, runs / f"{name or weights[0].stem}-on-{dataset}", root, device)


@_command("spine compare sample three-seeds --out comparison.html")
def compare(
    run: Annotated[str, Argument(help="a folder, or its name in runs/")],
    other: Annotated[str, Argument(help="another one")],
    out: Annotated[Path | None, Option(help=".json or .html file to write as well")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Set two finished runs side by side: recipes, scores, differences by patient."""
    from spine_lib.ct.files import check_output
    from spine_lib.reproduce import compare as runs

    files = [runs.run_file(name) for name in (run, other)]
    if out is not None:
        check_output(out, [file.parent for file in files], overwrite, (".json", ".html", ".htm"))
    comparison = runs.compare_runs(*map(runs.load_run, files))
    print(runs.comparison_text(comparison))
    if out is not None:
        print(runs.save_comparison(comparison, out))


@_command(
    "spine predict ct.nii.gz --out mask.nii.gz "
    "--checkpoint runs/sample/unet_resnet34/seed-0/weights.safetensors"
)
def predict(
    ct: CtArgument,
    out: Annotated[Path, Option(help=".nii or .nii.gz to write")],
    checkpoint: Annotated[Path | None, Option(help="weights.safetensors or last.ckpt")] = None,
    pretrained: Annotated[str | None, Option(help="of the library: unet_light, ...")] = None,
    device: DeviceOption = "auto",
    series: SeriesOption = None,
    overwrite: OverwriteOption = False,
    straight: Annotated[bool, Option("--straight", help="resample a sheared grid for ITK")] = False,
    mirror: Annotated[bool | None, Option(help="average with the mirror image; slower")] = None,
) -> None:
    """Segment a CT and write the mask on its own grid.

    1 is spine; of a network that names regions, 1 is cervical, 2 thoracic, 3 lumbar, 4 sacral.
    """
    if (checkpoint is None) == (pretrained is None):
        raise typer.BadParameter("give one of --checkpoint and --pretrained")
    from spine_lib.training.pretrained import weights_path
    from spine_lib.volumes.predict import predict_file

    weights = checkpoint or weights_path(pretrained)
    options = {"series": series, "overwrite": overwrite, "straight": straight, "mirror": mirror}
    print(f"The mask is in {predict_file(ct, out, weights, device, print, **options)}")
    print(f"To look at it: {shlex.join(['spine', 'view', str(ct), str(out)])}")


if __name__ == "__main__":
    main()
