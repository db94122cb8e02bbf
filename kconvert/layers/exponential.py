"""The exponential function of inputs of any range, and x / (1 + |x|): a table of one octave, and a shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kconvert.layers.activations import check_table_size
from kconvert.layers.base import MAX_WIDTH, Constant, Node
from kconvert.layers.lookup import MOST_FRACTION, TABLE_SIZE, Lookup
from kconvert.types import FixedType, Overflow, Rounding, exact_type

LOG2_E = exact_type(1 / math.log(2), 32)


def mantissa_type(default: FixedType) -> FixedType:
    """Return the default type of the entries of a table of numbers from 0.5 to 2, where the model's is `default`."""
    fraction = min(max(default.width, 16), MOST_FRACTION)
    return FixedType(fraction + 2, 2, False, Rounding.RND, Overflow.SAT)


def octave_lookup(source: FixedType, entry: FixedType, size: int, integer: int = 0) -> Lookup:
    """Return how a table of `size` entries over [0, 2**integer) is read: by lines between its entries."""
    bits = size.bit_length() - 1
    fraction = min(bits - integer, source.fraction)
    index = FixedType(integer + fraction, integer, False, Rounding.RND, Overflow.SAT)
    return Lookup(index, source, entry, "linear")


@dataclass(eq=False, kw_only=True)
class OctaveActivation(Node):
    """A function that is looked up over one octave and shifted from there."""

    table_size: int = TABLE_SIZE
    table_type: FixedType | None = None

    roles: ClassVar[Mapping[str, str]] = {"table": "table_type", "result": "result_type"}
    tunables = frozenset({"table_size"})
    kernel = "nnet_exponential.h"
    pointwise = True
    absorbs = True
    narrows = True

    def default_type(self, role: str, default: FixedType) -> FixedType | None:
        """The table is as fine as the default type has bits, for its entries are shifted."""
        return mantissa_type(default) if role == "table" else super().default_type(role, default)

    def check(self) -> None:
        """The table's size must be a power of two."""
        check_table_size(self, self.table_size)


@dataclass(eq=False, kw_only=True)
class Exponential(OctaveActivation):
    """``exp(x)`` as ``2**k * 2**f`` with ``k + f = x / log(2)``, f in [0, 1) looked up."""

    template = "exponential"

    def infer_types(self, default: FixedType) -> None:
        """The result holds the largest exponential, or has 32 integer bits and saturates."""
        self.table_type = self.table_type or mantissa_type(default)
        if self.result_type is None:
            integer = min(math.ceil(min(self.in_type().max, 64.0) / math.log(2)) + 1, 32)
            fraction = min(default.fraction, MAX_WIDTH - integer)
            self.result_type = FixedType(integer + fraction, integer, False, Rounding.RND, Overflow.SAT)

    @property
    def highest(self) -> int:
        """Largest k that matters: beyond it the result overflows."""
        return max(self.typed("result").integer, 0)

    @property
    def value_type(self) -> FixedType:
        """Type of the exponential before it is stored in the result's: two bits finer."""
        integer = self.highest + 2
        return FixedType(integer + max(self.typed("result").fraction + 2, 1), integer, False)

    @property
    def shift_type(self) -> FixedType:
        """Type of highest - k, saturating where nothing is left of the exponential."""
        bits = (self.value_type.width + 1).bit_length()
        return FixedType(bits, bits, False, Rounding.TRN, Overflow.SAT)

    @property
    def exponent_type(self) -> FixedType:
        """Type of x / log(2), saturating where its shift does."""
        integer = self.shift_type.width + 2
        fraction = min(max(self.typed("table").fraction, 1), self.in_type().fraction + LOG2_E.fraction)
        return FixedType(integer + fraction, integer, True, Rounding.RND, Overflow.SAT)

    @property
    def found(self) -> Lookup:
        """How the table of 2**f is read."""
        fraction = FixedType(self.exponent_type.fraction, 0, False)
        return octave_lookup(fraction, self.typed("table"), self.table_size)

    def constants(self) -> dict[str, Constant]:
        """1 / log(2), and the table."""
        factor = Constant(np.array([1 / math.log(2)]), LOG2_E)
        return {"factor": factor, **self.found.constants(np.exp2)}


@dataclass(eq=False, kw_only=True)
class Softsign(OctaveActivation):
    """``x / (1 + abs(x))`` as ``1 - 1 / (1 + abs(x))`` with the sign of x, by a table of reciprocals over [1, 2)."""

    template = "softsign"

    def infer_types(self, default: FixedType) -> None:
        """The result lies between -1 and 1."""
        self.table_type = self.table_type or mantissa_type(default)
        fraction = self.table_type.fraction
        open_ = FixedType(fraction + 2, 2, True, Rounding.RND, Overflow.SAT)
        self.result_type = self.result_type or open_

    @property
    def magnitude_type(self) -> FixedType:
        """Exact type of 1 + abs(x)."""
        source = self.in_type()
        integer = max(source.integer, 1) + 1
        return FixedType(integer + max(source.fraction, 1), integer, False)

    @property
    def found(self) -> Lookup:
        """How the table of 1 / (1 + f) is read, f being the fraction of the magnitude shifted into [1, 2)."""
        magnitude = self.magnitude_type
        return octave_lookup(FixedType(magnitude.width - 1, 0, False), self.typed("table"), self.table_size)

    @property
    def shift_bits(self) -> int:
        """Bits of the number of places the magnitude is shifted by."""
        return self.magnitude_type.width.bit_length()

    @property
    def steps(self) -> int:
        """How many times the distance of the leading bit to the top is halved."""
        return (self.magnitude_type.width - 1).bit_length()

    def constants(self) -> dict[str, Constant]:
        """The table."""
        return self.found.constants(lambda f: 1 / (1 + f))
