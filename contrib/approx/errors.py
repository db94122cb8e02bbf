"""What a user of approximate multipliers can do wrong."""

from __future__ import annotations

from kconvert.errors import KConvertError


class ApproxError(KConvertError, ValueError):
    """An argument is not valid, or does not fit what it is used with."""


def check(holds: bool, message: str) -> None:
    """Raise ApproxError with `message` unless the condition holds."""
    if not holds:
        raise ApproxError(message)
