"""What the fuzz suite shares: how much it tries, and how every try must end.

The inputs are the same in each run. `SPINE_FUZZ=20 pytest tests/fuzz` tries twenty times as many,
and others each time.
"""

import collections
import os
import shutil
import time
import tracemalloc
import warnings

import hypothesis

from spine_lib import SpineError

TIMES = int(os.environ.get("SPINE_FUZZ", "1"))
FUZZ = hypothesis.settings(
    derandomize=TIMES == 1,
    database=None,
    deadline=None,
    max_examples=100 * TIMES,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
ENDINGS = collections.Counter()


def end(call, path, named=True, measured=True):
    """Return what a call ends in: its value, or the sentence of an error, and count it.

    It fails where the sentence has several lines or does not name the file, and where the call
    takes long, or more memory than a gigabyte and twice the file's size.
    """
    kind, peak, start = "a right value", 0, time.monotonic()
    if measured:
        tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = call()
    except SpineError as error:
        kind, value = "one sentence", str(error)
        assert "\n" not in value and len(value) < 1500, value
        assert not named or path.name in value, value
    finally:
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    ENDINGS[kind] += 1
    size = path.stat().st_size if path.is_file() else 0
    assert peak < 2 * size + 1e9 and time.monotonic() - start < 20
    return value


def emptied(folder, *names):
    """Return a folder that holds these folders alone."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in names or [""]:
        (folder / name).mkdir(parents=True)
    return folder
