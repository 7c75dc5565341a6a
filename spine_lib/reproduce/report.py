"""Lesson 8: the results of a run as one HTML page that a reviewer can read, print and keep.

The page loads nothing: pictures are in it, and it needs no network and no script. Its sentences
stand in `templates/`; here the numbers of `results.json` become DataFrames, a column a column of
the page. What is missing in the results is said to be missing. Keys (all but "models" may be
absent):

- "models": by model id, {"name", "parameters", "test": scores, "runs": [{"seed", "test": scores,
  "train_seconds", "steps"}]}, where scores are what `evaluate.summarise` returns.
- "baseline": {"name", "threshold_hu", "test": scores} of a bone threshold.
- "statistics": of `compare.run_statistics`; computed where it is absent.
- "data": {"name", "train", "validation", "test" (case ids), "same_as_paper", "split", "left_out",
  "known_faults", "sources": facts by name, "checksums": SHA-256 by name}.
- "table_note", "test_looks", "command", "commit", "created", "device": texts; "recipe",
  "versions": by name; "wall_seconds", "peak_memory_mb"; "stages": seconds by stage.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.files import atomic_file, read_json, read_yaml
from spine_lib.explore import render
from spine_lib.metrics.calibration import REACH_MM
from spine_lib.metrics.paper import (
    CITATION,
    KNOWN_SETTINGS,
    PAPER,
    UNKNOWN_SETTINGS,
    check_table,
    pattern_sentence,
)
from spine_lib.metrics.regions import CLASSES
from spine_lib.metrics.statistics import MINIMUM_PATIENTS
from spine_lib.reproduce import report_figures as figures
from spine_lib.reproduce.compare import (
    METRICS,
    aligned,
    estimate_text,
    number,
    run_statistics,
    seed_spread,
)
from spine_lib.training import logs

SCORES = {"iou": "IoU", "iou_mean": "class-mean IoU", "dice": "Dice", "f1": "F1"}
SCORES |= {"accuracy": "accuracy"}
_VOLUME_COLUMNS = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "nsd": ("Surface Dice", 3),
    "hd95": ("HD95, mm", 1),
    "predict_seconds": ("Prediction, s", 1),
}
_SPREAD_COLUMNS = {"n": "Seeds", "mean": "Mean", "sd": "Standard deviation"}
_SPREAD_COLUMNS |= {"low": "Lowest", "high": "Highest"}
ABLATIONS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablations.json"
"""What single settings bring, as measured; an installed library has no such file."""

MOST_COLUMNS = 6
"""More test cases than this have no column each in the table of the seeds."""


def write_report(
    results: Mapping,
    path: str | Path,
    curves: Mapping[str, logs.Rows] | None = None,
    overlays: Mapping[str, Sequence[figures.Overlay]] | None = None,
) -> Path:
    """Write one self-contained HTML page and return its path.

    Args:
        results: as in `results.json`; see the head of this module.
        path: the file to write; it is replaced at once or not at all.
        curves: by model id, the rows of its log.
        overlays: by model id, the test slices to show.

    Raises:
        SpineError: if there is no model in the results, or the file cannot be written.
    """
    models = results.get("models")
    if not models:
        raise SpineError("The results hold no models, so there is nothing to report: train first.")
    names = {
        model: entry.get("name") or PAPER.get(model, {}).get("name") or model
        for model, entry in models.items()
    }
    runs = {
        name: [run.get("test") or {} for run in models[model].get("runs") or [models[model]]]
        for model, name in names.items()
    }
    tests = {name: models[model].get("test") or {} for model, name in names.items()}
    data, recipe = results.get("data") or {}, results.get("recipe") or {}
    page = (
        _environment()
        .get_template("report.html")
        .render(
            results=results,
            data=data,
            phantoms=[case for case in data.get("validation", ()) if "phantom" in case],
            recipe=recipe,
            names=names,
            tests=tests,
            paper=PAPER,
            citation=CITATION,
            findings=check_table(),
            pattern=pattern_sentence(models, names),
            reach_mm=REACH_MM,
            minimum_patients=MINIMUM_PATIENTS,
            patients_by_name=figures.PATIENTS_BY_NAME,
            **_volume_tables(tests, results.get("baseline")),
            **_region_tables(tests),
            calibration=_calibration_table(tests),
            **_seed_tables(results, names),
            deviations=deviations(
                recipe,
                data.get("split", "by patient"),
                data.get("known_faults", ()),
                paper_facts(Path(path).with_name("paper.yaml")),
            )
            if "augmentation" in recipe
            else [],
            curves=figures.curve_plots(
                {names.get(m, m): rows for m, rows in (curves or {}).items()}
            ),
            patient_plots=figures.patient_plots(runs),
            calibration_plot=figures.calibration_plot(tests),
            overlays={names.get(m, m): items for m, items in (overlays or {}).items()},
            legend=render.ERROR_SWATCHES,
        )
    )
    with atomic_file(Path(path)) as stream:
        stream.write(page.encode())
    return Path(path)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_lib.reproduce"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (number, percent, duration, listed)
    for function in (*words, figures.png_uri, render.scale_bar_mm, render.orientation_marks):
        environment.filters[function.__name__] = function
    return environment


# --- words ----------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """Format a fraction as per cent with one decimal, two above 99 %."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{100 * value:.{2 if value > 0.99 else 1}f} %"


def duration(seconds: float | None) -> str:
    """Format seconds as seconds, minutes or hours."""
    if seconds is None:
        return "not recorded"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def listed(items: Iterable[str], last: str = "and") -> str:
    """Join items as a list in a sentence."""
    items = list(items)
    return f" {last} ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def results_table(results: Mapping) -> str:
    """Return the table that a run ends with, as plain text."""
    rows = [("", SCORES)]
    groups = [
        (f"{entry['name']}: paper", PAPER.get(model, {}), "ours, ", entry["test"])
        for model, entry in results["models"].items()
    ]
    if baseline := results.get("baseline"):
        groups.append((baseline["name"], {}, "", baseline["test"]))
    for title, paper, owner, test in groups:
        rows.append((title, paper))
        for average in ("pooled", "per_volume", "per_slice"):
            rows.append((f"  {owner}{average.replace('_', ' ')}", test[average]))
    lines = aligned(
        [(title, *(number(row[k]) if k in row else "" for k in SCORES)) for title, row in rows]
    )
    for entry in results["models"].values():
        if named := entry["test"].get("named"):
            shown = {**named["pooled_dice"], "mean": named["mean_pooled_dice"]}
            scores = ", ".join(f"{name} {number(value)}" for name, value in shown.items())
            lines.append(f"{entry['name']}: pooled Dice of the regions by name: {scores}")
    return "\n".join(lines)


# --- tables ---------------------------------------------------------------------------------------


def _volume_tables(tests: Mapping[str, Mapping], baseline: Mapping | None) -> dict:
    """Return what the page shows of single volumes."""
    by_model = {name: test.get("volumes") or {} for name, test in tests.items()}
    cases = list(dict.fromkeys(case for volumes in by_model.values() for case in volumes))
    if baseline:
        by_model[baseline["name"]] = baseline["test"].get("volumes") or {}
    rows = []
    for case in cases:
        for name, volumes in by_model.items():
            scores = volumes.get(case, {})
            row = {"Case": case, "Model": name}
            for key, (title, digits) in _VOLUME_COLUMNS.items():
                if key in scores:
                    row[title] = number(scores[key], digits)
            rows.append(row)
    order = ["Case", "Model", *(title for title, _ in _VOLUME_COLUMNS.values())]
    frame = pd.DataFrame(rows)
    measured = pd.DataFrame([row for volumes in by_model.values() for row in volumes.values()])
    measured = measured.reindex(columns=["tolerance_mm", "predict_seconds"]).astype(float)
    tolerances, seconds = measured.tolerance_mm.dropna().unique(), measured.predict_seconds.mean()
    return {
        "cases": cases,
        "volumes": frame[[column for column in order if column in frame]],
        "tolerance_mm": tolerances[0] if len(tolerances) == 1 else None,
        "predict_seconds": None if math.isnan(seconds) else seconds,
    }


def _region_tables(tests: Mapping[str, Mapping]) -> dict:
    """Return what the page shows of the regions, from the place of the voxels and by name."""
    rows = [
        (case, region, name, scores["dice"], scores["recall"])
        for name, test in tests.items()
        for case, volume in (test.get("volumes") or {}).items()
        for region, scores in (volume.get("regions") or {}).items()
    ]
    by_volume = pd.DataFrame(rows, columns=["Case", "Region", "model", "Dice", "Recall"])
    scores = ["Dice", "Recall"]
    by_volume[scores] = by_volume[scores].astype(float)
    wide = by_volume.pivot_table(scores, ["Case", "Region"], "model", sort=False)
    wide.columns = [f"{score}, {name}" for score, name in wide.columns]
    wide = wide.reset_index()
    naming = {name: test["named"] for name, test in tests.items() if test.get("named")}
    counts = by_volume.groupby("Region").Case.nunique().reindex(REGIONS, fill_value=0)
    return {
        "region_scores": _region_scores(tests, naming),
        "region_volumes": wide,
        "region_counts": counts,
        "region_plot": figures.region_plot(by_volume) if rows else None,
        "naming": naming,
        "confusion": {name: _confusion_table(named) for name, named in naming.items()},
    }


def _region_scores(tests: Mapping[str, Mapping], naming: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return the mean scores by region and model, with those by name where networks name them."""
    rows = []
    for region in REGIONS:
        for name, test in tests.items():
            scores = (test.get("regions") or {}).get(region) or {}
            row = {"Region": region, "Model": name, "Volumes": f"{scores.get('volumes', 0):g}"}
            row |= {"Dice, mean": scores.get("dice"), "Recall, mean": scores.get("recall")}
            row["Dice, pooled"] = scores.get("pooled_dice")
            if named := naming.get(name):
                row["By name: Dice, mean"] = number(named["dice"][region])
                row["By name: Dice, pooled"] = number(named["pooled_dice"][region])
            rows.append(row)
    for name, named in naming.items():
        row = {"Region": "mean of the regions", "Model": name, "kind": "total"}
        row |= {"By name: Dice, mean": named["mean_dice"]}
        rows.append(row | {"By name: Dice, pooled": named["mean_pooled_dice"]})
    return pd.DataFrame(rows)


def _confusion_table(named: Mapping) -> pd.DataFrame:
    counts = pd.DataFrame.from_dict(named["confusion"], orient="index").reindex(columns=CLASSES)
    shares = 100 * counts.div(counts.sum(axis=1), axis=0)
    texts = counts.map("{:,.0f}".format, na_action="ignore")
    texts = (texts + shares.map(" ({:.0f} %)".format, na_action="ignore")).fillna(texts)
    return texts.add_prefix("called ").reset_index(names="Truth")


def _calibration_table(tests: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = []
    for name, test in tests.items():
        calibration = test.get("calibration") or {}
        if voxels := calibration.get("voxels"):
            bins = pd.DataFrame.from_dict(calibration["bins"], orient="index").sum()
            row = {"Model": name, "Expected calibration error": number(calibration["ece"])}
            row["Spine, as stated"] = percent(bins.probability / voxels)
            row["Spine, in truth"] = percent(bins.spine / voxels)
            rows.append(row | {"Voxels": f"{voxels:,.0f}"})
    return pd.DataFrame(rows)


def _seed_tables(results: Mapping, names: Mapping[str, str]) -> dict:
    """Return what the page shows of single seeds, their spread and the tests."""
    models = results["models"]
    statistics = results.get("statistics") or run_statistics(models)
    volumes = [(entry.get("test") or {}).get("volumes") or {} for entry in models.values()]
    cases = list(dict.fromkeys(case for rows in volumes for case in rows))
    rows, seconds = [], 0
    for model, name in names.items():
        for run in models[model].get("runs") or ():
            test = run.get("test") or {}
            row = {"Model": name, "Seed": str(run.get("seed", ""))}
            row["Dice, pooled"] = (test.get("pooled") or {}).get("dice")
            row["Dice, mean over volumes"] = (test.get("per_volume") or {}).get("dice")
            for case in cases if len(cases) <= MOST_COLUMNS else ():
                row[f"Dice, {case}"] = ((test.get("volumes") or {}).get(case) or {}).get("dice")
            rows.append(row | {"Training": duration(run.get("train_seconds"))})
            seconds += run.get("train_seconds") or 0
    spreads = {name: seed_spread(models[m].get("runs") or ()) for m, name in names.items()}
    spread = pd.concat(spreads, names=["Model", "Score"]).rename(columns=_SPREAD_COLUMNS)
    spread = spread[spread.Seeds > 1].astype({"Seeds": str}).rename(METRICS).reset_index()
    return {
        "statistics": statistics,
        "seeds": sorted({row["Seed"] for row in rows} - {""}),
        "seed_scores": pd.DataFrame(rows),
        "spread": spread[["Model", "Score", *_SPREAD_COLUMNS.values()]],
        "test_rows": _test_table(statistics, names),
        "side_by_side": seconds > 1.05 * (results.get("stages") or {}).get("train", math.inf),
    }


def _test_table(statistics: Mapping, names: Mapping[str, str]) -> pd.DataFrame:
    """Return the paired test of the first two models in all metrics; empty without a p-value."""
    pair = next(iter(statistics["paired"]), {"metrics": {}})
    rows = []
    for metric, row in pair["metrics"].items():
        digits, cells = 2 if metric == "hd95" else 3, {"Score": METRICS[metric]}
        for model in (pair["first"], pair["second"]):
            interval = statistics["intervals"][model].get(metric)
            cells[names[model]] = estimate_text(interval, digits)
        cells["Difference"] = estimate_text(row, digits, "+")
        cells |= {"p": number(row["p_value"], 4), "p, Holm": number(row["p_holm"], 4)}
        rows.append(cells | {"Patients": str(row["n"])})
    tested = any(row["p_value"] is not None for row in pair["metrics"].values())
    return pd.DataFrame(rows if tested else [])


# --- deviations from the paper -------------------------------------------------------------------


def paper_facts(path: Path) -> dict[str, str]:
    """Load what somebody who has the paper's full text has filled in, by setting.

    Args:
        path: a YAML file, `paper.yaml` in a run's folder; empty values stay unknown.

    Returns:
        Texts that name the file; none where there is no such file.

    Raises:
        SpineError: if it cannot be read, or names a setting that the abstract does not leave open.
    """
    facts = read_yaml(path, text=True) if path.is_file() else {}
    for name, text in facts.items():
        if name not in UNKNOWN_SETTINGS or not isinstance(text, str | None):
            raise SpineError(
                f"{path}: {name!r} cannot be filled in: write a text for one of "
                f"{', '.join(UNKNOWN_SETTINGS)}."
            )
    return {
        name: f"{text} (from the full text, by {path.name})" for name, text in facts.items() if text
    }


def deviations(
    recipe: dict,
    split: str = "by patient",
    faults: Iterable[str] = (),
    facts: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    """Set our settings beside the paper's; what its abstract does not say is unknown.

    Args:
        recipe: `Recipe.to_dict()`.
        split: how the cases came to their parts.
        faults: what is known to be wrong with the masks, of `datasets.known_faults`.
        facts: what the paper's full text says, of `paper_facts`.

    Returns:
        For each setting its "setting", "paper" ("" where unknown), "ours" and "note", what an
        ablation found.
    """
    template = _environment().get_template("deviations.txt")
    text = template.render(recipe=recipe, split=split, faults=list(faults))
    kept = read_json(ABLATIONS)["ablations"].values() if ABLATIONS.is_file() else ()
    page = "The tables: benchmarks/ablations.md."
    known = KNOWN_SETTINGS | dict(facts or {})
    notes = {results["setting"]: f"{results['finding']} {page}" for results in kept}
    return [
        {"setting": name, "paper": known.get(name, ""), "ours": ours}
        | {"note": notes.get(name, "")}
        for name, ours in (line.split(": ", 1) for line in text.splitlines() if line)
    ]
