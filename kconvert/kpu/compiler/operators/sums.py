# ruff: noqa: D103 (a reader is documented by the operations that it is registered for)
"""Convolutions and dense layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler.graph import (
    Binary,
    Conv2D,
    ConvTranspose2D,
    MatMul,
    Reshape,
    Tensor,
    constant,
)
from kconvert.kpu.compiler.importer import (
    MAX_ELEMENTS,
    MAX_RANK,
    Importer,
    Operator,
    Shape,
    reads,
    to_file_order,
    to_graph_order,
)
from kconvert.kpu.compiler.operators.common import activated, arguments, image
from kconvert.kpu.nodes import BinaryOp
from kconvert.kpu.wire import Padding

Array = npt.NDArray[Any]


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> Padding:
    """Return the padding that TFLite calls SAME."""
    total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    return Padding(total // 2, total - total // 2)


def paddings(
    op: Operator, x: Tensor, mode: int, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[Padding, Padding]:
    """Return the paddings of height and width; refuse a filter that does not fit."""
    if min(*kernel, *stride, *dilation) < 1 or max(*kernel, *stride, *dilation) > MAX_ELEMENTS or mode not in (0, 1):
        raise op.refuse(f"kernel {kernel}, strides {stride}, dilation {dilation}, padding {mode} make no sense")
    sizes = list(zip(x.shape[2:], kernel, stride, dilation, strict=True))
    if mode == 0:
        pads = same_padding(*sizes[0]), same_padding(*sizes[1])
        if math.prod(s + sum(p) for s, p in zip(x.shape[2:], pads, strict=True)) * x.shape[1] > 4 * MAX_ELEMENTS:
            raise op.refuse(f"a padding of {tuple(pads[0])} and {tuple(pads[1])} is far beyond the chip")
        return pads
    if any(d * (k - 1) + 1 > s for s, k, _, d in sizes):
        raise op.refuse(f"a filter of {kernel} does not fit on a map of {x.shape[2:]}")
    return Padding(0, 0), Padding(0, 0)


def bias_of(g: Importer, op: Operator, number: int, count: int) -> Array:
    """Return a bias, zeros if it was left out."""
    if number < 0:
        return np.zeros(count, np.float32)
    bias = g.constant(number, "bias")
    if bias.shape != (count,):
        raise op.refuse(f"its bias has the shape {bias.shape} instead of ({count},)")
    return bias.astype(np.float32)


def weights_of(g: Importer, op: Operator, number: int, rank: int) -> Array:
    """Return constant weights."""
    weights = g.constant(number, "weights")
    if weights.ndim != rank or not weights.size:
        raise op.refuse(f"its weights have the shape {weights.shape} instead of {rank} dimensions")
    return weights.astype(np.float32)


@reads("CONV_2D")
def conv(g: Importer, op: Operator) -> Tensor:
    number, w, b = arguments(op, 2, 3)
    options, x, stored = op.required("Conv2DOptions"), image(g, op, number), weights_of(g, op, w, 4)
    channels, per_group = x.shape[1], stored.shape[3]
    if channels % per_group or stored.shape[0] % (channels // per_group):
        raise op.refuse(f"{channels} channels do not fit weights of the shape {stored.shape}")
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    pads = paddings(op, x, options.Padding(), stored.shape[1:3], stride, dilation)
    weights = np.ascontiguousarray(stored.transpose(0, 3, 1, 2))
    bias = bias_of(g, op, b, len(weights))
    y = Conv2D(x, weights, bias, channels // per_group, *pads, stride, dilation).output
    g.weigh(op, y.count * weights[0].size)
    return activated(op, y, options.FusedActivationFunction())


@reads("DEPTHWISE_CONV_2D")
def depthwise_conv(g: Importer, op: Operator) -> Tensor:
    number, w, b = arguments(op, 2, 3)
    options, x, stored = op.required("DepthwiseConv2DOptions"), image(g, op, number), weights_of(g, op, w, 4)
    channels = x.shape[1]
    if stored.shape[0] != 1 or stored.shape[3] % channels:
        raise op.refuse(f"{channels} channels do not fit weights of the shape {stored.shape}")
    stride = (options.StrideH(), options.StrideW())
    dilation = (options.DilationHFactor(), options.DilationWFactor())
    pads = paddings(op, x, options.Padding(), stored.shape[1:3], stride, dilation)
    weights = np.ascontiguousarray(stored.transpose(3, 0, 1, 2))
    y = Conv2D(x, weights, bias_of(g, op, b, len(weights)), channels, *pads, stride, dilation).output
    g.weigh(op, y.count * weights[0].size)
    return activated(op, y, options.FusedActivationFunction())


@reads("TRANSPOSE_CONV")
def transpose_conv(g: Importer, op: Operator) -> Tensor:
    size, w, number, b = arguments(op, 3, 4)
    options, x, stored = op.required("TransposeConvOptions"), image(g, op, number), weights_of(g, op, w, 4)
    target = [int(v) for v in g.constant(size, "output shape").ravel()]
    stride = (options.StrideH(), options.StrideW())
    outs, kh, kw, channels = stored.shape
    if len(target) != 4 or min(target) < 1 or min(stride) < 1 or channels != x.shape[1] or target[0] != x.shape[0]:
        raise op.refuse(f"output shape {target}, strides {stride}, weights {stored.shape} do not fit {x.shape}")
    pads = []
    for have, want, kernel, step in zip(x.shape[2:], target[1:3], (kh, kw), stride, strict=True):
        full = (have - 1) * step + kernel
        same = options.Padding() == 0
        if -(-(want if same else want - kernel + 1) // step) != have or want > full + step:
            raise op.refuse(f"a result of {target[1:3]} pixels does not come from {x.shape[2:]} with strides {stride}")
        total = max(0, full - want)
        pads.append(Padding(total // 2, total - total // 2) if same else Padding(0, total))
    weights = np.ascontiguousarray(stored.transpose(0, 3, 1, 2))
    g.weigh(op, x.count * outs * kh * kw)
    g.fits(op, outs * ((x.shape[2] - 1) * stride[0] + kh) * ((x.shape[3] - 1) * stride[1] + kw))
    if outs * target[1] * target[2] * target[0] > MAX_ELEMENTS:
        raise op.refuse("its result is larger than all memory of the chip")
    y = ConvTranspose2D(x, weights, (target[1], target[2]), pads[0], pads[1], stride).output
    bias = bias_of(g, op, b, outs)
    if bias.any():
        y = Binary(BinaryOp.ADD, y, constant(f"bias of {g.info(op.outputs[0]).name}", bias.reshape(1, -1, 1, 1))).output
    return activated(op, y, options.FusedActivationFunction())


@reads("FULLY_CONNECTED")
def fully_connected(g: Importer, op: Operator) -> Tensor:
    number, w, b = arguments(op, 2, 3)
    options, x, weights = op.required("FullyConnectedOptions"), g.tensor(number), weights_of(g, op, w, 2)
    outs, inner = weights.shape
    shape = g.shape(number)
    if options.WeightsFormat() != 0 or math.prod(shape) % inner:
        raise op.refuse(f"an input of shape {shape} does not fit weights of the shape {weights.shape}")
    bias = bias_of(g, op, b, outs)
    g.weigh(op, math.prod(shape) * outs)
    if options.KeepNumDims() and len(shape) == MAX_RANK and x.shape[1] == inner:
        y = Conv2D(x, weights.reshape(outs, inner, 1, 1), bias).output
    else:
        rows = Reshape(to_file_order(x), (math.prod(shape) // inner, inner)).output
        name = g.info(w).name
        y = MatMul(rows, constant(name, np.ascontiguousarray(weights.T)), bias).output
        if options.KeepNumDims():
            y = to_graph_order(Reshape(y, (*shape[:-1], outs)).output)
    return activated(op, y, options.FusedActivationFunction())
