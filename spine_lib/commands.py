"""What each command of `spine` does for its users: thin lines over the library.

Each function takes the parsed options and returns an exit code or None. Imports stand inside, so
that a command loads only what it uses.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Iterable

from spine_lib import SpineError


def fetch(options: Namespace) -> None:
    """Fetch the built-in real CTs and list them."""
    from spine_lib.datasets.sample import fetch_sample, sample_cases

    root = fetch_sample(options.root)
    print(f"The built-in data is in {root}")
    for case in sample_cases(root):
        print(f"  {case.case_id:8} {case.split:5} {case.covers}; {case.licence}")


def info(options: Namespace) -> None:
    """Print what a CT or a label map holds."""
    from spine_lib.ct.volume import load_ct, load_mask

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

    from spine_lib.ct.volume import WINDOWS

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

    from spine_lib.annotations.checks import SCHEMES

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
    from spine_lib.annotations.checks import check_annotation
    from spine_lib.ct.volume import load_ct, load_mask

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
    from spine_lib.ct.volume import save_nifti
    from spine_lib.datasets.phantom import make_phantom

    options.out.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seed, options.seed + options.count):
        case = make_phantom(seed, shape=tuple(options.shape), spacing_mm=options.spacing)
        for what, volume in (("ct", case.ct), ("labels", case.labels)):
            print(save_nifti(volume, options.out / f"phantom-{seed:04d}_{what}.nii.gz"))


def reproduce(options: Namespace) -> None:
    """Run the main job; it prints its own table and where the report lies."""
    from spine_lib.reproduce.reproduce import reproduce as run
    from spine_lib.training.processes import Processes

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
    from spine_lib.reproduce import compare as compare_runs

    found = compare_runs.compare_runs(*(compare_runs.load_run(name) for name in options.runs))
    print(compare_runs.comparison_text(found))
    if options.out is not None:
        print(compare_runs.save_comparison(found, options.out))


def ablate(options: Namespace) -> None:
    """Change one setting and measure what it brings; without a name, list what can be changed."""
    from spine_lib.reproduce.ablations import kept, running, words

    if options.ablation is None:
        print(words.catalogue(kept.kept()))
        return
    folders = running.ablate(
        options.ablation,
        options.recipe,
        model=options.model,
        seeds=tuple(options.seeds),
        run=options.name,
        dataset=options.dataset,
        data_root=options.root,
        device=options.device,
        at_once=options.at_once,
        workers=options.workers,
    )
    if options.keep:
        print(*kept.keep(folders), sep="\n")


def datasets(options: Namespace) -> None:
    """List the public data sets; with a name and a root, say what lies there."""
    from spine_lib.datasets.case import write_split
    from spine_lib.datasets.public import catalogue_text, find_cases, rebuild_1089

    if options.name is None:
        print(catalogue_text())
        return
    if options.root is None:
        raise SpineError(f"spine datasets {options.name}: name its folder with --root")
    cohort = find_cases(options.name, options.root)
    parts = {part: [] for part in ("train", "validation", "test")}
    for case in cohort.cases:
        parts.setdefault(case.split, []).append(case)
    for part, cases in parts.items():
        print(f"{part}: {len(cases)} scans")
    print(f"split: {cohort.split_note}")
    for item in cohort.excluded:
        print(f"left out: {item}")
    if options.name == "totalsegmentator":
        print(f"--dataset rebuilt1089 takes: {rebuild_1089(options.root)}")
    if options.split:
        print(write_split(parts, options.split))


def prepare(options: Namespace) -> None:
    """Cut the scans of a data set into slices, as `reproduce` will ask for them."""
    from spine_lib.reproduce.sources import gather, prepare
    from spine_lib.training.recipe import load_recipe

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
    from spine_lib.volumes.masks import predict_file

    checkpoint = options.checkpoint
    if options.pretrained is not None:
        from spine_lib.training.pretrained import weights_path

        checkpoint = weights_path(options.pretrained)
    written = predict_file(options.ct, options.out, checkpoint, options.device, print)
    print(f"The mask is in {written}")
