"""Every operation of a kmodel, slow and obvious: one number at a time, in Python's integers and float32."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu import nodes as n
from kconvert.kpu.k210 import Pool
from kconvert.kpu.nnil import Op, decode

Array = npt.NDArray[Any]
F32 = np.float32


def compute(node: n.Node, *inputs: Array) -> Array:
    """Return the result of `node` for its inputs, each of the shape that the node reads."""
    return REFERENCES[type(node)](node, *inputs)


def wrap(value: int, bits: int = 64) -> int:
    """Return what is left of an integer in that many bits."""
    low = value & (1 << bits) - 1
    return low - (1 << bits) if low >> (bits - 1) else low


def clamp(value: Any, low: Any, high: Any) -> Any:
    return min(max(value, low), high)


def clip(x: Any, act: Any) -> Any:
    return clamp(F32(x), F32(act.low), F32(act.high))


def places(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*map(range, shape))


# ***** the KPU *****


def rshift_even(value: int, shift: int) -> int:
    if shift == 0:
        return value
    whole, rest, half = value >> shift, value & (1 << shift) - 1, 1 << shift - 1
    sign = -1 if value < 0 else 1
    if rest < half or (rest == half and whole % 2 == 0):
        return whole
    return whole + sign


def kpu_conv2d(node: n.KpuConv2D, x: Array) -> Array:
    return np.stack([kpu_pool(node.registers.pool, kpu_map(node, one)) for one in x])


def kpu_map(node: n.KpuConv2D, x: Array) -> Array:
    r, k = node.registers, node.registers.kernel
    channels, height, width = x.shape
    depthwise = bool(r.depth_wise_layer)
    border = k // 2
    padded = np.full((channels, height + 2 * border, width + 2 * border), r.pad_value, dtype=object)
    padded[:, border : border + height, border : border + width] = x.astype(object)
    out = np.zeros((r.o_ch_num + 1, height, width), np.uint8)
    weights = node.weights.astype(object).reshape(len(out), -1)
    for o, i, j in places(out.shape):
        seen = padded[:, i : i + k, j : j + k]
        taps = (seen[o] if depthwise else seen).ravel()
        v = wrap(
            sum(taps * weights[o])
            + (r.arg_x * sum(taps) >> r.shr_x)
            + (r.arg_w * sum(weights[o]) >> r.shr_w)
            + r.arg_add * (1 if depthwise else channels)
        )
        norm = node.norm
        b = (wrap(v * int(norm.mul[o])) >> int(norm.shift[o])) + int(norm.add[o])
        out[o, i, j] = kpu_activation(node, b)
    return out


def kpu_activation(node: n.KpuConv2D, b: int) -> int:
    lines = node.activation
    segment = max((s for s in range(16) if b > lines.start[s]), default=0)
    v = wrap((b - int(lines.start[segment])) * int(lines.mul[segment]))
    return clamp(rshift_even(v, int(lines.shift[segment])) + int(lines.bias[segment]), 0, 255)


def kpu_pool(pool: Pool, x: Array) -> Array:
    size = {Pool.NONE: 1, Pool.MAX_4X4: 4, Pool.MEAN_4X4: 4}.get(pool, 2)
    channels, height, width = x.shape
    out = np.zeros((channels, height // pool.stride, width // pool.stride), np.uint8)
    for c, i, j in places(out.shape):
        y, z = i * pool.stride, j * pool.stride
        window = [(a, b) for a in range(y, y + size) for b in range(z, z + size)]
        inside = [int(x[c, a, b]) for a, b in window if a < height and b < width]
        if pool in (Pool.MEAN_2X2, Pool.MEAN_4X4, Pool.MEAN_2X2_STRIDE_1):
            at_edge = [int(x[c, min(a, height - 1), min(b, width - 1)]) for a, b in window]
            out[c, i, j] = sum(at_edge) // size**2
        elif pool in (Pool.MAX_2X2, Pool.MAX_4X4, Pool.MAX_2X2_STRIDE_1):
            out[c, i, j] = max(inside)
        else:
            right = pool is Pool.RIGHT_TOP_2X2
            out[c, i, j] = x[c, y, z + right] if z + right < width else 0
    return out


# ***** element by element *****

BINARY: dict[n.BinaryOp, Callable[[Any, Any], Any]] = {
    n.BinaryOp.ADD: lambda a, b: a + b,
    n.BinaryOp.SUB: lambda a, b: a - b,
    n.BinaryOp.MUL: lambda a, b: a * b,
    n.BinaryOp.DIV: lambda a, b: a / b,
    n.BinaryOp.MIN: min,
    n.BinaryOp.MAX: max,
}
UNARY: dict[n.UnaryOp, Callable[[Any], Any]] = {
    n.UnaryOp.ABS: abs,
    n.UnaryOp.CEIL: np.ceil,
    n.UnaryOp.COS: np.cos,
    n.UnaryOp.EXP: np.exp,
    n.UnaryOp.FLOOR: np.floor,
    n.UnaryOp.LOG: np.log,
    n.UnaryOp.NEG: lambda x: -x,
    n.UnaryOp.RSQRT: lambda x: F32(1) / np.sqrt(x),
    n.UnaryOp.SIN: np.sin,
    n.UnaryOp.SQUARE: lambda x: x * x,
}


def binary(node: n.Binary, a: Array, b: Array) -> Array:
    wide = [np.broadcast_to(v, node.out_shape) for v in (a, b)]
    return np.array(
        [clip(BINARY[node.op](x, y), node.act) for x, y in zip(wide[0].flat, wide[1].flat, strict=True)], F32
    )


def rshift_up(value: int, shift: int) -> int:
    return wrap((wrap(value) + (1 << shift - 1) >> shift) if shift else value, 32)


def quantized_binary(node: n.QuantizedBinary, a: Array, b: Array) -> Array:
    out = np.zeros(node.out_shape, np.uint8)
    wide = [np.broadcast_to(v, node.out_shape) for v in (a, b)]
    for at in places(node.out_shape):
        x = rshift_up((int(wide[0][at]) + node.a_offset) * node.a_mul, node.a_shift)
        y = rshift_up((int(wide[1][at]) + node.b_offset) * node.b_mul, node.b_shift)
        divide = node.op is n.BinaryOp.DIV
        r = (truncated(x + truncated(y, 2), y) if y else 0) if divide else BINARY[node.op](x, y)
        out[at] = clamp(rshift_up(r * node.out_mul, node.out_shift) + node.out_offset, 0, 255)
    return out


def truncated(a: int, b: int) -> int:
    """Division as C does it."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def quantize(node: n.Quantize, x: Array) -> Array:
    scaled = [F32(F32(v) * F32(node.param.scale)) + F32(node.param.zero_point) for v in x.flat]
    away = [math.floor(abs(float(v)) + 0.5) * (-1 if v < 0 else 1) for v in scaled]
    return np.array([clamp(v, 0, 255) for v in away], np.uint8)


def dequantize(node: n.Dequantize, x: Array) -> Array:
    return np.array([F32(int(q) - node.param.zero_point) * (F32(1) / F32(node.param.scale)) for q in x.flat], F32)


def unary(node: n.Unary, x: Array) -> Array:
    return np.array([UNARY[node.op](F32(v)) for v in x.flat], F32)


def table_lookup(node: n.TableLookup1D, x: Array, table: Array) -> Array:
    return np.array([table[q] for q in x.flat], np.uint8)


def nnil_unary(node: n.NNILUnary, x: Array) -> Array:
    return np.array([nnil_value(node.code, F32(v)) for v in x.flat], F32)


def nnil_value(code: bytes, x: Any) -> Any:
    stack: list[Any] = []
    pushed = {Op.X: x, Op.ZERO: F32(0), Op.ONE: F32(1)}
    for op, value in decode(code):
        if op in pushed:
            stack.append(pushed[op])
        elif op is Op.CONSTANT:
            stack.append(F32(value))
        elif op is Op.DUP:
            stack.append(stack[-1])
        elif op is Op.POP:
            stack.pop()
        elif op is Op.CLAMP:
            high, low, v = stack.pop(), stack.pop(), stack.pop()
            stack.append(min(max(v, low), high))
        elif op >= Op.ADD:
            b, a = stack.pop(), stack.pop()
            stack.append(F32(BINARY[n.BinaryOp(op - Op.ADD)](a, b)))
        else:
            stack.append(F32(UNARY[n.UnaryOp(op - Op.ABS)](stack.pop())))
    return stack[-1]


# ***** weighted sums *****


def windows(node: Any, x: Array, i: int, j: int) -> Iterator[tuple[int, int, int, int]]:
    """For one place of the result: filter row and column, map row and column, of the taps inside the map."""
    for ky, kx in places((node.kernel_h, node.kernel_w)):
        y = i * node.stride_h - node.pad_h.before + ky * node.dilation_h
        z = j * node.stride_w - node.pad_w.before + kx * node.dilation_w
        if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]:
            yield ky, kx, y, z


def conv2d(node: n.Conv2D, x: Array) -> Array:
    out = np.zeros(node.out_shape, F32)
    per_in, per_out = x.shape[1] // node.groups, node.out_channels // node.groups
    w = node.weights.reshape(node.out_channels, per_in, node.kernel_h, node.kernel_w)
    for b, o, i, j in places(out.shape):
        total = F32(node.bias[o])
        for c in range(per_in):
            for ky, kx, y, z in windows(node, x, i, j):
                total = F32(total + F32(x[b, o // per_out * per_in + c, y, z] * w[o, c, ky, kx]))
        out[b, o, i, j] = clip(total, node.act)
    return out


def requantized(node: Any, total: int) -> int:
    return clamp(rshift_up(wrap(total, 32) * node.out_mul, node.out_shift) + node.out_offset, 0, 255)


def quantized_conv2d(node: n.QuantizedConv2D, x: Array) -> Array:
    out = np.zeros(node.out_shape, np.uint8)
    per_in, per_out = x.shape[1] // node.groups, node.out_channels // node.groups
    w = node.weights.reshape(node.out_channels, per_in, node.kernel_h, node.kernel_w).astype(int)
    for b, o, i, j in places(out.shape):
        total = int(node.bias[o])
        for c in range(per_in):
            for ky, kx, y, z in windows(node, x, i, j):
                seen = int(x[b, o // per_out * per_in + c, y, z]) + node.in_offset
                total += seen * (int(w[o, c, ky, kx]) + node.w_offset)
        out[b, o, i, j] = requantized(node, total)
    return out


def conv2d_transpose(node: n.Conv2DTranspose, x: Array) -> Array:
    out = np.zeros(node.out_shape, F32)
    per_in, per_out = x.shape[1] // node.groups, node.out_shape[1] // node.groups
    w = node.weights.reshape(node.out_shape[1], per_in, node.kernel_h, node.kernel_w)
    for b, c, y, z in places(x.shape):
        for o in range(per_out):
            channel = c // per_in * per_out + o
            for ky, kx in places((node.kernel_h, node.kernel_w)):
                i = y * node.stride_h - node.pad_h.before + ky * node.dilation_h
                j = z * node.stride_w - node.pad_w.before + kx * node.dilation_w
                if 0 <= i < out.shape[2] and 0 <= j < out.shape[3]:
                    out[b, channel, i, j] += x[b, c, y, z] * w[channel, c % per_in, ky, kx]
    return np.array([clip(v, node.act) for v in out.flat], F32)


def matmul(node: n.MatMul, a: Array, b: Array) -> Array:
    out = np.zeros((node.a_rows, node.b_cols), F32)
    for i, j in places(out.shape):
        total = F32(node.bias[j])
        for k in range(node.a_cols):
            total = F32(total + F32(a[i, k] * b[k, j]))
        out[i, j] = clip(total, node.act)
    return out


def quantized_matmul(node: n.QuantizedMatMul, a: Array, b: Array) -> Array:
    out = np.zeros((node.a_rows, node.b_cols), np.uint8)
    for i, j in places(out.shape):
        products = [(int(a[i, k]) + node.a_offset) * (int(b[k, j]) + node.b_offset) for k in range(node.a_cols)]
        out[i, j] = requantized(node, int(node.bias[j]) + sum(products))
    return out


# ***** moves *****


def concat(node: n.Concat, *inputs: Array) -> Array:
    return np.concatenate(inputs, axis=1)


def pad(node: n.Pad, x: Array) -> Array:
    out = np.full(node.out_shape, np.frombuffer(node.value.raw, x.dtype)[0])
    pads = (node.pad_n, node.pad_c, node.pad_h, node.pad_w)
    for at in places(node.out_shape):
        source = tuple(i - p.before for i, p in zip(at, pads, strict=True))
        if all(0 <= i < s for i, s in zip(source, x.shape, strict=True)):
            out[at] = x[source]
    return out


def strided_slice(node: n.StridedSlice, x: Array) -> Array:
    indices = [list(range(*s)) for s in zip(node.begin, node.end, node.strides, strict=True)]
    return x[np.ix_(*indices)]


def resize_image(node: n.ResizeImage, x: Array) -> Array:
    out = np.zeros((*x.shape[:2], node.out_h, node.out_w), x.dtype)
    corners = bool(node.align_corners) and node.mode is n.ResizeMode.BILINEAR
    scales = [
        F32(i - 1) / F32(o - 1) if corners and o > 1 else F32(i) / F32(o)
        for i, o in zip(x.shape[2:], out.shape[2:], strict=True)
    ]
    for b, c, i, j in places(out.shape):
        (y0, y1, fy), (x0, x1, fx) = (
            nearby(F32(at) * scale, size) for at, scale, size in zip((i, j), scales, x.shape[2:], strict=True)
        )
        m = x[b, c]
        if node.mode is n.ResizeMode.NEAREST:
            out[b, c, i, j] = m[y0, x0]
        else:
            one = F32(1)
            upper = F32(m[y0, x0]) * ((one - fy) * (one - fx)) + F32(m[y1, x0]) * (fy * (one - fx))
            total = upper + F32(m[y0, x1]) * ((one - fy) * fx) + F32(m[y1, x1]) * (fy * fx)
            out[b, c, i, j] = total if x.dtype == F32 else int(total)
    return out


def nearby(at: Any, size: int) -> tuple[int, int, Any]:
    low = min(int(np.floor(at)), size - 1)
    return low, min(low + 1, size - 1), F32(at - F32(low))


# ***** reductions *****

FOLD = {n.ReduceOp.MIN: min, n.ReduceOp.MAX: max, n.ReduceOp.SUM: lambda a, b: F32(a + b)}


def reduce(node: n.Reduce, x: Array) -> Array:
    out = np.full(node.out_shape, node.init, F32)
    fold = FOLD.get(node.op, FOLD[n.ReduceOp.SUM])
    for at in places(x.shape):
        to = tuple(0 if o == 1 else i for i, o in zip(at, node.out_shape, strict=True))
        out[to] = fold(out[to], x[at])
    if node.op is n.ReduceOp.MEAN:
        out *= F32(out.size) / F32(x.size)
    return out


def reduce_window2d(node: n.ReduceWindow2D, x: Array) -> Array:
    out = np.zeros(node.out_shape, F32)
    fold = FOLD.get(node.op, FOLD[n.ReduceOp.SUM])
    for b, c, i, j in places(out.shape):
        seen = [x[b, c, y, z] for _, _, y, z in windows(node, x, i, j)]
        value = F32(node.init)
        for v in seen:
            value = fold(value, v)
        out[b, c, i, j] = clip(value / F32(len(seen)) if node.op is n.ReduceOp.MEAN else value, node.act)
    return out


def softmax(node: n.Softmax, x: Array) -> Array:
    powers = np.exp((x - x.max(axis=1, keepdims=True)) * F32(node.beta))
    return powers / powers.sum(axis=1, keepdims=True)


REFERENCES: dict[type[n.Node], Callable[..., Array]] = {
    n.Binary: binary,
    n.QuantizedBinary: quantized_binary,
    n.Quantize: quantize,
    n.Dequantize: dequantize,
    n.Unary: unary,
    n.NNILUnary: nnil_unary,
    n.TableLookup1D: table_lookup,
    n.Conv2D: conv2d,
    n.QuantizedConv2D: quantized_conv2d,
    n.Conv2DTranspose: conv2d_transpose,
    n.MatMul: matmul,
    n.QuantizedMatMul: quantized_matmul,
    n.Concat: concat,
    n.MemoryCopy: lambda node, x: x,
    n.Pad: pad,
    n.Transpose: lambda node, x: x.transpose(node.perm),
    n.StridedSlice: strided_slice,
    n.ResizeImage: resize_image,
    n.Reduce: reduce,
    n.ReduceWindow2D: reduce_window2d,
    n.Softmax: softmax,
    n.KpuUpload: lambda node, x: x,
    n.KpuConv2D: kpu_conv2d,
}
