"""Passes that give types to the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.optimizers.rewrite import whole

if TYPE_CHECKING:
    from kconvert.model import HLSModel


@whole
def apply_settings(model: HLSModel) -> bool:
    """Set the types and options the settings name; what they leave ``auto`` stays open."""
    model.config.check_names(model.nodes)
    for node in model.nodes:
        model.config.apply(node)
    return True


@whole
def infer_types(model: HLSModel) -> bool:
    """Choose every type still open, from the inputs on, so that no value is lost."""
    for node in model.nodes:
        node.infer_types(model.config.default)
    return True
