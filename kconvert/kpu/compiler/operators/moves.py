# ruff: noqa: D103 (a reader is documented by the operations that it is registered for)
"""Operations that only move elements, or compute shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.compiler.graph import (
    Concat,
    Pad,
    Reshape,
    Resize,
    Tensor,
    Transpose,
)
from kconvert.kpu.compiler.importer import (
    MAX_ELEMENTS,
    MAX_RANK,
    Importer,
    Operator,
    Repeated,
    Shape,
    file_shape,
    reads,
    to_file_order,
    to_graph_order,
)
from kconvert.kpu.compiler.operators.common import activated, arguments, axes_of, cut, graph_axis, viewed
from kconvert.kpu.nodes import ResizeMode
from kconvert.kpu.wire import Padding

Array = npt.NDArray[Any]


@reads("RESHAPE")
def reshape(g: Importer, op: Operator) -> Tensor | Array:
    number, wanted = arguments(op, 1, 2)
    shape = g.info(op.outputs[0]).shape
    if wanted >= 0:
        shape = tuple(int(s) for s in g.constant(wanted, "shape").ravel())
    have = g.shape(number)
    if shape.count(-1) == 1:
        rest = -math.prod(shape)
        shape = tuple(math.prod(have) // rest if s == -1 and rest > 0 else s for s in shape)
    value = g.values.get(number)
    if isinstance(value, Repeated):
        return _upsampled(op, value, shape)
    return viewed(g, op, number, shape)


def _upsampled(op: Operator, value: Repeated, shape: Shape) -> Tensor:
    """Return what five dimensions are in four, where copies of rows or columns come to lie side by side."""
    have, at = file_shape(value.x.shape), value.axis
    if at not in (1, 2) or shape != (*have[:at], have[at] * value.count, *have[at + 1 :]):
        raise op.refuse(f"{value.shape} cannot become {shape}: five dimensions are only for repeated rows or columns")
    if math.prod(shape) > MAX_ELEMENTS:
        raise op.refuse("its result is larger than all memory of the chip")
    return Resize(value.x, (shape[1], shape[2]), ResizeMode.NEAREST).output


@reads("EXPAND_DIMS")
def expand_dims(g: Importer, op: Operator) -> Tensor | Array | Repeated:
    number, which = arguments(op, 2)
    shape = g.shape(number)
    axes = g.constant(which, "axis").ravel()
    if axes.size != 1 or not -len(shape) - 1 <= int(axes[0]) <= len(shape):
        raise op.refuse(f"axis {axes[:8].tolist()} does not fit {len(shape)} dimensions")
    axis = int(axes[0]) % (len(shape) + 1)
    if len(shape) == MAX_RANK and axis > 0 and not g.is_constant(number):
        return Repeated(g.tensor(number), axis - 1)
    return viewed(g, op, number, (*shape[:axis], 1, *shape[axis:]))


@reads("SQUEEZE")
def squeeze(g: Importer, op: Operator) -> Tensor | Array:
    (number,) = arguments(op, 1)
    shape, options = g.shape(number), op.options("SqueezeOptions")
    given = options.SqueezeDimsAsNumpy() if options is not None else 0
    dims = [int(d) % max(1, len(shape)) for d in given] if isinstance(given, np.ndarray) else []
    dims = dims or [i for i, s in enumerate(shape) if s == 1]
    return viewed(g, op, number, tuple(s for i, s in enumerate(shape) if i not in dims))


@reads("TILE")
def tile(g: Importer, op: Operator) -> Tensor | Array | Repeated:
    number, counts = arguments(op, 2)
    times = [int(t) for t in g.constant(counts, "multiples").ravel()]
    value = g.values.get(number)
    shape = value.shape if isinstance(value, Repeated) else g.shape(number)
    wanted = math.prod(s * t for s, t in zip(shape, times, strict=True))
    if any(t < 1 for t in times) or wanted > MAX_ELEMENTS:
        raise op.refuse(f"multiples {times} make no sense")
    if isinstance(value, Repeated):
        if any(t != 1 for i, t in enumerate(times) if i != value.axis + 1):
            raise op.refuse("tensors of five dimensions are only for repeated rows or columns")
        return Repeated(value.x, value.axis, value.count * times[value.axis + 1])
    if g.is_constant(number):
        return np.tile(g.constant(number), times)
    x = g.tensor(number)
    for axis, count in enumerate(times):
        if count > 1:
            x = Concat([x] * count, graph_axis(axis, len(times))).output
    return x


@reads("TRANSPOSE")
def transpose(g: Importer, op: Operator) -> Tensor | Array:
    number, order = arguments(op, 2)
    perm = tuple(int(p) for p in g.constant(order, "order").ravel())
    if sorted(perm) != list(range(len(g.shape(number)))):
        raise op.refuse(f"{perm[:8]} is not an order of {len(g.shape(number))} dimensions")
    if g.is_constant(number):
        return g.constant(number).transpose(perm)
    return to_graph_order(Transpose(to_file_order(g.tensor(number)), perm).output)


@reads("PAD", "PADV2")
def pad(g: Importer, op: Operator) -> Tensor:
    number, amounts, fill = arguments(op, 2 if op.name == "PAD" else 3, 3)
    x, rank = g.tensor(number), len(g.shape(number))
    table = g.constant(amounts, "padding")
    if table.shape != (rank, 2) or table.min(initial=0) < 0 or table.max(initial=0) > MAX_ELEMENTS:
        raise op.refuse(f"its padding does not fit {rank} dimensions")
    pads = [Padding(int(a), int(b)) for a, b in table]
    value = float(g.constant(fill, "value").ravel()[0]) if fill >= 0 else 0.0
    order = [0, 3, 1, 2] if rank == MAX_RANK else range(rank)
    y_count = math.prod(s + a + b for s, (a, b) in zip(g.shape(number), pads, strict=True))
    if y_count > MAX_ELEMENTS:
        raise op.refuse("its result is larger than all memory of the chip")
    return Pad(x, tuple(pads[i] for i in order), value).output


@reads("SLICE")
def slice_(g: Importer, op: Operator) -> Tensor | Array:
    number, first, count = arguments(op, 3)
    shape = g.shape(number)
    begin = [int(v) for v in g.constant(first, "begin").ravel()]
    size = [int(v) for v in g.constant(count, "size").ravel()]
    if len(begin) != len(shape) or len(size) != len(shape):
        raise op.refuse(f"begin and size do not fit {len(shape)} dimensions")
    end = [d if n == -1 else b + n for b, n, d in zip(begin, size, shape, strict=True)]
    if g.is_constant(number):
        return g.constant(number)[tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
    return cut(op, g.tensor(number), begin, end, [1] * len(shape))


@reads("STRIDED_SLICE")
def strided_slice(g: Importer, op: Operator) -> Tensor | Array:
    number, *three = arguments(op, 4)
    options, shape = op.required("StridedSliceOptions"), g.shape(number)
    begin, end, strides = ([int(v) for v in g.constant(n, "begin, end or strides").ravel()] for n in three)
    if options.EllipsisMask() or options.NewAxisMask():
        raise op.refuse("slices with an ellipsis or new axes are not supported; write out all dimensions")
    if not len(begin) == len(end) == len(strides) <= len(shape) or any(s < 1 for s in strides):
        raise op.refuse(f"strides {strides[:8]} do not fit {len(shape)} dimensions, or are not positive")
    ranges = []
    for i, size in enumerate(shape):
        if i >= len(begin):
            ranges.append((0, size, 1))
            continue
        low = 0 if options.BeginMask() >> i & 1 else begin[i]
        high = size if options.EndMask() >> i & 1 else end[i]
        low, high, step = slice(low, high, strides[i]).indices(size)
        if options.ShrinkAxisMask() >> i & 1:
            high, step = low + 1, 1
        ranges.append((low, high, step))
    dropped = [i for i in range(len(begin)) if options.ShrinkAxisMask() >> i & 1]
    if g.is_constant(number):
        taken = g.constant(number)[tuple(slice(*r) for r in ranges)]
        return taken.reshape([s for i, s in enumerate(taken.shape) if i not in dropped])
    y = cut(op, g.tensor(number), *([r[k] for r in ranges] for k in range(3)))
    if not dropped:
        return y
    kept = tuple(len(range(*r)) for i, r in enumerate(ranges) if i not in dropped)
    return Reshape(to_file_order(y), kept).output


@reads("SPLIT", "SPLIT_V", "UNPACK")
def split(g: Importer, op: Operator) -> list[Tensor]:
    if op.name == "SPLIT":
        which, number = arguments(op, 2)
        (axis,) = axes_of(g, op, which, len(g.shape(number)))
        sizes = [g.shape(number)[axis] // max(1, len(op.outputs))] * len(op.outputs)
    elif op.name == "SPLIT_V":
        number, amounts, which = arguments(op, 3)
        (axis,) = axes_of(g, op, which, len(g.shape(number)))
        sizes = [int(s) for s in g.constant(amounts, "sizes").ravel()]
        if sizes.count(-1) == 1:
            sizes[sizes.index(-1)] = g.shape(number)[axis] - sum(sizes) - 1
    else:
        (number,) = arguments(op, 1)
        axis, rank = op.required("UnpackOptions").Axis(), len(g.shape(number))
        if not -rank <= axis < rank:
            raise op.refuse(f"axis {axis} does not fit {rank} dimensions")
        axis %= rank
        sizes = [1] * g.shape(number)[axis]
    x, shape = g.tensor(number), g.shape(number)
    if sum(sizes) != shape[axis] or len(sizes) != len(op.outputs):
        raise op.refuse(f"parts of {sizes[:8]} do not make {shape[axis]}")
    parts, start = [], 0
    for size in sizes:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = start, start + size
        part = cut(op, x, begin, end, [1] * len(shape))
        if op.name == "UNPACK":
            part = Reshape(to_file_order(part), tuple(s for i, s in enumerate(shape) if i != axis)).output
        parts.append(part)
        start += size
    return parts


@reads("CONCATENATION")
def concatenation(g: Importer, op: Operator) -> Tensor | Array:
    options = op.required("ConcatenationOptions")
    if not op.inputs:
        raise op.refuse("it has no inputs")
    rank = len(g.shape(op.inputs[0]))
    if any(len(g.shape(n)) != rank for n in op.inputs) or not -rank <= options.Axis() < rank:
        raise op.refuse(f"axis {options.Axis()} does not fit its inputs")
    axis = options.Axis() % rank
    if all(g.is_constant(n) for n in op.inputs):
        return np.concatenate([g.constant(n) for n in op.inputs], axis)
    shapes = [[s for i, s in enumerate(g.shape(n)) if i != axis] for n in op.inputs]
    if any(s != shapes[0] for s in shapes):
        raise op.refuse(f"the shapes {[g.shape(n) for n in op.inputs][:8]} cannot be joined")
    y = Concat([g.tensor(n) for n in op.inputs], graph_axis(axis, rank)).output
    return activated(op, y, options.FusedActivationFunction())


@reads("PACK")
def pack(g: Importer, op: Operator) -> Tensor | Array:
    options = op.required("PackOptions")
    shapes = {g.shape(n) for n in op.inputs}
    if len(shapes) != 1:
        raise op.refuse("its inputs have different shapes")
    (shape,) = shapes
    axis = options.Axis() % (len(shape) + 1)
    if all(g.is_constant(n) for n in op.inputs):
        return np.stack([g.constant(n) for n in op.inputs], axis)
    if len(shape) + 1 > MAX_RANK:
        raise op.refuse("its result has more than four dimensions")
    wide = (*shape[:axis], 1, *shape[axis:])
    parts = [to_graph_order(Reshape(to_file_order(g.tensor(n)), wide).output) for n in op.inputs]
    return Concat(parts, graph_axis(axis, len(wide))).output


@reads("SHAPE")
def shape_(g: Importer, op: Operator) -> Array:
    (number,) = arguments(op, 1)
    return np.array(g.shape(number), np.int64)


@reads("GATHER", "REDUCE_PROD")
def of_shapes(g: Importer, op: Operator) -> Array:
    """Operations on shapes, as a dense layer on more than two dimensions has them."""
    number, which = arguments(op, 2)
    if not g.is_constant(number):
        raise op.refuse("only constants are supported; nearest supported form: SLICE, STRIDED_SLICE, SPLIT or SUM")
    values, second = g.constant(number), g.constant(which, "second input")
    if values.ndim != 1 or second.ndim > 1 or second.size > 8:
        raise op.refuse("only lists of sizes are supported")
    if op.name == "REDUCE_PROD":
        options = op.options("ReducerOptions")
        return np.asarray(np.prod(values, keepdims=bool(options is not None and options.KeepDims())))
    return np.asarray(values[second.astype(np.int64)])


@reads("CAST")
def cast(g: Importer, op: Operator) -> Tensor | Array:
    (number,) = arguments(op, 1)
    if not g.is_constant(number):
        raise op.refuse("only constants can be cast; let the model take float32")
    return g.constant(number).astype(np.float32 if g.info(op.outputs[0]).type == 0 else np.int64)
