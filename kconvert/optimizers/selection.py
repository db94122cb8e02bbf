"""Which passes run: ``Optimizers`` and ``SkipOptimizers`` of the settings, with the names other tools have for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

from kconvert.errors import ConfigError, ConfigWarning, did_you_mean
from kconvert.optimizers import OPTIONAL, Pass, pipeline

# What hls4ml calls a pass that does the same.
_OTHER_NAMES: Mapping[str, str] = {
    "eliminate_linear_activation": "drop_identities",
    "merge_linear_activation": "drop_identities",
    "fuse_batch_normalization": "fold_batch_normalization",
    "fuse_dense_batch_norm": "fold_batch_normalization",
    "fuse_dense_batch_normalization": "fold_batch_normalization",
    "fuse_consecutive_batch_normalization": "join_scales",
    "merge_batch_norm_quantized_tanh": "fold_scale_into_thresholds",
    "qkeras_factorize_alpha": "factor_alpha",
    "factorize_alpha": "factor_alpha",
    "infer_precision_types": "infer_types",
}
# Passes of hls4ml without a counterpart: the graph here is made without what they repair.
_NO_COUNTERPART = frozenset(
    {
        "bit_exact",
        "broadcast_stream",
        "channels_last_converter",
        "clone_output",
        "convert_to_channels_last",
        "enforce_proxy_model_embedded_config",
        "expand_layer_group",
        "expand_time_distributed",
        "extract_ternary_threshold",
        "fix_input_precision",
        "fix_softmax_table_size",
        "fuse_bias_add",
        "fuse_biasadd",
        "fuse_fixed_point_quantizer",
        "inplace_parallel_reshape",
        "optimize_pointwise_conv",
        "output_rounding_saturation_mode",
        "quantize_dense_output",
        "remove_final_reshape",
        "remove_nop_batch_normalization",
        "remove_nop_transpose",
        "remove_single_channel_transpose",
        "remove_transpose_before_flatten",
        "remove_useless_transpose",
        "replace_multidimensional_dense_with_conv",
        "reshape_stream",
        "separable_to_depthwise_and_conv",
        "set_precision_concat",
        "skip_softmax",
        "transform_types",
        "xnor_pooling",
    }
)


def select_passes(only: Iterable[str] | None, skipped: Iterable[str]) -> Sequence[Pass]:
    """Return the pipeline, in its order, with the optional passes that the settings ask for.

    Args:
        only: Names of the optional passes to run, ``Optimizers``; None for all.
        skipped: Names of passes to leave out, ``SkipOptimizers``.

    Raises:
        ConfigError: a name is unknown, or a pass that a conversion needs is to be skipped.
    """
    wanted = set(OPTIONAL) if only is None else set(_named("Optimizers", only))
    unwanted = set(_named("SkipOptimizers", skipped))
    needed = [step.name for step in pipeline() if step in unwanted - OPTIONAL]
    if needed:
        raise ConfigError(
            f"SkipOptimizers: {', '.join(needed)} cannot be skipped, no conversion works without "
            f"(can be skipped: {', '.join(step.name for step in pipeline() if step in OPTIONAL)})"
        )
    return tuple(step for step in pipeline() if step not in OPTIONAL or step in wanted - unwanted)


def _named(key: str, names: Iterable[str]) -> list[Pass]:
    known = {step.name: step for step in pipeline()}
    found = []
    for name in names:
        own = _OTHER_NAMES.get(name, name)
        if own in known:
            found.append(known[own])
        elif own in _NO_COUNTERPART:
            warnings.warn(f"{key}: {name} has no counterpart here; it is left out", ConfigWarning, stacklevel=4)
        else:
            raise ConfigError(
                f"{key}: unknown pass {name!r}{did_you_mean(name, [*known, *_OTHER_NAMES])} (known: {', '.join(known)})"
            )
    return found
