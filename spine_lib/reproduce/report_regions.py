"""Turn what `results.json` holds by region, and on calibration, into tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping

from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics.calibration import REACH_MM
from spine_lib.reproduce import report_names
from spine_lib.reproduce import report_words as words
from spine_lib.reproduce.report_tables import row_of, table_of

HOW = (
    "What they found and missed is counted to the region of the true voxel, a false positive to "
    "the region of the nearest true voxel, however far away. A mean is over the volumes that show "
    "the region."
)
BINARY = "The networks tell spine from background only. "
NAMING = "The names that the networks give to regions play no part in this table. "


def build(results: Mapping, names: Mapping[str, str]) -> dict:
    """Return the tables and sentences on regions and calibration, by name."""
    shown = words.regions_shown(results)
    return {
        "regions_shown": shown,
        "region_notes": _notes(results, shown) if shown else [],
        "region_table": _region_table(results, names, shown),
        "region_volumes": _volume_table(results, names, shown),
        "calibration_table": _calibration_table(results, names),
        **report_names.build(results, names),
    }


def _notes(results: Mapping, shown: list[str]) -> list[str]:
    counts = {region: len(words.region_cases(results, region)) for region in shown}
    listed = words.listed(
        f"{region} ({count} volume{'' if count == 1 else 's'})" for region, count in counts.items()
    )
    phantom = words.data_of(results).get("name") == "phantom"
    kind = "phantom" if phantom else "real case"
    naming = any(report_names.found_by(results, model) for model in results["models"])
    notes = [(NAMING if naming else BINARY) + HOW]
    notes += [f"The test volumes show these regions: {listed}."]
    missing = [region for region in REGIONS if region not in shown]
    if missing:
        notes.append(
            f"No {kind} of the test part shows a scored {words.listed(missing, 'or')} region, so "
            "that nothing is said about it here."
        )
    if phantom:
        notes.append("All of them are phantoms: nothing follows for a region of a real patient.")
    return notes


def _region_table(results: Mapping, names: Mapping[str, str], shown: list[str]) -> dict:
    rows = []
    for region in REGIONS if shown else ():
        for model, name in names.items():
            found = (words.scores_on_test(results, model).get("regions") or {}).get(region)
            if found is None:
                rows.append(row_of(region, [name, "0", None, None, None]))
                continue
            scores = [words.number(found[key]) for key in ("dice", "recall", "pooled_dice")]
            rows.append(row_of(region, [name, f"{found['volumes']:g}", *scores]))
    head = ["Region", "Model", "Volumes", "Dice, mean", "Recall, mean", "Dice, pooled"]
    return table_of("Scores by region; a dash where no test volume shows it.", head, rows, (1,))


def _volume_table(results: Mapping, names: Mapping[str, str], shown: list[str]) -> dict:
    rows = []
    for case in words.cases_of(results):
        for region in shown:
            found = [words.case_regions(results, model, case).get(region) for model in names]
            if any(found):
                values = ((one or {}).get(key) for one in found for key in ("dice", "recall"))
                cells = [words.number(value) for value in values]
                rows.append(row_of(case, [region, *cells]))
    head = [f"{what}, {name}" for name in names.values() for what in ("Dice", "Recall")]
    return table_of("The regions of each test volume.", ["Case", "Region", *head], rows, (1,))


def _calibration_table(results: Mapping, names: Mapping[str, str]) -> dict:
    rows = []
    for model, name in names.items():
        found = words.scores_on_test(results, model).get("calibration") or {}
        if found.get("voxels"):
            bins = found["bins"].values()
            stated = sum(one["probability"] for one in bins) / found["voxels"]
            real = sum(one["spine"] for one in bins) / found["voxels"]
            cells = [words.number(found["ece"]), words.percent(stated), words.percent(real)]
            rows.append(row_of(name, [*cells, f"{found['voxels']:,.0f}"]))
    caption = f"Calibration over the voxels within {REACH_MM:g} mm of the true spine, all test "
    caption += "volumes together; probabilities before the threshold and the clean-up."
    head = ["Model", "Expected calibration error", "Spine, as stated", "Spine, in truth", "Voxels"]
    return table_of(caption, head, rows)
