"""What kconvert loads: the readers of LUT layers, their setting, their pass and their templates.

Where a Keras layer reads anything above 0.5 as a 1, the node for it is put behind a comparison with 0.5; a pass takes
that out again where there are bits already.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kconvert.config import add_setting
from kconvert.converters.registry import only, pair, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Node, Reshape, Thresholds, Value, Window, ZeroPadding
from kconvert.optimizers import add_pass, rewrite
from kconvert.plugins import add_templates

from .nodes import STYLES, GroupSum, Luts, Wires, only_bits
from .tables import LUT_LAYERS, lut_array

if TYPE_CHECKING:
    from kconvert.model import HLSModel


def compare(name: str, threshold: Any, low: float = 0.0, high: float = 1.0) -> Thresholds:
    """Return the node that is `high` above a threshold (or one for each of the last axis) and else `low`."""
    rows = np.atleast_1d(np.asarray(threshold, dtype=np.float64))[np.newaxis]
    return Thresholds(name=name, thresholds=rows, levels=np.array([low, high], np.float64), inclusive=False)


@reads("Binarize")
def binarize(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Two levels, the higher one above the threshold."""
    config = layer.config
    return compare(layer.name, config["threshold"], float(config["low"]), float(config["high"]))


@reads(*LUT_LAYERS)
def lut_layer(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """The tables and wires of a trained layer; of two other levels than 0 and 1, a comparison makes them."""
    _answers_in_bits(layer, inputs[0])
    array = lut_array(layer.class_name, layer.config, layer.weights)
    units, shape = layer.config["units"], inputs[0].shape
    tables, connections = array.words, array.connections
    if isinstance(units, int):  # the same nodes at every position
        positions = math.prod(shape[:-1])
        offsets = shape[-1] * np.arange(positions).reshape(-1, 1, 1)
        tables, connections = np.tile(tables, positions), (connections + offsets).reshape(-1, connections.shape[1])
        units = (*shape[:-1], units)
    nodes = Luts(name=layer.name, tables=tables, connections=connections, shape=tuple(units))
    if (array.low, array.high) == (0.0, 1.0):
        return compare(f"{layer.name}_bits", 0.5), nodes
    nodes.name = nodes.layer = f"{layer.name}_tables"
    return compare(f"{layer.name}_bits", 0.5), nodes, compare(layer.name, 0.5, array.low, array.high)


def _answers_in_bits(layer: LayerSpec, source: Value) -> None:
    config = layer.config
    if config.get("binary", True):
        return
    if config.get("batch_norm") or not config["lut_binarize"]:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): with binary=False its answers are numbers and not bits; "
            f"train it with binary=True"
        )
    if not only_bits(source):
        raise UnsupportedLayerError(
            f"layer {layer.name!r} ({layer.class_name}): with binary=False it answers in bits where it is given bits, "
            f"and {source.producer.name!r} makes others; put Binarize(0.5, 0, 1) before it, or set binary=True"
        )


@reads("Thermometer")
def thermometer(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Every feature on several wires, each compared with a threshold of its own."""
    (thresholds,) = weights(layer, 1)
    *frames, features = inputs[0].shape
    bits = int(layer.config["bits"])
    if thresholds.shape not in ((1, bits), (features, bits)):
        raise ModelError(f"layer {layer.name!r}: thresholds {thresholds.shape} do not fit {features} features")
    index = np.repeat(np.arange(inputs[0].size), bits)
    wires = Wires(name=f"{layer.name}_wires", index=index, shape=(*frames, features * bits))
    return wires, compare(layer.name, np.broadcast_to(thresholds, (features, bits)).ravel())


@reads("Patches")
def patches(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Wires, with zeros around the image where the windows leave it."""
    height, width, channels = inputs[0].shape
    size, strides = pair(layer, "kernel_size", 2), pair(layer, "strides", 2)
    window = Window.of(size, strides, layer.config["padding"], (height, width))
    top, bottom, left, right = window.padding
    rows, columns = window.output((height, width))
    index = np.arange((top + height + bottom) * (left + width + right) * channels)
    image = index.reshape(top + height + bottom, left + width + right, channels)
    views = np.lib.stride_tricks.sliding_window_view(image, size, axis=(0, 1))[:: strides[0], :: strides[1]]
    wires = views.transpose(0, 1, 3, 4, 2).reshape(rows, columns, -1)
    taps = Wires(name=layer.name, index=wires, shape=wires.shape)
    if not any(window.padding):
        return (taps,)
    return ZeroPadding(name=f"{layer.name}_padding", padding=window.padding), taps


@reads("Reduce")
def reduce(layer: LayerSpec, inputs: list[Value]) -> Node:
    """The mean of the elements k, k + units, ... for each k."""
    groups = int(layer.config["units"])
    return GroupSum(name=layer.name, groups=groups, strided=True, scale=groups / inputs[0].shape[-1])


@reads("GroupSum")
def group_sum(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Sums of consecutive elements, over a temperature."""
    groups, tau = int(layer.config["units"]), float(layer.config["tau"])
    return GroupSum(name=layer.name, groups=groups, strided=False, scale=1 / tau)


@reads("RealToBinary")
def real_to_binary(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """Every number on several wires, each compared with the threshold of its frame and slice."""
    config, features = layer.config, inputs[0].size
    only(layer, "noise", None)
    frames, depth, low, high = int(config["frames"]), int(config["depth"]), float(config["low"]), float(config["high"])
    frame, _, piece = np.meshgrid(np.arange(frames), np.arange(features), np.arange(depth), indexing="ij")
    thresholds = low + (high - low) * (piece + (frame + 0.5) / frames) / depth
    index = np.tile(np.repeat(np.arange(features), depth), frames)
    wires = Wires(name=f"{layer.name}_wires", index=index, shape=(index.size,))
    bits = compare(f"{layer.name}_bits", thresholds.ravel())
    return wires, bits, Reshape(name=layer.name, shape=(frames, features * depth))


@reads("BinaryToReal")
def binary_to_real(layer: LayerSpec, inputs: list[Value]) -> tuple[Node, ...]:
    """The mean, over all frames, of the bits k, k + units, ... for each k."""
    units, size = int(layer.config["units"]), inputs[0].size
    flat = Reshape(name=f"{layer.name}_flat", shape=(size,))
    mean = GroupSum(name=layer.name, groups=units, strided=True, scale=units / size)
    return compare(f"{layer.name}_bits", 0.0), flat, mean


@rewrite(Thresholds)
def drop_comparisons_of_bits(model: HLSModel, node: Thresholds) -> bool:
    """Remove a comparison that makes 0 of 0 and 1 of 1."""
    if node.result_type is not None or not only_bits(node.inputs[0]) or node.inputs[0] in model.inputs:
        return False
    levels, thresholds = node.channel_levels, np.asarray(node.thresholds, dtype=np.float64)
    exclusive = not np.any(node.inclusive)
    if len(thresholds) != 1 or (levels != [[0.0], [1.0]]).any() or not exclusive:
        return False
    if (thresholds < 0).any() or (thresholds >= 1).any():
        return False
    model.remove(node)
    return True


def _style(value: object) -> str | None:
    return value.casefold() if isinstance(value, str) and value.casefold() in STYLES else None


add_pass(drop_comparisons_of_bits)
add_setting("LutStyle", "lut_style", _style, ", ".join(STYLES), alias="lut_style")
add_templates(__package__)
