"""Turn what `results.json` holds on regions that a network names itself into tables and words."""

from __future__ import annotations

from collections.abc import Mapping

from spine_lib.annotations.schemes import REGIONS
from spine_lib.metrics.regions import CLASSES
from spine_lib.reproduce import report_words as words
from spine_lib.reproduce.report_tables import row_of, table_of

HOW = (
    "These networks also say which region each voxel of their spine belongs to. Dice by name "
    "compares the voxels of a region with those that were given its name: a vertebra that is found "
    "and called by the wrong name is missed in its own region and false in the other. Dice by "
    "place is that of the table above, which sets the names aside; what it is higher by is the "
    "price of wrong names.",
    "Where neither truth nor prediction has a region, its Dice is undefined and left out of the "
    "mean; where only the prediction has it, it is 0.",
)

READING = (
    "A row is what the truth says, a column what the network calls it, with the share of the row: "
    "right names lie on the diagonal. The first column is spine that was missed, the first row is "
    "background that was taken for spine. Background that both call so is not counted."
)


def build(results: Mapping, names: Mapping[str, str]) -> dict:
    """Return the tables and sentences on named regions; empty if no network names any."""
    naming = {model: name for model, name in names.items() if found_by(results, model)}
    return {
        "named_notes": HOW if naming else (),
        "named_table": _scores(results, naming),
        "confusion_tables": [_matrix(results, model, name) for model, name in naming.items()],
        "confusion_reading": READING,
    }


def found_by(results: Mapping, model: str) -> Mapping:
    """Return what a model scores on the regions that it names; empty if it names none."""
    return words.scores_on_test(results, model).get("named") or {}


def sentence(results: Mapping, names: Mapping[str, str]) -> str:
    """Say how well the regions were named, all test voxels together; empty if none were."""
    reached = [
        f"{name} {words.number(found['mean_pooled_dice'])}"
        for model, name in names.items()
        if (found := found_by(results, model))
    ]
    if not reached:
        return ""
    return f"The networks name the regions: mean pooled Dice by name, {words.listed(reached)}."


def _scores(results: Mapping, naming: Mapping[str, str]) -> dict:
    rows = []
    for region in REGIONS if naming else ():
        for model, name in naming.items():
            found = found_by(results, model)
            place = (words.scores_on_test(results, model).get("regions") or {}).get(region) or {}
            cells = [found["dice"][region], place.get("dice")]
            cells += [found["pooled_dice"][region], place.get("pooled_dice")]
            count = f"{found['volumes'][region]:g}"
            rows.append(row_of(region, [name, count, *map(_number, cells)]))
    for model, name in naming.items():
        found = found_by(results, model)
        means = [found["mean_dice"], None, found["mean_pooled_dice"], None]
        rows.append(row_of("mean of the regions", [name, None, *map(_number, means)], "total"))
    head = ["Region", "Model", "Volumes", "Dice by name, mean", "Dice by place, mean"]
    head += ["Dice by name, pooled", "Dice by place, pooled"]
    caption = "Regions as the networks name them, beside the spine found in their place. Volumes: "
    caption += "those in which truth or prediction has the region. The last row is the mean over "
    caption += "the regions of a volume, then over volumes, and the mean of the pooled Dice."
    return table_of(caption, head, rows, (1,))


def _number(value: float | None) -> str | None:
    return None if value is None else words.number(value)


def _matrix(results: Mapping, model: str, name: str) -> dict:
    rows = []
    for true, row in found_by(results, model)["confusion"].items():
        whole = sum(row.values())
        cells = [_share(row[called], whole) if called in row else None for called in CLASSES]
        rows.append(row_of(true, cells))
    caption = f"{name}: voxels of all test volumes by true region and by the name they were given."
    return table_of(caption, ["Truth", *(f"called {one}" for one in CLASSES)], rows)


def _share(count: float, whole: float) -> str:
    return f"{count:,.0f} ({100 * count / whole:.0f} %)" if whole else "0"
