# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""Operations that make one element of many."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy.typing as npt

from kconvert.kpu.nodes.base import (
    F,
    Node,
    Tensor,
    operation,
    positive,
    require,
    stored,
    windows,
)
from kconvert.kpu.wire import (
    F32,
    FLOAT_RANGE,
    I32,
    PADDING,
    RANGE,
    SHAPE,
    FloatRange,
    MemoryRange,
    Padding,
    Shape,
    choice,
)

Array = npt.NDArray[Any]


class ReduceOp(IntEnum):
    """What a reduction does."""

    MEAN = 0
    MIN = 1
    MAX = 2
    SUM = 3


@operation(0x07)
class Reduce(Node):
    """Reduce the dimensions that have size 1 in `out_shape`, in float32."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    op: ReduceOp = stored(choice(ReduceOp))
    in_shape: Shape = stored(SHAPE)
    out_shape: Shape = stored(SHAPE)
    init: float = stored(F32)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, F),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, F),)

    def check(self) -> None:
        positive(self, "in_shape", "out_shape")
        require(
            all(o in (1, i) for i, o in zip(self.in_shape, self.out_shape, strict=True)),
            f"{self.in_shape} cannot be reduced to {self.out_shape}",
        )


@operation(0x08)
class ReduceWindow2D(Node):
    """Pooling in float32; only what lies inside the map counts."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    op: ReduceOp = stored(choice(ReduceOp))
    in_shape: Shape = stored(SHAPE)
    pad_h: Padding = stored(PADDING)
    pad_w: Padding = stored(PADDING)
    kernel_h: int = stored(I32)
    kernel_w: int = stored(I32)
    stride_h: int = stored(I32)
    stride_w: int = stored(I32)
    dilation_h: int = stored(I32)
    dilation_w: int = stored(I32)
    init: float = stored(F32)
    act: FloatRange = stored(FLOAT_RANGE, default=FloatRange())

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        height = windows(self.in_shape[2], self.pad_h, self.kernel_h, self.stride_h, self.dilation_h)
        width = windows(self.in_shape[3], self.pad_w, self.kernel_w, self.stride_w, self.dilation_w)
        return (*self.in_shape[:2], height, width)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, F),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, F),)

    def check(self) -> None:
        positive(self, "in_shape", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w")
        require(min(self.out_shape) >= 1, f"the window does not fit: the result would be {self.out_shape}")

    @property
    def work(self) -> int:
        return math.prod(self.out_shape) * self.kernel_h * self.kernel_w


@operation(0x0B)
class Softmax(Node):
    """exp(beta * (x - max)) divided by its sum, over rows of `inner` elements."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    inner: int = stored(I32)
    outer: int = stored(I32)
    beta: float = stored(F32)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, (self.outer, self.inner), F),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, (self.outer, self.inner), F),)

    def check(self) -> None:
        positive(self, "inner", "outer")
