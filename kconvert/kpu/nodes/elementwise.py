# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""Operations that make one element of one, or of two."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar

import numpy.typing as npt

from kconvert.kpu import nnil
from kconvert.kpu.nodes.base import (
    B,
    F,
    Node,
    Tensor,
    flat,
    operation,
    positive,
    require,
    shifts_in_range,
    stored,
)
from kconvert.kpu.wire import (
    FLOAT_RANGE,
    I32,
    QUANT_PARAM,
    RANGE,
    REST,
    SHAPE,
    DataType,
    FloatRange,
    MemoryRange,
    QuantParam,
    Shape,
    choice,
)

Array = npt.NDArray[Any]


class BinaryOp(IntEnum):
    """What is done with two numbers."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MIN = 4
    MAX = 5


class UnaryOp(IntEnum):
    """What is done with one number."""

    ABS = 0
    CEIL = 1
    COS = 2
    EXP = 3
    FLOOR = 4
    LOG = 5
    NEG = 6
    RSQRT = 7
    SIN = 8
    SQUARE = 9


def _broadcast(a: Shape, b: Shape, out: Shape) -> None:
    for shape in (a, b):
        require(all(s in (1, o) for s, o in zip(shape, out, strict=True)), f"shape {shape} does not broadcast to {out}")


@operation(0x00)
class Binary(Node):
    """out = clamp(op(a, b)) in float32; dimensions of size 1 are repeated."""

    a: MemoryRange = stored(RANGE)
    b: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    op: BinaryOp = stored(choice(BinaryOp))
    a_shape: Shape = stored(SHAPE)
    b_shape: Shape = stored(SHAPE)
    out_shape: Shape = stored(SHAPE)
    act: FloatRange = stored(FLOAT_RANGE, default=FloatRange())

    def reads(self) -> tuple[Tensor, ...]:
        return Tensor("a", self.a, self.a_shape, F), Tensor("b", self.b, self.b_shape, F)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, F),)

    def check(self) -> None:
        positive(self, "a_shape", "b_shape", "out_shape")
        _broadcast(self.a_shape, self.b_shape, self.out_shape)


@operation(0x11)
class QuantizedBinary(Node):
    """out = clamp(scaled(op(scaled(a), scaled(b)))) in integers; dimensions of size 1 are repeated."""

    a: MemoryRange = stored(RANGE)
    b: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    op: BinaryOp = stored(choice(BinaryOp))
    a_shape: Shape = stored(SHAPE)
    b_shape: Shape = stored(SHAPE)
    out_shape: Shape = stored(SHAPE)
    a_offset: int = stored(I32)
    a_mul: int = stored(I32)
    a_shift: int = stored(I32)
    b_offset: int = stored(I32)
    b_mul: int = stored(I32)
    b_shift: int = stored(I32)
    out_offset: int = stored(I32)
    out_mul: int = stored(I32)
    out_shift: int = stored(I32)

    def reads(self) -> tuple[Tensor, ...]:
        return Tensor("a", self.a, self.a_shape, B), Tensor("b", self.b, self.b_shape, B)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, B),)

    def check(self) -> None:
        positive(self, "a_shape", "b_shape", "out_shape")
        _broadcast(self.a_shape, self.b_shape, self.out_shape)
        shifts_in_range(self, "a_shift", "b_shift", "out_shift")


class _Elementwise(Node):
    """An operation that makes one element of each."""

    datatypes: ClassVar[tuple[DataType, DataType]]

    def reads(self) -> tuple[Tensor, ...]:
        return (flat("source", self.source, self.datatypes[0]),)  # type: ignore[attr-defined]

    def writes(self) -> tuple[Tensor, ...]:
        source: MemoryRange = self.source  # type: ignore[attr-defined]
        count = source.size // self.datatypes[0].itemsize
        return (Tensor("out", self.out, (count,), self.datatypes[1]),)  # type: ignore[attr-defined]


@operation(0x06)
class Quantize(_Elementwise):
    """float32 to uint8: round half away from zero, then clamp."""

    datatypes: ClassVar[tuple[DataType, DataType]] = (F, B)
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    param: QuantParam = stored(QUANT_PARAM)


@operation(0x03)
class Dequantize(_Elementwise):
    """uint8 to float32."""

    datatypes: ClassVar[tuple[DataType, DataType]] = (B, F)
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    param: QuantParam = stored(QUANT_PARAM)


@operation(0x0E)
class Unary(_Elementwise):
    """A function of float32."""

    datatypes: ClassVar[tuple[DataType, DataType]] = (F, F)
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    op: UnaryOp = stored(choice(UnaryOp))


@operation(0x14)
class NNILUnary(_Elementwise):
    """A function of float32 as byte code, see :mod:`kconvert.kpu.nnil`."""

    datatypes: ClassVar[tuple[DataType, DataType]] = (F, F)
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    code: bytes = stored(REST)

    def check(self) -> None:
        nnil.decode(self.code)

    @property
    def work(self) -> int:
        return super().work * len(self.code)


@operation(0x12)
class TableLookup1D(_Elementwise):
    """uint8 to uint8 by a table of 256 bytes."""

    datatypes: ClassVar[tuple[DataType, DataType]] = (B, B)
    source: MemoryRange = stored(RANGE)
    table: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)

    def reads(self) -> tuple[Tensor, ...]:
        return (*super().reads(), Tensor("table", self.table, (256,), B))
