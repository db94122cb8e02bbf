"""Passes that give types to the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.errors import ConfigError, PrecisionError
from kconvert.layers import ApplyAlpha, BatchNormalization, Input, Node
from kconvert.optimizers.rewrite import whole

if TYPE_CHECKING:
    from kconvert.model import HLSModel


@whole
def keep_quantised_exact(model: HLSModel) -> bool:
    """Keep tensors lossless from the inputs on where a model with quantizers says itself what is rounded, and where.

    A normalisation there gets types that hold its numbers. Behind weights without a quantizer, and behind tables,
    there is nothing to keep.
    """
    if not any(node.preset.keys() & {"weight", "result"} for node in model.nodes):
        return False
    exact: set[int] = set()
    for node in list(model.nodes):
        if isinstance(node, Input) or (_computes_exactly(node) and all(id(v) in exact for v in node.inputs)):
            kept = _holding_its_numbers(model, node)
            kept.stays_wide = not isinstance(kept, Input)
            exact.add(id(kept.output))
    return True


def _computes_exactly(node: Node) -> bool:
    role = next((r for r in ("weight", "table", "exp_table") if r in node.roles), None)
    return role is None or "weight" in node.preset or (role == "table" and "result" in node.preset)


def _holding_its_numbers(model: HLSModel, node: Node) -> Node:
    if type(node) is not BatchNormalization:
        return node
    holding = ApplyAlpha(
        name=node.name, layer=node.layer, layer_class=node.layer_class, scale=node.scale, bias=node.bias
    )
    return model.replace(node, holding).producer


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
        try:
            node.infer_types(model.config.default)
        except PrecisionError as error:
            raise ConfigError(
                f"layer {node.name!r}: its exact intermediate values are too wide ({error}); set Precision of "
                f"{node.layer!r}, or of what it reads, to types with fewer bits"
            ) from error
    return True
