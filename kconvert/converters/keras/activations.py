"""Activation functions, as layers and inside layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kconvert.converters.registry import activation_name, fits, make_activation, reads, reads_activation, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import (
    Exponential,
    HardActivation,
    Identity,
    Node,
    PRelu,
    Relu,
    Softmax,
    Softsign,
    TableActivation,
    ThresholdRelu,
    Value,
    curves,
)


@reads("Activation")
def activation_layer(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A function by name."""
    name, options = activation_name(layer, layer.config.get("activation"))
    return make_activation(layer, layer.name, name, options)


@reads("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU")
def advanced_activation(layer: LayerSpec, inputs: list[Value]) -> Node:
    """An activation that is a layer of its own, with options."""
    return make_activation(layer, layer.name, layer.class_name, layer.config)


@reads("Softmax")
def softmax_layer(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Softmax over one axis."""
    raw, rank = layer.config.get("axis", -1), len(inputs[0].shape)
    axes = [int(axis) for axis in (raw if isinstance(raw, (list, tuple)) else [raw])]
    axis = axes[0] - 1 if axes[0] >= 0 else axes[0] + rank
    if len(axes) != 1 or not 0 <= axis < rank:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (Softmax): axis={raw!r} is not supported for an input of shape {inputs[0].shape}, "
            f"only one axis, and not that of the batch"
        )
    return Softmax(name=layer.name, axis=-1 if axis == rank - 1 else axis)


@reads("PReLU")
def prelu(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A slope for every element, but along `shared_axes`."""
    shape = inputs[0].shape
    given = [int(axis) for axis in layer.config.get("shared_axes") or ()]
    shared = {axis - 1 if axis > 0 else axis + len(shape) for axis in given}
    (alpha,) = weights(layer, 1)
    fits(layer, "alpha", alpha, *(1 if axis in shared else n for axis, n in enumerate(shape)))
    own = next((axis for axis, n in enumerate(alpha.shape) if n > 1), len(shape))
    repeated = alpha.shape[own:] != shape[own:]  # not only along the axes before all others
    slope = np.broadcast_to(alpha, shape) if repeated else alpha
    return PRelu(name=layer.name, slope=slope.ravel())


@reads_activation("linear")
def linear(name: str, options: Mapping[str, Any]) -> Node:
    """Nothing."""
    return Identity(name=name)


@reads_activation("relu", "ReLU")
def relu(name: str, options: Mapping[str, Any]) -> Node:
    """Keras' ReLU with its limit, slope and threshold."""
    limit = options.get("max_value")
    limit = None if limit is None else float(limit)
    slope = float(options.get("negative_slope") or 0)
    threshold = float(options.get("threshold") or 0)
    if threshold:
        return ThresholdRelu(name=name, threshold=threshold, negative_slope=slope, max_value=limit)
    return Relu(name=name, negative_slope=slope, max_value=limit)


@reads_activation("ThresholdedReLU")
def thresholded_relu(name: str, options: Mapping[str, Any]) -> Node:
    """The input where it is above `theta`, else zero (Keras 2)."""
    return ThresholdRelu(name=name, threshold=float(options.get("theta", 1.0)))


@reads_activation("relu6", "ReLU6")
def relu6(name: str, options: Mapping[str, Any]) -> Node:
    """A ReLU that ends at 6."""
    return Relu(name=name, max_value=6.0)


@reads_activation("LeakyReLU", "leaky_relu")
def leaky_relu(name: str, options: Mapping[str, Any]) -> Node:
    """Keras 3 calls the slope negative_slope (0.2 in the function), Keras 2 alpha (0.3)."""
    slope = options.get("negative_slope", options.get("alpha", 0.3 if "name" in options else 0.2))
    return Relu(name=name, negative_slope=float(slope))


@reads_activation("softmax")
def softmax(name: str, options: Mapping[str, Any]) -> Node:
    """Softmax over the last axis."""
    return Softmax(name=name)


@reads_activation("hard_sigmoid")
def hard_sigmoid(name: str, options: Mapping[str, Any]) -> Node:
    """``relu6(x + 3) / 6``."""
    return HardActivation(name=name, slope=1 / 6, offset=0.5, min_value=0.0, max_value=1.0)


@reads_activation("keras 2>hard_sigmoid")
def hard_sigmoid_of_keras_2(name: str, options: Mapping[str, Any]) -> Node:
    """``clip(0.2 x + 0.5, 0, 1)``."""
    return HardActivation(name=name, slope=0.2, offset=0.5, min_value=0.0, max_value=1.0)


@reads_activation("hard_tanh")
def hard_tanh(name: str, options: Mapping[str, Any]) -> Node:
    """``clip(x, -1, 1)``."""
    return HardActivation(name=name, slope=1.0, offset=0.0, min_value=-1.0, max_value=1.0)


@reads_activation("sparse_sigmoid")
def sparse_sigmoid(name: str, options: Mapping[str, Any]) -> Node:
    """``clip((x + 1) / 2, 0, 1)``."""
    return HardActivation(name=name, slope=0.5, offset=0.5, min_value=0.0, max_value=1.0)


@reads_activation("exponential", "exp")
def exponential(name: str, options: Mapping[str, Any]) -> Node:
    """``exp(x)``."""
    return Exponential(name=name)


@reads_activation("softsign")
def softsign(name: str, options: Mapping[str, Any]) -> Node:
    """``x / (1 + abs(x))``."""
    return Softsign(name=name)


@reads_activation("elu", "ELU")
def elu(name: str, options: Mapping[str, Any]) -> Node:
    """``alpha (exp(x) - 1)`` below zero."""
    return TableActivation(name=name, function="elu", curve=curves.elu(float(options.get("alpha", 1.0))))


@reads_activation("gelu")
def gelu(name: str, options: Mapping[str, Any]) -> Node:
    """Keras' gelu, with the error function, or `approximate` with tanh."""
    return TableActivation(name=name, function="gelu_approximate" if options.get("approximate") else "gelu")


def _table(name: str, function: str) -> None:
    @reads_activation(name)
    def read(name: str, options: Mapping[str, Any]) -> Node:
        return TableActivation(name=name, function=function)


_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
for _function in curves.CURVES.keys() - {"elu", "gelu", "gelu_approximate"} | _ALIASES.keys():
    _table(_function, _ALIASES.get(_function, _function))
