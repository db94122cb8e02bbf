"""What a user of the LUT layers can do wrong."""

from __future__ import annotations

from kconvert.errors import KConvertError


class LayerError(KConvertError, ValueError):
    """An option of a layer is not valid, or does not fit what the layer is called on."""


def check(holds: bool, message: str) -> None:
    """Raise LayerError with `message` unless the condition holds."""
    if not holds:
        raise LayerError(message)
