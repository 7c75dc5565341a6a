"""Draw the results of ablations and put them on one page that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import cycle
from pathlib import Path

import jinja2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spine_lib.ct.files import atomic_file
from spine_lib.explore import figures
from spine_lib.reproduce.ablations import words
from spine_lib.reproduce.report_plots import Plot, as_plot
from spine_lib.reproduce.report_words import duration

STEP = 0.17
"""Distance of the lines of one variant, of 1 between variants."""


def forest_plot(results: Mapping) -> Plot:
    """Draw every variant's difference to the reference, a group with an interval as one line.

    A group of too few patients for an interval is drawn patient by patient, with a thin line over
    the seeds in the place of the interval.
    """
    series = _series(results)
    names = [entry["label"] for key, entry in _others(results)]
    with mpl.rc_context(figures.STYLE):
        height = 1.3 + len(names) * (0.35 + STEP * len(series))
        figure = Figure(figsize=(6.6, height), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="#555555", linewidth=1)
        for number, ((name, rows), look) in enumerate(
            zip(series.items(), cycle(figures.LINE_STYLES))
        ):
            offset = (number - (len(series) - 1) / 2) * STEP
            _draw(axes, rows, offset, name, look)
        reference = results["variants"][results["reference"]]["label"]
        axes.set(xlabel=f"difference in Dice to: {reference}", ylim=(len(names) - 0.5, -0.5))
        axes.set_yticks(range(len(names)), names)
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(3, len(series)))
    caption = (
        "Thick lines with a filled mark: mean difference and 95 % interval over patients. Thin "
        "lines with an open mark: one patient, with its range over the seeds, which is no "
        "interval. Right of the line at 0 the variant is better."
    )
    return as_plot(figure, _alt(results, series), caption)


def _others(results: Mapping) -> list[tuple[str, Mapping]]:
    return [(n, entry) for n, entry in results["variants"].items() if n != results["reference"]]


def _series(results: Mapping) -> dict[str, list[dict]]:
    """Return by name of a mark, for each variant, "mid", "low", "high" and whether "sure"."""
    series: dict[str, list[dict]] = {}
    for group in reversed(words.groups_of(results)):
        for name, _ in _others(results):
            row = words.comparison(results, name, group)
            if row["low"] is not None:
                label = f"{row['n']} {group}"
                one = {"mid": row["estimate"], "low": row["low"], "high": row["high"]}
                series.setdefault(label, []).append({**one, "sure": True})
                continue
            for case, mid in row["cases"].items():
                values = _numbers([mid, *(of[case] for of in row["by_seed"].values())])
                one = {"mid": mid, "low": min(values), "high": max(values), "sure": False}
                series.setdefault(case, []).append(one)
    return series


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None] or [float("nan")]


def _draw(axes: Axes, rows: Sequence[Mapping], offset: float, name: str, look: Mapping) -> None:
    colour = look["color"]
    for place, row in enumerate(rows):
        height = place + offset
        width = 2.2 if row["sure"] else 0.9
        axes.plot([row["low"], row["high"]], [height] * 2, color=colour, linewidth=width)
        axes.plot(
            [np.nan if row["mid"] is None else row["mid"]],
            [height],
            linestyle="none",
            marker=look["marker"],
            markersize=6,
            color=colour,
            markerfacecolor=colour if row["sure"] else "white",
            label=name if place == 0 else None,
        )


def _alt(results: Mapping, series: Mapping[str, Sequence[Mapping]]) -> str:
    texts = []
    for place, (_, entry) in enumerate(_others(results)):
        parts = [
            f"{name} {words.value(rows[place]['mid'], '+')} (from "
            f"{words.value(rows[place]['low'], '+')} to {words.value(rows[place]['high'], '+')})"
            for name, rows in series.items()
        ]
        texts.append(f"{entry['label']}: {', '.join(parts)}")
    return f"Forest plot of differences in Dice. {'; '.join(texts)}."


# --- the page -------------------------------------------------------------------------------------


def write_page(
    ablations: Sequence[Mapping], path: Path, title: str = "Ablations: what one setting brings"
) -> Path:
    """Write one self-contained page on one or several ablations.

    Args:
        ablations: what `ablation.json` holds of each.
        path: the file to write.
        title: of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("spine_lib.reproduce", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("ablation.html").render(
        title=title, style=report_style(), sections=[_section(one) for one in ablations]
    )
    with atomic_file(Path(path)) as stream:
        stream.write(page.encode())
    return Path(path)


def report_style() -> str:
    """Return the style of `report.html`, so that both pages look alike."""
    template = resources.files("spine_lib.reproduce") / "templates" / "report.html"
    return re.search(r"<style>\n(.*?)</style>", template.read_text("utf-8"), re.S)[1]


def _section(results: Mapping) -> dict:
    head, *rows = words.table(results)
    return {
        "name": results["name"],
        "heading": results["line"][0].upper() + results["line"][1:],
        "head": head,
        "text": [place for place, cell in enumerate(head) if cell.startswith("reading")],
        "rows": rows,
        "plot": forest_plot(results),
        "notes": words.notes(results),
        "changes": [
            (entry["label"], _plain(entry["changes"]), entry["model"])
            for entry in results["variants"].values()
        ],
        "facts": _facts(results),
        "recipe": [(name, _plain(value)) for name, value in results["recipe"].items()],
        "checksums": list(results["checksums"].items()),
        "command": results["command"],
    }


def _facts(results: Mapping) -> list[tuple[str, str]]:
    return [
        ("network", results["model"]),
        ("seeds", ", ".join(map(str, results["seeds"]))),
        ("trainings took", duration(results["train_seconds"])),
        ("device", results["device"]),
        ("date", results["created"]),
        *results["versions"].items(),
    ]


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items()) or "nothing"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return "none" if value is None else str(value)
