"""Networks whose neurons are the look-up tables of an FPGA."""

from __future__ import annotations

import importlib
from typing import Any

from .. import registration
from .errors import LayerError
from .tables import LUT_LAYERS, LutArray, lut_array

# Keras is imported with the first name of one of these modules, unless it is there: conversion of a file needs none.
_OF_KERAS = {
    "layers": ("AverageLut", "DifferentiableLut", "MaxLut", "StochasticLut"),
    "encoders": ("Binarize", "GroupSum", "Patches", "Reduce", "Thermometer"),
    "rewiring": ("Rewire",),
    "modulation": ("BinaryModulation", "BinaryToReal", "RealToBinary"),
}
_OF_HARDWARE = {
    "bitsliced": ("BitSliced", "pack", "unpack"),
    "exports": ("export_hls_header", "export_vectors"),
    "verilog": ("export_verilog",),
}
_MODULE = {name: module for module, names in {**_OF_KERAS, **_OF_HARDWARE}.items() for name in names}

__all__ = ["LUT_LAYERS", "LayerError", "LutArray", "lut_array", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for module in _OF_KERAS if _MODULE[name] in _OF_KERAS else ():
        importlib.import_module(f".{module}", __name__)  # registers the layers with Keras, if they were not yet
    return getattr(importlib.import_module(f".{_MODULE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE})


registration.register([f"{__name__}.{module}" for module in _OF_KERAS])
