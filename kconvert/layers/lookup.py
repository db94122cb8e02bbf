"""Tables of functions: how they are addressed, and how exact what is read from them is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kconvert.layers.base import Constant
from kconvert.types import FixedType, Overflow, Rounding

LOOKUPS = ("auto", "nearest", "linear")
TABLE_TYPE = FixedType(18, 8, True, Rounding.RND, Overflow.SAT)
MOST_FRACTION = 24
"""Most fraction bits a table has unless the settings say otherwise: straight lines are no nearer to a function."""
TABLE_SIZE = 1024
FINE_TABLE_SIZE = 4096
"""Entries of a table whose straight lines are to be as near to a function as a type with many fraction bits is."""
REST_BITS = 16
"""Most bits of the position between two entries."""


def default_table_type(default: FixedType) -> FixedType:
    """Return the type of the entries of a table where the model's default type is `default`: never coarser than it."""
    fraction = min(max(default.fraction, TABLE_TYPE.fraction), MOST_FRACTION)
    return TABLE_TYPE.with_(width=TABLE_TYPE.integer + fraction)


def default_table_size(default: FixedType) -> int:
    """Return the number of entries of a table where the model's default type is `default`."""
    return FINE_TABLE_SIZE if default.fraction > TABLE_TYPE.fraction else TABLE_SIZE


def table_of(function: Callable[[np.ndarray], np.ndarray], index: FixedType) -> np.ndarray:
    """Evaluate `function` at every value of `index`, ordered by the raw bits read as an unsigned number."""
    return np.asarray(function(index.from_raw(_raw_values(index))))


def _raw_values(index: FixedType) -> np.ndarray:
    raw = np.arange(1 << index.width, dtype=np.int64)
    return np.where(raw > index.raw_max, raw - (1 << index.width), raw) if index.signed else raw


@dataclass(frozen=True, slots=True)
class Lookup:
    """A table, and how a value finds its answer in it.

    Attributes:
        nearest: Type whose raw bits address the table; it rounds and saturates.
        source: Type of the value looked up.
        entry: Type of an entry.
        wanted: ``"nearest"``: the answer is the entry nearest to the value. ``"linear"``: it lies on the straight line
            between two entries. ``"auto"``: that where entries are finer than a table of their number can use.
    """

    nearest: FixedType
    source: FixedType
    entry: FixedType
    wanted: str = "auto"

    @property
    def linear(self) -> bool:
        """Whether the answer lies between two entries; where every value has an entry of its own it never does."""
        fine = self.entry.fraction > TABLE_TYPE.fraction
        between = self.nearest.fraction < self.source.fraction
        return between and (self.wanted == "linear" or (self.wanted == "auto" and fine))

    @property
    def position(self) -> FixedType:
        """The value within the range of the table."""
        fraction = min(self.source.fraction, self.nearest.fraction + REST_BITS)
        return self.nearest.with_(width=self.nearest.integer + fraction)

    @property
    def index(self) -> FixedType:
        """Type that addresses the table: rounded to the nearest entry, or down to the one below."""
        return FixedType(self.nearest.width, self.nearest.integer, self.nearest.signed) if self.linear else self.nearest

    @property
    def rest(self) -> FixedType:
        """Distance to the entry below (linear)."""
        return FixedType(self.position.fraction - self.nearest.fraction, -self.nearest.fraction, False)

    @property
    def slope(self) -> FixedType:
        """Difference of two entries, divided by their distance: exact (linear)."""
        return FixedType(self.entry.width + 1, self.entry.integer + 1 + self.nearest.fraction, True)

    @property
    def answer(self) -> FixedType:
        """Exact type of what is found."""
        if not self.linear:
            return FixedType(self.entry.width, self.entry.integer, self.entry.signed)
        fraction = (self.rest * self.slope).fraction
        return FixedType(self.entry.integer + fraction, self.entry.integer, self.entry.signed)

    def constants(self, function: Callable[[np.ndarray], np.ndarray], role: str = "table") -> dict[str, Constant]:
        """Return the table of `function`, and (linear) the slopes behind its entries."""
        table = Constant(table_of(function, self.index), self.entry)
        if not self.linear:
            return {role: table}
        ends = np.asarray(function(self.index.from_raw(_raw_values(self.index) + 1)))
        raw = self.entry.to_raw(ends).astype(object) - table.raw.astype(object)
        slopes = self.slope.from_raw(raw)
        exact = raw.astype(self.slope.raw_dtype)
        return {role: table, f"{role.removesuffix('table')}slope": Constant(slopes, self.slope, exact)}
