"""The pipeline: from the graph as Keras describes it to one whose every tensor has a concrete type.

Read from top to bottom, it is the story of a conversion.
"""

from kconvert.errors import ConfigError, did_you_mean
from kconvert.optimizers.folding import fold_batch_normalization
from kconvert.optimizers.rewrite import Pass, rewrite, whole
from kconvert.optimizers.scales import factor_alpha, fold_scale_into_thresholds, join_scales
from kconvert.optimizers.structure import drop_identities, split_activations
from kconvert.optimizers.typing import apply_settings, infer_types, keep_quantised_exact

PIPELINE: tuple[Pass, ...] = (
    split_activations,  # Dense(activation="relu") becomes Dense and Relu, each with settings of its own
    keep_quantised_exact,  # what quantizers leave unrounded stays so, unless the settings say otherwise
    apply_settings,  # the user's precision, reuse factor, ... reach the layers they name
    drop_identities,  # Dropout, linear activations: nothing left of them in hardware
    factor_alpha,  # the scale of quantised weights goes behind the sum: the weights stay small codes
    fold_batch_normalization,  # into the weights of the layer before
    join_scales,  # alpha and normalisation, or two of either, become one
    fold_scale_into_thresholds,  # a normalised value is compared: compare the value itself
    infer_types,  # what was left "auto" becomes lossless
)

# What a conversion can do without: the others give the graph its meaning and its types.
OPTIONAL: frozenset[Pass] = frozenset(
    {drop_identities, fold_batch_normalization, join_scales, fold_scale_into_thresholds}
)

_added: list[tuple[Pass, str]] = []


def add_pass(step: Pass, *, before: str = "infer_types") -> None:
    """Let every conversion run a pass of a plugin too.

    Args:
        step: The pass.
        before: Name of the pass of :data:`PIPELINE` that it runs before; several run in the order they were added.

    Raises:
        ConfigError: there is no pass of that name, or another one has the name of `step`.
    """
    names = [known.name for known in PIPELINE]
    if before not in names:
        raise ConfigError(f"there is no pass {before!r}{did_you_mean(before, names)} (passes: {', '.join(names)})")
    if step.name in names or any(step.name == other.name and step is not other for other, _ in _added):
        raise ConfigError(f"another pass is called {step.name!r}")
    if (step, before) not in _added:
        _added.append((step, before))


def pipeline() -> tuple[Pass, ...]:
    """Return the passes of a conversion in order, those of plugins among them."""
    return tuple(step for own in PIPELINE for step in (*(extra for extra, before in _added if before == own.name), own))


__all__ = [
    "OPTIONAL",
    "PIPELINE",
    "Pass",
    "add_pass",
    "apply_settings",
    "drop_identities",
    "factor_alpha",
    "fold_batch_normalization",
    "fold_scale_into_thresholds",
    "infer_types",
    "join_scales",
    "keep_quantised_exact",
    "pipeline",
    "rewrite",
    "split_activations",
    "whole",
]
