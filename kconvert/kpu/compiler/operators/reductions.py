# ruff: noqa: D103 (a reader is documented by the operations that it is registered for)
"""Pooling, reductions, and what is made of them."""

from __future__ import annotations

import math

from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.graph import (
    Binary,
    Function,
    Pool2D,
    Reduce,
    Reshape,
    Tensor,
)
from kconvert.kpu.compiler.importer import (
    Importer,
    Operator,
    reads,
    to_file_order,
)
from kconvert.kpu.compiler.operators.common import activated, arguments, axes_of, graph_axis, image
from kconvert.kpu.compiler.operators.sums import paddings
from kconvert.kpu.nnil import Op as Nnil
from kconvert.kpu.nodes import BinaryOp, ReduceOp


@reads("AVERAGE_POOL_2D", "MAX_POOL_2D")
def pool(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    options, x = op.required("Pool2DOptions"), image(g, op, number)
    kernel, stride = (options.FilterHeight(), options.FilterWidth()), (options.StrideH(), options.StrideW())
    pads = paddings(op, x, options.Padding(), kernel, stride, (1, 1))
    kind = ReduceOp.MAX if op.name == "MAX_POOL_2D" else ReduceOp.MEAN
    y = Pool2D(kind, x, kernel, stride, *pads).output
    g.weigh(op, y.count * min(math.prod(kernel), x.count))
    return activated(op, y, options.FusedActivationFunction())


@reads("MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM")
def reduce(g: Importer, op: Operator) -> Tensor:
    number, which = arguments(op, 2)
    x, rank = g.tensor(number), len(g.shape(number))
    options = op.options("ReducerOptions")
    axes = axes_of(g, op, which, rank)
    kinds = {"MEAN": ReduceOp.MEAN, "REDUCE_MAX": ReduceOp.MAX, "REDUCE_MIN": ReduceOp.MIN, "SUM": ReduceOp.SUM}
    y = Reduce(kinds[op.name], x, tuple(sorted(graph_axis(a, rank) for a in axes))).output
    if options is not None and options.KeepDims():
        return y
    kept = tuple(s for i, s in enumerate(g.shape(number)) if i not in axes)
    return Reshape(to_file_order(y), kept).output if len(kept) != rank else y


@reads("SOFTMAX", "LOG_SOFTMAX")
def softmax(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    x = g.tensor(number)
    beta = op.required("SoftmaxOptions").Beta() if op.name == "SOFTMAX" else 1.0
    axis = (graph_axis(len(x.shape) - 1, len(x.shape)),)
    centred = Binary(BinaryOp.SUB, x, Reduce(ReduceOp.MAX, x, axis).output).output
    exponent = fn.X if beta == 1 else fn.X * beta
    powers = Function(centred, fn.unary(Nnil.EXP, exponent)).output
    total = Reduce(ReduceOp.SUM, powers, axis).output
    if op.name == "LOG_SOFTMAX":
        return Binary(BinaryOp.SUB, centred, Function(total, fn.unary(Nnil.LOG)).output).output
    return Binary(BinaryOp.DIV, powers, total).output


@reads("L2_NORMALIZATION")
def l2_normalization(g: Importer, op: Operator) -> Tensor:
    (number,) = arguments(op, 1)
    x = g.tensor(number)
    axis = (graph_axis(len(x.shape) - 1, len(x.shape)),)
    total = Reduce(ReduceOp.SUM, Function(x, fn.unary(Nnil.SQUARE)).output, axis).output
    norm = Function(total, fn.unary(Nnil.RSQRT, fn.binary(Nnil.MAX, fn.X, 1e-10))).output
    return Binary(BinaryOp.MUL, x, norm).output
