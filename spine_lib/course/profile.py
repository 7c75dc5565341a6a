"""How much a lesson computes: the full profile for readers, the fast one for the test suite."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def pick(full: T, fast: T) -> T:
    """Return `full`, or `fast` where `SPINE_FAST=1`; for sizes and numbers of steps."""
    return fast if os.environ.get("SPINE_FAST") == "1" else full
