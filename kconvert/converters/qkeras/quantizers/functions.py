"""Which function a quantizer stores, without alpha, and the type it stores it in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from kconvert.converters.qkeras.quantizers.responses import Activation, Affine, Convert, Float32, Rectify, Steps, Table
from kconvert.types import MAX_PARSED_WIDTH, FixedType, Overflow, Rounding, exact_type, union

if TYPE_CHECKING:
    from kconvert.converters.qkeras.quantizers.quantizer import Quantizer


def rounded(width: int, integer: int, signed: bool = True, symmetric: object = False) -> FixedType:
    """Return a type that rounds and saturates as QKeras does: half to even, to the ends of the range."""
    overflow = Overflow.SAT_SYM if symmetric and signed else Overflow.SAT
    return FixedType(width, integer, signed, Rounding.RND_CONV, overflow)


def smallest_type(values: npt.ArrayLike) -> FixedType | None:
    """Return the smallest type that holds all these values, or None if it has more than 64 bits."""
    kept = exact_type(values, MAX_PARSED_WIDTH)
    return None if kept.overflow is Overflow.SAT else kept  # which is how it shows that it is not exact


def levels_type(q: Quantizer) -> FixedType:
    """Return the type of a step function; QKeras decides by thresholds, so nothing rounds or saturates."""
    response = q.response
    kept = smallest_type(response.levels) if isinstance(response, Steps) else None
    if kept is None:
        q.refuse(f"its values need more than {MAX_PARSED_WIDTH} bits; give it fewer bits or a max_value")
    return kept


# -------------------------------------------------------------------- linear


def is_sign(q: Quantizer) -> bool:
    """Return whether a linear quantizer with its one bit can only tell the sign."""
    return q["bits"] == 1 and bool(q.options.get("keep_negative", True))


def linear_type(q: Quantizer) -> FixedType:
    """Type of quantized_bits, quantized_linear and quantized_hswish."""
    signed = bool(q.options.get("keep_negative", True))
    if isinstance(q["alpha"], str) and q.name != "quantized_linear":
        # The automatic scale of quantized_bits keeps signs and is symmetric, whatever keep_negative says.
        return rounded(q["bits"], q["integer"] + signed, symmetric=True)
    if is_sign(q):
        response = linear_response(q)
        return exact_type(response.levels if isinstance(response, Steps) else 0.0)
    return rounded(q["bits"], q["integer"] + signed, signed, q["symmetric"])


def linear_response(q: Quantizer) -> Activation:
    """Nothing but the store, or the sign."""
    if not is_sign(q):
        return Convert()
    if q.name != "quantized_linear":
        return _sign(-1.0, 1.0)
    # quantized_linear rounds x/scale - 1/2, and that difference reaches -1/2 a little below zero.
    half = 2.0 ** (q["integer"] - 1)
    return Steps(thresholds=(-(2.0**-24) * half,), levels=(-half, half), inclusive=(True,))


def hswish_response(q: Quantizer) -> Activation:
    """``x relu(x + shift) / bound``, the ReLU limited to the bound."""
    shift, bound = q["relu_shift"], q["relu_upper_bound"]
    if not shift > 0 or not bound > 0:
        q.refuse("relu_shift and relu_upper_bound must be above zero")
    function = functools.partial(hard_swish, shift=np.float32(shift), bound=np.float32(bound))
    turn = float(np.float32(min(-shift / 2, bound - shift)))  # falling before, rising behind
    then = linear_response(q)
    if isinstance(then, Steps):
        return Table("hard_swish", lambda x: then(function(x)), (turn,))
    return Table("hard_swish", function, (turn,))


def hard_swish(x: npt.ArrayLike, shift: np.float32, bound: np.float32) -> Float32:
    """Compute it in float32, in QKeras' order."""
    number: Float32 = np.asarray(x, dtype=np.float32)
    rectified: Float32 = number * np.clip(number + shift, np.float32(0), bound) / bound
    return rectified


# -------------------------------------------------------------------- signs


def _sign(low: float, high: float) -> Steps:
    return Steps(thresholds=(0.0,), levels=(low, high), inclusive=(True,))


def binary_response(q: Quantizer) -> Activation:
    """The sign, that of zero positive."""
    return _sign(0.0 if q.options.get("use_01") else -1.0, 1.0)


def ternary_response(q: Quantizer) -> Activation:
    """The sign beyond a threshold."""
    threshold = 0.33 if q["threshold"] is None else q["threshold"]
    if not isinstance(threshold, (int, float)):
        q.refuse(f"threshold={threshold!r} must be a number where alpha is not automatic")
    t = max(float(np.float32(threshold)), 0.0)
    return Steps(thresholds=(-t, t), levels=(-1.0, 0.0, 1.0), inclusive=(False, True))


# -------------------------------------------------------------------- ReLU


def relu_type(q: Quantizer) -> FixedType:
    """Type of quantized_relu, with room for values that QKeras leaves off its grid."""
    slope, end = float(q["negative_slope"]), 2.0 ** q["integer"]
    if slope == 0:
        grid = rounded(q["bits"], q["integer"], signed=False)
    else:
        more = max(0, int(np.log2(slope)))  # a slope above 1 reaches further down than up
        grid = rounded(q["bits"] + more, q["integer"] + 1 + more)
    extremes = [exact_type(v, MAX_PARSED_WIDTH) for v in (-slope * end, _upper_bound(q)) if v]
    wide = union(grid, *extremes)
    return rounded(wide.width, wide.integer, wide.signed)


def relu_response(q: Quantizer) -> Activation:
    """A ReLU, or the table of what QKeras makes of one where its values lie on no single grid."""
    slope, bits = float(q["negative_slope"]), q["bits"]
    if slope < 0 or (slope and np.log2(slope) % 1):
        q.refuse(f"negative_slope={slope} must be zero or a power of two")
    step = 2.0 ** (q["integer"] - bits + (slope != 0))
    end = 2.0 ** q["integer"]
    bound = _upper_bound(q)
    if q["use_sigmoid"] or 0 < slope * end < step or (bound is not None and bound % step):
        name = "sigmoid ReLU" if q["use_sigmoid"] else "ReLU"
        options = {"slope": slope, "steps": end / step, "end": end, "bound": bound, "hard": bool(q["use_sigmoid"])}
        return Table(name, functools.partial(_quantised_relu, **options))
    return Rectify(slope, bound if bound is not None else end - step if slope > 1 else None, -slope * end or None)


def _upper_bound(q: Quantizer) -> float | None:
    """The bound that is taken of the quantised value, where it is one."""
    slope, bound = q["negative_slope"], q["relu_upper_bound"]
    highest = 2.0 ** q["integer"] - 2.0 ** (q["integer"] - q["bits"] + (slope != 0))
    if not bound or q["is_quantized_clip"] or bound >= highest:
        return None
    if bound < 0:
        q.refuse(f"relu_upper_bound={bound} must not be negative")
    return float(np.float32(bound))


def _quantised_relu(
    x: npt.ArrayLike, slope: float, steps: float, end: float, bound: float | None, hard: bool
) -> Float32:
    """Compute the whole quantizer in float32, in QKeras' order.

    Args:
        x: Numbers.
        slope: Zero or a power of two.
        steps: Quantisation steps from 0 to `end`.
        end: 2 to the power of the integer bits.
        bound: Limit of the result, or None.
        hard: Whether a hard sigmoid takes the place of `x`.
    """
    m, m_i, below = np.float32(steps), np.float32(end), np.float32(slope)
    number = np.asarray(x, dtype=np.float32)
    half = np.float32(0.5)
    p = np.clip(half * (number / m_i) + half, 0, 1) * m if hard else number * m / m_i

    def straight(part: Float32) -> Float32:
        return 2 * part - 1 if hard else part

    y: Float32 = m_i * np.clip(straight(np.rint(p) / m), 0, 1 - 1 / m)
    if slope:
        y = y + m_i * below * np.clip(straight(np.rint(p * below) * (1 / (below * m))), -1, 0)
    return y if bound is None else np.minimum(y, np.float32(bound))


# -------------------------------------------------------------------- tanh and sigmoid


def tanh_response(q: Quantizer) -> Activation:
    """The real function, or the hard one, which is the type's own saturation."""
    return Table("tanh", _tanh) if q["use_real_tanh"] else Convert()


def sigmoid_response(q: Quantizer) -> Activation:
    """The real function or the hard one."""
    lowest = 2.0 ** -q["bits"] if q["symmetric"] else None
    if q["use_real_sigmoid"]:
        return Table("sigmoid", functools.partial(_sigmoid, lowest=lowest or 0.0))
    return Affine(scale=0.5, bias=0.5, lower_bound=lowest)


def _tanh(x: npt.ArrayLike) -> Float32:
    return np.tanh(np.asarray(x, dtype=np.float64)).astype(np.float32)


def _sigmoid(x: npt.ArrayLike, lowest: float) -> Float32:
    halved = np.tanh(np.asarray(x, dtype=np.float64) / 2)  # exp would overflow
    return np.maximum(0.5 + 0.5 * halved, lowest).astype(np.float32)


def no_response(why: str) -> Callable[[Quantizer], NoReturn]:
    """Return the response of a quantizer that does not convert."""

    def refuse(q: Quantizer) -> NoReturn:
        q.refuse(why)

    return refuse
