"""Recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from kconvert.converters.registry import activation_name, fits, make_activation, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import GRU, LSTM, Node, SimpleRNN, Softmax, Value


@reads("SimpleRNN")
def simple_rnn(layer: LayerSpec, inputs: list[Value]) -> Node:
    """One matrix over the input, one over the state."""
    return SimpleRNN(**_fields(layer, inputs, SimpleRNN.gates, gated=False))


@reads("LSTM")
def lstm(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Keras' gates i, f, c, o are in our order."""
    return LSTM(**_fields(layer, inputs, LSTM.gates))


@reads("GRU")
def gru(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Keras' gates z, r, h are in our order; an old config without `reset_after` resets before."""
    reset_after = bool(layer.config.get("reset_after", False))
    fields = _fields(layer, inputs, GRU.gates, two_biases=reset_after)
    return GRU(**fields, reset_after=reset_after)


def _fields(
    layer: LayerSpec, inputs: list[Value], gates: int, *, gated: bool = True, two_biases: bool = False
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
    outputs = gates * units
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
        "activation": _function(layer, "activation"),
        "recurrent_activation": _function(layer, "recurrent_activation") if gated else None,
        "return_sequences": bool(layer.config.get("return_sequences", False)),
        "go_backwards": bool(layer.config.get("go_backwards", False)),
    }


def _function(layer: LayerSpec, key: str) -> Node:
    """Return an activation as a node that the layer keeps inside; linear is one too."""
    if key not in layer.config:  # None means linear to Keras; a missing key means nothing
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): its config has no {key!r}")
    name, options = activation_name(layer, layer.config[key])
    node = make_activation(layer, f"{layer.name}_{key}", name, options)
    if isinstance(node, Softmax):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): {key}={name!r} is not supported, only functions of one value"
        )
    return node
