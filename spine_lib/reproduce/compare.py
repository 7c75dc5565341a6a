"""Lesson 8: set two finished runs side by side: what differs in the recipe, and in the scores.

Differences are the second run less the first. They are taken on the test cases that both runs have,
patient by patient, so that a run with other or more cases is not better for having easier ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file
from spine_lib.reproduce import patient_statistics
from spine_lib.reproduce.patient_statistics import METRICS, NAMES

WAYS = {"pooled": "pooled", "per_volume": "mean over volumes"}
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Run:
    """Hold the results of a finished run and its name."""

    name: str
    results: Mapping


def load_run(name: str | Path, root: str | Path = "runs") -> Run:
    """Read a run by its folder, or by its name in the folder of all runs.

    Args:
        name: folder, `results.json` itself, or name; "latest" is the run that ended last.
        root: folder of all runs.

    Raises:
        SpineError: if there is no such run, or it is not finished.
    """
    path, root = Path(name), Path(root)
    if str(name) == "latest" and (root / "latest").is_file():
        path = root / (root / "latest").read_text(encoding="utf-8").strip()
    elif not path.exists():
        path = root / path
    file = path if path.is_file() else path / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpineError(
            f"{name} is no finished run, for {file} is not there: name a folder that `spine "
            f"reproduce` has finished, or its name in {root}."
        ) from error
    except (OSError, ValueError) as error:
        raise SpineError(f"{file} cannot be read as results of a run ({error}).") from error
    if not isinstance(results, dict) or not results.get("models"):
        raise SpineError(f"{file} holds no models: name the folder of a finished run.")
    return Run(path.parent.name if path.is_file() else path.name, results)


def compare_runs(first: Run, second: Run) -> dict:
    """Compare two runs.

    Args:
        first, second: finished runs.

    Returns:
        "runs": their names; "cases": how many both have; "notes": sentences on what limits the
        comparison; "recipe": by setting that differs, both values; "scores": by model and way
        ("pooled", "per_volume") and metric, both scores and the lowest and highest over seeds;
        "volumes": by model and case, both scores by metric; "paired": by model what
        `patient_statistics.paired` gives for the second run less the first.

    Raises:
        SpineError: if the runs have no model or no test case in common.
    """
    both = [model for model in first.results["models"] if model in second.results["models"]]
    if not both:
        raise SpineError(f"{first.name} and {second.name} have no model in common to compare.")
    cases = _shared_cases(first, second, both)
    tests = {
        model: [run.results["models"][model]["test"] for run in (first, second)] for model in both
    }
    return {
        "runs": [first.name, second.name],
        "cases": len(cases),
        "notes": _notes(first, second, both, cases),
        "recipe": recipe_differences(first.results, second.results),
        "scores": {model: _scores(first, second, model) for model in both},
        "volumes": {
            model: {case: _volume_scores(pair, case) for case in cases}
            for model, pair in tests.items()
        },
        "paired": {
            model: patient_statistics.paired(newer, older, set(cases))
            for model, (older, newer) in tests.items()
        },
    }


def _volumes(run: Run, model: str) -> Mapping[str, Mapping]:
    return (run.results["models"][model].get("test") or {}).get("volumes") or {}


def _shared_cases(first: Run, second: Run, models: list[str]) -> list[str]:
    shared = [
        case
        for case in _volumes(first, models[0])
        if all(case in _volumes(run, model) for run in (first, second) for model in models)
    ]
    if not shared:
        raise SpineError(
            f"{first.name} and {second.name} have no test case in common, so that nothing can be "
            "compared: choose runs on the same data set."
        )
    return shared


def _notes(first: Run, second: Run, models: list[str], cases: list[str]) -> list[str]:
    notes = []
    counts = [len(_volumes(run, models[0])) for run in (first, second)]
    if set(counts) != {len(cases)}:
        notes.append(
            f"The runs have different test cases ({counts[0]} and {counts[1]}): volumes and "
            f"differences are those of the {len(cases)} that both have; pooled scores and means "
            "over volumes are each run's own."
        )
    changed = [case for case in cases if _is_changed(first, second, models[0], case)]
    if changed:
        notes.append(
            f"The data of {', '.join(changed[:5])} differ between the runs (other checksums), "
            "though the cases have the same names."
        )
    models_of = [set(run.results["models"]) for run in (first, second)]
    odd = sorted(models_of[0] ^ models_of[1])
    if odd:
        notes.append(f"Only one of the runs has {', '.join(odd)}.")
    return notes


def _is_changed(first: Run, second: Run, model: str, case: str) -> bool:
    sums = [_volumes(run, model)[case].get("sha256") for run in (first, second)]
    return None not in sums and sums[0] != sums[1]


def recipe_differences(first: Mapping, second: Mapping) -> dict[str, list]:
    """Return the settings that differ between two results, and both values; None where absent."""
    old, new = (_flat(results.get("recipe") or {}) for results in (first, second))
    old["seeds"], new["seeds"] = _seeds(first), _seeds(second)
    for values in (old, new):
        values.pop("seed", None)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {name: [old.get(name), new.get(name)] for name in names}


def _flat(values: Mapping, before: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = value
    return flat


def _seeds(results: Mapping) -> list[int]:
    runs = [run for entry in results["models"].values() for run in entry.get("runs") or ()]
    return sorted({run["seed"] for run in runs})


def _scores(first: Run, second: Run, model: str) -> dict:
    entries = [run.results["models"][model] for run in (first, second)]
    return {
        way: {
            metric: [_score(entry, way, metric) for entry in entries]
            for metric in METRICS
            if any(metric in (entry["test"].get(way) or {}) for entry in entries)
        }
        for way in WAYS
    }


def _score(entry: Mapping, way: str, metric: str) -> dict:
    values = [(run["test"].get(way) or {}).get(metric) for run in entry.get("runs") or ()]
    known = [value for value in values if value is not None and math.isfinite(value)]
    score = {"mean": (entry["test"].get(way) or {}).get(metric), "seeds": len(values)}
    return score | ({"low": min(known), "high": max(known)} if known else {})


def _volume_scores(tests: list[Mapping], case: str) -> dict:
    volumes = [test["volumes"][case] for test in tests]
    return {metric: [volume.get(metric) for volume in volumes] for metric in METRICS}


# --- as text --------------------------------------------------------------------------------------


def comparison_text(found: Mapping) -> str:
    """Write what `compare_runs` returns as plain text."""
    lines = [f"{found['runs'][0]}  against  {found['runs'][1]}", *found["notes"], ""]
    lines += _recipe_lines(found["recipe"])
    for model in found["scores"]:
        rows = [("", *found["runs"], "difference"), *_score_rows(found["scores"][model])]
        rows += _volume_rows(found["volumes"][model])
        lines += ["", model, *aligned(rows), *_paired_lines(found["paired"][model])]
    return "\n".join(lines)


def _recipe_lines(recipe: Mapping[str, list]) -> list[str]:
    if not recipe:
        return ["The recipes are the same."]
    return ["Recipe:", *aligned([(name, *map(str, pair)) for name, pair in recipe.items()])]


def _score_rows(scores: Mapping) -> list[tuple]:
    rows = []
    for way, metrics in scores.items():
        for metric, pair in metrics.items():
            means = [one["mean"] for one in pair]
            shown = [_with_range(one, metric) for one in pair]
            rows.append((f"{NAMES[metric]}, {WAYS[way]}", *shown, _difference(means, metric)))
    return rows


def _volume_rows(volumes: Mapping) -> list[tuple]:
    rows = []
    for case, scores in volumes.items():
        for metric in ("dice", "hd95"):
            pair = scores[metric]
            shown = [_number(value, metric) for value in pair]
            rows.append((f"{NAMES[metric]}, {case}", *shown, _difference(pair, metric)))
    return rows


def _paired_lines(paired: Mapping[str, Mapping]) -> list[str]:
    given = {metric: row for metric, row in paired.items() if row["p_value"] is not None}
    if not given:
        return [next((row["reason"] for row in paired.values() if row["reason"]), "")]
    rows = [("mean difference", "", "95 % interval", "p", "p, Holm", "patients")]
    for metric, row in given.items():
        ends = [_number(row[end], metric, "+") for end in ("low", "high")]
        ps = [f"{row[key]:.4f}" for key in ("p_value", "p_holm")]
        estimate = _number(row["estimate"], metric, "+")
        rows.append((NAMES[metric], estimate, " to ".join(ends), *ps, str(row["n"])))
    return aligned(rows)


def _with_range(score: Mapping, metric: str) -> str:
    text = _number(score["mean"], metric)
    if score["seeds"] < 2 or "low" not in score:
        return text
    return f"{text} ({_number(score['low'], metric)} to {_number(score['high'], metric)})"


def _difference(pair: list, metric: str) -> str:
    known = all(value is not None and math.isfinite(value) for value in pair)
    return _number(pair[1] - pair[0], metric, "+") if known else DASH


def _number(value: float | None, metric: str, sign: str = "") -> str:
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:{sign}.{1 if metric == 'hd95' else 3}f}"


def aligned(rows: list[tuple]) -> list[str]:
    """Return rows of texts as lines, the first column to the left, the others to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def save_comparison(found: Mapping, path: str | Path) -> Path:
    """Write a comparison as JSON, or as a page where the name ends in .html.

    Raises:
        SpineError: if the name ends in neither.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = json.dumps(_finite(found), indent=1)
    elif path.suffix in (".html", ".htm"):
        content = _page(found)
    else:
        raise SpineError(f"{path}: a comparison is written as .json or .html, name one of these.")
    with atomic_file(path) as stream:
        stream.write(content.encode())
    return path


def _finite(value):
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page(found: Mapping) -> str:
    """Put the text on a page that loads nothing."""
    import html

    title = html.escape(" against ".join(found["runs"]))
    return (
        f'<!doctype html>\n<html lang="en-GB"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
        f'<body><h1>{title}</h1><pre style="overflow-x: auto">'
        f"{html.escape(comparison_text(found))}</pre></body></html>\n"
    )
