"""Layers around a layer: Bidirectional and TimeDistributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kconvert.converters.registry import Block, read_layer, reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import (
    Add,
    Average,
    Concatenate,
    Multiply,
    Node,
    Recurrent,
    Reshape,
    Slice,
    Value,
    View,
    Weighted,
)
from kconvert.layers.contraction import REVERSED, along_first

_MERGES: Mapping[str, type[Node]] = {"sum": Add, "mul": Multiply, "ave": Average}
# Their weights belong to the last axis, whatever is before it.
_WEIGHTS_OF_LAST_AXIS = frozenset({"Dense", "QDense", "BatchNormalization", "QBatchNormalization"})


def _inner(layer: LayerSpec, raw: object, name: str) -> LayerSpec:
    """Return the layer in the config of another, called `name`, with all weights of the outer."""
    if not (isinstance(raw, Mapping) and isinstance(raw.get("config"), Mapping)):
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): its config holds no layer")
    if isinstance(raw["config"].get("layers"), list):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): a model inside is not supported, only a layer; wrap each of "
            f"its layers"
        )
    class_name, registered = str(raw.get("class_name")), raw.get("registered_name")
    return replace(
        layer,
        class_name=class_name.rpartition(">")[2],
        name=name,
        config=raw["config"],
        weight_names=tuple("" for _ in layer.weights),
        registered_name=registered or (class_name if ">" in class_name else None),
        module=raw.get("module"),
    )


# ***** Bidirectional *****


@reads("Bidirectional")
def bidirectional(layer: LayerSpec, inputs: list[Value]) -> Block:
    """Two recurrent layers, ``<layer>_forward`` and ``<layer>_backward``, and what joins their outputs."""
    if len(inputs) != 1:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (Bidirectional): an initial state is not supported, only a call on one tensor"
        )
    block, (ahead, back) = Block(), _both_ways(layer)
    forward, *states = block.include(_recurrent(layer, ahead, inputs))
    backward, *more = block.include(_recurrent(layer, back, inputs))
    if ahead.config.get("return_sequences"):
        reverse = Slice(name=f"{layer.name}_reversed", key=along_first(backward.shape, REVERSED))
        backward = block.add(reverse, backward)
    joined = _joined(layer, block, forward, backward)
    block.outputs = (*joined, *states, *more)
    return block


def _both_ways(layer: LayerSpec) -> tuple[LayerSpec, LayerSpec]:
    ahead = _inner(layer, layer.config.get("layer"), f"{layer.name}_forward")
    flipped = {**ahead.config, "go_backwards": not ahead.config.get("go_backwards", False)}
    given = layer.config.get("backward_layer")
    back = replace(ahead, name=f"{layer.name}_backward", config=flipped)
    back = back if given is None else _inner(layer, given, back.name)
    half, odd = divmod(len(layer.weights), 2)
    if odd:
        raise ModelError(
            f"layer {layer.name!r} (Bidirectional): its {2 * half + 1} weights are not those of two layers"
        )
    names = ("",) * half
    return (
        replace(ahead, weights=layer.weights[:half], weight_names=names),
        replace(back, weights=layer.weights[half:], weight_names=names),
    )


def _recurrent(layer: LayerSpec, inner: LayerSpec, inputs: list[Value]) -> Block:
    block = read_layer(inner, inputs)
    if not isinstance(block.nodes[0], Recurrent):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (Bidirectional): a {inner.class_name} inside is not supported, only SimpleRNN, LSTM "
            f"and GRU"
        )
    return block


def _joined(layer: LayerSpec, block: Block, forward: Value, backward: Value) -> tuple[Value, ...]:
    mode = layer.config.get("merge_mode", "concat")
    if mode is None:
        return forward, backward
    if mode != "concat" and mode not in _MERGES:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (Bidirectional): merge_mode={mode!r} is not supported, only 'concat', "
            f"{', '.join(map(repr, _MERGES))} or None"
        )
    last = len(forward.shape) - 1
    node = Concatenate(name=layer.name, axis=last) if mode == "concat" else _MERGES[mode](name=layer.name)
    return (block.add(node, forward, backward),)


# ***** TimeDistributed *****


@reads("TimeDistributed")
def time_distributed(layer: LayerSpec, inputs: list[Value]) -> Block:
    """The layer inside, over all steps at once where it works on the last axis alone; else step by step."""
    inner = _inner(layer, layer.config.get("layer"), layer.name)
    (sequence,) = inputs
    if len(sequence.shape) < 2:
        raise ModelError(f"layer {layer.name!r} (TimeDistributed) needs an input [steps, ...], not {sequence.shape}")
    of_step = read_layer(inner, [Value(sequence.producer, sequence.shape[1:])])
    if len(of_step.outputs) != 1:
        raise UnsupportedLayerError(f"layer {layer.name!r} (TimeDistributed): a layer of several outputs inside")
    if all(isinstance(node, View) for node in of_step.nodes):
        shape = (sequence.shape[0], *of_step.outputs[0].shape)
        return _one(Reshape(name=layer.name, shape=shape), sequence)
    if _position_by_position(inner, of_step):
        return read_layer(replace(inner, config=_axes_shifted(inner.config)), inputs)
    return _step_by_step(inner, sequence)


def _one(node: Node, *inputs: Value) -> Block:
    block = Block()
    block.outputs = (block.add(node, *inputs),)
    return block


def _position_by_position(inner: LayerSpec, block: Block) -> bool:
    alike = all(node.at_position() is not None and not isinstance(node, Reshape) for node in block.nodes)
    return alike and (not inner.weights or inner.class_name in _WEIGHTS_OF_LAST_AXIS)


def _axes_shifted(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a config for tensors with one more axis behind the batch: axes counted from the front move."""
    axis = config.get("axis")
    if isinstance(axis, list):
        return {**config, "axis": [n + (n > 0) for n in axis]}
    return {**config, "axis": axis + (axis > 0)} if isinstance(axis, int) else config


def _step_by_step(inner: LayerSpec, sequence: Value) -> Block:
    """Every step has nodes of its own, ``<layer>_step<number>``, with the weights and settings of the layer."""
    block, results = Block(), []
    for t in range(sequence.shape[0]):
        taken = Slice(name=f"{inner.name}_take{t}", key=along_first(sequence.shape, t))
        step = read_layer(inner, [block.add(taken, sequence)])
        for node in step.nodes:
            node.name += f"_step{t}"
            if isinstance(node, Weighted) and node.activation is not None:
                node.activation.name += f"_step{t}"
        (result,) = block.include(step)
        row = Reshape(name=f"{inner.name}_row{t}", shape=(1, *result.shape))
        results.append(block.add(row, result))
    block.outputs = (block.add(Concatenate(name=f"{inner.name}_joined", axis=0), *results),)
    return block
