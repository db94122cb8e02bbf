"""Automatic scales: what ``alpha="auto"`` and ``alpha="auto_po2"`` make of an array of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from kconvert.converters.qkeras.quantizers.functions import is_sign
from kconvert.converters.qkeras.quantizers.responses import EPSILON, LOG2, Float32, clip

if TYPE_CHECKING:
    from kconvert.converters.qkeras.quantizers.quantizer import Quantizer

_PO2_ITERATIONS = 5


def _axes(q: Quantizer, x: Float32) -> tuple[int, ...]:
    """The axes that share a scale: all but `scale_axis`, which is the last one unless it is given."""
    kept = q.options.get("scale_axis")
    if kept is None:
        return tuple(range(x.ndim - 1))
    keep = kept if isinstance(kept, tuple) else (kept,)
    if not all(isinstance(k, int) and 0 <= k < x.ndim for k in keep):
        q.refuse(f"scale_axis={kept!r} must be 0 to {x.ndim - 1} for weights of shape {x.shape}")
    return tuple(a for a in range(x.ndim) if a not in keep)


def _mean(x: Float32, axes: tuple[int, ...]) -> Float32:
    if axes == tuple(range(x.ndim - 1)):
        # Row by row, the order in which TensorFlow adds small arrays.
        rows = x.reshape(-1, x.shape[-1])
        mean: Float32 = rows.mean(axis=0, dtype=np.float32).reshape((1,) * len(axes) + (-1,))
    else:
        mean = x.mean(axis=axes, keepdims=True, dtype=np.float32)
    return mean


def _power_of_two(scale: Float32) -> Float32:
    """The power of two next to a scale, on the logarithmic axis."""
    power: Float32 = np.exp2(np.rint(np.log(scale + EPSILON) / LOG2)).astype(np.float32)
    return power


def _least_squares(q: Quantizer, x: Float32, codes: Float32, axes: tuple[int, ...]) -> Float32:
    """The scale with the least squared error; of a vector every element gets its own."""
    if x.ndim > 1:
        scale = _mean(x * codes, axes) / (_mean(codes * codes, axes) + EPSILON)
    else:
        scale = x * codes / (codes * codes + EPSILON)
    if q["alpha"] != "auto_po2":
        return scale
    scale = _power_of_two(scale)
    low, high = q.options.get("min_po2_exponent"), q.options.get("max_po2_exponent")
    clipped: Float32 = clip(scale, None if low is None else 2.0**low, None if high is None else 2.0**high)
    return clipped


def auto_bits(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of quantized_bits: the largest magnitude gets the largest code."""
    x = q.response(x) if q.name == "quantized_hswish" else x
    axes = _axes(q, x) if x.ndim > 1 else (0,)
    m_i = np.float32(2.0 ** q["integer"])
    m = np.float32(2.0 ** (q["bits"] - bool(q.options.get("keep_negative", True))))
    highest = np.float32(2 ** (q["bits"] - 1) - 1)
    x = x / m_i

    def codes(scale: Float32) -> Float32:
        magnitude = np.floor(np.abs(x) / scale + np.float32(0.5))
        signed: Float32 = np.sign(x) * np.where(magnitude < highest, magnitude, highest)
        return signed

    if q["post_training_scale"] is not None:
        scale = np.asarray(q["post_training_scale"], dtype=np.float32) / m
    else:
        scale = np.max(np.abs(x), axis=axes, keepdims=True) * 2 / (highest * 2)
        if q["alpha"] == "auto_po2":
            scale = _power_of_two(scale)
            for _ in range(_PO2_ITERATIONS):
                least_axes = axes if x.ndim > 1 else ()
                scale = _least_squares(q, x, codes(scale), least_axes)
    return m_i * codes(scale) / m, scale * m


def auto_linear(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of quantized_linear, which never clips the largest magnitude but of a power of two."""
    signed, sign = bool(q["keep_negative"]), is_sign(q)
    high = np.float32(0.5 if sign else 2.0 ** (q["bits"] - signed) - 1)
    low = np.float32(-0.5 if sign else -signed * (high + 1 - bool(q["symmetric"])))
    shift = np.float32(0.5 if sign else 0.0)
    unit = np.float32(2.0 ** (q["integer"] - q["bits"] + signed))
    axes = _axes(q, x)

    def codes(scale: Float32) -> Float32:
        rounded: Float32 = np.rint(np.clip(x / scale, low, high) - shift) + shift
        return rounded

    largest = np.max(np.abs(x), axis=axes, keepdims=True) * 2 if signed else np.max(x, axis=axes, keepdims=True)
    scale = np.maximum(largest / (high - low), EPSILON)
    if q["alpha"] == "auto_po2":
        scale = _power_of_two(scale)
        for _ in range(1 if sign else _PO2_ITERATIONS):
            scale = _least_squares(q, x, codes(scale), axes)
    return codes(scale) * unit, scale / unit


def auto_binary(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of binary: the mean magnitude."""
    codes = q.response(x)
    return codes, _least_squares(q, x, codes, _axes(q, x))


def auto_ternary(q: Quantizer, x: Float32) -> tuple[Float32, Float32]:
    """Codes and scale of ternary: threshold and scale are found in turns."""
    axes = tuple(range(x.ndim - 1))
    scale = 2 * np.max(np.abs(x), axis=axes if x.ndim > 1 else None, keepdims=True) / np.float32(3)
    scale = _power_of_two(scale) if q["alpha"] == "auto_po2" else scale
    codes = np.zeros_like(x)
    if q["number_of_unrolls"] < 1:
        q.refuse("number_of_unrolls must be 1 or more")
    for _ in range(q["number_of_unrolls"]):
        scaled = x / scale
        # Written as QKeras' straight-through rounding, which turns the infinity of a zero scale into NaN.
        rounded = scale * (scaled + (np.rint(scaled) - scaled))
        codes = (np.abs(rounded) >= scale / 2) * np.sign(x)
        scale = _least_squares(q, x, codes, axes)
    return codes, scale


def no_auto(q: Quantizer, x: Float32) -> NoReturn:
    """Refuse."""
    q.refuse("it has no automatic alpha")
