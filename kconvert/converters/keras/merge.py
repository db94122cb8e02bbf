"""Layers that join several tensors."""

from __future__ import annotations

from kconvert.converters.registry import reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import UnsupportedLayerError
from kconvert.layers import Add, Concatenate, Node, Value


@reads("Add")
def add(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Sum of tensors of one shape."""
    shapes = sorted({v.shape for v in inputs})
    if len(shapes) != 1:
        raise UnsupportedLayerError(
            f"layer {layer.name!r} (Add): adding tensors of different shapes {shapes} (broadcasting) is not supported"
        )
    return Add(name=layer.name)


@reads("Concatenate")
def concatenate(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Tensors side by side along any axis but the batch."""
    rank = len(inputs[0].shape) + 1
    axis = int(layer.config.get("axis", -1))
    axis = axis + rank if axis < 0 else axis
    if not 1 <= axis < rank:
        raise UnsupportedLayerError(f"layer {layer.name!r} (Concatenate): cannot join along the batch axis")
    return Concatenate(name=layer.name, axis=axis - 1)
