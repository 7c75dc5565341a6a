"""What all tests share: a quiet environment, the real sample, a small phantom."""

import os
import signal
from pathlib import Path

# Before anything imports NumPy, torch, matplotlib or albumentations.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the cores; each taking all of them is slower than one thread each.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import filelock
import hypothesis
import pytest

hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _sigterm_as_before():
    """Undo what a command that ran in this process made of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory) -> Path:
    """Folder of the four real patients, fetched by whichever worker asks first.

    Skips, with the reason, where they cannot be fetched; on CI that is a failure.
    """
    from spine_lib import SpineError
    from spine_lib.datasets import sample

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers of this run
    failure = shared / "sample-could-not-be-fetched"
    with filelock.FileLock(shared / "sample.lock"):
        if failure.is_file():  # another worker has waited for the network already
            pytest.skip(failure.read_text(encoding="utf-8"))
        try:
            return sample.fetch_sample()
        except SpineError as error:
            if os.environ.get("CI"):
                raise
            reason = f"the real sample could not be fetched: {error}"
            failure.write_text(reason, encoding="utf-8")
            pytest.skip(reason)


@pytest.fixture(scope="session")
def small_phantom():
    """A phantom of 64 x 64 x 64 voxels at 4 mm; shared, so tests must not write into it."""
    from spine_lib.datasets import make_phantom

    return make_phantom(0, shape=(64, 64, 64), spacing_mm=4.0)
