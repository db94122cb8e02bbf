"""Recurrent layers of QKeras: quantised matrices, and a state that is quantised when the next step reads it.

What QKeras hands on is exact: the output of a step, and the c that an LSTM's activation is applied to, are the new
values themselves; `state_quantizer` is applied to h and c where the next step begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kconvert.converters.keras.recurrent import function, recurrent
from kconvert.converters.qkeras.quantizers import read_quantizer
from kconvert.converters.registry import Block, activation_name, reads, reads_activation, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import Node, Value
from kconvert.layers.hard_activation import HardActivation
from kconvert.types import FixedType, common_power_of_two, exact_type

PREFIX = "qkeras>"
"""Before the names of QKeras' functions that Keras has under the same name, but with other slopes."""

HARD_FUNCTIONS: Mapping[str, tuple[float, float, float, float]] = {
    "hard_sigmoid": (0.5, 0.5, 0.0, 1.0),
    "smooth_sigmoid": (0.1875, 0.5, 0.0, 1.0),
    "hard_tanh": (1.0, 0.0, -1.0, 1.0),
    "smooth_tanh": (0.375, 0.0, -1.0, 1.0),
}
"""Slope, offset, lowest and highest value of the functions that QKeras knows beside its quantizers."""


@reads("QSimpleRNN", "QLSTM", "QGRU")
def q_recurrent(layer: LayerSpec, inputs: list[Value]) -> Block:
    """Keras' layer over quantised weights, with exact steps."""
    if len(inputs) > 1:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): an initial state is not supported, only a call on one tensor"
        )
    if layer.class_name == "QGRU" and layer.config.get("recurrent_quantizer") is None and _is_of_keras_2(layer):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (QGRU): without a recurrent_quantizer QKeras for Keras 2 applies its kernel to the "
            f"state, and not its recurrent kernel; give it a recurrent_quantizer"
        )
    arrays, preset = _quantised(layer)
    config = dict(layer.config)
    for key in ("activation", "recurrent_activation"):
        name, _ = activation_name(layer, config.get(key))
        if name in HARD_FUNCTIONS:
            config[key] = PREFIX + name
    plain = replace(layer, config=config, weights=tuple(arrays), weight_names=())
    return recurrent(plain, inputs, preset=preset, exact_steps=True, **_state_quantizers(plain))


def _is_of_keras_2(layer: LayerSpec) -> bool:
    """QKeras registers its layers with Keras 3 only."""
    return not (layer.registered_name or "").startswith(PREFIX)


def _state_quantizers(layer: LayerSpec) -> dict[str, Node]:
    if layer.config.get("state_quantizer") is None:
        return {}
    parts = ("state", "cell") if layer.class_name == "QLSTM" else ("state",)
    return {f"{part}_quantizer": function(layer, "state_quantizer") for part in parts}


def _quantised(layer: LayerSpec) -> tuple[list[np.ndarray], dict[str, FixedType]]:
    """Return the arrays as QKeras' inference sees them, and the types that hold them."""
    arrays, preset = [], {}
    for array, (key, role) in zip(
        weights(layer, 3 if layer.config.get("use_bias", True) else 2),
        (("kernel", "weight"), ("recurrent", "recurrent_weight"), ("bias", "bias")),
        strict=False,
    ):
        quantizer = read_quantizer(layer.name, layer.config.get(f"{key}_quantizer"))
        if quantizer is None:
            arrays.append(array)
            continue
        found = (quantizer if key == "bias" else quantizer.for_weights()).quantize(array)
        values, kind = _scaled(found.codes, found.scale, found.type)
        arrays.append(values)
        preset[role] = exact_type(values) if key == "bias" else kind
    if len(arrays) == 2:
        preset["bias"] = FixedType(1, 1, signed=False)  # zeros, for good
    return arrays, preset


def _scaled(codes: np.ndarray, scale: np.ndarray | None, kind: FixedType) -> tuple[np.ndarray, FixedType]:
    """Return the values of quantised weights, and a type for them.

    One power of two for all only moves the binary point. Other scales go into the weights, whose type holds every
    one of them exactly unless that takes more than 32 bits: a sum over input and state, which have scales of their own,
    would otherwise have to be scaled gate by gate in every step.
    """
    if scale is None:
        return codes, kind
    values = (codes * scale).astype(np.float32).astype(np.float64)
    exponent = common_power_of_two(scale)
    return values, exact_type(values) if exponent is None else kind.with_(integer=kind.integer + exponent)


def _register(name: str) -> None:
    @reads_activation(PREFIX + name)
    def read(node_name: str, options: Mapping[str, Any]) -> Node:
        slope, offset, low, high = HARD_FUNCTIONS[name]
        return HardActivation(name=node_name, slope=slope, offset=offset, min_value=low, max_value=high)


for _name in HARD_FUNCTIONS:
    _register(_name)
