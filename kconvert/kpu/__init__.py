"""kmodels for the Kendryte K210: read them, write them, and run them bit for bit as its KPU does.

>>> model = kconvert.kpu.compile(keras_model, images, "model.kmodel")  # or KModel.load("model.kmodel")
>>> outputs = model.infer(images, layout="nhwc")
>>> print(model.summary())

A kmodel is made of the records in :mod:`kconvert.kpu.nodes`; what the chip fixes is in :mod:`kconvert.kpu.k210`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kconvert.errors import KModelError as KModelError
    from kconvert.kpu.compiler import check_layers as check
    from kconvert.kpu.compiler import compile_model as compile
    from kconvert.kpu.deploy import deploy_script as deploy_script
    from kconvert.kpu.kmodel import Input as Input
    from kconvert.kpu.kmodel import KModel as KModel
    from kconvert.kpu.layout import to_nchw as to_nchw
    from kconvert.kpu.layout import to_nhwc as to_nhwc

__all__ = ["Input", "KModel", "KModelError", "check", "compile", "deploy_script", "to_nchw", "to_nhwc"]

# name -> module:attribute; imported when first used, so that the command line starts without them
_PLACES = {
    "Input": "kconvert.kpu.kmodel:Input",
    "KModel": "kconvert.kpu.kmodel:KModel",
    "KModelError": "kconvert.errors:KModelError",
    "check": "kconvert.kpu.compiler:check_layers",
    "compile": "kconvert.kpu.compiler:compile_model",
    "deploy_script": "kconvert.kpu.deploy:deploy_script",
    "to_nchw": "kconvert.kpu.layout:to_nchw",
    "to_nhwc": "kconvert.kpu.layout:to_nhwc",
}


def __getattr__(name: str) -> Any:
    if name in ("k210", "nodes", "wire"):
        return importlib.import_module(f"kconvert.kpu.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module 'kconvert.kpu' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    globals()[name] = found = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
