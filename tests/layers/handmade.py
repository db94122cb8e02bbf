"""Models of layers that no Keras layer is read as: built node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kconvert import HLSModel
from kconvert.converters.spec import ModelSpec, TensorRef
from kconvert.layers import Input, Node

SHAPES = {"vector": (6,), "wave": (4, 3), "image": (2, 3, 2)}


def graph(layers: Sequence[tuple[str, Node]], types: Mapping[str, Mapping[str, str]] | None = None) -> HLSModel:
    """Return a graph over the inputs of `SHAPES` on which no pass has run.

    Args:
        layers: What each layer reads, an input or a layer before it, and the layer. All of them are outputs.
        types: Precisions by role for layers by name.
    """
    config = {"LayerName": {name: {"Precision": dict(roles)} for name, roles in (types or {}).items()}}
    used = [name for name in SHAPES if any(source == name for source, _ in layers)]
    model = HLSModel(ModelSpec("handmade", (), tuple(map(TensorRef, used)), ()), config)
    values = {name: model.add(Input(name=name, shape=SHAPES[name])) for name in used}
    for source, node in layers:
        values[node.name] = model.add(node, values[source])
    model.outputs = [values[node.name] for _, node in layers]
    return model


def compiled(layers: Sequence[tuple[str, Node]], types: Mapping[str, Mapping[str, str]] | None = None) -> HLSModel:
    """Return the same with every pass run, compiled."""
    model = graph(layers, types)
    model.run()
    model.compile()
    return model
