"""The rewrites of the float graph, as small named rules; the lists at the end are the order in which they run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu import k210
from kconvert.kpu.compiler import functions as fn
from kconvert.kpu.compiler.execute import fold
from kconvert.kpu.compiler.graph import (
    NO_CLAMP,
    Binary,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Function,
    Graph,
    KpuConv,
    MatMul,
    Move,
    Op,
    Pad,
    Pool2D,
    Reduce,
    Reshape,
    Resize,
    Rule,
    Slice,
    Tensor,
    Transpose,
    constant,
    rule,
)
from kconvert.kpu.compiler.operators.blocks import from_batches, interleaved, to_batches
from kconvert.kpu.k210 import Pool
from kconvert.kpu.nnil import Op as Nnil
from kconvert.kpu.nodes import BinaryOp, ReduceOp, ResizeMode
from kconvert.kpu.wire import FloatRange, Padding

Array = npt.NDArray[Any]

ZERO = Padding(0, 0)
MAX_DENSE = 1 << 20  # weights of a grouped convolution that is written out as a full one


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is left in float because bytes would be too coarse, or not worth it."""

    weights: float = 32.0  # a wider range of weights stays in float
    output: int = 1024  # results with fewer elements stay in float
    quantized_binary: bool = True


def pads_of(rank: int, *last: Padding) -> tuple[Padding, ...]:
    """Return paddings of the last dimensions, none of the others."""
    return (ZERO,) * (rank - len(last)) + last


def crop(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Return a part of maps."""
    h, w = x.shape[2:]
    return Pad(x, pads_of(4, Padding(-top, top + height - h), Padding(-left, left + width - w))).output


# ***** simplification *****


@rule(Op)
def fold_constants(graph: Graph, op: Op) -> Tensor | None:
    """An operation on constants is a constant."""
    if any(t.data is None for t in op.inputs):
        return None
    return constant(op.output.name, fold(op))


@rule(Pad, Reshape, Transpose, Slice, Resize, Concat)
def drop_moves_of_nothing(graph: Graph, op: Move) -> Tensor | None:
    """A move that moves nothing is dropped."""
    x = op.inputs[0]
    if x.shape != op.output.shape or (isinstance(op, Transpose) and list(op.perm) != sorted(op.perm)):
        return None
    if isinstance(op, Pad) and any(p != ZERO for p in op.pads):  # what is added here may be cut off there
        return None
    return x


@rule(Reshape)
def merge_reshapes(graph: Graph, op: Reshape) -> Tensor | None:
    """A view of a view is a view."""
    first = op.x.producer
    return Reshape(first.x, op.shape).output if isinstance(first, Reshape) else None


@rule(Transpose)
def merge_transposes(graph: Graph, op: Transpose) -> Tensor | None:
    """Two transposes are one, or none; one that only moves dimensions of size 1 is a view."""
    kept = [p for p in op.perm if op.x.shape[p] > 1]
    if kept == sorted(kept):
        return Reshape(op.x, op.output.shape).output
    first = op.x.producer
    if isinstance(first, Transpose):
        return Transpose(first.x, tuple(first.perm[p] for p in op.perm)).output
    return None


@rule(Pad)
def merge_pads(graph: Graph, op: Pad) -> Tensor | None:
    """Two paddings with the same value are one, unless the second cuts off and the first does not fit."""
    first = op.x.producer
    if not isinstance(first, Pad) or graph.only_user(op.x) is None:
        return None
    if not (first.crops or op.crops or first.value == op.value):
        return None
    pairs = list(zip(first.pads, op.pads, strict=True))
    if any(a < 0 < b for p, q in pairs for a, b in ((p.before, q.before), (p.after, q.after))):
        return None  # what was cut off does not come back
    value = op.value if first.crops else first.value
    merged = tuple(Padding(p.before + q.before, p.after + q.after) for p, q in pairs)
    return Pad(first.x, merged, value).output


@rule(Resize)
def merge_resizes(graph: Graph, op: Resize) -> Tensor | None:
    """Repeating rows and then columns is one resize."""
    first = op.x.producer
    if not isinstance(first, Resize) or {op.mode, first.mode} != {ResizeMode.NEAREST}:
        return None
    sizes = [(first.x.shape[2:], first.size), (first.size, op.size)]
    if any(want % have for small, large in sizes for have, want in zip(small, large, strict=True)):
        return None
    return Resize(first.x, op.size, ResizeMode.NEAREST).output


@rule(Slice)
def slice_to_crop(graph: Graph, op: Slice) -> Tensor | None:
    """A slice with steps of 1 is a padding that cuts off."""
    if any(s != 1 for s in op.strides):
        return None
    sizes = zip(op.begin, op.end, op.x.shape, strict=True)
    return Pad(op.x, tuple(Padding(-b, e - s) for b, e, s in sizes)).output


@rule(Conv2D)
def pad_into_conv(graph: Graph, op: Conv2D) -> Tensor | None:
    """Zeros that are added before a convolution are its padding."""
    first = op.x.producer
    if not isinstance(first, Pad) or first.value != 0 or first.pads[:2] != (ZERO, ZERO):
        return None
    pad_h, pad_w = (
        Padding(a.before + b.before, a.after + b.after)
        for a, b in zip(first.pads[2:], (op.pad_h, op.pad_w), strict=True)
    )
    if any(p < 0 for p in (*first.pads[2], *first.pads[3])):
        return None
    return dataclasses.replace(op, x=first.x, pad_h=pad_h, pad_w=pad_w).output


@rule(Function)
def clamp_into_producer(graph: Graph, op: Function) -> Tensor | None:
    """ReLU and the like become the clamp of what computes their input."""
    bounds, first = op.expr.clamp, op.x.producer
    clamped = Conv2D | ConvTranspose2D | MatMul | Binary | KpuConv
    # The largest of clamped values is the largest value, clamped; a mean would not be.
    takes = isinstance(first, clamped) or (isinstance(first, Pool2D) and first.op is ReduceOp.MAX)
    if bounds is None or graph.only_user(op.x) is not op or not takes:
        return None
    act: FloatRange = first.act  # type: ignore[union-attr]
    low, high = (min(max(v, bounds[0]), bounds[1]) for v in act)
    return dataclasses.replace(first, act=FloatRange(low, high)).output  # type: ignore[type-var,union-attr]


@rule(Pool2D)
def clamp_of_pool_into_conv(graph: Graph, op: Pool2D) -> Tensor | None:
    """The clamp behind a max pooling moves in front of it."""
    if op.op is not ReduceOp.MAX or op.act == NO_CLAMP or graph.only_user(op.x) is not op:
        return None
    if not isinstance(op.x.producer, Conv2D | KpuConv):
        return None
    clamped = Function(op.x, fn.clamp(*op.act)).output
    return dataclasses.replace(op, x=clamped, act=NO_CLAMP).output


@rule(Binary)
def scalar_to_function(graph: Graph, op: Binary) -> Tensor | None:
    """An operation with one number is a function."""
    for number, x, first in ((op.b, op.a, False), (op.a, op.b, True)):
        if number.data is None or number.count != 1 or x.shape != op.output.shape:
            continue
        value = fn.lift(float(number.data.flat[0]))
        expr = fn.binary(Nnil[op.op.name], *((value, fn.X) if first else (fn.X, value)))
        if op.op in (BinaryOp.MAX, BinaryOp.MIN):
            largest = NO_CLAMP.high
            expr = fn.clamp(value.value, largest) if op.op is BinaryOp.MAX else fn.clamp(-largest, value.value)
        return Function(x, expr if op.act == NO_CLAMP else fn.clamp(*op.act, expr)).output
    return None


@rule(Function)
def merge_functions(graph: Graph, op: Function) -> Tensor | None:
    """A function of a function is a function."""
    first = op.x.producer
    if not isinstance(first, Function) or graph.only_user(op.x) is not op:
        return None
    merged = op.expr.of(first.expr)
    inner, outer = first.expr.clamp, op.expr.clamp
    if inner is not None and outer is not None:
        low, high = (min(max(v, outer[0]), outer[1]) for v in inner)
        merged = fn.clamp(low, high)
    return Function(first.x, merged).output if merged.acceptable else None


@rule(Binary)
def join_functions(graph: Graph, op: Binary) -> Tensor | None:
    """f(x) op g(x) is a function of x, as in x * sigmoid(x)."""
    sides = []
    for t in (op.a, op.b):
        inner = t.producer
        sides.append([(t, fn.X)] + ([(inner.x, inner.expr)] if isinstance(inner, Function) else []))
    for x, f in reversed(sides[0]):
        for y, g in reversed(sides[1]):
            if x is not y or x.data is not None or x.shape != op.output.shape:
                continue
            expr = fn.binary(Nnil[op.op.name], f, g)
            expr = expr if op.act == NO_CLAMP else fn.clamp(*op.act, expr)
            if expr.acceptable:
                return Function(x, expr).output
    return None


@rule(Binary)
def channel_scale_into_conv(graph: Graph, op: Binary) -> Tensor | None:
    """A factor or summand for each channel behind a convolution goes into its weights."""
    if op.op not in (BinaryOp.ADD, BinaryOp.MUL, BinaryOp.SUB):
        return None
    first, number = op.a.producer, op.b
    if op.a.data is not None and op.op is not BinaryOp.SUB:
        first, number = op.b.producer, op.a
    if not isinstance(first, Conv2D) or number.data is None or first.act != NO_CLAMP:
        return None
    channels = len(first.bias)
    if graph.only_user(first.output) is not op or number.shape not in ((1, channels, 1, 1), (1, 1, 1, 1)):
        return None
    if first.output.shape != op.output.shape:
        return None
    value = np.broadcast_to(number.data.reshape(-1), channels)
    if op.op is BinaryOp.MUL:
        weights, bias = first.weights * value[:, None, None, None], first.bias * value
    else:
        weights, bias = first.weights, first.bias + (value if op.op is BinaryOp.ADD else -value)
    return dataclasses.replace(first, weights=weights, bias=bias, act=op.act).output


@rule(MatMul)
def transpose_into_matmul(graph: Graph, op: MatMul) -> Tensor | None:
    """A transpose before a dense layer reorders its weights instead (the flattening of maps)."""
    view = op.a.producer
    if not isinstance(view, Reshape) or op.b.data is None or op.a.shape[0] != 1:
        return None
    turned = view.x.producer
    if not isinstance(turned, Transpose):
        return None
    # Element j of the flat tensor in its new order is element index[j] in the old one.
    index = np.arange(turned.x.count).reshape(turned.x.shape).transpose(turned.perm).ravel()
    weights = np.empty_like(op.b.data)
    weights[index] = op.b.data
    flat = Reshape(turned.x, op.a.shape).output
    return MatMul(flat, constant(op.b.name, weights), op.bias, op.act).output


@rule(Function)
def function_above_views(graph: Graph, op: Function) -> Tensor | None:
    """A function moves in front of views and transposes, to what computes its input."""
    first = op.x.producer
    if not isinstance(first, Reshape | Transpose) or graph.only_user(op.x) is not op:
        return None
    return dataclasses.replace(first, x=Function(first.x, op.expr).output).output


@rule(Function)
def function_above_crops(graph: Graph, op: Function) -> Tensor | None:
    """A function moves in front of a crop or slice of what the KPU computes, so that the KPU computes it too."""
    first = op.x.producer
    if not isinstance(first, Slice | Pad) or graph.only_user(op.x) is not op:
        return None
    if isinstance(first, Pad) and not first.crops:
        return None
    if not isinstance(first.x.producer, KpuConv) or graph.only_user(first.x) is not first:
        return None
    return dataclasses.replace(first, x=Function(first.x, op.expr).output).output


@rule(Binary)
def binary_above_transposes(graph: Graph, op: Binary) -> Tensor | None:
    """Two transposes of the same kind before an operation become one behind it."""
    a, b = op.a.producer, op.b.producer
    if not (isinstance(a, Transpose) and isinstance(b, Transpose)) or a.perm != b.perm:
        return None
    return Transpose(Binary(op.op, a.x, b.x, op.act).output, a.perm).output


@rule(Reduce)
def whole_reduce_above_transpose(graph: Graph, op: Reduce) -> Tensor | None:
    """A reduction does not mind the order of its dimensions."""
    first = op.x.producer
    if not isinstance(first, Transpose):
        return None
    return Transpose(Reduce(op.op, first.x, tuple(sorted(first.perm[a] for a in op.axes))).output, first.perm).output


SIMPLIFY: tuple[Rule, ...] = (
    fold_constants,
    drop_moves_of_nothing,
    merge_reshapes,
    merge_transposes,
    merge_resizes,  # UpSampling2D
    slice_to_crop,
    merge_pads,
    pad_into_conv,  # what a ZeroPadding2D adds, the convolution adds itself
    channel_scale_into_conv,
    clamp_into_producer,  # ReLU and ReLU6 cost nothing
    clamp_of_pool_into_conv,
    scalar_to_function,
    merge_functions,
    join_functions,  # x * sigmoid(x)
    function_above_views,
    binary_above_transposes,
    whole_reduce_above_transpose,
    transpose_into_matmul,
)


# ***** onto the KPU *****


def weight_range(weights: Array) -> float:
    """Return the width of the weights' range, with 0 inside and each end limited to 1000."""
    low, high = min(0.0, float(weights.min())), max(0.0, float(weights.max()))
    return min(high, 1000.0) - max(low, -1000.0)


def map_problem(shape: tuple[int, ...], out_channels: int) -> str | None:
    """Say why the KPU does not take maps [n, c, h, w], or None."""
    _, c, h, w = shape
    if c > k210.MAX_CHANNELS or out_channels > k210.MAX_CHANNELS:
        return f"{c} to {out_channels} channels; the KPU has at most {k210.MAX_CHANNELS}"
    if not (k210.MIN_HEIGHT <= h <= k210.MAX_HEIGHT and k210.MIN_WIDTH <= w <= k210.MAX_WIDTH):
        return (
            f"a map of {h}x{w}; the KPU takes heights {k210.MIN_HEIGHT} to {k210.MAX_HEIGHT} and widths "
            f"{k210.MIN_WIDTH} to {k210.MAX_WIDTH}"
        )
    return None


def conv_problem(op: Conv2D, limits: Thresholds) -> str | None:
    """Say why a convolution cannot run on the KPU, or None."""
    n, c, _, _ = op.x.shape
    kernel = op.kernel
    if kernel not in ((1, 1), (3, 3)):
        return f"a kernel of {kernel[0]}x{kernel[1]}; the KPU has 1x1 and 3x3"
    if op.groups not in (1, c) or (op.groups == c and c > 1 and len(op.weights) != c):
        return f"{op.groups} groups for {c} channels; the KPU has 1, or one for each channel"
    if op.dilation != (1, 1):
        return f"a dilation of {op.dilation}"
    width = weight_range(op.weights)
    if width > limits.weights:
        return f"weights over a range of {width:.3g}, more than {limits.weights:g} (the threshold for weights)"
    extra_h, extra_w = extra_padding(op)
    h, w = (s + sum(p) for s, p in zip(op.x.shape[2:], (extra_h, extra_w), strict=True))
    problem = map_problem(op.x.shape, len(op.weights)) or map_problem((n, c, h, w), len(op.weights))
    if problem is None and n > 1 and weight_loads(op.weights) > k210.MAX_LOADS:
        problem = "so many weights with more than one map (a dilation)"
    return problem


@rule(Binary)
def channel_scale_to_conv(graph: Graph, op: Binary) -> Tensor | None:
    """A factor for each channel, as a batch normalisation behind an activation has it, is a depthwise convolution."""
    if op.op is not BinaryOp.MUL or (op.a.data is None) == (op.b.data is None):
        return None
    x, number = (op.a, op.b) if op.b.data is not None else (op.b, op.a)
    if len(x.shape) != 4 or number.shape != (1, x.shape[1], 1, 1) or x.shape[1] < 2 or map_problem(x.shape, 1):
        return None
    weights = np.asarray(number.data, np.float32).reshape(-1, 1, 1, 1)
    return Conv2D(x, weights, np.zeros(len(weights), np.float32), len(weights), act=op.act).output


def weight_loads(weights: Array) -> int:
    """Return how often the KPU has to load weights [out, in, k, k] of a convolution that is not depthwise."""
    return -(-len(weights) // min(len(weights), k210.WEIGHT_BUFFER // int(weights[0].size)))


def extra_padding(op: Conv2D) -> tuple[Padding, Padding]:
    """Return what has to be added before a convolution beyond the border that the KPU adds itself."""
    border = op.kernel[0] // 2
    h, w = (Padding(max(0, p.before - border), max(0, p.after - border)) for p in (op.pad_h, op.pad_w))
    return h, w


@rule(Conv2D)
def dilation_to_batches(graph: Graph, op: Conv2D) -> Tensor | None:
    """A dilated convolution works on every d-th row and column, as separate maps.

    A border of 1 around each of them is one of d around all: it does for that much of the padding.
    """
    if op.dilation == (1, 1) or op.stride != (1, 1) or op.x.shape[0] != 1 or op.kernel != (3, 3):
        return None
    more, first = [], []
    for size, pad, d, out in zip(op.x.shape[2:], (op.pad_h, op.pad_w), op.dilation, op.output.shape[2:], strict=True):
        before, top = max(0, pad.before - d), max(0, d - pad.before)
        after = max(0, top + out - size - before)
        more.append(Padding(before, after + -(size + before + after) % d))
        first.append(top)
    sizes = [(s + sum(p)) // d for s, p, d in zip(op.x.shape[2:], more, op.dilation, strict=True)]
    if map_problem((1, op.x.shape[1], *sizes), len(op.weights)):
        return None
    maps = to_batches(Pad(op.x, pads_of(4, *more)).output, op.dilation)
    border = Padding(1, 1)
    y = Conv2D(maps, op.weights, op.bias, op.groups, border, border, act=op.act).output
    return crop(from_batches(y, op.dilation), first[0], first[1], *op.output.shape[2:])


@rule(Conv2D)
def groups_to_full(graph: Graph, op: Conv2D) -> Tensor | None:
    """A grouped convolution that the KPU does not have is a full one with zeros."""
    channels, outs = op.x.shape[1], len(op.weights)
    if op.groups == 1 or (op.groups == channels == outs) or op.kernel not in ((1, 1), (3, 3)):
        return None
    if outs * channels * op.weights[0, 0].size > MAX_DENSE or map_problem(op.x.shape, outs):
        return None
    per_group, outs_per_group = op.weights.shape[1], outs // op.groups
    full = np.zeros((outs, channels, *op.kernel), np.float32)
    for g in range(op.groups):
        rows, columns = slice(g * outs_per_group, (g + 1) * outs_per_group), slice(g * per_group, (g + 1) * per_group)
        full[rows, columns] = op.weights[rows]
    return dataclasses.replace(op, weights=full, groups=1).output


def phases(op: ConvTranspose2D) -> tuple[Array, tuple[int, int], tuple[int, int]] | None:
    """Return a 3x3 (or 1x1) convolution that makes all pixels of a block at once, in channels (row, column, out).

    Pixel o of the result sums weights[k] * x[i] over o + pad = i * stride + k. With o = j * stride + p that is a
    convolution of offset i - j for each phase p. None if an offset leaves -1, 0, 1.

    Returns:
        Weights [sh * sw * out, in, k, k], and the rows and columns of blocks.
    """
    outs, channels, kh, kw = op.weights.shape
    taps = []
    for kernel, stride, pad in ((kh, op.stride[0], op.pad_h.before), (kw, op.stride[1], op.pad_w.before)):
        found = [
            (p, k, (p + pad - k) // stride) for p in range(stride) for k in range(kernel) if not (p + pad - k) % stride
        ]
        if any(not -1 <= offset <= 1 for _, _, offset in found):
            return None
        taps.append(found)
    sh, sw = op.stride
    weights = np.zeros((sh, sw, outs, channels, 3, 3), np.float32)
    for p, ky, i in taps[0]:
        for q, kx, j in taps[1]:
            weights[p, q, :, :, 1 + i, 1 + j] += op.weights[:, :, ky, kx]
    flat = weights.reshape(sh * sw * outs, channels, 3, 3)
    if not flat[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]].any():
        flat = np.ascontiguousarray(flat[:, :, 1:2, 1:2])
    blocks = (-(-op.size[0] // sh), -(-op.size[1] // sw))
    return flat, blocks, (sh, sw)


def is_answer(graph: Graph, op: ConvTranspose2D) -> bool:
    """Whether a transposed convolution, with its bias, is what the model answers: float then loses nothing."""
    y, act, user = op.output, op.act, graph.only_user(op.output)
    if isinstance(user, Binary) and user.op is BinaryOp.ADD and user.b.data is not None:
        y, act = user.output, user.act
    return act == NO_CLAMP and y in graph.outputs


@rule(ConvTranspose2D)
def transposed_conv_to_conv(graph: Graph, op: ConvTranspose2D) -> Tensor | None:
    """A transposed convolution is a convolution that makes a block of pixels in its channels."""
    made = phases(op)
    if made is None or op.x.shape[0] != 1 or is_answer(graph, op):
        return None
    weights, (rows, columns), block = made
    _, channels, h, w = op.x.shape
    if map_problem((1, channels, max(rows, h), max(columns, w)), len(weights)):
        return None
    more = pads_of(4, Padding(0, max(0, rows - h)), Padding(0, max(0, columns - w)))
    border = Padding(weights.shape[2] // 2, weights.shape[2] // 2)
    bias = np.zeros(len(weights), np.float32)
    y = Conv2D(Pad(op.x, more).output, weights, bias, pad_h=border, pad_w=border, act=op.act).output
    return crop(interleaved(y, block), 0, 0, *op.size)


@rule(Binary)
def bias_into_transposed_conv(graph: Graph, op: Binary) -> Tensor | None:
    """The bias behind a transposed convolution becomes that of the convolution it is computed by."""
    if op.op is not BinaryOp.ADD or op.b.data is None or op.b.shape[1:] != (op.output.shape[1], 1, 1):
        return None
    chain: list[Op] = []
    at = op.a
    while isinstance(at.producer, Pad | Reshape | Transpose) and graph.only_user(at) is not None:
        if isinstance(at.producer, Pad) and not at.producer.crops:
            return None
        chain.append(at.producer)
        at = at.producer.x
    conv = at.producer
    if not isinstance(conv, Conv2D) or graph.only_user(at) is None or conv.act != NO_CLAMP or not chain:
        return None
    repeats, rest = divmod(len(conv.bias), op.b.count)
    if rest or not any(isinstance(c, Transpose) and c.perm == (2, 0, 3, 1) for c in chain):
        return None
    y = dataclasses.replace(conv, bias=conv.bias + np.tile(op.b.data.ravel(), repeats), act=op.act).output
    for move in reversed(chain):
        y = dataclasses.replace(move, x=y).output  # type: ignore[type-var]
    return y


def kpu_conv(limits: Thresholds) -> Rule:
    """Return the rule that puts convolutions on the KPU."""

    @rule(Conv2D)
    def conv_to_kpu(graph: Graph, op: Conv2D) -> Tensor | None:
        """A convolution runs on the KPU: more padding before, less padding and strides behind."""
        if conv_problem(op, limits) is not None:
            return None
        border = op.kernel[0] // 2
        extra = extra_padding(op)
        x = op.x if extra == (ZERO, ZERO) else Pad(op.x, pads_of(4, *extra)).output
        depthwise = op.groups > 1
        y = KpuConv(x, op.weights, op.bias, depthwise, op.act).output
        begin = tuple(max(0, border - p.before) for p in (op.pad_h, op.pad_w))
        end = tuple(b + (n - 1) * s + 1 for b, n, s in zip(begin, op.output.shape[2:], op.stride, strict=True))
        return Slice(y, (0, 0, *begin), (*y.shape[:2], *end), (1, 1, *op.stride)).output

    return conv_to_kpu


def kpu_matmul(limits: Thresholds) -> Rule:
    """Return the rule that puts dense layers on the KPU."""

    @rule(MatMul)
    def matmul_to_kpu(graph: Graph, op: MatMul) -> Tensor | None:
        """A dense layer is a 1x1 convolution of the first pixel of a 4x4 map."""
        if matmul_problem(op, limits) is not None or op.b.data is None:
            return None
        rows, inner = op.a.shape
        maps = Pad(Reshape(op.a, (rows, inner, 1, 1)).output, pads_of(4, Padding(0, 3), Padding(0, 3))).output
        weights = np.ascontiguousarray(op.b.data.T).reshape(-1, inner, 1, 1)
        y = KpuConv(maps, weights, op.bias, act=op.act).output
        return Reshape(crop(y, 0, 0, 1, 1), op.output.shape).output

    return matmul_to_kpu


def matmul_problem(op: MatMul, limits: Thresholds) -> str | None:
    """Say why a dense layer does not run on the KPU, or None."""
    if op.b.data is None:
        return "both factors are computed"
    if op.b.count < limits.output:
        return f"{op.b.count} weights; fewer than {limits.output} are not worth the KPU (the threshold for outputs)"
    if max(op.b.shape) > k210.MAX_CHANNELS:
        return f"{op.b.shape[0]} to {op.b.shape[1]} features; the KPU has at most {k210.MAX_CHANNELS}"
    if op.a.shape[0] != 1:
        return f"{op.a.shape[0]} rows; the KPU is used for one"
    width = weight_range(op.b.data)
    if width > limits.weights:
        return f"weights over a range of {width:.3g}, more than {limits.weights:g} (the threshold for weights)"
    return None


@rule(KpuConv)
def stride_behind_pointwise(graph: Graph, op: KpuConv) -> Tensor | None:
    """Every second pixel is picked behind a 1x1 convolution, which then picks it itself."""
    first = op.x.producer
    if op.kernel != 1 or op.depthwise or op.pool is not Pool.NONE or not isinstance(first, Slice):
        return None
    if first.strides != (1, 1, 2, 2) or any(first.begin) or graph.only_user(op.x) is not op:
        return None
    if map_problem(first.x.shape, len(op.weights)) or min(op.x.shape[2:]) < 4:
        return None
    y = dataclasses.replace(op, x=first.x).output
    n, c = y.shape[:2]
    return Slice(y, (0, 0, 0, 0), (n, c, *first.end[2:]), first.strides).output


@rule(Slice)
def stride_into_conv(graph: Graph, op: Slice) -> Tensor | None:
    """The KPU picks every second pixel itself: the left or right one of even rows."""
    conv = op.x.producer
    if op.strides != (1, 1, 2, 2) or not isinstance(conv, KpuConv) or graph.only_user(op.x) is not op:
        return None
    n, c, h, w = op.x.shape
    if conv.depthwise or conv.pool is not Pool.NONE or op.begin[:2] != (0, 0) or op.end[:2] != (n, c):
        return None
    top = op.begin[2] % 2
    more = Padding(top, (h + top) % 2), Padding(0, w % 2)
    height, width = h + sum(more[0]), w + sum(more[1])
    if map_problem((n, conv.x.shape[1], height, width), c) or min(height, width) < 8:
        return None
    x = conv.x if more == (ZERO, ZERO) else Pad(conv.x, pads_of(4, *more)).output
    pick = Pool.RIGHT_TOP_2X2 if op.begin[3] % 2 else Pool.LEFT_TOP_2X2
    y = dataclasses.replace(conv, x=x, pool=pick).output
    return crop(y, (op.begin[2] + top) // 2, op.begin[3] // 2, *op.output.shape[2:])


def kpu_rules(limits: Thresholds) -> tuple[Rule, ...]:
    """Return the rules that bring work to the KPU."""
    return (
        dilation_to_batches,
        groups_to_full,
        channel_scale_to_conv,
        channel_scale_into_conv,  # the summand that comes with the factor
        transposed_conv_to_conv,
        bias_into_transposed_conv,
        kpu_conv(limits),
        kpu_matmul(limits),
        stride_behind_pointwise,
        stride_into_conv,
        function_above_crops,  # behind the two above: a stride that the KPU takes stays next to its convolution
    )
