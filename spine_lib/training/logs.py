"""The log of a training: rows of numbers by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from spine_lib import SpineError

Rows = Sequence[Mapping[str, object]]


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Load the `metrics.csv` of Lightning's CSV logger.

    Returns:
        One dict for each row, with the cells that hold a number.

    Raises:
        SpineError: if the file is missing or holds no rows.
    """
    try:
        table = pd.read_csv(path).apply(pd.to_numeric, errors="coerce")
    except (OSError, ValueError) as error:
        raise SpineError(f"The log {path} cannot be read ({error}): give a metrics.csv.") from error
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
