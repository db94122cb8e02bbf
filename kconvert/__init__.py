"""kconvert turns trained Keras and QKeras models into fixed-point C++ for FPGAs, and answers as they will."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kconvert.converters import (
    config_from_keras_model,
    convert_from_config,
    convert_from_keras_model,
    keras_to_hls,
    read_model,
)
from kconvert.errors import KConvertError
from kconvert.model import HLSModel
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert import kpu as kpu
    from kconvert import profiling as profiling
    from kconvert import report as report
    from kconvert.comparison import compare as compare

__version__ = "0.1.0"

__all__ = [
    "FixedType",
    "HLSModel",
    "KConvertError",
    "compare",
    "config_from_keras_model",
    "convert_from_config",
    "convert_from_keras_model",
    "keras_to_hls",
    "kpu",
    "profiling",
    "read_model",
    "report",
]


def __getattr__(name: str) -> Any:
    if name in ("kpu", "profiling", "report"):  # not needed to convert: imported when first used
        return importlib.import_module(f"kconvert.{name}")
    if name == "compare":
        return importlib.import_module("kconvert.comparison").compare
    raise AttributeError(f"module 'kconvert' has no attribute {name!r}")
