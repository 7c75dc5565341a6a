"""Read what a training run logged: rows of numbers by step."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from spine_lib import SpineError

Rows = Sequence[Mapping[str, object]]


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Read the `metrics.csv` of Lightning's CSV logger.

    Returns:
        One dict for each row, with the cells that hold a number.

    Raises:
        SpineError: if the file is missing or holds no rows.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            raw = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpineError(f"The log {path} cannot be read ({error}): give a metrics.csv.") from error
    rows = [
        {key: number for key, cell in row.items() if (number := _number(cell)) is not None}
        for row in raw
    ]
    if not any(rows):
        raise SpineError(f"The log {path} holds no numbers: train first.")
    return rows


def as_rows(log: Rows | str | Path) -> Rows:
    """Return the rows of a log: the log itself, or what its `metrics.csv` holds."""
    return read_log(log) if isinstance(log, str | Path) else log


def points(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which a value was logged, rising, and the values."""
    pairs = [(_number(row.get("step")), _number(row.get(key))) for row in rows]
    known = sorted(pair for pair in pairs if None not in pair)
    steps, values = np.array(known, float).reshape(-1, 2).T
    return steps, values


def has_points(rows: Rows, *keys: str) -> bool:
    """Tell whether a log holds a loss or a score (or one of `keys`) at any step."""
    return any(points(rows, key)[0].size for key in keys or ("train_loss", "val_dice"))


def _number(cell: object) -> float | None:
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
