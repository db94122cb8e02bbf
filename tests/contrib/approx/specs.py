"""Approximate layers in the neutral form, made by hand, and what they compute, product by product."""

from __future__ import annotations

from typing import Any

import numpy as np

from kconvert.converters.spec import LayerSpec, ModelSpec, TensorRef
from kconvert_contrib.approx.multipliers import EXACT_PRODUCTS, ApproximateMultiplier

Array = np.ndarray

INPUT_STEP, WEIGHT_STEP = 2.0**-4, 2.0**-6
ODD = ApproximateMultiplier.from_function('1 odd "name"; */', 0.5, lambda x, y: (x // 4 * 4) * y + 3)
"""Known by its table alone; 0 times anything is not 0, and it treats inputs and weights differently."""
MASKED = ApproximateMultiplier.from_table("masked", 0.4, EXACT_PRODUCTS // 32 * 32, "    return (x * y) & ~31;\n")
"""With arithmetic of its own."""


def input_layer(*shape: int) -> LayerSpec:
    return LayerSpec("InputLayer", "x", {"batch_shape": [None, *shape]}, ((),))


def layer(class_name: str, name: str, source: str, config: dict[str, Any] | None = None, *weights: Array) -> LayerSpec:
    return LayerSpec(class_name, name, config or {}, ((TensorRef(source),),), weights)


def model(*layers: LayerSpec, shape: tuple[int, ...], outputs: tuple[str, ...] = ()) -> ModelSpec:
    refs = tuple(TensorRef(name) for name in outputs or (layers[-1].name,))
    return ModelSpec("net", (input_layer(*shape), *layers), (TensorRef("x"),), refs)


def kernel(*shape: int, seed: int = 0) -> Array:
    """Weights that are no codes yet, some too large for one."""
    return np.random.default_rng(seed).normal(0, 0.7, shape).astype(np.float32)


def approx(
    kind: str,
    name: str,
    source: str,
    weight: Array,
    multiplier: ApproximateMultiplier | None,
    *,
    mode: str = "approximate",
    bias: Array | None = None,
    **config: Any,
) -> LayerSpec:
    """An approximate layer as a file of Keras has it."""
    config |= {"use_bias": bias is not None, "mode": mode, "activation": "linear", "multiplier": None, "source": None}
    weights = [
        weight,
        *([] if bias is None else [bias]),
        np.float32(INPUT_STEP),
        np.float32(WEIGHT_STEP),
        np.float32(0.1),
    ]
    if multiplier is not None:
        config |= {"multiplier": {"name": multiplier.name, "metric": multiplier.performance_metric}}
        config |= {"source": multiplier.cpp}
        weights.append(multiplier.table)
    return layer(f"Approx{kind}", name, source, config, *(np.asarray(w) for w in weights))


def codes(values: Array, step: float) -> Array:
    return np.clip(np.rint(np.asarray(values, np.float64) / step), -127, 127).astype(np.int64)


def sums(x: Array, w: Array, table: Array) -> Array:
    """Sums of products by table of codes [n, fan_in] and [fan_in, outputs]."""
    return table[x[:, :, None] + 128, w[None] + 128].sum(axis=1)


def dense(x: Array, weight: Array, table: Array = EXACT_PRODUCTS) -> Array:
    return sums(codes(x, INPUT_STEP), codes(weight, WEIGHT_STEP), table) * (INPUT_STEP * WEIGHT_STEP)


def conv(x: Array, weight: Array, table: Array = EXACT_PRODUCTS, pad: int = 0, stride: int = 1) -> Array:
    """A square kernel over images, with zeros around them; a kernel [size, size, channels, filters]."""
    fields = windows(x, len(weight), pad, stride)
    place = fields.shape[:3]
    w = codes(weight, WEIGHT_STEP).reshape(-1, weight.shape[-1])
    found = sums(codes(fields, INPUT_STEP).reshape(-1, len(w)), w, table)
    return found.reshape(*place, -1) * (INPUT_STEP * WEIGHT_STEP)


def depthwise(x: Array, weight: Array, table: Array = EXACT_PRODUCTS, pad: int = 0, stride: int = 1) -> Array:
    """The same with kernels [size, size, channels, filters of a channel]."""
    channels = [conv(x[..., c : c + 1], weight[:, :, c : c + 1], table, pad, stride) for c in range(x.shape[-1])]
    return np.concatenate(channels, axis=-1)


def windows(x: Array, size: int, pad: int, stride: int) -> Array:
    """Receptive fields [n, height, width, size, size, channels]."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return views.transpose(0, 1, 2, 4, 5, 3)
