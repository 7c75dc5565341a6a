"""How much a lesson computes: the full profile for readers, the fast one for the test suite.

The fast profile takes fewer steps and smaller data through the same lines of code.
"""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def is_fast() -> bool:
    """Tell whether `SPINE_FAST=1` asks for the fast profile."""
    return os.environ.get("SPINE_FAST") == "1"


def pick(full: T, fast: T) -> T:
    """Return `full`, or `fast` in the fast profile; for sizes and numbers of steps.

    Example:
        >>> steps = pick(full=300, fast=20)
    """
    return fast if is_fast() else full
