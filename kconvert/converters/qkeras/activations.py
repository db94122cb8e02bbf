"""Quantizers as activations: what a QActivation, or the activation inside a QKeras layer, computes at inference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from kconvert.converters.qkeras.quantizers import (
    QUANTIZERS,
    Activation,
    Affine,
    Convert,
    Quantizer,
    Rectify,
    Steps,
    Table,
    read_quantizer,
)
from kconvert.converters.registry import reads_activation
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import ApplyAlpha, Node, Quantize, Relu, TableActivation, Thresholds
from kconvert.types import FixedType, exact_type


def _register(kind: str) -> None:
    @reads_activation(kind)
    def read(name: str, options: Mapping[str, Any]) -> Node:
        raw = options.get("call", {"class_name": kind, "config": options})
        quantizer = read_quantizer(name, raw)
        if quantizer is None:
            raise UnsupportedLayerError(f"layer {name!r}: cannot read its quantizer {raw!r}")
        activation = quantizer.activation
        node = _node(name, activation, quantizer.type)
        node.preset = {**node.preset, "result": _scaled(name, quantizer, activation.alpha, node)}
        return node


def _scaled(name: str, quantizer: Quantizer, alpha: float, node: Node) -> FixedType:
    """Return the type of the quantised value times alpha."""
    if isinstance(node, Thresholds):  # the levels hold it
        return quantizer.type if alpha == 1 else exact_type(node.levels)
    mantissa, exponent = math.frexp(alpha)
    if mantissa == 0.5 and exponent == 1:
        return quantizer.type
    raise UnsupportedLayerError(
        f"layer {name!r}: alpha={alpha} of {quantizer} as an activation is not supported, only 1"
    )


def _node(name: str, activation: Activation, kind: FixedType) -> Node:
    lower = getattr(activation, "lower_bound", None)
    lower = None if lower is None or lower <= kind.min else lower
    match activation:
        case Convert():
            return Quantize(name=name)
        case Rectify(negative_slope=slope, upper_bound=upper):
            preset = {"slope": exact_type(slope)} if slope else {}
            return Relu(name=name, negative_slope=slope, max_value=upper, min_value=lower, preset=preset)
        case Affine(scale=scale, bias=bias) if lower is None:
            return ApplyAlpha(name=name, scale=np.array([scale]), bias=np.array([bias]))
        case Table(name=function) if function in TableActivation.functions:
            return TableActivation(name=name, function=function)
        case Steps(thresholds=thresholds, levels=levels, inclusive=inclusive):
            values = np.asarray(levels, dtype=np.float64) * activation.alpha
            return Thresholds(name=name, thresholds=np.array(thresholds)[:, None], levels=values, inclusive=inclusive)
    raise UnsupportedLayerError(f"layer {name!r}: a quantizer that computes {activation} is not supported")


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
