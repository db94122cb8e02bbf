"""From the lowered graph to the records of a kmodel: order, addresses, fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import singledispatchmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.errors import CapacityError, GraphError
from kconvert.kpu import k210
from kconvert.kpu import nodes as n
from kconvert.kpu.compiler import graph as g
from kconvert.kpu.compiler.graph import Graph
from kconvert.kpu.compiler.lowering import insert_uploads, leave_between, needs_main, twins_together
from kconvert.kpu.compiler.memory import MAIN_ALIGNMENT, Buffer, plan, plan_kpu, refuse
from kconvert.kpu.k210 import Registers, map_bytes, row_layout
from kconvert.kpu.kmodel import Input, KModel
from kconvert.kpu.nnil import Op as Nnil
from kconvert.kpu.wire import NO_RANGE, DataType, Memory, MemoryRange, Padding, Scalar, Shape

Array = npt.NDArray[Any]

LARGEST = float(np.finfo(np.float32).max)
_UNARY = {Nnil[op.name]: op for op in n.UnaryOp}
_INIT = {n.ReduceOp.MEAN: 0.0, n.ReduceOp.MIN: LARGEST, n.ReduceOp.MAX: -LARGEST, n.ReduceOp.SUM: 0.0}
# They make element i from element i: their result may take the place of their input.
_IN_PLACE = (g.Table, g.Function, g.Binary, g.QuantizedBinary)


def four(shape: tuple[int, ...], fill: int = 1) -> Shape:
    """Return a shape with four dimensions, further ones in front."""
    a, b, c, d = (fill,) * (4 - len(shape)) + tuple(shape)
    return a, b, c, d


def emit(graph: Graph, budget: int, solve_seconds: float = 60.0) -> KModel:
    """Return the kmodel of a lowered graph.

    Layers run where their result is needed, which takes least of main memory. If that leaves too much in KPU memory,
    layers with one input and the same weights run one after the other; then maps that are needed again later leave KPU
    memory in between.

    Args:
        graph: before uploads are inserted.
        budget: bytes that the file and the working memory may take together.
        solve_seconds: for how long to look for better plans of memory than a few tries give.

    Raises:
        CapacityError: it does not fit the memory of the chip.
    """
    insert_uploads(graph)
    try:
        emitter = _Emitter(graph, graph.order(), solve_seconds)
    except CapacityError:
        try:
            emitter = _Emitter(graph, twins_together(graph), solve_seconds)
        except CapacityError:
            leave_between(graph, twins_together(graph))
            emitter = _Emitter(graph, twins_together(graph), solve_seconds)
    model = emitter.model()
    size = len(model.to_bytes())
    if size + model.main_memory > budget:
        more = f" (of them {size:,} for the model file)"
        raise refuse("main memory", size + model.main_memory, budget, emitter.main, MAIN_ALIGNMENT, more)
    return model


class _Emitter:
    def __init__(self, graph: Graph, order: list[g.Op], solve_seconds: float) -> None:
        self.graph = graph
        self.order = [op for op in order if not isinstance(op, g.Upload) or not self._is_input(op)]
        self.step = {op: i for i, op in enumerate(self.order)}
        self.pool = bytearray()
        self.in_main: dict[g.Tensor, Buffer] = {}
        self.in_kpu: dict[g.Tensor, Buffer] = {}
        self._buffers()
        self.main = list({id(b): b for b in self.in_main.values()}.values())
        kpu = list({id(b): b for b in self.in_kpu.values()}.values())
        plan_kpu(kpu, solve_seconds)
        self.main_memory = plan(self.main, MAIN_ALIGNMENT, solve_seconds)

    # ***** memory *****

    def _is_input(self, op: g.Upload) -> bool:
        """Whether an upload is not needed because the application writes the input into KPU memory itself."""
        return op.x in self.graph.inputs and len(op.x.users) == 1 and op.x not in self.graph.outputs

    def _buffers(self) -> None:
        """Make a buffer for everything that lies somewhere; views share that of what they show."""
        for tensor in self.graph.inputs:
            only = tensor.users[0] if tensor.users else None
            if isinstance(only, g.Upload) and self._is_input(only):
                self.in_kpu[tensor] = self.in_kpu[only.output] = self._kpu_buffer(only.output, 0)
            else:
                self.in_main[tensor] = self._main_buffer(tensor, 0)
        for i, op in enumerate(self.order):
            if isinstance(op, g.Reshape) and op.x.data is None:
                self.in_main[op.output] = self.in_main[op.x]
                self._live(self.in_main[op.x], op.output)
                continue
            if isinstance(op, g.KpuLayer | g.Upload):
                self.in_kpu[op.output] = self._kpu_buffer(op.output, i)
            if not isinstance(op, g.Upload) and (not isinstance(op, g.KpuLayer) or needs_main(self.graph, op)):
                shared = self._in_place(op, i)
                if shared is not None:
                    self._live(shared, op.output)
                self.in_main[op.output] = shared or self._main_buffer(op.output, i)

    def _in_place(self, op: g.Op, step: int) -> Buffer | None:
        """Return the buffer of an input that the result may overwrite, or None."""
        if not isinstance(op, _IN_PLACE):
            return None
        inputs = [t for t in op.inputs if t.data is None]
        for x in inputs:
            buffer = self.in_main.get(x)
            fits = x.shape == op.output.shape and x.datatype is op.output.datatype and inputs.count(x) == 1
            if fits and buffer is not None and buffer.last == step and buffer.size == op.output.bytes:
                return buffer
        return None

    def _last(self, tensor: g.Tensor) -> int:
        """Return the last step that reads a tensor."""
        if tensor in self.graph.outputs:
            return len(self.order)
        return max((self.step.get(u, 0) for u in tensor.users), default=0)

    def _live(self, buffer: Buffer, tensor: g.Tensor) -> None:
        buffer.last = max(buffer.last, self._last(tensor))

    def _main_buffer(self, tensor: g.Tensor, step: int) -> Buffer:
        return Buffer(tensor.name, tensor.bytes, step, max(step, self._last(tensor)), shape=tensor.shape)

    def _kpu_buffer(self, tensor: g.Tensor, step: int) -> Buffer:
        size = four(tensor.shape)[0] * map_bytes(*four(tensor.shape)[1:])
        users = [self.step[u] for u in tensor.users if isinstance(u, g.KpuLayer)]
        return Buffer(tensor.name, size, step, max([step, *users]), shape=tensor.shape)

    def where(self, tensor: g.Tensor) -> MemoryRange:
        """Return where a tensor lies in main memory, or in the constant pool."""
        if tensor.data is not None:
            return self.constant(tensor.data)
        return MemoryRange(Memory.MAIN, tensor.datatype, self.in_main[tensor].start, tensor.bytes)

    def kpu(self, tensor: g.Tensor) -> MemoryRange:
        """Return where a tensor lies in KPU memory."""
        buffer = self.in_kpu[tensor]
        return MemoryRange(Memory.KPU, DataType.UINT8, buffer.start, buffer.size)

    def constant(self, data: Array) -> MemoryRange:
        """Put an array into the constant pool."""
        kind = DataType.UINT8 if data.dtype == np.uint8 else DataType.FLOAT32
        raw = np.ascontiguousarray(data, kind.dtype).tobytes()
        start = len(self.pool)
        self.pool += raw + bytes(-len(raw) % MAIN_ALIGNMENT)
        return MemoryRange(Memory.CONST, kind, start, len(raw))

    # ***** the model *****

    def model(self) -> KModel:
        """Return the kmodel."""
        inputs = tuple(
            Input(self.kpu(t) if t in self.in_kpu else self.where(t), four(t.shape)) for t in self.graph.inputs
        )
        made = [node for op in self.order for node in self._nodes(op)]
        outputs = tuple(self.where(t) for t in self.graph.outputs)
        return KModel(inputs, outputs, tuple(made), bytes(self.pool), self.main_memory)

    def _nodes(self, op: g.Op) -> Iterator[n.Node]:
        if isinstance(op, g.KpuLayer):
            yield from self._kpu_layers(op)
        elif not isinstance(op, g.Reshape):
            yield self.node(op)

    def _kpu_layers(self, op: g.KpuLayer) -> Iterator[n.Node]:
        """Make the nodes of a layer: several if its weights need more loads than a node can do.

        A part makes some of the output channels; in the layout of KPU memory they lie one behind the other.
        """
        batches, channels, height, width = four(op.x.shape)
        outs = len(op.weights)
        part = outs
        if not op.depthwise:
            per_load = min(outs, k210.WEIGHT_BUFFER // op.weights[0].size)
            groups = row_layout(op.output.shape[3]).groups
            part = outs if -(-outs // per_load) <= k210.MAX_LOADS else per_load * k210.MAX_LOADS // groups * groups
        target, main = self.kpu(op.output).start, needs_main(self.graph, op)
        area = int(np.prod(op.output.shape[2:]))
        for first in range(0, outs, part):
            count = min(part, outs - first)
            rows = slice(first, first + count)
            registers = Registers.for_layer(
                in_shape=(channels, height, width),
                out_channels=count,
                kernel=op.kernel,
                depthwise=op.depthwise,
                pool=op.pool,
                source=self.kpu(op.x).start,
                target=target + (map_bytes(first, *op.output.shape[2:]) if first else 0),
                to_main=main,
                pad_value=op.in_zero,
                arg_x=-op.weight_zero,
                arg_w=-op.in_zero,
                arg_add=op.kernel**2 * op.weight_zero * op.in_zero,
            )
            # For a transfer by the KPU, which runtimes do not use: they copy. A map of 320x240 is beyond its bits.
            registers = dataclasses.replace(registers, channel_byte_num=registers.channel_byte_num & 0xFFFF)
            whole = self.where(op.output) if main else NO_RANGE
            out = whole._replace(start=whole.start + first * area, size=batches * count * area) if main else NO_RANGE
            norm = dataclasses.replace(op.norm, **{f: getattr(op.norm, f)[rows] for f in ("mul", "add", "shift")})
            yield n.KpuConv2D(out, batches, 0, registers, norm, op.activation, op.weights[rows].ravel())

    @singledispatchmethod
    def node(self, op: g.Op) -> n.Node:
        """Return the record of an operation."""
        raise GraphError(f"{op!r} has no form in a kmodel")

    @node.register
    def _(self, op: g.Upload) -> n.Node:
        return n.KpuUpload(self.where(op.x), self.kpu(op.output), four(op.x.shape))

    @node.register
    def _(self, op: g.Quantize) -> n.Node:
        return n.Quantize(self.where(op.x), self.where(op.output), op.param)

    @node.register
    def _(self, op: g.Dequantize) -> n.Node:
        return n.Dequantize(self.where(op.x), self.where(op.output), op.param)

    @node.register
    def _(self, op: g.Table) -> n.Node:
        return n.TableLookup1D(self.where(op.x), self.constant(op.table), self.where(op.output))

    @node.register
    def _(self, op: g.Function) -> n.Node:
        source, out = self.where(op.x), self.where(op.output)
        if op.expr.op in _UNARY and op.expr.args[0].op is Nnil.X:
            return n.Unary(source, out, _UNARY[op.expr.op])
        return n.NNILUnary(source, out, op.expr.encode())

    @node.register
    def _(self, op: g.Conv2D) -> n.Node:
        return n.Conv2D(
            self.where(op.x),
            self.where(op.output),
            four(op.x.shape),
            op.groups,
            len(op.weights),
            op.pad_h,
            op.pad_w,
            *op.kernel,
            *op.stride,
            *op.dilation,
            op.act,
            op.weights.ravel(),
            op.bias,
        )

    @node.register
    def _(self, op: g.QuantizedConv2D) -> n.Node:
        return n.QuantizedConv2D(
            self.where(op.x),
            self.where(op.output),
            four(op.x.shape),
            op.groups,
            len(op.weights),
            op.pad_h,
            op.pad_w,
            op.weights.shape[2],
            op.weights.shape[3],
            *op.stride,
            *op.dilation,
            op.in_offset,
            op.w_offset,
            op.out_mul,
            op.out_shift,
            op.out_offset,
            op.bias,
            op.weights.ravel(),
        )

    @node.register
    def _(self, op: g.ConvTranspose2D) -> n.Node:
        return n.Conv2DTranspose(
            self.where(op.x),
            self.where(op.output),
            four(op.x.shape),
            four(op.output.shape),
            1,
            op.pad_h,
            op.pad_w,
            op.weights.shape[2],
            op.weights.shape[3],
            *op.stride,
            1,
            1,
            op.act,
            op.weights.ravel(),
            np.zeros(len(op.weights), np.float32),
        )

    @node.register
    def _(self, op: g.MatMul) -> n.Node:
        places = self.where(op.a), self.where(op.b), self.where(op.output)
        (rows, inner), columns = op.a.shape, op.b.shape[1]
        return n.MatMul(*places, rows, inner, columns, op.act, op.bias)

    @node.register
    def _(self, op: g.QuantizedMatMul) -> n.Node:
        places = self.where(op.a), self.where(op.b), self.where(op.output)
        offsets = (op.a_offset, op.b_offset, op.out_mul, op.out_shift, op.out_offset)
        (rows, inner), columns = op.a.shape, op.b.shape[1]
        return n.QuantizedMatMul(*places, rows, inner, columns, *offsets, op.bias)

    @node.register
    def _(self, op: g.Binary) -> n.Node:
        places = self.where(op.a), self.where(op.b), self.where(op.output)
        return n.Binary(*places, op.op, four(op.a.shape), four(op.b.shape), four(op.output.shape), op.act)

    @node.register
    def _(self, op: g.QuantizedBinary) -> n.Node:
        places = self.where(op.a), self.where(op.b), self.where(op.output)
        shapes = four(op.a.shape), four(op.b.shape), four(op.output.shape)
        return n.QuantizedBinary(*places, op.op, *shapes, *op.a_scaling, *op.b_scaling, *op.out_scaling)

    @node.register
    def _(self, op: g.Reduce) -> n.Node:
        shapes = four(op.x.shape), four(op.output.shape)
        return n.Reduce(self.where(op.x), self.where(op.output), op.op, *shapes, _INIT[op.op])

    @node.register
    def _(self, op: g.Pool2D) -> n.Node:
        return n.ReduceWindow2D(
            self.where(op.x),
            self.where(op.output),
            op.op,
            four(op.x.shape),
            op.pad_h,
            op.pad_w,
            *op.kernel,
            *op.stride,
            1,
            1,
            _INIT[op.op],
            op.act,
        )

    @node.register
    def _(self, op: g.Pad) -> n.Node:
        before, channels, height, width = (Padding(0, 0),) * (4 - len(op.pads)) + op.pads
        kind = op.x.datatype
        raw = bytes([int(op.value)] * 4) if kind is DataType.UINT8 else np.array(op.value, "<f4").tobytes()
        return n.Pad(
            self.where(op.x),
            self.where(op.output),
            four(op.x.shape),
            before,
            channels,
            height,
            width,
            Scalar(kind, raw),
        )

    @node.register
    def _(self, op: g.Slice) -> n.Node:
        shape = four(op.x.shape)
        return n.StridedSlice(
            self.where(op.x), self.where(op.output), shape, four(op.begin, 0), four(op.end), four(op.strides)
        )

    @node.register
    def _(self, op: g.Transpose) -> n.Node:
        more = 4 - len(op.perm)
        perm = (*range(more), *(p + more for p in op.perm))
        return n.Transpose(self.where(op.x), self.where(op.output), four(op.x.shape), four(perm))

    @node.register
    def _(self, op: g.Resize) -> n.Node:
        places = self.where(op.x), self.where(op.output)
        return n.ResizeImage(*places, four(op.x.shape), *op.size, op.mode, int(op.align_corners))

    @node.register
    def _(self, op: g.Concat) -> n.Node:
        shape, item = op.output.shape, op.output.datatype.itemsize
        inner = item * int(np.prod(shape[op.axis + 1 :], dtype=np.int64))
        outer = int(np.prod(shape[: op.axis], dtype=np.int64))
        dims = np.array([x.shape[op.axis] for x in op.xs], np.int32)
        places = tuple(self.where(x) for x in op.xs)
        return n.Concat(self.where(op.output), inner, outer, len(places), places, dims)
