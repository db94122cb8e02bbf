# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""Convolutions and matrix products on the CPU."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy.typing as npt

from kconvert.kpu.nodes.base import (
    B,
    F,
    Known,
    Node,
    Tensor,
    operation,
    positive,
    require,
    shifts_in_range,
    stored,
    windows,
)
from kconvert.kpu.wire import (
    FLOAT_RANGE,
    I32,
    PADDING,
    RANGE,
    SHAPE,
    DataType,
    FloatRange,
    MemoryRange,
    Padding,
    Shape,
    array,
)

Array = npt.NDArray[Any]


def _conv_weights(known: Known) -> int:
    channels, groups = known["in_shape"][1], known["groups"]
    if groups < 1:
        return -1  # which no array has
    return int(known["out_channels"] * (channels // groups) * known["kernel_h"] * known["kernel_w"])


class _Conv(Node):
    """What the convolutions have in common."""

    datatype: ClassVar[DataType]

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, self.datatype),)  # type: ignore[attr-defined]

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, self.datatype),)  # type: ignore[attr-defined]

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        c: Any = self
        height = windows(c.in_shape[2], c.pad_h, c.kernel_h, c.stride_h, c.dilation_h)
        width = windows(c.in_shape[3], c.pad_w, c.kernel_w, c.stride_w, c.dilation_w)
        return (c.in_shape[0], c.out_channels, height, width)

    def check(self) -> None:
        c: Any = self
        names = ("in_shape", "groups", "out_channels", "kernel_h", "kernel_w", "stride_h", "stride_w")
        positive(self, *names, "dilation_h", "dilation_w")
        _grouped(c.in_shape[1], c.out_channels, c.groups)
        require(min(self.out_shape) >= 1, f"the filter does not fit on the map: the result would be {self.out_shape}")

    @property
    def work(self) -> int:
        c: Any = self
        return math.prod(self.out_shape) * int(c.in_shape[1] // c.groups * c.kernel_h * c.kernel_w)


def _grouped(channels: int, out_channels: int, groups: int) -> None:
    require(
        channels % groups == 0 and out_channels % groups == 0,
        f"{channels} to {out_channels} channels cannot be split into {groups} groups",
    )


@operation(0x02)
class Conv2D(_Conv):
    """A convolution in float32, on the CPU; weights [out, in / groups, kh, kw]."""

    datatype: ClassVar[DataType] = F
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    groups: int = stored(I32)
    out_channels: int = stored(I32)
    pad_h: Padding = stored(PADDING)
    pad_w: Padding = stored(PADDING)
    kernel_h: int = stored(I32)
    kernel_w: int = stored(I32)
    stride_h: int = stored(I32)
    stride_w: int = stored(I32)
    dilation_h: int = stored(I32)
    dilation_w: int = stored(I32)
    act: FloatRange = stored(FLOAT_RANGE)
    weights: Array = stored(array("<f4", _conv_weights))
    bias: Array = stored(array("<f4", lambda known: int(known["out_channels"])))


@operation(0x0F)
class QuantizedConv2D(_Conv):
    """A convolution in integers, on the CPU; weights as those of :class:`Conv2D`, uint8."""

    datatype: ClassVar[DataType] = B
    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    groups: int = stored(I32)
    out_channels: int = stored(I32)
    pad_h: Padding = stored(PADDING)
    pad_w: Padding = stored(PADDING)
    kernel_h: int = stored(I32)
    kernel_w: int = stored(I32)
    stride_h: int = stored(I32)
    stride_w: int = stored(I32)
    dilation_h: int = stored(I32)
    dilation_w: int = stored(I32)
    in_offset: int = stored(I32)
    w_offset: int = stored(I32)
    out_mul: int = stored(I32)
    out_shift: int = stored(I32)
    out_offset: int = stored(I32)
    bias: Array = stored(array("<i4", lambda known: int(known["out_channels"])))
    weights: Array = stored(array("u1", _conv_weights))

    def check(self) -> None:
        super().check()
        _offsets(self, "in_offset", "w_offset")
        shifts_in_range(self, "out_shift")
        taps = self.weights.size // self.out_channels
        require(taps < 1 << 15, f"{taps} products a sum can leave 32 bits")


def _offsets(node: Node, *names: str) -> None:
    for name in names:
        value = getattr(node, name)
        require(-255 <= value <= 0, f"{name} {value} is not the negative of a zero point (0 to 255)")


@operation(0x13)
class Conv2DTranspose(Node):
    """A transposed convolution in float32; the runtime reads `bias` and never adds it.

    weights [out, in / groups, kh, kw]
    """

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    out_shape: Shape = stored(SHAPE)
    groups: int = stored(I32)
    pad_h: Padding = stored(PADDING)
    pad_w: Padding = stored(PADDING)
    kernel_h: int = stored(I32)
    kernel_w: int = stored(I32)
    stride_h: int = stored(I32)
    stride_w: int = stored(I32)
    dilation_h: int = stored(I32)
    dilation_w: int = stored(I32)
    act: FloatRange = stored(FLOAT_RANGE)
    weights: Array = stored(array("<f4", lambda known: _conv_weights({**known, "out_channels": known["out_shape"][1]})))
    bias: Array = stored(array("<f4", lambda known: int(known["out_shape"][1])))

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, F),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, F),)

    def check(self) -> None:
        names = ("in_shape", "out_shape", "groups", "kernel_h", "kernel_w", "stride_h", "stride_w")
        positive(self, *names, "dilation_h", "dilation_w")
        _grouped(self.in_shape[1], self.out_shape[1], self.groups)
        require(self.in_shape[0] == self.out_shape[0], "the batch changes from in_shape to out_shape")

    @property
    def work(self) -> int:
        kernel = self.kernel_h * self.kernel_w
        return math.prod(self.in_shape) * (self.out_shape[1] // self.groups) * kernel + math.prod(self.out_shape)


class _MatMul(Node):
    """What both matrix products have in common: [rows, k] times [k, columns]."""

    datatype: ClassVar[DataType]

    def reads(self) -> tuple[Tensor, ...]:
        m: Any = self
        return (
            Tensor("a", m.a, (m.a_rows, m.a_cols), self.datatype),
            Tensor("b", m.b, (m.a_cols, m.b_cols), self.datatype),
        )

    def writes(self) -> tuple[Tensor, ...]:
        m: Any = self
        return (Tensor("out", m.out, (m.a_rows, m.b_cols), self.datatype),)

    def check(self) -> None:
        positive(self, "a_rows", "a_cols", "b_cols")

    @property
    def work(self) -> int:
        m: Any = self
        return int(m.a_rows * m.a_cols * m.b_cols)


@operation(0x04)
class MatMul(_MatMul):
    """A matrix product in float32."""

    datatype: ClassVar[DataType] = F
    a: MemoryRange = stored(RANGE)
    b: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    a_rows: int = stored(I32)
    a_cols: int = stored(I32)
    b_cols: int = stored(I32)
    act: FloatRange = stored(FLOAT_RANGE)
    bias: Array = stored(array("<f4", lambda known: int(known["b_cols"])))


@operation(0x10)
class QuantizedMatMul(_MatMul):
    """A matrix product in integers."""

    datatype: ClassVar[DataType] = B
    a: MemoryRange = stored(RANGE)
    b: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    a_rows: int = stored(I32)
    a_cols: int = stored(I32)
    b_cols: int = stored(I32)
    a_offset: int = stored(I32)
    b_offset: int = stored(I32)
    out_mul: int = stored(I32)
    out_shift: int = stored(I32)
    out_offset: int = stored(I32)
    bias: Array = stored(array("<i4", lambda known: int(known["b_cols"])))

    def check(self) -> None:
        super().check()
        _offsets(self, "a_offset", "b_offset")
        shifts_in_range(self, "out_shift")
        require(self.a_cols < 1 << 15, f"{self.a_cols} products a sum can leave 32 bits")
