"""Running the float graph with numpy, many samples at a time: for calibration and for folding constants.

Every tensor has one more dimension in front, that of the samples; constants have none and are repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import GraphError
from kconvert.kpu.compiler.graph import (
    Binary,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Function,
    Graph,
    KpuConv,
    MatMul,
    Op,
    Pad,
    Pool2D,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Tensor,
    Transpose,
)
from kconvert.kpu.k210 import Pool
from kconvert.kpu.nodes import BinaryOp, ReduceOp, ResizeMode
from kconvert.kpu.wire import FloatRange, Padding

Array = npt.NDArray[Any]

CHUNK_BYTES = 64 * 1024 * 1024  # of one unfolded convolution
MAX_UNFOLDED = 512 * 1024 * 1024  # bytes of one sample that may be unfolded
IN_ORDER = 1 << 28  # products of one operation that is still summed in the device's order


def run(graph: Graph, inputs: list[Array], visit: Callable[[Tensor, Array], None] | None = None) -> list[Array]:
    """Return the outputs [samples, ...] for inputs [samples, ...] of float32.

    Args:
        graph: of float operations.
        inputs: one array for each input.
        visit: called with every tensor that is computed, or is an input, and its values.
    """
    values: dict[int, Array] = {}
    samples = len(inputs[0])

    def value(tensor: Tensor) -> Array:
        if tensor.data is not None:
            return np.broadcast_to(tensor.data, (samples, *tensor.shape))
        return values[id(tensor)]

    for tensor, array in zip(graph.inputs, inputs, strict=True):
        values[id(tensor)] = np.ascontiguousarray(array, np.float32).reshape(samples, *tensor.shape)
        if visit is not None:
            visit(tensor, values[id(tensor)])
    order = graph.order()
    last = {id(t): i for i, op in enumerate(order) for t in op.inputs}
    kept = {id(t) for t in graph.outputs}
    for i, op in enumerate(order):
        with np.errstate(all="ignore"):
            result = compute(op, [value(t) for t in op.inputs])
        values[id(op.output)] = result
        if visit is not None:
            visit(op.output, result)
        for tensor in op.inputs:
            if last[id(tensor)] == i and id(tensor) not in kept:
                values.pop(id(tensor), None)
    return [value(t) for t in graph.outputs]


def fold(op: Op) -> Array:
    """Return the result of an operation all of whose inputs are constants."""
    with np.errstate(all="ignore"):
        result: Array = compute(op, [t.data[None] for t in op.inputs if t.data is not None])[0]
    return np.ascontiguousarray(result)


@singledispatch
def compute(op: Op, values: list[Array]) -> Array:
    """Return the result of one operation."""
    raise GraphError(f"{op!r} is no operation of the float graph")


def _clamped(y: Array, act: FloatRange) -> Array:
    if act == FloatRange():
        return y
    return np.clip(y, np.float32(act.low), np.float32(act.high), out=y)


# ***** weighted sums *****


def convolve(
    x: Array,
    weights: Array,
    bias: Array,
    pads: tuple[Padding, Padding],
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    """Convolve maps [n, c, h, w] with weights [out, c / groups, kh, kw], any number of groups, and add the bias.

    Small ones are summed in the order of the device's kernel, so that a calibrated range is the same to the last bit;
    for large ones the order is that of a matrix product.
    """
    kernel = weights.shape[2:]
    oh, ow = (
        (size + sum(pad) - d * (k - 1) - 1) // s + 1
        for size, pad, k, s, d in zip(x.shape[2:], pads, kernel, stride, dilation, strict=True)
    )
    x = _padded(x, *pads)
    result = np.empty((len(x), len(weights), oh, ow), np.float32)
    result[:] = bias[:, None, None]

    def tap(maps: Array, ky: int, kx: int) -> Array:
        (sh, sw), y0, x0 = stride, ky * dilation[0], kx * dilation[1]
        return maps[:, :, y0 : y0 + sh * (oh - 1) + 1 : sh, x0 : x0 + sw * (ow - 1) + 1 : sw]

    taps = [(ky, kx) for ky in range(kernel[0]) for kx in range(kernel[1])]
    unfolded = 4 * x.shape[1] * len(taps) * oh * ow
    small = result.size * weights[0].size <= IN_ORDER or unfolded > MAX_UNFOLDED
    add = _add_in_order if small else _add_products
    add(result, x, weights, taps, tap)
    return result


Taps = list[tuple[int, int]]
Tap = Callable[[Array, int, int], Array]


def _add_in_order(result: Array, x: Array, weights: Array, taps: Taps, tap: Tap) -> None:
    """Add the products one by one: input channel, row, column of the filter."""
    outs, per_group = weights.shape[:2]
    groups = x.shape[1] // per_group
    n, _, oh, ow = result.shape
    grouped = result.reshape(n, groups, outs // groups, oh, ow)
    factors = weights.reshape(groups, outs // groups, per_group, *weights.shape[2:])
    for channel in range(per_group):
        maps = x[:, channel::per_group]
        for ky, kx in taps:
            grouped += tap(maps, ky, kx)[:, :, None] * factors[:, :, channel, ky, kx, None, None]


def _add_products(result: Array, x: Array, weights: Array, taps: Taps, tap: Tap) -> None:
    """Add a product of matrices: the filters, and the maps unfolded."""
    outs, per_group = weights.shape[:2]
    channels, (oh, ow) = x.shape[1], result.shape[2:]
    groups = channels // per_group
    flat = weights.reshape(groups, outs // groups, per_group * len(taps))
    step = max(1, CHUNK_BYTES // (4 * channels * len(taps) * oh * ow))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        columns = np.empty((len(part), channels, len(taps), oh, ow), np.float32)
        for i, (ky, kx) in enumerate(taps):
            columns[:, :, i] = tap(part, ky, kx)
        unfolded = columns.reshape(len(part), groups, per_group * len(taps), oh * ow)
        result[start : start + step] += np.matmul(flat, unfolded).reshape(len(part), outs, oh, ow)


def _padded(x: Array, pad_h: Padding, pad_w: Padding, value: float = 0.0) -> Array:
    if not any((*pad_h, *pad_w)):
        return x
    for before, axis in ((pad_h.before, 2), (pad_w.before, 3)):
        if before < 0:
            x = x.take(range(-before, x.shape[axis]), axis)
    x = x[:, :, : x.shape[2] + min(0, pad_h.after), : x.shape[3] + min(0, pad_w.after)]
    more = [(max(0, p.before), max(0, p.after)) for p in (pad_h, pad_w)]
    return np.pad(x, ((0, 0), (0, 0), *more), constant_values=np.float32(value))


def _images(x: Array) -> Array:
    """Join the samples and the batch."""
    return x.reshape(-1, *x.shape[2:])


@compute.register
def _(op: Conv2D, values: list[Array]) -> Array:
    y = convolve(_images(values[0]), op.weights, op.bias, (op.pad_h, op.pad_w), op.stride, op.dilation)
    return _clamped(y, op.act).reshape(len(values[0]), *op.output.shape)


@compute.register
def _(op: KpuConv, values: list[Array]) -> Array:
    x = _images(values[0])
    border = Padding(op.kernel // 2, op.kernel // 2)
    y = convolve(x, op.weights, op.bias, (border, border))
    _clamped(y, op.act)
    return pooled(y, op.pool).reshape(len(values[0]), *op.output.shape)


def pooled(y: Array, pool: Pool) -> Array:
    """Return what the KPU's pooling leaves of maps, where it picks pixels."""
    h, w = y.shape[2] // 2 * 2, y.shape[3] // 2 * 2
    if pool is Pool.NONE:
        return y
    if pool is Pool.LEFT_TOP_2X2:
        return y[:, :, :h:2, :w:2]
    if pool is Pool.RIGHT_TOP_2X2:
        return y[:, :, :h:2, 1:w:2]
    raise GraphError(f"the float graph has no pooling of kind {pool.name}")


@compute.register
def _(op: ConvTranspose2D, values: list[Array]) -> Array:
    """Scatter: every pixel of the input adds a whole filter."""
    x = _images(values[0])
    n, _, h, w = x.shape
    outs, _, kh, kw = op.weights.shape
    (sh, sw), (oh, ow) = op.stride, op.size
    full = np.zeros(
        (n, outs, max(sh * (h - 1) + kh, op.pad_h.before + oh), max(sw * (w - 1) + kw, op.pad_w.before + ow))
    )
    for ky in range(kh):
        for kx in range(kw):
            part = np.tensordot(x, op.weights[:, :, ky, kx], ([1], [1])).transpose(0, 3, 1, 2)
            full[:, :, ky : ky + sh * (h - 1) + 1 : sh, kx : kx + sw * (w - 1) + 1 : sw] += part
    top, left = op.pad_h.before, op.pad_w.before
    y = full[:, :, top : top + oh, left : left + ow].astype(np.float32)
    return _clamped(y, op.act).reshape(len(values[0]), *op.output.shape)


@compute.register
def _(op: MatMul, values: list[Array]) -> Array:
    a = values[0]
    b = np.broadcast_to(op.b.data, (len(a), *op.b.shape)) if op.b.data is not None else values[1]
    if a.size * b.shape[-1] > IN_ORDER:
        return _clamped(np.asarray(np.matmul(a, b) + op.bias, np.float32), op.act)
    y = np.empty((*a.shape[:-1], b.shape[-1]), np.float32)
    y[:] = op.bias
    for k in range(a.shape[-1]):
        y += a[..., k, None] * b[..., k, None, :]
    return _clamped(y, op.act)


# ***** elements and reductions *****

_BINARY = {
    BinaryOp.ADD: np.add,
    BinaryOp.SUB: np.subtract,
    BinaryOp.MUL: np.multiply,
    BinaryOp.DIV: np.divide,
    BinaryOp.MIN: np.minimum,
    BinaryOp.MAX: np.maximum,
}


@compute.register
def _(op: Binary, values: list[Array]) -> Array:
    return _clamped(_BINARY[op.op](*values), op.act)


@compute.register
def _(op: Function, values: list[Array]) -> Array:
    return op.expr(values[0])


@compute.register
def _(op: Reduce, values: list[Array]) -> Array:
    axes = tuple(a + 1 for a in op.axes)
    kinds: dict[ReduceOp, Callable[..., Array]] = {
        ReduceOp.MEAN: np.mean,
        ReduceOp.MIN: np.min,
        ReduceOp.MAX: np.max,
        ReduceOp.SUM: np.sum,
    }
    return np.asarray(kinds[op.op](values[0], axis=axes, keepdims=True), np.float32)


@compute.register
def _(op: Pool2D, values: list[Array]) -> Array:
    x = _images(values[0])
    fill = -np.inf if op.op is ReduceOp.MAX else 0.0
    parts = list(_taps(_padded(x, op.pad_h, op.pad_w, fill), op))
    if op.op is ReduceOp.MAX:
        y = np.maximum.reduce(parts)
    else:
        inside = _padded(np.ones((1, 1, *x.shape[2:]), np.float32), op.pad_h, op.pad_w)
        y = np.add.reduce(parts) / np.add.reduce(list(_taps(inside, op)))
    return _clamped(y.astype(np.float32), op.act).reshape(len(values[0]), *op.output.shape)


def _taps(x: Array, op: Pool2D) -> Iterator[Array]:
    (kh, kw), (sh, sw), (oh, ow) = op.kernel, op.stride, op.output.shape[2:]
    for ky in range(kh):
        for kx in range(kw):
            yield x[:, :, ky : ky + sh * (oh - 1) + 1 : sh, kx : kx + sw * (ow - 1) + 1 : sw]


# ***** moves *****


@compute.register
def _(op: Pad, values: list[Array]) -> Array:
    x = values[0]
    inner = tuple(slice(max(0, -p.before), s - max(0, -p.after)) for s, p in zip(op.x.shape, op.pads, strict=True))
    more = [(0, 0), *((max(0, p.before), max(0, p.after)) for p in op.pads)]
    return np.pad(x[(slice(None), *inner)], more, constant_values=np.asarray(op.value, x.dtype))


@compute.register
def _(op: Slice, values: list[Array]) -> Array:
    return values[0][(slice(None), *(slice(*s) for s in zip(op.begin, op.end, op.strides, strict=True)))]


@compute.register
def _(op: Transpose, values: list[Array]) -> Array:
    return values[0].transpose(0, *(p + 1 for p in op.perm))


@compute.register
def _(op: Reshape, values: list[Array]) -> Array:
    return np.ascontiguousarray(values[0]).reshape(len(values[0]), *op.shape)


@compute.register
def _(op: Concat, values: list[Array]) -> Array:
    return np.concatenate(values, op.axis + 1)


@compute.register
def _(op: Resize, values: list[Array]) -> Array:
    x = values[0]
    for axis, want in zip((3, 4), op.size, strict=True):
        x = _resized(x, axis, want, op)
    return x


def _resized(x: Array, axis: int, want: int, op: Resize) -> Array:
    """Scale one axis as the runtime does: corners aligned or not, never half-pixel centres."""
    have = x.shape[axis]
    aligned = op.align_corners and op.mode is ResizeMode.BILINEAR and want > 1
    scale = np.float32((have - 1) / (want - 1) if aligned else have / want)
    place = np.arange(want, dtype=np.float32) * scale
    low = np.minimum(np.floor(place).astype(int), have - 1)
    if op.mode is ResizeMode.NEAREST:
        return np.asarray(x.take(low, axis))
    shape = [1] * x.ndim
    shape[axis] = want
    part = (place - low).astype(np.float32).reshape(shape)
    high = np.minimum(low + 1, have - 1)
    return np.asarray(x.take(low, axis) * (1 - part) + x.take(high, axis) * part, np.float32)
