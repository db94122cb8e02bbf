"""Layers that join several tensors."""

from __future__ import annotations

from kconvert.converters.registry import reads
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError, UnsupportedLayerError
from kconvert.layers import Add, Average, Concatenate, Maximum, Minimum, Multiply, Node, Subtract, Value

_ELEMENT_WISE = {kind.__name__: kind for kind in (Add, Subtract, Multiply, Average, Maximum, Minimum)}


@reads(*_ELEMENT_WISE)
def element_wise(layer: LayerSpec, inputs: list[Value]) -> Node:
    """A function of tensors of one shape, or of shapes that Keras repeats to one."""
    rank = max(len(v.shape) for v in inputs)
    for sizes in zip(*((1,) * (rank - len(v.shape)) + v.shape for v in inputs), strict=True):
        if len({1, *sizes}) > 2:
            shapes = ", ".join(str(v.shape) for v in inputs)
            raise ModelError(
                f"layer {layer.name!r} ({layer.class_name}): the shapes {shapes} cannot be repeated to one"
            )
    if layer.class_name == "Subtract" and len(inputs) != 2:
        raise ModelError(f"layer {layer.name!r} (Subtract): reads {len(inputs)} tensors, expected 2")
    return _ELEMENT_WISE[layer.class_name](name=layer.name)


@reads("Concatenate")
def concatenate(layer: LayerSpec, inputs: list[Value]) -> Node:
    """Tensors side by side along any axis but the batch."""
    rank = len(inputs[0].shape) + 1
    axis = int(layer.config.get("axis", -1))
    axis = axis + rank if axis < 0 else axis
    if not 1 <= axis < rank:
        raise UnsupportedLayerError(f"layer {layer.name!r} (Concatenate): cannot join along the batch axis")
    return Concatenate(name=layer.name, axis=axis - 1)
