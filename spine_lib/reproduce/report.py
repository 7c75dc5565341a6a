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
  "sources": facts by name, "checksums": SHA-256 by name}.
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

SECTIONS = {
    "table": "Our table beside the paper's",
    "finding": "Is the paper's table consistent?",
    "curves": "Learning curves",
    "slices": "Best, median and worst test slices",
    "volumes": "Scores by patient",
    "regions": "Scores by region of the spine",
    "calibration": "Calibration near the spine",
    "seeds": "Uncertainty: seeds, intervals and tests",
    "deviations": "Deviations from the paper",
    "data": "Data, masks and licences",
    "rerun": "Running it again",
}
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
    environment.filters |= {
        f.__name__: f for f in (number, percent, duration, listed, counted, test_looks_sentence)
    }
    page = environment.get_template("report.html").render(
        results=results,
        data=results.get("data") or {},
        phantoms=[c for c in (results.get("data") or {}).get("validation", ()) if "phantom" in c],
        recipe=results.get("recipe") or {},
        names=names,
        tests=tests,
        sections=SECTIONS,
        paper=PAPER,
        citation=CITATION,
        score_groups=_score_groups(results, names) | {n: _rows(t) for n, t in baselines.items()},
        findings=[finding.message for finding in check_table()],
        pattern=pattern_sentence(models, names),
        cases=_cases(tests),
        volumes=_volume_table({**tests, **baselines}),
        tolerance_mm=_tolerance_mm(tests),
        predict_seconds=_mean_prediction(tests),
        patients_by_name=report_figures.PATIENTS_BY_NAME,
        empty={name: test["per_slice"] for name, test in tests.items() if test.get("per_slice")},
        **_region_tables(tests),
        calibration=_calibration_table(tests),
        reach_mm=REACH_MM,
        statistics=results.get("statistics") or run_statistics(models),
        minimum_patients=MINIMUM_PATIENTS,
        **_seed_tables(results, names),
        deviations=_deviations(results),
        checksums=_key_table("Data", (results.get("data") or {}).get("checksums")),
        environment=_key_table("What", _environment(results)),
        settings=_key_table("Setting", results.get("recipe")),
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

    def add(label: str, scores: Mapping) -> None:
        lines.append((label, *(number(scores[k]) if k in scores else "" for k in columns)))

    for model, entry in results["models"].items():
        add(f"{entry['name']}: paper", PAPER.get(model, {}))
        for average in ("pooled", "per_volume", "per_slice"):
            add(f"  ours, {average.replace('_', ' ')}", entry["test"][average])
    if baseline := results.get("baseline"):
        add(baseline["name"], {})
        for average in ("pooled", "per_volume", "per_slice"):
            add(f"  {average.replace('_', ' ')}", baseline["test"][average])
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


def _score_groups(results: Mapping, names: Mapping[str, str]) -> dict[str, list]:
    """Return by model the rows of the main table, each its kind and scores."""
    groups = {}
    for model, name in names.items():
        test = results["models"][model].get("test") or {}
        paper = [("paper", PAPER[model])] if model in PAPER else []
        groups[name] = [*paper, ("inferred", test.get("pooled") or {}), *_rows(test)]
    return groups


def _cases(tests: Mapping[str, Mapping]) -> list[str]:
    """Return the test cases in the order in which they first appear."""
    return list(
        dict.fromkeys(case for test in tests.values() for case in test.get("volumes") or {})
    )


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


def _volumes(tests: Mapping[str, Mapping]) -> list[Mapping]:
    return [volume for test in tests.values() for volume in (test.get("volumes") or {}).values()]


def _tolerance_mm(tests: Mapping[str, Mapping]) -> float | None:
    """Return the tolerance of the surface Dice, if all volumes have the same."""
    tolerances = {volume.get("tolerance_mm") for volume in _volumes(tests)} - {None}
    return tolerances.pop() if len(tolerances) == 1 else None


def _mean_prediction(tests: Mapping[str, Mapping]) -> float | None:
    seconds = [v["predict_seconds"] for v in _volumes(tests) if v.get("predict_seconds")]
    return sum(seconds) / len(seconds) if seconds else None


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
        cells = {
            f"called {called}": f"{row[called]:,.0f} ({100 * row[called] / whole:.0f} %)"
            if whole
            else "0"
            for called in CLASSES
            if called in row
        }
        rows.append({"Truth": truth, **cells})
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


def _seed_tables(results: Mapping, names: Mapping[str, str]) -> dict:
    statistics = results.get("statistics") or run_statistics(results["models"])
    cases = _cases({name: results["models"][m].get("test") or {} for m, name in names.items()})
    rows, spreads, tests = [], [], []
    for model, name in names.items():
        for run in results["models"][model].get("runs") or ():
            test = run.get("test") or {}
            row = {"Model": name, "Seed": str(run.get("seed", ""))}
            row["Dice, pooled"] = (test.get("pooled") or {}).get("dice")
            row["Dice, mean over volumes"] = (test.get("per_volume") or {}).get("dice")
            for case in cases if len(cases) <= MOST_COLUMNS else ():
                row[f"Dice, {case}"] = ((test.get("volumes") or {}).get(case) or {}).get("dice")
            rows.append(row | {"Training": duration(run.get("train_seconds"))})
        for metric, spread in statistics["seeds"].get(model, {}).items():
            if spread["n"] > 1:
                row = {"Model": name, "Score": METRICS[metric], "Seeds": str(spread["n"])}
                keys = {"mean": "Mean", "sd": "Standard deviation", "low": "Lowest"}
                keys |= {"high": "Highest"}
                spreads.append(row | {title: spread[key] for key, title in keys.items()})
    pair = next(iter(statistics["paired"]), None)
    for metric, row in pair["metrics"].items() if pair else ():
        digits = 2 if metric == "hd95" else 3
        models = {
            names[model]: estimate_text(statistics["intervals"][model].get(metric), digits)
            for model in (pair["first"], pair["second"])
        }
        tests.append(
            {"Score": METRICS[metric], **models, "Difference": estimate_text(row, digits, "+")}
            | {"p": number(row["p_value"], 4), "p, Holm": number(row["p_holm"], 4)}
            | {"Patients": str(row["n"])}
        )
    given = pair and any(row["p_value"] is not None for row in pair["metrics"].values())
    seeds = sorted({row["Seed"] for row in rows} - {""})
    stages, trained = (
        results.get("stages") or {},
        [
            run.get("train_seconds") or 0
            for entry in results["models"].values()
            for run in entry.get("runs") or ()
        ],
    )
    return {
        "seeds": seeds,
        "seed_scores": pd.DataFrame(rows),
        "spread": pd.DataFrame(spreads),
        "test_rows": pd.DataFrame(tests if given else []),
        "side_by_side": sum(trained) > 1.05 * stages.get("train", math.inf),
    }


def _deviations(results: Mapping) -> list[dict[str, str]]:
    recipe, data = results.get("recipe") or {}, results.get("data") or {}
    split = data.get("split", "by patient")
    return deviations(recipe, split) if "augmentation" in recipe else []


def _environment(results: Mapping) -> dict:
    facts = {"device": results.get("device") or "not recorded"}
    facts["commit of this library"] = results.get("commit") or "not recorded"
    return facts | (results.get("versions") or {})


def _key_table(head: str, facts: Mapping | None) -> pd.DataFrame:
    rows = [(str(name), _plain(value)) for name, value in (facts or {}).items()]
    return pd.DataFrame(rows, columns=[head, "Value"])


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- deviations from the paper -------------------------------------------------------------------


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
    notes = remarks()
    return [row | {"note": notes.get(row["setting"], "")} for row in rows]


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


_ANNOTATION = {
    "spine": "spine against background; the four regions are merged",
    "regions": "the four regions against each other and the background; scored merged as well",
}


def _training_data(dataset: str, phantoms: int) -> str:
    patients = {"sample": "two patients", "phantom": ""}.get(dataset, f"the scans of {dataset}")
    made = f"{phantoms} phantoms" if phantoms else ""
    return " and ".join(text for text in (patients, made) if text) + " for training"


def ablation_finding(results: Mapping) -> str:
    """Return in one or two sentences what an ablation found, for a remark elsewhere."""
    labels = {
        name: entry["label"].removesuffix(" (the recipe)")
        for name, entry in results["variants"].items()
    }
    reference = labels.pop(results["reference"])
    texts: dict[str, list[str]] = {name: [] for name in labels}
    for row in results["comparisons"]:
        if row["low"] is None:
            cases = row["cases"].items()
            text = ", ".join(f"{number(dice, 3, '+')} on {case_id}" for case_id, dice in cases)
            texts[row["variant"]].append(text)
        elif row["fair"]:
            text = f"{estimate_text(row, 3, '+')} on {row['n']} {row['group']}, {row['reading']}"
            texts[row["variant"]].insert(0, text)
    found = "; ".join(f"{labels[name]}: {'; '.join(parts)}" for name, parts in texts.items())
    return f"Ablation in short runs, difference in Dice to '{reference}': {found}."


def remarks() -> dict[str, str]:
    """Return what the kept ablations found, by the setting in the table of deviations."""
    kept = read_json(ABLATIONS)["ablations"].values() if ABLATIONS.is_file() else ()
    page = "The tables: benchmarks/ablations.md."
    return {results["setting"]: f"{ablation_finding(results)} {page}" for results in kept}


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
