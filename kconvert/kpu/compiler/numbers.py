"""The numbers of quantisation: ranges, parameters, fixed-point multipliers, rounding."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kconvert.kpu.wire import QuantParam

Array = npt.NDArray[Any]

LIMIT = 1000.0  # to which both ends of a range are clipped
LEAST_WIDTH = 0.01


class Range(NamedTuple):
    """The values that a tensor takes."""

    low: float
    high: float


class Multiplier(NamedTuple):
    """A factor mul / 2^shift; `mul` is not yet rounded."""

    mul: float
    shift: int

    @property
    def rounded(self) -> int:
        """The integer that is stored."""
        return int(round_away(self.mul))


def fixed_up(low: float, high: float) -> Range:
    """Return a range that can be quantised: within ±1000, not too narrow, with 0 inside."""
    low, high = (float(np.float32(np.clip(v, -LIMIT, LIMIT))) for v in (low, high))
    width = np.float32(high) - np.float32(low)
    if width == 0:
        width = np.float32(0.1)
    elif width < LEAST_WIDTH:
        width = np.float32(LEAST_WIDTH)
    high = float(np.float32(low) + width)
    return Range(min(low, 0.0), max(high, 0.0))


def quant_param(r: Range) -> QuantParam:
    """Return how a range is stored in a byte."""
    scale = np.float32(255) / np.float32(np.float32(r.high) - np.float32(r.low))
    return QuantParam(int(round_away(float(np.float32(-r.low) * scale))), float(scale))


def round_away(value: Any) -> Any:
    """Round halves away from zero, in double."""
    value = np.asarray(value, np.float64)
    return np.trunc(value + np.copysign(0.5, value))


def quantised(values: Array, param: QuantParam) -> Array:
    """Return bytes as the runtime's quantize does: float32 arithmetic, halves away from zero."""
    scaled = np.asarray(values, np.float32) * np.float32(param.scale) + np.float32(param.zero_point)
    return np.asarray(np.clip(round_away(scaled), 0, 255), np.uint8)


def dequantised(values: Array, param: QuantParam) -> Array:
    """Return real numbers as the runtime's dequantize does: times the reciprocal, in float32."""
    reciprocal = np.float32(1) / np.float32(param.scale)
    return np.asarray((values.astype(np.int32) - param.zero_point).astype(np.float32) * reciprocal, np.float32)


def fixed_mul(value: float, max_bits: int, max_shift: int) -> Multiplier:
    """Return `value`, or the nearest there is, as a multiplier of `max_bits` bits with its sign and a shift."""
    if value == 0:
        return Multiplier(0.0, 0)
    bits = max_bits - 1
    mantissa, exponent = math.frexp(value)
    if exponent > bits:  # beyond what there is: the largest
        return Multiplier(math.copysign((1 << bits) - 1, value), 0)
    if abs(value) > 1:
        shift = min(max_shift, bits - exponent)
        return Multiplier(float(np.float32(math.ldexp(mantissa, shift + exponent))), shift)
    kept = min(max_shift + exponent, bits)
    return Multiplier(float(np.float32(math.ldexp(mantissa, kept))), kept - exponent)
