# ruff: noqa: D102 (the operations' methods are documented where they are declared, in Op)
"""The compiler's graph: small typed operations on tensors, NCHW wherever there are four dimensions.

Edges are references: an operation holds the tensors it reads and makes one tensor; a tensor knows its producer and its
users. A graph is its inputs and outputs; everything in between is reached from the outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from kconvert.errors import GraphError
from kconvert.kpu.compiler.functions import Expr
from kconvert.kpu.k210 import Activation, BatchNorm, Pool
from kconvert.kpu.nodes import BinaryOp, ReduceOp, ResizeMode
from kconvert.kpu.wire import DataType, FloatRange, Padding, QuantParam

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
F, B = DataType.FLOAT32, DataType.UINT8
NO_PADDING = Padding(0, 0)
NO_CLAMP = FloatRange()


@dataclass(eq=False)
class Tensor:
    """What flows along an edge; a constant if it has `data`."""

    name: str
    shape: Shape
    datatype: DataType = F
    data: Array | None = None
    producer: Op | None = None
    users: list[Op] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Bytes in plain order."""
        return self.count * self.datatype.itemsize

    def __repr__(self) -> str:
        kind = "const " if self.data is not None else ""
        return f"%{self.name}: {kind}{self.datatype.name.lower()}[{'x'.join(map(str, self.shape))}]"


def constant(name: str, data: Array) -> Tensor:
    """Return a constant of float32 or uint8."""
    kind = B if data.dtype == np.uint8 else F
    return Tensor(name, data.shape, kind, np.ascontiguousarray(data, kind.dtype))


class Op:
    """Base of all operations: dataclasses whose first fields are the tensors they read."""

    datatype: ClassVar[DataType | None] = F  # of the result; None: that of the first input

    def __post_init__(self) -> None:
        first = self.inputs[0]
        kind = first.datatype if self.datatype is None else self.datatype
        self.output = Tensor("", self.out_shape(), kind, producer=self)
        for tensor in self.inputs:
            tensor.users.append(self)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors it reads."""
        found: list[Tensor] = []
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                found.append(value)
            elif isinstance(value, list):
                found += value
        return found

    def replace_input(self, old: Tensor, new: Tensor) -> None:
        """Read `new` wherever `old` was read."""
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is old:
                setattr(self, f.name, new)
            elif isinstance(value, list):
                setattr(self, f.name, [new if v is old else v for v in value])

    def out_shape(self) -> Shape:
        """Return the shape of the result."""
        return self.inputs[0].shape

    def named(self, name: str) -> Tensor:
        """Give the result a name and return it."""
        self.output.name = name
        return self.output

    def options(self) -> str:
        """Return the fields that are no tensors, for people."""
        parts = []
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, Tensor | list | BatchNorm | Activation):
                continue
            if isinstance(value, np.ndarray):
                value = f"{value.dtype}[{'x'.join(map(str, value.shape))}]"
            elif isinstance(value, Expr):
                value = f"function of {value.size} operations"
            elif isinstance(value, Padding | FloatRange | QuantParam):
                value = tuple(round(v, 6) for v in value)
            parts.append(f"{f.name}={value}")
        return ", ".join(parts)

    def __repr__(self) -> str:
        reads = ", ".join(f"%{t.name}" for t in self.inputs)
        return f"{self.output!r} = {type(self).__name__}({reads}; {self.options()})"


def windows(size: int, pad: Padding, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return how many places a filter has along one dimension."""
    return (size + pad.before + pad.after - dilation * (kernel - 1) - 1) // stride + 1


# ***** float operations *****


@dataclass(eq=False, repr=False)
class Conv2D(Op):
    """A convolution; weights [out, in / groups, kh, kw], then the clamp `act`."""

    x: Tensor
    weights: Array
    bias: Array
    groups: int = 1
    pad_h: Padding = NO_PADDING
    pad_w: Padding = NO_PADDING
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    act: FloatRange = NO_CLAMP

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the filters."""
        return self.weights.shape[2], self.weights.shape[3]

    def out_shape(self) -> Shape:
        n, _, h, w = self.x.shape
        oh = windows(h, self.pad_h, self.kernel[0], self.stride[0], self.dilation[0])
        ow = windows(w, self.pad_w, self.kernel[1], self.stride[1], self.dilation[1])
        return n, self.weights.shape[0], oh, ow


@dataclass(eq=False, repr=False)
class ConvTranspose2D(Op):
    """A transposed convolution without bias; weights [out, in, kh, kw]; `pad` is cut off the full result."""

    x: Tensor
    weights: Array
    size: tuple[int, int]
    pad_h: Padding
    pad_w: Padding
    stride: tuple[int, int]
    act: FloatRange = NO_CLAMP

    def out_shape(self) -> Shape:
        return self.x.shape[0], self.weights.shape[0], *self.size


@dataclass(eq=False, repr=False)
class MatMul(Op):
    """[rows, k] times [k, columns], plus bias, clamped."""

    a: Tensor
    b: Tensor
    bias: Array
    act: FloatRange = NO_CLAMP

    def out_shape(self) -> Shape:
        return self.a.shape[0], self.b.shape[1]


@dataclass(eq=False, repr=False)
class Binary(Op):
    """An operation on two tensors of which one may be repeated along dimensions of size 1, clamped."""

    op: BinaryOp
    a: Tensor
    b: Tensor
    act: FloatRange = NO_CLAMP

    def out_shape(self) -> Shape:
        return tuple(np.broadcast_shapes(self.a.shape, self.b.shape))


@dataclass(eq=False, repr=False)
class Function(Op):
    """A function of every element."""

    x: Tensor
    expr: Expr


@dataclass(eq=False, repr=False)
class Reduce(Op):
    """A reduction; the reduced dimensions are kept with size 1."""

    op: ReduceOp
    x: Tensor
    axes: tuple[int, ...]

    def out_shape(self) -> Shape:
        return tuple(1 if i in self.axes else s for i, s in enumerate(self.x.shape))


@dataclass(eq=False, repr=False)
class Pool2D(Op):
    """Pooling; only what lies inside the map counts."""

    op: ReduceOp
    x: Tensor
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad_h: Padding = NO_PADDING
    pad_w: Padding = NO_PADDING
    act: FloatRange = NO_CLAMP

    def out_shape(self) -> Shape:
        n, c, h, w = self.x.shape
        oh = windows(h, self.pad_h, self.kernel[0], self.stride[0])
        return n, c, oh, windows(w, self.pad_w, self.kernel[1], self.stride[1])


@dataclass(eq=False, repr=False)
class KpuConv(Op):
    """What the KPU computes, still in float: stride 1, a border of k // 2 zeros, a clamp, pixels picked by `pool`."""

    x: Tensor
    weights: Array  # [out, in, k, k], or [channels, 1, k, k] if depthwise
    bias: Array
    depthwise: bool = False
    act: FloatRange = NO_CLAMP
    pool: Pool = Pool.NONE

    @property
    def kernel(self) -> int:
        """1 or 3."""
        return int(self.weights.shape[2])

    def out_shape(self) -> Shape:
        n, _, h, w = self.x.shape
        return n, self.weights.shape[0], h // self.pool.stride, w // self.pool.stride


# ***** moves: of either type *****


class Move(Op):
    """An operation that only moves elements about."""

    datatype = None


@dataclass(eq=False, repr=False)
class Pad(Move):
    """Add `value` at the borders, or cut off where a padding is negative."""

    x: Tensor
    pads: tuple[Padding, ...]
    value: float = 0.0

    def out_shape(self) -> Shape:
        return tuple(s + p.before + p.after for s, p in zip(self.x.shape, self.pads, strict=True))

    @property
    def crops(self) -> bool:
        """Whether nothing is added."""
        return all(p.before <= 0 and p.after <= 0 for p in self.pads)


@dataclass(eq=False, repr=False)
class Slice(Move):
    """Every strides-th element from begin to end."""

    x: Tensor
    begin: Shape
    end: Shape
    strides: Shape

    def out_shape(self) -> Shape:
        return tuple(len(range(*s)) for s in zip(self.begin, self.end, self.strides, strict=True))


@dataclass(eq=False, repr=False)
class Transpose(Move):
    """Dimension i of the result is dimension perm[i]."""

    x: Tensor
    perm: Shape

    def out_shape(self) -> Shape:
        return tuple(self.x.shape[p] for p in self.perm)


@dataclass(eq=False, repr=False)
class Reshape(Move):
    """Another view of the same memory."""

    x: Tensor
    shape: Shape

    def out_shape(self) -> Shape:
        return self.shape


@dataclass(eq=False, repr=False)
class Resize(Move):
    """Scale maps as the runtime does: no half-pixel centres."""

    x: Tensor
    size: tuple[int, int]
    mode: ResizeMode
    align_corners: bool = False

    def out_shape(self) -> Shape:
        return *self.x.shape[:2], *self.size


@dataclass(eq=False, repr=False)
class Concat(Move):
    """Join tensors along an axis."""

    xs: list[Tensor]
    axis: int

    def out_shape(self) -> Shape:
        shape = list(self.xs[0].shape)
        shape[self.axis] = sum(x.shape[self.axis] for x in self.xs)
        return tuple(shape)


# ***** quantised operations *****


@dataclass(eq=False, repr=False)
class Quantize(Op):
    """float32 to uint8."""

    datatype = B
    x: Tensor
    param: QuantParam


@dataclass(eq=False, repr=False)
class Dequantize(Op):
    """uint8 to float32."""

    datatype = F
    x: Tensor
    param: QuantParam


@dataclass(eq=False, repr=False)
class Table(Op):
    """uint8 to uint8 by a table of 256."""

    datatype = B
    x: Tensor
    table: Array


@dataclass(eq=False, repr=False)
class Upload(Op):
    """Bring maps into KPU memory."""

    datatype = B
    x: Tensor


@dataclass(eq=False, repr=False)
class KpuLayer(Op):
    """A layer as the KPU has it; see :class:`kconvert.kpu.nodes.KpuConv2D`."""

    datatype = B
    x: Tensor
    weights: Array  # uint8
    norm: BatchNorm
    activation: Activation
    in_zero: int
    weight_zero: int
    depthwise: bool
    pool: Pool

    @property
    def kernel(self) -> int:
        """1 or 3."""
        return int(self.weights.shape[2])

    def out_shape(self) -> Shape:
        n, _, h, w = self.x.shape
        return n, self.weights.shape[0], h // self.pool.stride, w // self.pool.stride


@dataclass(eq=False, repr=False)
class QuantizedConv2D(Op):
    """A convolution in integers on the CPU."""

    datatype = B
    x: Tensor
    weights: Array  # uint8
    bias: Array  # int32
    groups: int
    pad_h: Padding
    pad_w: Padding
    stride: tuple[int, int]
    dilation: tuple[int, int]
    in_offset: int
    w_offset: int
    out_mul: int
    out_shift: int
    out_offset: int

    def out_shape(self) -> Shape:
        n, _, h, w = self.x.shape
        o, _, kh, kw = self.weights.shape
        oh = windows(h, self.pad_h, kh, self.stride[0], self.dilation[0])
        return n, o, oh, windows(w, self.pad_w, kw, self.stride[1], self.dilation[1])


@dataclass(eq=False, repr=False)
class QuantizedMatMul(Op):
    """A matrix product in integers on the CPU."""

    datatype = B
    a: Tensor
    b: Tensor
    bias: Array  # int32
    a_offset: int
    b_offset: int
    out_mul: int
    out_shift: int
    out_offset: int

    def out_shape(self) -> Shape:
        return self.a.shape[0], self.b.shape[1]


@dataclass(eq=False, repr=False)
class QuantizedBinary(Op):
    """An operation on two tensors in integers on the CPU; (offset, mul, shift) of each and of the result."""

    datatype = B
    op: BinaryOp
    a: Tensor
    b: Tensor
    a_scaling: tuple[int, int, int]
    b_scaling: tuple[int, int, int]
    out_scaling: tuple[int, int, int]

    def out_shape(self) -> Shape:
        return tuple(np.broadcast_shapes(self.a.shape, self.b.shape))


def name_unnamed(tensor: Tensor, name: str) -> None:
    """Give a name to a tensor, and to those it is made of, as far as they have none."""
    waiting = [tensor]
    while waiting:
        at = waiting.pop()
        if at.producer is not None and not at.name:
            at.name = name
            waiting += at.producer.inputs


# ***** the graph *****


@dataclass(eq=False)
class Graph:
    """A network: inputs, outputs, and what lies in between."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    output_names: list[str] = field(default_factory=list)
    signature: dict[str, list[str]] = field(default_factory=dict)
    """What a saved model calls its "inputs" and "outputs", in the order of those of the graph; empty if unknown."""

    def reorder(self, inputs: Sequence[str]) -> None:
        """Put inputs in the order of these names, and outputs ``output_0``, ``output_1``... in that of their numbers.

        Converters order both as they like. Nothing changes where the names are others.
        """
        mine = self.signature.get("inputs", [])
        if len(mine) == len(self.inputs) and sorted(mine) == sorted(inputs):
            self.inputs = [self.inputs[mine.index(name)] for name in inputs]
        theirs = self.signature.get("outputs", [])
        wanted = [f"output_{i}" for i in range(len(self.outputs))]
        if sorted(theirs) == sorted(wanted):
            order = [theirs.index(name) for name in wanted]
            self.outputs = [self.outputs[i] for i in order]
            self.output_names = [self.output_names[i] for i in order]

    def __post_init__(self) -> None:
        self.output_names = self.output_names or [t.name for t in self.outputs]
        self.prune()

    def order(self) -> list[Op]:
        """Return the operations, depth first from the outputs in order, inputs in order."""
        found: list[Op] = []
        seen: set[int] = set()
        stack: list[tuple[Op, bool]] = [(t.producer, False) for t in reversed(self.outputs) if t.producer]
        while stack:
            op, ready = stack.pop()
            if ready:
                found.append(op)
            elif id(op) not in seen:
                seen.add(id(op))
                stack.append((op, True))
                stack += [(t.producer, False) for t in reversed(op.inputs) if t.producer and id(t.producer) not in seen]
        return found

    def prune(self) -> None:
        """Forget operations that no output needs: users are those that are left."""
        order = self.order()
        for tensor in self.inputs:
            tensor.users = []
        for op in order:
            op.output.users = []
            for tensor in op.inputs:
                tensor.users = []
        for op in order:
            for tensor in op.inputs:
                tensor.users.append(op)

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Let everything that reads `old`, except what makes `new`, read `new`."""
        for user in list(old.users):
            if user.output is not new:
                user.replace_input(old, new)
        self.outputs = [new if t is old else t for t in self.outputs]
        self.prune()

    def only_user(self, tensor: Tensor) -> Op | None:
        """Return the one operation that reads a tensor, if it is read once and is no output."""
        return tensor.users[0] if len(tensor.users) == 1 and tensor not in self.outputs else None

    def __str__(self) -> str:
        lines = [f"input {t!r}" for t in self.inputs]
        lines += [repr(op) for op in self.order()]
        return "\n".join([*lines, *(f"output {t!r}" for t in self.outputs)])


# ***** rewriting *****

Rewrite = Callable[[Graph, Any], Tensor | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named rewrite of operations of some kinds: it returns what stands for the operation's result, or None."""

    name: str
    kinds: tuple[type[Op], ...]
    apply: Rewrite
    doc: str


def rule(*kinds: type[Op]) -> Callable[[Rewrite], Rule]:
    """Make a rule of a function ``(graph, op) -> Tensor | None``."""

    def decorate(function: Rewrite) -> Rule:
        return Rule(function.__name__, kinds, function, function.__doc__ or "")

    return decorate


def rewrite(graph: Graph, rules: Sequence[Rule]) -> int:
    """Apply rules, in order, wherever they match, until none does; return how often one did.

    Raises:
        GraphError: the rules undo each other.
    """
    applied = 0
    bound = 1000 + 100 * len(graph.order())
    while True:
        before = applied
        for each in rules:
            applied += _sweep(graph, each)
            if applied > bound:
                raise GraphError(f"the rewrites do not come to an end; the last one was {each.name}")
        if applied == before:
            return applied


def _sweep(graph: Graph, each: Rule) -> int:
    """Apply one rule to all operations there are now."""
    applied = 0
    for op in graph.order():
        if not isinstance(op, each.kinds) or (op.output not in graph.outputs and not op.output.users):
            continue  # of another kind, or gone since
        new = each.apply(graph, op)
        if new is None:
            continue
        if new.shape != op.output.shape or new.datatype != op.output.datatype:
            raise GraphError(f"{each.name} turns {op.output!r} into {new!r}")
        name_unnamed(new, op.output.name)
        graph.replace(op.output, new)
        applied += 1
    return applied
