"""Layers of QKeras, read as the Keras layer they extend with weights that are already quantised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kconvert.converters.keras import core, windows
from kconvert.converters.qkeras.quantizers import Quantizer, read_quantizer
from kconvert.converters.registry import (
    ChainReader,
    activation,
    activation_name,
    make_activation,
    only,
    pair,
    reads,
    weights,
)
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import ApplyAlpha, DepthwiseConv, Node, Reshape, Value, Weighted, Window
from kconvert.layers.base import image
from kconvert.types import FixedType, common_power_of_two, exact_type

Arrays = dict[str, np.ndarray]


@reads("QActivation")
def q_activation(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A quantizer, or one of Keras' functions by name, as a layer."""
    name, options = activation_name(layer, layer.config.get("activation"))
    return make_activation(layer, layer.name, name, options)


@reads("QAdaptiveActivation")
def q_adaptive_activation(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A quantizer whose integer bits follow from the moving extremes of what it saw in training."""
    only(layer, "per_channel", False)
    arrays = weights(layer, len(layer.weights))
    if len(arrays) < 2:
        raise ModelError(
            f"layer {layer.name!r} (QAdaptiveActivation): the moving minimum and maximum that decide its integer bits "
            f"are missing"
        )
    by_name = dict(zip(layer.weight_names, arrays, strict=False))
    low, high = by_name.get("ema_min", arrays[-2]), by_name.get("ema_max", arrays[-1])  # a .keras file has no names
    kind, slope = str(layer.config["activation"]), float(layer.config.get("relu_neg_slope", 0.0))
    rectifies = kind == "quantized_relu"
    options = {
        "bits": int(layer.config["total_bits"]),
        "integer": _adaptive_bits(layer, float(low.max()), float(high.max()), not rectifies or slope != 0),
        **({"negative_slope": slope} if rectifies else {"symmetric": bool(layer.config["symmetric"]), "alpha": 1}),
    }
    return make_activation(layer, layer.name, kind, options)


def _adaptive_bits(layer: LayerSpec, low: float, high: float, signed: bool) -> int:
    """Return the integer bits QKeras counts for values from `low` to `high`, in float32 as it does."""
    most = int(layer.config["total_bits"]) - signed
    ends = np.maximum([low, high], -np.inf if signed else 0).astype(np.float32)
    with np.errstate(divide="ignore"):
        log2 = np.log(np.abs(ends)) / np.float32(np.log(2.0))
    log2 = np.maximum(log2, 0)
    if layer.config.get("po2_rounding", False):
        bits = np.rint(log2)
    else:
        bits = np.ceil(log2)
        largest = np.exp2(bits) - np.exp2(np.minimum(bits - most, 0))  # the highest code of so many bits
        too_low = bool(layer.config["symmetric"]) and -ends[0] > largest[0]
        bits = bits + np.array([too_low, ends[1] > largest[1]])
    return min(int(bits.max()), most)


def _named(layer: LayerSpec) -> Arrays:
    arrays = weights(layer, len(layer.weights))
    return {n: a.astype(np.float32) for n, a in zip(layer.weight_names, arrays, strict=True)}


def _quantizer(layer: LayerSpec, key: str) -> Quantizer | None:
    return read_quantizer(layer.name, layer.config.get(key))


def _apply(quantizer: Quantizer | None, values: np.ndarray) -> np.ndarray:
    """Return `values` as QKeras' inference sees them."""
    if quantizer is None:
        return values
    found = quantizer.quantize(values)
    return found.codes if found.scale is None else found.codes * found.scale


def _kernel_quantizer(layer: LayerSpec, key: str) -> Quantizer | None:
    quantizer = _quantizer(layer, f"{key.removesuffix('_kernel')}_quantizer" if key != "kernel" else "kernel_quantizer")
    return None if quantizer is None else quantizer.for_weights()


def _is_binary(layer: LayerSpec, key: str) -> bool:
    quantizer = _kernel_quantizer(layer, key)
    return quantizer is not None and quantizer.is_binary


def _quantised_kernel(
    layer: LayerSpec, key: str, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, dict[str, FixedType]]:
    """Return the codes of a kernel, their scale per output (None for 1), and the types they demand."""
    quantizer = _kernel_quantizer(layer, key)
    if quantizer is None:
        return kernel.astype(np.float64), None, {}
    found = quantizer.quantize(kernel)
    scale = found.scale
    if scale is not None and scale.size > 1 and key == "depthwise_kernel":
        scale = np.tile(scale, kernel.shape[-2])  # outputs are ordered by channel, then by filter of the channel
    return found.codes, scale, {"weight": found.type}


def _quantised_bias(layer: LayerSpec, arrays: Arrays) -> tuple[list[np.ndarray], dict[str, FixedType]]:
    """Return the bias, if there is one, in a list, and the type it demands."""
    if "bias" not in arrays:
        return [], {}
    quantizer = _quantizer(layer, "bias_quantizer")
    if quantizer is None:
        values, kind = arrays["bias"].astype(np.float64), exact_type(arrays["bias"])
    else:
        found = quantizer.quantize(arrays["bias"])
        values, kind = found.codes, found.type  # the same type, and compiled object, for all weights
        if found.scale is not None:
            values = found.codes * found.scale
            exponent = common_power_of_two(found.scale)
            kind = exact_type(values) if exponent is None else kind.with_(integer=kind.integer + exponent)
    return [values], {"bias": kind}


def _quantised(
    layer: LayerSpec, inputs: list[Value], plain: ChainReader, arrays: Arrays, kernel: str
) -> tuple[Node, ...]:
    """Return what `plain` makes of a layer whose kernel and bias pass their quantizers before they are used."""
    codes, scale, preset = _quantised_kernel(layer, kernel, arrays[kernel])
    bias, bias_preset = _quantised_bias(layer, arrays)
    given = (codes, *bias)
    made = plain(replace(layer, weights=given, weight_names=(kernel, "bias")[: len(given)]), inputs)
    chain = made if isinstance(made, tuple) else (made,)
    node = chain[-1]
    if not isinstance(node, Weighted):
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}) is no layer of weights")
    node.preset = preset | bias_preset
    node.weight_scale = scale
    node.binary = _is_binary(layer, kernel)
    return chain


@reads("QSeparableConv1D", "QSeparableConv2D")
def q_separable_conv(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Both kernels are quantised; the tensor between the two convolutions is not."""
    arrays = _named(layer)
    depthwise, depthwise_scale, depthwise_preset = _quantised_kernel(
        layer, "depthwise_kernel", arrays["depthwise_kernel"]
    )
    pointwise, pointwise_scale, pointwise_preset = _quantised_kernel(
        layer, "pointwise_kernel", arrays["pointwise_kernel"]
    )
    bias, bias_preset = _quantised_bias(layer, arrays)
    first, then = windows.separable_conv(replace(layer, weights=(depthwise, pointwise, *bias)), inputs)
    for node, key, scale, preset in (
        (first, "depthwise_kernel", depthwise_scale, depthwise_preset),
        (then, "pointwise_kernel", pointwise_scale, pointwise_preset | bias_preset),
    ):
        if not isinstance(node, Weighted):
            raise ModelError(f"layer {layer.name!r} ({layer.class_name}) is no layer of weights")
        node.preset, node.weight_scale = preset, scale
        node.binary = _is_binary(layer, key)
    first.stays_wide = True
    return first, then


@reads("QConv2DTranspose")
def q_conv_transpose(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """A transposed convolution of quantised weights; its kernel has the outputs on the last axis but one."""
    chain = _quantised(layer, inputs, windows.conv_transpose, _named(layer), "kernel")
    node = chain[-1]
    if isinstance(node, Weighted) and node.weight_scale is not None and node.weight_scale.size > 1:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (QConv2DTranspose): its kernel has one scale per input channel, which cannot be "
            f"taken out of the sum; give its quantizer one alpha for all"
        )
    return chain


@reads("QAveragePooling2D", "QGlobalAveragePooling2D")
def q_average_pooling(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """A mean as QKeras computes it: a sum times a quantised 1 / area, that is, a convolution with that one weight."""
    is_global = layer.class_name.startswith("QGlobal")
    quantizer = _quantizer(layer, "average_quantizer")
    if quantizer is None and layer.config.get("activation") in (None, "linear"):
        plain = windows.global_pooling if is_global else windows.pooling
        return (plain(replace(layer, class_name=layer.class_name.removeprefix("Q")), inputs),)
    only(layer, "data_format", "channels_last", None)
    only(layer, "padding", "valid")
    height, width, channels = image(inputs[0])
    size = (height, width) if is_global else pair(layer, "pool_size", 2)
    strides = size if is_global or layer.config.get("strides") is None else pair(layer, "strides", 2)
    factor = _apply(quantizer, np.array([1 / np.float32(size[0] * size[1])], dtype=np.float32))[0]
    mean = DepthwiseConv(
        name=layer.name,
        weight=np.full((*size, channels), factor),
        bias=np.zeros(channels),
        window=Window(size, strides),
        preset={"weight": exact_type(factor), "bias": FixedType(1, 1, False)},
    )
    if not is_global or layer.config.get("keepdims"):
        mean.activation = activation(layer)
        return (mean,)
    only(layer, "activation", None, "linear")
    mean.name, mean.stays_wide = f"{layer.name}_mean", True
    return mean, Reshape(name=layer.name, shape=(channels,))


def _reader(plain: ChainReader, kernel: str) -> ChainReader:
    def read(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
        return _quantised(layer, inputs, plain, _named(layer), kernel)

    return read


def _folded_reader(plain: ChainReader, kernel: str) -> ChainReader:
    """Return a reader of a layer that folds its own batch normalisation into kernel and bias, then quantises those."""

    def read(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
        arrays = _named(layer)
        epsilon = np.float32(layer.config.get("epsilon", 1e-3))
        inverse = 1 / np.sqrt(arrays["moving_variance"] + epsilon)
        inverse = inverse * arrays.get("gamma", np.float32(1))
        bias = inverse * (arrays.get("bias", np.float32(0)) - arrays["moving_mean"])
        per_output = inverse.reshape(arrays[kernel].shape[-2:]) if kernel == "depthwise_kernel" else inverse
        folded = {kernel: arrays[kernel] * per_output, "bias": bias + arrays.get("beta", np.float32(0))}
        with_bias = replace(layer, config={**layer.config, "use_bias": True})
        return _quantised(with_bias, inputs, plain, folded, kernel)

    return read


for _name, _plain, _kernel in (
    ("QDense", core.dense, "kernel"),
    ("QConv1D", windows.conv, "kernel"),
    ("QConv2D", windows.conv, "kernel"),
    ("QDepthwiseConv2D", windows.depthwise_conv, "depthwise_kernel"),
):
    reads(_name)(_reader(_plain, _kernel))

for _name, _plain, _kernel in (
    ("QDenseBatchnorm", core.dense, "kernel"),
    ("QConv2DBatchnorm", windows.conv, "kernel"),
    ("QDepthwiseConv2DBatchnorm", windows.depthwise_conv, "depthwise_kernel"),
):
    reads(_name)(_folded_reader(_plain, _kernel))


@reads("QBatchNormalization")
def q_batch_normalization(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Batch normalisation whose parameters, and the scale made of them, pass quantizers of their own."""
    core.only_last_axis(layer, inputs)
    arrays = _named(layer)
    gamma, beta, mean, variance = (
        _apply(_quantizer(layer, f"{key}_quantizer"), arrays[name]).astype(np.float32) if name in arrays else None
        for key, name in (
            ("gamma", "gamma"),
            ("beta", "beta"),
            ("mean", "moving_mean"),
            ("variance", "moving_variance"),
        )
    )
    if mean is None or variance is None:
        raise ModelError(f"layer {layer.name!r} (QBatchNormalization): its moving mean and variance are missing")
    scale = 1 / np.sqrt(variance + np.float32(layer.config.get("epsilon", 1e-3)))
    scale = scale if gamma is None else scale * gamma
    scale = _apply(_quantizer(layer, "inverse_quantizer"), scale).astype(np.float32)
    bias = -mean * scale if beta is None else beta - mean * scale
    return ApplyAlpha(name=layer.name, scale=scale.astype(np.float64), bias=bias.astype(np.float64))


@reads("BinaryDense", "TernaryDense", "BinaryConv2D", "TernaryConv2D")
def keras_1_layer(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Layers of the Keras 1 era that store float weights and use their sign, or -1, 0 and 1, times H.

    As the layers published as "nn_playground" compute them, in float32: binary weights round half to even on the way,
    so one of exactly 0 is -1; ternary weights are 1 above H / 2 and -1 at -H / 2 and below.
    """
    kernel, *rest = weights(layer, len(layer.weights))
    height = _height(layer, kernel)
    steps = kernel.astype(np.float32) / height
    half = np.float32(0.5)
    binary = layer.class_name.startswith("Binary")
    codes = 2 * np.rint(np.clip(half * steps + half, 0, 1)) - 1 if binary else (steps > half) * 1.0 - (steps <= -half)
    plain = core.dense if layer.class_name.endswith("Dense") else windows.conv
    node = plain(replace(layer, weights=(codes.astype(np.float64), *rest)), inputs)
    if not isinstance(node, Weighted):
        raise ModelError(f"layer {layer.name!r} ({layer.class_name}) is no layer of weights")
    node.preset = {"weight": FixedType(2, 2), "bias": exact_type(node.bias)}
    node.weight_scale = np.full(codes.shape[-1], float(height))
    node.binary = binary
    return node


def _height(layer: LayerSpec, kernel: np.ndarray) -> np.float32:
    """Return H: a number, or the bound of Glorot's uniform distribution over all taps of a window."""
    height = layer.config.get("H", 1)
    if height == "Glorot":
        taps, (inputs, outputs) = int(np.prod(kernel.shape[:-2], dtype=int)), kernel.shape[-2:]
        return np.float32(np.sqrt(1.5 / (taps * inputs + taps * outputs)))
    if isinstance(height, bool) or not isinstance(height, int | float) or not height > 0:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): H={height!r} must be a number above zero, or 'Glorot'"
        )
    return np.float32(height)
