"""What a user of the analog layers can do wrong."""

from __future__ import annotations

import numbers
from typing import Any

from kconvert.errors import KConvertError


class AnalogError(KConvertError, ValueError):
    """An option of an analog operation, layer or device is not valid, or does not fit what it is used on."""


class RangeError(AnalogError):
    """A value does not fit the five bits of an input, or the six bits and sign of a weight."""


def check(holds: bool, message: str) -> None:
    """Raise AnalogError with `message` unless the condition holds."""
    if not holds:
        raise AnalogError(message)


def whole(value: Any, least: int, what: str) -> int:
    """Return `value` as an int, numpy's among them; AnalogError names `what` if it is none, or below `least`."""
    check(
        isinstance(value, numbers.Integral) and int(value) >= least,
        f"{what} has to be a whole number from {least} on, received {value!r}",
    )
    return int(value)
