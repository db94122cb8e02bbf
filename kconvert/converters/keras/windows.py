"""Convolutions, pooling and padding in one and two dimensions."""

from __future__ import annotations

from kconvert.converters.keras.core import kernel_and_bias
from kconvert.converters.registry import activation, only, pair, reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Conv, DepthwiseConv, Node, Pool, Value, Window, ZeroPadding
from kconvert.layers.base import image


def _window(layer: LayerSpec, inputs: list[Value], size_key: str) -> Window:
    rank = len(inputs[0].shape) - 1
    only(layer, "data_format", "channels_last", None)
    only(layer, "padding", "valid", "same")
    size = pair(layer, size_key, rank)
    strides = pair(layer, "strides", rank) if layer.config.get("strides") is not None else size
    height, width, _ = image(inputs[0])
    window = Window.of(size, strides, str(layer.config.get("padding", "valid")), (height, width))
    if min(window.output((height, width))) < 1:
        raise ModelError(f"layer {layer.name!r}: a window of {size} does not fit the image {(height, width)}")
    return window


@reads("Conv1D", "Conv2D")
def conv(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Convolution with any strides, padding valid or same."""
    rank = len(inputs[0].shape) - 1
    only(layer, "dilation_rate", [1] * rank, 1)
    only(layer, "groups", 1)
    window = _window(layer, inputs, "kernel_size")
    kernel, bias = kernel_and_bias(layer, *window.size[2 - rank :], inputs[0].shape[-1])
    kernel = kernel.reshape(*window.size, *kernel.shape[-2:])
    return Conv(name=layer.name, weight=kernel, bias=bias, window=window, activation=activation(layer))


@reads("DepthwiseConv2D")
def depthwise_conv(layer: LayerSpec, inputs: list[Value]) -> Node:
    """One convolution per channel, any depth multiplier."""
    only(layer, "dilation_rate", [1, 1], 1)
    window = _window(layer, inputs, "kernel_size")
    channels = inputs[0].shape[-1]
    kernel, bias = kernel_and_bias(layer, *window.size, channels, groups=channels)
    multiplier = kernel.shape[-1]
    kernel = kernel.reshape(*window.size, channels * multiplier)
    return DepthwiseConv(
        name=layer.name,
        weight=kernel,
        bias=bias,
        window=window,
        depth_multiplier=multiplier,
        activation=activation(layer),
    )


@reads("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
def pooling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Largest value or mean under a window."""
    window = _window(layer, inputs, "pool_size")
    return Pool(name=layer.name, window=window, average=layer.class_name.startswith("Average"))


@reads("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D")
def global_pooling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Pooling whose window is the whole image."""
    only(layer, "data_format", "channels_last", None)
    height, width, _ = image(inputs[0])
    window = Window((height, width), (1, 1))
    average = layer.class_name.startswith("GlobalAverage")
    return Pool(name=layer.name, window=window, average=average, drop_space=not layer.config.get("keepdims", False))


@reads("ZeroPadding1D", "ZeroPadding2D")
def zero_padding(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Zeros around the image, as many as wanted on each side."""
    only(layer, "data_format", "channels_last", None)
    padding = layer.config["padding"]
    if layer.class_name.endswith("1D"):
        left, right = (padding, padding) if isinstance(padding, int) else padding
        return ZeroPadding(name=layer.name, padding=(0, 0, int(left), int(right)))
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    top, bottom = (rows, rows) if isinstance(rows, int) else rows
    left, right = (columns, columns) if isinstance(columns, int) else columns
    sides = (int(top), int(bottom), int(left), int(right))
    if min(sides) < 0:
        raise UnsupportedLayerError(f"layer {layer.name!r}: padding {padding!r} is negative")
    return ZeroPadding(name=layer.name, padding=sides)
