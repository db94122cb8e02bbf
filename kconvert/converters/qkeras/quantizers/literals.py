"""Options of a quantizer as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def literal(value: object) -> Any:
    """Return a number, a text, None, or a tuple of numbers for what a config or a live quantizer holds.

    Raises:
        ValueError: It is none of these.
        TypeError: The same, as numpy says it.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):  # Keras 3: {"class_name": "__numpy__", "config": {"value": ..., "dtype": ...}}
        inner = value.get("config", value)
        if not isinstance(inner, Mapping) or "value" not in inner:
            raise ValueError
        return literal(inner["value"])
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > 1:
        raise ValueError
    found = array.tolist()
    return tuple(found) if array.ndim else found
