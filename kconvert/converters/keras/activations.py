"""Activation functions, as layers and inside layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kconvert.converters.registry import activation_name, make_activation, only, reads, reads_activation
from kconvert.converters.spec import LayerSpec
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import Identity, Node, Relu, Softmax, TableActivation, Value


@reads("Activation")
def activation_layer(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A function by name."""
    name, options = activation_name(layer, layer.config.get("activation"))
    return _checked(layer, inputs, make_activation(layer, layer.name, name, options))


@reads("ReLU", "LeakyReLU", "Softmax")
def advanced_activation(layer: LayerSpec, inputs: list[Value]) -> Node:
    """An activation that is a layer of its own, with options."""
    return _checked(layer, inputs, make_activation(layer, layer.name, layer.class_name, layer.config))


def _checked(layer: LayerSpec, inputs: list[Value], node: Node) -> Node:
    if isinstance(node, Softmax):
        rank = len(inputs[0].shape) + 1
        axis = layer.config.get("axis", -1)
        only(layer, "axis", axis if axis in (-1, rank - 1) else -1)
    return node


@reads_activation("linear")
def linear(name: str, options: Mapping[str, Any]) -> Node:
    """Nothing."""
    return Identity(name=name)


@reads_activation("relu", "ReLU")
def relu(name: str, options: Mapping[str, Any]) -> Node:
    """Keras' ReLU with its limit and slope."""
    if float(options.get("threshold") or 0) != 0:
        raise UnsupportedLayerError(f"layer {name!r}: threshold={options['threshold']!r} is not supported, only 0")
    limit = options.get("max_value")
    slope = float(options.get("negative_slope") or 0)
    return Relu(name=name, negative_slope=slope, max_value=None if limit is None else float(limit))


@reads_activation("LeakyReLU", "leaky_relu")
def leaky_relu(name: str, options: Mapping[str, Any]) -> Node:
    """Keras 3 calls the slope negative_slope (0.2 in the function), Keras 2 alpha (0.3)."""
    slope = options.get("negative_slope", options.get("alpha", 0.3 if "name" in options else 0.2))
    return Relu(name=name, negative_slope=float(slope))


@reads_activation("softmax", "Softmax")
def softmax(name: str, options: Mapping[str, Any]) -> Node:
    """Softmax over the last axis."""
    return Softmax(name=name)


def _table(function: str) -> None:
    @reads_activation(function)
    def read(name: str, options: Mapping[str, Any]) -> Node:
        return TableActivation(name=name, function=function)


for _function in TableActivation.functions:
    _table(_function)
