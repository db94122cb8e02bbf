"""Passes that move scales: the alpha of quantised weights, and normalisations that follow each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kconvert.layers import ApplyAlpha, BatchNormalization, Thresholds, Weighted
from kconvert.optimizers.rewrite import rewrite
from kconvert.types import FixedType

if TYPE_CHECKING:
    from kconvert.model import HLSModel


@rewrite(Weighted)
def factor_alpha(model: HLSModel, layer: Weighted) -> bool:
    """Take the scale out of quantised weights: they stay small codes, and their sum is scaled before the bias is added.

    One power of two for all outputs costs nothing: it only moves the binary point of the weights' type.
    """
    if layer.weight_scale is None:
        return False
    scale, layer.weight_scale = np.broadcast_to(layer.weight_scale, layer.bias.shape).copy(), None
    exponent = _common_power_of_two(scale)
    if exponent is not None and layer.weight_type is not None:
        layer.weight = layer.weight * 2.0**exponent
        layer.weight_type = layer.weight_type.with_(integer=layer.weight_type.integer + exponent)
        return True
    chosen = layer.bias_type not in (layer.preset.get("bias"), model.config.default)
    alpha = ApplyAlpha(
        name=f"{layer.name}_alpha",
        layer=layer.layer,
        layer_class=layer.layer_class,
        scale=scale,
        bias=layer.bias,
        bias_type=layer.bias_type if chosen else None,
    )
    layer.bias, layer.bias_type = np.zeros_like(layer.bias), FixedType(1, 1, False)
    after = model.insert_after(layer.output, alpha)
    after.type, layer.result_type = layer.result_type, None
    after.names, layer.output.names = layer.output.names, []
    return True


def _common_power_of_two(scale: np.ndarray) -> int | None:
    mantissa, exponent = np.frexp(scale.flat[0])
    return int(exponent) - 1 if mantissa == 0.5 and np.all(scale == scale.flat[0]) else None


@rewrite(BatchNormalization, then=BatchNormalization)
def join_scales(model: HLSModel, first: BatchNormalization, then: BatchNormalization) -> bool:
    """Make one scale and bias of two that follow each other, unless the user gave types to either."""
    if first.result_type is not None or _typed(first) or _typed(then):
        return False
    kind = ApplyAlpha if isinstance(first, ApplyAlpha) or isinstance(then, ApplyAlpha) else BatchNormalization
    joined = kind(
        name=then.name,
        layer=then.layer,
        layer_class=then.layer_class,
        scale=first.scale * then.scale,
        bias=first.bias * then.scale + then.bias,
    )
    result, names = then.result_type, then.output.names
    model.remove(then)
    after = model.replace(first, joined)
    after.type, after.names = result, names
    return True


def _typed(norm: BatchNormalization) -> bool:
    return norm.scale_type is not None or norm.bias_type is not None


@rewrite(BatchNormalization, then=Thresholds)
def fold_scale_into_thresholds(model: HLSModel, norm: BatchNormalization, steps: Thresholds) -> bool:
    """Compare the unscaled value with thresholds of its own: ``x s + b >= t`` is ``x >= (t - b) / s`` for s > 0."""
    if norm.result_type is not None or _typed(norm) or np.any(norm.scale <= 0):
        return False
    steps.thresholds = (steps.thresholds - norm.bias) / norm.scale
    norm.output.names = []  # its output exists no more
    model.remove(norm)
    return True
