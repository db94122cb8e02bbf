"""The rewrites of the quantised graph: bytes as far as they go, pooling into the KPU, uploads."""

from __future__ import annotations

import dataclasses

import numpy as np

from kconvert.kpu.compiler.graph import (
    NO_CLAMP,
    Concat,
    Dequantize,
    F,
    Graph,
    KpuLayer,
    Move,
    Op,
    Pad,
    Pool2D,
    Quantize,
    Reshape,
    Resize,
    Rule,
    Slice,
    Table,
    Tensor,
    Transpose,
    Upload,
    rule,
)
from kconvert.kpu.compiler.numbers import quantised
from kconvert.kpu.compiler.quantise import requantising_table
from kconvert.kpu.k210 import Pool
from kconvert.kpu.nodes import ReduceOp, ResizeMode
from kconvert.kpu.wire import Padding, QuantParam

EPSILON = 1.2e-7  # by which two scales may differ and still be one


def _same(a: QuantParam, b: QuantParam) -> bool:
    return a.zero_point == b.zero_point and abs(a.scale - b.scale) <= EPSILON * abs(a.scale)


@rule(Quantize)
def drop_round_trip(graph: Graph, op: Quantize) -> Tensor | None:
    """Bytes that become float and bytes again stay bytes, by a table if their scale changes."""
    first = op.x.producer
    if not isinstance(first, Dequantize):
        return None
    if _same(first.param, op.param):
        return first.x
    return Table(first.x, requantising_table(first.param, op.param)).output


@rule(Table)
def merge_tables(graph: Graph, op: Table) -> Tensor | None:
    """Two tables are one."""
    first = op.x.producer
    if not isinstance(first, Table) or graph.only_user(op.x) is not op:
        return None
    return Table(first.x, op.table[first.table]).output


@rule(Pad, Slice, Transpose, Reshape, Resize)
def move_bytes(graph: Graph, op: Move) -> Tensor | None:
    """A move of dequantised values is a move of the bytes, which are a quarter."""
    first = op.inputs[0].producer
    if not isinstance(first, Dequantize):
        return None
    moved = _on_bytes(op, first.x, first.param)
    return None if moved is None else Dequantize(moved, first.param).output


def _on_bytes(op: Move, x: Tensor, param: QuantParam) -> Tensor | None:
    """Return the same move of bytes; None where bytes cannot express what is added."""
    if isinstance(op, Pad):
        value = int(quantised(np.array(op.value), param))
        if not op.crops and abs((value - param.zero_point) / param.scale - op.value) > 0.51 / param.scale:
            return None
        return Pad(x, op.pads, value).output
    return dataclasses.replace(op, x=x).output  # type: ignore[type-var]


@rule(Quantize)
def quantise_before_moves(graph: Graph, op: Quantize) -> Tensor | None:
    """What is moved and then quantised is quantised first, so that bytes are moved."""
    move = op.x.producer
    if graph.only_user(op.x) is not op or not isinstance(move, Pad | Slice | Transpose | Reshape | Resize | Concat):
        return None
    if isinstance(move, Resize) and move.mode is ResizeMode.BILINEAR:
        return None  # in bytes it would be rounded down
    if isinstance(move, Concat):
        if any(x.datatype is not F for x in move.xs):
            return None
        return Concat([Quantize(x, op.param).named(x.name) for x in move.xs], move.axis).output
    if move.inputs[0].data is not None:
        return None
    return _on_bytes(move, Quantize(move.inputs[0], op.param).output, op.param)


_POOLS = {
    (ReduceOp.MAX, 2, 2): Pool.MAX_2X2,
    (ReduceOp.MEAN, 2, 2): Pool.MEAN_2X2,
    (ReduceOp.MAX, 4, 4): Pool.MAX_4X4,
    (ReduceOp.MEAN, 4, 4): Pool.MEAN_4X4,
    (ReduceOp.MAX, 2, 1): Pool.MAX_2X2_STRIDE_1,
    (ReduceOp.MEAN, 2, 1): Pool.MEAN_2X2_STRIDE_1,
}


def pool_problem(op: Pool2D) -> str | None:
    """Say why the KPU does not have a pooling, whatever comes before it, or None."""
    (kh, kw), (sh, sw) = op.kernel, op.stride
    if kh != kw or sh != sw or (op.op, kh, sh) not in _POOLS:
        return f"pooling {kh}x{kw} with strides {sh}x{sw}; the KPU has 2x2 with strides 2 or 1 and 4x4 with strides 4"
    wanted = Padding(0, 1) if sh == 1 else Padding(0, 0)
    if (op.pad_h, op.pad_w) != (wanted, wanted):
        return f"pooling with the padding {tuple(op.pad_h)}, {tuple(op.pad_w)}; the KPU has {tuple(wanted)}"
    return None


@rule(Pool2D)
def pool_into_layer(graph: Graph, op: Pool2D) -> Tensor | None:
    """The KPU pools what it has just computed; where the whole map is read as well, it computes it twice."""
    plain = op.x.producer
    if not isinstance(plain, Dequantize) or op.act != NO_CLAMP or pool_problem(op) is not None:
        return None
    layer = plain.x.producer
    if not isinstance(layer, KpuLayer) or layer.depthwise or layer.pool is not Pool.NONE:
        return None
    # Where the whole map is needed as well (a skip connection) the KPU computes it twice: the CPU would take longer.
    pool = _POOLS[op.op, op.kernel[0], op.stride[0]]
    return Dequantize(dataclasses.replace(layer, pool=pool).output, plain.param).output


LOWER: tuple[Rule, ...] = (
    drop_round_trip,
    pool_into_layer,
    move_bytes,
    quantise_before_moves,
    merge_tables,
)


def share_equal(graph: Graph) -> None:
    """Let equal dequantisations, quantisations and moves of one tensor be one."""
    found: dict[tuple[object, ...], Tensor] = {}
    for op in graph.order():
        if isinstance(op, Quantize | Dequantize):
            key: tuple[object, ...] = (type(op), id(op.x), op.param)
        elif isinstance(op, Pad):
            key = (Pad, id(op.x), op.pads, op.value)
        elif isinstance(op, Reshape):
            key = (Reshape, id(op.x), op.shape)
        else:
            continue
        if key in found:
            graph.replace(op.output, found[key])
        else:
            found[key] = op.output


def show_shapes(graph: Graph, told: list[tuple[int, ...]]) -> bool:
    """Let outputs that a view shapes be moved once more, by nothing: a kmodel has shapes only in what its nodes do.

    Args:
        graph: after lowering.
        told: what a reader of the kmodel takes the shapes of the outputs to be.

    Returns:
        Whether there were any; a vector needs no shape.
    """
    shapes = [(1,) * (4 - len(t.shape)) + t.shape for t in graph.outputs]
    hidden = [t for t, shape, found in zip(graph.outputs, shapes, told, strict=True) if _hides(shape, found)]
    for tensor in {id(t): t for t in hidden}.values():
        last = tensor.producer
        if isinstance(last, Dequantize):  # bytes are a quarter
            shown = dataclasses.replace(last, x=_unmoved(last.x)).named(tensor.name)
        else:
            shown = _unmoved(tensor)
        graph.replace(tensor, shown)
    return bool(hidden)


def _unmoved(x: Tensor) -> Tensor:
    """Return a copy, whose record has the shape."""
    return Pad(x, (Padding(0, 0),) * len(x.shape)).named(x.name)


def _hides(shape: tuple[int, ...], told: tuple[int, ...]) -> bool:
    return sum(s > 1 for s in shape) > 1 and (1,) * (4 - len(told)) + told != shape


def insert_uploads(graph: Graph) -> None:
    """Bring into KPU memory what a layer reads and no layer has made, once."""
    uploads: dict[int, Tensor] = {}
    for op in graph.order():
        if isinstance(op, KpuLayer) and not isinstance(op.x.producer, KpuLayer | Upload):
            if id(op.x) not in uploads:
                uploads[id(op.x)] = Upload(op.x).named(op.x.name)
            op.x = uploads[id(op.x)]
    graph.prune()


def twins_together(graph: Graph) -> list[Op]:
    """Return the operations in order, layers that share input and weights one right after the other."""
    order: list[Op] = []
    layers = [op for op in graph.order() if isinstance(op, KpuLayer)]
    for op in graph.order():
        if op in order:
            continue
        order.append(op)
        if isinstance(op, KpuLayer):
            order += [twin for twin in layers if twin is not op and twin.x is op.x and twin.weights is op.weights]
    return order


def leave_between(graph: Graph, order: list[Op]) -> None:
    """Let maps that are needed again, after other layers have run, go to main memory and come back."""
    step = {id(op): i for i, op in enumerate(order)}
    for op in order:
        if not isinstance(op, KpuLayer | Upload):
            continue
        stored = op.x if isinstance(op, Upload) else op.output
        previous = step[id(op)]
        for user in sorted(op.output.users, key=lambda u: step[id(u)]):
            between = [o for o in order[previous + 1 : step[id(user)]] if isinstance(o, KpuLayer | Upload)]
            if isinstance(user, KpuLayer) and between:
                user.x = Upload(stored).named(stored.name)
            previous = step[id(user)]
    graph.prune()


def needs_main(graph: Graph, op: Op) -> bool:
    """Whether what a layer makes is read from main memory."""
    return op.output in graph.outputs or any(not isinstance(u, KpuLayer) for u in op.output.users)
