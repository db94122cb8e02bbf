"""Layers that join several tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kconvert.layers.base import Node
from kconvert.types import FixedType, grow, union


@dataclass(eq=False, kw_only=True)
class Add(Node):
    """Element-wise sum of tensors of one shape."""

    template = "add"
    kernel = "nnet_merge.h"

    def infer_types(self, default: FixedType) -> None:
        """The result holds every sum."""
        self.result_type = self.result_type or self.lossless(self.sum_type, "result")

    @property
    def sum_type(self) -> FixedType:
        """Type of the exact sum."""
        return grow(union(*(v.known_type() for v in self.inputs)), len(self.inputs))


@dataclass(frozen=True, slots=True)
class Part:
    """Where one input of a concatenation goes: blocks of `size` elements at `offset` of rows of `width`."""

    rows: int
    size: int
    offset: int
    width: int


@dataclass(eq=False, kw_only=True)
class Concatenate(Node):
    """Tensors side by side along `axis` (counted without the batch axis, from 0)."""

    axis: int
    template = "concatenate"
    kernel = "nnet_merge.h"
    keeps_values = True

    def output_shape(self) -> tuple[int, ...]:
        """The first input's shape with the joined axis summed."""
        shape = list(self.inputs[0].shape)
        shape[self.axis] = sum(v.shape[self.axis] for v in self.inputs)
        return tuple(shape)

    @property
    def parts(self) -> list[Part]:
        """One part per input, in order."""
        rows, width = math.prod(self.output.shape[: self.axis]), math.prod(self.output.shape[self.axis :])
        sizes = [math.prod(v.shape[self.axis :]) for v in self.inputs]
        return [Part(rows, size, sum(sizes[:i]), width) for i, size in enumerate(sizes)]

    def infer_types(self, default: FixedType) -> None:
        """The result holds the values of every input."""
        both = union(*(v.known_type() for v in self.inputs))
        self.result_type = self.result_type or self.lossless(both, "result")
