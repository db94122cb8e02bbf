"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kconvert.converters.registry import Block, activation_name, fits, make_activation, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import GRU, LSTM, Node, Recurrent, SimpleRNN, Slice, Softmax, Value
from kconvert.layers.contraction import along_first

_KINDS: Mapping[str, type[Recurrent]] = {"SimpleRNN": SimpleRNN, "LSTM": LSTM, "GRU": GRU}


@reads("SimpleRNN", "LSTM", "GRU")
def recurrent(layer: LayerSpec, inputs: list[Value], **more: Any) -> Block:
    """Keras' gates are in our order: i, f, c, o and z, r, h. An old GRU without `reset_after` resets before.

    Args:
        layer: The layer, or one that extends it under the same name with a Q in front.
        inputs: The sequence, and the state to begin with, if it is not zero.
        more: Other fields of the node.
    """
    node = _node(layer, inputs, **more)
    node.layer = layer.name
    block, returned, sequences = Block(), bool(layer.config.get("return_state", False)), node.return_sequences
    if isinstance(node, LSTM):
        node.return_cell = returned
    output = block.add(node, *inputs)
    if not returned:
        block.outputs = (output,)
    elif isinstance(node, LSTM):  # its rows are h, once or for every step, and c
        state = block.add(Slice(name=f"{layer.name}_state", key=along_first(output.shape, -2)), output)
        cell = block.add(Slice(name=f"{layer.name}_cell", key=along_first(output.shape, -1)), output)
        all_but_cell = along_first(output.shape, slice(None, -1))
        whole = block.add(Slice(name=f"{layer.name}_sequence", key=all_but_cell), output) if sequences else state
        block.outputs = (whole, state, cell)
    else:
        last = Slice(name=f"{layer.name}_state", key=along_first(output.shape, -1))
        block.outputs = (output, block.add(last, output) if sequences else output)
    return block


@reads("RNN")
def rnn(layer: LayerSpec, inputs: list[Value]) -> Block:
    """A cell of one of the above."""
    cell = layer.config.get("cell")
    class_name = str(cell.get("class_name")).rpartition(">")[2] if isinstance(cell, Mapping) else str(cell)
    if not isinstance(cell, Mapping) or class_name not in (f"{name}Cell" for name in _KINDS):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (RNN): cell {class_name!r} is not supported (supported: "
            f"{', '.join(f'{name}Cell' for name in _KINDS)})"
        )
    config = {**cell["config"], **{key: value for key, value in layer.config.items() if key != "cell"}}
    return recurrent(replace(layer, class_name=class_name.removesuffix("Cell"), config=config), inputs)


def _node(layer: LayerSpec, inputs: list[Value], **more: Any) -> Recurrent:
    kind = _KINDS[layer.class_name.removeprefix("Q")]
    if kind is not GRU:
        return kind(**_fields(layer, inputs, kind), **more)
    reset_after = bool(layer.config.get("reset_after", False))
    return GRU(**_fields(layer, inputs, GRU, two_biases=reset_after), reset_after=reset_after, **more)


def _fields(
    layer: LayerSpec, inputs: list[Value], kind: type[Recurrent], *, two_biases: bool = False
) -> dict[str, Any]:
    """Return the fields that the nodes of all recurrent layers share."""
    for option in ("stateful", "time_major"):
        only(layer, option, False)
    states = 2 if kind is LSTM else 1
    if len(inputs) not in (1, 1 + states):
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}): reads {len(inputs)} tensors; expected a sequence, and "
            f"{states} of an initial state or none"
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
