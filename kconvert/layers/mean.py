"""The mean of several values: their sum divided by how many there are, exactly, then rounded down once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kconvert.errors import ConfigError
from kconvert.layers.base import MAX_WIDTH, Constant
from kconvert.types import FixedType, Rounding


def mean_type(source: FixedType, accum: FixedType, most: int) -> FixedType:
    """Return the type of a mean of up to `most` values of `source`: log2 of `most` more fraction bits, where they fit.

    It is exact for powers of two.
    """
    bits = (most - 1).bit_length()
    spare = MAX_WIDTH - 3 - bits - accum.integer - source.fraction  # of what the quotient may have
    extra = min(bits, max(spare, 0))
    return FixedType(source.width + extra, source.integer, source.signed, Rounding.RND)


@dataclass(frozen=True, slots=True)
class Division:
    """How sums of type `accum` are divided by up to `most`, for results of type `result`."""

    accum: FixedType
    result: FixedType
    most: int

    @property
    def quotient_type(self) -> FixedType:
        """Type of sum / count rounded down, with one guard bit below the result's last for its rounding."""
        fraction = max(self.accum.fraction, self.result.fraction + 1)
        return FixedType(self.accum.integer + fraction, self.accum.integer, self.accum.signed)

    @property
    def reciprocal_type(self) -> FixedType:
        """Type of 1 / count: precise enough that sum * reciprocal, rounded down, is floor(sum / count).

        With q bits in the quotient and m = ceil(2^s / n), floor(x m / 2^s) = floor(x / n) for all 0 <= x < 2^q
        when 2^s >= n 2^q (division by an invariant integer, Granlund and Montgomery 1994).
        """
        fraction = self.quotient_type.width + (self.most - 1).bit_length()
        return FixedType(fraction + 1, 1, False)

    def check(self, name: str) -> None:
        """Raise :class:`ConfigError`, naming the layer `name`, if a reciprocal has more bits than a value may have."""
        bits = (self.most - 1).bit_length()
        if self.quotient_type.width + bits >= MAX_WIDTH:
            raise ConfigError(
                f"layer {name!r}: the mean of {self.most} elements needs {self.quotient_type.width} bits "
                f"before it is rounded, and {MAX_WIDTH - 1 - bits} are the most; give {name!r} an accum and a "
                f"result precision with fewer bits"
            )

    def reciprocals(self, *counts: int) -> Constant:
        """Return 1 / count, rounded up, for each of `counts`; a 0 among them stands for an entry nothing reads."""
        kind = self.reciprocal_type
        one = 1 << kind.fraction
        raw = [-(-one // n) if n else 0 for n in counts]
        return Constant(np.array([r / one for r in raw]), kind, np.array(raw, dtype=kind.raw_dtype))
