"""Layers that compute on an analog matrix multiplier, trained with the chip or its mock in the loop."""

from __future__ import annotations

import importlib
from typing import Any

from .. import registration
from .errors import AnalogError, RangeError
from .parameters import MockParameter, mock_parameter, set_mock_parameter

# Keras is imported with the first of these names, unless it is there: conversion of a file needs none of it.
_LAYERS = ("Dense", "Conv1D", "Conv2D", "ReLU", "ConvertingReLU")  # registered with Keras as AnalogDense and so on
_OF_KERAS = {
    "layers": (*(f"Analog{name}" for name in _LAYERS), "use_device"),
    "devices": ("Device", "FixedPattern", "HxtorchDevice", "MockDevice", "measure_mock_parameter"),
    "ops": ("add", "argmax", "conv1d", "conv2d", "converting_relu", "expanded_conv1d", "matmul", "relu"),
    "transforms": ("clamp_weight", "scale_input", "scale_weight"),
}
_MODULE = {name: module for module, names in _OF_KERAS.items() for name in names}
_SUBMODULES = ("datasets",)

__all__ = [
    "AnalogError",
    "MockParameter",
    "RangeError",
    "mock_parameter",
    "set_mock_parameter",
    *sorted({*_LAYERS, *_MODULE, *_SUBMODULES}),
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    known = f"Analog{name}" if name in _LAYERS else name
    if known not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(".layers", __name__)  # which imports the others, in an order that works
    return getattr(importlib.import_module(f".{_MODULE[known]}", __name__), known)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


registration.register([f"{__name__}.layers"], backend="tensorflow")
