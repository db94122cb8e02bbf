"""Numbers that are exact: integers of any size times a power of two."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Exact:
    """The numbers ``raw * 2**-fraction``; `raw` is int64 where that has room, else Python ints."""

    raw: Array
    fraction: int

    def __post_init__(self) -> None:
        # arithmetic of arrays without an axis gives bare numbers
        object.__setattr__(self, "raw", np.atleast_1d(self.raw))

    @classmethod
    def of(cls, values: Any) -> Exact:
        """Take floats as the exact numbers they are."""
        floats = np.asarray(values, dtype=np.float64)
        fraction = int(fraction_bits(floats).max(initial=0))
        scaled = np.ldexp(floats, fraction)
        if np.abs(scaled).max(initial=0) < 2.0**62:
            return cls(scaled.astype(np.int64), fraction)
        whole = [int(Fraction(float(v)) * Fraction(2) ** fraction) for v in floats.flat]
        return cls(np.array(whole, dtype=object).reshape(floats.shape), fraction)

    @property
    def largest(self) -> int:
        """Largest magnitude of `raw`."""
        return int(np.abs(self.raw).max(initial=0))

    def roomy(self, bits: int) -> Array:
        """Return `raw` in a form in which results up to ``2**bits`` times as large have room."""
        return self.raw.astype(object) if self.largest.bit_length() + bits > 62 else self.raw

    def reduced(self) -> Exact:
        """Return the same numbers with no power of two left in all of `raw`."""
        union = int(functools.reduce(operator.or_, np.unique(np.abs(self.raw)), 0))
        zeros = (union & -union).bit_length() - 1
        if zeros <= 0:
            return self
        raw = self.raw >> zeros
        small = int(np.abs(raw).max()) < 1 << 62
        return Exact(raw.astype(np.int64) if small else raw, self.fraction - zeros)

    def at(self, fraction: int) -> Array:
        """Return the numbers in units of ``2**-fraction``, which is no coarser than they are."""
        more = fraction - self.fraction
        assert more >= 0
        return self.roomy(more) * (1 << more)

    def floats(self) -> Array:
        """Return the nearest doubles."""
        if self.raw.dtype != object:
            return np.asarray(np.ldexp(self.raw.astype(np.float64), -self.fraction))
        unit = Fraction(2) ** -self.fraction
        return np.array([float(int(r) * unit) for r in self.raw.flat]).reshape(self.raw.shape)

    def is_float32(self) -> bool:
        """True if every number is a float32."""
        floats = self.floats()
        back = Exact.of(floats)
        fraction = max(back.fraction, self.fraction)
        return bool((back.at(fraction) == self.at(fraction)).all() and fits(floats))

    def __add__(self, other: Exact) -> Exact:
        fraction = max(self.fraction, other.fraction)
        a, b = Exact(self.at(fraction), fraction), Exact(other.at(fraction), fraction)
        return Exact(a.roomy(2) + b.roomy(2), fraction).reduced()

    def __mul__(self, other: Exact) -> Exact:
        bits = max(self.largest.bit_length(), other.largest.bit_length())
        return Exact(self.roomy(bits) * other.roomy(bits), self.fraction + other.fraction).reduced()

    def __neg__(self) -> Exact:
        return Exact(-self.raw, self.fraction)

    def map(self, change: Callable[[Array], Array]) -> Exact:
        """Return the numbers moved to other places."""
        return Exact(change(self.raw), self.fraction)

    def rounded(self, fraction: int) -> Array:
        """Return the numbers in units of ``2**-fraction``, half to even."""
        less = self.fraction - fraction
        if less <= 0:
            return self.at(fraction)
        if less > 62:
            return Exact(self.raw.astype(object), self.fraction).rounded_ints(less)
        return self.rounded_ints(less)

    def rounded_ints(self, less: int) -> Array:
        """Return `raw` divided by ``2**less``, half to even."""
        floor, rest, half = self.raw >> less, self.raw & ((1 << less) - 1), 1 << (less - 1)
        up = (rest > half) | ((rest == half) & (floor & 1 == 1))
        return np.asarray(floor + up.astype(self.raw.dtype))


def fraction_bits(values: Array) -> Array:
    """Return for each float the number of its fraction bits, a large negative one for 0."""
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    whole = np.ldexp(np.abs(mantissa), 53).astype(np.int64)
    zeros = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return np.where(whole == 0, -800, 53 - exponent - zeros)


def fits(values: Array) -> bool:
    """True if all are float32 numbers."""
    return np.array_equal(values, values.astype(np.float32))
