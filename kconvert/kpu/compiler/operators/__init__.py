"""How each TFLite operation becomes operations of the graph; see https://www.tensorflow.org/mlir/tfl_ops.

Importing this package registers all readers.
"""

from __future__ import annotations

from kconvert.kpu.compiler.operators import blocks, elementwise, moves, reductions, resize, sums

__all__ = ["blocks", "elementwise", "moves", "reductions", "resize", "sums"]
