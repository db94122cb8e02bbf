"""Passes that fold one layer's arithmetic into another's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kconvert.layers import BatchNormalization, Weighted
from kconvert.optimizers.rewrite import rewrite

if TYPE_CHECKING:
    from kconvert.model import HLSModel


def can_fold(layer: Weighted, norm: BatchNormalization) -> bool:
    """True unless the user gave a type to the tensor in between, or to the normalisation's own parameters."""
    return layer.result_type is None and norm.scale_type is None and norm.bias_type is None


@rewrite(Weighted, then=BatchNormalization)
def fold_batch_normalization(model: HLSModel, layer: Weighted, norm: BatchNormalization) -> bool:
    """Scale the weights and bias of a layer instead of its outputs; its output is then the normalisation's."""
    if not can_fold(layer, norm):
        return False
    layer.scale_outputs(norm.scale, norm.bias)
    layer.output.names = []  # its own output exists no more; it takes over the normalisation's names
    layer.result_type = norm.result_type
    model.remove(norm)
    return True
