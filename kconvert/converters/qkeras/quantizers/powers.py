"""Powers of two: how QKeras picks the exponent, and the step functions that follow from it."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kconvert.converters.qkeras.quantizers.responses import EPSILON, LOG2, Activation, Float32, Steps

if TYPE_CHECKING:
    from kconvert.converters.qkeras.quantizers.quantizer import Quantizer


@dataclass(frozen=True)
class _Exponents:
    """How QKeras picks the exponent of a power of two."""

    lowest: int
    highest: int
    max_value: float | None
    quadratic: bool
    floor: bool

    def __call__(self, magnitude: Float32) -> Float32:
        x = np.maximum(magnitude, EPSILON)
        if self.max_value is not None:
            x = np.minimum(x, np.float32(self.max_value))
        with np.errstate(divide="ignore"):
            log2 = np.log(np.sqrt(x) if self.quadratic else x) / LOG2
        picked = np.clip(np.floor(log2) if self.floor else np.rint(log2), self.lowest, self.highest)
        # What lies below epsilon gets the lowest exponent, which the quadratic form does not double here.
        return np.where(magnitude < EPSILON, np.float32(self.lowest), (1 + self.quadratic) * picked)


def _exponents(q: Quantizer, sign_bits: int) -> _Exponents:
    limit = q["max_value"]
    if limit is not None and limit < 0:
        q.refuse("max_value must not be negative")
    if q["log2_rounding"] not in ("rnd", "floor"):
        q.refuse(f"log2_rounding={q['log2_rounding']!r} must be 'rnd' or 'floor'")
    bits = q["bits"] - sign_bits - (limit is None or limit > 1)  # one bit for the sign of the exponent
    if bits < 0:
        q.refuse(f"{q['bits']} bits leave none for the exponent")
    if bits > 8:
        q.refuse(f"exponents of {bits} bits are out of the range of float32; give it fewer bits")
    quadratic = bool(q["quadratic_approximation"])
    highest = 2**bits - 1
    highest = highest // 2 * 2 if quadratic else highest
    floor = q["log2_rounding"] == "floor"
    if quadratic and not floor and limit and np.log2(limit) % 2 == 1:
        q.refuse(
            f"max_value={limit} lies exactly between two even powers, where QKeras' answer depends on the place of a "
            "value in its array; double or halve it"
        )
    return _Exponents(-(2**bits), highest, None if limit is None else float(limit), quadratic, floor)


@functools.lru_cache(maxsize=256)
def _powers(exponents: _Exponents) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return thresholds and levels of the magnitude, from zero up.

    A threshold is the smallest float32 that QKeras' float32 logarithm takes to the next exponent. The logarithm here
    is numpy's. Its last bit can differ from TensorFlow's, which itself differs between full vectors and the rest of
    an array; that moves a threshold by at most 8 units in the last place, or 16 with ``log2_rounding="floor"``.
    """
    bits_of = functools.partial(np.ndarray.view, dtype=np.int32)
    first = int(bits_of(np.array(EPSILON)))
    last = int(bits_of(np.array(np.finfo(np.float32).max)))

    def exponent(bits: int) -> float:
        return float(exponents(np.array(bits, dtype=np.int32).view(np.float32)))

    step = 1 + exponents.quadratic
    thresholds, picked = [float(EPSILON)], [float(exponents.lowest), exponent(first)]
    while picked[-1] < exponent(last):
        start = bisect.bisect_left(range(first, last), picked[-1] + step, key=exponent)
        thresholds.append(float(np.array(first + start, dtype=np.int32).view(np.float32)))
        picked.append(exponent(first + start))
    if picked[0] == picked[1]:
        del thresholds[0], picked[0]
    return tuple(thresholds), tuple(2.0**e for e in picked)


def po2_response(q: Quantizer) -> Activation:
    """The nearest power of two, with the sign; zero counts as positive."""
    thresholds, levels = _powers(_exponents(q, sign_bits=1))
    return _two_sided(thresholds, levels, 1.0)


def relu_po2_response(q: Quantizer) -> Activation:
    """A ReLU that never gives zero: without a slope, everything below epsilon becomes the smallest power."""
    slope = float(q["negative_slope"])
    if slope < 0 or (slope and np.log2(slope) % 1):
        q.refuse(f"negative_slope={slope} must be zero or a power of two")
    thresholds, levels = _powers(_exponents(q, sign_bits=0))
    if slope == 0:
        return Steps(thresholds, levels, (True,) * len(thresholds))
    return _two_sided(thresholds, levels, slope)


def _two_sided(thresholds: Sequence[float], levels: Sequence[float], slope: float) -> Steps:
    down = tuple(-t / slope for t in reversed(thresholds))
    return Steps(
        thresholds=(*down, 0.0, *thresholds),
        levels=(*(-v for v in reversed(levels)), *levels),
        inclusive=(*(False for _ in down), True, *(True for _ in thresholds)),
    )
