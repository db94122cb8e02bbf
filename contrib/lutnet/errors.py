"""What a user of the LUT layers can do wrong."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np

from kconvert.errors import KConvertError


class LayerError(KConvertError, ValueError):
    """An option of a layer is not valid, or does not fit what the layer is called on."""


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, of Python or numpy."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def check(holds: bool, message: str) -> None:
    """Raise LayerError with `message` unless the condition holds."""
    if not holds:
        raise LayerError(message)
