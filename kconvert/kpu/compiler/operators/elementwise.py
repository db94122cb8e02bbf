# ruff: noqa: D103 (a reader is documented by the operations that it is registered for)
"""Operations element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.functions import Expr
from kconvert.kpu.compiler.graph import (
    Binary,
    Function,
    Reshape,
    Tensor,
    constant,
)
from kconvert.kpu.compiler.importer import (
    MAX_RANK,
    Importer,
    Operator,
    reads,
    to_graph_order,
)
from kconvert.kpu.compiler.operators.common import activated, arguments
from kconvert.kpu.nnil import Op as Nnil
from kconvert.kpu.nodes import BinaryOp

Array = npt.NDArray[Any]

_UNARY: dict[str, Expr] = {
    "ABS": fn.unary(Nnil.ABS),
    "CEIL": fn.unary(Nnil.CEIL),
    "COS": fn.unary(Nnil.COS),
    "EXP": fn.unary(Nnil.EXP),
    "FLOOR": fn.unary(Nnil.FLOOR),
    "LOG": fn.unary(Nnil.LOG),
    "NEG": fn.unary(Nnil.NEG),
    "RSQRT": fn.unary(Nnil.RSQRT),
    "SIN": fn.unary(Nnil.SIN),
    "SQUARE": fn.unary(Nnil.SQUARE),
    "SQRT": fn.sqrt(),
    "LOGISTIC": fn.sigmoid(),
    "TANH": fn.tanh(),
    "ELU": fn.elu(),
    "HARD_SWISH": fn.hard_swish(),
    "RELU": fn.RELU,
    "RELU6": fn.RELU6,
    "RELU_N1_TO_1": fn.RELU_N1_TO_1,
    "RELU_0_TO_1": fn.RELU_0_TO_1,
}


@reads(*_UNARY)
def unary(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    return Function(g.tensor(number), _UNARY[op.name]).output


@reads("GELU")
def gelu(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    return Function(g.tensor(number), fn.gelu_tanh()).output


@reads("LEAKY_RELU")
def leaky_relu(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    alpha = op.required("LeakyReluOptions").Alpha()
    if not math.isfinite(alpha):
        raise op.refuse(f"its slope is {alpha}")
    return Function(g.tensor(number), fn.leaky_relu(alpha)).output


@reads("PRELU")
def prelu(g: Importer, op: Operator) -> Tensor:
    """One slope for all is a leaky ReLU; others are max(x, 0) + slope * min(x, 0)."""
    number, slope = arguments(op, 2)
    x, slopes = g.tensor(number), g.constant(slope, "slopes").astype(np.float32)
    if slopes.size and (slopes == slopes.flat[0]).all():
        return Function(x, fn.leaky_relu(float(slopes.flat[0]))).output
    above = Function(x, fn.RELU).output
    below = Function(x, fn.binary(Nnil.MIN, fn.X, 0.0)).output
    a, b = _same_rank(op, below, g.tensor(slope))
    return Binary(BinaryOp.ADD, above, Binary(BinaryOp.MUL, a, b).output).output


def _same_rank(op: Operator, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    rank = max(len(a.shape), len(b.shape), 1)

    def widened(t: Tensor) -> Tensor:
        if len(t.shape) == rank:
            return t
        wide = (1,) * (rank - len(t.shape)) + t.shape
        if t.data is not None:
            data = t.data.reshape(wide)
            return constant(t.name, data.transpose(0, 3, 1, 2) if rank == MAX_RANK else data)
        return to_graph_order(Reshape(t, wide).output)

    a, b = widened(a), widened(b)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise op.refuse(f"the shapes {a.shape} and {b.shape} do not fit each other") from None
    return a, b


_BINARY = {
    "ADD": (BinaryOp.ADD, "AddOptions"),
    "SUB": (BinaryOp.SUB, "SubOptions"),
    "MUL": (BinaryOp.MUL, "MulOptions"),
    "DIV": (BinaryOp.DIV, "DivOptions"),
    "MINIMUM": (BinaryOp.MIN, ""),
    "MAXIMUM": (BinaryOp.MAX, ""),
}


@reads(*_BINARY)
def binary(g: Importer, op: Operator) -> Tensor:
    first, second = arguments(op, 2)
    kind, options_kind = _BINARY[op.name]
    a, b = _same_rank(op, g.tensor(first), g.tensor(second))
    y = Binary(kind, a, b).output
    options = op.options(options_kind) if options_kind else None
    return activated(op, y, options.FusedActivationFunction()) if options is not None else y


@reads("SQUARED_DIFFERENCE")
def squared_difference(g: Importer, op: Operator) -> Tensor:
    first, second = arguments(op, 2)
    a, b = _same_rank(op, g.tensor(first), g.tensor(second))
    return Function(Binary(BinaryOp.SUB, a, b).output, fn.unary(Nnil.SQUARE)).output


@reads("ADD_N")
def add_n(g: Importer, op: Operator) -> Tensor:
    if not op.inputs:
        raise op.refuse("it has no inputs")
    total = g.tensor(op.inputs[0])
    for number in op.inputs[1:]:
        total = Binary(BinaryOp.ADD, *_same_rank(op, total, g.tensor(number))).output
    return total


@reads("QUANTIZE", "DEQUANTIZE")
def requantize(g: Importer, op: Operator) -> Tensor | Array:
    """Quantised tensors stand for real numbers here: nothing is left to do."""
    (number,) = arguments(op, 1)
    return g.constant(number).astype(np.float32) if g.is_constant(number) else g.tensor(number)
