"""Put the numbers of `results.json` into the words of the report.

Nothing is invented here: a value that the results do not hold becomes a dash or "not recorded",
and a score that is undefined is called so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics import statistics
from spine_lib.reproduce import patient_statistics

MISSING = "\N{EN DASH}"
_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def number(value: object, digits: int = 3) -> str:
    """Format a score: a dash if it is absent, a word if it is undefined or infinite.

    Example:
        >>> number(0.91236), number(float("nan")), number(float("inf"))
        ('0.912', 'undefined', 'infinite')
    """
    if value is None or isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else MISSING
    value = float(value)  # type: ignore[arg-type]
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite"
    return f"{value:.{digits}f}"


def percent(value: object) -> str:
    """Format a fraction as per cent with one decimal, two above 99 %."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return number(value)
    return f"{100 * value:.{2 if value > 0.99 else 1}f} %"


def duration(seconds: object) -> str:
    """Format seconds as seconds, minutes or hours."""
    if not isinstance(seconds, int | float):
        return "not recorded"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def plain(value: object) -> str:
    """Write a value of any built-in type in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def scores_on_test(results: Mapping, model: str) -> Mapping:
    """Return a model's test scores, as far as there are any."""
    return results["models"][model].get("test") or {}


def volume_scores(scores: Mapping, case: str, key: str) -> float:
    """Return one score of one case, NaN if there is none."""
    value = (scores.get("volumes") or {}).get(case, {}).get(key)
    return math.nan if value is None else float(value)


def cases_of(results: Mapping) -> list[str]:
    """Return the test cases in the order in which they first appear."""
    found = (scores_on_test(results, model).get("volumes") or {} for model in results["models"])
    return list(dict.fromkeys(case for volumes in found for case in volumes))


def case_regions(results: Mapping, model: str, case: str) -> Mapping[str, Mapping]:
    """Return the scores of one case by region; empty if there are none."""
    volumes = scores_on_test(results, model).get("volumes") or {}
    return (volumes.get(case) or {}).get("regions") or {}


def region_cases(results: Mapping, region: str) -> list[str]:
    """Return the test cases that show a region."""
    models = results["models"]
    return [
        case
        for case in cases_of(results)
        if any(region in case_regions(results, model, case) for model in models)
    ]


def regions_shown(results: Mapping) -> list[str]:
    """Return the regions that the test cases show, from the head down."""
    return [region for region in REGIONS if region_cases(results, region)]


def region_scores(results: Mapping, model: str, region: str) -> list[float]:
    """Return the Dice of one region in each test case that shows it."""
    found = (case_regions(results, model, case).get(region) for case in cases_of(results))
    return [one["dice"] for one in found if one is not None and one["dice"] is not None]


def subtitle(results: Mapping) -> str:
    """Say on which data and when."""
    data = data_of(results)
    parts = [f"Data: {data['name']}" if data.get("name") else "", results.get("created")]
    return " \N{MIDDLE DOT} ".join(str(part) for part in parts if part)


def summary(results: Mapping, paper: Mapping, names: Mapping[str, str]) -> list[str]:
    """Say what was reached, and what it can be compared with."""
    data = data_of(results)
    reached = []
    for model, name in names.items():
        pooled = number((scores_on_test(results, model).get("pooled") or {}).get("dice"))
        theirs = paper.get(model, {}).get("dice")
        reached.append(f"{name} {pooled}" + (f" (paper: {number(theirs)})" if theirs else ""))
    sentences = [f"Pooled Dice of the spine on the test patients: {listed(reached)}."]
    if data.get("train") and data.get("test"):
        models, train, test = (
            _count(items, noun)
            for items, noun in ((names, "model"), (data["train"], "case"), (data["test"], "case"))
        )
        scope = f"{models} trained on {train} and tested on {test} of other patients."
        sentences[0] = f"{scope[0].upper()}{scope[1:]} {sentences[0]}"
    if not data.get("same_as_paper"):
        sentences.append(
            "The paper's figures rest on other data (1089 CT volumes), so that ours stand beside "
            "them for orientation: they neither confirm nor refute them."
        )
    return sentences


def facts(results: Mapping) -> list[tuple[str, str]]:
    """Return the figures that head the report, by name."""
    memory = results.get("peak_memory_mb")
    device = results.get("device")
    device = device.get("name", MISSING) if isinstance(device, Mapping) else device
    return [
        ("Preparing, training, testing", duration(results.get("wall_seconds"))),
        ("Peak memory", f"{memory / 1024:.1f} GB" if memory else "not recorded"),
        ("Device", str(device or "not recorded")),
        ("Test cases", str(len(cases_of(results)))),
        ("Seeds", listed(_seeds(results)) or "not recorded"),
    ]


def looks(looks: object) -> str:
    """Say how often the test patients were looked at."""
    if looks is None:
        return "This was not recorded."
    note = ""
    if isinstance(looks, Mapping):
        looks, note = looks.get("count"), str(looks.get("note", ""))
    if isinstance(looks, str):
        return looks
    times = {0: "never before this run", 1: "once"}.get(looks, f"{looks} times")
    return f"The test patients were looked at {times}. {note}".strip()


def empty_slices(results: Mapping, names: Mapping[str, str]) -> list[str]:
    """Say how slices without spine were counted."""
    sentences = []
    for model, name in names.items():
        scores = scores_on_test(results, model).get("per_slice") or {}
        if "defined" in scores:
            sentences.append(
                f"{name}: of the test slices, {scores['defined']:g} are scored, "
                f"{scores.get('undefined', 0):g} are undefined (no spine in truth or prediction), "
                f"and {scores.get('false_positive_on_empty', 0):g} of the scored hold no spine but "
                "a prediction (score 0)."
            )
    return sentences


def seed_reading(most: int) -> str:
    """Say what the spread over seeds means, for the most runs that a model has."""
    if most == 0:
        return "No runs were recorded one by one."
    if most == 1:
        return "One seed was trained, so that nothing can be said about how training varies."
    return (
        "The spread over seeds is how much training varies by itself. It says nothing about "
        "other patients."
    )


def intervals(statistics_of: Mapping, names: Mapping[str, str]) -> list[str]:
    """Say the intervals and the paired tests over patients, or why they are not given.

    Args:
        statistics_of: what `patient_statistics.of_models` gives.
        names: of the models.
    """
    sentences, too_few = [], set()
    for model, name in names.items():
        interval = statistics_of["intervals"].get(model, {}).get("dice")
        if interval is None or interval["low"] is None:
            too_few.add(interval["n"] if interval else 0)
        else:
            sentences.append(
                f"{name}: Dice {interval['estimate']:.3f}, 95 % interval {interval['low']:.3f} to "
                f"{interval['high']:.3f} (bootstrap over {interval['n']} patients)."
            )
    if too_few:
        return sentences + [_not_given(n) for n in sorted(too_few)]
    return sentences + [_paired(pair, names) for pair in statistics_of["paired"]]


def _not_given(n: int) -> str:
    which = "1 patient is" if n == 1 else f"{n} patients are"
    least = f"; with {n}, a sign-flip test cannot reach p < {2 / 2**n:g}" if n > 1 else ""
    return (
        f"Intervals and p-values: not given, because {which} too few. At least "
        f"{statistics.MINIMUM_PATIENTS} are needed{least}."
    )


def _paired(pair: Mapping, names: Mapping[str, str]) -> str:
    one, two, dice = names[pair["first"]], names[pair["second"]], pair["metrics"]["dice"]
    if dice["p_value"] is None:
        return f"{one} against {two}: {dice['reason']}"
    asked = sum(row["p_value"] is not None for row in pair["metrics"].values())
    return (
        f"{one} less {two}: mean difference in Dice {dice['estimate']:+.3f}, p = "
        f"{dice['p_value']:.3g} (sign-flip test over {dice['n']} patients), "
        f"{dice['p_holm']:.3g} after Holm's correction for {asked} metrics."
    )


def statistics_of(results: Mapping) -> Mapping:
    """Return the statistics that the results hold, or compute them."""
    return results.get("statistics") or patient_statistics.of_models(results["models"])


def data_of(results: Mapping) -> Mapping:
    """Return what is recorded about the data, which may be no more than a name."""
    data = results.get("data")
    return data if isinstance(data, Mapping) else {"name": data} if data else {}


def listed(items: Iterable[str], last: str = "and") -> str:
    """Write items as a list in a sentence."""
    items = list(items)
    joined = f" {last} " if len(items) > 1 else ""
    return ", ".join(items[:-1]) + joined + items[-1] if items else ""


def _count(items: Sequence | Mapping, noun: str) -> str:
    count = len(items)
    return f"{_COUNTS[count] if count < len(_COUNTS) else count} {noun}" + (
        "" if len(items) == 1 else "s"
    )


def _seeds(results: Mapping) -> list[str]:
    runs = [run for entry in results["models"].values() for run in entry.get("runs") or ()]
    return list(dict.fromkeys(str(run["seed"]) for run in runs if "seed" in run))
