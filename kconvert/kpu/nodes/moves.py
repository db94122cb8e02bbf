# ruff: noqa: D102 (the records' methods are documented where they are declared, in Node)
"""Operations that move elements, and scaling of images."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from kconvert.kpu.nodes.base import (
    Node,
    Tensor,
    flat,
    operation,
    positive,
    require,
    stored,
)
from kconvert.kpu.wire import (
    I32,
    PADDING,
    RANGE,
    SCALAR,
    SHAPE,
    U8,
    U32,
    MemoryRange,
    Padding,
    Scalar,
    Shape,
    array,
    choice,
    ranges,
)

Array = npt.NDArray[Any]


class ResizeMode(IntEnum):
    """How an image is scaled."""

    BILINEAR = 0
    NEAREST = 1


@operation(0x01)
class Concat(Node):
    """Join tensors; in bytes, so that any type will do."""

    out: MemoryRange = stored(RANGE)
    inner: int = stored(U32)  # bytes of one step along the axis
    outer: int = stored(U32)  # elements in front of the axis
    count: int = stored(U32)
    inputs: tuple[MemoryRange, ...] = stored(ranges("count"))
    dims: Array = stored(array("<i4", lambda known: int(known["count"])))

    def reads(self) -> tuple[Tensor, ...]:
        inner = self.inner // self._itemsize
        return tuple(
            Tensor(f"inputs {i}", where, (self.outer, int(dim), inner), self.out.datatype)
            for i, (where, dim) in enumerate(zip(self.inputs, self.dims, strict=True))
        )

    def writes(self) -> tuple[Tensor, ...]:
        total = sum(int(d) for d in self.dims)
        return (Tensor("out", self.out, (self.outer, total, self.inner // self._itemsize), self.out.datatype),)

    def check(self) -> None:
        positive(self, "inner", "outer", "count")
        require(self.inner % self._itemsize == 0, f"inner {self.inner} is not a number of whole elements")
        require(len(self.dims) == len(self.inputs), "there is not one dim for each input")
        require(all(d >= 1 for d in self.dims), f"dims {self.dims.tolist()} are not positive")

    @property
    def _itemsize(self) -> int:
        return self.out.datatype.itemsize


@operation(0x09)
class MemoryCopy(Node):
    """Copy bytes."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)

    def reads(self) -> tuple[Tensor, ...]:
        return (flat("source", self.source, self.source.datatype),)

    def writes(self) -> tuple[Tensor, ...]:
        return (self.reads()[0]._replace(what="out", range=self.out),)


@operation(0x05)
class Pad(Node):
    """Add or cut off elements at the borders."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    pad_n: Padding = stored(PADDING)
    pad_c: Padding = stored(PADDING)
    pad_h: Padding = stored(PADDING)
    pad_w: Padding = stored(PADDING)
    value: Scalar = stored(SCALAR)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, self.source.datatype),)

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        pads = (self.pad_n, self.pad_c, self.pad_h, self.pad_w)
        n, c, h, w = (s + p.before + p.after for s, p in zip(self.in_shape, pads, strict=True))
        return n, c, h, w

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, self.source.datatype),)

    def check(self) -> None:
        positive(self, "in_shape", "out_shape")


@operation(0x0C)
class Transpose(Node):
    """Reorder dimensions: dimension i of the result is dimension perm[i] of the input."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    perm: Shape = stored(SHAPE)

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, self.source.datatype),)

    def writes(self) -> tuple[Tensor, ...]:
        shape = tuple(self.in_shape[p] for p in self.perm)
        return (Tensor("out", self.out, shape, self.source.datatype),)

    def check(self) -> None:
        positive(self, "in_shape")
        require(sorted(self.perm) == [0, 1, 2, 3], f"perm {self.perm} is not an order of 0 to 3")


@operation(0x0D)
class StridedSlice(Node):
    """Every strides-th element from begin up to, and without, end; the masks are resolved and only kept."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    begin: Shape = stored(SHAPE)
    end: Shape = stored(SHAPE)
    strides: Shape = stored(SHAPE)
    begin_mask: int = stored(I32, default=0)
    end_mask: int = stored(I32, default=0)
    ellipsis_mask: int = stored(I32, default=0)
    new_axis_mask: int = stored(I32, default=0)
    shrink_axis_mask: int = stored(I32, default=0)

    @property
    def out_shape(self) -> Shape:
        """Shape of the result."""
        n, c, h, w = (len(range(*s)) for s in zip(self.begin, self.end, self.strides, strict=True))
        return n, c, h, w

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, self.source.datatype),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, self.out_shape, self.source.datatype),)

    def check(self) -> None:
        positive(self, "in_shape")
        require(0 not in self.strides, f"a stride of {self.strides} is 0")
        for size, *indices in zip(self.in_shape, self.begin, self.end, self.strides, strict=True):
            taken = range(*indices)
            require(
                len(taken) > 0 and min(taken[0], taken[-1]) >= 0 and max(taken[0], taken[-1]) < size,
                f"begin {self.begin}, end {self.end}, strides {self.strides} leave the shape {self.in_shape}",
            )


@operation(0x0A)
class ResizeImage(Node):
    """Scale the maps of float32 or uint8."""

    source: MemoryRange = stored(RANGE)
    out: MemoryRange = stored(RANGE)
    in_shape: Shape = stored(SHAPE)
    out_h: int = stored(I32)
    out_w: int = stored(I32)
    mode: ResizeMode = stored(choice(ResizeMode))
    align_corners: int = stored(U8, default=0)
    unused: Array = stored(array("u1", lambda known: 3), default_factory=lambda: np.zeros(3, np.uint8))

    def reads(self) -> tuple[Tensor, ...]:
        return (Tensor("source", self.source, self.in_shape, self.source.datatype),)

    def writes(self) -> tuple[Tensor, ...]:
        return (Tensor("out", self.out, (*self.in_shape[:2], self.out_h, self.out_w), self.source.datatype),)

    def check(self) -> None:
        positive(self, "in_shape", "out_h", "out_w")
