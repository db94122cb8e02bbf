"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kconvert.converters.registry import activation_name, fits, make_activation, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import GRU, LSTM, Node, Recurrent, SimpleRNN, Softmax, Value

_KINDS: Mapping[str, type[Recurrent]] = {"SimpleRNN": SimpleRNN, "LSTM": LSTM, "GRU": GRU}


@reads("SimpleRNN", "LSTM", "GRU")
def recurrent(layer: LayerSpec, inputs: list[Value], **more: Any) -> Recurrent:
    """Keras' gates are in our order: i, f, c, o and z, r, h. An old GRU without `reset_after` resets before.

    Args:
        layer: The layer, or one that extends it under the same name with a Q in front.
        inputs: The sequence.
        more: Other fields of the node.
    """
    kind = _KINDS[layer.class_name.removeprefix("Q")]
    if kind is not GRU:
        return kind(**_fields(layer, inputs, kind), **more)
    reset_after = bool(layer.config.get("reset_after", False))
    return GRU(**_fields(layer, inputs, GRU, two_biases=reset_after), reset_after=reset_after, **more)


def _fields(
    layer: LayerSpec, inputs: list[Value], kind: type[Recurrent], *, two_biases: bool = False
) -> dict[str, Any]:
    """Return the fields that the nodes of all recurrent layers share."""
    for option in ("return_state", "stateful", "time_major"):
        only(layer, option, False)
    if len(inputs) != 1:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): an initial state is not supported, only a call on one tensor"
        )
    if len(inputs[0].shape) != 2:
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}) needs an input [steps, features], not {inputs[0].shape}"
        )
    kernel, recurrent_kernel, *rest = weights(layer, 3 if layer.config.get("use_bias", True) else 2)
    units = recurrent_kernel.shape[0] if recurrent_kernel.ndim else 0
    outputs = kind.gates * units
    fits(layer, "kernel", kernel, inputs[0].shape[-1], outputs)
    fits(layer, "recurrent kernel", recurrent_kernel, units, outputs)
    biases = rest[0] if rest else np.zeros((2, outputs) if two_biases else outputs)
    fits(layer, "bias", biases, *((2, outputs) if two_biases else (outputs,)))
    bias, recurrent_bias = biases if two_biases else (biases, np.zeros(outputs))
    return {
        "name": layer.name,
        "weight": kernel,
        "recurrent_weight": recurrent_kernel,
        "bias": bias,
        "recurrent_bias": recurrent_bias,
        "activation": function(layer, "activation"),
        "recurrent_activation": None if kind is SimpleRNN else function(layer, "recurrent_activation"),
        "return_sequences": bool(layer.config.get("return_sequences", False)),
        "go_backwards": bool(layer.config.get("go_backwards", False)),
    }


def function(layer: LayerSpec, key: str) -> Node:
    """Return an activation in the layer's config as a node that the layer keeps inside; linear is one too."""
    if key not in layer.config:  # None means linear to Keras; a missing key means nothing
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): its config has no {key!r}")
    name, options = activation_name(layer, layer.config[key])
    node = make_activation(layer, f"{layer.name}_{key}", name, options)
    if isinstance(node, Softmax):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): {key}={name!r} is not supported, only functions of one value"
        )
    return node
