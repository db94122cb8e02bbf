"""Layers that put elements elsewhere, and up-sampling between them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kconvert.layers.base import Constant, Node, OnImages
from kconvert.layers.mean import Division, mean_type
from kconvert.types import FixedType, grow


@dataclass(frozen=True, slots=True)
class Step:
    """One axis of an output: element number i lies at ``i // distance % size // repeat * stride`` in the input."""

    distance: int
    size: int
    repeat: int
    stride: int


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return how far apart neighbours along each axis are in memory."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def steps(shape: Sequence[int], of_input: Sequence[int], repeats: Sequence[int] | None = None) -> list[Step]:
    """Return the axes of an output `shape`, each with its stride in the input, without those that do not move."""
    parts = zip(strides(shape), shape, repeats or [1] * len(shape), of_input, strict=True)
    return [Step(distance, size, repeat, stride) for distance, size, repeat, stride in parts if size > 1 and stride]


@dataclass(eq=False, kw_only=True)
class Gather(Node, ABC):
    """Every element of the output is one of the input, at a place that only its own place decides."""

    template = "gather"
    kernel = "nnet_shape.h"
    keeps_values = True

    offset: ClassVar[int] = 0

    @property
    @abstractmethod
    def steps(self) -> list[Step]:
        """Where an element comes from, axis by axis."""


@dataclass(eq=False, kw_only=True)
class Permute(Gather):
    """Axes in another order: `axes` says which of the input's each of the output's is, counted from 0."""

    axes: tuple[int, ...]

    def output_shape(self) -> tuple[int, ...]:
        """The input's axes, reordered."""
        return tuple(self.inputs[0].shape[axis] for axis in self.axes)

    @property
    def steps(self) -> list[Step]:
        """Every axis moves by the input's stride of it."""
        of_input = strides(self.inputs[0].shape)
        return steps(self.output.shape, [of_input[axis] for axis in self.axes])


@dataclass(eq=False, kw_only=True)
class Cropping(Gather):
    """The middle of a tensor: `first` says where it starts along each axis, `shape` how large it is."""

    first: tuple[int, ...]
    shape: tuple[int, ...]

    def output_shape(self) -> tuple[int, ...]:
        """The shape of the middle."""
        return self.shape

    @property
    def offset(self) -> int:  # type: ignore[override]  # others have none
        """Place of the first element."""
        return sum(a * b for a, b in zip(self.first, strides(self.inputs[0].shape), strict=True))

    @property
    def steps(self) -> list[Step]:
        """Every axis moves as in the input."""
        return steps(self.shape, strides(self.inputs[0].shape))


@dataclass(eq=False, kw_only=True)
class Repeat(Gather):
    """Every element several times in a row, `times` along each axis (UpSampling by the nearest pixel)."""

    times: tuple[int, ...]

    def output_shape(self) -> tuple[int, ...]:
        """The input's shape, each axis multiplied."""
        return tuple(n * times for n, times in zip(self.inputs[0].shape, self.times, strict=True))

    @property
    def steps(self) -> list[Step]:
        """Every axis moves as in the input, once in so many elements."""
        return steps(self.output.shape, strides(self.inputs[0].shape), self.times)


@dataclass(eq=False, kw_only=True)
class RepeatVector(Gather):
    """The whole tensor `times` times behind each other, along a new first axis."""

    times: int

    def output_shape(self) -> tuple[int, ...]:
        """A new axis before the input's."""
        return (self.times, *self.inputs[0].shape)

    @property
    def steps(self) -> list[Step]:
        """The new axis does not move."""
        return steps(self.output.shape, [0, *strides(self.inputs[0].shape)])


@dataclass(eq=False, kw_only=True)
class BilinearUpSampling(OnImages, Node):
    """Up-sampling by whole factors, each pixel weighing as much as it is near (half-pixel centres, edges repeated).

    Along an axis, output i lies at ``(2 i + 1 - factor) / (2 factor)`` of the input, so that all weights are whole
    numbers over ``2 factor``: their sum is exact, and then divided once.

    Attributes:
        factors: Vertical and horizontal.
        accum_type: Type of the weighted sum.
    """

    factors: tuple[int, int]
    accum_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"accum": "accum_type", "result": "result_type"}
    template = "bilinear"
    kernel = "nnet_upsampling.h"

    def output_shape(self) -> tuple[int, ...]:
        """The larger image."""
        height, width, channels = self.inputs[0].shape
        return height * self.factors[0], width * self.factors[1], channels

    @property
    def weight(self) -> int:
        """Sum of all weights of an output."""
        return 4 * self.factors[0] * self.factors[1]

    def infer_types(self, default: FixedType) -> None:
        """The sum is lossless; the mean is exact where the factors are powers of two."""
        source = self.in_type()
        self.accum_type = self.accum_type or self.lossless(grow(source, self.weight), "accum")
        mean = mean_type(source, self.accum_type, self.weight)
        self.result_type = self.result_type or self.lossless(mean, "result")
        self.division.check(self.name)

    @property
    def division(self) -> Division:
        """How the sum is divided by its weight."""
        return Division(self.typed("accum"), self.typed("result"), self.weight)

    def constants(self) -> dict[str, Constant]:
        """One over the sum of the weights."""
        return {"reciprocal": self.division.reciprocals(self.weight)}
