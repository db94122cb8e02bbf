"""Passes that move scales: the alpha of quantised weights, and normalisations that follow each other."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from kconvert.layers import ApplyAlpha, BatchNormalization, Thresholds, Weighted
from kconvert.optimizers.rewrite import rewrite
from kconvert.types import FixedType, common_power_of_two

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
    exponent = common_power_of_two(scale)
    if exponent is not None and layer.weight_type is not None:
        layer.weight = layer.weight * 2.0**exponent
        layer.weight_type = layer.weight_type.with_(integer=layer.weight_type.integer + exponent)
        return True
    chosen = layer.bias_type != layer.preset.get("bias", model.config.default)
    alpha = ApplyAlpha(
        name=f"{layer.name}_alpha",
        layer=layer.layer,
        layer_class=layer.layer_class,
        scale=scale,
        bias=layer.bias,
        bias_type=layer.bias_type if chosen else None,
        preset={role: kind for role, kind in layer.preset.items() if role == "bias"},
    )
    layer.bias, layer.bias_type = np.zeros_like(layer.bias), FixedType(1, 1, False)
    after = model.insert_after(layer.output, alpha)
    after.type, layer.result_type = layer.result_type, None
    after.names, layer.output.names = layer.output.names, []
    return True


@rewrite(BatchNormalization, then=BatchNormalization)
def join_scales(model: HLSModel, first: BatchNormalization, then: BatchNormalization) -> bool:
    """Make one scale and bias of two that follow each other, unless the user gave types to either."""
    if first.result_type is not None or _typed(first) or _typed(then):
        return False
    if not (first.of_last_axis and then.of_last_axis):
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
    """Compare the unscaled value with thresholds of its own.

    ``x s + b >= t`` is ``x >= (t - b) / s`` for s > 0 and ``x <= (t - b) / s`` for s < 0, where the steps are taken in
    the opposite order; for s = 0 every threshold is either always reached or never.
    """
    if norm.result_type is not None or _typed(norm) or not norm.of_last_axis:
        return False
    k = len(steps.thresholds)
    channels = max(norm.channels, steps.threshold_channels, steps.level_channels)
    scale, bias = (np.broadcast_to(part.reshape(-1), channels) for part in (norm.scale, norm.bias))
    old, flags = (np.broadcast_to(part, (k, channels)) for part in (steps.thresholds, steps.channel_inclusive))
    thresholds, inclusive = np.empty((k, channels), dtype=object), flags.copy()
    levels = np.broadcast_to(steps.channel_levels, (k + 1, channels)).copy()
    for c in range(channels):
        moved = [_unscaled(t, at, scale[c], bias[c]) for t, at in zip(old[:, c], flags[:, c], strict=True)]
        if scale[c] < 0:
            moved, inclusive[:, c], levels[:, c] = moved[::-1], ~flags[::-1, c], levels[::-1, c]
        thresholds[:, c] = moved
    shared = (levels == levels[:, :1]).all()
    steps.thresholds, steps.inclusive, steps.levels = thresholds, inclusive, levels[:, 0] if shared else levels
    norm.output.names = []  # its output exists no more
    model.remove(norm)
    return True


def _unscaled(threshold: Any, inclusive: bool, scale: float, bias: float) -> Fraction | float:
    """Return the x at which ``x scale + bias`` is at the threshold; an infinity if it always or never reaches it."""
    if math.isinf(threshold):
        return float(threshold if scale >= 0 else -threshold)
    distance = Fraction(threshold) - Fraction(float(bias))
    if scale:
        return distance / Fraction(float(scale))
    return -math.inf if distance < 0 or (distance == 0 and inclusive) else math.inf
