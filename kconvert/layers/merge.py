"""Layers that join several tensors."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from kconvert.errors import ConfigError, PrecisionError
from kconvert.layers.base import Constant, Node
from kconvert.layers.mean import Division, mean_type
from kconvert.layers.moves import Step, steps, strides
from kconvert.types import FixedType, grow, union


@dataclass(eq=False, kw_only=True)
class Merge(Node):
    """An element-wise function of tensors of one shape, or of shapes that repeat to one along axes of size 1.

    Shapes of fewer axes have as many of size 1 behind the batch. ``function`` is what `nnet_merge.h` calls it.
    """

    function: ClassVar[str]
    pointwise = True
    template = "merge"
    kernel = "nnet_merge.h"

    def output_shape(self) -> tuple[int, ...]:
        """The largest size along every axis."""
        shapes = [v.shape for v in self.inputs]
        rank = max(map(len, shapes))
        return tuple(max(sizes) for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True))

    @property
    def places(self) -> list[list[Step] | None]:
        """Where the elements of each input lie that is repeated; None for one of the output's shape."""
        shape = self.output.shape
        return [None if v.shape == shape else _repeated(v.shape, shape) for v in self.inputs]

    def infer_types(self, default: FixedType) -> None:
        """The result is exact."""
        exact = self.exact_type  # also where the result has a type: it is what the hardware computes in
        self.result_type = self.result_type or self.lossless(exact, "result")

    @property
    def exact_type(self) -> FixedType:
        """Type that holds every exact result of the function.

        Raises:
            ConfigError: that would need more bits than can be computed with.
        """
        types = [v.known_type() for v in self.inputs]
        try:
            return self._exact(types)
        except PrecisionError as error:
            reads = ", ".join(f"{v.producer.name!r} {kind}" for v, kind in zip(self.inputs, types, strict=True))
            raise ConfigError(
                f"layer {self.name!r}: an exact result of {reads} is too wide ({error}); set Precision → result of "
                f"what it reads"
            ) from error

    def _exact(self, types: list[FixedType]) -> FixedType:
        return union(*types)


def _repeated(shape: tuple[int, ...], to: tuple[int, ...]) -> list[Step]:
    padded = (1,) * (len(to) - len(shape)) + shape
    return steps(to, [0 if n == 1 else stride for n, stride in zip(padded, strides(padded), strict=True)])


@dataclass(eq=False, kw_only=True)
class Add(Merge):
    """Element-wise sum."""

    function = "add"

    def _exact(self, types: list[FixedType]) -> FixedType:
        return grow(union(*types), len(types))


@dataclass(eq=False, kw_only=True)
class Subtract(Merge):
    """The first of two tensors minus the second."""

    function = "subtract"

    def _exact(self, types: list[FixedType]) -> FixedType:
        first, second = types
        return first - second


@dataclass(eq=False, kw_only=True)
class Multiply(Merge):
    """Element-wise product."""

    function = template = "multiply"

    def _exact(self, types: list[FixedType]) -> FixedType:
        return functools.reduce(operator.mul, types)


@dataclass(eq=False, kw_only=True)
class Maximum(Merge):
    """Element-wise largest value."""

    function = "maximum"
    keeps_values = True


@dataclass(eq=False, kw_only=True)
class Minimum(Merge):
    """Element-wise smallest value."""

    function = "minimum"
    keeps_values = True


@dataclass(eq=False, kw_only=True)
class Average(Merge):
    """Element-wise mean."""

    accum_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"accum": "accum_type", "result": "result_type"}
    function = template = "average"

    def _exact(self, types: list[FixedType]) -> FixedType:
        return grow(union(*types), len(types))

    def infer_types(self, default: FixedType) -> None:
        """The sum is lossless; the mean keeps log2 of the number of tensors more fraction bits."""
        total = self.exact_type
        source = union(*(v.known_type() for v in self.inputs))
        self.accum_type = self.accum_type or self.lossless(total, "accum")
        mean = mean_type(source, self.accum_type, len(self.inputs))
        self.result_type = self.result_type or self.lossless(mean, "result")
        self.division.check(self.name)

    @property
    def division(self) -> Division:
        """How the sum is divided."""
        return Division(self.typed("accum"), self.typed("result"), len(self.inputs))

    def constants(self) -> dict[str, Constant]:
        """One over the number of tensors."""
        return {"reciprocal": self.division.reciprocals(len(self.inputs))}


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
    pointwise = True
    template = "concatenate"
    kernel = "nnet_merge.h"
    keeps_values = True

    def output_shape(self) -> tuple[int, ...]:
        """The first input's shape with the joined axis summed."""
        shape = list(self.inputs[0].shape)
        shape[self.axis] = sum(v.shape[self.axis] for v in self.inputs)
        return tuple(shape)

    def at_position(self) -> Concatenate | None:
        """Channels can be joined position by position."""
        one = super().at_position() if self.axis == len(self.output.shape) - 1 else None
        if one is not None:
            one.axis = 0
        return one

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
