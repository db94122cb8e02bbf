"""Random nodes of every kind, and models of one node."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu import Input, KModel, nnil
from kconvert.kpu import nodes as n
from kconvert.kpu.k210 import LOWEST_X, Activation, BatchNorm, Pool, Registers
from kconvert.kpu.nnil import Instruction, Op
from kconvert.kpu.wire import NO_RANGE, DataType, FloatRange, Memory, MemoryRange, Padding, QuantParam, Scalar

Array = npt.NDArray[Any]
Random = np.random.Generator
F, B = DataType.FLOAT32, DataType.UINT8


def model_of(node: n.Node, constants: bytes = b"") -> KModel:
    """Return a model with the inputs and outputs of `node`, which lies at the places that :func:`at` gave it."""
    inputs = [t for t in node.reads() if t.range.memory is not Memory.CONST]
    outputs = [t for t in node.writes() if t.range.memory is Memory.MAIN]
    ports = tuple(Input(t.range, four(t.shape)) for t in inputs)
    end = max(t.range.end for t in (*inputs, *outputs) if t.range.memory is Memory.MAIN)
    return KModel(ports, tuple(t.range for t in outputs), (node,), constants, main_memory=end)


def four(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Extend a shape on the left."""
    n0, c, h, w = (*(1,) * (4 - len(shape)), *shape)
    return n0, c, h, w


class Places:
    """Gives out main memory, 8 bytes aligned."""

    def __init__(self) -> None:
        self.end = 0

    def __call__(self, datatype: DataType, *shape: int) -> MemoryRange:
        size = math.prod(shape) * datatype.itemsize
        where = MemoryRange(Memory.MAIN, datatype, self.end, size)
        self.end += -(-size // 8) * 8
        return where


def inputs_for(model: KModel, random: Random, samples: int) -> list[Array]:
    """Return random samples for every input of a model."""
    found = []
    for port in model.inputs:
        shape = (samples, *(port.shape[1:] if port.shape[0] == 1 else port.shape))
        if port.range.datatype is B:
            found.append(random.integers(0, 256, shape).astype(np.uint8))
        else:
            found.append(random.normal(size=shape).astype(np.float32) * 4)
    return found


def whole(random: Random, low: int, high: int) -> int:
    """A random integer from low to high."""
    return int(random.integers(low, high + 1))


def shape4(random: Random, batch: int = 2, channels: int = 5, size: int = 9) -> tuple[int, int, int, int]:
    return whole(random, 1, batch), whole(random, 1, channels), whole(random, 1, size), whole(random, 1, size)


def act(random: Random) -> FloatRange:
    return FloatRange() if random.random() < 0.5 else FloatRange(-1.5, 2.25)


def floats(random: Random, *shape: int) -> Array:
    return random.normal(size=shape).astype(np.float32)


# ***** one maker for every record *****


def binary(random: Random) -> n.Node:
    at, out = Places(), shape4(random)
    a, b = (four(tuple(s if random.random() < 0.7 else 1 for s in out)) for _ in range(2))
    op = n.BinaryOp(whole(random, 0, 5))
    return n.Binary(at(F, *a), at(F, *b), at(F, *out), op, a, b, out, act(random))


def quantized_binary(random: Random) -> n.Node:
    at, out = Places(), shape4(random)
    a, b = (four(tuple(s if random.random() < 0.7 else 1 for s in out)) for _ in range(2))
    op = n.BinaryOp(whole(random, 0, 5))
    scaled = [whole(random, -255, 0), whole(random, 1, 1 << 15), whole(random, 0, 16)]
    other = [whole(random, -255, 0), whole(random, 1, 1 << 15), whole(random, 0, 16)]
    result = [whole(random, 0, 255), whole(random, -(1 << 30), 1 << 30), whole(random, 0, 40)]
    return n.QuantizedBinary(at(B, *a), at(B, *b), at(B, *out), op, a, b, out, *scaled, *other, *result)


def quantize(random: Random) -> n.Node:
    at, count = Places(), whole(random, 1, 100)
    return n.Quantize(at(F, count), at(B, count), QuantParam(whole(random, 0, 255), float(np.float32(17.3))))


def dequantize(random: Random) -> n.Node:
    at, count = Places(), whole(random, 1, 100)
    return n.Dequantize(at(B, count), at(F, count), QuantParam(whole(random, 0, 255), float(np.float32(63.7))))


def unary(random: Random) -> n.Node:
    at, count = Places(), whole(random, 1, 100)
    return n.Unary(at(F, count), at(F, count), n.UnaryOp(whole(random, 0, 9)))


def nnil_unary(random: Random) -> n.Node:
    """Code of every kind of instruction, none of them a function of the C library."""
    at, count = Places(), whole(random, 1, 200)
    code = [Instruction(Op.X), Instruction(Op.DUP), Instruction(Op.ABS), Instruction(Op.ONE), Instruction(Op.ADD)]
    code += [Instruction(Op(random.choice([Op.ABS, Op.CEIL, Op.FLOOR, Op.NEG, Op.RSQRT, Op.SQUARE])))]
    code += [Instruction(Op.CONSTANT, float(np.float32(random.normal()))), Instruction(Op(whole(random, 0x40, 0x45)))]
    code += [Instruction(Op(whole(random, Op.ADD, Op.MAX))), Instruction(Op.ZERO), Instruction(Op.POP)]
    code += [Instruction(Op.CONSTANT, -3.5), Instruction(Op.CONSTANT, 1e6), Instruction(Op.CLAMP)]
    return n.NNILUnary(at(F, count), at(F, count), nnil.encode(code))


def table_lookup(random: Random) -> n.Node:
    at, count = Places(), whole(random, 1, 100)
    return n.TableLookup1D(at(B, count), at(B, 256), at(B, count))


def window(random: Random, size: int = 3) -> dict[str, Any]:
    """Padding, kernel, stride and dilation of one dimension each."""
    kernel, dilation = [whole(random, 1, size) for _ in "hw"], [whole(random, 1, 2) for _ in "hw"]
    reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    pads = [Padding(whole(random, 0, r), r + whole(random, 0, 1)) for r in reach]
    strides = [whole(random, 1, 3) for _ in "hw"]
    named = zip(("pad", "kernel", "stride", "dilation"), (pads, kernel, strides, dilation), strict=True)
    return {f"{name}_{axis}": v for name, values in named for axis, v in zip("hw", values, strict=True)}


def conv_shapes(random: Random) -> tuple[tuple[int, int, int, int], int, int]:
    """Input shape, output channels and groups; one in three is depthwise."""
    groups = whole(random, 1, 3)
    per_in, per_out = (1, 1) if random.random() < 0.3 else (whole(random, 1, 4), whole(random, 1, 6))
    batch, _, h, w = shape4(random, size=12)
    return (batch, groups * per_in, h, w), groups * per_out, groups


def conv2d(random: Random) -> n.Node:
    at, (shape, out, groups), sizes = Places(), conv_shapes(random), window(random)
    taps = shape[1] // groups * sizes["kernel_h"] * sizes["kernel_w"]
    weights, bias = floats(random, out * taps), floats(random, out)
    node = n.Conv2D(NO_RANGE, NO_RANGE, shape, groups, out, act=act(random), weights=weights, bias=bias, **sizes)
    return dataclasses.replace(node, source=at(F, *shape), out=at(F, *node.out_shape))


def quantized_conv2d(random: Random) -> n.Node:
    at, (shape, out, groups), sizes = Places(), conv_shapes(random), window(random)
    taps = shape[1] // groups * sizes["kernel_h"] * sizes["kernel_w"]
    offsets = {"in_offset": whole(random, -255, 0), "w_offset": whole(random, -255, 0)}
    scale = {"out_mul": whole(random, 1, 1 << 20), "out_shift": whole(random, 20, 36), "out_offset": 7}
    node = n.QuantizedConv2D(
        *(NO_RANGE, NO_RANGE, shape, groups, out),
        bias=random.integers(-(10**6), 10**6, out),
        weights=random.integers(0, 256, out * taps).astype(np.uint8),
        **offsets,
        **scale,
        **sizes,
    )
    return dataclasses.replace(node, source=at(B, *shape), out=at(B, *node.out_shape))


def conv2d_transpose(random: Random) -> n.Node:
    at, (shape, out, groups), sizes = Places(), conv_shapes(random), window(random)
    out_shape = (shape[0], out, whole(random, 1, 20), whole(random, 1, 20))
    weights = floats(random, out * (shape[1] // groups) * sizes["kernel_h"] * sizes["kernel_w"])
    ranges = at(F, *shape), at(F, *out_shape)
    limits = act(random)
    return n.Conv2DTranspose(
        *ranges, shape, out_shape, groups, act=limits, weights=weights, bias=floats(random, out), **sizes
    )


def matmul(random: Random) -> n.Node:
    at, (rows, depth, columns) = Places(), (whole(random, 1, 3), whole(random, 1, 40), whole(random, 1, 40))
    ranges = at(F, rows, depth), at(F, depth, columns), at(F, rows, columns)
    return n.MatMul(*ranges, rows, depth, columns, act(random), floats(random, columns))


def quantized_matmul(random: Random) -> n.Node:
    at, (rows, depth, columns) = Places(), (whole(random, 1, 3), whole(random, 1, 40), whole(random, 1, 40))
    ranges = at(B, rows, depth), at(B, depth, columns), at(B, rows, columns)
    bias = random.integers(-(10**5), 10**5, columns)
    numbers = whole(random, -255, 0), whole(random, -255, 0), whole(random, 1, 1 << 20), whole(random, 20, 36), 9
    return n.QuantizedMatMul(*ranges, rows, depth, columns, *numbers, bias)


def concat(random: Random) -> n.Node:
    at, datatype = Places(), DataType(whole(random, 0, 1))
    dims = [whole(random, 1, 4) for _ in range(whole(random, 1, 4))]
    outer, inner = whole(random, 1, 3), whole(random, 1, 5)
    inputs = tuple(at(datatype, outer, d, inner) for d in dims)
    out = at(datatype, outer, sum(dims), inner)
    return n.Concat(out, inner * datatype.itemsize, outer, len(dims), inputs, np.array(dims, np.int32))


def memory_copy(random: Random) -> n.Node:
    at, datatype, count = Places(), DataType(whole(random, 0, 1)), whole(random, 1, 50)
    return n.MemoryCopy(at(datatype, count), at(datatype, count))


def pad(random: Random) -> n.Node:
    at, datatype, shape = Places(), DataType(whole(random, 0, 1)), shape4(random)
    pads = [Padding(whole(random, -((s - 1) // 2), 3), whole(random, -((s - 1) // 2), 3)) for s in shape]
    raw = np.array([1.25], "<f4").tobytes() if datatype is F else bytes([77, 0, 0, 0])
    node = n.Pad(NO_RANGE, NO_RANGE, shape, *pads, Scalar(datatype, raw))
    return dataclasses.replace(node, source=at(datatype, *shape), out=at(datatype, *node.out_shape))


def transpose(random: Random) -> n.Node:
    at, datatype, shape = Places(), DataType(whole(random, 0, 1)), shape4(random)
    perm = four(tuple(int(p) for p in random.permutation(4)))
    return n.Transpose(at(datatype, *shape), at(datatype, *shape), shape, perm)


def strided_slice(random: Random) -> n.Node:
    at, datatype, shape = Places(), DataType(whole(random, 0, 1)), shape4(random)
    begin, end, strides = [], [], []
    for size in shape:
        first, last = sorted((whole(random, 0, size - 1), whole(random, 0, size - 1)))
        step, back = whole(random, 1, 3), random.random() < 0.2
        begin.append(last if back else first)
        end.append(first - 1 if back else last + 1)
        strides.append(-step if back else step)
    node = n.StridedSlice(NO_RANGE, NO_RANGE, shape, four(tuple(begin)), four(tuple(end)), four(tuple(strides)))
    return dataclasses.replace(node, source=at(datatype, *shape), out=at(datatype, *node.out_shape))


def resize_image(random: Random) -> n.Node:
    at, datatype, shape = Places(), DataType(whole(random, 0, 1)), shape4(random)
    height, width = whole(random, 1, 16), whole(random, 1, 16)
    ranges = at(datatype, *shape), at(datatype, *shape[:2], height, width)
    return n.ResizeImage(*ranges, shape, height, width, n.ResizeMode(whole(random, 0, 1)), whole(random, 0, 1))


def reduce(random: Random) -> n.Node:
    at, shape = Places(), shape4(random)
    out = four(tuple(s if random.random() < 0.5 else 1 for s in shape))
    op = n.ReduceOp(whole(random, 0, 3))
    init = {n.ReduceOp.MIN: 1e30, n.ReduceOp.MAX: -1e30}.get(op, 0.0)
    return n.Reduce(at(F, *shape), at(F, *out), op, shape, out, float(np.float32(init)))


def reduce_window2d(random: Random) -> n.Node:
    at, shape, sizes = Places(), shape4(random), window(random)
    # Every window has to see the map, or a mean would be of nothing.
    sizes |= {f"pad_{axis}": Padding(sizes[f"dilation_{axis}"] * (sizes[f"kernel_{axis}"] - 1), 0) for axis in "hw"}
    op = n.ReduceOp(whole(random, 0, 3))
    init = {n.ReduceOp.MIN: 1e30, n.ReduceOp.MAX: -1e30}.get(op, 0.0)
    node = n.ReduceWindow2D(NO_RANGE, NO_RANGE, op, shape, init=float(np.float32(init)), act=act(random), **sizes)
    return dataclasses.replace(node, source=at(F, *shape), out=at(F, *node.out_shape))


def softmax(random: Random) -> n.Node:
    at, inner, outer = Places(), whole(random, 1, 20), whole(random, 1, 4)
    return n.Softmax(at(F, outer, inner), at(F, outer, inner), inner, outer, 0.5)


def kpu_upload(random: Random) -> n.Node:
    shape = (whole(random, 1, 2), whole(random, 1, 9), whole(random, 1, 12), whole(random, 1, 130))
    node = n.KpuUpload(Places()(B, *shape), MemoryRange(Memory.KPU, B, 128, 0), shape)
    return dataclasses.replace(node, out=node.out._replace(size=node.writes()[0].size))


def kpu_conv2d(random: Random) -> n.KpuConv2D:
    """A layer at 0 that writes behind itself; with the arguments of a quantised layer, or with any."""
    depthwise, kernel = random.random() < 0.3, int(random.choice([1, 3]))
    height, width = whole(random, 4, 9), int(random.choice([4, 5, 9, 16, 17, 33, 65]))
    channels = whole(random, 1, 40 if kernel == 3 and random.random() < 0.2 else 6)
    out = channels if depthwise else whole(random, 1, 6)
    zero_x, zero_w, taps = whole(random, 0, 255), whole(random, 0, 255), kernel * kernel
    if random.random() < 0.6:
        values = {"arg_x": -zero_w, "arg_w": -zero_x, "arg_add": taps * zero_w * zero_x, "pad_value": zero_x}
    else:
        values = {"arg_x": whole(random, -(1 << 12), 1 << 12), "arg_w": whole(random, -(1 << 12), 1 << 12)}
        values |= {"arg_add": whole(random, -(1 << 20), 1 << 20), "pad_value": whole(random, 0, 255)}
        values |= {"shr_x": whole(random, 0, 15), "shr_w": whole(random, 0, 15)}
    registers = Registers.for_layer(
        in_shape=(channels, height, width),
        out_channels=out,
        kernel=kernel,
        depthwise=depthwise,
        pool=Pool(whole(random, 0, 9)),
        target=1 << 20,
        to_main=True,
        **values,
    )
    weights = random.integers(0, 256, registers.weight_count).astype(np.uint8)
    batches = whole(random, 1, 2)
    main = Places()(B, batches, *registers.out_shape)
    return n.KpuConv2D(main, batches, 0, registers, batch_norm(random, out), activation(random), weights)


def batch_norm(random: Random, channels: int) -> BatchNorm:
    mul = random.integers(-(1 << 18), 1 << 22, channels)
    return BatchNorm(mul, random.integers(-(1 << 24), 1 << 24, channels), random.integers(8, 16, channels))


def activation(random: Random) -> Activation:
    """Lines that are steep or flat, rising or falling, around where the batch norm leads to."""
    starts = np.sort(random.integers(-(1 << 27), 1 << 27, 15))
    shift = random.integers(0, 31, 15)
    return Activation(
        np.array([LOWEST_X, *starts]),
        np.array([0, *random.integers(-(1 << 10), 1 << 14, 15)]),
        np.array([0, *shift]),
        np.array([whole(random, 0, 9), *random.integers(0, 256, 15)], np.uint8),
    )


MAKERS: dict[type[n.Node], Callable[[Random], n.Node]] = {
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
    n.MemoryCopy: memory_copy,
    n.Pad: pad,
    n.Transpose: transpose,
    n.StridedSlice: strided_slice,
    n.ResizeImage: resize_image,
    n.Reduce: reduce,
    n.ReduceWindow2D: reduce_window2d,
    n.Softmax: softmax,
    n.KpuUpload: kpu_upload,
    n.KpuConv2D: kpu_conv2d,
}
