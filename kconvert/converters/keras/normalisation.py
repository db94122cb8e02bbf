"""Normalisation by constants, and by what is measured on the sample itself."""

from __future__ import annotations

import numpy as np

from kconvert.converters.keras.core import normalised_axes
from kconvert.converters.registry import fits, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError
from kconvert.layers import Layout, Node, Rescale, SampleNormalization, Value


@reads("Rescaling")
def rescaling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """``x * scale + offset``, numbers or one for each channel."""
    scale, offset = (np.atleast_1d(np.asarray(layer.config[key], dtype=float)) for key in ("scale", "offset"))
    for what, array in (("scale", scale), ("offset", offset)):
        if array.shape not in ((1,), inputs[0].shape[-1:]):
            raise ModelError(f"layer {layer.name!r} (Rescaling): {what} of shape {array.shape} for {inputs[0].shape}")
    scale, offset = np.broadcast_arrays(scale, offset)
    return Rescale(name=layer.name, scale=scale.copy(), bias=offset.copy())


@reads("Normalization")
def normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """``(x - mean) / sqrt(variance)`` with numbers given or adapted, or the inverse of that."""
    mean, variance = np.broadcast_arrays(*_statistics(layer))
    deviation = np.maximum(np.sqrt(variance), 1e-7)  # as Keras has it
    scale, bias = (deviation, mean) if layer.config.get("invert", False) else (1 / deviation, -mean / deviation)
    inner = 1
    if scale.size > 1:
        axes = normalised_axes(layer, inputs[0])
        shape = tuple(inputs[0].shape[axis] for axis in axes)
        inner = int(np.prod(inputs[0].shape[axes.stop :], dtype=int))
        if scale.size != int(np.prod(shape)):
            raise ModelError(f"layer {layer.name!r} (Normalization): {scale.size} means for axes of sizes {shape}")
    return Rescale(name=layer.name, scale=scale.ravel(), bias=bias.ravel(), inner=inner)


def _statistics(layer: LayerSpec) -> tuple[np.ndarray, np.ndarray]:
    given = [layer.config.get(key) for key in ("mean", "variance")]
    if all(array is not None for array in given):
        return np.asarray(given[0], dtype=float), np.asarray(given[1], dtype=float)
    arrays = weights(layer, len(layer.weights))
    if len(arrays) < 2:
        raise ModelError(
            f"layer {layer.name!r} (Normalization): it has no mean and variance; call adapt() before it is converted"
        )
    return arrays[0], arrays[1]


@reads("LayerNormalization", "RMSNormalization")
def layer_normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """By the mean and variance over some axes, or by their root mean square."""
    only(layer, "rms_scaling", False)
    axes, shape = normalised_axes(layer, inputs[0]), inputs[0].shape
    layout = Layout.over(shape, axes)
    of_axes = tuple(shape[axis] for axis in axes)
    mean_square = layer.class_name == "RMSNormalization"
    scale, bias = _parameters(layer, of_axes, has_bias=not mean_square, has_scale=mean_square)
    epsilon = float(layer.config.get("epsilon", 1e-3))
    members = layout.members
    return SampleNormalization(
        name=layer.name,
        layout=layout,
        scale=scale * np.sqrt(members) if mean_square else scale,
        bias=bias,
        epsilon=epsilon * members if mean_square else epsilon,
        centred=not mean_square,
    )


def _parameters(
    layer: LayerSpec, shape: tuple[int, ...], *, has_bias: bool = True, has_scale: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return gamma and beta, flat; ones and zeros where the layer has none."""
    scaled = has_scale or bool(layer.config.get("scale", True))
    centred = has_bias and bool(layer.config.get("center", True))
    arrays = weights(layer, scaled + centred)
    for array in arrays:
        fits(layer, "parameter", array, *shape)
    scale = arrays[0] if scaled else np.ones(shape)
    bias = arrays[-1] if centred else np.zeros(shape)
    return scale.ravel(), bias.ravel()


@reads("GroupNormalization")
def group_normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """By the mean and variance of a group of channels, over all positions."""
    shape = inputs[0].shape
    only(layer, "axis", -1, len(shape))
    channels = shape[-1]
    groups = int(layer.config.get("groups", 32))
    groups = channels if groups == -1 else groups
    if groups < 1 or channels % groups:
        raise ModelError(f"layer {layer.name!r} (GroupNormalization): {groups} groups of {channels} channels")
    scale, bias = _parameters(layer, (channels,))
    return SampleNormalization(
        name=layer.name,
        layout=Layout(1, inputs[0].positions, groups, channels // groups),
        scale=scale,
        bias=bias,
        by_set=True,
        epsilon=float(layer.config.get("epsilon", 1e-3)),
    )


@reads("UnitNormalization")
def unit_normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """By the length over some axes."""
    layout = Layout.over(inputs[0].shape, normalised_axes(layer, inputs[0]))
    ones, zeros = np.ones(layout.members), np.zeros(layout.members)
    return SampleNormalization(name=layer.name, layout=layout, scale=ones, bias=zeros, centred=False)
