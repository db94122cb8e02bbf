"""Attention: products of two tensors, and a softmax between them."""

from __future__ import annotations

import math

import numpy as np

from kconvert.converters.registry import Block, fits, only, reads, weights
from kconvert.converters.spec import LayerSpec
from kconvert.errors import ModelError
from kconvert.layers import Contraction, Dense, Reshape, Softmax, Value
from kconvert.layers.core import ScoreScale
from kconvert.types import FixedType


def _query_value_key(layer: LayerSpec, inputs: list[Value]) -> tuple[Value, Value, Value]:
    if len(inputs) not in (2, 3) or any(len(value.shape) != 2 for value in inputs):
        raise ModelError(
            f"layer {layer.name!r} ({layer.class_name}) needs query, value and perhaps key, each [steps, features], "
            f"not {[value.shape for value in inputs]}"
        )
    query, value, *key = inputs
    return query, value, key[0] if key else value


@reads("Attention")
def attention(layer: LayerSpec, inputs: list[Value]) -> Block:
    """``softmax(q k^T scale) v``; the nodes before the last are ``<layer>_scores``, ``_scale`` and ``_softmax``."""
    only(layer, "score_mode", "dot")
    query, value, key = _query_value_key(layer, inputs)
    block, name = Block(), layer.name
    scores = block.add(Contraction(name=f"{name}_scores", equation="ik,jk->ij"), query, key)
    if layer.config.get("use_scale"):
        (scale,) = weights(layer, 1)
        scores = block.add(ScoreScale(name=f"{name}_scale", scale=scale.reshape(1), bias=np.zeros(1)), scores)
    shares = block.add(Softmax(name=f"{name}_softmax"), scores)
    last = Contraction(name=name, layer=name, equation="ij,jk->ik")
    block.outputs = (block.add(last, shares, value),)
    return block


@reads("MultiHeadAttention")
def multi_head_attention(layer: LayerSpec, inputs: list[Value]) -> Block:
    """Attention by heads between matrices; the last of which is the node called as the layer.

    The scale ``1 / sqrt(key_dim)`` is part of the query's matrix.
    """
    only(layer, "use_gate", False)
    only(layer, "sliding_window", None)
    only(layer, "attention_axes", None, [1], 1)
    query, value, key = _query_value_key(layer, inputs)
    name, with_bias = layer.name, bool(layer.config.get("use_bias", True))
    arrays = weights(layer, 8 if with_bias else 4)
    kernels = arrays[::2] if with_bias else arrays
    no_biases = [np.zeros(kernel.shape[1:]) for kernel in kernels[:3]] + [np.zeros(kernels[3].shape[2:])]
    biases = arrays[1::2] if with_bias else no_biases
    heads, size = int(layer.config["num_heads"]), int(layer.config["key_dim"])
    value_size = int(layer.config.get("value_dim") or size)
    sizes = (size, size, value_size)
    outputs = kernels[3].shape[2:]
    for part, kernel, n, of in zip(("query", "key", "value"), kernels, sizes, (query, key, value), strict=False):
        fits(layer, f"{part} kernel", kernel, of.shape[-1], heads, n)
    fits(layer, "output kernel", kernels[3], heads, value_size, *outputs)
    scale = 1 / math.sqrt(size)
    kernels[0], biases[0] = kernels[0] * scale, biases[0] * scale

    block = Block()

    def dense(part: str, number: int, x: Value, fan_in: int) -> Value:
        node = Dense(name=part, weight=kernels[number].reshape(fan_in, -1), bias=biases[number].reshape(-1))
        node.preset = {} if with_bias else {"bias": FixedType(1, 1, signed=False)}  # zeros, for good
        return block.add(node, x)

    def by_head(part: str, number: int, x: Value) -> Value:
        flat = dense(f"{name}_{part}", number, x, x.shape[-1])
        return block.add(Reshape(name=f"{name}_{part}_heads", shape=(x.shape[0], heads, sizes[number])), flat)

    q, k, v = (by_head(part, i, x) for i, (part, x) in enumerate((("query", query), ("key", key), ("value", value))))
    scores = block.add(Contraction(name=f"{name}_scores", equation="ihd,jhd->hij"), q, k)
    shares = block.add(Softmax(name=f"{name}_softmax"), scores)
    seen = block.add(Contraction(name=f"{name}_context", equation="hij,jhd->ihd"), shares, v)
    rows = block.add(Reshape(name=f"{name}_rows", shape=(query.shape[0], heads * value_size)), seen)
    result = dense(name, 3, rows, heads * value_size)
    if len(outputs) > 1:
        result = block.add(Reshape(name=f"{name}_shape", shape=(query.shape[0], *outputs)), result)
    block.outputs = (result,)
    return block
