"""Convolutions, pooling and padding in one and two dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np

from kconvert.converters.keras.core import kernel_and_bias
from kconvert.converters.keras.moves import sides_of
from kconvert.converters.registry import activation, channels_last, fits, only, pair, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Conv, DepthwiseConv, GroupedConv, Node, Pool, Value, Window, ZeroPadding
from kconvert.layers.base import image


def _window(layer: LayerSpec, inputs: list[Value], size_key: str) -> Window:
    rank = len(inputs[0].shape) - 1
    channels_last(layer)
    paddings = ("valid", "same", "causal") if rank == 1 and size_key == "kernel_size" else ("valid", "same")
    only(layer, "padding", *paddings)
    size = pair(layer, size_key, rank)
    strides = pair(layer, "strides", rank) if layer.config.get("strides") is not None else size
    dilation = pair(layer, "dilation_rate", rank) if layer.config.get("dilation_rate") is not None else (1, 1)
    height, width, _ = image(inputs[0])
    window = Window.of(size, strides, str(layer.config.get("padding", "valid")), (height, width), dilation)
    if min(window.output((height, width))) < 1:
        raise ModelError(f"layer {layer.name!r}: a window of {window.reach} does not fit the image {(height, width)}")
    return window


@reads("Conv1D", "Conv2D")
def conv(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Convolution with any strides, dilation and groups, padding valid, same or (over one axis) causal."""
    rank = len(inputs[0].shape) - 1
    window = _window(layer, inputs, "kernel_size")
    channels, groups = inputs[0].shape[-1], int(layer.config.get("groups") or 1)
    if channels % groups:
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): {groups} groups of {channels} channels")
    kernel, bias = kernel_and_bias(layer, *window.size[2 - rank :], channels // groups)
    if kernel.shape[-1] % groups:
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}): {groups} groups of {kernel.shape[-1]} filters")
    kernel = kernel.reshape(*window.size, *kernel.shape[-2:])
    fields: dict[str, Any] = {"name": layer.name, "weight": kernel, "bias": bias, "window": window}
    fields["activation"] = activation(layer)
    return Conv(**fields) if groups == 1 else GroupedConv(**fields, groups=groups)


@reads("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(layer: LayerSpec, inputs: list[Value]) -> Node:
    """One convolution per channel, any depth multiplier."""
    rank = len(inputs[0].shape) - 1
    window = _window(layer, inputs, "kernel_size")
    channels = inputs[0].shape[-1]
    kernel, bias = kernel_and_bias(layer, *window.size[2 - rank :], channels, groups=channels)
    return _depthwise(layer.name, kernel, bias, window, activation(layer))


def _depthwise(
    name: str, kernel: np.ndarray, bias: np.ndarray, window: Window, activation: Node | None = None
) -> DepthwiseConv:
    """Return the node of a kernel [*window, channels, filters per channel]."""
    *_, channels, multiplier = kernel.shape
    return DepthwiseConv(
        name=name,
        weight=kernel.reshape(*window.size, channels * multiplier),
        bias=bias,
        window=window,
        depth_multiplier=multiplier,
        activation=activation,
    )


@reads("SeparableConv1D", "SeparableConv2D")
def separable_conv(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """A convolution per channel, called ``<layer>_depthwise``, then one that mixes the channels of each pixel."""
    rank = len(inputs[0].shape) - 1
    window = _window(layer, inputs, "kernel_size")
    channels, filters = inputs[0].shape[-1], int(layer.config["filters"])
    depthwise, pointwise, *rest = weights(layer, 3 if layer.config.get("use_bias", True) else 2)
    multiplier = depthwise.shape[-1] if depthwise.ndim else 0
    between = channels * multiplier
    fits(layer, "depthwise kernel", depthwise, *window.size[2 - rank :], channels, multiplier)
    fits(layer, "pointwise kernel", pointwise, *[1] * rank, between, filters)
    bias = rest[0] if rest else np.zeros(filters)
    fits(layer, "bias", bias, filters)
    return (
        _depthwise(f"{layer.name}_depthwise", depthwise, np.zeros(between), window),
        Conv(
            name=layer.name,
            weight=pointwise.reshape(1, 1, between, filters),
            bias=bias,
            window=Window((1, 1), (1, 1)),
            activation=activation(layer),
        ),
    )


@reads("Conv1DTranspose", "Conv2DTranspose")
def conv_transpose(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """A convolution over the image with zeros between its pixels, which are inserted by ``<layer>_spread``."""
    rank = len(inputs[0].shape) - 1
    channels_last(layer)
    only(layer, "padding", "valid", "same")
    only(layer, "dilation_rate", [1] * rank, 1)
    size, strides = pair(layer, "kernel_size", rank), pair(layer, "strides", rank)
    channels, filters = inputs[0].shape[-1], int(layer.config["filters"])
    kernel, *rest = weights(layer, 2 if layer.config.get("use_bias", True) else 1)
    fits(layer, "kernel", kernel, *size[2 - rank :], filters, channels)
    bias = rest[0] if rest else np.zeros(filters)
    fits(layer, "bias", bias, filters)
    # A pixel spreads its weights forward; seen from an output, they come in reverse.
    kernel = kernel.reshape(*size, filters, channels)[::-1, ::-1].transpose(0, 1, 3, 2)
    window = Window(size, (1, 1), _transposed_padding(layer, inputs[0], size, strides))
    conv = Conv(name=layer.name, weight=kernel, bias=bias, window=window, activation=activation(layer))
    return (conv,) if strides == (1, 1) else (ZeroPadding(name=f"{layer.name}_spread", spread=strides), conv)


def _transposed_padding(
    layer: LayerSpec, value: Value, size: tuple[int, int], strides: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the zeros around the spread image for which the windows over it are the outputs.

    With padding valid, an axis has all outputs that a pixel reaches. With same, it has those that the convolution the
    layer is the transpose of would see if it padded them: its zeros are cut off.
    """
    height, width, _ = image(value)
    same = layer.config.get("padding", "valid") == "same"
    extra = layer.config.get("output_padding")
    extras = (None, None) if extra is None else pair(layer, "output_padding", len(value.shape) - 1)
    pads: list[int] = []
    for length, window, stride, more in zip((height, width), size, strides, extras, strict=True):
        if (length, window, stride) == (1, 1, 1):  # nothing to add, as along the height of a rank 1 image
            pads += [0, 0]
            continue
        reached = (length - 1) * stride + window
        if more is None:
            outputs = length * stride if same else max(reached, length * stride)
        else:
            outputs = reached - (window // 2 * 2 if same else 0) + more
        before = max(reached - outputs, 0) // 2 if same else 0
        pads += [window - 1 - before, outputs + before - reached + window - 1]
    return pads[0], pads[1], pads[2], pads[3]


@reads("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
def pooling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Largest value or mean under a window."""
    window = _window(layer, inputs, "pool_size")
    return Pool(name=layer.name, window=window, average=layer.class_name.startswith("Average"))


@reads("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D")
def global_pooling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Pooling whose window is the whole image."""
    channels_last(layer)
    height, width, _ = image(inputs[0])
    window = Window((height, width), (1, 1))
    average = layer.class_name.startswith("GlobalAverage")
    return Pool(name=layer.name, window=window, average=average, drop_space=not layer.config.get("keepdims", False))


@reads("ZeroPadding1D", "ZeroPadding2D")
def zero_padding(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Zeros around the image, as many as wanted on each side."""
    channels_last(layer)
    rank = len(inputs[0].shape) - 1
    sides = [(0, 0)] * (2 - rank) + sides_of(layer, "padding", rank)
    if min(n for side in sides for n in side) < 0:
        raise UnsupportedLayerError(f"layer {layer.name!r}: padding {layer.config['padding']!r} is negative")
    return ZeroPadding(name=layer.name, padding=(*sides[0], *sides[1]))
