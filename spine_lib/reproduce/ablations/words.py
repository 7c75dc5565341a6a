"""Put the results of ablations into words: a table as text and as Markdown, and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jinja2

from spine_lib.reproduce.ablations.comparing import GROUPS
from spine_lib.reproduce.ablations.variants import ABLATIONS
from spine_lib.reproduce.compare import aligned
from spine_lib.reproduce.report_words import duration

CLEARLY = 0.05
"""A Dice that is higher by less than this is not called clearly above another."""

DASH, SPACE = "\N{EN DASH}", "\N{NO-BREAK SPACE}"


def catalogue(kept: Mapping[str, Mapping]) -> str:
    """List the ablations, each with its line and what was kept of it."""
    lines = []
    for name, ablation in ABLATIONS.items():
        lines.append(f"{name:11} {ablation.line}")
        if name in kept:
            lines.append(f"{'':11} kept: {finding(kept[name])}")
        else:
            lines.append(f"{'':11} nothing is kept of it yet")
    return "\n".join([*lines, "spine ablate NAME measures one of them, spine ablate all all."])


def value(number: float | None, sign: str = "") -> str:
    """Write a Dice or a difference with three decimals; a dash where there is none."""
    if number is None or not math.isfinite(number):
        return DASH
    return f"{number:{sign}.3f}"


def groups_of(results: Mapping) -> list[str]:
    """Return the groups of cases that were scored."""
    dice = results["variants"][results["reference"]]["dice"]
    return [group for group in GROUPS if group in dice]


def comparison(results: Mapping, variant: str, group: str) -> Mapping | None:
    """Return the row that compares a variant with the reference; None for the reference."""
    for row in results["comparisons"]:
        if row["variant"] == variant and row["group"] == group:
            return row
    return None


def table(results: Mapping) -> list[tuple[str, ...]]:
    """Return the table of an ablation: a head, then the reference, then the other variants.

    Real patients have a column each as long as they are too few for an interval.
    """
    head = ("", *(cell for group in groups_of(results) for cell in _head(results, group)))
    rows = [head]
    for name, entry in results["variants"].items():
        cells = [
            cell for group in groups_of(results) for cell in _cells(results, name, entry, group)
        ]
        rows.append((entry["label"], *cells))
    return rows


def _few(results: Mapping, group: str) -> bool:
    rows = [row for row in results["comparisons"] if row["group"] == group]
    return all(row["low"] is None for row in rows)


def _names(results: Mapping, group: str) -> list[str]:
    return list(results["variants"][results["reference"]]["dice"][group])


def _head(results: Mapping, group: str) -> list[str]:
    if _few(results, group):
        return [f"Dice, {name} (difference)" for name in _names(results, group)]
    count = len(_names(results, group))
    return [
        f"Dice, {count} {group}",
        "difference [95 %]",
        "p, Holm",
        "by seed",
        f"reading, {group}",
    ]


def _cells(results: Mapping, name: str, entry: Mapping, group: str) -> list[str]:
    row, dice = comparison(results, name, group), entry["dice"][group]
    if _few(results, group):
        return [_with_difference(dice[case], row, case) for case in _names(results, group)]
    mean = value(sum(dice.values()) / len(dice))
    if row is None:
        return [mean, "reference", "", "", ""]
    p_holm = DASH if row["p_holm"] is None else f"{row['p_holm']:.4f}"
    return [mean, estimate(row), p_holm, seeds(row), row["reading"]]


def _with_difference(score: float, row: Mapping | None, case: str) -> str:
    if row is None:
        return value(score)
    text = f"{value(score)} ({value(row['cases'][case], '+')}"
    ends = _ends([of[case] for of in row["by_seed"].values()])
    return f"{text}; {ends})" if ends else f"{text})"


def estimate(row: Mapping) -> str:
    """Write a mean difference with its interval, where there is one."""
    text = value(row["estimate"], "+")
    if row["low"] is None:
        return text
    return f"{text} [{value(row['low'], '+')},{SPACE}{value(row['high'], '+')}]"


def seeds(row: Mapping) -> str:
    """Write between which values the mean difference lies with single seeds."""
    spread = row.get("seeds")
    return _range(spread["low"], spread["high"]) if spread else DASH


def _range(low: float, high: float) -> str:
    return f"{value(low, '+')}{SPACE}to{SPACE}{value(high, '+')}"


def _ends(values: Sequence[float | None]) -> str:
    known = [one for one in values if one is not None and math.isfinite(one)]
    if len(known) < 2:
        return ""
    return _range(min(known), max(known))


def text(results: Mapping) -> str:
    """Write the whole table as plain text, with what is to be known beside it."""
    return "\n".join([results["line"], *aligned(table(results)), *notes(results)])


def markdown(results: Mapping) -> str:
    """Write the table as Markdown."""
    head, *rows = table(results)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def notes(results: Mapping) -> list[str]:
    """Return sentences on how the table is to be read."""
    count = len(results["seeds"])
    sentences = [
        results["note"],
        f"Means over {count} seed{'s' if count != 1 else ''} "
        f"({', '.join(map(str, results['seeds']))}); differences are to {results_label(results)}.",
        *_on_intervals(results),
    ]
    cautions = dict.fromkeys(entry["caution"] for entry in results["variants"].values())
    sentences += [caution for caution in cautions if caution]
    if left_out := results.get("left_out"):
        sentences.append(f"Left out, as they cannot be read: {', '.join(left_out)}.")
    if results.get("trivial"):
        sentences.append(_trivial(results))
    sentences.append(
        f"Wall time of its trainings added up, other work on the machine included: "
        f"{duration(results['train_seconds'])}, {results['at_once']} beside each other on "
        f"{results['device']}."
    )
    return sentences


def _on_intervals(results: Mapping) -> list[str]:
    sentences = []
    if any(row["low"] is not None for row in results["comparisons"]):
        sentences.append(
            "Intervals are over patients, for the networks that were trained; what training once "
            "more does to the difference shows in the range over the seeds."
        )
    if "patients" in groups_of(results) and _few(results, "patients"):
        reasons = [row["reason"] for row in results["comparisons"] if row["group"] == "patients"]
        sentences.append(
            f"Real patients: {reasons[0]} In brackets each patient's difference, and between which "
            "values it lies with single seeds."
        )
    return sentences


def _trivial(results: Mapping) -> str:
    """Set the reference beside what needs no network."""
    dice = results["variants"][results["reference"]]["dice"]["patients"]
    texts = []
    for case, of in sorted(results["trivial"].items()):
        beaten = dice[case] > of["best threshold"] + CLEARLY
        texts.append(
            f"{value(dice[case])} on {case}, where the best threshold of bone scores "
            f"{value(of['best threshold'])} and calling the whole box spine "
            f"{value(of['whole box'])}{'' if beaten else ', so it is not clearly above trivial'}"
        )
    return f"How good such a short run is: {results_label(results)} scores {'; '.join(texts)}."


def results_label(results: Mapping) -> str:
    """Return the label of the reference."""
    return f"'{results['variants'][results['reference']]['label']}'"


def document(kept: Mapping[str, Mapping]) -> str:
    """Write the page of the benchmarks that holds the kept tables."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_lib.reproduce", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found = [kept[name] for name in ABLATIONS if name in kept]
    return environment.get_template("ablations.md").render(
        ablations=[{"results": one, "table": markdown(one), "notes": notes(one)} for one in found],
        missing=[name for name in ABLATIONS if name not in kept],
        first=found[0],
    )


def finding(results: Mapping) -> str:
    """Say in one or two sentences what an ablation found, for a remark elsewhere."""
    labels = {name: _bare(entry["label"]) for name, entry in results["variants"].items()}
    reference = labels.pop(results["reference"])
    texts = [f"{label}: {_finding(results, name)}" for name, label in labels.items()]
    return f"Ablation in short runs, difference in Dice to '{reference}': {'; '.join(texts)}."


def _bare(label: str) -> str:
    """Leave out what is only true beside the recipe of the ablation."""
    return label.removesuffix(" (the recipe)")


def _finding(results: Mapping, variant: str) -> str:
    rows = [comparison(results, variant, group) for group in groups_of(results)]
    said = []
    for row in rows:
        if row["low"] is not None and row["fair"]:
            said.append(f"{estimate(row)} on {row['n']} {row['group']}, {row['reading']}")
        elif row["low"] is None:
            said.append(", ".join(f"{value(d, '+')} on {case}" for case, d in row["cases"].items()))
    return "; ".join(reversed(said))
