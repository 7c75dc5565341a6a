"""Compare and describe the inputs of an exercise, whatever they are."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np


def is_same(a: Any, b: Any) -> bool:
    """Tell whether two values are equal in every part; NaN equals NaN.

    Arrays and tensors are compared by dtype, shape and values; lists, mappings and dataclasses by
    their parts. Anything else counts as the same, since many objects cannot be compared.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return _same_array(a, b)
    if _is_tensor(a):
        return _same_array(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        names = [field.name for field in dataclasses.fields(a)]
        return all(is_same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, int | float | complex | str | bytes | set | np.generic):
        return bool(a == b) or (a != a and b != b)
    return True


def _same_array(a: np.ndarray, b: np.ndarray) -> bool:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def describe(value: Any) -> str:
    """Say in a few words what a value is: kind, dtype and shape of an array, a number itself.

    Example:
        >>> describe(np.zeros((2, 3), np.int16))
        'an int16 array of shape (2, 3)'
    """
    if isinstance(value, np.ndarray):
        return f"{_article(str(value.dtype))} array of shape {value.shape}"
    if _is_tensor(value):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{_article(dtype)} tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | complex | np.generic | str):
        text = repr(value.item() if isinstance(value, np.generic) else value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, list | tuple) and len(value) <= 4:
        inside = ", ".join(map(describe, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, list | tuple | set | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    return _article(type(value).__name__)


def _is_tensor(value: Any) -> bool:
    # Where nobody has imported torch, nothing is a tensor, and importing it takes seconds.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' and name[:4] != 'uint' else 'a'} {name}"
