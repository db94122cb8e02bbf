"""Input, dense, normalisation and shape layers."""

from __future__ import annotations

import numpy as np

from kconvert.converters.registry import activation, channels_last, fits, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import BatchNormalization, Dense, Identity, Input, Node, Reshape, Value


@reads("InputLayer")
def input_layer(layer: LayerSpec, inputs: list[Value]) -> Node:
    """An input; every axis but the batch must be fixed, for hardware has no dynamic shapes."""
    shape = tuple(layer.config["batch_shape"])[1:]
    if not shape or any(n is None for n in shape):
        raise ModelError(
            f"input layer {layer.name!r} has shape {shape}: every axis but the batch must have a fixed size"
        )
    return Input(name=layer.name, shape=tuple(int(n) for n in shape))


@reads("Dense")
def dense(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Dense with or without bias."""
    kernel, bias = kernel_and_bias(layer, inputs[0].shape[-1])
    return Dense(name=layer.name, weight=kernel, bias=bias, activation=activation(layer))


def kernel_and_bias(layer: LayerSpec, *fan_in: int, groups: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the kernel [*fan_in, n], and the bias or zeros: n of them for each of `groups`."""
    kernel, *rest = weights(layer, 2 if layer.config.get("use_bias", True) else 1)
    outputs = kernel.shape[-1] if kernel.ndim else 0
    fits(layer, "kernel", kernel, *fan_in, outputs)
    bias = rest[0] if rest else np.zeros(groups * outputs)
    fits(layer, "bias", bias, groups * outputs)
    return kernel, bias


@reads("BatchNormalization")
def batch_normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """``gamma (x - mean) / sqrt(variance + epsilon) + beta`` as one scale and one bias per channel."""
    axes = normalised_axes(layer, inputs[0])
    scaled, centred = layer.config.get("scale", True), layer.config.get("center", True)
    arrays = weights(layer, 2 + bool(scaled) + bool(centred))
    for array, what in zip(arrays, layer.weight_names or [""] * 4, strict=False):
        fits(layer, what or "parameter", array, *(inputs[0].shape[axis] for axis in axes))
    mean, variance = arrays[-2:]
    gamma = arrays[0] if scaled else np.ones_like(mean)
    beta = arrays[-3] if centred else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + float(layer.config.get("epsilon", 1e-3)))
    bias = beta - mean * scale
    return BatchNormalization(name=layer.name, scale=scale.ravel(), bias=bias.ravel(), inner=_behind(inputs[0], axes))


def normalised_axes(layer: LayerSpec, value: Value) -> range:
    """Return the axes in a layer's config, counted without the batch; they have to be neighbours."""
    raw, rank = layer.config.get("axis", -1), len(value.shape)
    given = [int(axis) for axis in (raw if isinstance(raw, (list, tuple)) else [raw])]
    axes = sorted(axis - 1 if axis >= 0 else axis + rank for axis in given)
    found = range(axes[0], axes[-1] + 1) if axes else range(0)
    if not axes or axes != list(found) or found.start < 0 or found.stop > rank:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): axis={raw!r} is not supported for an input of shape "
            f"{value.shape}, only axes next to each other, and not that of the batch"
        )
    return found


def _behind(value: Value, axes: range) -> int:
    return int(np.prod(value.shape[axes.stop :], dtype=int))


def only_last_axis(layer: LayerSpec, inputs: list[Value]) -> None:
    """Refuse a normalisation over any axis but the last."""
    axis = layer.config.get("axis", -1)
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if axes not in ([-1], [len(inputs[0].shape)]):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): axis={axis!r} is not supported, only the last axis"
        )


@reads("Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise")
@reads("ActivityRegularization", "Identity")
def identity(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Layers that do nothing at inference."""
    return Identity(name=layer.name)


@reads("Flatten")
def flatten(layer: LayerSpec, inputs: list[Value]) -> Node:
    """All axes but the batch into one, in C order."""
    channels_last(layer)
    return Reshape(name=layer.name, shape=(inputs[0].size,))


@reads("Reshape")
def reshape(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Another shape of as many elements; one axis may be -1."""
    target = [int(n) for n in layer.config["target_shape"]]
    known = int(np.prod([n for n in target if n != -1], dtype=int))
    if target.count(-1) == 1 and known > 0:
        target[target.index(-1)] = inputs[0].size // known
    if min(target, default=0) < 1 or int(np.prod(target)) != inputs[0].size:
        raise ModelError(
            f"layer {layer.name!r}: cannot reshape {inputs[0].shape} to {tuple(layer.config['target_shape'])}"
        )
    return Reshape(name=layer.name, shape=tuple(target))
