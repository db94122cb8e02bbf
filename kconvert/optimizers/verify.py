"""What is legal in a graph; run after every pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.errors import GraphError
from kconvert.layers import Node, Weighted
from kconvert.layers.base import MAX_WIDTH, walk_types

if TYPE_CHECKING:
    from kconvert.model import HLSModel


def verify(model: HLSModel, *, final: bool = False) -> None:
    """Raise :class:`GraphError` naming the first node that breaks a rule.

    Always: every input is made by an earlier node that knows its reader, names are unique, outputs exist.
    With `final` (after the pipeline): activations are split, every type is set and fits.
    """
    seen: set[int] = set()
    names: set[str] = set()
    for node in model.nodes:
        for value in node.inputs:
            if id(value) not in seen:
                raise GraphError(f"layer {node.name!r} reads {value.producer.name!r}, which does not come before it")
            if node not in value.users:
                raise GraphError(f"layer {value.producer.name!r} does not know its reader {node.name!r}")
        if node.name in names:
            raise GraphError(f"two layers are called {node.name!r}")
        if node.output.shape != node.output_shape():
            raise GraphError(f"layer {node.name!r} has shape {node.output.shape}, but makes {node.output_shape()}")
        for user in node.output.users:
            if user not in model:
                raise GraphError(f"layer {node.name!r} is read by {user.name!r}, which is not in the model")
        seen.add(id(node.output))
        names.add(node.name)
        if final:
            _verify_final(node)
    for value in model.outputs:
        if id(value) not in seen:
            raise GraphError(f"the model's output {value.producer.name!r} is not in the model")


def _verify_final(node: Node) -> None:
    if isinstance(node, Weighted) and node.activation is not None:
        raise GraphError(f"layer {node.name!r} still holds its activation")
    for role, kind in walk_types(node):
        if kind is None:
            raise GraphError(f"layer {node.name!r}: the {role} type was not inferred")
        if kind.width > MAX_WIDTH:
            raise GraphError(f"layer {node.name!r}: the {role} type {kind} is wider than {MAX_WIDTH} bits")
