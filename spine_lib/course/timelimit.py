"""Run a function for a few seconds at most, and know in which line it was when they were over.

A watching thread raises `OutOfTime` in the running one. Signals would not do: Windows lacks the
alarm, and an interrupt could not be told from the reader's own Ctrl-C, which is left alone here. A
single call that stays inside compiled code ends when that code returns.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any

AGAIN_S = 0.2


class OutOfTime(BaseException):
    """Raised in the running function; no Exception, so that `except Exception` lets it pass."""


class TimeUp(Exception):
    """The function was ended. `places` are its (code, line number), the innermost one last."""

    def __init__(self, places: list[tuple[CodeType, int]]) -> None:
        super().__init__("out of time")
        self.places = places


def call_within(seconds: float, function: Callable, arguments: tuple, named: dict) -> Any:
    """Call a function and end it where it takes too long.

    Args:
        seconds: how long it may take.
        function: what to call, in this thread.
        arguments: its positional arguments.
        named: its keyword arguments.

    Returns:
        What the function returned.

    Raises:
        TimeUp: if it was ended, or swallowed its ending and came back too late.
    """
    watch = _Watch(seconds)
    result = None
    try:
        watch.start()
        result = function(*arguments, **named)
    except (OutOfTime, Exception):
        if watch.places is None:  # the function's own; otherwise what became of the ending
            raise
    finally:
        while not watch.stopped:
            try:
                watch.stop()
            except OutOfTime:  # it came between the function's end and here
                continue
    if watch.places is not None:
        raise TimeUp(watch.places)
    return result


class _Watch:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.places: list[tuple[CodeType, int]] | None = None
        self.stopped = False
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        _raise_in(self._watched, None)  # an ending that has not been delivered must not be later
        self.stopped = True

    def _wait(self) -> None:
        if self._over.wait(self.seconds):
            return
        self.places = _places_of(self._watched)
        _raise_in(self._watched, OutOfTime)
        while not self._over.wait(AGAIN_S):  # a bare `except:` inside a loop swallows it
            _raise_in(self._watched, OutOfTime)


def _places_of(thread: int) -> list[tuple[CodeType, int]]:
    frame = sys._current_frames().get(thread)
    places = []
    while frame is not None:
        places.append((frame.f_code, frame.f_lineno))
        frame = frame.f_back
    return places[::-1]


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    argument = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)
