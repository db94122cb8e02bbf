"""kmodels for the Kendryte K210: read them, write them, and run them bit for bit as its KPU does.

>>> model = kconvert.kpu.compile(keras_model, images, "model.kmodel")  # or KModel.load("model.kmodel")
>>> outputs = model.infer(images, layout="nhwc")
>>> print(model.summary())

A kmodel is made of the records in :mod:`kconvert.kpu.nodes`; what the chip fixes is in :mod:`kconvert.kpu.k210`.
"""

from __future__ import annotations

from kconvert.errors import KModelError
from kconvert.kpu.compiler import check_layers as check
from kconvert.kpu.compiler import compile_model as compile
from kconvert.kpu.deploy import deploy_script
from kconvert.kpu.kmodel import Input, KModel
from kconvert.kpu.layout import to_nchw, to_nhwc

__all__ = ["Input", "KModel", "KModelError", "check", "compile", "deploy_script", "to_nchw", "to_nhwc"]
