"""Layers that put elements elsewhere, and up-sampling."""

from __future__ import annotations

from typing import Any

from kconvert.converters.registry import channels_last, only, pair, reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError
from kconvert.layers import BilinearUpSampling, Cropping, Node, Permute, Repeat, RepeatVector, Value


@reads("Permute")
def permute(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Axes in another order."""
    axes = tuple(int(axis) - 1 for axis in layer.config["dims"])
    if sorted(axes) != list(range(len(inputs[0].shape))):
        raise ModelError(
            f"layer {layer.name!r}: dims={tuple(layer.config['dims'])} is no order of the axes of {inputs[0].shape}"
        )
    return Permute(name=layer.name, axes=axes)


@reads("RepeatVector")
def repeat_vector(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A vector several times."""
    times = int(layer.config["n"])
    if times < 1 or len(inputs[0].shape) != 1:
        raise ModelError(f"layer {layer.name!r}: cannot repeat a tensor of shape {inputs[0].shape} n={times} times")
    return RepeatVector(name=layer.name, times=times)


@reads("Cropping1D", "Cropping2D")
def cropping(layer: LayerSpec, inputs: list[Value]) -> Node:
    """What is left when so many pixels are cut off each side."""
    channels_last(layer)
    shape = inputs[0].shape
    rank = len(shape) - 1
    sides = sides_of(layer, "cropping", rank)
    kept = tuple(n - before - after for n, (before, after) in zip(shape, sides, strict=False))
    if min(kept, default=0) < 1 or min(n for side in sides for n in side) < 0:
        raise ModelError(f"layer {layer.name!r}: cropping={layer.config['cropping']!r} leaves nothing of {shape}")
    return Cropping(name=layer.name, first=(*(before for before, _ in sides), 0), shape=(*kept, shape[-1]))


def sides_of(layer: LayerSpec, key: str, rank: int) -> list[tuple[int, int]]:
    """Return how many pixels an option says for (before, after) each axis of space."""
    raw: Any = layer.config[key]
    axes = [raw] * rank if isinstance(raw, int) else [raw] if rank == 1 else raw
    if len(axes) != rank:
        raise ModelError(f"layer {layer.name!r}: {key}={raw!r} does not say something about each of {rank} axes")
    pairs = [(axis, axis) if isinstance(axis, int) else tuple(axis) for axis in axes]
    return [(int(before), int(after)) for before, after in pairs]


@reads("UpSampling1D", "UpSampling2D")
def up_sampling(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A larger image, by the nearest pixel or by straight lines between pixels."""
    channels_last(layer)
    only(layer, "interpolation", "nearest", "bilinear")
    rank = len(inputs[0].shape) - 1
    height, width = pair(layer, "size", rank)
    if min(height, width) < 1:
        raise ModelError(f"layer {layer.name!r}: size={layer.config['size']!r} is not positive")
    if layer.config.get("interpolation") == "bilinear":
        return BilinearUpSampling(name=layer.name, factors=(height, width))
    return Repeat(name=layer.name, times=(*(height, width)[2 - rank :], 1))
