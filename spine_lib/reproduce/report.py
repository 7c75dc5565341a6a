"""Write what a reproduction found as one HTML page that a reviewer can read, print and keep.

The page loads nothing: pictures are in it, and it needs no network and no script. The numbers
come from the dictionary that `results.json` holds; what is missing there is said to be missing.
The keys that are read (all but "models" may be absent):

- "models": by model id, {"name", "parameters", "test": scores, "runs": [{"seed", "test": scores,
  "train_seconds", "steps"}]}, where scores are {"pooled", "per_volume", "per_slice", "volumes"} of
  `metrics.overlap.aggregate`, and "regions", "calibration" and, of networks that name regions,
  "named" of `reproduce.evaluate`. A case in "volumes" may carry its "patient_id" and "regions".
- "statistics": of `spine_lib.reproduce.patient_statistics`; computed where it is absent.
- "target": a sentence on what counts as spine; "table_note": which run the table shows.
- "data": {"name", "train": [case ids], "test": [case ids], "same_as_paper": bool, "split": how the
  cases were parted, "left_out": [case and reason], "checksums": SHA-256 by name}.
- "paper": by model id {"name", "iou", "dice", "f1", "accuracy"}, in place of the paper's table.
- "test_looks": a count, a sentence, or {"count", "note"}: how often the test pair was looked at.
- "recipe": settings by name; "versions": by package; "device", "created" (a date), "wall_seconds",
  "peak_memory_mb"; "environment": anything else by name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2

from spine_lib import SpineError
from spine_lib.explore import overlays, render
from spine_lib.metrics.paper import pattern_sentence
from spine_lib.reproduce import report_names, report_plots, report_regions, report_tables
from spine_lib.reproduce.report_slices import KINDS, Overlay, draw_overlay, pick_slices
from spine_lib.training import logs

__all__ = ["SAMPLE_MASK_NOTES", "Overlay", "draw_overlay", "pick_slices", "write_report"]

SECTIONS = (
    ("table", "Our table beside the paper's"),
    ("finding", "Is the paper's table consistent?"),
    ("curves", "Learning curves"),
    ("slices", "Best, median and worst test slices"),
    ("volumes", "Scores by patient"),
    ("regions", "Scores by region of the spine"),
    ("calibration", "Calibration near the spine"),
    ("seeds", "Uncertainty: seeds, intervals and tests"),
    ("deviations", "Deviations from the paper"),
    ("data", "Data, masks and licences"),
    ("rerun", "Running it again"),
)
SAMPLE_MASK_NOTES = (
    'The masks of the built-in patients are mostly "silver" labels: the output of a model, not '
    "the drawing of a radiologist. A score against them measures agreement with that model as "
    "much as with the anatomy.",
    "The mask of the DICOM patient is coarse: smoothing it by 1.5 to 2 mm leaves a Dice of only "
    "0.92 to 0.95 with itself, and shifting it by one voxel 0.93. Differences smaller than that "
    "mean nothing on this patient, and scores above about 0.93 cannot be told from perfect ones.",
    "The sources label different bone (some the whole sacrum, some S1, some none). What a mask "
    "does not cover is left out of loss and score.",
)


def write_report(
    results: Mapping,
    path: str | Path,
    curves: Mapping[str, logs.Rows | str | Path] | None = None,
    overlays: Mapping[str, Sequence[Overlay]] | None = None,
    command: str = "",
    deviations: Sequence[str | Mapping[str, str]] = (),
    data_sources: Sequence[str | Mapping[str, str]] = (),
    findings: Sequence[object] = (),
    mask_notes: Sequence[str] = SAMPLE_MASK_NOTES,
    title: str = "Spine segmentation in CT: a reproduction report",
) -> Path:
    """Write one self-contained HTML page and return its path.

    Args:
        results: as in `results.json`; see the head of this module.
        path: the file to write; it is replaced at once or not at all.
        curves: by model id, the rows of its log or the path of a Lightning `metrics.csv`.
        overlays: by model id, the test slices to show (:func:`draw_overlay`).
        command: what was typed to make this run.
        deviations: sentences, or {"setting", "paper", "ours", "note"}; a "paper" that is empty or
            "unknown" is shown as unknown.
        data_sources: sentences, or facts by name ("name", "role", "licence", "sha256", ...).
        findings: about the paper's table, the verdict last: sentences, mappings with "message",
            or what `spine_lib.metrics.paper.check_table` returns.
        mask_notes: what is to be said about the masks; () for phantoms, whose labels are exact.
        title: the page's title.

    Raises:
        SpineError: if there is no model in the results, or the file cannot be written.
    """
    if not results.get("models"):
        raise SpineError("The results hold no models, so there is nothing to report: train first.")
    tables = report_tables.build(results, deviations)
    names = tables["names"]
    regions = report_regions.build(results, names)
    context = {
        **tables,
        **regions,
        "summary": [*tables["summary"], *filter(None, [report_names.sentence(results, names)])],
        "title": title,
        "sections": SECTIONS,
        "findings": [_message(finding) for finding in findings],
        "curves": report_plots.curve_plots(curves or {}, names),
        "patients": report_plots.patient_plots(results, names),
        "region_plot": report_plots.region_plot(results, names, regions["regions_shown"]),
        "calibration": report_plots.calibration_plot(results, names),
        "pattern": pattern_sentence(results["models"], names),
        "overlays": _overlay_groups(overlays or {}, names),
        "legend": [_legend_entry(swatch) for swatch in render.ERROR_SWATCHES],
        "data_sources": data_sources,
        "mask_notes": mask_notes,
        "command": command,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_lib.reproduce", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return _write(Path(path), environment.get_template("report.html").render(context))


def _message(finding: object) -> str:
    if isinstance(finding, Mapping):
        return str(finding.get("message", finding))
    return str(getattr(finding, "message", finding))


def _overlay_groups(
    overlays: Mapping[str, Sequence[Overlay]], names: Mapping[str, str]
) -> list[tuple[str, list[dict]]]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return [
        (
            names.get(model, model),
            [_overlay(one) for one in sorted(items, key=lambda one: order.get(one.kind, 9))],
        )
        for model, items in overlays.items()
        if items
    ]


def _overlay(overlay: Overlay) -> dict:
    height, width = overlay.image.shape[:2]
    bar = None
    if overlay.pixel_mm:
        length_mm = render.scale_bar_mm(width * overlay.pixel_mm)
        percent = round(100 * length_mm / (width * overlay.pixel_mm), 2)
        bar = {"percent": percent, "length": f"{length_mm:g}"}
    return {
        "uri": report_plots.data_uri("png", render.encode_png(overlay.image)),
        "alt": overlay.alt,
        "caption": overlay.caption,
        "kind": overlay.kind.capitalize(),
        "width": width,
        "height": height,
        "marks": render.orientation_marks(overlay.plane) if overlay.plane else {},
        "bar": bar,
    }


def _legend_entry(swatch: overlays.Swatch) -> dict[str, str]:
    # On white paper the ground of an area is its colour thinned, as it is over the CT.
    pale = tuple(round(255 - 0.35 * (255 - channel)) for channel in swatch.rgb)
    return {
        "name": swatch.name,
        "hatch": swatch.hatch,
        "colour": "rgb({}, {}, {})".format(*swatch.rgb),
        "pale": "rgb({}, {}, {})".format(*pale),
    }


def _write(path: Path, text: str) -> Path:
    """Write beside the target and swap, so that no reader ever meets half a page."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SpineError(
            f"The report {path} cannot be written ({error.strerror or error}): "
            "free the space or choose another folder."
        ) from error
    return path
