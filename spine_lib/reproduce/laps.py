"""Lesson 8: time a long run piece by piece, and stop it in time without losing what is finished.

A stop watch is handed down through a run. Whoever has finished a unit of work - a scan sliced, a
training step, a scan scored - says so, and the time since the last such moment is that stage's. The
sums are kept on disk: a run that is stopped or killed, and goes on later, has one time a stage.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import NoReturn

from spine_lib import SpineError
from spine_lib.ct.files import atomic_file

Lap = Callable[..., None]
"""Called as `lap(stage, units=1, may_end=True)`: the time since the last call was that stage's."""

WRITE_EVERY_S = 2.0
"""The sums are written at most this often; a killed run forgets the time since."""


class OutOfTime(SpineError):
    """Say that a call ends here as it was asked to, and that the next one goes on."""


def no_lap(stage: str | None, units: int = 1, may_end: bool = True) -> None:
    """Time nothing."""


def each_done(futures: Collection[Future], lap: Lap, stage: str) -> Iterator[Future]:
    """Yield futures as they are done, and count each once it was dealt with.

    Args:
        futures: of a pool of workers.
        lap: the stop watch.
        stage: what one of them is a unit of.

    Raises:
        OutOfTime: if the minutes are over, after those were yielded too that had been begun.
    """
    waiting = set(futures)
    for future in as_completed(futures):
        waiting.discard(future)
        yield future
        try:
            lap(stage)
        except OutOfTime:
            for begun in [future for future in waiting if not future.cancel()]:
                yield begun
                lap(stage, may_end=False)
            raise


class Laps:
    """A stop watch that adds up seconds and units of every stage over all calls of a run.

    Args:
        file: JSON that keeps the sums; None where another process keeps them.
        minutes: after which `OutOfTime` is raised, by the first unit that ends then.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        file: Path | None,
        minutes: float = math.inf,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.file, self._clock = file, clock
        self.stages = _read(file) if file else {}
        self._mark = self._written = clock()
        self._end = self._mark + 60 * minutes

    def __call__(self, stage: str | None, units: int = 1, may_end: bool = True) -> None:
        """Add the time since the last call to a stage.

        Args:
            stage: its name; None where the time is not to be counted, and the call goes on.
            units: how many were finished.
            may_end: False where what was done so far is not kept yet.

        Raises:
            OutOfTime: if the minutes are over.
        """
        now = self._clock()
        if stage is not None:
            row = self.stages.setdefault(stage, {"seconds": 0.0, "units": 0})
            row["seconds"] += now - self._mark
            row["units"] += units
            if now - self._written > WRITE_EVERY_S:
                self.write()
        self._mark = now
        if stage is not None and may_end and self.is_over():
            self.end()

    def units(self, stage: str) -> int:
        """Return how many units of a stage were finished so far."""
        return self.stages.get(stage, {}).get("units", 0)

    def is_over(self) -> bool:
        """Tell whether the minutes are over."""
        return self._clock() > self._end

    def end(self) -> NoReturn:
        """End the call.

        Raises:
            OutOfTime: always.
        """
        self.write()
        raise OutOfTime("the minutes of this call are over: the same command again goes on")

    def write(self) -> None:
        """Keep the sums on disk."""
        self._written = self._clock()
        if self.file is None:
            return
        with atomic_file(self.file) as stream:
            stream.write(json.dumps(self.stages, indent=1).encode())


def _read(file: Path) -> dict[str, dict]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
