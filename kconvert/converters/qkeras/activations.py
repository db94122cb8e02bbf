"""Quantizers as activations: what a QActivation, or the activation inside a QKeras layer, computes at inference."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from kconvert.converters.qkeras.quantizers import (
    QUANTIZERS,
    Affine,
    Convert,
    Quantizer,
    Rectify,
    Steps,
    read_quantizer,
)
from kconvert.converters.registry import reads_activation
from kconvert.errors import PrecisionWarning, UnsupportedLayerError
from kconvert.layers import (
    ApplyAlpha,
    Node,
    Quantize,
    Relu,
    ScaledQuantize,
    StepFunction,
    TableActivation,
    Thresholds,
)
from kconvert.layers.activations import LARGEST_EXACT_TABLE
from kconvert.layers.hard_activation import HardActivation
from kconvert.types import FixedType, common_power_of_two, exact_type

MOST_THRESHOLDS = 32
"""Most steps that are compared one by one; a function of more is read from a table."""


def _register(kind: str) -> None:
    @reads_activation(kind)
    def read(name: str, options: Mapping[str, Any]) -> Node:
        raw = options.get("call", {"class_name": kind, "config": options})
        quantizer = read_quantizer(name, raw)
        if quantizer is None:
            raise UnsupportedLayerError(f"layer {name!r}: cannot read its quantizer {raw!r}")
        node = _node(name, quantizer)
        node.preset = {"result": quantizer.type, **node.preset}
        return node


def _node(name: str, quantizer: Quantizer) -> Node:
    activation, kind = quantizer.activation, quantizer.type
    lower = getattr(activation, "lower_bound", None)
    lower = None if lower is None or lower <= kind.min else lower
    match activation:
        case Convert(alpha=1, divisor=1):
            return Quantize(name=name)
        case Convert(divisor=1):
            return _scaled(name, quantizer, np.atleast_1d(activation.alpha))
        case Convert():
            return _divided(name, quantizer, np.atleast_1d(activation.alpha))
        case Rectify(negative_slope=slope, upper_bound=upper):
            preset = {"slope": exact_type(slope)} if slope else {}
            return Relu(name=name, negative_slope=slope, max_value=upper, min_value=lower, preset=preset)
        case Affine(scale=scale, bias=bias) if lower is None:
            return ApplyAlpha(name=name, scale=np.array([scale]), bias=np.array([bias]))
        case Affine(scale=scale, bias=bias):
            return HardActivation(name=name, slope=scale, offset=bias, min_value=lower or kind.min, max_value=kind.max)
        case Steps(thresholds=thresholds, levels=levels, inclusive=inclusive):
            return _thresholds(name, quantizer, thresholds, np.asarray(levels, dtype=np.float64), inclusive)
    return _steps(name, quantizer) or _table(name, quantizer)


def _scaled(name: str, quantizer: Quantizer, alpha: np.ndarray, factor: np.ndarray | None = None) -> Node:
    """Return what rounds, and multiplies what was rounded by alpha; a power of two moves the binary point."""
    code, scale = quantizer.type, exact_type(alpha)
    exponent = common_power_of_two(alpha)
    shifted = code * scale if exponent is None else FixedType(code.width, code.integer + exponent, code.signed)
    preset = {"code": code, "scale": scale, "result": shifted}
    if factor is not None:
        preset["factor"] = exact_type(factor)
    return ScaledQuantize(name=name, scale=alpha, factor=factor, preset=preset)


def _divided(name: str, quantizer: Quantizer, alpha: np.ndarray) -> Node:
    """Return what rounds ``x / alpha`` and multiplies it by alpha again (quantized_linear)."""
    exponent = common_power_of_two(alpha)
    if exponent is not None:
        kind = quantizer.type
        return Quantize(name=name, preset={"result": kind.with_(integer=kind.integer + exponent)})
    steps = _steps(name, quantizer) if alpha.size == 1 else None
    if steps is not None:
        return steps
    if not np.all(np.frexp(alpha)[0] == 0.5):
        warnings.warn(
            f"layer {name!r}: {quantizer} divides by its alpha, and the hardware multiplies by 1 / alpha: where the "
            f"quotient lies half way between two codes, the answer can be one step off; a power of two is exact",
            PrecisionWarning,
            stacklevel=2,
        )
    return _scaled(name, quantizer, alpha, 1 / alpha)


def _thresholds(name: str, quantizer: Quantizer, thresholds: Any, levels: np.ndarray, inclusive: Any) -> Node:
    alpha = quantizer.activation.alpha
    values = levels[:, None] * np.asarray(alpha) if isinstance(alpha, tuple) else levels * alpha
    kind = quantizer.type if alpha == 1 else exact_type(values, 64)
    at = np.asarray(thresholds, dtype=np.float64)[:, None]
    return Thresholds(name=name, thresholds=at, levels=values, inclusive=inclusive, preset={"result": kind})


def _steps(name: str, quantizer: Quantizer) -> Node | None:
    """Return the steps of a function of few values; None if there are more."""
    changes = quantizer.changes()
    found = changes.thresholds(MOST_THRESHOLDS)
    if found is None or not len(found[0]):
        return None
    levels = quantizer.type.from_raw([changes.first, *found[1]])
    return _thresholds(name, quantizer, found[0], levels, True)


def _table(name: str, quantizer: Quantizer) -> Node:
    """Return a table of a function, each entry the value as QKeras computes it in float32 and quantises it."""
    activation, kind = quantizer.activation, quantizer.type
    if isinstance(activation.alpha, tuple):
        quantizer.refuse("a table cannot have one alpha for each channel; give one number")
    alpha = activation.alpha

    def values(x: np.ndarray) -> np.ndarray:
        return kind.quantize(activation(x.astype(np.float32))) * alpha

    entry = kind if alpha == 1 else kind * exact_type(alpha)
    return TableActivation(
        name=name,
        function=getattr(activation, "name", quantizer.name),
        table_size=LARGEST_EXACT_TABLE,
        steps=StepFunction(values, *quantizer.changes().ends()),
        preset={"table": entry, "result": entry},
    )


for _kind in QUANTIZERS:
    _register(_kind)


@reads_activation("binary_tanh")
def binary_tanh(name: str, options: Mapping[str, Any]) -> Node:
    """1 above 0, else -1: of the Keras 1 era."""
    return Thresholds(name=name, thresholds=np.array([[0.0]]), levels=np.array([-1.0, 1.0]), inclusive=(False,))


@reads_activation("ternary_tanh")
def ternary_tanh(name: str, options: Mapping[str, Any]) -> Node:
    """The nearest of -1, 0 and 1, half way to 0: of the Keras 1 era."""
    thresholds = np.array([[-0.5], [0.5]])
    return Thresholds(name=name, thresholds=thresholds, levels=np.array([-1.0, 0.0, 1.0]), inclusive=(True, False))


# What QKeras' own functions round: in float32, x / 2 + 1/2 is above 1/2 from here on.
_ABOVE_ZERO = np.array([[2.0**-24]])


@reads_activation("qkeras>binary_sigmoid")
def binary_sigmoid(name: str, options: Mapping[str, Any]) -> Node:
    """1 above 0, else 0."""
    return Thresholds(name=name, thresholds=_ABOVE_ZERO, levels=np.array([0.0, 1.0]), inclusive=(False,))


@reads_activation("qkeras>binary_tanh")
def q_binary_tanh(name: str, options: Mapping[str, Any]) -> Node:
    """1 above 0, else -1."""
    return Thresholds(name=name, thresholds=_ABOVE_ZERO, levels=np.array([-1.0, 1.0]), inclusive=(False,))
