"""How much error each layer of a network bears, and which cheap multiplier fits it."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ApproxError

# Imported with the first name of a module; Keras comes with those of _OF_KERAS only.
_OF_KERAS = {
    "layers": ("ApproxConv2D", "ApproxDense", "ApproxDepthwiseConv2D"),
    "net": ("ApproxNet", "Operands", "load"),
}
_OTHERS = {
    "multipliers": ("ApproximateMultiplier", "ErrorStatistics", "exact_multiplier"),
    "families": ("library",),
    "loaders": ("load_evoapprox", "load_tables"),
    "plots": ("plot_library",),
    "selection": ("Selection", "deploy_multipliers", "error_deviation", "select_multipliers", "uniform"),
    "emulation.low_rank": ("LowRank", "low_rank"),
    "emulation.table": ("TableProduct",),
}
_MODULE = {name: module for module, names in {**_OF_KERAS, **_OTHERS}.items() for name in names}

__all__ = ["ApproxError", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})
