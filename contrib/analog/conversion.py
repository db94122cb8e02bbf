"""What kconvert loads: the readers of the analog layers and their templates.

The firmware computes what the mock computes without noise, to the bit. A multiplication is up to three nodes: one that
rounds its inputs, the multiplier with the converters behind it, and a table for a bias that is not a whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kconvert.converters.keras.core import kernel_and_bias
from kconvert.converters.registry import only, pair, reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Node, Quantize, ScaledQuantize, Value, Window
from kconvert.layers.base import image
from kconvert.optimizers import add_pass, rewrite
from kconvert.plugins import add_templates
from kconvert.types import FixedType

from .nodes import (
    BY_BITS,
    INPUT,
    LEVEL,
    POSITIVE,
    WEIGHT,
    AnalogConv,
    AnalogConvertingRelu,
    AnalogDense,
    AnalogInput,
    AnalogRelu,
    LevelTable,
)
from .parameters import INPUT_RANGE, OUTPUT_RANGE, WEIGHT_RANGE, parse_mock

if TYPE_CHECKING:
    from kconvert.model import HLSModel

Array = npt.NDArray[Any]

MOST_SHIFT = POSITIVE.width - 1
"""Beyond, a converting ReLU answers nothing but 0."""


@reads("AnalogDense")
def analog_dense(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Rounding, then the multiplier with its bias in whole numbers; without noise, copies of a neuron are its mean."""
    kernel, bias = kernel_and_bias(layer, inputs[0].shape[-1])
    levels = np.clip(np.floor(bias.astype(np.float32)), *OUTPUT_RANGE)
    biased = bool(layer.config.get("use_bias", True))
    return _inputs(layer), AnalogDense(name=layer.name, bias=levels, **_multiplier(layer, kernel, biased))


@reads("AnalogConv1D", "AnalogConv2D")
def analog_conv(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Rounding, the multiplier on windows, and a table for the host's addition of a bias, which rounds to float32."""
    rank = len(inputs[0].shape) - 1
    only(layer, "data_format", "channels_last", None)
    only(layer, "padding", "valid", "same")
    height, width, channels = image(inputs[0])
    size, strides = pair(layer, "kernel_size", rank), pair(layer, "strides", rank)
    window = Window.of(size, strides, layer.config["padding"], (height, width))
    if min(window.output((height, width))) < 1:
        raise ModelError(f"layer {layer.name!r}: a window of {size} does not fit the image {(height, width)}")
    kernel, bias = kernel_and_bias(layer, *size[2 - rank :], channels)
    weight = np.moveaxis(kernel.reshape(*size, *kernel.shape[-2:]), 2, 0)
    conv = AnalogConv(name=layer.name, bias=np.zeros(len(bias)), window=window, **_multiplier(layer, weight, False))
    if not bias.any():
        return _inputs(layer), conv
    _only_single_precision(layer)
    conv.name = conv.layer = f"{layer.name}_levels"
    sums = BY_BITS.astype(np.float32) + bias.astype(np.float32)[:, np.newaxis]
    return _inputs(layer), conv, LevelTable(name=layer.name, entries=sums.astype(np.float64))


def _only_single_precision(layer: LayerSpec) -> None:
    policy = layer.config.get("dtype")
    name = policy.get("config", {}).get("name") if isinstance(policy, Mapping) else policy
    if name not in (None, "float32", "float64"):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): a bias added in {name} is not supported, only in float32"
        )


def _inputs(layer: LayerSpec) -> AnalogInput:
    transform = layer.config.get("input_transform")
    if transform is not None:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): input_transform={transform!r} is not supported: hardware sees "
            f"one sample at a time, and fixed ranges; scale the data to 0..31 before the model, and set it to None"
        )
    return AnalogInput(name=f"{layer.name}_inputs", preset={"result": INPUT})


def _multiplier(layer: LayerSpec, kernel: Array, biased: bool) -> dict[str, Any]:
    """Return the arguments of both multipliers."""
    config = layer.config
    _, parameter = parse_mock(config["mock"], f"layer {layer.name!r}")
    sends = int(config["num_sends"])
    if sends < 1:
        raise ModelError(f"layer {layer.name!r}: num_sends={sends} has to be positive")
    weight = np.rint(_transformed(layer, kernel.astype(np.float32))).astype(np.float64)
    outside = weight[(weight < WEIGHT_RANGE[0]) | (weight > WEIGHT_RANGE[1])]
    if outside.size:
        raise ModelError(
            f"layer {layer.name!r}: {outside.size} weights, {outside.flat[0]:g} the first, are outside of "
            f"{WEIGHT_RANGE[0]}..{WEIGHT_RANGE[1]}; set weight_transform to clamp_weight or scale_weight"
        )
    return {
        "weight": weight,
        "gain": sends * parameter.gain,
        "preset": {"weight": WEIGHT, "bias": LEVEL if biased else FixedType(1, 1, signed=False), "result": LEVEL},
    }


def _transformed(layer: LayerSpec, weight: Array) -> Array:
    """Return float32 weights as the layer multiplies by them."""
    name = layer.config.get("weight_transform")
    if name is None:
        return weight
    limit = np.float32(WEIGHT_RANGE[1])
    if name == "clamp_weight":
        return np.asarray(weight + (np.clip(weight, -limit, limit) - weight))
    if name == "scale_weight":
        largest = np.abs(weight).max()
        return weight * (limit / largest) if largest > 0 else weight
    raise UnsupportedLayerError(
        f"layer {layer.name!r} ({layer.class_name}): weight_transform={name!r} is not known here, only None, "
        f"clamp_weight and scale_weight; apply it to the weights, and set it to None"
    )


@reads("AnalogReLU")
def analog_relu(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Whole numbers from 0 to 127."""
    return AnalogRelu(name=layer.name, preset={"result": POSITIVE})


@reads("AnalogConvertingReLU")
def analog_converting_relu(layer: LayerSpec, inputs: list[Value]) -> Node:
    """The upper bits of a positive level."""
    shift = int(layer.config["shift"])
    if not 0 <= shift <= MOST_SHIFT:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (AnalogConvertingReLU): shift={shift} is not supported, only 0 to {MOST_SHIFT}; "
            f"beyond, all answers are 0"
        )
    bits = min(POSITIVE.width - shift, INPUT_RANGE[1].bit_length())
    return AnalogConvertingRelu(
        name=layer.name,
        scale=np.ones(1),
        factor=np.array([2.0**-shift]),
        preset={
            "code": POSITIVE.with_(width=bits, integer=bits),
            "factor": FixedType(1, 1 - shift, signed=False),
            "scale": FixedType(1, 1, signed=False),
            "result": INPUT,
        },
    )


@rewrite(LevelTable, then=Quantize | ScaledQuantize)
def fold_into_table(model: HLSModel, table: LevelTable, activation: Quantize | ScaledQuantize) -> bool:
    """Let the table of a bias hold what a quantised activation makes of its entries: few bits instead of a float's."""
    kind = activation.result_type
    if table.result_type is not None or kind is None:
        return False
    entries = table.entries
    if isinstance(activation, ScaledQuantize):
        if not isinstance(activation, AnalogConvertingRelu):
            return False
        found = {role: constant.type.quantize(constant.values) for role, constant in activation.constants().items()}
        entries = activation.typed("code").quantize(entries * found["factor"]) * found["scale"]
    table.entries = kind.quantize(entries)
    table.output.names = []  # its own output exists no more
    model.remove(activation)
    table.result_type = kind
    return True


add_pass(fold_into_table)
add_templates(__package__)
