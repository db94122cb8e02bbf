"""What the quantizers of QKeras do, by their published definition and in exact numbers; see evaluate.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tests.qkeras.exact import Array, Exact

_LOG_ERROR = 2.0**-18  # relative; float32 logarithms of numbers further from a threshold are on the right side of it


@dataclass(frozen=True)
class Step:
    """What an activation makes of a tensor, and whether float32 computes just that."""

    value: Exact
    exact: bool


def _through(x: Array, q: Exact) -> bool:
    """Whether QKeras' float32 ``x + (q - x)`` is q."""
    wanted = q.floats().astype(np.float32)
    return q.is_float32() and np.array_equal(x + (wanted - x), wanted)


def _number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


def _power(quantizer: Any, name: str = "integer") -> int:
    return int(_number(getattr(quantizer, name)))


def activate(quantizer: Any, x: Exact) -> Step:
    """Return what `quantizer`, a live object of QKeras, makes of the exact `x`."""
    return _ACTIVATIONS[getattr(quantizer, "__name__", type(quantizer).__name__)](quantizer, x)


def _alpha(q: Any) -> Array:
    return np.asarray(1.0 if q.alpha is None else q.alpha, dtype=np.float32)


def _float32_below(x: Exact) -> Array:
    """Return the greatest float32 that does not exceed x: where x is one itself, that is x.

    Three formulas of QKeras round on their way, a division by alpha or by the bound of a hard swish, and half of x
    plus 1/2. They have no meaning but the float32 one: a step function whose steps are at float32 numbers.
    """
    nearest = x.floats().astype(np.float32)
    there = Exact.of(nearest)
    fraction = max(there.fraction, x.fraction)
    return np.where(there.at(fraction) > x.at(fraction), np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _bits(q: Any, x: Exact) -> Step:
    """quantized_bits: alpha is a factor of the result alone."""
    negative = bool(q.keep_negative)
    bits = _power(q, "bits") - negative
    fraction = bits - _power(q)
    lowest = negative * (-(1 << bits) + bool(q.symmetric))
    codes = Exact(np.clip(x.rounded(fraction), lowest, (1 << bits) - 1), fraction)
    value = codes * Exact.of(_alpha(q))
    return Step(value, _through(x.floats().astype(np.float32), value))


def _linear(q: Any, x: Exact) -> Step:
    """quantized_linear: alpha scales the step."""
    negative = bool(q.keep_negative)
    bits = _power(q, "bits") - negative
    step = _alpha(q) * np.float32(2.0 ** (_power(q) - bits))
    floats = _float32_below(x)
    codes = np.rint(np.clip(floats / step, negative * (-(2.0**bits) + bool(q.symmetric)), 2.0**bits - 1))
    if np.frexp(step)[0] == 0.5:  # nothing rounds
        codes = Exact(x.raw, x.fraction - 1 + int(np.frexp(step)[1])).rounded(0)
        codes = np.clip(codes, negative * (-(1 << bits) + bool(q.symmetric)), (1 << bits) - 1)
    value = Exact.of(codes) * Exact.of(step)
    return Step(value, x.is_float32() and _through(floats, value))


def _hard_swish(q: Any, x: Exact) -> Step:
    """quantized_bits of ``x * clip(x + shift, 0, bound) / bound``."""
    shift, bound = np.float32(q.relu_shift), np.float32(q.relu_upper_bound)
    floats = _float32_below(x)
    swished = floats * np.clip(floats + shift, np.float32(0), bound) / bound
    value = _bits(q, Exact.of(swished)).value
    return Step(value, x.is_float32() and _through(swished, value))


def _relu(q: Any, x: Exact) -> Step:
    slope = _number(q.negative_slope)
    bits, integer = _power(q, "bits") - (slope != 0), _power(q)
    fraction = bits - integer
    floats = x.floats().astype(np.float32)
    straight = np.where(floats > 0, floats, floats * np.float32(slope))
    if q.use_sigmoid:
        assert not slope
        half = np.float32(0.5)
        line = np.clip(half * (_float32_below(x) / np.float32(2.0**integer)) + half, 0, 1)
        codes = 2 * np.rint(line * 2.0**bits).astype(np.int64) - (1 << bits)
    else:
        codes = x.rounded(fraction)
    result = Exact(np.clip(codes, 0, (1 << bits) - 1), fraction)
    if slope:
        down = Exact(x.raw, x.fraction - int(math.log2(slope)))
        finer = max(-int(math.log2(slope)) - bits, 0)  # the lowest value may lie between 0 and the first step
        below = Exact(down.rounded(fraction), fraction).at(fraction + finer)
        result = result + Exact(np.clip(below, -int(2.0 ** (bits + finer) * slope), 0), fraction + finer)
    if q.is_quantized_clip:
        top = np.float32(2.0**integer - 2.0**-fraction)
        straight = np.where(floats <= top, straight, top)
    elif q.relu_upper_bound:
        bound = Exact.of(np.float32(_number(q.relu_upper_bound)))
        finest = max(result.fraction, bound.fraction)
        result = Exact(np.minimum(result.at(finest), bound.at(finest)), finest)
        straight = np.where(floats <= bound.floats(), straight, bound.floats().astype(np.float32))
    return Step(result, x.is_float32() and _through(straight, result))


def _half_line(x: Exact) -> Exact:
    """Return ``x / 2 + 1/2``."""
    return Exact(x.raw, x.fraction + 1) + Exact(np.array(1), 1)


def _tanh(q: Any, x: Exact) -> Step:
    assert not q.use_real_tanh
    bits = _power(q, "bits") - 1
    codes = np.clip(x.rounded(bits), -(1 << bits) + bool(q.symmetric), (1 << bits) - 1)
    floats = x.floats().astype(np.float32)
    half = np.float32(0.5)
    hard = 2 * np.clip(half * floats + half, 0, 1) - 1
    return Step(Exact(codes, bits), np.array_equal(hard, np.clip(floats, -1, 1)))


def _sigmoid(q: Any, x: Exact) -> Step:
    assert not q.use_real_sigmoid
    bits = _power(q, "bits")
    line = _half_line(x)
    codes = np.clip(line.rounded(bits), int(bool(q.symmetric)), (1 << bits) - 1)
    half = np.float32(0.5)
    hard = np.clip(half * x.floats().astype(np.float32) + half, 0, 1)
    return Step(Exact(codes, bits), np.array_equal(hard, np.clip(line.floats(), 0, 1)))


def _hard_sigmoid(q: Any, x: Exact) -> Step:
    """QKeras' function, whose slope is 1/2."""
    assert q.__module__.startswith("qkeras")
    line = _half_line(x)
    fraction = max(line.fraction, 0)
    value = Exact(np.clip(line.at(fraction), 0, 1 << fraction), fraction)
    half = np.float32(0.5)
    return Step(value, np.array_equal(np.clip(half * x.floats().astype(np.float32) + half, 0, 1), value.floats()))


def _straight_of(q: Any, x: Exact) -> Array:
    """Return x, or tanh(x) where alpha is None, as binary and ternary have it."""
    floats = x.floats().astype(np.float32)
    if q.alpha is not None:
        return floats
    import tensorflow as tf

    return np.asarray(tf.tanh(floats))


def _signs(q: Any, x: Exact) -> Step:
    low = 0 if q.use_01 else -1
    scale = Exact.of(_alpha(q))
    value = Exact(np.where(x.raw >= 0, 1, low), 0) * scale
    return Step(value, _through(_straight_of(q, x), value))


def _ternary(q: Any, x: Exact) -> Step:
    threshold = Exact.of(np.float32(q.default_threshold if q.threshold is None else q.threshold))
    fraction = max(x.fraction, threshold.fraction)
    reached = np.abs(x.at(fraction)) >= threshold.at(fraction)
    scale = Exact.of(_alpha(q))
    value = Exact(np.where(reached, np.sign(x.raw).astype(np.int64), 0), 0) * scale
    return Step(value, _through(_straight_of(q, x), value))


def _power_of_two(q: Any, x: Exact) -> Step:
    values, sure = _nearest_powers(q, x)
    value = Exact.of(np.where(x.raw >= 0, values, -values))
    return Step(value, sure and _through(x.floats().astype(np.float32), value))


def _relu_power_of_two(q: Any, x: Exact) -> Step:
    slope = _number(q.negative_slope)
    up, sure = _nearest_powers(q, x.map(lambda raw: np.maximum(raw, 0)))
    floats = x.floats().astype(np.float32)
    straight = np.where(floats > 0, floats, floats * np.float32(slope))
    if q.max_value is not None:
        straight = np.where(floats <= q.max_value, straight, np.float32(q.max_value))
    if slope:
        down, sure_down = _nearest_powers(q, (-x).map(lambda raw: np.maximum(raw, 0)) * Exact.of(slope))
        up, sure = np.where(x.raw >= 0, up, -down), sure and sure_down
    value = Exact.of(up)
    return Step(value, sure and _through(straight, value))


def _nearest_powers(q: Any, x: Exact) -> tuple[Array, bool]:
    """Return the power of two nearest to each magnitude on the logarithmic axis, and whether float32 finds it."""
    lowest, highest = int(_number(q._min_exp)), int(_number(q._max_exp))
    assert not q.quadratic_approximation
    assert q.log2_rounding == "rnd"
    unit, epsilon = Fraction(2) ** -x.fraction, Fraction(float(np.float32(1e-7)))
    found, sure = np.empty(x.raw.shape), True
    for index, raw in np.ndenumerate(np.abs(x.raw)):
        size = int(raw) * unit
        if size < epsilon:
            exponent = lowest
        else:
            size = size if q.max_value is None else min(size, Fraction(q.max_value))
            exponent, distance = _nearest_exponent(size)
            sure = sure and distance > _LOG_ERROR
        found[index] = 2.0 ** min(max(exponent, lowest), highest)
    return found, sure


def _nearest_exponent(size: Fraction) -> tuple[int, float]:
    """Return log2 of `size`, rounded, and how far `size` is from where it would be another, relative to it."""
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    while Fraction(2) ** exponent > size:
        exponent -= 1
    ratio = size**2 / Fraction(2) ** (2 * exponent)  # in [1, 4); the threshold is at 2
    return exponent + (ratio > 2), abs(float(ratio - 2)) / 4


_ACTIVATIONS: dict[str, Callable[[Any, Exact], Step]] = {
    "quantized_bits": _bits,
    "quantized_linear": _linear,
    "quantized_hswish": _hard_swish,
    "quantized_relu": _relu,
    "quantized_tanh": _tanh,
    "quantized_sigmoid": _sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "binary": _signs,
    "stochastic_binary": _signs,
    "ternary": _ternary,
    "stochastic_ternary": _ternary,
    "quantized_po2": _power_of_two,
    "quantized_relu_po2": _relu_power_of_two,
}


# ***** weights of live quantizers *****


@dataclass(frozen=True)
class Weights:
    """Quantised weights ``codes * scale``; `scale` is 1 or has the shape the quantizer gives it."""

    codes: Exact
    scale: Array
    exact: bool

    @property
    def values(self) -> Exact:
        """The weights themselves."""
        return self.codes * Exact.of(self.scale)


def quantised(quantizer: Any, array: Any) -> Weights:
    """Return what the live `quantizer` makes of the float32 `array`."""
    array = np.asarray(array, dtype=np.float32)
    if quantizer is None:
        return Weights(Exact.of(array), np.ones(()), True)
    import tensorflow as tf

    live = np.asarray(quantizer(tf.constant(array)), dtype=np.float32)
    if "po2" in type(quantizer).__name__:
        exponent = np.rint(np.log2(np.abs(live.astype(np.float64))))
        codes, scale, step = np.sign(live) * 2.0**exponent, np.ones(()), 2.0**exponent
    else:
        scale, unit = _scale_of(quantizer), _step_of(quantizer)
        step = np.broadcast_to(np.where(scale == 0, 1, scale) * unit, live.shape)
        codes = np.rint(live / step) * unit
    found = Weights(Exact.of(codes), scale, False)
    values = found.values.floats()
    # what x + (q - x) and scale * code can lose in float32
    lost = np.abs(live - values) / np.spacing(np.maximum(np.abs(array), np.abs(live)).astype(np.float32))
    assert lost.max(initial=0) <= 4, f"{quantizer}: weights are off its grid by {lost.max()} units in the last place"
    assert (np.abs(live - values) <= step / 4).all(), f"{quantizer}: float32 hides its grid"
    same = found.values.is_float32() and np.array_equal(values, live.astype(np.float64))
    return Weights(found.codes, scale, same)


def _scale_of(quantizer: Any) -> Array:
    alpha = getattr(quantizer, "alpha", None)
    if alpha is None:
        return np.ones(())
    return np.asarray(quantizer.scale if isinstance(alpha, str) else alpha, dtype=np.float32).astype(np.float64)


def _step_of(quantizer: Any) -> float:
    match type(quantizer).__name__:
        case "quantized_bits" | "quantized_linear" | "quantized_hswish":
            return 2.0 ** (_power(quantizer) - _power(quantizer, "bits") + bool(quantizer.keep_negative))
        case "quantized_relu":
            return 2.0 ** (_power(quantizer) - _power(quantizer, "bits") + (_number(quantizer.negative_slope) != 0))
        case "quantized_tanh":
            return 2.0 ** (1 - _power(quantizer, "bits"))
        case "quantized_sigmoid":
            return 2.0 ** -_power(quantizer, "bits")
    return 1.0
