"""Passes that fold one layer's arithmetic into another's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.layers import ApplyAlpha, BatchNormalization, Weighted
from kconvert.optimizers.rewrite import rewrite

if TYPE_CHECKING:
    from kconvert.model import HLSModel


def can_fold(layer: Weighted, norm: BatchNormalization) -> bool:
    """True unless something quantised would change: weights, a scale, a tensor or parameter that was given a type."""
    quantised = "weight" in layer.preset or isinstance(norm, ApplyAlpha)
    typed = any(kind is not None for kind in (layer.result_type, norm.scale_type, norm.bias_type))
    return not quantised and not typed and norm.of_last_axis


@rewrite(Weighted, then=BatchNormalization)
def fold_batch_normalization(model: HLSModel, layer: Weighted, norm: BatchNormalization) -> bool:
    """Scale the weights and bias of a layer instead of its outputs; its output is then the normalisation's."""
    if not can_fold(layer, norm):
        return False
    layer.scale_outputs(norm.scale, norm.bias)
    if layer.bias_type == layer.preset.get("bias"):
        layer.bias_type = None  # it had none to speak of, and has one now
    layer.output.names = []  # its own output exists no more; it takes over the normalisation's names
    layer.result_type = norm.result_type
    model.remove(norm)
    return True
