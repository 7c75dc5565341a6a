"""Lesson 8: the results of a run as one HTML page that a reviewer can read, print and keep.

The page loads nothing: pictures are in it, and it needs no network and no script. Its sentences
stand in `templates/report.html`; here the numbers of `results.json` become DataFrames, a column a
column of the page. What is missing in the results is said to be missing. Keys (all but "models" may
be absent):

- "models": by model id, {"name", "parameters", "test": scores, "runs": [{"seed", "test": scores,
  "train_seconds", "steps"}]}, where scores are what `evaluate.summarise` returns.
- "baseline": {"name", "threshold_hu", "test": scores} of a bone threshold.
- "statistics": of `compare.run_statistics`; computed where it is absent.
- "data": {"name", "train", "validation", "test" (case ids), "same_as_paper", "split", "left_out",
  "known_faults", "sources": facts by name, "checksums": SHA-256 by name}.
- "target", "table_note", "command", "commit", "created", "device": texts; "recipe", "versions":
  by name; "test_looks": a sentence, or {"count", "note"}.
- "wall_seconds", "peak_memory_mb"; "stages": seconds by stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import pandas as pd

from spine_lib import SpineError
from spine_lib.annotations.schemes import REGIONS
from spine_lib.ct.files import atomic_file, read_json
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
from spine_lib.reproduce import report_figures
from spine_lib.reproduce.compare import (
    METRICS,
    aligned,
    estimate_text,
    number,
    run_statistics,
)
from spine_lib.reproduce.report_figures import KINDS, Overlay
from spine_lib.training import logs

AVERAGES = ("per_volume", "per_slice", "pooled")
SCORES = {"iou": "IoU", "iou_mean": "class-mean IoU", "dice": "Dice", "f1": "F1"}
_VOLUME_COLUMNS = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "nsd": ("Surface Dice", 3),
    "hd95": ("HD95, mm", 1),
    "predict_seconds": ("Prediction, s", 1),
}
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ABLATIONS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "ablations.json"
"""What single settings bring, as measured; an installed library has no such file."""

MOST_COLUMNS = 6
"""More test cases than this have no column each in the table of the seeds."""


def write_report(
    results: Mapping,
    path: str | Path,
    curves: Mapping[str, logs.Rows] | None = None,
    overlays: Mapping[str, Sequence[Overlay]] | None = None,
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
    tests = {name: models[model].get("test") or {} for model, name in names.items()}
    baseline = results.get("baseline") or {}
    baselines = {baseline["name"]: baseline["test"]} if baseline else {}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_lib.reproduce"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in (number, percent, duration, listed, counted, test_looks_sentence):
        environment.filters[word.__name__] = word
    data, recipe = results.get("data") or {}, results.get("recipe") or {}
    facts = {"device": results.get("device") or "not recorded"}
    facts["commit of this library"] = results.get("commit") or "not recorded"
    statistics = results.get("statistics") or run_statistics(models)
    split, faults = data.get("split", "by patient"), data.get("known_faults", ())
    volumes = [row for test in tests.values() for row in (test.get("volumes") or {}).values()]
    tolerances, seconds = (
        pd.Series([row[key] for row in volumes if row.get(key)], dtype=float)
        for key in ("tolerance_mm", "predict_seconds")
    )
    page = environment.get_template("report.html").render(
        results=results,
        data=data,
        phantoms=[case for case in data.get("validation", ()) if "phantom" in case],
        recipe=recipe,
        names=names,
        tests=tests,
        paper=PAPER,
        citation=CITATION,
        score_groups=_score_groups(names, tests) | {n: _rows(t) for n, t in baselines.items()},
        findings=[finding.message for finding in check_table()],
        pattern=pattern_sentence(models, names),
        cases=_cases(tests),
        volumes=_volume_table({**tests, **baselines}),
        tolerance_mm=tolerances.iloc[0] if tolerances.nunique() == 1 else None,
        predict_seconds=seconds.mean() if len(seconds) else None,
        patients_by_name=report_figures.PATIENTS_BY_NAME,
        empty={name: test["per_slice"] for name, test in tests.items() if test.get("per_slice")},
        **_region_tables(tests),
        calibration=_calibration_table(tests),
        reach_mm=REACH_MM,
        statistics=statistics,
        minimum_patients=MINIMUM_PATIENTS,
        **_seed_tables(results, statistics, names),
        deviations=deviations(recipe, split, faults) if "augmentation" in recipe else [],
        checksums=_key_table("Data", data.get("checksums") or {}),
        environment=_key_table("What", facts | (results.get("versions") or {})),
        settings=_key_table("Setting", recipe),
        plots=_plots(results, names, curves or {}),
        overlays={names.get(m, m): _slices(items) for m, items in (overlays or {}).items()},
        legend=render.ERROR_SWATCHES,
    )
    with atomic_file(Path(path)) as stream:
        stream.write(page.encode())
    return Path(path)


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


def counted(items: Sequence | Mapping, noun: str) -> str:
    """Return the number of items in words with a noun."""
    count = len(items)
    word = _COUNTS[count] if count < len(_COUNTS) else str(count)
    return f"{word} {noun}{'' if count == 1 else 's'}"


def test_looks_sentence(test_looks: Mapping | str | None) -> str:
    """Return how often the test patients had been looked at, as a sentence."""
    if isinstance(test_looks, Mapping):
        count = test_looks.get("count")
        times = {0: "never before this run", 1: "once"}.get(count, f"{count} times")
        return f"The test patients were looked at {times}. {test_looks.get('note', '')}".strip()
    return test_looks or "This was not recorded."


def results_table(results: Mapping) -> str:
    """Return the table that a run ends with, as plain text."""
    columns = {**SCORES, "accuracy": "accuracy"}
    lines = [("", *columns.values())]
    groups = []
    for model, entry in results["models"].items():
        groups.append((f"{entry['name']}: paper", PAPER.get(model, {}), "ours, ", entry["test"]))
    if baseline := results.get("baseline"):
        groups.append((baseline["name"], {}, "", baseline["test"]))
    for title, paper, owner, test in groups:
        rows = {title: paper}
        for average in ("pooled", "per_volume", "per_slice"):
            rows[f"  {owner}{average.replace('_', ' ')}"] = test[average]
        for label, scores in rows.items():
            lines.append((label, *(number(scores[k]) if k in scores else "" for k in columns)))
    lines = aligned(lines)
    for entry in results["models"].values():
        if named := entry["test"].get("named"):
            shown = {**named["pooled_dice"], "mean": named["mean_pooled_dice"]}
            scores = ", ".join(f"{name} {number(value)}" for name, value in shown.items())
            lines.append(f"{entry['name']}: pooled Dice of the regions by name: {scores}")
    return "\n".join(lines)


# --- tables ---------------------------------------------------------------------------------------


def _rows(test: Mapping) -> list[tuple[str, Mapping]]:
    return [(average, test.get(average) or {}) for average in AVERAGES]


def _score_groups(names: Mapping[str, str], tests: Mapping[str, Mapping]) -> dict[str, list]:
    """Return by model the rows of the main table, each its kind and scores."""
    groups = {}
    for model, name in names.items():
        paper = [("paper", PAPER[model])] if model in PAPER else []
        inferred = ("inferred", tests[name].get("pooled") or {})
        groups[name] = [*paper, inferred, *_rows(tests[name])]
    return groups


def _cases(tests: Mapping[str, Mapping]) -> list[str]:
    """Return the test cases in the order in which they first appear."""
    return list({case: None for test in tests.values() for case in test.get("volumes") or {}})


def _volume_table(tests: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = []
    for case in _cases(tests):
        for name, test in tests.items():
            volume = (test.get("volumes") or {}).get(case) or {}
            scores = {
                title: number(volume[key], digits)
                for key, (title, digits) in _VOLUME_COLUMNS.items()
                if key in volume
            }
            rows.append({"Case": case, "Model": name, **scores})
    order = ["Case", "Model", *(title for title, _ in _VOLUME_COLUMNS.values())]
    frame = pd.DataFrame(rows)
    return frame[[column for column in order if column in frame]]


def _region_tables(tests: Mapping[str, Mapping]) -> dict:
    """Return what the page shows of the regions, from the place of the voxels and by name."""
    volumes = [
        {"case": case, "region": region, "model": name, **scores}
        for case in _cases(tests)
        for region in REGIONS
        for name, test in tests.items()
        if (scores := ((test.get("volumes") or {}).get(case, {}).get("regions") or {}).get(region))
    ]
    by_volume = pd.DataFrame(volumes, columns=["case", "region", "model", "dice", "recall"])
    by_volume[["dice", "recall"]] = by_volume[["dice", "recall"]].astype(float)
    cases = by_volume.drop_duplicates(["case", "region"])
    rows = []
    for region in REGIONS if len(cases) else ():
        for name, test in tests.items():
            scores = (test.get("regions") or {}).get(region) or {}
            row = {"Region": region, "Model": name, "Volumes": f"{scores.get('volumes', 0):g}"}
            row |= {"Dice, mean": scores.get("dice"), "Recall, mean": scores.get("recall")}
            rows.append(row | {"Dice, pooled": scores.get("pooled_dice")})
    wide = by_volume.pivot_table(
        index=["case", "region"], columns="model", values=["dice", "recall"], sort=False
    )
    wide.columns = [
        f"{'Dice' if key == 'dice' else 'Recall'}, {name}" for key, name in wide.columns
    ]
    naming = {name: test["named"] for name, test in tests.items() if test.get("named")}
    return {
        "region_scores": pd.DataFrame(rows),
        "region_volumes": wide.reset_index(names=["Case", "Region"]) if len(wide) else wide,
        "regions_by_case": cases.groupby("case", sort=False).region.apply(list).to_dict(),
        "region_counts": cases.groupby("region", sort=False).size().reindex(REGIONS).dropna(),
        "missing_regions": [region for region in REGIONS if region not in set(cases.region)],
        "region_plot": report_figures.region_plot(by_volume) if len(cases) else None,
        "naming": naming,
        "named_scores": _named_table(naming, tests),
        "confusion": {name: _confusion_table(named) for name, named in naming.items()},
    }


def _named_table(naming: Mapping[str, Mapping], tests: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = []
    for region in REGIONS if naming else ():
        for name, named in naming.items():
            place = (tests[name].get("regions") or {}).get(region) or {}
            rows.append(
                {
                    "Region": region,
                    "Model": name,
                    "Volumes": f"{named['volumes'][region]:g}",
                    "Dice by name, mean": number(named["dice"][region]),
                    "Dice by place, mean": place.get("dice"),
                    "Dice by name, pooled": number(named["pooled_dice"][region]),
                    "Dice by place, pooled": place.get("pooled_dice"),
                }
            )
    for name, named in naming.items():
        means = {"Dice by name, mean": named["mean_dice"]}
        means |= {"Dice by name, pooled": named["mean_pooled_dice"]}
        rows.append({"Region": "mean of the regions", "Model": name, "kind": "total", **means})
    return pd.DataFrame(rows)


def _confusion_table(named: Mapping) -> pd.DataFrame:
    rows = []
    for truth, row in named["confusion"].items():
        whole = sum(row.values())
        cells = {"Truth": truth}
        for called, count in row.items():
            share = f" ({100 * count / whole:.0f} %)" if whole else ""
            cells[f"called {called}"] = f"{count:,.0f}{share}"
        rows.append(cells)
    return pd.DataFrame(rows, columns=["Truth", *(f"called {called}" for called in CLASSES)])


def _calibration_table(tests: Mapping[str, Mapping]) -> pd.DataFrame:
    rows = []
    for name, test in tests.items():
        calibration = test.get("calibration") or {}
        if voxels := calibration.get("voxels"):
            bins = pd.DataFrame.from_dict(calibration["bins"], orient="index").sum()
            rows.append(
                {
                    "Model": name,
                    "Expected calibration error": number(calibration["ece"]),
                    "Spine, as stated": percent(bins.probability / voxels),
                    "Spine, in truth": percent(bins.spine / voxels),
                    "Voxels": f"{voxels:,.0f}",
                }
            )
    return pd.DataFrame(rows)


def _seed_tables(results: Mapping, statistics: Mapping, names: Mapping[str, str]) -> dict:
    """Return what the page shows of single seeds, their spread and the tests."""
    runs = [
        (name, run)
        for model, name in names.items()
        for run in results["models"][model].get("runs") or ()
    ]
    cases = _cases({m: entry.get("test") or {} for m, entry in results["models"].items()})
    rows = []
    for name, run in runs:
        test = run.get("test") or {}
        row = {"Model": name, "Seed": str(run.get("seed", ""))}
        row["Dice, pooled"] = (test.get("pooled") or {}).get("dice")
        row["Dice, mean over volumes"] = (test.get("per_volume") or {}).get("dice")
        for case in cases if len(cases) <= MOST_COLUMNS else ():
            row[f"Dice, {case}"] = ((test.get("volumes") or {}).get(case) or {}).get("dice")
        rows.append(row | {"Training": duration(run.get("train_seconds"))})
    titles = {"mean": "Mean", "sd": "Standard deviation", "low": "Lowest", "high": "Highest"}
    spreads = [
        {"Model": name, "Score": METRICS[metric], "Seeds": str(spread["n"])}
        | {title: spread[key] for key, title in titles.items()}
        for model, name in names.items()
        for metric, spread in statistics["seeds"].get(model, {}).items()
        if spread["n"] > 1
    ]
    seconds = sum(run.get("train_seconds") or 0 for _, run in runs)
    return {
        "seeds": sorted({row["Seed"] for row in rows} - {""}),
        "seed_scores": pd.DataFrame(rows),
        "spread": pd.DataFrame(spreads),
        "test_rows": _test_table(statistics, names),
        "side_by_side": seconds > 1.05 * (results.get("stages") or {}).get("train", math.inf),
    }


def _test_table(statistics: Mapping, names: Mapping[str, str]) -> pd.DataFrame:
    """Return the paired test of the first two models in all metrics; empty without a p-value."""
    pair = next(iter(statistics["paired"]), {"metrics": {}})
    if all(row["p_value"] is None for row in pair["metrics"].values()):
        return pd.DataFrame()
    rows = []
    for metric, row in pair["metrics"].items():
        digits, cells = 2 if metric == "hd95" else 3, {"Score": METRICS[metric]}
        for model in (pair["first"], pair["second"]):
            interval = statistics["intervals"][model].get(metric)
            cells[names[model]] = estimate_text(interval, digits)
        cells["Difference"] = estimate_text(row, digits, "+")
        cells |= {"p": number(row["p_value"], 4), "p, Holm": number(row["p_holm"], 4)}
        rows.append(cells | {"Patients": str(row["n"])})
    return pd.DataFrame(rows)


def _key_table(head: str, facts: Mapping) -> pd.DataFrame:
    rows = [(str(name), _plain(value)) for name, value in facts.items()]
    return pd.DataFrame(rows, columns=[head, "Value"])


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- deviations from the paper -------------------------------------------------------------------


def deviations(
    recipe: dict, split: str = "by patient", faults: Iterable[str] = ()
) -> list[dict[str, str]]:
    """Set our settings beside the paper's; what its abstract does not say is unknown.

    Args:
        recipe: `Recipe.to_dict()`.
        split: how the cases came to their parts.
        faults: what is known to be wrong with the masks, of `datasets.known_faults`.
    """
    augmentation, mm = recipe["augmentation"], recipe["neighbour_mm"]
    encoders = {name.partition("_")[0]: name.partition("_")[2] for name in recipe["models"]}
    encoder = encoders.get("deeplabv3plus", "not trained")
    dataset, phantoms = recipe["dataset"], recipe["phantoms"]
    patients = {"sample": "two patients", "phantom": ""}.get(dataset, f"the scans of {dataset}")
    trained = [patients, f"{phantoms} phantoms" if phantoms else ""]
    drawn = ["geometry", "photometry"]
    drawn += ["redrawn tissues"] if augmentation["redraw"] else []
    drawn += ["narrow fields of view"] if augmentation["narrow_view"] else []
    annotation = "spine against background; the four regions are merged"
    if recipe.get("target", "spine") == "regions":
        annotation = "the four regions against each other and the background; scored merged as well"
    ours = {
        "data": " and ".join(filter(None, trained)) + " for training",
        "annotation": annotation,
        "models": ", ".join(recipe["models"]),
        "encoder of DeepLabv3+": (
            "the encoder of U-Net" if encoder == encoders.get("unet") else encoder
        ),
        "image size": "patches of {0}x{0} pixels of {1:g} mm".format(
            augmentation["size"], recipe["spacing_mm"]
        ),
        "plane": " and ".join(recipe["planes"]),
        "split": split,
        "epochs": "{steps} steps of {batch} patches".format(**recipe),
        "optimiser": (
            "AdamW, one cycle up to {learning_rate:g}, weight decay {weight_decay:g}, averaged "
            "weights ({averaging:g})"
        ).format(**recipe),
        "loss": recipe["loss"],
        "batch size": str(recipe["batch"]),
        "augmentation": ", ".join(drawn),
        "how scores were averaged": "pooled, per volume and per slice; both IoUs",
    }
    channels = f"the slice, and those {mm:g} mm before and behind it" if mm else "the slice alone"
    weights = recipe["encoder_weights"] or "random"
    rows = [
        {"setting": name, "paper": KNOWN_SETTINGS.get(name, ""), "ours": ours[name]}
        for name in (*KNOWN_SETTINGS, *UNKNOWN_SETTINGS)
    ]
    more = {"channels of the input": channels, "encoder weights at the start": weights}
    more |= {"known faults of the masks": "; ".join(faults)} if faults else {}
    rows += [{"setting": name, "paper": "", "ours": text} for name, text in more.items()]
    notes = remarks()
    return [row | {"note": notes.get(row["setting"], "")} for row in rows]


def remarks() -> dict[str, str]:
    """Return what the kept ablations found, by the setting in the table of deviations."""
    kept = read_json(ABLATIONS)["ablations"].values() if ABLATIONS.is_file() else ()
    page = "The tables: benchmarks/ablations.md."
    return {results["setting"]: f"{results['finding']} {page}" for results in kept}


# --- pictures -------------------------------------------------------------------------------------


def _plots(results: Mapping, names: Mapping[str, str], curves: Mapping[str, logs.Rows]) -> dict:
    models = results["models"]
    calibrated = {
        name: models[model]["test"]
        for model, name in names.items()
        if ((models[model].get("test") or {}).get("calibration") or {}).get("voxels")
    }
    runs = {
        name: [run.get("test") or {} for run in models[model].get("runs") or [models[model]]]
        for model, name in names.items()
    }
    return {
        "curves": report_figures.curve_plots({names.get(m, m): r for m, r in curves.items()}),
        "patients": report_figures.patient_plots(runs),
        "calibration": report_figures.calibration_plot(calibrated) if calibrated else None,
    }


def _slices(overlays: Sequence[Overlay]) -> list[dict]:
    slices = []
    for overlay in sorted(overlays, key=lambda overlay: KINDS.index(overlay.kind)):
        width_mm = overlay.image.shape[1] * overlay.pixel_mm
        bar_mm = render.scale_bar_mm(width_mm)
        slices.append(
            {
                "overlay": overlay,
                "uri": report_figures.data_uri("png", render.encode_png(overlay.image)),
                "marks": render.orientation_marks(overlay.plane),
                "bar_percent": round(100 * bar_mm / width_mm, 2),
                "bar_mm": f"{bar_mm:g}",
            }
        )
    return slices
