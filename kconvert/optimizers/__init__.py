"""The pipeline: from the graph as Keras describes it to one whose every tensor has a concrete type.

Read from top to bottom, it is the story of a conversion.
"""

from kconvert.optimizers.folding import fold_batch_normalization
from kconvert.optimizers.rewrite import Pass, rewrite, whole
from kconvert.optimizers.scales import factor_alpha, fold_scale_into_thresholds, join_scales
from kconvert.optimizers.structure import drop_identities, split_activations
from kconvert.optimizers.typing import apply_settings, infer_types

PIPELINE: tuple[Pass, ...] = (
    split_activations,  # Dense(activation="relu") becomes Dense and Relu, each with settings of its own
    apply_settings,  # the user's precision, reuse factor, ... reach the layers they name
    drop_identities,  # Dropout, linear activations: nothing left of them in hardware
    factor_alpha,  # the scale of quantised weights goes behind the sum: the weights stay small codes
    fold_batch_normalization,  # into the weights of the layer before
    join_scales,  # alpha and normalisation, or two of either, become one
    fold_scale_into_thresholds,  # a normalised value is compared: compare the value itself
    infer_types,  # what was left "auto" becomes lossless
)

__all__ = [
    "PIPELINE",
    "Pass",
    "apply_settings",
    "drop_identities",
    "factor_alpha",
    "fold_batch_normalization",
    "fold_scale_into_thresholds",
    "infer_types",
    "join_scales",
    "rewrite",
    "split_activations",
    "whole",
]
