"""What the fuzz suite shares: how much it tries, and how every try must end.

The inputs are the same in each run. `SPINE_FUZZ=20 pytest tests/fuzz` tries twenty times as many,
and others each time.
"""

import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from spine_lib import SpineError

TIMES = int(os.environ.get("SPINE_FUZZ", "1"))

# For a test: `@settings.get_profile("fuzz")`.
hypothesis.settings.register_profile(
    "fuzz",
    derandomize=TIMES == 1,
    database=None,
    deadline=None,
    max_examples=100 * TIMES,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="session")
def ending() -> Callable:
    """Return a function that returns what a call ends in: its value, or the sentence of an error.

    It fails where the sentence has several lines or does not name the file, and where the call
    takes long, or more memory than a gigabyte and twice the file's size.
    """

    def end(call: Callable, path: Path) -> object:
        tracemalloc.start()
        start = time.monotonic()
        try:
            value = call()
        except SpineError as error:
            value = str(error)
            assert "\n" not in value and value.endswith("."), value
            assert path.name in value, value
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        size = path.stat().st_size if path.is_file() else 0
        assert peak < 2 * size + 1e9 and time.monotonic() - start < 20
        return value

    return end
