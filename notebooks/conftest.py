"""How nbval runs the lessons: each in the fast profile, in a kernel of its own."""

import os
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out notebooks that are nobody's lesson, such as a reader's own."""
    if collection_path.suffix == ".ipynb":
        return not collection_path.with_suffix(".py").is_file() or None
    return None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Give the kernel, which starts with the first cell, the environment of a lesson."""
    from spine_lib.course.authoring import kernel_environment

    if getattr(item.parent, "kernel", None) is None and _sample_is_missing(item.config):
        pytest.skip("the real sample could not be fetched")
    before = dict(os.environ)
    _become(kernel_environment(fast=True))
    try:
        return (yield)
    finally:
        _become(before)


def _become(environment: dict[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)


def _sample_is_missing(config: pytest.Config) -> bool:
    """Fetch the sample where it is not there, one worker for all; on CI a failure stays one."""
    import filelock

    from spine_lib import SpineError
    from spine_lib.datasets import fetch_sample, sample_root

    if not hasattr(config, "spine_sample_is_missing"):
        sample_root().parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(sample_root().with_suffix(".lock")):
            try:
                fetch_sample(progress=lambda line: None)
                config.spine_sample_is_missing = False
            except SpineError:
                if os.environ.get("CI"):
                    raise
                config.spine_sample_is_missing = True
    return config.spine_sample_is_missing
