"""The compiler: a Keras or tflite model, and samples to calibrate with, become a kmodel.

tflite ──importer, operators──► graph of float operations, NCHW
       ──rewrites──►            fewer operations, most of them as the KPU has them
       ──calibration──►         a range for every tensor
       ──quantise──►            operations on bytes between Quantize and Dequantize
       ──lowering──►            bytes throughout, pooling in the KPU, uploads
       ──memory, emit──►        KModel
"""

from __future__ import annotations

from kconvert.kpu.compiler import operators as operators  # registers the readers
from kconvert.kpu.compiler.compile import Options, compile_model
from kconvert.kpu.compiler.importer import read_tflite
from kconvert.kpu.compiler.lint import check_layers

__all__ = ["Options", "check_layers", "compile_model", "read_tflite"]
