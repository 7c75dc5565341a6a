"""The log of a training: rows of numbers by step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file

Rows = Sequence[Mapping[str, object]]


class MetricsLog(Logger):
    """A `metrics.csv` that goes on where a run was stopped; Lightning's own would begin anew.

    `steps` is how many the resumed checkpoint has done; later rows will be logged once more.
    """

    name = version = ""

    def __init__(self, path: Path, steps: int) -> None:
        super().__init__()
        self.path = path
        goes_on = steps and path.is_file()
        self.rows = [row for row in read_log(path) if row["step"] < steps] if goes_on else []

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row."""
        self.rows.append({**metrics, "step": step})

    def log_hyperparams(self, *args, **kwargs) -> None:
        """Nothing: the checkpoints have the recipe."""

    @rank_zero_only
    def save(self) -> None:
        """Write all rows, whole or not at all."""
        if self.rows:
            table = pd.DataFrame(self.rows).sort_index(axis=1).astype({"step": int})
            with atomic_file(self.path) as stream:
                table.to_csv(stream, index=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Load a `metrics.csv`: one dict for each row, with the cells that hold a number."""
    try:
        table = pd.read_csv(path).apply(pd.to_numeric, errors="coerce")
    except (OSError, ValueError) as error:
        raise SpineError(f"The log {path} cannot be read ({error}): give a metrics.csv.") from error
    if "step" not in table:
        raise SpineError(f"The log {path} has no column 'step': give a metrics.csv.")
    rows = [
        {key: float(cell) for key, cell in row.items() if np.isfinite(cell)}
        for row in table.to_dict("records")
    ]
    if not any(rows):
        raise SpineError(f"The log {path} holds no numbers: train first.")
    return rows


def points(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which a value was logged, rising, and the values."""
    columns = pd.DataFrame(list(rows)).reindex(columns=["step", key])
    numbers = columns.apply(pd.to_numeric, errors="coerce").replace([np.inf, -np.inf], np.nan)
    steps, values = numbers.dropna().sort_values(["step", key]).to_numpy(float).T
    return steps, values
