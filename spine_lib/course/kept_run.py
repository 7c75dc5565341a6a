"""The results of a finished run, to be read in a lesson: the kept built-in run, or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spine_lib import SpineError
from spine_lib.metrics.statistics import mean_per_patient
from spine_lib.reproduce.report_words import volume_scores

KEPT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "reproduce.json"
"""Where a source tree keeps the results of the built-in run; an installed package has none."""


def kept_run(instead: Path | None = None, kept: Path = KEPT) -> tuple[dict[str, Any], str]:
    """Load the kept results of the built-in run, or of another run where they are not there.

    Args:
        instead: folder of a run, as `reproduce` returns it.
        kept: file of the kept results.

    Returns:
        What `results.json` holds, and a note that is empty for the kept run and says otherwise
        which run stands in for it and why.

    Raises:
        SpineError: if neither is there, or a file is broken.
    """
    if kept.is_file():
        return read_results(kept), ""
    if instead is None:
        raise SpineError(
            f"The kept results of the built-in run are not there ({kept.name} comes with the "
            "source tree): run `spine reproduce` and name the folder of its run."
        )
    note = (
        f"The run {instead.name!r} stands in for the built-in run, whose kept results come with "
        "the source tree only. The lesson goes on as it is; its scores are those of that run."
    )
    return read_results(instead / "results.json"), note


def read_results(path: Path) -> dict[str, Any]:
    """Read the `results.json` of a run.

    Raises:
        SpineError: if it is not there, is no JSON, or holds no models.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpineError(
            f"{path} cannot be read as results of a run ({error}): run `spine reproduce` again."
        ) from error
    if not isinstance(results, dict) or not results.get("models"):
        raise SpineError(f"{path} holds no models: give the results.json of a finished run.")
    return results


def seeds_of(results: dict[str, Any]) -> list[int]:
    """Return the seeds that were trained, in order."""
    runs = [run for entry in results["models"].values() for run in entry["runs"]]
    return sorted({run["seed"] for run in runs})


def scores_by_patient(
    results: dict[str, Any], score: str = "dice"
) -> dict[str, dict[str, list[float]]]:
    """Return one score of every training run, by model id and patient id.

    Args:
        results: what `results.json` holds.
        score: its name, for example "dice".

    Returns:
        For each patient a value for each run, NaN where it is undefined; the mean where a patient
        has several cases.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for model, entry in results["models"].items():
        rows = found.setdefault(model, {})
        for run in entry["runs"]:
            volumes = run["test"]["volumes"]
            scores = {case: volume_scores(run["test"], case, score) for case in volumes}
            patients = {case: volume.get("patient_id", case) for case, volume in volumes.items()}
            for patient, value in mean_per_patient(scores, patients).items():
                rows.setdefault(patient, []).append(value)
    return found
