"""Turn the dictionary of `results.json` into the tables of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from spine_lib.metrics import statistics
from spine_lib.reproduce import patient_statistics
from spine_lib.reproduce import report_words as words

_PATIENT_COLUMNS = (
    ("Dice", "dice", 3),
    ("IoU", "iou", 3),
    ("Precision", "precision", 3),
    ("Recall", "recall", 3),
    ("Surface Dice", "nsd", 3),
    ("HD95, mm", "hd95", 1),
)
_DIGITS = {"hd95": 2}
MOST_COLUMNS = 6
"""More test cases than this have no column each in the table of the seeds."""
_READING = (
    "How the paper averaged is inferred from its figures (section 2), not known: most likely the "
    "IoU is a mean over background and spine, and Dice and F1 are the spine's alone. Accuracy "
    "counts the background, which is nearly everything, so that it tells little about a spine. "
    "Where truth and prediction are both empty, a score is undefined and left out of the mean; "
    "where only the truth is empty, it is 0."
)


def build(results: Mapping, deviations: Sequence[str | Mapping[str, str]]) -> dict:
    """Return everything of the report that is a table or a sentence on numbers, by name.

    Args:
        results: as in `results.json`; `spine_lib.reproduce.report` lists the keys.
        deviations: sentences, or {"setting", "paper", "ours", "note"}.
    """
    paper = _paper(results)
    names = {
        model: str(entry.get("name") or paper.get(model, {}).get("name") or model)
        for model, entry in results["models"].items()
    }
    rows = [one for one in deviations if isinstance(one, Mapping)]
    statistics_of = words.statistics_of(results)
    return {
        "names": names,
        "subtitle": words.subtitle(results),
        "summary": words.summary(results, paper, names),
        "facts": words.facts(results),
        "main": _main_table(results, paper, names),
        "citation": _citation(results),
        "volumes": _volume_table(results, names),
        "empty": words.empty_slices(results, names),
        "intervals": words.intervals(statistics_of, names),
        "seeds": _seed_table(results, names),
        "spread": _spread_table(statistics_of, names),
        "tests": _test_table(statistics_of, names),
        "looks": words.looks(results.get("test_looks")),
        "deviation_table": _deviation_table(rows),
        "deviation_notes": [one for one in deviations if not isinstance(one, Mapping)],
        "target": results.get("target", ""),
        "split": words.data_of(results).get("split", ""),
        "left_out": words.data_of(results).get("left_out") or [],
        "checksums": _checksums(results),
        "environment": _environment(results),
        "recipe": _key_table("Recipe", "Setting", results.get("recipe") or {}),
    }


def _main_table(results: Mapping, paper: Mapping, names: Mapping[str, str]) -> dict:
    groups = []
    for model, name in names.items():
        rows = [_paper_row(paper[model])] if model in paper else []
        groups.append(
            {"name": name, "rows": rows + _our_rows(words.scores_on_test(results, model))}
        )
    caption = results.get("table_note") or "Scores on the test patients."
    return {"caption": caption, "groups": groups, "reading": [_READING]}


def _paper_row(row: Mapping) -> dict:
    cells = [words.number(row.get(key)) for key in ("iou", "dice", "f1")]
    note = "its averaging is not known"
    return row_of("Paper", [*cells, words.percent(row.get("accuracy"))], "paper", note)


def _our_rows(scores: Mapping) -> list[dict]:
    pooled = scores.get("pooled") or {}
    inferred = [None, *_cells(pooled)[1:]]
    rows = [
        row_of("Ours, in the paper's averaging", inferred, "inferred",
             "inferred: pooled, class-mean IoU"),
        row_of("Ours, mean over volumes", _cells(scores.get("per_volume")), "primary", "primary"),
        row_of("Ours, mean over slices", _cells(scores.get("per_slice"))),
        row_of("Ours, pooled voxels", _cells(pooled)),
    ]  # fmt: skip
    return rows


def _cells(scores: Mapping | None) -> list[str]:
    scores, keys = scores or {}, ("iou", "iou_mean", "dice", "f1")
    return [*(words.number(scores.get(key)) for key in keys), words.percent(scores.get("accuracy"))]


def row_of(name: str, cells: list, kind: str = "", note: str = "") -> dict:
    """Collect a row; its name is the first cell."""
    return {"name": name, "cells": cells, "kind": kind, "note": note}


def _volume_table(results: Mapping, names: Mapping[str, str]) -> dict:
    cases = words.cases_of(results)
    shown = [
        (head, key, digits)
        for head, key, digits in _PATIENT_COLUMNS
        if any(
            key in ((words.scores_on_test(results, model).get("volumes") or {}).get(case) or {})
            for model in names
            for case in cases
        )
    ]
    tolerances = {
        volume.get("tolerance_mm")
        for model in names
        for volume in (words.scores_on_test(results, model).get("volumes") or {}).values()
    } - {None}
    rows = []
    for case in cases:
        for model, name in names.items():
            volume = (words.scores_on_test(results, model).get("volumes") or {}).get(case) or {}
            cells = [words.number(volume.get(key), digits) for _, key, digits in shown]
            rows.append(row_of(case, [name, *cells]))
    caption = "Scores of each test case; nothing is averaged."
    if len(tolerances) == 1:
        caption += f" Surface Dice at a tolerance of {tolerances.pop():g} mm."
    return table_of(caption, ["Case", "Model", *(one[0] for one in shown)], rows, (1,))


def _seed_table(results: Mapping, names: Mapping[str, str]) -> dict:
    cases = words.cases_of(results)
    cases = cases if len(cases) <= MOST_COLUMNS else []
    rows, most = [], 0
    for model, name in names.items():
        runs = results["models"][model].get("runs") or []
        most = max(most, len(runs))
        values = [_run_scores(run.get("test") or {}, cases) for run in runs]
        for run, scores in zip(runs, values):
            cells = [str(run.get("seed", words.MISSING)), *map(words.number, scores)]
            rows.append(row_of(name, [*cells, words.duration(run.get("train_seconds"))]))
        if len(runs) > 1:
            rows += _spread_rows(name, values)
    heads = ["Model", "Seed", "Dice, pooled", "Dice, mean over volumes"]
    heads += [*(f"Dice, {case}" for case in cases), "Training"]
    caption = "Test Dice of each training run, and over all of them."
    return table_of(caption, heads, rows) | {"reading": words.seed_reading(most)}


def _run_scores(scores: Mapping, cases: Sequence[str]) -> list[float | None]:
    averages = [(scores.get(key) or {}).get("dice") for key in ("pooled", "per_volume")]
    return [*averages, *(words.volume_scores(scores, case, "dice") for case in cases)]


def _spread_rows(name: str, values: list[list[float | None]]) -> list[dict]:
    known = [[v for v in column if v is not None and math.isfinite(v)] for column in zip(*values)]
    found = [statistics.spread(column) if column else None for column in known]
    means = [words.MISSING if one is None else f"{one.mean:.3f}" for one in found]
    dash = "\N{EN DASH}"
    ranges = [
        words.MISSING if one is None else f"{one.low:.3f}{dash}{one.high:.3f}" for one in found
    ]
    return [
        row_of(name, ["mean", *means, None], "total"),
        row_of(name, ["lowest to highest", *ranges, None], "range"),
    ]


def _spread_table(statistics_of: Mapping, names: Mapping[str, str]) -> dict:
    rows = []
    for model, name in names.items():
        for metric, spread in statistics_of["seeds"].get(model, {}).items():
            if spread["n"] > 1:
                digits = _DIGITS.get(metric, 3)
                cells = [words.number(spread[k], digits) for k in ("mean", "sd", "low", "high")]
                label = patient_statistics.NAMES[metric]
                rows.append(row_of(name, [label, str(spread["n"]), *cells]))
    head = ["Model", "Score", "Seeds", "Mean", "Standard deviation", "Lowest", "Highest"]
    caption = "Means over the test volumes, and their spread over the seeds."
    return table_of(caption, head, rows, (1,))


def _test_table(statistics_of: Mapping, names: Mapping[str, str]) -> dict:
    rows, given, models = [], False, []
    for pair in statistics_of["paired"][:1]:
        models = [pair["first"], pair["second"]]
        for metric, row in pair["metrics"].items():
            digits = _DIGITS.get(metric, 3)
            means = [statistics_of["intervals"].get(m, {}).get(metric) for m in models]
            ps = [words.number(row[key], 4) for key in ("p_value", "p_holm")]
            cells = [*(_estimate(one, digits) for one in means), _estimate(row, digits, "+")]
            label = patient_statistics.NAMES[metric]
            rows.append(row_of(label, [*cells, *ps, str(row["n"])]))
            given = given or row["p_value"] is not None
    head = ["Score", *(names[model] for model in models), "Difference", "p", "p, Holm", "Patients"]
    caption = "Means over patients with 95 % intervals (bootstrap over patients), the difference "
    caption += "of the models on the same patients, and its sign-flip test, alone and corrected "
    caption += "for the number of scores (Holm)."
    return table_of(caption, head, rows if given else [])


def _estimate(found: Mapping | None, digits: int, sign: str = "") -> str:
    """Write a mean with its interval."""
    if found is None or found["estimate"] is None:
        return words.MISSING
    mean, ends = f"{found['estimate']:{sign}.{digits}f}", (found["low"], found["high"])
    if None in ends:
        return mean
    return f"{mean} [{ends[0]:{sign}.{digits}f},\N{NO-BREAK SPACE}{ends[1]:{sign}.{digits}f}]"


def _checksums(results: Mapping) -> dict:
    found = words.data_of(results).get("checksums") or {}
    rows = [row_of(str(name), [value]) for name, value in sorted(found.items())]
    return table_of(
        "SHA-256 of the slices that were trained on, and of the test volumes as they were scored.",
        ["Data", "SHA-256"],
        rows,
        (1,),
    )


def _deviation_table(rows: Sequence[Mapping[str, str]]) -> dict:
    cells = []
    for row in rows:
        texts = [row.get("paper") or "unknown", row.get("ours", words.MISSING), row.get("note")]
        cells.append(row_of(str(row.get("setting", "")), [str(text or "") for text in texts]))
    caption = "What we did where the paper did something else, or where we do not know what it did."
    return table_of(caption, ["Setting", "Paper", "Here", "Remark"], cells, (1, 2, 3))


def _environment(results: Mapping) -> dict:
    device = results.get("device")
    facts = dict(device) if isinstance(device, Mapping) else {"device": device or "not recorded"}
    facts |= results.get("environment") or {}
    facts |= results.get("versions") or {}
    return _key_table("Environment", "What", facts)


def _key_table(caption: str, head: str, facts: Mapping) -> dict:
    rows = [row_of(str(name), [words.plain(value)]) for name, value in facts.items()]
    return table_of(caption, [head, "Value"], rows, (1,))


def table_of(caption: str, head: list[str], rows: list[dict], text: tuple[int, ...] = ()) -> dict:
    """Collect a table; `text` names the columns that hold words and stand on the left."""
    return {"caption": caption, "head": head, "rows": rows, "text": text}


def _paper(results: Mapping) -> Mapping[str, Mapping]:
    if results.get("paper"):
        return results["paper"]
    # paper.py calls the report, so that it can only be asked for its table at this point.
    from spine_lib.metrics.paper import PAPER

    return PAPER


def _citation(results: Mapping) -> str:
    from spine_lib.metrics.paper import CITATION

    return str(results.get("citation", CITATION))
