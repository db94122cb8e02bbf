"""Quantisation: the float graph, with the range of every tensor, becomes one of bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.activation import MAX_SHIFT, Domain, activation_table
from kconvert.kpu.compiler.functions import Expr
from kconvert.kpu.compiler.graph import (
    B,
    Binary,
    Conv2D,
    ConvTranspose2D,
    Dequantize,
    Function,
    Graph,
    KpuConv,
    KpuLayer,
    MatMul,
    Move,
    Op,
    Quantize,
    QuantizedBinary,
    QuantizedConv2D,
    QuantizedMatMul,
    Table,
    Tensor,
    constant,
)
from kconvert.kpu.compiler.numbers import (
    LEAST_WIDTH,
    Multiplier,
    Range,
    dequantised,
    fixed_mul,
    fixed_up,
    quant_param,
    quantised,
    round_away,
)
from kconvert.kpu.compiler.rewrites import Thresholds, is_answer, weight_range
from kconvert.kpu.k210 import BatchNorm
from kconvert.kpu.nodes import BinaryOp
from kconvert.kpu.wire import QuantParam

Array = npt.NDArray[Any]

NORM_BITS, NORM_SHIFT = 22, 15
CURVE_BITS = 12  # of the factors of a curve's segments
INT32 = (1 << 31) - 1
MAX_PRODUCTS = 1 << 15  # of bytes, in a sum of 32 bits
MAX_FACTOR = 1024.0  # of a channel's weights; what is divided by it later keeps 11 bits


@dataclass
class Quantiser:
    """Replaces operations by quantised ones between a Quantize and a Dequantize."""

    graph: Graph
    ranges: dict[Tensor, Range]  # how tensors are stored
    extremes: dict[Tensor, Range]  # what they were found to hold
    limits: Thresholds
    _stored: dict[Tensor, Tensor] = field(default_factory=dict)

    def run(self, byte_input: bool) -> None:
        """Quantise everything that is worth it; with `byte_input` the first input becomes one of bytes."""
        for op in self.graph.order():
            if op.output not in self.graph.outputs and not op.output.users:
                continue  # a function that its convolution has taken over
            self._operation(op)
        if byte_input:
            old = self.graph.inputs[0]
            new = Tensor(old.name, old.shape, B)
            self.graph.inputs[0] = new
            self.graph.replace(old, Dequantize(new, self.param(old)).named(old.name))

    def param(self, tensor: Tensor) -> QuantParam:
        """Return how a tensor is stored."""
        if tensor.data is not None:
            return quant_param(fixed_up(float(tensor.data.min()), float(tensor.data.max())))
        return quant_param(self.ranges[tensor])

    def stored(self, tensor: Tensor) -> Tensor:
        """Return a tensor as bytes."""
        if tensor.data is not None:
            return constant(tensor.name, quantised(tensor.data, self.param(tensor)))
        if tensor not in self._stored:
            self._stored[tensor] = Quantize(tensor, self.param(tensor)).named(tensor.name)
        return self._stored[tensor]

    def _replace(self, old: Tensor, made: Op) -> None:
        made.output.name = old.name
        new = Dequantize(made.output, self.param(old)).named(old.name)
        self.ranges[new] = self.ranges[old]
        self.graph.replace(old, new)

    def _large(self, op: Op) -> bool:
        return op.output.count >= self.limits.output

    def _operation(self, op: Op) -> None:
        match op:
            case KpuConv():
                follower = self.graph.only_user(op.output)
                function = follower if isinstance(follower, Function) else None
                result = function.output if function else op.output
                self._replace(result, self._kpu_layer(op, function.expr if function else None, self.param(result)))
            case Conv2D() if self._in_integers(op, op.weights, op.weights[0].size):
                self._replace(op.output, self._conv(op))
            case MatMul() if self._in_integers(op, op.b.data, op.b.shape[0]):
                self._replace(op.output, self._matmul(op))
            case Binary() if self.limits.quantized_binary and self._in_integers(op) and not self._is_bias_of_answer(op):
                self._replace(op.output, self._binary(op))
            case Function() if self._large(op) or self._feeds_kpu(op):
                self._replace(op.output, self._table(op))
            case _:
                pass

    def _in_integers(self, op: Conv2D | MatMul | Binary, weights: Array | None = None, products: int = 0) -> bool:
        """Whether the CPU computes in integers: large, narrow weights, sums that fit, a clamp that a range can be."""
        narrow = weights is None or weight_range(weights) <= self.limits.weights
        # The operations of the CPU have no clamp of their own: what is stored is, and that has 0 inside.
        clamped = op.act.low <= 0 <= op.act.high
        return self._large(op) and narrow and products < MAX_PRODUCTS and clamped

    def _is_bias_of_answer(self, op: Binary) -> bool:
        """Whether this is the bias of a transposed convolution that stays in float because the model answers it."""
        first = op.a.producer
        return isinstance(first, ConvTranspose2D) and is_answer(self.graph, first)

    def _feeds_kpu(self, op: Op) -> bool:
        """Whether all that reads a result, behind moves, is the KPU."""
        users = op.output.users
        return (
            bool(users)
            and op.output not in self.graph.outputs
            and all(isinstance(u, KpuConv) or (isinstance(u, Move) and self._feeds_kpu(u)) for u in users)
        )

    # ***** the KPU *****

    def _kpu_layer(self, op: KpuConv, expr: Expr | None, out: QuantParam) -> KpuLayer:
        x, y = self.param(op.x), self.param(op.output)
        scaled, factors = equalised(op.weights)
        w = quant_param(fixed_up(float(scaled.min()), float(scaled.max())))
        if expr is None:
            domain = Domain(*(float(np.clip(np.float32((q - y.zero_point) / y.scale), *op.act)) for q in (0, 255)))
        else:  # the sums are never stored: what matters is what they are, not how they would be stored
            low, high = self.extremes[op.output]
            domain = Domain(low, max(high, low + LEAST_WIDTH))
        stored = quantised(scaled, w)
        if stored[0].size == 1:  # one weight a channel: the factor takes what rounding has changed
            exact = dequantised(stored, w) / np.where(op.weights == 0, 1, op.weights)
            factors = np.where((op.weights == 0) | (exact <= 0), factors[:, None, None, None], exact).ravel()
        norm, scale = normalisation(op.bias, factors, x.scale * w.scale, y.scale, out.scale if expr else None)
        table = activation_table(domain, expr, scale, out)
        return KpuLayer(self.stored(op.x), stored, norm, table, x.zero_point, w.zero_point, op.depthwise, op.pool)

    # ***** the CPU *****

    def _conv(self, op: Conv2D) -> QuantizedConv2D:
        x, y = self.param(op.x), self.param(op.output)
        w = quant_param(fixed_up(float(op.weights.min()), float(op.weights.max())))
        scale = float(np.float32(x.scale) * np.float32(w.scale))
        out = fixed_mul(float(np.float32(y.scale / scale)), 32, 62)
        return QuantizedConv2D(
            self.stored(op.x),
            quantised(op.weights, w),
            stored_bias(op.bias, scale),
            op.groups,
            op.pad_h,
            op.pad_w,
            op.stride,
            op.dilation,
            -x.zero_point,
            -w.zero_point,
            int32(out),
            out.shift,
            y.zero_point,
        )

    def _matmul(self, op: MatMul) -> QuantizedMatMul:
        a, b, y = self.param(op.a), self.param(op.b), self.param(op.output)
        scale = float(np.float32(a.scale) * np.float32(b.scale))
        out = fixed_mul(float(np.float32(y.scale / scale)), 32, 32)
        bias = stored_bias(op.bias, scale)
        offsets = (-a.zero_point, -b.zero_point)
        return QuantizedMatMul(
            self.stored(op.a), self.stored(op.b), bias, *offsets, int32(out), out.shift, y.zero_point
        )

    def _binary(self, op: Binary) -> QuantizedBinary:
        a, b, y = self.param(op.a), self.param(op.b), self.param(op.output)
        one = Multiplier(1.0, 0)
        if op.op is BinaryOp.MUL:
            factor_a, factor_b, scale = one, one, a.scale * b.scale
        elif op.op is BinaryOp.DIV:
            factor_a, factor_b, scale = fixed_mul(b.scale, 16, 16), one, a.scale
        else:
            factor_a, factor_b, scale = fixed_mul(b.scale, 16, 16), fixed_mul(a.scale, 16, 16), a.scale * b.scale
        out = fixed_mul(float(np.float32(y.scale / scale)), 32, 32)
        return QuantizedBinary(
            op.op,
            self.stored(op.a),
            self.stored(op.b),
            (-a.zero_point, factor_a.rounded, factor_a.shift),
            (-b.zero_point, factor_b.rounded, factor_b.shift),
            (y.zero_point, int32(out), out.shift),
        )

    def _table(self, op: Function) -> Table:
        return Table(self.stored(op.x), function_table(op.expr, self.param(op.x), self.param(op.output)))


def function_table(expr: Expr, x: QuantParam, y: QuantParam) -> Array:
    """Return the 256 results of a function from bytes to bytes."""
    values = expr(dequantised(np.arange(256), x))
    return quantised(np.nan_to_num(values, nan=0.0, posinf=1e30, neginf=-1e30), y)


def requantising_table(x: QuantParam, y: QuantParam) -> Array:
    """Return the 256 bytes that stand in `y` for those in `x`."""
    return function_table(fn.X, x, y)


def int32(value: Multiplier) -> int:
    """Return a rounded multiplier that fits 32 bits."""
    return min(value.rounded, INT32)


def stored_bias(bias: Array, scale: float) -> Array:
    """Return a bias in units of the products of quantised numbers."""
    return np.asarray(np.clip(round_away(bias.astype(np.float64) * scale), -INT32, INT32), np.int32)


def equalised(weights: Array) -> tuple[Array, Array]:
    """Return weights with each output channel scaled so that it fills the range of all, and the factors."""
    total = fixed_up(float(weights.min()), float(weights.max()))
    factors = np.ones(len(weights), np.float32)
    for i, channel in enumerate(weights):
        own = Range(min(0.0, float(channel.min())), max(0.0, float(channel.max())))
        pairs = ((total.high, own.high), (total.low, own.low))
        grown = [np.float32(t) / np.float32(o) for t, o in pairs if o]
        factors[i] = min([*grown, np.float32(MAX_FACTOR)]) if grown else 1.0
    return weights * factors[:, None, None, None], factors


def normalisation(
    bias: Array, factors: Array, product_scale: float, y_scale: float, curve_scale: float | None
) -> tuple[BatchNorm, float]:
    """Return the batch-norm table, and the scale of what it makes: 1.0 becomes `scale`.

    The sums come in units of 1 / `product_scale`, times the factor of each channel. What comes out of the table is as
    fine as 22 bits of a multiplier allow, so that the segments of a straight activation have a power of two as their
    factor. In front of a curve (`curve_scale`: of its results) it is coarser, to leave bits for the
    factors of the curve.

    Args:
        bias: one number for each output channel.
        factors: by which the weights of each channel were multiplied.
        product_scale: of input times weight.
        y_scale: of the results.
        curve_scale: of the results of a function behind, None if there is none.
    """
    so = np.float32(np.float32(y_scale) / np.float32(product_scale))
    whole = fixed_mul(float(so), NORM_BITS, 255)
    shift = min(whole.shift, NORM_SHIFT)
    exact = float(np.float32(np.float32(whole.rounded) / np.float32(whole.mul)))
    # A segment of slope 1 has the factor 2^-20 at least.
    post = math.ldexp(exact, min(whole.shift - shift, MAX_SHIFT))
    # Coarser by a power of two where the bias or the start of a segment would leave its field.
    largest = max(float(np.abs(bias).max()) * y_scale, 256.0) * post
    post = math.ldexp(post, -max(0, math.frexp(largest)[1] - 31))
    if curve_scale is not None:
        # The scale of results of slope 1 is curve_scale / scale = mul / 2^20: leave mul its bits.
        wanted = curve_scale * 2.0 ** (20 - CURVE_BITS)
        excess = math.frexp(y_scale * post / wanted)[1] - 1
        post = math.ldexp(post, -max(0, excess))
    scale = float(np.float32(y_scale)) * post
    parts = [fixed_mul(float(np.float32(float(so) * post / float(f))), NORM_BITS, NORM_SHIFT) for f in factors]
    return (
        BatchNorm(
            np.array([p.rounded for p in parts], np.int64),
            round_away(bias.astype(np.float64) * scale).astype(np.int64),
            np.array([p.shift for p in parts], np.int64),
        ),
        scale,
    )
