"""Passes that change the shape of the graph and never a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.layers import Identity, Weighted
from kconvert.optimizers.rewrite import rewrite

if TYPE_CHECKING:
    from kconvert.model import HLSModel


@rewrite(Weighted)
def split_activations(model: HLSModel, layer: Weighted) -> bool:
    """Put the activation of a layer behind it as a node of its own."""
    if layer.activation is None:
        return False
    activation, layer.activation = layer.activation, None
    after = model.insert_after(layer.output, activation)
    if not layer.output.names:  # inside of a Keras layer
        after.names = []
    return True


@rewrite(Identity)
def drop_identities(model: HLSModel, layer: Identity) -> bool:
    """Remove a layer that passes its input on, unless it was given a type to change to."""
    if layer.result_type is not None:
        return False
    model.remove(layer)
    return True
