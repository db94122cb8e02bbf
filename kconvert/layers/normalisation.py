"""Normalisation by what is measured on the sample itself: its mean and variance, or its length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from kconvert.layers.activations import check_table_size
from kconvert.layers.base import Constant, Node
from kconvert.layers.exponential import mantissa_type, octave_lookup
from kconvert.layers.lookup import TABLE_SIZE, Lookup
from kconvert.types import FixedType, Overflow, Rounding, grow


@dataclass(frozen=True, slots=True)
class Layout:
    """Which elements of a tensor belong to one set: it is [outer, first, sets, last], and a set [first, last]."""

    outer: int
    first: int
    sets: int
    last: int

    @classmethod
    def over(cls, shape: tuple[int, ...], axes: range) -> Layout:
        """The sets over neighbouring axes of a tensor."""
        parts = shape[: axes.start], shape[axes.start : axes.stop], shape[axes.stop :]
        outer, inside, after = (math.prod(part) for part in parts)
        return cls(outer, inside, after, 1)

    @property
    def members(self) -> int:
        """Elements of a set."""
        return self.first * self.last


@dataclass(eq=False, kw_only=True)
class SampleNormalization(Node):
    """``scale (x - mean) / sqrt(variance + epsilon) + bias`` with the mean and variance of every set of elements.

    With n members, ``(x - mean) / sqrt(variance + epsilon)`` is ``d / sqrt(v)`` with ``d = n x - sum(x)`` and
    ``v = n sum(x^2) - sum(x)^2 + n^2 epsilon``, which are exact. One bit pair at a time, v and d are shifted to where v
    has its leading bit in one place; the reciprocal square root is looked up there.

    Attributes:
        layout: What belongs to a set.
        scale: Flat.
        bias: Flat.
        by_set: Scale and bias are those of [sets, last]; else of [first, last].
        epsilon: Added to the variance.
        centred: If false, ``x / sqrt(sum(x^2) + epsilon)`` instead (its length, for UnitNormalization).
        table_type: Type of the reciprocal square root, and with as many fraction bits of what is normalised.
    """

    layout: Layout
    scale: np.ndarray
    bias: np.ndarray
    by_set: bool = False
    epsilon: float = 0.0
    centred: bool = True
    table_size: int = TABLE_SIZE
    scale_type: FixedType | None = None
    bias_type: FixedType | None = None
    table_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {
        "scale": "scale_type",
        "bias": "bias_type",
        "table": "table_type",
        "result": "result_type",
    }
    tunables = frozenset({"table_size"})
    template = "sample_normalization"
    kernel = "nnet_normalization.h"
    pointwise = True

    def at_position(self) -> Self | None:
        """There is one if a set is the channels of a position."""
        if (self.layout.sets, self.layout.first * self.layout.last) != (1, self.output.shape[-1]):
            return None
        one = super().at_position()
        if one is not None:
            one.layout = Layout(1, self.layout.first, 1, self.layout.last)
        return one

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """The table is as fine as the default type has bits."""
        return mantissa_type(default) if role == "table" else super().default_type(role, default)

    def infer_types(self, default: FixedType) -> None:
        """The result holds the largest value that a normalised element can have, times its scale, plus the bias."""
        self.scale_type = self.scale_type or default
        self.bias_type = self.bias_type or default
        self.table_type = self.table_type or mantissa_type(default)
        _ = self.spread_type, self.wide_type  # have to exist
        exact = self.normal_type * self.scale_type + self.bias_type
        self.result_type = self.result_type or self.lossless(exact, "result")

    # ***** types between input and result *****

    @property
    def members(self) -> int:
        """n: by how many elements a mean is taken, or 1 where there is none."""
        return self.layout.members if self.centred else 1

    @property
    def sum_type(self) -> FixedType:
        """Exact type of the sum of a set."""
        return grow(self.in_type(), self.layout.members)

    @property
    def squares_type(self) -> FixedType:
        """Exact type of the sum of the squares of a set."""
        return grow(self.in_type() * self.in_type(), self.layout.members).with_(signed=False)

    @property
    def distance_type(self) -> FixedType:
        """Exact type of d."""
        source, bits = self.in_type(), self.members.bit_length()
        return (
            source if not self.centred else FixedType(source.width + bits + 1, source.integer + bits + 1, signed=True)
        )

    @property
    def added(self) -> float:
        """What is added so that v is never less: n^2 epsilon."""
        return self.members**2 * self.epsilon

    @property
    def spread_type(self) -> FixedType:
        """Type of v: even numbers of integer and fraction bits, and 20 significant ones of what is added."""
        squares = self.squares_type
        least = math.frexp(self.added)[1] if self.added else 0
        integer = max(squares.integer + self.members.bit_length(), least) + 1
        fraction = max(squares.fraction, 20 - least if self.added else 0)
        integer, fraction = max(integer + integer % 2, 2), max(fraction + fraction % 2, 2)
        return FixedType(integer + fraction, integer, False)

    @property
    def margin(self) -> int:
        """Bits before the point of a normalised element, which is below sqrt(n), sign and one to spare included."""
        return (self.layout.members.bit_length() + 1) // 2 + 2

    @property
    def wide_type(self) -> FixedType:
        """Type of d after the shift."""
        integer = self.spread_type.integer // 2 + self.margin
        return FixedType(integer + max(self.distance_type.fraction, 1), integer, True)

    @property
    def short_type(self) -> FixedType:
        """Type of d after the shift, with the binary point where v is in [1, 4)."""
        return FixedType(self.margin + self.typed("table").fraction, self.margin, True)

    @property
    def normal_type(self) -> FixedType:
        """Type of a normalised element."""
        return self.short_type.with_(rounding=Rounding.RND)

    @property
    def steps(self) -> int:
        """How many times the distance of v's leading pair of bits to the top is halved."""
        return (self.spread_type.width // 2 - 1).bit_length()

    @property
    def found(self) -> Lookup:
        """How the table of reciprocal square roots over [1, 4) is read."""
        source = FixedType(self.spread_type.width, 2, False)
        return octave_lookup(source, self.typed("table"), self.table_size, integer=2)

    def constants(self) -> dict[str, Constant]:
        """Scale, bias, what is added to v, and the table; below 1 it holds what nothing reads."""
        spread = self.spread_type.with_(rounding=Rounding.RND, overflow=Overflow.SAT)
        return {
            "scale": Constant(self.scale, self.typed("scale")),
            "bias": Constant(self.bias, self.typed("bias")),
            "added": Constant(np.array([self.added]), spread),
            **self.found.constants(lambda v: 1 / np.sqrt(np.maximum(v, 1))),
        }

    @property
    def scratch(self) -> int:
        """The distances of one set."""
        return self.layout.members

    def check(self) -> None:
        """The table's size must be a power of two."""
        check_table_size(self, self.table_size)
