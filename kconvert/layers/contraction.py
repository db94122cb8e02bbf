"""Parts of a tensor, and sums of products of two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from kconvert.layers.base import Node
from kconvert.layers.moves import Gather, Step, steps, strides
from kconvert.types import FixedType, grow


def walk(axes: Sequence[tuple[int, int]]) -> str:
    """Return the C++ type of a walk over axes of (size, stride), the last of which varies fastest."""
    return f"nnet::axes<{', '.join(f'nnet::axis<{size}, {stride}>' for size, stride in axes)}>"


@dataclass(eq=False, kw_only=True)
class Slice(Gather):
    """A part of a tensor, as numpy's basic indexing takes it: `key` has a slice or a number for every axis."""

    key: tuple[slice | int, ...]

    def output_shape(self) -> tuple[int, ...]:
        """The axes that are left; a single number is a tensor of one element.

        Raises:
            IndexError: A number is out of range.
        """
        return tuple(size for size, _ in self._axes) or (1,)

    @property
    def _chosen(self) -> list[tuple[range | int, int]]:
        """What is taken along every axis of the input, and how far apart neighbours are there."""
        shape = self.inputs[0].shape
        taken = [range(n)[entry] for entry, n in zip(self.key, shape, strict=True)]
        return list(zip(taken, strides(shape), strict=True))

    @property
    def _axes(self) -> list[tuple[int, int]]:
        """Size and stride of every axis that is left."""
        return [(len(taken), taken.step * stride) for taken, stride in self._chosen if isinstance(taken, range)]

    @property
    def offset(self) -> int:  # type: ignore[override]  # others have none
        """Place of the first element."""
        firsts = [(t if isinstance(t, int) else t.start, stride) for t, stride in self._chosen]
        return sum(first * stride for first, stride in firsts)

    @property
    def steps(self) -> list[Step]:
        """Every axis that is left moves by its stride."""
        return steps(self.output.shape, [stride for _, stride in self._axes] or [0])


def along_first(shape: Sequence[int], entry: slice | int) -> tuple[slice | int, ...]:
    """Return the key that takes `entry` along the first axis of a tensor of this shape."""
    return (entry, *[slice(None)] * (len(shape) - 1))


REVERSED = slice(None, None, -1)


@dataclass(eq=False, kw_only=True)
class Contraction(Node):
    """Sum of products of two tensors over the axes they share and the output has not, as ``numpy.einsum`` writes it.

    Attributes:
        equation: A letter for each axis, without that of the batch: ``"ik,kj->ij"`` is a matrix product.
        accum_type: Type of the sums.
    """

    equation: str
    accum_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"accum": "accum_type", "result": "result_type"}
    template = "contraction"
    kernel = "nnet_contraction.h"

    @property
    def terms(self) -> tuple[str, str, str]:
        """The letters of both inputs and of the output."""
        inputs, _, output = self.equation.partition("->")
        first, _, second = inputs.partition(",")
        return first, second, output

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every axis by its letter; raises ValueError where the inputs contradict each other."""
        found: dict[str, int] = {}
        for term, value in zip(self.terms[:2], self.inputs, strict=True):
            for letter, size in zip(term, value.shape, strict=True):
                if found.setdefault(letter, size) != size:
                    raise ValueError(f"an axis of {found[letter]} elements is summed with one of {size}")
        return found

    def output_shape(self) -> tuple[int, ...]:
        """Sizes of the axes that are left; a single number is a tensor of one element."""
        sizes = self.sizes
        return tuple(sizes[letter] for letter in self.terms[2]) or (1,)

    @property
    def summed(self) -> str:
        """Letters of the axes that are summed over."""
        first, second, output = self.terms
        return "".join(letter for letter in first if letter in second and letter not in output)

    @property
    def fan_in(self) -> int:
        """Number of products summed for one output."""
        return math.prod(self.sizes[letter] for letter in self.summed)

    def walk(self, number: int, letters: str) -> str:
        """Return the C++ type of the walk over the axes `letters` of input `number`."""
        term, shape = self.terms[number], self.inputs[number].shape
        stride = dict(zip(term, strides(shape), strict=True))
        sizes = self.sizes
        return walk([(sizes[letter], stride.get(letter, 0)) for letter in letters])

    @property
    def scratch(self) -> int:
        """One accumulator."""
        return 1

    def infer_types(self, default: FixedType) -> None:
        """The accumulator holds every sum the operand types allow; so does the result."""
        product = self.in_type(0) * self.in_type(1)
        if self.accum_type is None:
            self.accum_type = self.lossless(grow(product, self.fan_in), "accum")
        _ = product + self.accum_type  # what a sum is computed in before it is stored has to exist, too
        self.result_type = self.result_type or self.accum_type
